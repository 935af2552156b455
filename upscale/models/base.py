"""What every generator promises, and what several of them share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Generator(nn.Module):
    """A network that enlarges images.

    ``forward`` maps ``lr`` ``[B, 3, h, w]``, float32 RGB in [0, 1], to ``[B, 3, scale*h, scale*w]`` float32 on the
    same device, not clamped. ``h`` and ``w`` are multiples of ``multiple_of``.
    """

    Config: ClassVar[type[Any]]
    config: Any
    scale: int
    radius: int
    """Receptive radius: how many LR pixels around a pixel can change its output."""
    multiple_of: int = 1
    any_scale: bool = False
    """Whether ``at_scale`` gives the network for another scale."""
    edges: tuple[str, ...] = ()
    """The first and the last layers: ``to_precision`` leaves them in float32."""

    @classmethod
    def recognise(cls, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Any] | None:
        """Return the hyper-parameters of the network that has tensors of these names and shapes, or None."""
        return None

    def at_scale(self, scale: int) -> Generator:
        """Return the network that enlarges by ``scale``; only where ``any_scale``."""
        return self

    def initialise(self) -> None:
        """Draw weights for training from the global generator of random numbers."""

    def to_precision(self, dtype: torch.dtype) -> None:
        """Cast the weights to ``dtype``, except those of ``edges``, which stay float32.

        A picture's own eight bits do not fit into bf16's, so what reads the picture and what writes it is float32.
        """
        self.to(dtype)
        for name in self.edges:
            self.get_submodule(name).float()


def run(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply ``layer`` to ``x``, cast to the dtype of the layer's weights first."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return layer(x.to(weight.dtype))  # type: ignore[no-any-return]


def count(names: Iterable[str], pattern: str) -> int:
    """Return how many different numbers the one group of ``pattern`` takes among ``names``."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})
