"""SPAN (Wan et al. 2024): a small network whose attention has no weights of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscale.models.base import Generator, Shapes, conv, kaiming, run, shuffle_factor
from upscale.models.edsr import DIV2K_MEAN, LEVELS
from upscale.models.layout import Layout

GAIN = 2  # widening inside of a convolution in its training form
BLOCKS = 6


class ReparameterisedConv(nn.Module):
    """A 3x3 convolution, in its training form the sum of 1x1-3x3-1x1 and 1x1 (section 3.3).

    The sum is a single 3x3 convolution whose weights are computed from those of the parts, so both forms run alike.
    """

    def __init__(self, inputs: int, outputs: int, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        if fused:
            self.eval_conv = conv(inputs, outputs)
        else:
            self.sk = conv(inputs, outputs, 1)
            self.conv = nn.Sequential(
                conv(inputs, GAIN * inputs, 1),
                conv(GAIN * inputs, GAIN * outputs),
                conv(GAIN * outputs, outputs, 1),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` ``[B, C, h, w]`` to ``[B, C', h, w]``."""
        weight, bias = (self.eval_conv.weight, self.eval_conv.bias) if self.fused else self._fuse()
        return F.conv2d(x.to(weight.dtype), weight, bias, padding=1)

    def _fuse(self) -> tuple[Tensor, Tensor]:
        """Return weight ``[C', C, 3, 3]`` and bias ``[C']`` of the sum of the parts."""
        (w1, b1), (w2, b2), (w3, b3), (skip, skip_bias) = (
            (layer.weight, layer.bias) for layer in (*self.conv, self.sk)
        )
        weight = torch.einsum("om,mnhw,ni->oihw", w3[:, :, 0, 0], w2, w1[:, :, 0, 0])
        # What the first 1x1 adds everywhere, also to the zeros around the picture, the 3x3 sums up.
        bias = w3[:, :, 0, 0] @ (torch.einsum("mnhw,n->m", w2, b1) + b2) + b3
        return weight + F.pad(skip, (1, 1, 1, 1)), bias + skip_bias


class Block(nn.Module):
    """Swift parameter-free attention block (section 3.2)."""

    def __init__(self, num_feat: int, *, fused: bool) -> None:
        super().__init__()
        self.c1_r = ReparameterisedConv(num_feat, num_feat, fused=fused)
        self.c2_r = ReparameterisedConv(num_feat, num_feat, fused=fused)
        self.c3_r = ReparameterisedConv(num_feat, num_feat, fused=fused)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x`` ``[B, F, h, w]`` to the block's output and the activated result of its first convolution."""
        first = F.silu(self.c1_r(x))
        x3 = self.c3_r(F.silu(self.c2_r(first)))
        return (x3 + x) * (torch.sigmoid(x3) - 0.5), first


class SPAN(Generator):
    """Six blocks; what goes into the first and comes out of some is joined before pixel shuffling."""

    layouts = (
        Layout(
            author="hongyuanyu/SPAN, training form",
            names={
                r"(?:.+\.)?eval_conv": None,  # computed anew from the parts
                "no_norm": "norm=false",
                r"(.+)\.sk": r"\1.sk",
                r"(.+)\.conv\.(\d)": r"\1.conv.\2",
                "conv_cat": "conv_cat",
                r"upsampler\.0": r"upsampler.0",
            },
        ),
        Layout(
            author="hongyuanyu/SPAN, fused",
            names={
                "no_norm": "norm=false",
                r"(.+)\.eval_conv": r"\1.eval_conv",
                "conv_cat": "conv_cat",
                r"upsampler\.0": r"upsampler.0",
            },
        ),
    )
    unseen = ("norm",)

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        scale: Literal[1, 2, 3, 4, 8] = 4
        num_feat: int = 48
        norm: bool = True
        """Whether the input is [0, 255] less the mean of DIV2K, not [0, 1]."""
        fused: bool = False
        """Whether convolutions are stored as they run, not as they are trained."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        nf = config.num_feat
        self.conv_1 = ReparameterisedConv(3, nf, fused=config.fused)
        for i in range(BLOCKS):
            self.add_module(f"block_{i + 1}", Block(nf, fused=config.fused))
        self.conv_cat = conv(4 * nf, nf, 1)
        self.conv_2 = ReparameterisedConv(nf, nf, fused=config.fused)
        self.upsampler = nn.Sequential(conv(nf, 3 * config.scale**2), nn.PixelShuffle(config.scale))
        self.edges = ("conv_1", "upsampler")
        self.radius = 3 * BLOCKS + 3

    @classmethod
    def recognise(cls, shapes: Shapes) -> Mapping[str, Any] | None:  # noqa: D102
        merge, up = shapes.get("conv_cat.weight", ()), shapes.get("upsampler.0.weight", ())
        if len(merge) != 4 or len(up) != 4:
            return None
        return {
            "scale": shuffle_factor(up[0], 3),
            "num_feat": merge[0],
            "fused": "conv_1.eval_conv.weight" in shapes,
        }

    def initialise(self) -> None:
        """Kaiming-normal, less in what is added to other things."""
        kaiming(self, 0.5)

    def enlarge(self, x: Tensor) -> Tensor:  # noqa: D102
        if self.config.norm:
            x = (x - torch.tensor(DIV2K_MEAN, device=x.device).view(1, 3, 1, 1)) * LEVELS
        features = self.conv_1(x).to(self.conv_cat.weight.dtype)
        outputs = [features]
        first = features
        for i in range(BLOCKS):
            x, first = self.get_submodule(f"block_{i + 1}")(outputs[-1])
            outputs.append(x)
        x = self.conv_cat(torch.cat((features, self.conv_2(outputs[-1]), outputs[1], first), 1))
        return F.pixel_shuffle(run(self.upsampler[0], x), self.scale)
