"""SRCNN (Dong et al. 2014): three convolutions that mend the bicubic enlargement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from upscale.models.base import Shapes, conv, kaiming, run
from upscale.models.layout import Layout
from upscale.models.refine import Refiner


class SRCNN(Refiner):
    """Feature extraction, mapping, reconstruction (section 3.1)."""

    layouts = (
        Layout(
            author="Lornatang/SRCNN-PyTorch",
            names={r"features\.0": "conv1", r"map\.0": "conv2", "reconstruction": "conv3"},
        ),
    )

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters; those of the 9-5-5 network of section 4.3.2."""

        scale: int = 4
        num_ch: Literal[1, 3] = 1
        num_feat: int = 64
        num_map: int = 32
        kernels: tuple[int, ...] = (9, 5, 5)

        def __post_init__(self) -> None:
            if len(self.kernels) != 3 or any(kernel % 2 == 0 for kernel in self.kernels):
                raise ValueError(f"expected three odd kernel sizes, got {list(self.kernels)}")

    def __init__(self, config: Config) -> None:
        super().__init__(config, reach=sum(kernel // 2 for kernel in config.kernels))
        k1, k2, k3 = config.kernels
        self.conv1 = conv(config.num_ch, config.num_feat, k1)
        self.conv2 = conv(config.num_feat, config.num_map, k2)
        self.conv3 = conv(config.num_map, config.num_ch, k3)
        self.edges = ("conv1", "conv3")

    @classmethod
    def recognise(cls, shapes: Shapes) -> Mapping[str, Any] | None:  # noqa: D102
        layers = [shapes.get(f"conv{i}.weight", ()) for i in (1, 2, 3)]
        if any(len(layer) != 4 for layer in layers):
            return None
        num_feat, num_ch = layers[0][:2]
        kernels = tuple(layer[2] for layer in layers)
        return {"num_ch": num_ch, "num_feat": num_feat, "num_map": layers[1][0], "kernels": kernels}

    def initialise(self) -> None:
        """Kaiming-normal; the last layer, as in section 4.1, from a Gaussian of deviation 0.001."""
        kaiming(self)
        nn.init.normal_(self.conv3.weight, std=1e-3)

    def refine(self, bicubic: Tensor) -> Tensor:  # noqa: D102
        x = F.relu(run(self.conv1, bicubic))
        return run(self.conv3, F.relu(run(self.conv2, x)))
