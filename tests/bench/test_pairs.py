"""Two pictures against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from upscale.bench.pairs import HOT, faith, figures, heat_map
from upscale.bench.sets import reduce
from upscale.errors import InputError
from upscale.images import Image
from upscale.metrics import PROTOCOLS


def picture(height: int = 48, width: int = 64) -> Image:
    rows, columns = np.mgrid[:height, :width] / 64
    waves = [0.5 + 0.4 * np.sin(6 * rows + k) * np.cos(5 * columns) for k in range(3)]
    return Image(pixels=np.rint(np.stack(waves, -1) * 255).astype(np.uint8))


def test_an_enlargement_that_reduces_to_its_source_is_faithful() -> None:
    large = picture()
    found = faith(large, Image(pixels=reduce(large.pixels, 2)))
    assert found.scale == 2
    assert found.consistency > 55  # rounding to 8 bits alone is 59 dB
    assert found.color_worst < 0.7
    assert found.contrast == pytest.approx(1, abs=0.02)


def test_colours_of_what_is_transparent_are_nobodys_concern() -> None:
    large = picture()
    alpha = np.where(np.arange(64) < 32, 255, 0).astype(np.uint8)[None].repeat(48, 0)
    source = Image(pixels=reduce(large.pixels, 2), alpha=alpha[::2, ::2])
    hidden = np.where(alpha[..., None] == 0, 9, large.pixels).astype(np.uint8)
    assert faith(Image(pixels=hidden, alpha=alpha), source).color_mean < 0.5
    assert faith(Image(pixels=hidden), Image(pixels=source.pixels)).color_mean > 10
    (row,) = figures(
        {"a": Image(pixels=hidden, alpha=alpha)}, Image(pixels=large.pixels, alpha=alpha), PROTOCOLS["rgb"], 0
    ).rows
    assert row[1].text == "inf"
    (row,) = figures({"a": Image(pixels=large.pixels, alpha=alpha)}, large, PROTOCOLS["rgb"], 0).rows
    assert float(row[1].text) < 20


def test_what_is_outside_of_the_border_does_not_count() -> None:
    large = picture()
    other = large.pixels.copy()
    other[:4] = 0
    (row,) = figures({"a": Image(pixels=other)}, large, PROTOCOLS["y"], 4).rows
    assert [cell.text for cell in row[1:]] == ["inf", "1.00000", row[3].text, "0.000"]
    (row,) = figures({"a": Image(pixels=other)}, large, PROTOCOLS["y"], 3).rows
    assert row[4].text != "0.000"


def test_a_tint_shows_as_colour_and_sharpening_as_contrast() -> None:
    large = picture()
    source = Image(pixels=reduce(large.pixels, 2))
    tinted = large.pixels.astype(int) + np.array([12, 0, -12])
    sharper = 128 + (large.pixels.astype(int) - 128) * 1.2
    tint = faith(Image(pixels=np.clip(tinted, 0, 255).astype(np.uint8)), source)
    sharp = faith(Image(pixels=np.clip(sharper, 0, 255).astype(np.uint8)), source)
    assert tint.color_mean > 3
    assert tint.contrast == pytest.approx(1, abs=0.05)
    assert sharp.contrast == pytest.approx(1.2, abs=0.05)
    assert tint.heat.mean() > 60


def test_a_difference_shows_where_it_is() -> None:
    large = picture()
    spoilt = large.pixels.copy()
    spoilt[8:16, 40:48] = (255, 0, 255)
    heat = faith(Image(pixels=spoilt), Image(pixels=reduce(large.pixels, 2))).heat.sum(2)
    assert heat[4:8, 20:24].min() > 200
    assert heat[14:].max() < 60


@pytest.mark.parametrize(("size", "accepted"), [((97, 128), True), ((90, 128), False), ((24, 32), False)])
def test_only_enlargements_are_checked(size: tuple[int, int], accepted: bool) -> None:
    source = picture(48, 64)
    if accepted:
        assert faith(picture(*size), source).scale == pytest.approx(2, abs=0.02)
    else:
        with pytest.raises(InputError, match="is no enlargement of 64x48"):
            faith(picture(*size), source)


def test_heat_rises_from_black_to_white() -> None:
    colours = heat_map(np.array([[0, HOT / 3, 2 * HOT / 3, HOT, 99]]))
    assert colours.tolist() == [[[0, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255], [255, 255, 255]]]


def test_figures_of_equal_and_of_small_pictures() -> None:
    same, small = picture(), picture(9, 9)
    grid = figures({"a": same}, same, PROTOCOLS["y"], 0)
    assert [cell.value for cell in grid.rows[0][1:3]] == [math.inf, pytest.approx(1)]
    assert grid.rows[0][3].text == "-"  # 48 pixels are too few for five scales
    assert figures({"a": small}, small, PROTOCOLS["y"], 0).rows[0][2].text == "-"
