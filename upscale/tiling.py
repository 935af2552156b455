"""Cut an image into overlapping tiles and fade their results back together.

Along one axis, each tile hands over to the next in the middle of the pixels they share: by a hard cut, where the
network sees no further than half of the overlap, or by a raised-cosine fade over half of the overlap, so that the
outer quarter, where a network sees too little context, never reaches the output. The windows of one axis sum to 1 at
every pixel; the window of a tile is the outer product of its row and column windows, so stitching needs no weight
buffer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Span:
    """One tile's extent along one axis, in LR pixels."""

    start: int
    stop: int
    fade_in_at: int | None  # where the previous tile hands over, None at the image border
    fade_out_at: int | None  # where the next tile takes over, None at the image border
    fade: float  # width of both handovers; 0 is a hard cut

    @property
    def first(self) -> int:
        """The first pixel that this tile contributes to."""
        return self.start if self.fade_in_at is None else math.floor(self.fade_in_at - self.fade / 2)

    @property
    def last(self) -> int:
        """One past the last pixel that this tile contributes to."""
        return self.stop if self.fade_out_at is None else math.ceil(self.fade_out_at + self.fade / 2)

    def window(self, scale: int) -> Tensor:
        """Return the weight of each output pixel from ``first`` to ``last``, float32 in [0, 1]."""
        x = (torch.arange(scale * (self.last - self.first), dtype=torch.float64) + 0.5) / scale + self.first
        w = torch.ones_like(x)
        if self.fade_in_at is not None and self.fade:
            w = w * _smooth((x - self.fade_in_at) / self.fade + 0.5)
        if self.fade_out_at is not None and self.fade:
            w = w * _smooth((self.fade_out_at - x) / self.fade + 0.5)
        return w.float()


def _smooth(t: Tensor) -> Tensor:
    """Rise from 0 to 1 along a raised cosine; the values at ``t`` and ``1 - t`` add up to 1."""
    return 0.5 - 0.5 * torch.cos(torch.pi * t.clamp(0, 1))


def plan_spans(length: int, tile: int, overlap: int, *, hard: bool, multiple_of: int = 1) -> list[Span]:
    """Cover ``length`` pixels with equally sized tiles of at most ``tile`` that share at least ``overlap``.

    As few tiles as ``tile`` allows, and no larger than that number needs. ``overlap`` is less than ``tile``; for fades
    (``hard`` false) it is at most half of it, so that a tile's two fades never meet. Tiles start at multiples of
    ``multiple_of``, a network's pixel-unshuffle grid.

    >>> [(s.start, s.stop) for s in plan_spans(100, tile=48, overlap=8, hard=False)]
    [(0, 39), (30, 69), (61, 100)]
    """
    fade = 0 if hard or overlap < 2 else overlap / 2  # one shared pixel has no room for a fade
    if length <= tile:
        return [Span(0, length, None, None, fade)]
    count = _count(length, tile, overlap, multiple_of)
    while _count(length, tile - multiple_of, overlap, multiple_of) == count:
        tile -= multiple_of
    steps = -(-(length - tile) // multiple_of)
    starts = [i * steps // (count - 1) * multiple_of for i in range(count)]
    cuts = [(a + tile + b) // 2 for a, b in pairwise(starts)]
    return [
        Span(start, min(start + tile, length), fade_in_at, fade_out_at, fade)
        for start, fade_in_at, fade_out_at in zip(starts, [None, *cuts], [*cuts, None], strict=True)
    ]


def _count(length: int, tile: int, overlap: int, multiple_of: int) -> int:
    """Return how many tiles cover ``length``: their starts lie on the grid and at most ``tile - overlap`` apart."""
    steps = -(-(length - tile) // multiple_of)  # from the first start to the last, in units of the grid
    longest = max(1, (tile - overlap) // multiple_of)  # from one start to the next
    return 1 - (-steps // longest)
