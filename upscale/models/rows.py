"""Layers that take an image a few rows at a time: what they keep of the rows above makes their sum that of the whole.

A 3x3 convolution knows a row of its result when it has the row below: each lags by one. What it will see again, it
keeps. So nothing is computed twice, and the values in between of a whole image are never there at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Part(NamedTuple):
    """Rows ``start`` to ``stop`` of an image of ``height``; those past its end are not there.

    ``stop`` past the end tells layers with a lag how far to go on with what they have.
    """

    start: int
    stop: int
    height: int

    @property
    def rows(self) -> tuple[int, int]:
        """First and last of the rows that are there."""
        return min(self.start, self.height), min(self.stop, self.height)

    @property
    def last(self) -> bool:
        """Whether the bottom of the image is in it."""
        return self.start < self.height <= self.stop

    def behind(self, lag: int) -> Part:
        """Return the part that is known once this one is, ``lag`` rows above it."""
        return Part(max(0, self.start - lag), max(0, self.stop - lag), self.height)

    def behind_one_layer(self) -> Part:
        """Return the part that a convolution makes of this one: it lags by a row as long as there is one below."""
        start, stop = (row if row >= self.height else max(0, row - 1) for row in self[:2])
        return Part(start, stop, self.height)

    def over(self, factor: int) -> Part:
        """Return the part in an image reduced by ``factor``."""
        return Part(*(-(-edge // factor) for edge in self))


class Rows:
    """What the layers of a network keep of the rows above, from one part of an image to the next.

    Written over in place: after an error, what it holds is of no use.
    """

    def __init__(self) -> None:
        self._kept: dict[object, Tensor] = {}
        self._scattered = False

    def conv(self, layer: nn.Conv2d, x: Tensor, *, last: bool) -> Tensor:
        """Apply the 3x3 ``layer`` to the rows ``x`` ``[B, C, n, w]``, ``last`` if they reach the bottom.

        Returns the rows that are final: one less at first, one more at last.
        """
        above = self._kept.get(layer)
        x = F.pad(x, (0, 0, 1, 0)) if above is None else torch.cat((above, x), 2)
        if last:
            x = F.pad(x, (0, 0, 0, 1))
        self.keep(layer, x[:, :, -2:])
        if x.shape[2] < 3:
            return x.new_empty(x.shape[0], layer.out_channels, 0, x.shape[3])
        return F.conv2d(x.to(layer.weight.dtype), layer.weight, layer.bias, padding=(0, 1))

    def delay(self, key: object, x: Tensor, count: int) -> Tensor:
        """Return the first ``count`` of the rows that came and have not left; those of ``x`` come now."""
        waiting = torch.cat((self._kept[key], x), 2) if key in self._kept else x
        self.keep(key, waiting[:, :, count:])
        return waiting[:, :, :count]

    def kept(self, key: object) -> Tensor | None:
        """Return what ``key`` keeps, None at first."""
        return self._kept.get(key)

    def keep(self, key: object, x: Tensor) -> None:
        """Keep a copy of ``x``, in the place of what ``key`` kept where sizes agree."""
        room = self._kept.get(key)
        if room is not None and room.shape == x.shape:
            room.copy_(x)
        else:
            self._kept[key] = x.clone()
            self._scattered = True

    def gather(self) -> None:
        """Put all that is kept side by side in memory.

        Made one by one between the large tensors that come and go, it leaves holes that nothing else fits into.
        """
        if self._scattered:
            self._kept = {key: x.clone() for key, x in self._kept.items()}
            self._scattered = False
