"""Where arrays become tensors and tensors arrays; resizing as MATLAB's imresize does it; luma."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upscale.images import Pixels


def to_tensor(pixels: Pixels, device: torch.device | None = None) -> Tensor:
    """Turn ``pixels`` ``[H, W, C]`` uint8 or uint16 into float32 ``[C, H, W]`` in [0, 1] on ``device``."""
    levels = int(np.iinfo(pixels.dtype).max)
    # Of eight bits, a GPU is given a quarter of the bytes; of uint16, torch has no full set of functions.
    passed = np.array(pixels, np.uint8 if levels == 255 else np.float32, order="C")
    planes = torch.from_numpy(passed).to(device).permute(2, 0, 1)
    return planes.to(torch.float32, memory_format=torch.contiguous_format).div_(levels)


def to_array(image: Tensor, dtype: np.dtype[Any]) -> Pixels:
    """Turn ``image`` ``[C, H, W]`` float, nominally in [0, 1], into ``[H, W, C]`` of ``dtype``: clamp, scale, round."""
    levels = int(np.iinfo(dtype).max)
    scaled = image.clamp(0, 1).mul_(levels).round_().permute(1, 2, 0)
    if levels == 255:  # torch converts faster than NumPy, but has no full set of uint16 functions
        return scaled.to(torch.uint8).contiguous().cpu().numpy()
    return scaled.contiguous().cpu().numpy().astype(np.uint16)


def rgb_to_y(image: Tensor) -> Tensor:
    """Return the luma of ``image`` ``[..., 3, H, W]`` RGB in [0, 1], as ``[..., H, W]`` in [16/255, 235/255].

    ITU-R BT.601 in studio range, the Y of MATLAB's rgb2ycbcr.
    """
    red, green, blue = image.unbind(-3)
    return (65.481 * red + 128.553 * green + 24.966 * blue + 16) / 255


@dataclass(frozen=True, slots=True)
class Kernel:
    """An interpolation kernel: ``function(x)``, zero outside of ``[-support, support]``."""

    function: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    support: float


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys 1981, equation 15: the cubic convolution kernel with a = -1/2."""
    x = np.abs(x)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))


def _lanczos3(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


def _box(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((x >= -0.5) & (x < 0.5), 1.0, 0.0)


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(x) < 1, 1 - np.abs(x), 0.0)


KERNELS = {
    "nearest": Kernel(_box, 0.5),
    "bilinear": Kernel(_triangle, 1.0),
    "bicubic": Kernel(_cubic, 2.0),
    "lanczos": Kernel(_lanczos3, 3.0),
}

_BLOCK = 64  # outputs computed by one dense product: enough to fill it, few enough not to multiply zeros


def resize(image: Tensor, height: int, width: int, kernel: str = "bicubic") -> Tensor:
    """Resize ``image`` ``[..., H, W]`` float to ``[..., height, width]``, antialiased, with mirrored borders.

    The same as MATLAB's ``imresize(image, [height width], kernel)``: a kernel that is stretched by the factor of a
    reduction, sampled at the centres of pixels and normalised to a sum of 1. Not clamped: cubic and Lanczos kernels
    overshoot at edges.
    """
    for axis, length in ((-1, width), (-2, height)):
        if image.shape[axis] != length:
            image = _resize_axis(image, axis, 0, length, image.shape[axis], kernel, length)
    return image


class BandResizer:
    """Resize an image that arrives in bands of rows; only the rows that are still needed are kept.

    ``linear_light``: reduce as a lens would, by the light of the pixels and not by their values, which follow the curve
    of sRGB. Averaged values make fine light detail on dark ground too dark.
    """

    def __init__(
        self,
        height: int,
        width: int,
        height_out: int,
        width_out: int,
        kernel: str = "bicubic",
        *,
        linear_light: bool = False,
    ) -> None:
        self.height, self.width = height, width
        self.height_out, self.width_out = height_out, width_out
        self.kernel = kernel
        self.linear_light = linear_light and height_out * width_out < height * width
        self._rows: Tensor | None = None  # [C, n, width_out], the first of them is row _offset of the input
        self._offset = 0
        self._done = 0

    def push(self, band: Tensor) -> Iterator[Tensor]:
        """Take the next rows ``[C, n, width]`` float; yield output rows ``[C, m, width_out]`` that are now certain."""
        if (self.height, self.width) == (self.height_out, self.width_out):
            yield band
            return
        if self.linear_light:
            band = srgb_to_light(band)
        band = _resize_axis(band, -1, 0, self.width_out, self.width, self.kernel, self.width_out)
        self._rows = band if self._rows is None else torch.cat((self._rows, band), 1)
        available = self._offset + self._rows.shape[1]
        stop = self._done
        while stop < self.height_out:
            step = min(stop + _BLOCK, self.height_out)
            if _weights(stop, step, self.height, self.height_out, self.kernel).stop > available:
                break
            stop = step
        if stop > self._done:
            rows = _resize_axis(
                self._rows, -2, self._done, stop, self.height, self.kernel, self.height_out, self._offset
            )
            yield _light_to_srgb(rows) if self.linear_light else rows
            self._done = stop
        if self._done < self.height_out:
            step = min(self._done + _BLOCK, self.height_out)
            keep = _weights(self._done, step, self.height, self.height_out, self.kernel).start
            self._rows = self._rows[:, max(0, keep - self._offset) :].clone()
            self._offset = max(keep, self._offset)


def srgb_to_light(values: Tensor) -> Tensor:
    """Turn sRGB into light, both in [0, 1]: IEC 61966-2-1, section 5.2."""
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _light_to_srgb(light: Tensor) -> Tensor:
    """IEC 61966-2-1, section 5.3; a kernel's overshoot below black is black."""
    light = light.clamp(min=0)
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _resize_axis(
    image: Tensor,
    axis: int,
    start: int,
    stop: int,
    length_in: int,
    kernel: str,
    length_out: int,
    offset: int = 0,
) -> Tensor:
    """Compute outputs ``start`` to ``stop`` of resizing one axis (-1 or -2) from ``length_in`` to ``length_out``.

    ``image`` may be a part of the whole that begins at index ``offset`` of that axis.
    """
    parts = []
    for first in range(start, stop, _BLOCK):
        taps = _weights(first, min(first + _BLOCK, stop), length_in, length_out, kernel)
        w = torch.from_numpy(taps.matrix).to(image.device, image.dtype, non_blocking=True)
        source = image.narrow(axis, taps.start - offset, taps.stop - taps.start)
        parts.append(source @ w.T if axis == -1 else w @ source)
    return torch.cat(parts, axis) if len(parts) > 1 else parts[0]


@dataclass(frozen=True, slots=True)
class _Taps:
    """Some neighbouring outputs as a dense matrix on the inputs from ``start`` to ``stop``."""

    start: int
    stop: int
    matrix: NDArray[np.float64]


@lru_cache(maxsize=1024)
def _weights(first: int, last: int, length_in: int, length_out: int, kernel: str) -> _Taps:
    k = KERNELS[kernel]
    scale = length_out / length_in
    stretch = max(1.0, 1 / scale)  # a reduction stretches the kernel: antialiasing
    centre = (np.arange(first, last) + 0.5) / scale - 0.5
    taps = int(np.ceil(2 * k.support * stretch)) + 2
    index = np.floor(centre - k.support * stretch).astype(np.int64)[:, None] + np.arange(taps)
    weight = k.function((centre[:, None] - index) / stretch)
    weight /= weight.sum(1, keepdims=True)
    index = np.mod(index, 2 * length_in)  # mirrored: ... 1 0 | 0 1 ... n-1 | n-1 n-2 ...
    index = np.where(index < length_in, index, 2 * length_in - 1 - index)
    rows, used = np.nonzero(weight)
    columns = index[rows, used]
    start, stop = int(columns.min()), int(columns.max()) + 1
    matrix = np.zeros((last - first, stop - start))
    np.add.at(matrix, (rows, columns - start), weight[rows, used])
    return _Taps(start, stop, matrix)


def bleed(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Let the colour of visible pixels spread under the transparent ones.

    ``pixels`` ``[H, W, 3]``, ``alpha`` ``[H, W]`` of the same dtype. Under full transparency files hold arbitrary
    colours, mostly black, which a network would mix into the visible edge as a dark ring. Where ``alpha`` is not 0, the
    colour stays; elsewhere it becomes an average of the nearest visible colours (pull-push: Gortler et al. 1996,
    section 4.2, "The Lumigraph").

    Premultiplied colours need none of this, but are worse: of a plain disc with an edge 0.5 to 20 pixels soft they miss
    the colour by up to 200 levels, where little alpha divides what was rounded (at 16 bits by 99), these by none; and
    laid on black or white, what the compact network makes of them is up to 10 dB further from the truth.
    """
    if alpha.all() or not alpha.any():
        return pixels
    # Weighted by alpha: an edge pixel that is almost transparent has a colour of few significant bits.
    weight = alpha.astype(np.float32)[..., None] / np.iinfo(alpha.dtype).max
    filled = _pull_push(pixels.astype(np.float32) * weight, weight)
    spread: Pixels = np.where(alpha[..., None] == 0, np.rint(filled).astype(pixels.dtype), pixels)
    return spread


def _pull_push(colour: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Return ``colour / weight`` where there is weight, and the same at half the size elsewhere."""
    import cv2  # few pictures need it

    h, w = weight.shape[:2]
    known: Pixels = colour / np.maximum(weight, 1e-6)
    if weight.all() or max(h, w) == 1:
        return known
    half = (max(1, w // 2), max(1, h // 2))
    coarse_weight = cv2.resize(weight, half, interpolation=cv2.INTER_AREA).reshape(half[1], half[0], 1)
    coarse_colour = cv2.resize(colour, half, interpolation=cv2.INTER_AREA).reshape(half[1], half[0], 3)
    coarse = cv2.resize(_pull_push(coarse_colour, coarse_weight), (w, h), interpolation=cv2.INTER_LINEAR)
    return np.where(weight > 0, known, coarse.reshape(h, w, 3))
