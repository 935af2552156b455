"""Which pixels of which channels are compared: the published figure depends on it more than on the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from upscale.imaging import rgb_to_y


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """A row of PROTOCOLS."""

    name: str
    summary: str
    source: str
    channels: Callable[[Tensor], Tensor]
    """RGB ``[B, 3, H, W]`` in [0, 1] -> what is compared, ``[B, C, H, W]``."""
    border: Callable[[int], int]
    """Scale -> pixels left out at each edge."""
    rounds: bool = False
    """Whether what is compared is rounded as the picture is. It costs .03 dB at 34 dB, and the tables contain it."""


def _y(image: Tensor) -> Tensor:
    return rgb_to_y(image)[:, None]


def _rgb(image: Tensor) -> Tensor:
    return image


def _edsr_luma(image: Tensor) -> Tensor:
    return (_weighted(image, 65.738, 129.057, 25.064) * 255 / 256 + 16) / 255


def _full_range_luma(image: Tensor) -> Tensor:
    return _weighted(image, 0.299, 0.587, 0.114)


def _weighted(image: Tensor, *weights: float) -> Tensor:
    w = torch.tensor(weights, dtype=image.dtype, device=image.device)
    return torch.einsum("bchw,c->bhw", image, w)[:, None]


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="y",
            summary="luma of BT.601 in studio range, rounded, as MATLAB's rgb2ycbcr of integers; scale pixels off",
            source="the tables of SRCNN, VDSR, EDSR, RCAN, ESRGAN, SwinIR on Set5, Set14, B100, Urban100",
            channels=_y,
            border=lambda scale: scale,
            rounds=True,
        ),
        Protocol(
            name="rgb",
            summary="red, green and blue; scale pixels off",
            source="BasicSR's default and its model zoo, mmagic",
            channels=_rgb,
            border=lambda scale: scale,
        ),
        Protocol(
            name="edsr",
            summary="luma 65.738 R + 129.057 G + 25.064 B over 256; scale pixels off",
            source="EDSR-PyTorch's calc_psnr on benchmark sets, and what descends from it (RCAN, LIIF)",
            channels=_edsr_luma,
            border=lambda scale: scale,
        ),
        Protocol(
            name="edsr-div2k",
            summary="red, green and blue; scale + 6 pixels off",
            source="EDSR-PyTorch's calc_psnr on DIV2K, after Lim et al. 2017, section 4.2, and NTIRE 2017",
            channels=_rgb,
            border=lambda scale: scale + 6,
        ),
        Protocol(
            name="opencv-y",
            summary="luma of BT.601 in full range, as OpenCV's COLOR_RGB2YCrCb; scale pixels off; 1.3 dB below y",
            source="repositories that took OpenCV's conversion for MATLAB's",
            channels=_full_range_luma,
            border=lambda scale: scale,
        ),
        Protocol(
            name="none",
            summary="red, green and blue; the whole picture",
            source="PSNR as image libraries compute it",
            channels=_rgb,
            border=lambda scale: 0,
        ),
    )
}
DEFAULT_PROTOCOL = PROTOCOLS["y"]


def prepare(
    image: Tensor,
    crop_border: int,
    protocol: Protocol = DEFAULT_PROTOCOL,
    *,
    levels: int = 255,
    grayscale: bool = False,
) -> Tensor:
    """Turn ``image`` ``[B, 3, H, W]`` RGB in [0, 1] into what ``protocol`` compares: ``[B, C, H', W']`` float64.

    Rounded to ``levels`` steps as a picture file would be; ``crop_border`` pixels off each edge. A picture of one
    channel is its own luma: to scale it by 219/255 as if it were RGB would add 1.3 dB.
    """
    compared = _round(image.double().clamp(0, 1), levels)
    compared = compared[:, :1] if grayscale else protocol.channels(compared)
    if protocol.rounds:
        compared = _round(compared, levels)
    height, width = compared.shape[-2:]
    return compared[..., crop_border : height - crop_border, crop_border : width - crop_border]


def _round(image: Tensor, levels: int) -> Tensor:
    """Round to ``levels`` steps, halves up as MATLAB does."""
    return (image * levels + 0.5).floor() / levels
