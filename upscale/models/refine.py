"""What SRCNN and VDSR share: they mend a bicubic enlargement, of whatever factor, pixel by pixel."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import replace
from typing import Any, Self

from torch import Tensor

from upscale.imaging import resize
from upscale.models.base import Generator


class Refiner(Generator):
    """A network whose input is the bicubic enlargement; on its own, it keeps height and width."""

    unseen = ("scale",)
    any_scale = True
    studio = True

    def __init__(self, config: Any, reach: int) -> None:
        """Make a network whose output pixels see ``reach`` pixels of the enlargement in each direction."""
        super().__init__(config)
        self.channels = (config.num_ch, config.num_ch)
        self.reach = reach

    @property
    def radius(self) -> int:  # type: ignore[override]
        """Receptive radius in LR pixels: that of the network, and of the bicubic kernel."""
        return -(-self.reach // self.scale) + 3

    def at_scale(self, scale: int) -> Self:
        """Return the same network, with the same weights, behind another enlargement."""
        other = copy.copy(self)
        other.config, other.scale = replace(self.config, scale=scale), scale
        return other

    def enlarge(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.refine(resize(x, self.scale * x.shape[-2], self.scale * x.shape[-1]))

    @abstractmethod
    def refine(self, bicubic: Tensor) -> Tensor:
        """Mend ``bicubic`` ``[B, C, H, W]``."""
