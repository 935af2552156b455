"""FSRCNN (Dong et al. 2016): shrink, map and expand at LR size, and a transposed convolution to enlarge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from upscale.models.base import Generator, Shapes, conv, kaiming, run
from upscale.models.layout import Layout


class FSRCNN(Generator):
    """FSRCNN(d, s, m) of section 3.3; the kernel of the last layer is 9x9 at every scale."""

    layouts = (
        Layout(
            author="yjn870/FSRCNN-pytorch",
            names={
                r"first_part\.(\d)": r"feature_extraction.\1",
                r"mid_part\.([01])": r"shrink.\1",
                r"mid_part\.{n-1}": "expand.0",
                r"mid_part\.{n}": "expand.1",
                r"mid_part\.(\d+)": "map.#",
                "last_part": "deconv",
            },
            counter=r"mid_part\.(\d+)",
        ),
    )
    unseen = ("scale",)
    studio = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        scale: Literal[2, 3, 4] = 4
        num_ch: Literal[1, 3] = 1
        num_feat: int = 56
        """d of the paper."""
        num_shrunk: int = 12
        """s of the paper."""
        num_conv: int = 4
        """m of the paper."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.channels = (config.num_ch, config.num_ch)
        d, s = config.num_feat, config.num_shrunk
        self.feature_extraction = nn.Sequential(conv(config.num_ch, d, 5), nn.PReLU(d))
        self.shrink = nn.Sequential(conv(d, s, 1), nn.PReLU(s))
        self.map = nn.Sequential(*(layer for _ in range(config.num_conv) for layer in (conv(s, s), nn.PReLU(s))))
        self.expand = nn.Sequential(conv(s, d, 1), nn.PReLU(d))
        self.deconv = nn.ConvTranspose2d(
            d, config.num_ch, 9, stride=config.scale, padding=4, output_padding=config.scale - 1
        )
        self.edges = ("feature_extraction", "deconv")
        self.radius = max(3, 2 + config.num_conv + -(-4 // config.scale))  # 3: chroma is bicubic

    @classmethod
    def recognise(cls, shapes: Shapes) -> Mapping[str, Any] | None:  # noqa: D102
        first, shrink = shapes.get("feature_extraction.0.weight", ()), shapes.get("shrink.0.weight", ())
        if len(first) != 4 or len(shrink) != 4:
            return None
        num_conv = sum(name.startswith("map.") and len(shape) == 4 for name, shape in shapes.items())
        return {"num_ch": first[1], "num_feat": first[0], "num_shrunk": shrink[0], "num_conv": num_conv}

    def doubts(self, *, named: bool) -> Mapping[str, Sequence[Any]]:  # noqa: D102
        return {"scale": (2, 3, 4)}

    def initialise(self) -> None:
        """Kaiming-normal; the last layer from a narrow Gaussian (section 3.2)."""
        kaiming(self)
        nn.init.normal_(self.deconv.weight, std=1e-3)

    def enlarge(self, x: Tensor) -> Tensor:  # noqa: D102
        for part in (self.feature_extraction, self.shrink, self.map, self.expand):
            for layer in part:
                x = run(layer, x)
        return run(self.deconv, x)
