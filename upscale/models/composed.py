"""Generators made of generators: one after the other, the mean over eight orientations, and compiled ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from upscale.models.base import Generator


class _Composed(Generator):
    """A network around others; it takes and gives what they do."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """Hyper-parameters."""

        scale: int

    def __init__(self, parts: Sequence[Generator]) -> None:
        super().__init__(self.Config(scale=math.prod(part.scale for part in parts)))
        self.parts = nn.ModuleList(parts)
        self.margin = max(part.margin for part in parts)
        self.any_scale = parts[-1].any_scale
        self.radius, self.multiple_of, scale = 0, 1, 1
        for part in parts:
            self.radius += -(-part.radius // scale)  # what a later part sees is of smaller pixels
            self.multiple_of = math.lcm(self.multiple_of, part.multiple_of // math.gcd(part.multiple_of, scale))
            scale *= part.scale

    @property
    def networks(self) -> list[Generator]:
        """The networks that this one is made of, in their order."""
        return [part for part in self.parts if isinstance(part, Generator)]

    def to_precision(self, dtype: torch.dtype) -> None:
        """Cast each part, except its first and last layers."""
        for network in self.networks:
            network.to_precision(dtype)


class Chain(_Composed):
    """``parts`` one after the other, as if the result of each had been saved and read, but for rounding."""

    def at_scale(self, scale: int) -> Self:
        """Return the chain whose last part makes up for what is missing to ``scale``."""
        *first, last = self.networks
        before = math.prod(network.scale for network in first)
        return type(self)([*first, last.at_scale(max(1, -(-scale // before)))])

    def enlarge(self, x: Tensor) -> Tensor:  # noqa: D102
        for network in self.networks:
            x = network(x.clamp(0, 1))
        return x


class SelfEnsemble(_Composed):
    """The mean of a network's results for all eight orientations of the picture (EDSR, section 3.4)."""

    def __init__(self, part: Generator) -> None:
        super().__init__([part])

    @property
    def part(self) -> Generator:
        """The network whose results are averaged."""
        return self.networks[0]

    def at_scale(self, scale: int) -> Self:
        """Return the ensemble of the network at another scale."""
        return type(self)(self.part.at_scale(scale))

    def enlarge(self, x: Tensor) -> Tensor:  # noqa: D102
        network = self.part
        total = network(x)
        for turns, flip in [(turns, flip) for turns in range(4) for flip in (False, True)][1:]:
            sr = torch.rot90(network(torch.rot90(x.flip(-1) if flip else x, turns, (-2, -1))), -turns, (-2, -1))
            total = total + (sr.flip(-1) if flip else sr)
        return total / 8  # type: ignore[no-any-return]


class Compiled(_Composed):
    """A copy of a network as PyTorch's compiler makes it at the first tile, for tiles of any size."""

    def __init__(self, part: Generator) -> None:
        super().__init__([copy.deepcopy(part)])
        self._compiled = False

    def enlarge(self, x: Tensor) -> Tensor:  # noqa: D102
        network = self.networks[0]
        if not self._compiled:  # not before: copies of this network compile what is theirs
            for module in network.recurring() or [network]:
                module.compile(dynamic=True)
            self._compiled = True
        return network(x)  # type: ignore[no-any-return]
