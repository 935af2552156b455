"""Networks without weights: classical interpolation, to compare against and for pictures that must stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from upscale.imaging import KERNELS, resize
from upscale.models.base import Generator


class Interpolation(Generator):
    """Separable interpolation with mirrored borders."""

    kernel: ClassVar[str]
    any_scale = True

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        scale: int = 4

        def __post_init__(self) -> None:
            if self.scale < 1:
                raise ValueError(f"a scale of {self.scale} is less than 1")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.scale = config.scale
        self.radius = int(KERNELS[self.kernel].support) + 1

    def at_scale(self, scale: int) -> Interpolation:
        """Return the same interpolation by another factor."""
        return type(self)(self.Config(scale=scale))

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge ``lr`` ``[B, 3, h, w]``."""
        return resize(lr, lr.shape[-2] * self.scale, lr.shape[-1] * self.scale, self.kernel)


class Bicubic(Interpolation):
    """Cubic convolution (Keys 1981, a = -1/2), the usual baseline."""

    kernel = "bicubic"


class Lanczos(Interpolation):
    """Lanczos with three lobes."""

    kernel = "lanczos"
