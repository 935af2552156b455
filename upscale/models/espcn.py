"""ESPCN (Shi et al. 2016): convolutions at LR size, then pixel shuffling, which that paper introduced."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upscale.models.base import Generator, Shapes, conv, kaiming, run, shuffle_factor
from upscale.models.layout import Layout


class ESPCN(Generator):
    """A 5x5 convolution, 3x3 ones, and one whose outputs are the pixels of the result (section 3.1)."""

    layouts = (
        Layout(
            author="Lornatang/ESPCN-PyTorch",
            names={r"feature_maps\.(\d)": "feature_maps.#", r"sub_pixel\.0": "sub_pixel"},
        ),
        Layout(
            author="yjn870/ESPCN-pytorch",
            names={r"first_part\.(\d)": "feature_maps.#", r"last_part\.0": "sub_pixel"},
        ),
        Layout(
            author="leftthomas/ESPCN",
            names={r"conv{n}": "sub_pixel", r"conv(\d)": "feature_maps.#"},
            counter=r"conv(\d)",
            implies={"activation": "relu"},
        ),
    )
    unseen = ("activation",)
    studio = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        scale: Literal[2, 3, 4, 8] = 4
        num_ch: Literal[1, 3] = 1
        num_feats: tuple[int, ...] = (64, 32)
        activation: Literal["tanh", "relu"] = "tanh"

        def __post_init__(self) -> None:
            if not self.num_feats:
                raise ValueError("num_feats has none, at least one layer comes before the last")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.channels = (config.num_ch, config.num_ch)
        inputs = (config.num_ch, *config.num_feats)
        self.feature_maps = nn.ModuleList(
            conv(inputs[i], outputs, 3 if i else 5) for i, outputs in enumerate(config.num_feats)
        )
        self.sub_pixel = conv(inputs[-1], config.num_ch * config.scale**2)
        self.edges = ("feature_maps.0", "sub_pixel")
        self.radius = max(3, len(config.num_feats) + 2)  # 3: chroma is bicubic

    @classmethod
    def recognise(cls, shapes: Shapes) -> Mapping[str, Any] | None:  # noqa: D102
        names = [name for name in shapes if re.fullmatch(r"feature_maps\.\d+\.weight", name)]
        names.sort(key=lambda name: int(name.split(".")[1]))
        last = shapes.get("sub_pixel.weight", ())
        if not names or len(last) != 4 or len(shapes[names[0]]) != 4:
            return None
        num_ch = shapes[names[0]][1]
        feats = tuple(shapes[name][0] for name in names)
        return {"scale": shuffle_factor(last[0], num_ch), "num_ch": num_ch, "num_feats": feats}

    def initialise(self) -> None:
        """Kaiming-normal, the last layer a tenth of it."""
        kaiming(self)
        self.sub_pixel.weight.data.mul_(0.1)

    def enlarge(self, x: Tensor) -> Tensor:  # noqa: D102
        for layer in self.feature_maps:
            x = run(layer, x)
            x = torch.tanh(x) if self.config.activation == "tanh" else F.relu(x)
        return F.pixel_shuffle(run(self.sub_pixel, x), self.scale)
