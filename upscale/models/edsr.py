"""EDSR (Lim et al. 2017): residual blocks without batch normalisation, trained with an L1 loss."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from upscale.models.base import Generator, Shapes, constant, conv, count, factors, kaiming
from upscale.models.layout import Layout
from upscale.models.rows import Part, Whole, shuffled
from upscale.models.srresnet import ResidualBlock

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)  # of the training pictures of DIV2K, RGB in [0, 1]
WIDE = 256  # features from which on residuals are scaled (section 3.3)


def _levels(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what EDSR-PyTorch's layer that takes off the mean says of white: its bias is -white * mean."""
    bias = tensors.get("sub_mean.bias")
    return {} if bias is None else {"levels": 1 if float(bias.abs().max()) < 1 else 255}


class EDSR(Generator):
    """A head, residual blocks and pixel shuffling, between subtraction and addition of the mean; BasicSR's names."""

    layouts = (
        Layout(
            author="sanghyun-son/EDSR-PyTorch",
            names={
                r"(?:sub|add)_mean": None,
                r"head\.0": "conv_first",
                r"body\.(\d+)\.body\.0": r"body.\1.conv1",
                r"body\.(\d+)\.body\.2": r"body.\1.conv2",
                r"body\.\d+": "conv_after_body",
                r"tail\.0\.(\d)": r"upsample.\1",
                r"tail\.1": "conv_last",
            },
            tells=_levels,
        ),
        Layout(
            author="mmediting",
            names={
                "conv_(first|after_body|last)": r"conv_\1",
                r"body\.(\d+)\.(conv\d)": r"body.\1.\2",
                r"upsample\.0\.upsample_conv": "upsample.0",
                r"upsample\.1\.upsample_conv": "upsample.2",
                r"upsample\.2\.upsample_conv": "upsample.4",
            },
        ),
    )
    unseen = ("res_scale", "levels")
    streams = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters; the defaults are those of EDSR-baseline, 256 features and 32 blocks make EDSR."""

        scale: Literal[2, 3, 4, 8] = 4
        num_feat: int = 64
        num_block: int = 16
        res_scale: float | None = None
        """None: 0.1 for wide networks, 1 for others, as published."""
        levels: Literal[255, 1] = 255
        """White, for the network, which sees pixels less the mean (``rgb_range`` of EDSR-PyTorch)."""

        def __post_init__(self) -> None:
            if self.res_scale is None:
                object.__setattr__(self, "res_scale", 0.1 if self.num_feat >= WIDE else 1.0)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        assert config.res_scale is not None
        nf = config.num_feat
        self.conv_first = conv(3, nf)
        self.body = nn.Sequential(*(ResidualBlock(nf, config.res_scale) for _ in range(config.num_block)))
        self.conv_after_body = conv(nf, nf)
        stages: list[nn.Module] = []
        for factor in factors(config.scale):
            stages += [conv(nf, factor**2 * nf), nn.PixelShuffle(factor)]
        self.upsample = nn.Sequential(*stages)
        self.conv_last = conv(nf, 3)
        self.edges = ("conv_first", "conv_last")
        # conv_first, the body, conv_after_body and the first stage reach one pixel each, all behind it less than one.
        self.radius = 2 * config.num_block + 4

    @classmethod
    def recognise(cls, shapes: Shapes) -> Mapping[str, Any] | None:  # noqa: D102
        first, up = shapes.get("conv_first.weight", ()), shapes.get("upsample.0.weight", ())
        if len(first) != 4 or len(up) != 4 or "conv_after_body.weight" not in shapes:
            return None
        stages = count(shapes, r"upsample\.(\d)\.weight")
        return {
            "scale": 3 if up[0] == 9 * first[0] else 2**stages,
            "num_feat": first[0],
            "num_block": count(shapes, r"body\.(\d+)\.conv1\.weight"),
        }

    @classmethod
    def in_order(cls, letters: str) -> list[str] | None:  # noqa: D102
        match = re.fullmatch(r"h((?:bb)+)b(u+)t", letters)
        if match is None:
            return None
        body = (f"body.{i}.conv{j}" for i in range(len(match[1]) // 2) for j in (1, 2))
        ups = (f"upsample.{2 * i}" for i in range(len(match[2])))
        return ["conv_first", *body, "conv_after_body", *ups, "conv_last"]

    def initialise(self) -> None:
        """Kaiming-normal, a tenth of it in the body; the output starts near the mean's size."""
        kaiming(self)
        kaiming(self.body, 0.1)
        self.conv_last.weight.data.mul_(0.1)

    def enlarge_rows(self, x: Tensor, part: Part, rows: Whole) -> Tensor:  # noqa: D102
        last = part.last
        x = (x - constant(DIV2K_MEAN, x)) * self.config.levels
        x = rows.conv(self.conv_first, x, last=last).to(self.conv_after_body.weight.dtype)
        y = x
        for block in self.body:
            assert isinstance(block, ResidualBlock)
            y = block.rows(y, rows, last=last)
        y = rows.conv(self.conv_after_body, y, last=last)
        x = rows.delay(self, x, y.shape[2]) + y
        for stage in self.upsample:
            if isinstance(stage, nn.PixelShuffle):
                x = shuffled(x, stage.upscale_factor)
            else:
                assert isinstance(stage, nn.Conv2d)
                x = rows.conv(stage, x, last=last)
        sr = rows.conv(self.conv_last, x, last=last)
        return sr / float(self.config.levels) + constant(DIV2K_MEAN, x)
