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


class Whole:
    """Layers on a whole image: what ``Rows`` is for parts of one."""

    def conv(self, layer: nn.Conv2d, x: Tensor, *, last: bool) -> Tensor:
        """Apply ``layer`` to ``x`` ``[B, C, h, w]``, cast to the dtype of its weights."""
        return layer(x.to(layer.weight.dtype))  # type: ignore[no-any-return]

    def delay(self, key: object, x: Tensor, count: int) -> Tensor:
        """Return ``x``: nothing lags."""
        return x

    def bilinear(self, key: object, x: Tensor, scale: int, *, last: bool) -> Tensor:
        """Enlarge ``x`` bilinearly."""
        return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


class Rows(Whole):
    """What the layers of a network keep of the rows above, from one part of an image to the next.

    Written over in place: after an error, what it holds is of no use.
    """

    def __init__(self) -> None:
        self._kept: dict[object, Tensor] = {}
        self._scattered: set[object] = set()

    def conv(self, layer: nn.Conv2d, x: Tensor, *, last: bool) -> Tensor:
        """Apply ``layer``, whose kernel of k x k keeps the size, to the rows ``x``, ``last`` if they reach the bottom.

        Returns the rows that are final: k // 2 less at first, as many more at last.
        """
        above, edge = self._kept.get(layer), layer.kernel_size[0] // 2
        if x.shape[2] < max(1, 2 * edge) or (above is not None and above.shape[2] < 2 * edge):
            x = F.pad(x, (0, 0, edge, 0)) if above is None else torch.cat((above, x), 2)
            seen = F.pad(x, (0, 0, 0, edge)) if last else x
            few = seen.shape[2] <= 2 * edge
            y = x.new_empty(len(x), layer.out_channels, 0, x.shape[3]) if few else between(layer, seen)
        else:  # all but the first rows see nothing of those above: only for these both are copied side by side
            beyond = edge if above is None else 2 * edge
            y = between(layer, x, beyond=beyond)[:, :, : x.shape[2] + beyond - (edge if last else 2 * edge)]
            if above is not None:
                y[:, :, : 2 * edge] = between(layer, torch.cat((above, x[:, :, : 2 * edge]), 2))
        if edge and not last:
            self.keep(layer, x[:, :, -2 * edge :])
        return y

    def delay(self, key: object, x: Tensor, count: int) -> Tensor:
        """Return the first ``count`` of the rows that came and have not left; those of ``x`` come now."""
        waiting = torch.cat((self._kept[key], x), 2) if key in self._kept else x
        self.keep(key, waiting[:, :, count:])
        return waiting[:, :, :count]

    def add_delayed(self, key: object, x: Tensor, y: Tensor) -> Tensor:
        """Add to ``y``, in place, as many rows of ``x`` as ``delay`` would return, without a copy of them."""
        kept = self._kept.get(key)
        late = 0 if kept is None else kept.shape[2]
        if kept is None or late > y.shape[2]:
            return y.add_(self.delay(key, x, y.shape[2]))
        y[:, :, :late] += kept
        y[:, :, late:] += x[:, :, : y.shape[2] - late]
        self.keep(key, x[:, :, y.shape[2] - late :])
        return y

    def bilinear(self, key: object, x: Tensor, scale: int, *, last: bool) -> Tensor:
        """Enlarge the rows ``x`` bilinearly; half of what the last one makes comes when the next is known."""
        above, half = self._kept.get(key), scale // 2
        enlarged = super().bilinear(key, x if above is None else torch.cat((above, x), 2), scale, last=last)
        self.keep(key, x[:, :, -1:])
        first = 0 if above is None else scale - half
        return enlarged[:, :, first : enlarged.shape[2] - (0 if last else half)]

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
            self._scattered.add(key)

    def gather(self) -> None:
        """Put what is newly kept side by side in memory.

        Made one by one between the large tensors that come and go, it leaves holes that nothing else fits into.
        """
        self._kept |= {key: self._kept[key].clone() for key in self._scattered}
        self._scattered.clear()


def between(layer: nn.Conv2d, x: Tensor, *, beyond: int = 0) -> Tensor:
    """Apply ``layer`` to the rows of ``x`` that have all their neighbours there, or among the ``beyond`` rows of zeros.

    ``x`` ``[B, C, h, w]`` is cast to the dtype of the layer's weights; these rows are above and below it.
    """
    x = x.to(layer.weight.dtype)
    return F.conv2d(x, layer.weight, layer.bias, padding=(beyond, layer.kernel_size[1] // 2), groups=layer.groups)


def shuffled(x: Tensor, factor: int) -> Tensor:
    """Return ``x`` ``[B, factor**2 * C, n, w]`` with its channels as pixels; n may be 0."""
    if x.shape[2] == 0:
        return x.new_empty(len(x), x.shape[1] // factor**2, 0, factor * x.shape[3])
    return F.pixel_shuffle(x, factor)


def repeated(x: Tensor, factor: int) -> Tensor:
    """Return ``x`` ``[B, C, n, w]`` with each pixel repeated; n may be 0."""
    if x.shape[2] == 0:
        return x.new_empty(len(x), x.shape[1], 0, factor * x.shape[3])
    return F.interpolate(x, scale_factor=factor)
