from __future__ import annotations

from fractions import Fraction

import pytest

from upscale.options import Target, Tiling


@pytest.mark.parametrize(
    ("text", "scale"), [("4", 4), ("2.5", Fraction(5, 2)), ("x3", 3), ("3X", 3), ("8/3", Fraction(8, 3))]
)
def test_factors(text: str, scale: Fraction) -> None:
    assert Target.parse(text).value == scale


@pytest.mark.parametrize("text", ["0", "-2", "33", "abc", "", "1/0", "nan", "inf", "0.99"])
def test_impossible_factors(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a number|not between"):
        Target.parse(text)


def test_sizes_are_rounded_to_nearest_and_never_vanish() -> None:
    assert Target.parse("1.5").size(3, 5) == (5, 8)
    assert Target.parse("2.5").size(101, 1) == (253, 3)


@pytest.mark.parametrize(("size", "overlap"), [(63, None), (64, 33), (None, -1)])
def test_impossible_tilings(size: int | None, overlap: int | None) -> None:
    with pytest.raises(ValueError, match=r"too small|more than half|negative"):
        Tiling(size=size, overlap=overlap)
