"""What a caller may choose about inference: tiling, precision and the size of the result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

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


@dataclass(frozen=True, slots=True)
class Target:
    """The size of the result: ``scale`` times the input, 1 to ``MAX_SCALE``, fractions allowed."""

    scale: Fraction

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= MAX_SCALE:
            raise ValueError(f"a scale of {float(self.scale):g} is not between 1 and {MAX_SCALE}")

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``"4"``, ``"2.5"``, ``"4x"``, ``"x4"`` or ``"8/3"``; raise ValueError for anything else."""
        try:
            scale = Fraction(text.strip().lower().strip("x"))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{text!r} is not a number") from None
        return cls(scale)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the result for an input of ``height`` by ``width``."""
        return max(1, _round(height * self.scale)), max(1, _round(width * self.scale))

    def __str__(self) -> str:
        """Return the factor as it stands in file names: ``4`` or ``2.5``."""
        return f"{float(self.scale):g}"


def _round(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))
