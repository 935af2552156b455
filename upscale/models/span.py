"""SPAN (Wan et al. 2024): a small network whose attention has no weights of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscale.models.base import Generator, Shapes, constant, conv, kaiming, shuffle_factor
from upscale.models.edsr import DIV2K_MEAN
from upscale.models.layout import Layout
from upscale.models.rows import Part, Whole, shuffled

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
        weight, bias = (self.eval_conv.weight, self.eval_conv.bias) if self.fused else self.fuse()
        return F.conv2d(x.to(weight.dtype), weight, bias, padding=1)

    def rows(self, x: Tensor, rows: Whole, *, last: bool) -> Tensor:
        """Map the rows ``x`` to those that are final, ``last`` if they reach the bottom; only as it runs."""
        return rows.conv(self.eval_conv, x, last=last) if self.fused else self(x)

    def fuse(self) -> tuple[Tensor, Tensor]:
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

    def rows(self, x: Tensor, rows: Whole, *, last: bool) -> tuple[Tensor, Tensor]:
        """Return the block's output for ``x`` ``[B, F, h, w]`` and the activated result of its first convolution."""
        first = F.silu(self.c1_r.rows(x, rows, last=last))
        x3 = self.c3_r.rows(F.silu(self.c2_r.rows(first, rows, last=last)), rows, last=last)
        return (x3 + rows.delay(self, x, x3.shape[2])) * (torch.sigmoid(x3) - 0.5), first


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
        self.streams = config.fused

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

    def folded(self) -> SPAN:
        """Return the same network in its fused form."""
        if self.config.fused:
            return self
        tensors = {
            name: value for name, value in self.state_dict().items() if "conv_cat" in name or "upsampler" in name
        }
        for name, layer in self.named_modules():
            if isinstance(layer, ReparameterisedConv):
                tensors[f"{name}.eval_conv.weight"], tensors[f"{name}.eval_conv.bias"] = layer.fuse()
        with torch.device("meta"):
            fused = SPAN(replace(self.config, fused=True))
        tensors |= {name: torch.zeros(()) for name in fused.state_dict() if "=" in name}
        fused.load_state_dict({name: value.detach() for name, value in tensors.items()}, assign=True)
        return fused.requires_grad_(False).eval()

    def initialise(self) -> None:
        """Kaiming-normal, less in what is added to other things."""
        kaiming(self, 0.5)

    def enlarge_rows(self, x: Tensor, part: Part, rows: Whole) -> Tensor:  # noqa: D102
        last = part.last
        if self.config.norm:
            x = (x - constant(DIV2K_MEAN, x)) * 255
        features = self.conv_1.rows(x, rows, last=last).to(self.conv_cat.weight.dtype)
        outputs = [features]
        first = features
        for i in range(BLOCKS):
            block = self.get_submodule(f"block_{i + 1}")
            assert isinstance(block, Block)
            x, first = block.rows(outputs[-1], rows, last=last)
            outputs.append(x)
        x = self.conv_2.rows(outputs[-1], rows, last=last)
        earlier = {"features": features, "second": outputs[1], "first": first}
        features, second, first = (rows.delay(key, known, x.shape[2]) for key, known in earlier.items())
        x = rows.conv(self.conv_cat, torch.cat((features, x, second, first), 1), last=last)
        tail = self.upsampler[0]
        assert isinstance(tail, nn.Conv2d)
        return shuffled(rows.conv(tail, x, last=last), self.scale)
