"""Two pictures against each other: equally large, or an enlargement and its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from upscale.bench.sets import as_batch
from upscale.bench.tables import Cell, Grid, number
from upscale.errors import InputError
from upscale.images import Image, Pixels
from upscale.imaging import resize
from upscale.metrics import Protocol, ciede2000, ms_ssim, prepare, psnr, srgb_to_lab, ssim

HOT = 10.0
"""dE2000 at which the heat map is at its end: a difference that nobody overlooks."""


def figures(pictures: Mapping[str, Image], against: Image, protocol: Protocol, border: int) -> Grid:
    """Return PSNR, SSIM, MS-SSIM and the mean colour difference of ``pictures`` from ``against``, all of one size.

    ``border`` pixels at each edge do not count. Transparent ones are compared as they are seen on white.
    """
    rows = []
    for name, picture in pictures.items():
        one, two = (_within(border, _on_white(image)) for image in (picture, against))
        levels = max(int(np.iinfo(image.pixels.dtype).max) for image in (picture, against))
        grayscale = picture.grayscale and against.grayscale
        compared = [prepare(x, 0, protocol, levels=levels, grayscale=grayscale) for x in (one, two)]
        color = float(ciede2000(srgb_to_lab(one), srgb_to_lab(two)).mean())
        rows.append(
            [
                Cell(name),
                number(float(psnr(compared[0], compared[1])), 3),
                _or_dash(ssim, compared),
                _or_dash(ms_ssim, compared),
                number(color, 3),
            ]
        )
    return Grid(["picture", "PSNR", "SSIM", "MS-SSIM", "dE2000"], 1, rows)


def _on_white(image: Image) -> Tensor:
    """Return ``image`` as a batch, as it is seen on white: the colours of what is transparent are nobody's concern."""
    pixels = as_batch(image.pixels)
    if image.alpha is None:
        return pixels
    alpha = as_batch(image.alpha[..., None])
    return pixels * alpha + (1 - alpha)


def _within(border: int, batch: Tensor) -> Tensor:
    height, width = batch.shape[-2:]
    return batch[..., border : height - border, border : width - border]


def _or_dash(metric: Callable[[Tensor, Tensor], Tensor], compared: list[Tensor]) -> Cell:
    try:
        return number(float(metric(compared[0], compared[1])), 5)
    except InputError:  # too small for the window: the table has a dash there, the other columns stand
        return Cell("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Faith:
    """How exactly an enlargement gives its source back."""

    scale: float
    consistency: float
    """PSNR in RGB of the reduced enlargement against the source, dB."""
    largest: float
    """Largest difference of a channel of the same two, in levels of 255."""
    color_mean: float
    """dE2000, of the same two."""
    color_worst: float
    """The 99th percentile."""
    contrast: float
    """Local contrast of the reduced enlargement over that of the source: above 1, contrast was invented."""
    heat: Pixels
    """``[h, w, 3]`` uint8: where the colour differs, black for nothing to white for ``HOT``."""


def faith(sr: Image, lr: Image) -> Faith:
    """Reduce ``sr`` to the size of ``lr`` and compare.

    Raises:
        InputError: ``sr`` is smaller, or of another shape.
    """
    (height, width), (h, w) = sr.pixels.shape[:2], lr.pixels.shape[:2]
    # Programs round a fraction of a pixel up or down, so a side may be a pixel more or less than the scale says.
    low, high = max((height - 1) / h, (width - 1) / w), min((height + 1) / h, (width + 1) / w)
    if low > high or min(height - h, width - w) < 0:
        raise InputError(
            f"{width}x{height} is no enlargement of {w}x{h}", "give the enlarged picture first, then its source"
        )
    source = _on_white(lr)
    reduced = resize(_on_white(sr), h, w).clamp(0, 1)
    difference = ciede2000(srgb_to_lab(reduced), srgb_to_lab(source))[0]
    return Faith(
        scale=(height / h + width / w) / 2,
        consistency=float(psnr(reduced, source)),
        largest=float((reduced - source).abs().max()) * 255,
        color_mean=float(difference.mean()),
        color_worst=float(np.percentile(difference.numpy(), 99)),
        contrast=_contrast(reduced, source),
        heat=heat_map(difference.numpy()),
    )


def _contrast(one: Tensor, two: Tensor) -> float:
    """Return the ratio of the standard deviations of grey in 5x5 pixels, in the mean over where there is structure."""
    deviations = []
    for image in (one, two):
        grey = image.mean(1, keepdim=True)
        size = min(5, *grey.shape[-2:])
        mean, square = F.avg_pool2d(grey, size, 1), F.avg_pool2d(grey**2, size, 1)
        deviations.append((square - mean**2).clamp(min=0).sqrt())
    structured = deviations[1] > 2 / 255  # below, it is the rounding to levels that varies
    if not bool(structured.any()):
        return 1.0
    return float(deviations[0][structured].mean() / deviations[1][structured].mean())


def heat_map(difference: NDArray[Any]) -> Pixels:
    """Colour ``difference`` ``[h, w]``, dE2000, as ``[h, w, 3]`` uint8: black, red, yellow, white, ever brighter."""
    t = np.clip(difference / HOT, 0, 1)[..., None] * 3
    colours: Pixels = np.rint(np.clip(np.concatenate((t, t - 1, t - 2), 2), 0, 1) * 255).astype(np.uint8)
    return colours


def enlarged(pixels: Pixels, height: int, width: int) -> Pixels:
    """Repeat the pixels of ``[h, w, 3]`` to ``[height, width, 3]`` uint8, for showing beside a larger picture."""
    eight = Image(pixels=pixels).in_eight_bits().pixels
    rows = np.arange(height) * eight.shape[0] // height
    columns = np.arange(width) * eight.shape[1] // width
    return np.ascontiguousarray(eight[rows][:, columns])
