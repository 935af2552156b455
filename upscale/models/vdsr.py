"""VDSR (Kim et al. 2016): twenty convolutions learn what the bicubic enlargement lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from upscale.models.base import Shapes, conv, kaiming, run
from upscale.models.layout import Layout
from upscale.models.refine import Refiner


class VDSR(Refiner):
    """``bicubic + conv2(trunk(conv1(bicubic)))``, without biases, as all published files have it."""

    layouts = (
        Layout(
            author="Lornatang/VDSR-PyTorch",
            names={r"conv1\.0": "conv1", "conv2": "conv2", r"trunk\.(\d+)\.conv": r"trunk.\1"},
        ),
        Layout(
            author="twtygqyy/pytorch-vdsr",
            names={r"features\.0": "conv1", r"features\.{n}": "conv2", r"features\.(\d+)": "trunk.#"},
            counter=r"features\.(\d+)",
        ),
        Layout(
            author="twtygqyy/pytorch-vdsr, first version",
            names={"input": "conv1", "output": "conv2", r"residual_layer\.(\d+)\.conv": r"trunk.\1"},
        ),
    )

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        scale: int = 4
        num_ch: Literal[1, 3] = 1
        num_feat: int = 64
        num_conv: int = 18
        """Convolutions between the first and the last."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, reach=config.num_conv + 2)
        nf = config.num_feat
        self.conv1 = conv(config.num_ch, nf, bias=False)
        self.trunk = nn.ModuleList(conv(nf, nf, bias=False) for _ in range(config.num_conv))
        self.conv2 = conv(nf, config.num_ch, bias=False)
        self.edges = ("conv1", "conv2")

    @classmethod
    def recognise(cls, shapes: Shapes) -> Mapping[str, Any] | None:  # noqa: D102
        first = shapes.get("conv1.weight", ())
        if len(first) != 4:
            return None
        num_conv = sum(name.startswith("trunk.") for name in shapes)
        return {"num_ch": first[1], "num_feat": first[0], "num_conv": num_conv}

    def initialise(self) -> None:
        """Kaiming-normal (section 5.2); the last layer starts small, so that training starts from bicubic."""
        kaiming(self)
        self.conv2.weight.data.mul_(0.1)

    def refine(self, bicubic: Tensor) -> Tensor:  # noqa: D102
        x = F.relu(run(self.conv1, bicubic))
        for layer in self.trunk:
            x = F.relu(run(layer, x))
        return bicubic + run(self.conv2, x)
