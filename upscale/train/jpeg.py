"""What JPEG does to a picture, batched on the device (ITU-T T.81; tables K.1 and K.2; quality as libjpeg scales it)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = torch.tensor([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
], dtype=torch.float32)  # fmt: skip
CHROMA = torch.full((8, 8), 99.0)
CHROMA[:4, :4] = torch.tensor([[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]])
# Full-range BT.601 (JFIF 1.02, section 7).
TO_YCC = torch.tensor([
    [0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]
])  # fmt: skip
DCT = torch.tensor([
    [math.cos((2 * n + 1) * k * math.pi / 16) * math.sqrt((1 if k == 0 else 2) / 8) for n in range(8)]
    for k in range(8)
])  # fmt: skip
"""Orthonormal: row ``k`` is the cosine of frequency ``k``."""


def jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """Compress ``image`` ``[B, 3, H, W]`` in [0, 1], each at its ``quality`` ``[B]`` 1 to 100; chroma at half size."""
    h, w = image.shape[-2:]
    levels = (image * 255).round()
    padded = F.pad(levels, (0, -w % 16, 0, -h % 16), mode="replicate")
    to_ycc = TO_YCC.to(image)
    ycc = torch.einsum("kc,bchw->bkhw", to_ycc, padded)
    luma = _quantise(ycc[:, :1] - 128, LUMA, quality)
    chroma = _quantise(F.avg_pool2d(ycc[:, 1:], 2), CHROMA, quality)
    # libjpeg's "fancy upsampling" is bilinear.
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    restored = torch.einsum("kc,bchw->bkhw", torch.linalg.inv(TO_YCC).to(to_ycc), torch.cat((luma + 128, chroma), 1))
    return (restored[..., :h, :w].round() / 255).clamp(0, 1)


def _quantise(planes: Tensor, table: Tensor, quality: Tensor) -> Tensor:
    """Round the coefficients of the 8x8 blocks of ``planes`` ``[B, C, H, W]`` to multiples of the table's steps."""
    b, c, h, w = planes.shape
    q = quality.to(planes).clamp(1, 100)
    percent = torch.where(q < 50, 5000 / q, 200 - 2 * q)
    steps = ((table.to(planes) * percent.view(-1, 1, 1) + 50) / 100).floor().clamp(1, 255)  # [B, 8, 8]
    dct = DCT.to(planes)
    blocks = planes.view(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)  # [B, C, h/8, w/8, 8, 8]
    steps = steps.view(b, 1, 1, 1, 8, 8)
    coefficients = ((dct @ blocks @ dct.T) / steps).round() * steps
    return (dct.T @ coefficients @ dct).transpose(3, 4).reshape(b, c, h, w)
