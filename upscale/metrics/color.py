"""Differences of colour as an eye sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from upscale.imaging import srgb_to_light

WHITE = (0.95047, 1.0, 1.08883)  # D65, 2 degrees
TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))


def srgb_to_lab(image: Tensor) -> Tensor:
    """Turn sRGB ``[B, 3, H, W]`` in [0, 1] into CIE L*a*b* ``[B, 3, H, W]``, L* in [0, 100] (IEC 61966-2-1; CIE 15)."""
    light = srgb_to_light(image)
    xyz = torch.einsum("kc,bchw->bkhw", torch.tensor(TO_XYZ, dtype=image.dtype, device=image.device), light)
    t = xyz / torch.tensor(WHITE, dtype=image.dtype, device=image.device).view(1, 3, 1, 1)
    f = torch.where(t > (6 / 29) ** 3, t.clamp(min=1e-12) ** (1 / 3), t * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), 1)


def ciede2000(lab_1: Tensor, lab_2: Tensor) -> Tensor:
    """Colour difference dE2000 of L*a*b* ``[B, 3, H, W]``, as ``[B, H, W]`` (Sharma, Wu and Dalal 2005, section 2).

    About 1 is just visible side by side.
    """
    (l_1, a_1, b_1), (l_2, a_2, b_2) = lab_1.unbind(1), lab_2.unbind(1)
    c_mean = (torch.hypot(a_1, b_1) + torch.hypot(a_2, b_2)) / 2
    g = 0.5 * (1 - _saturation(c_mean))
    a_1, a_2 = a_1 * (1 + g), a_2 * (1 + g)
    c_1, c_2 = torch.hypot(a_1, b_1), torch.hypot(a_2, b_2)
    h_1, h_2 = _hue(a_1, b_1), _hue(a_2, b_2)
    grey = c_1 * c_2 == 0

    turn = h_2 - h_1
    turn = torch.where(turn > 180, turn - 360, torch.where(turn < -180, turn + 360, turn))
    turn = torch.where(grey, torch.zeros_like(turn), turn)
    delta_h = 2 * (c_1 * c_2).sqrt() * torch.sin(torch.deg2rad(turn / 2))

    far = (h_1 - h_2).abs() > 180
    h_mean = (h_1 + h_2) / 2
    h_mean = torch.where(far, torch.where(h_1 + h_2 < 360, h_mean + 180, h_mean - 180), h_mean)
    h_mean = torch.where(grey, h_1 + h_2, h_mean)

    l_mean, c_mean = (l_1 + l_2) / 2, (c_1 + c_2) / 2
    t = (
        1
        - 0.17 * _cos(h_mean - 30)
        + 0.24 * _cos(2 * h_mean)
        + 0.32 * _cos(3 * h_mean + 6)
        - 0.20 * _cos(4 * h_mean - 63)
    )
    s_l = 1 + 0.015 * (l_mean - 50) ** 2 / (20 + (l_mean - 50) ** 2).sqrt()
    s_c = 1 + 0.045 * c_mean
    s_h = 1 + 0.015 * c_mean * t
    rotation = 60 * torch.exp(-(((h_mean - 275) / 25) ** 2))
    r_t = -2 * _saturation(c_mean) * torch.sin(torch.deg2rad(rotation))
    l_term, c_term, h_term = (l_2 - l_1) / s_l, (c_2 - c_1) / s_c, delta_h / s_h
    return (l_term**2 + c_term**2 + h_term**2 + r_t * c_term * h_term).clamp(min=0).sqrt()


def _saturation(chroma: Tensor) -> Tensor:
    return (chroma**7 / (chroma**7 + 25.0**7)).sqrt()


def _hue(a: Tensor, b: Tensor) -> Tensor:
    return torch.rad2deg(torch.atan2(b, a)) % 360


def _cos(degrees: Tensor) -> Tensor:
    return torch.cos(torch.deg2rad(degrees))
