from __future__ import annotations

from fractions import Fraction

import pytest

from upscale.errors import InputError
from upscale.options import Measure, Target, Tiling


@pytest.mark.parametrize(
    ("text", "scale"), [("4", 4), ("2.5", Fraction(5, 2)), ("x3", 3), ("3X", 3), ("8/3", Fraction(8, 3))]
)
def test_factors(text: str, scale: Fraction) -> None:
    assert Target.parse(text).value == scale


@pytest.mark.parametrize(
    "text", ["0", "-2", "33", "abc", "", "1/0", "nan", "inf", "0.99", "1e400", "1e999999999", "1.2.3", "1 2"]
)
def test_impossible_factors(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a number|not between"):
        Target.parse(text)


def test_sizes_are_rounded_to_nearest_and_never_vanish() -> None:
    assert Target.parse("1.5").size(3, 5) == (5, 8)
    assert Target.parse("2.5").size(101, 1) == (253, 3)


@pytest.mark.parametrize(
    ("measure", "text", "size"),
    [
        (Measure.WIDTH, "200", (100, 200)),
        (Measure.HEIGHT, "200", (200, 400)),
        (Measure.LONG, "200", (100, 200)),
        (Measure.SHORT, "200", (200, 400)),
        (Measure.MEGAPIXELS, "0.02", (100, 200)),
        (Measure.MEGAPIXELS, "2e-2", (100, 200)),
        (Measure.FIT, "200 x 400", (100, 200)),
        (Measure.FIT, "200x400", (100, 200)),
        (Measure.AT_LEAST, "200x400", (400, 800)),
        (Measure.WIDTH, "100", (50, 100)),
        (Measure.WIDTH, "60", (50, 100)),  # large enough already
        (Measure.WIDTH, "133", (67, 133)),
    ],
)
def test_measures(measure: Measure, text: str, size: tuple[int, int]) -> None:
    target = Target.parse(text, measure)
    assert target.size(50, 100) == size
    assert target.is_reached(50, 100) == (size == (50, 100))
    assert Target.parse(text, measure.value) == Target.parse(text, measure)


@pytest.mark.parametrize(
    ("measure", "text"),
    [
        (Measure.WIDTH, "0"),
        (Measure.WIDTH, "-5"),
        (Measure.WIDTH, "10.5"),
        (Measure.WIDTH, "1e400"),
        (Measure.MEGAPIXELS, "1e-999999999"),
        (Measure.FIT, "10"),
        (Measure.FIT, "10x"),
        (Measure.FIT, "10x0"),
        (Measure.AT_LEAST, "axb"),
        (Measure.MEGAPIXELS, "0"),
    ],
)
def test_impossible_measures(measure: Measure, text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|not a|not more than 0"):
        Target.parse(text, measure)


def test_more_than_the_largest_factor_is_refused() -> None:
    with pytest.raises(InputError, match="enlarged 33 times"):
        Target.parse("330", Measure.WIDTH).size(10, 10)


@pytest.mark.parametrize(("size", "overlap"), [(63, None), (64, 33), (None, -1)])
def test_impossible_tilings(size: int | None, overlap: int | None) -> None:
    with pytest.raises(ValueError, match=r"too small|more than half|negative"):
        Tiling(size=size, overlap=overlap)
