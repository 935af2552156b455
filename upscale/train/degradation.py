"""GT -> LR."""

from __future__ import annotations

from torch import Tensor

from upscale.imaging import resize

MARGIN = 4
"""LR pixels around a crop that are degraded along and then cut off: LR pixels at its edge see their neighbours."""


def degrade(gt: Tensor, scale: int) -> Tensor:
    """Reduce ``gt`` ``[B, 3, s*h, s*w]`` in [0, 1] to ``[B, 3, h, w]``, bicubic as MATLAB does it, in 8-bit steps."""
    lr = resize(gt, gt.shape[-2] // scale, gt.shape[-1] // scale)
    return (lr.clamp(0, 1) * 255).round() / 255
