"""Networks on a device: images with their margins, single tiles, and columns of an image row by row."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upscale.device import DTYPES, winograd_pays
from upscale.errors import NonFiniteOutput
from upscale.images import Pixels
from upscale.imaging import to_tensor
from upscale.models import Generator
from upscale.models.rows import Part, Rows
from upscale.models.winograd import by_winograd
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
        self.total = max(self.total, self.done)  # there are more once they become smaller for want of memory
        if self.on_tile is not None:
            self.on_tile(self.done, self.total)


class Network:
    """A generator on its device: float32, and a half-precision copy for the forward pass."""

    def __init__(self, generator: Generator, device: torch.device, precision: Precision) -> None:
        self.generator = generator
        self.scale = generator.scale
        self.device = device
        self.layout = torch.contiguous_format if device.type == "mps" else torch.channels_last
        versions = [by_winograd(generator) if precision is Precision.FP32 and winograd_pays(device) else generator]
        if precision is not Precision.FP32 and generator.has_weights:
            versions.insert(0, copy.deepcopy(generator))
            versions[0].to_precision(DTYPES[precision])
        self.versions = [version.to(device, memory_format=self.layout) for version in versions]  # type: ignore[call-overload]

    @torch.inference_mode()
    def run(self, tile: Pixels, progress: Progress) -> Tensor:
        """Map ``tile`` ``[h, w, 3]`` to ``[3, s*h, s*w]`` float32, computed in float32 if half precision overflows.

        Raises:
            NonFiniteOutput: float32 is not finite, either.
        """
        x = self.to_device(tile)
        for attempt, version in enumerate(self.versions):
            sr = _checked(version(x))
            if sr is not None:
                progress.float32_tiles += attempt
                return sr
        raise _never_finite()

    def to_device(self, pixels: Pixels) -> Tensor:
        """Return ``pixels`` ``[h, w, 3]`` as a batch of one in the device's memory and layout."""
        return to_tensor(pixels, self.device)[None].contiguous(memory_format=self.layout)


@dataclass(frozen=True, slots=True)
class Frame:
    """The size of an image with what a network is given around it: the image itself, mirrored.

    Networks pad with zeros, which is black. Where the picture is anything else, its outermost pixels get a rim of a
    colour of their own (of white, 14 levels in compact x4). The margin takes that away, and is cut off the result.
    """

    margin: int
    height: int
    """With the margin, as the width; multiples of what the network asks for."""
    width: int

    @classmethod
    def of(cls, generator: Generator, height: int, width: int, *, margin: int | None = None) -> Frame:
        """Return that of an image of ``height`` by ``width`` for ``generator``; by default, with its own margin."""
        m = generator.multiple_of
        margin = -(-generator.margin // m) * m if margin is None else margin  # its grid begins where it would without
        return cls(margin, *(2 * margin + length + -length % m for length in (height, width)))


class Framed:
    """An image in its frame."""

    def __init__(self, pixels: Pixels, frame: Frame) -> None:
        self.pixels = pixels
        self.frame = frame

    def cut(self, rows: slice, columns: slice) -> Pixels:
        """Return a part of the image with its margin."""
        h, w = self.pixels.shape[:2]
        down, across = self._mirrored(rows, h), self._mirrored(columns, w)
        if isinstance(across, slice):
            return self.pixels[:, across][down]
        return self.pixels[down][:, across]

    def _mirrored(self, part: slice, length: int) -> slice | NDArray[np.int64]:
        """Return which pixels of an axis ``part`` shows; its own first and last are repeated at the mirrors."""
        start, stop = part.start - self.frame.margin, part.stop - self.frame.margin
        if start >= 0 and stop <= length:
            return slice(start, stop)
        phase: NDArray[np.int64] = np.arange(start, stop) % (2 * length)
        return np.where(phase < length, phase, 2 * length - 1 - phase)


class Column:
    """Part of an image, as high as it is, on its way through a network that takes a few rows at a time."""

    def __init__(self, network: Network, image: Framed, columns: slice) -> None:
        self.network = network
        self.image = image
        self.columns = columns
        self.width = columns.stop - columns.start
        self._pushed = 0  # rows that the network has
        self._final = 0  # rows of the result that it gave
        # Once half precision has overflowed, what is kept for the rows below may not be finite, either.
        self._version = 0
        self._top = 0  # where what is kept begins
        self._rows: Rows | None = Rows()

    def push(self, rows: int, progress: Progress) -> Tensor:
        """Take the next ``rows`` and return what is final then, ``[3, n, W]`` float32 in [0, 1]; n may be 0.

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
        height = self.image.frame.height
        x = self.network.to_device(self.image.cut(slice(min(start, height), min(stop, height)), self.columns))
        part = Part(start - self._top, stop - self._top, height - self._top)
        sr = self.network.versions[self._version].enlarge_rows(x, part, rows)
        rows.gather()
        self._rows = rows
        return _checked(sr)


def _checked(sr: Tensor) -> Tensor | None:
    """Return the one image of ``sr`` ``[1, 3, H, W]`` in [0, 1], None if not all of it is finite."""
    # One pass: NaN and infinity survive every sum.
    return sr[0].clamp(0, 1) if bool(torch.isfinite(sr.sum())) else None


def _never_finite() -> NonFiniteOutput:
    return NonFiniteOutput(
        "the network gives values that are not finite, even in float32", "the weights are damaged: fetch them again"
    )
