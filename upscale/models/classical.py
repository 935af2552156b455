"""Networks without weights: classical interpolation, to compare against and for pictures that must stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from upscale.imaging import KERNELS, resize
from upscale.models.base import Generator


class Interpolation(Generator):
    """Separable interpolation with mirrored borders."""

    kernel: ClassVar[str]
    any_scale = True
    margin = 0

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        scale: int = 4

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.radius = int(KERNELS[self.kernel].support) + 1

    def at_scale(self, scale: int) -> Interpolation:
        """Return the same interpolation by another factor."""
        return type(self)(self.Config(scale=scale))

    def enlarge(self, x: Tensor) -> Tensor:  # noqa: D102
        return resize(x, x.shape[-2] * self.scale, x.shape[-1] * self.scale, self.kernel)


class Nearest(Interpolation):
    """Each pixel becomes a square."""

    kernel = "nearest"


class Bilinear(Interpolation):
    """A weighted mean of the four nearest pixels."""

    kernel = "bilinear"


class Bicubic(Interpolation):
    """Cubic convolution (Keys 1981, a = -1/2), the usual baseline."""

    kernel = "bicubic"


class Lanczos(Interpolation):
    """Lanczos with three lobes."""

    kernel = "lanczos"


class Wiener(Interpolation):
    """Wiener deconvolution of the bicubic enlargement: it undoes the blur of an antialiased reduction.

    The reduction blurs by the bicubic kernel stretched by the scale, of frequency response H; the filter of least mean
    square error is H / (H^2 + K), where K is the power of noise over that of the signal (Wiener 1949; Gonzalez and
    Woods, section 5.8). It is applied to rows and columns, cut to ``REACH`` LR pixels.
    """

    kernel = "bicubic"
    REACH = 4
    NOISE_TO_SIGNAL = 0.05

    def __init__(self, config: Interpolation.Config) -> None:
        super().__init__(config)
        self.radius += self.REACH

    def enlarge(self, x: Tensor) -> Tensor:  # noqa: D102
        bicubic = super().enlarge(x)  # [B, C, H, W]
        if self.scale == 1:
            return bicubic
        taps = torch.from_numpy(self._taps()).to(bicubic)
        pad = self.REACH * self.scale
        channels = bicubic.shape[1]
        padded = F.pad(bicubic, (pad, pad, pad, pad), mode="replicate")
        rows = F.conv2d(padded, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(rows, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    def _taps(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return the filter ``[2 * REACH * scale + 1]``, of sum 1."""
        pad, length = self.REACH * self.scale, 1024
        blur = np.zeros(length)
        at = np.arange(-2 * self.scale, 2 * self.scale + 1)
        blur[at] = KERNELS["bicubic"].function(at / self.scale)
        response = np.fft.rfft(blur / blur.sum()).real
        inverse = response / (response**2 + self.NOISE_TO_SIGNAL)
        taps = np.fft.irfft(inverse, length)[np.arange(-pad, pad + 1)]
        taps *= np.hanning(2 * pad + 3)[1:-1]  # or the cut rings
        return np.asarray(taps / taps.sum())
