from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch

from upscale.tiling import plan_spans


def random_plans(count: int) -> list[tuple[int, int, int, bool, int]]:
    rng = random.Random(0)
    plans = []
    for _ in range(count):
        m = rng.choice([1, 1, 2, 4])
        tile = m * rng.randint(4, 40)
        hard = rng.random() < 0.5
        overlap = rng.randint(0, tile - m if hard else tile // 2)
        if overlap > tile - m:
            overlap = tile - m
        plans.append((rng.randint(1, 400), tile, overlap, hard, m))
    return plans


@pytest.mark.parametrize(("length", "tile", "overlap", "hard", "multiple_of"), random_plans(200))
def test_windows_sum_to_one_and_tiles_share_the_overlap(
    length: int, tile: int, overlap: int, hard: bool, multiple_of: int
) -> None:
    spans = plan_spans(length, tile, overlap, hard=hard, multiple_of=multiple_of)
    total = torch.zeros(3 * length)
    for span in spans:
        total[3 * span.first : 3 * span.last] += span.window(3)
        assert span.start % multiple_of == 0
        assert span.stop - span.start <= tile
        assert span.start <= span.first < span.last <= span.stop
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)
    for before, after in pairwise(spans):
        assert before.stop - after.start >= overlap or before.stop == length


@pytest.mark.parametrize(("length", "tile", "overlap", "hard", "multiple_of"), random_plans(200))
def test_a_hard_cut_leaves_half_of_the_overlap_on_both_sides(
    length: int, tile: int, overlap: int, hard: bool, multiple_of: int
) -> None:
    spans = plan_spans(length, tile, overlap, hard=True, multiple_of=multiple_of)
    for before, after in pairwise(spans):
        assert before.last == after.first
        assert after.first - after.start >= overlap // 2
        assert before.stop - before.last >= overlap // 2 or before.stop == length


def test_a_short_axis_is_one_tile() -> None:
    (span,) = plan_spans(17, 64, 16, hard=False)
    assert (span.start, span.stop) == (0, 17)
    assert torch.equal(span.window(2), torch.ones(34))
