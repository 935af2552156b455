"""Drawings made by the program, alone and in batches."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.train.conftest import recipe
from upscale.errors import UsageError
from upscale.train.data import Batches, Pictures
from upscale.train.degradation import degrade
from upscale.train.drawings import draw


def drawn(scale: int, seed: int, edge: int = 40) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return LR of a drawing, and GT averaged over each of its pixels."""
    gt, lr = draw(edge, scale, np.random.default_rng([scale, seed]))
    assert gt.shape == (edge * scale, edge * scale, 3)
    assert lr.shape == (edge, edge, 3)
    return lr.astype(np.float64), cv2.resize(gt, (edge, edge), interpolation=cv2.INTER_AREA).astype(np.float64)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_gt_is_lr_without_its_stairs_and_nowhere_shifted(scale: int) -> None:
    push, steepness, errors, lined = np.zeros(2), np.zeros(2), [], 0
    for seed in range(200):
        lr, mean = drawn(scale, seed)
        errors.append(np.abs(lr - mean).mean())
        lined += bool(np.abs(np.diff(lr, axis=0)).max() > 30)
        for axis in (0, 1):
            slope = np.gradient(mean, axis=axis)
            push[axis] += ((lr - mean) * slope).sum()
            steepness[axis] += (slope**2).sum()
    assert np.abs(push / steepness).max() < 0.03  # LR pixels that GT is off on average, to first order
    assert np.mean(errors) < 4
    assert 80 < lined < 160  # neither all flat nor none


def test_drawings_of_one_seed_are_the_same() -> None:
    first, second = (draw(24, 2, np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[1], draw(24, 2, np.random.default_rng(6))[1])


def test_a_part_of_the_crops_is_drawn_half_of_them_without_antialiasing(pictures: Pictures) -> None:
    plain, some = (Batches(pictures, recipe("data.batch_size=8", f"data.drawn={share}")) for share in (0.0, 0.3))
    of_pictures = {colour for array in pictures.arrays for colour in map(tuple, array.reshape(-1, 3))}
    count = stairs = 0
    for step in range(25):
        batch = some.batch(step)
        reduced = degrade(batch.gt, 2)
        for lr, gt, again in zip(batch.lr, batch.gt, reduced, strict=True):
            colours = {tuple(colour) for colour in (gt * 255).round().byte().permute(1, 2, 0).reshape(-1, 3).tolist()}
            count += not colours <= of_pictures
            # Inside, where no reduced pixel saw what is beyond the crop.
            stairs += not torch.equal(lr[:, 2:-2, 2:-2], again[:, 2:-2, 2:-2])
        assert torch.equal(plain.batch(step).lr[:, :, 2:-2, 2:-2], degrade(plain.batch(step).gt, 2)[..., 2:-2, 2:-2])
    assert 40 < count < 80
    assert 0.2 * count < stairs < 0.6 * count  # of those without antialiasing, some are flat


def test_drawings_are_degraded_as_pictures_are(pictures: Pictures) -> None:
    blind = Batches(pictures, recipe("data.drawn=1", "degradation.kind=blind")).batch(0)
    bicubic = Batches(pictures, recipe("data.drawn=1")).batch(0)
    assert torch.equal(blind.gt, bicubic.gt)
    assert not torch.equal(blind.lr, bicubic.lr)


def test_a_share_is_a_share() -> None:
    with pytest.raises(UsageError, match=r"data\.drawn is 2"):
        recipe("data.drawn=2")
