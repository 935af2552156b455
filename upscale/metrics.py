"""PSNR and SSIM under the protocol of the super-resolution literature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from upscale.imaging import rgb_to_y


def prepare(image: Tensor, crop_border: int) -> Tensor:
    """Turn ``image`` ``[B, 3, H, W]`` RGB in [0, 1] into what the literature compares: ``[B, 1, H', W']`` float64.

    Rounded to 8 bits as a picture file would be, luma of BT.601 in studio range, ``crop_border`` pixels off each edge.
    """
    rounded = (image.double().clamp(0, 1) * 255).round() / 255
    y = rgb_to_y(rounded)[:, None]
    return y[..., crop_border : y.shape[-2] - crop_border, crop_border : y.shape[-1] - crop_border]


def psnr(sr: Tensor, gt: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, ``[B]``; infinite for equal images."""
    return -10 * torch.log10((sr - gt).square().mean((1, 2, 3)))


def ssim(sr: Tensor, gt: Tensor) -> Tensor:
    """Structural similarity, ``[B]`` (Wang et al. 2004, section III-B).

    11x11 Gaussian window of deviation 1.5, K1 0.01, K2 0.03, over positions where the window lies inside the image.
    """
    x = torch.arange(11, dtype=sr.dtype, device=sr.device) - 5
    g = torch.exp(-(x**2) / (2 * 1.5**2))
    g = g / g.sum()
    channels = sr.shape[1]

    def blur(image: Tensor) -> Tensor:
        rows = F.conv2d(image, g.view(1, 1, 11, 1).expand(channels, 1, 11, 1), groups=channels)
        return F.conv2d(rows, g.view(1, 1, 1, 11).expand(channels, 1, 1, 11), groups=channels)

    mu_x, mu_y = blur(sr), blur(gt)
    var_x, var_y = blur(sr * sr) - mu_x**2, blur(gt * gt) - mu_y**2
    covariance = blur(sr * gt) - mu_x * mu_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mu_x * mu_y + c1) * (2 * covariance + c2)) / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))
    return similarity.mean((1, 2, 3))


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of METRICS."""

    function: Callable[[Tensor, Tensor], Tensor]
    """``(sr, gt)`` ``[B, C, H, W]`` in [0, 1] -> ``[B]``."""
    unit: str
    higher_is_better: bool


METRICS = {"psnr": Metric(psnr, "dB", True), "ssim": Metric(ssim, "", True)}
