"""What a caller may choose about inference: tiling, precision and the size of the result."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from upscale.errors import InputError

MIN_TILE = 64  # LR pixels; below it, most of a tile would be overlap
MAX_SCALE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How an image is cut for the network, in LR pixels."""

    size: int | None = None
    """Edge of a tile, at least ``MIN_TILE``; None: what suits the device."""
    overlap: int | None = None
    """What neighbouring tiles share, at most half of ``size``; None: what the network needs."""

    def __post_init__(self) -> None:
        if self.size is not None and self.size < MIN_TILE:
            raise ValueError(f"a tile of {self.size} is too small, the least is {MIN_TILE}")
        if self.overlap is not None and self.overlap < 0:
            raise ValueError(f"an overlap of {self.overlap} is negative")
        if self.size is not None and self.overlap is not None and self.overlap > self.size // 2:
            raise ValueError(f"an overlap of {self.overlap} is more than half of the tile of {self.size}")


class Precision(StrEnum):
    """The dtype of the forward pass."""

    AUTO = "auto"
    FP16 = "fp16"
    BF16 = "bf16"
    FP32 = "fp32"


class Measure(StrEnum):
    """What a number says about the size of the result."""

    SCALE = "scale"
    WIDTH = "width"
    HEIGHT = "height"
    LONG = "long"
    """The longer side."""
    SHORT = "short"
    """The shorter side."""
    MEGAPIXELS = "megapixels"
    FIT = "fit"
    """As large as fits into a box."""
    AT_LEAST = "at-least"
    """As small as covers a box."""


_BOXES = (Measure.FIT, Measure.AT_LEAST)


@dataclass(frozen=True, slots=True)
class Target:
    """The size of the result, in the proportions of the input and never smaller than it."""

    value: Fraction
    """Factor, pixels or megapixels, as ``measure`` says; the width of a box."""
    measure: Measure = Measure.SCALE
    box_height: Fraction | None = None

    def __post_init__(self) -> None:
        if self.measure is Measure.SCALE and not 1 <= self.value <= MAX_SCALE:
            raise ValueError(f"a scale of {float(self.value):g} is not between 1 and {MAX_SCALE}")
        if self.value <= 0 or (self.box_height is not None and self.box_height <= 0):
            raise ValueError(f"{self} is not more than 0")

    @classmethod
    def parse(cls, text: str, measure: Measure | str = Measure.SCALE) -> Target:
        """Read ``"4"``, ``"2.5"``, ``"4x"``, ``"x4"`` or ``"8/3"``; for a box ``"1920x1080"``.

        Raises:
            ValueError: anything else.
        """
        text, measure = text.strip().lower(), Measure(measure)
        if measure in _BOXES:
            width, cross, height = text.partition("x")
            if not cross:
                raise ValueError(f"{text!r} is not WIDTHxHEIGHT")
            return cls(_number(width, text, whole=True), measure, _number(height, text, whole=True))
        if measure is Measure.SCALE:
            return cls(_number(text.strip("x"), text))
        return cls(_number(text, text, whole=measure is not Measure.MEGAPIXELS), measure)

    def factor(self, height: int, width: int) -> Fraction:
        """Return by how much a picture of ``height`` by ``width`` is enlarged: 1 if it is large enough already.

        Raises:
            InputError: by more than ``MAX_SCALE``.
        """
        wanted = self._wanted(height, width)
        if wanted > MAX_SCALE:
            raise InputError(f"{width}x{height} would be enlarged {float(wanted):.0f} times; the most is {MAX_SCALE}")
        return max(Fraction(1), wanted)

    def _wanted(self, height: int, width: int) -> Fraction:
        match self.measure:
            case Measure.SCALE:
                return self.value
            case Measure.WIDTH:
                return self.value / width
            case Measure.HEIGHT:
                return self.value / height
            case Measure.LONG:
                return self.value / max(height, width)
            case Measure.SHORT:
                return self.value / min(height, width)
            case Measure.MEGAPIXELS:
                return Fraction(math.sqrt(self.value * 10**6 / (height * width)))
        across, down = self.value / width, (self.box_height or self.value) / height
        return min(across, down) if self.measure is Measure.FIT else max(across, down)

    def is_reached(self, height: int, width: int) -> bool:
        """Tell whether a picture of ``height`` by ``width`` has the size asked for; a factor always asks for work."""
        return self.measure is not Measure.SCALE and self._wanted(height, width) <= 1

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the result for an input of ``height`` by ``width``."""
        factor = self.factor(height, width)
        return max(1, _round(height * factor)), max(1, _round(width * factor))

    def __str__(self) -> str:
        """Return what stands in file names: ``x4``, ``x2.5``, ``1920w``, ``12mp``, ``1920x1080``."""
        number = f"{float(self.value):.10g}"
        match self.measure:
            case Measure.SCALE:
                return f"x{number}"
            case Measure.MEGAPIXELS:
                return f"{number}mp"
            case Measure.FIT | Measure.AT_LEAST:
                return f"{number}x{float(self.box_height or self.value):.10g}"
        return f"{number}{self.measure[0]}"


def _number(text: str, whole_text: str, *, whole: bool = False) -> Fraction:
    try:
        if not re.fullmatch(r"\s*[-+]?[\d.]{1,30}(/\d{1,30}|[eE][-+]?\d{1,2})?\s*", text):  # 1e999999999 takes forever
            raise ValueError
        number = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{whole_text!r} is not a number") from None
    if whole and number.denominator != 1:
        raise ValueError(f"{whole_text!r} is not a whole number of pixels")
    return number


def _round(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))
