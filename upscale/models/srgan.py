"""The generator of SRGAN (Ledig et al. 2017, figure 4), in the forms that its re-implementations gave it.

They agree on a head, residual blocks, a convolution behind them, a connection around both, pixel shuffling and a
tail. They differ in names, in batch normalisation and biases, in the activation, and in the range of what goes in and
comes out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from upscale.models.base import Generator, Shapes, conv, count, factors, from_values, kaiming, to_values
from upscale.models.rows import Part, Whole, repeated, shuffled
from upscale.models.srgan_layouts import LAYOUTS


class ResidualBlock(nn.Module):
    """``x + bn2(conv2(act(bn1(conv1(x)))))``, the normalisation optional."""

    def __init__(self, config: SRGAN.Config) -> None:
        super().__init__()
        nf, bias = config.num_feat, config.block_bias
        self.conv1 = nn.Conv2d(nf, nf, 3, padding=1, bias=bias, groups=nf if config.separable else 1)
        self.conv2 = conv(nf, nf, 1 if config.separable else 3, bias=bias)
        self.act = _activation(config, nf)
        if config.norm:
            self.bn1 = nn.BatchNorm2d(nf)
            self.bn2 = nn.BatchNorm2d(nf)
        self.norm = config.norm

    def rows(self, x: Tensor, rows: Whole, *, last: bool) -> Tensor:
        """Map the rows ``x`` ``[B, F, n, w]`` to those that are final, ``last`` if they reach the bottom."""
        y = rows.conv(self.conv1, x, last=last)
        y = rows.conv(self.conv2, self.act(self.bn1(y) if self.norm else y), last=last)
        return rows.delay(self, x, y.shape[2]) + (self.bn2(y) if self.norm else y)


class SRGAN(Generator):
    """SRResNet as the paper of SRGAN draws it."""

    layouts = LAYOUTS
    unseen = ("input", "output", "activation", "bare_head", "bare_ups")

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        scale: Literal[1, 2, 3, 4, 8, 16] = 4
        num_ch: Literal[1, 3] = 3
        num_feat: int = 64
        num_block: int = 16
        num_up_feat: int = 64
        """Features behind each enlargement."""
        kernel: int = 9
        """Size of the first convolution."""
        tail_kernel: int = 0
        """Size of the last convolution; 0: that of the first."""
        activation: Literal["prelu", "prelu-each", "leakyrelu", "relu", "swish"] = "prelu"
        """prelu has one slope for all features, prelu-each one for each."""
        norm: bool = True
        separable: bool = False
        """Whether a block convolves each feature by itself, then mixes them by 1x1."""
        block_bias: bool = True
        """Whether the convolutions of the residual blocks, and that behind them, have biases."""
        outer_bias: bool = True
        """Whether the first convolution and those of the enlargement have biases."""
        tail_bias: bool = True
        neck: Literal["norm", "prelu", "plain"] = "norm"
        """What follows the convolution behind the blocks."""
        upsampler: Literal["shuffle", "nearest"] = "shuffle"
        up_norm: bool = False
        """Whether the convolutions of the enlargement are normalised."""
        extra: bool = False
        """Whether there is one more convolution before the last."""
        bare_head: bool = False
        """Whether nothing follows the first convolution."""
        bare_ups: bool = False
        """Whether nothing follows the enlargement."""
        input: Literal["unit", "signed", "imagenet"] = "unit"
        """[0, 1], [-1, 1], or less the mean and over the deviation of ImageNet."""
        output: Literal["tanh", "plain", "signed", "imagenet", "tanh-imagenet"] = "tanh"
        """tanh in [-1, 1], [0, 1], or as the inputs of those names."""

        def __post_init__(self) -> None:
            object.__setattr__(self, "tail_kernel", self.tail_kernel or self.kernel)
            for kernel in (self.kernel, self.tail_kernel):
                if kernel % 2 == 0:
                    raise ValueError(f"a kernel of {kernel} is not odd")
            if self.scale == 1:  # without enlargement, nothing of it
                usual = {"num_up_feat": self.num_feat, "upsampler": "shuffle", "up_norm": False, "bare_ups": False}
                for name, value in usual.items():
                    object.__setattr__(self, name, value)
            if self.scale == 3 and self.upsampler == "nearest":
                raise ValueError("nearest enlarges by powers of two")
            if self.num_ch == 1 and "imagenet" in f"{self.input} {self.output}":
                raise ValueError("the mean of ImageNet is a colour")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.channels = (config.num_ch, config.num_ch)
        nf, nu = config.num_feat, config.num_up_feat
        self.head = conv(config.num_ch, nf, config.kernel, bias=config.outer_bias)
        self.head_act = nn.Identity() if config.bare_head else _activation(config, nf)
        self.body = nn.Sequential(*(ResidualBlock(config) for _ in range(config.num_block)))
        self.neck = conv(nf, nf, bias=config.block_bias)
        if config.neck == "norm":
            self.neck_bn = nn.BatchNorm2d(nf)
        elif config.neck == "prelu":
            self.neck_act = nn.PReLU()
        self.factors = factors(config.scale)
        widths = [nf, *(nu for _ in self.factors)]
        made = [nu * (factor**2 if config.upsampler == "shuffle" else 1) for factor in self.factors]
        self.ups = nn.ModuleList(
            conv(width, outputs, bias=config.outer_bias) for width, outputs in zip(widths, made, strict=False)
        )
        if config.up_norm:
            self.up_bns = nn.ModuleList(nn.BatchNorm2d(outputs) for outputs in made)
        self.up_acts = nn.ModuleList(nn.Identity() if config.bare_ups else _activation(config, nu) for _ in made)
        if config.extra:
            self.extra = conv(widths[-1], widths[-1], bias=config.outer_bias)
            self.extra_act = _activation(config, widths[-1])
        self.tail = conv(widths[-1], config.num_ch, config.tail_kernel, bias=config.tail_bias)
        self.edges = ("head", "tail")
        self.streams = config.num_ch == 3
        # A block's convolutions of 3x3 and that behind the blocks reach one pixel each, the first two enlargements
        # together one more than that where they repeat pixels; what follows at full size, as much less as it is large.
        reach = config.kernel // 2 + (1 if config.separable else 2) * config.num_block + 1
        enlarging = min(len(self.factors), 2) + (config.upsampler == "nearest")
        self.radius = reach + enlarging + -(-(config.tail_kernel // 2 + config.extra) // config.scale)

    @classmethod
    def recognise(cls, shapes: Shapes) -> Mapping[str, Any] | None:  # noqa: D102
        head, first_block, up, tail = (
            shapes.get(f"{name}.weight", ()) for name in ("head", "body.0.conv1", "ups.0", "tail")
        )
        if any(len(layer) != 4 for layer in (head, first_block, tail)):
            return None
        ups = count(shapes, r"ups\.(\d)\.weight")
        slopes = shapes.get("body.0.act.weight")
        neck = next(
            (n for n, key in (("norm", "neck_bn.weight"), ("prelu", "neck_act.weight")) if key in shapes), "plain"
        )
        visible = {
            "scale": 3 if up and up[0] == 9 * tail[1] else 2**ups,
            "num_ch": head[1],
            "num_feat": head[0],
            "num_block": count(shapes, r"body\.(\d+)\.conv1\.weight"),
            "num_up_feat": tail[1],
            "kernel": head[2],
            "tail_kernel": tail[2],
            "norm": "body.0.bn1.weight" in shapes,
            "separable": first_block[1] == 1 < head[0],
            "block_bias": "body.0.conv1.bias" in shapes,
            "outer_bias": "head.bias" in shapes,
            "tail_bias": "tail.bias" in shapes,
            "neck": neck,
            "upsampler": "nearest" if up and up[0] == tail[1] else "shuffle",
            "up_norm": "up_bns.0.weight" in shapes,
            "extra": "extra.weight" in shapes,
        }
        if slopes is None:
            return {**visible, "activation": "relu"}
        bare = {
            "bare_head": "head_act.weight" not in shapes,
            "bare_ups": bool(ups) and "up_acts.0.weight" not in shapes,
        }
        return {**visible, **bare, "activation": "prelu" if slopes == (1,) else "prelu-each"}

    @classmethod
    def in_order(cls, letters: str) -> list[str] | None:  # noqa: D102
        match = re.fullmatch(
            r"h(?P<head>p?)(?P<body>(?:bn?p?bn?)+)(?P<neck>bn?p?)(?P<ups>(?:un?p?)+)(?P<extra>(?:bp?)?)t", letters
        )
        if match is None:
            return None
        blocks = list(re.finditer(r"(b)(n?)(p?)(b)(n?)", match["body"]))
        stages = list(re.finditer(r"(u)(n?)(p?)", match["ups"]))
        return [
            "head",
            *["head_act"] * len(match["head"]),
            *(
                f"body.{i}.{part}"
                for i, block in enumerate(blocks)
                for part, there in zip(("conv1", "bn1", "act", "conv2", "bn2"), block.groups(), strict=True)
                if there
            ),
            *({"b": "neck", "n": "neck_bn", "p": "neck_act"}[letter] for letter in match["neck"]),
            *(
                f"{part}.{i}"
                for i, stage in enumerate(stages)
                for part, there in zip(("ups", "up_bns", "up_acts"), stage.groups(), strict=True)
                if there
            ),
            *({"b": "extra", "p": "extra_act"}[letter] for letter in match["extra"]),
            "tail",
        ]

    def doubts(self, *, named: bool) -> Mapping[str, Sequence[Any]]:  # noqa: D102
        doubts: dict[str, Sequence[Any]] = {
            "input": ("unit", "signed", "imagenet"),
            "output": ("tanh", "plain", "signed", "imagenet", "tanh-imagenet"),
        }
        if not named and not self.config.activation.startswith("prelu"):
            doubts |= {"activation": ("relu", "leakyrelu", "swish"), "bare_head": (False, True)}
        return doubts

    def initialise(self) -> None:
        """Kaiming-normal; without normalisation, residuals start at a tenth of it."""
        kaiming(self)
        if not self.config.norm:
            kaiming(self.body, 0.1)
        self.tail.weight.data.mul_(0.1)

    def enlarge_rows(self, x: Tensor, part: Part, rows: Whole) -> Tensor:  # noqa: D102
        config, last = self.config, part.last
        x = rows.conv(self.head, to_values(x, config.input), last=last)
        x = y = self.head_act(x.to(self.neck.weight.dtype))  # [B, F, h, w]
        for block in self.body:
            assert isinstance(block, ResidualBlock)
            y = block.rows(y, rows, last=last)
        y = rows.conv(self.neck, y, last=last)
        if config.neck == "norm":
            y = self.neck_bn(y)
        elif config.neck == "prelu":
            y = self.neck_act(y)
        x = rows.delay(self, x, y.shape[2]) + y
        for i, factor in enumerate(self.factors):
            up = self.ups[i]
            assert isinstance(up, nn.Conv2d)
            x = rows.conv(up, repeated(x, factor) if config.upsampler == "nearest" else x, last=last)
            x = self.up_bns[i](x) if config.up_norm else x
            x = shuffled(x, factor) if config.upsampler == "shuffle" else x
            x = self.up_acts[i](x)
        if config.extra:
            x = self.extra_act(rows.conv(self.extra, x, last=last))
        x = rows.conv(self.tail, x, last=last)  # [B, C, s*h, s*w]
        if config.output.startswith("tanh"):
            x = torch.tanh(x)
        return from_values(x, _OUTPUTS[config.output])


_OUTPUTS = {"tanh": "signed", "plain": "unit", "signed": "signed", "imagenet": "imagenet", "tanh-imagenet": "imagenet"}


def _activation(config: SRGAN.Config, num_feat: int) -> nn.Module:
    if config.activation in ("prelu", "prelu-each"):
        return nn.PReLU(1 if config.activation == "prelu" else num_feat)
    return {"leakyrelu": nn.LeakyReLU(0.2), "relu": nn.ReLU(), "swish": nn.SiLU()}[config.activation]
