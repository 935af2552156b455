"""Compact: a plain stack of 3x3 convolutions at LR size, the small network of Real-ESRGAN (SRVGGNetCompact)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscale.models.base import Generator, count, run


class Compact(Generator):
    """``PixelShuffle(body(lr)) + nearest(lr)``; names of tensors as in the published checkpoints."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        scale: Literal[1, 2, 3, 4] = 4
        num_feat: int = 64
        num_conv: int = 16
        """Convolutions between the first and the last."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.scale = config.scale
        self.radius = config.num_conv + 2
        layers: list[nn.Module] = [nn.Conv2d(3, config.num_feat, 3, padding=1), nn.PReLU(config.num_feat)]
        for _ in range(config.num_conv):
            layers += [nn.Conv2d(config.num_feat, config.num_feat, 3, padding=1), nn.PReLU(config.num_feat)]
        layers += [nn.Conv2d(config.num_feat, 3 * config.scale**2, 3, padding=1)]
        self.body = nn.Sequential(*layers)
        self.edges = ("body.0", "body.1", f"body.{len(layers) - 1}")

    @classmethod
    def recognise(cls, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Any] | None:  # noqa: D102
        first = shapes.get("body.0.weight", ())
        if len(first) != 4 or first[1:] != (3, 3, 3) or any(not name.startswith("body.") for name in shapes):
            return None
        last = 1 + max(int(name.split(".")[1]) for name in shapes)
        num_conv = (last - 3) // 2
        scale = math.isqrt(shapes.get(f"body.{last - 1}.weight", (0,))[0] // 3)
        if count(shapes, r"body\.(\d+)\.weight") != last or scale == 0:
            return None
        return {"scale": scale, "num_feat": first[0], "num_conv": num_conv}

    def initialise(self) -> None:
        """Start near the identity in the middle, near zero at the end.

        A plain stack that starts from noise alone collapses to nearest-neighbour enlargement, or learns slowly; one
        whose middle layers pass on what they get, plus a little noise, trains like a residual network from the first
        step.
        """
        first, *middle, last = [layer for layer in self.body if isinstance(layer, nn.Conv2d)]
        for layer, gain in ((first, 1.4), *((layer, 0.15) for layer in middle), (last, 0.1)):
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for layer in middle:
            layer.weight.data[:, :, 1, 1] += torch.eye(self.config.num_feat)

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge ``lr`` ``[B, 3, h, w]``."""
        *body, last = self.body
        x = lr
        for layer in body:
            x = run(layer, x)  # [B, F, h, w]
        return F.pixel_shuffle(run(last, x), self.scale) + F.interpolate(lr, scale_factor=self.scale)
