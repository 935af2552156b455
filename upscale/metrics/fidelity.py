"""PSNR, SSIM and MS-SSIM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from upscale.errors import InputError

WINDOW = 11  # pixels: Wang et al. 2004, section III-C
C1, C2 = 0.01**2, 0.03**2
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2


def psnr(sr: Tensor, gt: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of ``[B, C, H, W]`` in [0, 1], in dB, ``[B]``; infinite for equal images."""
    return -10 * torch.log10((sr - gt).square().mean((1, 2, 3)))


def ssim(sr: Tensor, gt: Tensor) -> Tensor:
    """Structural similarity of ``[B, C, H, W]`` in [0, 1], ``[B]`` (Wang et al. 2004, section III-B).

    11x11 Gaussian window of deviation 1.5, K1 0.01, K2 0.03, over positions where the window lies inside the image;
    the mean over channels.

    Raises:
        InputError: the images are smaller than the window.
    """
    need(sr, WINDOW, "SSIM")
    luminance, structure = _similarity(sr, gt)
    return (luminance * structure).mean((1, 2, 3))


def ms_ssim(sr: Tensor, gt: Tensor) -> Tensor:
    """Multi-scale structural similarity of ``[B, C, H, W]`` in [0, 1], ``[B]`` (Wang et al. 2003, equation 7).

    Five scales, each the mean of 2x2 pixels of the one before; an odd last row or column is repeated.

    Raises:
        InputError: the coarsest scale is smaller than the window.
    """
    need(sr, WINDOW * 2 ** (len(MS_WEIGHTS) - 1), "MS-SSIM")
    result = torch.ones(sr.shape[:2], dtype=sr.dtype, device=sr.device)  # [B, C]
    for scale, weight in enumerate(MS_WEIGHTS):
        luminance, structure = _similarity(sr, gt)
        last = scale == len(MS_WEIGHTS) - 1
        factor = (luminance * structure if last else structure).mean((2, 3))
        result = result * factor.clamp(min=0) ** weight  # a negative factor has no real power
        sr, gt = _halve(sr), _halve(gt)
    return result.mean(1)


def _similarity(sr: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    """Return luminance, and contrast times structure, ``[B, C, H - 10, W - 10]``."""
    x = torch.arange(WINDOW, dtype=sr.dtype, device=sr.device) - WINDOW // 2
    g = torch.exp(-(x**2) / (2 * 1.5**2))
    g = g / g.sum()
    channels = sr.shape[1]

    def blur(image: Tensor) -> Tensor:
        rows = F.conv2d(image, g.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(rows, g.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    mu_x, mu_y = blur(sr), blur(gt)
    var_x, var_y = blur(sr * sr) - mu_x**2, blur(gt * gt) - mu_y**2
    covariance = blur(sr * gt) - mu_x * mu_y
    luminance = (2 * mu_x * mu_y + C1) / (mu_x**2 + mu_y**2 + C1)
    return luminance, (2 * covariance + C2) / (var_x + var_y + C2)


def _halve(image: Tensor) -> Tensor:
    h, w = image.shape[-2:]
    return F.avg_pool2d(F.pad(image, (0, w % 2, 0, h % 2), mode="replicate"), 2)


def need(image: Tensor, least: int, metric: str) -> None:
    """Raise InputError if ``image`` ``[B, C, H, W]`` is smaller than ``least`` pixels, which ``metric`` needs."""
    h, w = image.shape[-2:]
    if min(h, w) < least:
        raise InputError(f"{w}x{h} compared pixels are too few for {metric}, which needs {least}x{least}")


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of METRICS."""

    function: Callable[[Tensor, Tensor], Tensor]
    """``(sr, gt)`` ``[B, C, H, W]`` in [0, 1] -> ``[B]``."""
    higher_is_better: bool


METRICS = {"psnr": Metric(psnr, True), "ssim": Metric(ssim, True)}
