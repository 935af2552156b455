"""Networks on a device: single tiles, and columns of an image row by row."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from upscale.device import DTYPES
from upscale.errors import NonFiniteOutput
from upscale.images import Pixels
from upscale.imaging import to_tensor
from upscale.models import Generator
from upscale.models.rows import Part, Rows
from upscale.options import Precision

OnTile = Callable[[int, int], None]


class Progress:
    """Counts tiles and tells the caller."""

    def __init__(self, on_tile: OnTile | None, total: int) -> None:
        self.on_tile = on_tile
        self.total = total
        self.done = 0
        self.float32_tiles = 0

    def tile(self) -> None:
        """Count a tile that is done."""
        self.done += 1
        if self.on_tile is not None:
            self.on_tile(self.done, self.total)


class Network:
    """A generator on its device: float32, and a half-precision copy for the forward pass."""

    def __init__(self, generator: Generator, device: torch.device, precision: Precision) -> None:
        self.generator = generator
        self.scale = generator.scale
        self.device = device
        self.layout = torch.contiguous_format if device.type == "mps" else torch.channels_last
        versions = [generator]
        if precision is not Precision.FP32 and next(generator.parameters(), None) is not None:
            versions.insert(0, copy.deepcopy(generator))
            versions[0].to_precision(DTYPES[precision])
        self.versions = [version.to(device, memory_format=self.layout) for version in versions]  # type: ignore[call-overload]

    @torch.inference_mode()
    def run(self, tile: Pixels, progress: Progress) -> Tensor:
        """Map ``tile`` ``[h, w, 3]`` to ``[3, s*h, s*w]`` on the CPU, in float32 if half precision overflows."""
        h, w = tile.shape[:2]
        x = self.to_device(_padded(tile, self.generator.multiple_of))
        for attempt, version in enumerate(self.versions):
            sr = _checked(version(x))
            if sr is not None:
                progress.float32_tiles += attempt
                return sr[:, : self.scale * h, : self.scale * w].cpu()
        raise _never_finite()

    def to_device(self, pixels: Pixels) -> Tensor:
        """Return ``pixels`` ``[h, w, 3]`` as a batch of one in the device's memory and layout."""
        return to_tensor(pixels).to(self.device)[None].contiguous(memory_format=self.layout)


class Column:
    """Part of an image, as high as it is, on its way through a network that takes a few rows at a time."""

    def __init__(self, network: Network, pixels: Pixels) -> None:
        self.network = network
        self.height, self.width = pixels.shape[:2]
        m = network.generator.multiple_of
        self.pixels = _padded(pixels, m)
        self._pushed = 0  # rows that the network has
        self._final = 0  # rows of the result that it gave
        self._version = (
            0  # once half precision has overflowed, what is kept for the rows below may not be finite, either
        )
        self._top = 0  # where what is kept begins
        self._rows: Rows | None = Rows()

    def push(self, rows: int, progress: Progress) -> Tensor:
        """Take the next ``rows`` and return what is final then, ``[3, n, W]`` float32 in [0, 1] on the CPU; n may be 0.

        From where half precision overflows, the result is that of float32. After an error, the same rows can be pushed
        again, also in smaller parts.
        """
        pushed = self._pushed + rows
        if self._rows is None:
            self._take_up(rows)
        sr = self._enlarge(self._pushed, pushed)
        while sr is None:
            self._version += 1
            if self._version == len(self.network.versions):
                raise _never_finite()
            self._take_up(rows)
            sr = self._enlarge(self._pushed, pushed)
        progress.float32_tiles += self._version
        s = self.network.scale
        sr = sr[:, : s * self.height - self._final, : s * self.width].cpu()
        self._pushed = pushed
        self._final += sr.shape[1]
        return sr

    def _take_up(self, rows: int) -> None:
        """Begin as far above what is final as the network sees, ``rows`` at a time."""
        generator = self.network.generator
        m = generator.multiple_of
        self._top = max(0, self._final // generator.scale - generator.radius) // m * m
        self._rows = Rows()
        for start in range(self._top, self._pushed, rows):
            self._enlarge(start, min(start + rows, self._pushed))

    @torch.inference_mode()
    def _enlarge(self, start: int, stop: int) -> Tensor | None:
        """Return what rows ``start`` to ``stop`` make final, None if that is not finite."""
        rows, self._rows = self._rows, None  # an error leaves it useless
        assert rows is not None
        x = self.network.to_device(self.pixels[start:stop])
        part = Part(start - self._top, stop - self._top, len(self.pixels) - self._top)
        sr = self.network.versions[self._version].enlarge_rows(x, part, rows)
        rows.gather()
        self._rows = rows
        return _checked(sr)


def _padded(pixels: Pixels, m: int) -> Pixels:
    """Return ``pixels`` ``[h, w, 3]`` with height and width made multiples of ``m``."""
    h, w = pixels.shape[:2]
    if h % m == w % m == 0:
        return pixels
    # Reflection needs more pixels than it adds; a picture of one or two pixels repeats its last.
    mode: Literal["reflect", "edge"] = "reflect" if min(h, w) >= m else "edge"
    return np.pad(pixels, ((0, -h % m), (0, -w % m), (0, 0)), mode)


def _checked(sr: Tensor) -> Tensor | None:
    """Return the one image of ``sr`` ``[1, 3, H, W]`` in [0, 1], None if not all of it is finite."""
    # One pass: NaN and infinity survive every sum.
    return sr[0].clamp(0, 1) if bool(torch.isfinite(sr.sum())) else None


def _never_finite() -> NonFiniteOutput:
    return NonFiniteOutput(
        "the network gives values that are not finite, even in float32", "the weights are damaged: fetch them again"
    )
