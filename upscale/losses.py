"""Pixel losses: ``(sr, gt) -> scalar``, inputs ``[B, 3, H, W]`` RGB, nominally in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from upscale.imaging import rgb_to_y


def l1(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute difference."""
    return F.l1_loss(sr, gt)


def l1_luma(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean absolute difference of luma, in which most of what the eye sees as detail lies."""
    return F.l1_loss(rgb_to_y(sr), rgb_to_y(gt))


def mse(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean squared difference, the content loss of SRGAN (Ledig et al. 2017, equation 4)."""
    return F.mse_loss(sr, gt)


def charbonnier(sr: Tensor, gt: Tensor) -> Tensor:
    """Mean of ``sqrt(difference^2 + 1e-6)`` (Lai et al. 2017, equation 1, with epsilon 1e-3)."""
    return torch.sqrt((sr - gt).square() + 1e-6).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1,
    "l1_luma": l1_luma,
    "mse": mse,
    "charbonnier": charbonnier,
}
