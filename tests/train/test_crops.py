"""Crops: where they are, how they are turned, and from which memory they are cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.conftest import picture
from upscale.images import Pixels
from upscale.train.crops import Draw, InMemory, OnDevice, Places, Shelf

CPU = torch.device("cpu")
ARRAYS = [picture(48, 64, 0), picture(33, 29, 1), picture(20, 90, 2)]


def draw(cut: int, candidates: int, arrays: list[Pixels], shares: tuple[float, ...] = (3.0, 0.0, 1.0)) -> Draw:
    sizes = np.array([array.shape[:2] for array in arrays])
    return Draw(64, 2 * cut, cut, candidates, sizes, np.array(shares))


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("given", [False, True])
def test_a_device_cuts_the_same_crops(candidates: int, given: bool) -> None:
    reduced = [array[::2, ::2] for array in ARRAYS]
    drawn = draw(9, candidates, reduced if given else ARRAYS)
    places = drawn.places(np.random.default_rng(0).random((64, drawn.numbers)))
    shelves: list[Shelf] = [
        InMemory(ARRAYS, reduced if given else None, 2),
        OnDevice(ARRAYS, reduced if given else None, 2, CPU),
    ]
    (gt, lr), (gt_again, lr_again) = (shelf.cut(places, drawn) for shelf in shelves)
    assert torch.equal(gt, gt_again)
    assert gt.shape == ((64, 18, 18, 3) if given else (64, 9, 9, 3))
    assert len(torch.unique(gt, dim=0)) > 50
    if given:
        assert lr is not None
        assert lr_again is not None
        assert torch.equal(lr, lr_again)
        assert lr.shape == (64, 9, 9, 3)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("device", [False, True])
def test_crops_are_turned_to_the_left_then_mirrored(device: bool, turns: int, mirror: bool) -> None:
    shelf: Shelf = OnDevice(ARRAYS, None, 1, CPU) if device else InMemory(ARRAYS, None, 1)
    one = np.array([1])
    places = Places(one, one[:, None], 2 * one[:, None], turns * one, np.array([mirror]))
    cut, _ = shelf.cut(places, draw(7, 1, ARRAYS))
    turned = np.rot90(ARRAYS[1][1:8, 2:9], turns)
    assert np.array_equal(cut[0].numpy(), turned[:, ::-1] if mirror else turned)


@pytest.mark.parametrize("device", [False, True])
def test_of_the_candidates_the_one_with_the_most_detail_is_cut(device: bool) -> None:
    flat = np.full((20, 40, 3), 90, np.uint8)
    flat[:, 20:] = picture(20, 20)
    shelf: Shelf = OnDevice([flat], None, 1, CPU) if device else InMemory([flat], None, 1)
    one = np.array([0])
    lefts = np.array([[0, 30, 5]])
    places = Places(one, np.zeros_like(lefts), lefts, one, np.array([False]))
    cut, _ = shelf.cut(places, draw(8, 3, [flat], (1.0,)))
    assert np.array_equal(cut[0].numpy(), flat[:8, 30:38])


def test_places_are_spread_over_all_that_pictures_have_by_their_shares() -> None:
    drawn = draw(20, 1, ARRAYS)
    places = drawn.places(np.random.default_rng(0).random((4000, drawn.numbers)))
    counts = np.bincount(places.pictures, minlength=3)
    assert counts[1] == 0
    assert 2.6 < counts[0] / counts[2] < 3.4
    of_first = places.pictures == 0
    assert (places.tops[of_first].min(), places.tops[of_first].max()) == (0, 28)
    assert (places.lefts[of_first].min(), places.lefts[of_first].max()) == (0, 44)
    assert set(places.turns) == {0, 1, 2, 3}
    assert 0.45 < places.mirrors.mean() < 0.55
