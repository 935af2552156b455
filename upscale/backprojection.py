"""Back-projection: change an enlarged image until it reduces to its source."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from upscale.images import Pixels
from upscale.imaging import BandResizer, to_tensor

ROUNDS = 40
TOLERANCE = 0.6 / 255
"""Largest difference at which it ends: rounding the result to 8 bits leaves that below one level."""
# Enlarging and reducing keeps between LEAST and all of each frequency of the source; a momentum that is chosen for this
# range needs a third of the rounds (Polyak 1964, "heavy ball").
LEAST = 0.1
STEP = 4 / (1 + math.sqrt(LEAST)) ** 2
MOMENTUM = ((1 - math.sqrt(LEAST)) / (1 + math.sqrt(LEAST))) ** 2
_ROWS = 64


def back_project(enlarged: Pixels, source: Pixels) -> Iterator[Tensor]:
    """Yield ``enlarged`` ``[H, W, 3]`` changed so that its bicubic reduction is ``source`` ``[h, w, 3]``.

    What the reduction lacks is enlarged and added, again and again (Irani and Peleg 1991, "Improving resolution by
    image registration"). Between the rounds, only what is added and its change are kept, both of the source's size.
    Bands are float32 ``[3, n, W]`` in [0, 1], from top to bottom. Where a value outside of [0, 1] would be needed, a
    difference may remain.
    """
    lr = to_tensor(source)
    added, velocity = torch.zeros_like(lr), torch.zeros_like(lr)
    for _ in range(ROUNDS):
        lacking = lr - _reduced(_corrected(enlarged, added), enlarged, lr)
        if float(lacking.abs().max()) <= TOLERANCE:
            break
        velocity = MOMENTUM * velocity + STEP * lacking
        added += velocity
    yield from _corrected(enlarged, added)


def _corrected(enlarged: Pixels, added: Tensor) -> Iterator[Tensor]:
    """Yield the bands of ``enlarged`` plus ``added``, which is enlarged to its size."""
    (h, w), (height, width) = added.shape[1:], enlarged.shape[:2]
    resizer = BandResizer(h, w, height, width, "lanczos")
    top = 0
    for rows in torch.split(added, _ROWS, 1):
        for band in resizer.push(rows):
            bottom = top + band.shape[1]
            yield (to_tensor(enlarged[top:bottom]) + band).clamp(0, 1)
            top = bottom


def _reduced(bands: Iterator[Tensor], enlarged: Pixels, lr: Tensor) -> Tensor:
    (height, width), (h, w) = enlarged.shape[:2], lr.shape[1:]
    resizer = BandResizer(height, width, h, w)
    return torch.cat([part for band in bands for part in resizer.push(band)], 1)
