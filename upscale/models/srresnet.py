"""SRResNet without batch normalisation (Ledig et al. 2017, as modified in BasicSR's MSRResNet)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from upscale.models.base import Generator, Shapes, conv, count, factors, kaiming
from upscale.models.layout import Layout
from upscale.models.rows import Part, Whole, shuffled


class ResidualBlock(nn.Module):
    """``x + res_scale * conv2(relu(conv1(x)))``, of EDSR, too."""

    def __init__(self, num_feat: int, res_scale: float = 1.0) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.conv1 = conv(num_feat, num_feat)
        self.conv2 = conv(num_feat, num_feat)

    def rows(self, x: Tensor, rows: Whole, *, last: bool) -> Tensor:
        """Map the rows ``x`` ``[B, F, n, w]`` to those that are final, ``last`` if they reach the bottom."""
        y = rows.conv(self.conv2, F.relu(rows.conv(self.conv1, x, last=last)), last=last)
        return rows.delay(self, x, y.shape[2]) + (y if self.res_scale == 1 else self.res_scale * y)


class SRResNet(Generator):
    """Residual blocks at LR size, then pixel shuffling; the input, bilinearly enlarged, is added."""

    streams = True
    layouts = (
        Layout(
            author="xinntao/ESRGAN, KAIR",
            names={
                "conv_first": "conv_first",
                r"recon_trunk\.(\d+)\.(conv\d)": r"body.\1.\2",
                r"upconv(\d)": r"upconv\1",
                "HRconv": "conv_hr",
                "conv_last": "conv_last",
            },
        ),
        Layout(
            author="mmediting",
            names={
                "conv_(first|hr|last)": r"conv_\1",
                r"trunk_net\.(\d+)\.(conv\d)": r"body.\1.\2",
                r"upsample(\d)\.upsample_conv": r"upconv\1",
            },
        ),
    )

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        scale: Literal[2, 3, 4] = 4
        num_feat: int = 64
        num_block: int = 16

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        nf = config.num_feat
        self.conv_first = conv(3, nf)
        self.body = nn.Sequential(*(ResidualBlock(nf) for _ in range(config.num_block)))
        self.factors = factors(config.scale)
        self.upconv1 = conv(nf, nf * self.factors[0] ** 2)
        if len(self.factors) == 2:
            self.upconv2 = conv(nf, nf * self.factors[1] ** 2)
        self.conv_hr = conv(nf, nf)
        self.conv_last = conv(nf, 3)
        self.edges = ("conv_first", "conv_last")
        # conv_first, the body and upconv1 reach one LR pixel each; what follows at twice or four times the size
        # (upconv2 1/2, conv_hr and conv_last 1/4 each) reaches one more, and so does the bilinear enlargement.
        self.radius = 2 * config.num_block + 2 + (1 if len(self.factors) == 1 else 2)

    @classmethod
    def recognise(cls, shapes: Shapes) -> Mapping[str, Any] | None:  # noqa: D102
        first, up = shapes.get("conv_first.weight"), shapes.get("upconv1.weight")
        if first is None or up is None or "body.0.conv1.weight" not in shapes or first[1:] != (3, 3, 3):
            return None
        return {
            "scale": 4 if "upconv2.weight" in shapes else {4: 2, 9: 3}.get(up[0] // first[0], 0),
            "num_feat": first[0],
            "num_block": count(shapes, r"body\.(\d+)\.conv1\.weight"),
        }

    @classmethod
    def in_order(cls, letters: str) -> list[str] | None:  # noqa: D102
        match = re.fullmatch(r"h((?:bb)+)(u+)bt", letters)
        if match is None:
            return None
        body = (f"body.{i}.conv{j}" for i in range(len(match[1]) // 2) for j in (1, 2))
        return ["conv_first", *body, *(f"upconv{i + 1}" for i in range(len(match[2]))), "conv_hr", "conv_last"]

    def initialise(self) -> None:
        """Kaiming-normal, a tenth of it (ESRGAN, section 3.1: residual networks like a small start)."""
        kaiming(self, 0.1)

    def enlarge_rows(self, x: Tensor, part: Part, rows: Whole) -> Tensor:  # noqa: D102
        last = part.last
        base = rows.bilinear("base", x, self.scale, last=last)
        x = F.leaky_relu(rows.conv(self.conv_first, x, last=last), 0.1)
        x = x.to(self.upconv1.weight.dtype)
        for block in self.body:
            assert isinstance(block, ResidualBlock)
            x = block.rows(x, rows, last=last)  # [B, F, h, w]
        x = F.leaky_relu(shuffled(rows.conv(self.upconv1, x, last=last), self.factors[0]), 0.1)
        if len(self.factors) == 2:
            x = F.leaky_relu(shuffled(rows.conv(self.upconv2, x, last=last), self.factors[1]), 0.1)
        x = F.leaky_relu(rows.conv(self.conv_hr, x, last=last), 0.1)  # [B, F, s*h, s*w]
        x = rows.conv(self.conv_last, x, last=last)
        return x + rows.delay(self, base, x.shape[2])
