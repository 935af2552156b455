"""The generator of SRGAN (Ledig et al. 2017, figure 4), in the forms that its re-implementations gave it.

They agree on a head, residual blocks, a convolution behind them, a connection around both, pixel shuffling and a
tail. They differ in names, in batch normalisation and biases, in the activation, and in the range of what goes in and
comes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscale.models.base import Generator, Shapes, conv, count, kaiming, run
from upscale.models.layout import Layout

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ResidualBlock(nn.Module):
    """``x + bn2(conv2(act(bn1(conv1(x)))))``, the normalisation optional."""

    def __init__(self, config: SRGAN.Config) -> None:
        super().__init__()
        self.conv1 = conv(config.num_feat, config.num_feat, bias=config.block_bias)
        self.conv2 = conv(config.num_feat, config.num_feat, bias=config.block_bias)
        self.act = _activation(config, config.num_feat)
        if config.norm:
            self.bn1 = nn.BatchNorm2d(config.num_feat)
            self.bn2 = nn.BatchNorm2d(config.num_feat)
        self.norm = config.norm

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` ``[B, F, h, w]`` to the same shape."""
        if self.norm:
            return x + self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))  # type: ignore[no-any-return]
        return x + self.conv2(self.act(self.conv1(x)))  # type: ignore[no-any-return]


class SRGAN(Generator):
    """SRResNet as the paper of SRGAN draws it."""

    layouts = (
        Layout(
            author="leftthomas/SRGAN",
            names={
                r"block1\.0": "head",
                r"block1\.1": "head_act",
                r"block(\d+)\.prelu": "body.#.act",
                r"block(\d+)\.conv([12])": r"body.#.conv\2",
                r"block(\d+)\.bn([12])": r"body.#.bn\2",
                r"block{n-1}\.0": "neck",
                r"block{n-1}\.1": "neck_bn",
                r"block{n}\.(\d)\.conv": r"ups.\1",
                r"block{n}\.(\d)\.prelu": r"up_acts.\1",
                r"block{n}\.\d": "tail",
            },
            counter=r"block(\d+)\.",
        ),
        Layout(
            author="Lornatang/SRGAN-PyTorch",
            names={
                r"conv(?:_block)?1\.0": "head",
                r"conv(?:_block)?1\.1": "head_act",
                r"trunk\.(\d+)\.rcb\.0": r"body.\1.conv1",
                r"trunk\.(\d+)\.rcb\.1": r"body.\1.bn1",
                r"trunk\.(\d+)\.rcb\.2": r"body.\1.act",
                r"trunk\.(\d+)\.rcb\.3": r"body.\1.conv2",
                r"trunk\.(\d+)\.rcb\.4": r"body.\1.bn2",
                r"conv(?:_block)?2\.0": "neck",
                r"conv(?:_block)?2\.1": "neck_bn",
                r"upsampling\.(\d)\.upsample_block\.0": r"ups.\1",
                r"upsampling\.(\d)\.upsample_block\.2": r"up_acts.\1",
                r"conv(?:_block)?3": "tail",
            },
            implies={"output": "plain"},
        ),
        Layout(
            author="Lornatang/SRGAN-PyTorch of 2021",
            names={
                r"conv1\.0": "head",
                r"conv1\.1": "head_act",
                r"trunk\.(\d+)\.(conv\d|bn\d)": r"body.\1.\2",
                r"trunk\.(\d+)\.prelu": r"body.\1.act",
                r"conv2\.0": "neck",
                r"conv2\.1": "neck_bn",
                r"subpixel_conv\.(\d)\.conv": r"ups.\1",
                r"subpixel_conv\.(\d)\.prelu": r"up_acts.\1",
                r"conv3\.0": "tail",
            },
        ),
        Layout(
            author="goldhuang/SRGAN-PyTorch",
            names={
                r"conv1\.0": "head",
                r"conv1\.1": "head_act",
                r"residual(\d+)\.net\.0": "body.#.conv1",
                r"residual(\d+)\.net\.1": "body.#.bn1",
                r"residual(\d+)\.net\.2": "body.#.act",
                r"residual(\d+)\.net\.3": "body.#.conv2",
                r"residual(\d+)\.net\.4": "body.#.bn2",
                r"conv2\.0": "neck",
                r"conv2\.1": "neck_act",
                r"upsample\.(\d)\.net\.0": r"ups.\1",
                r"upsample\.(\d)\.net\.2": r"up_acts.\1",
                r"upsample\.\d": "tail",
            },
        ),
        Layout(
            author="aitorzip/PyTorch-SRGAN",
            names={
                "conv1": "head",
                r"residual_block(\d+)\.(conv\d|bn\d)": r"body.#.\2",
                "conv2": "neck",
                "bn2": "neck_bn",
                r"upsample(\d)\.conv": "ups.#",
                "conv3": "tail",
            },
            implies={"activation": "swish", "input": "imagenet", "output": "imagenet"},
        ),
        Layout(
            author="mseitzer/srgan",
            names={
                r"initial_conv\.1": "head",
                r"initial_conv\.2": "head_act",
                r"body\.(\d+)\.block\.1": r"body.\1.conv1",
                r"body\.(\d+)\.block\.2": r"body.\1.bn1",
                r"body\.(\d+)\.block\.3": r"body.\1.act",
                r"body\.(\d+)\.block\.5": r"body.\1.conv2",
                r"body\.(\d+)\.block\.6": r"body.\1.bn2",
                r"body\.{n-1}": "neck",
                r"body\.{n}": "neck_bn",
                r"upsample\.(1|5|9)": "ups.#",
                r"upsample\.(\d+)": "up_acts.#",
                r"final_conv\.1": "tail",
            },
            counter=r"body\.(\d+)\.",
        ),
        Layout(
            author="sgrvinod/a-PyTorch-Tutorial-to-Super-Resolution",
            names={
                r"(?:net\.)?conv_block1\.conv_block\.0": "head",
                r"(?:net\.)?conv_block1\.conv_block\.1": "head_act",
                r"(?:net\.)?residual_blocks\.(\d+)\.conv_block(\d)\.conv_block\.0": r"body.\1.conv\2",
                r"(?:net\.)?residual_blocks\.(\d+)\.conv_block(\d)\.conv_block\.1": r"body.\1.bn\2",
                r"(?:net\.)?residual_blocks\.(\d+)\.conv_block1\.conv_block\.2": r"body.\1.act",
                r"(?:net\.)?conv_block2\.conv_block\.0": "neck",
                r"(?:net\.)?conv_block2\.conv_block\.1": "neck_bn",
                r"(?:net\.)?subpixel_convolutional_blocks\.(\d)\.conv": r"ups.\1",
                r"(?:net\.)?subpixel_convolutional_blocks\.(\d)\.prelu": r"up_acts.\1",
                r"(?:net\.)?conv_block3\.conv_block\.0": "tail",
            },
            implies={"input": "imagenet"},
        ),
    )
    unseen = ("input", "output", "activation")

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        scale: Literal[1, 2, 3, 4, 8, 16] = 4
        num_feat: int = 64
        num_block: int = 16
        num_up_feat: int = 64
        """Features behind each pixel shuffling."""
        kernel: int = 9
        """Size of the first and the last convolution."""
        activation: Literal["prelu", "prelu-each", "leakyrelu", "relu", "swish"] = "prelu"
        """prelu has one slope for all features, prelu-each one for each."""
        norm: bool = True
        block_bias: bool = True
        """Whether the convolutions of the residual blocks, and that behind them, have biases."""
        neck: Literal["norm", "prelu", "plain"] = "norm"
        """What follows the convolution behind the blocks."""
        input: Literal["unit", "imagenet"] = "unit"
        """[0, 1], or less the mean and over the deviation of ImageNet."""
        output: Literal["tanh", "plain", "imagenet"] = "tanh"
        """tanh in [-1, 1], [0, 1], or as the input of that name."""

        def __post_init__(self) -> None:
            if self.kernel % 2 == 0:
                raise ValueError(f"a kernel of {self.kernel} is not odd")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        nf = config.num_feat
        self.head = conv(3, nf, config.kernel)
        self.head_act = _activation(config, nf)
        self.body = nn.Sequential(*(ResidualBlock(config) for _ in range(config.num_block)))
        self.neck = conv(nf, nf, bias=config.block_bias)
        if config.neck == "norm":
            self.neck_bn = nn.BatchNorm2d(nf)
        elif config.neck == "prelu":
            self.neck_act = nn.PReLU()
        self.factors = (3,) if config.scale == 3 else (2,) * int(math.log2(config.scale))
        widths = (nf, *(config.num_up_feat for _ in self.factors))
        self.ups = nn.ModuleList(
            conv(widths[i], factor**2 * config.num_up_feat) for i, factor in enumerate(self.factors)
        )
        self.up_acts = nn.ModuleList(_activation(config, config.num_up_feat) for _ in self.factors)
        self.tail = conv(widths[-1], 3, config.kernel)
        self.edges = ("head", "tail")
        half = config.kernel // 2
        self.radius = half + 2 * config.num_block + 1 + min(len(self.factors), 2) + -(-half // config.scale)

    @classmethod
    def recognise(cls, shapes: Shapes) -> Mapping[str, Any] | None:  # noqa: D102
        head, first_block, up = (shapes.get(f"{name}.weight", ()) for name in ("head", "body.0.conv1", "ups.0"))
        if len(head) != 4 or len(first_block) != 4:
            return None
        slopes = shapes.get("head_act.weight")
        ups = count(shapes, r"ups\.(\d)\.weight")
        num_up_feat = shapes.get("tail.weight", (0, 0))[1] if ups else head[0]
        neck = next(
            (n for n, key in (("norm", "neck_bn.weight"), ("prelu", "neck_act.weight")) if key in shapes), "plain"
        )
        visible = {
            "scale": 3 if up and up[0] == 9 * num_up_feat else 2**ups,
            "num_feat": head[0],
            "num_block": count(shapes, r"body\.(\d+)\.conv1\.weight"),
            "num_up_feat": num_up_feat,
            "kernel": head[2],
            "norm": "body.0.bn1.weight" in shapes,
            "block_bias": "body.0.conv1.bias" in shapes,
            "neck": neck,
        }
        if slopes is None:
            return {**visible, "activation": "relu"}
        return {**visible, "activation": "prelu" if slopes == (1,) else "prelu-each"}

    def initialise(self) -> None:
        """Kaiming-normal; without normalisation, residuals start at a tenth of it."""
        kaiming(self)
        if not self.config.norm:
            kaiming(self.body, 0.1)
        self.tail.weight.data.mul_(0.1)

    def enlarge(self, x: Tensor) -> Tensor:  # noqa: D102
        if self.config.input == "imagenet":
            x = (x - _constant(IMAGENET_MEAN, x)) / _constant(IMAGENET_STD, x)
        x = self.head_act(self.head(x).to(self.neck.weight.dtype))  # [B, F, h, w]
        y = self.neck(self.body(x))
        if self.config.neck == "norm":
            y = self.neck_bn(y)
        elif self.config.neck == "prelu":
            y = self.neck_act(y)
        x = x + y
        for factor, up, act in zip(self.factors, self.ups, self.up_acts, strict=True):
            x = act(F.pixel_shuffle(up(x), factor))
        x = run(self.tail, x)
        if self.config.output == "tanh":
            return (torch.tanh(x) + 1) / 2
        if self.config.output == "imagenet":
            return x * _constant(IMAGENET_STD, x) + _constant(IMAGENET_MEAN, x)
        return x


def _activation(config: SRGAN.Config, num_feat: int) -> nn.Module:
    if config.activation in ("prelu", "prelu-each"):
        return nn.PReLU(1 if config.activation == "prelu" else num_feat)
    return {"leakyrelu": nn.LeakyReLU(0.2), "relu": nn.ReLU(), "swish": nn.SiLU()}[config.activation]


def _constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).view(1, 3, 1, 1)
