"""The crops that a batch is made of: which ones, and how they are cut, from memory or from that of a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from upscale.images import Pixels

Ints = npt.NDArray[np.int64]

_TURNS = (0, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
_TURNED = np.array([[[0, 1, 0], [0, 0, 1]], [[0, 0, 1], [1, -1, 0]], [[1, -1, 0], [1, 0, -1]], [[1, 0, -1], [0, 1, 0]]])
"""By turns: the row and column of a crop that (i, j) of the turned one shows, as factors of the last index, i, j."""


class Places(NamedTuple):
    """Where crops are, and how they are turned."""

    pictures: Ints
    """``[B]``"""
    tops: Ints
    """``[B, candidates]``: of these, the one with the most detail is taken."""
    lefts: Ints
    turns: Ints
    """``[B]``: right angles to the left, before mirroring."""
    mirrors: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Draw:
    """How the places of crops are drawn from pictures."""

    count: int
    """Of crops in a batch."""
    edge: int
    """Of GT, in pixels."""
    cut: int
    """The edge that is cut, of what candidates are compared in: GT with its margin, or LR that is given."""
    candidates: int
    sizes: Ints
    """``[pictures, 2]``, in the same pixels."""
    shares: npt.NDArray[np.float64]
    """How often each picture is taken."""

    @property
    def numbers(self) -> int:
        """How many random numbers a place takes."""
        return 3 + 2 * self.candidates

    def places(self, random: npt.NDArray[np.float64]) -> Places:
        """Return the places that ``random`` ``[B, numbers]`` in [0, 1) stands for."""
        ends = np.cumsum(self.shares)
        pictures = np.searchsorted(ends / ends[-1], random[:, 0], side="right")
        room = self.sizes[pictures] - self.cut + 1
        tops, lefts = (
            (part * room[:, axis, None]).astype(np.int64)
            for axis, part in enumerate(np.split(random[:, 3:], 2, axis=1))
        )
        return Places(pictures, tops, lefts, (4 * random[:, 1]).astype(np.int64), random[:, 2] < 0.5)


class Shelf(Protocol):
    """Pictures that crops are cut from."""

    def cut(self, places: Places, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Return the GT of crops, uint8 ``[B, H, W, 3]``, and where it is given, their LR."""
        ...


class InMemory:
    """Pictures ``[H, W, 3]`` in the memory of the CPU, and their LR pictures where they are given."""

    def __init__(self, arrays: Sequence[Pixels], lrs: Sequence[Pixels] | None, scale: int) -> None:
        self.arrays = arrays
        self.lrs = lrs
        self.scale = scale

    def cut(self, places: Places, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Return the crops at ``places``."""
        gt, lr = [], []
        for index, tops, lefts, turns, mirror in zip(*places, strict=True):
            source = self.arrays[index] if self.lrs is None else self.lrs[index]
            found = [(y, x, source[y : y + draw.cut, x : x + draw.cut]) for y, x in zip(tops, lefts, strict=True)]
            y, x, crop = found[0] if len(found) == 1 else max(found, key=lambda each: _detail(each[2]))
            if self.lrs is not None:
                lr.append(_turned(crop, turns, mirror))
                y, x = self.scale * y, self.scale * x
                crop = self.arrays[index][y : y + draw.edge, x : x + draw.edge]
            gt.append(_turned(crop, turns, mirror))
        return torch.from_numpy(np.stack(gt)), torch.from_numpy(np.stack(lr)) if lr else None


class OnDevice:
    """The same in the memory of ``device``, which cuts all crops of a batch at once: the same crops."""

    def __init__(
        self, arrays: Sequence[Pixels], lrs: Sequence[Pixels] | None, scale: int, device: torch.device
    ) -> None:
        self.gt = _Flat(arrays, device)
        self.lr = None if lrs is None else _Flat(lrs, device)
        self.scale = scale

    def cut(self, places: Places, draw: Draw) -> tuple[Tensor, Tensor | None]:
        """Return the crops at ``places``, on the device."""
        best = (self.lr or self.gt).of_most_detail(places, draw.cut)
        if self.lr is None:
            return self.gt.cut(places, best, draw.cut), None
        enlarged = places._replace(tops=self.scale * places.tops, lefts=self.scale * places.lefts)
        return self.gt.cut(enlarged, best, draw.edge), self.lr.cut(places, best, draw.cut)


class _Flat:
    """Pictures as one row of pixels in the memory of a device."""

    def __init__(self, arrays: Sequence[Pixels], device: torch.device) -> None:
        sizes = np.array([array.shape[:2] for array in arrays], np.int64)
        ends = np.cumsum(sizes.prod(1))
        self.widths = sizes[:, 1]
        self.firsts = ends - sizes.prod(1)
        self.pixels = torch.empty(int(ends[-1]), 3, dtype=torch.uint8, device=device)
        for first, end, array in zip(self.firsts, ends, arrays, strict=True):
            self.pixels[first:end] = torch.from_numpy(np.array(array)).view(-1, 3)

    def of_most_detail(self, places: Places, edge: int) -> Tensor:
        """Return which of the candidates is taken, ``[B, 1]``."""
        if places.tops.shape[1] == 1:
            return torch.zeros(len(places.tops), 1, dtype=torch.int64, device=self.pixels.device)
        starts, widths = self._numbers(self._starts(places)), self._numbers(self.widths[places.pictures])
        every_second = torch.arange(0, edge, 2, device=self.pixels.device)
        grid = widths[:, None, None, None] * every_second[:, None] + every_second
        green = self.pixels[starts[:, :, None, None] + grid, 1].short()  # [B, candidates, h, w]
        steps = [green.diff(dim=axis).abs().sum((2, 3)) for axis in (2, 3)]
        return (steps[0] + steps[1]).argmax(1, keepdim=True)

    def cut(self, places: Places, best: Tensor, edge: int) -> Tensor:
        """Return the candidates ``best``, turned and mirrored, uint8 ``[B, edge, edge, 3]``."""
        factors = _TURNED[places.turns]  # [B, row and column, last index and i and j]
        factors[places.mirrors, :, 0] += factors[places.mirrors, :, 2]
        factors[places.mirrors, :, 2] *= -1
        along = factors[:, 0] * self.widths[places.pictures, None] + factors[:, 1]
        first, down, right = (numbers[:, None, None] for numbers in self._numbers(along * [edge - 1, 1, 1]).unbind(1))
        start = self._numbers(self._starts(places)).gather(1, best)[:, :, None]
        axis = torch.arange(edge, device=self.pixels.device)
        return self.pixels[start + first + down * axis[:, None] + right * axis]

    def _starts(self, places: Places) -> Ints:
        starts: Ints = self.firsts[places.pictures, None] + places.tops * self.widths[places.pictures, None]
        return starts + places.lefts

    def _numbers(self, numbers: Ints) -> Tensor:
        return to_device(torch.from_numpy(numbers), self.pixels.device)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return ``tensor`` on ``device``."""
    if device.type == "cuda" and not tensor.is_cuda:  # else the copy would wait for what the GPU has to do
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _turned(crop: Pixels, turns: int, mirror: bool) -> Pixels:
    """Turn ``crop`` by so many right angles to the left, then mirror it; three times as fast as by NumPy."""
    turned = cv2.rotate(crop, _TURNS[turns]) if turns else np.ascontiguousarray(crop)
    return cv2.flip(turned, 1) if mirror else turned


def _detail(crop: Pixels) -> int:
    """Return the sum of the steps between neighbours on a grid of every second pixel of the green channel."""
    green = crop[::2, ::2, 1].astype(np.int16)
    return sum(int(np.abs(np.diff(green, axis=axis)).sum(dtype=np.int64)) for axis in (0, 1))
