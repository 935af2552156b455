"""RRDBNet, the generator of ESRGAN (Wang et al. 2018, section 3.1) and Real-ESRGAN (Wang et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscale.models.base import Generator, count, run

RESIDUAL_SCALE = 0.2  # ESRGAN, section 3.1: residual scaling


class ResidualDenseBlock(nn.Module):
    """Five convolutions, each of which sees the results of all before it."""

    def __init__(self, num_feat: int, num_grow_ch: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_grow_ch, 3, padding=1)
        self.conv2 = nn.Conv2d(num_feat + num_grow_ch, num_grow_ch, 3, padding=1)
        self.conv3 = nn.Conv2d(num_feat + 2 * num_grow_ch, num_grow_ch, 3, padding=1)
        self.conv4 = nn.Conv2d(num_feat + 3 * num_grow_ch, num_grow_ch, 3, padding=1)
        self.conv5 = nn.Conv2d(num_feat + 4 * num_grow_ch, num_feat, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` ``[B, F, h, w]`` to the same shape."""
        features = [x]
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            features.append(F.leaky_relu(conv(torch.cat(features, 1)), 0.2, inplace=True))
        return x + RESIDUAL_SCALE * self.conv5(torch.cat(features, 1))  # type: ignore[no-any-return]


class RRDB(nn.Module):
    """Residual in residual dense block: three dense blocks and a residual around them."""

    def __init__(self, num_feat: int, num_grow_ch: int) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb2 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb3 = ResidualDenseBlock(num_feat, num_grow_ch)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` ``[B, F, h, w]`` to the same shape."""
        return x + RESIDUAL_SCALE * self.rdb3(self.rdb2(self.rdb1(x)))  # type: ignore[no-any-return]


class RRDBNet(Generator):
    """The trunk of RRDBs works at a quarter of the result's size: scales 2 and 1 pixel-unshuffle the input first."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        scale: Literal[1, 2, 4] = 4
        num_feat: int = 64
        num_block: int = 23
        num_grow_ch: int = 32

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.scale = config.scale
        self.multiple_of = 4 // config.scale
        nf = config.num_feat
        self.conv_first = nn.Conv2d(3 * self.multiple_of**2, nf, 3, padding=1)
        self.body = nn.Sequential(*(RRDB(nf, config.num_grow_ch) for _ in range(config.num_block)))
        self.conv_body = nn.Conv2d(nf, nf, 3, padding=1)
        self.conv_up1 = nn.Conv2d(nf, nf, 3, padding=1)
        self.conv_up2 = nn.Conv2d(nf, nf, 3, padding=1)
        self.conv_hr = nn.Conv2d(nf, nf, 3, padding=1)
        self.conv_last = nn.Conv2d(nf, 3, 3, padding=1)
        self.edges = ("conv_first", "conv_last")
        # 15 convolutions a block, conv_first and conv_body reach one trunk pixel each; conv_up1 1/2, the rest 1/4
        # each, and nearest enlargement rounds outward: two more. Unshuffled pixels reach as far as their group.
        self.radius = self.multiple_of * (15 * config.num_block + 5) - 1

    @classmethod
    def recognise(cls, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Any] | None:  # noqa: D102
        first, grow = shapes.get("conv_first.weight"), shapes.get("body.0.rdb1.conv1.weight")
        if first is None or grow is None:
            return None
        return {
            "scale": {3: 4, 12: 2, 48: 1}.get(first[1], 0),
            "num_feat": first[0],
            "num_block": count(shapes, r"body\.(\d+)\.rdb1\.conv1\.weight"),
            "num_grow_ch": grow[0],
        }

    def initialise(self) -> None:
        """Kaiming-normal, a tenth of it in the body (ESRGAN, section 3.1: smaller initialisation)."""
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                if name.startswith("body."):
                    layer.weight.data.mul_(0.1)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge ``lr`` ``[B, 3, h, w]``."""
        x = F.pixel_unshuffle(lr, self.multiple_of) if self.multiple_of > 1 else lr
        x = self.conv_first(x).to(self.conv_body.weight.dtype)  # [B, F, h/m, w/m]
        x = x + self.conv_body(self.body(x))
        x = F.leaky_relu(self.conv_up1(F.interpolate(x, scale_factor=2)), 0.2, inplace=True)
        x = F.leaky_relu(self.conv_up2(F.interpolate(x, scale_factor=2)), 0.2, inplace=True)
        x = F.leaky_relu(self.conv_hr(x), 0.2, inplace=True)  # [B, F, s*h, s*w]
        return run(self.conv_last, x)
