"""The networks: what a generator promises, and the table of those there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

from upscale.config import parse
from upscale.errors import ConfigError
from upscale.models.base import Generator
from upscale.models.classical import Bicubic, Lanczos
from upscale.models.compact import Compact
from upscale.models.discriminators import DISCRIMINATORS
from upscale.models.rrdbnet import RRDBNet
from upscale.models.srresnet import SRResNet

__all__ = ["GENERATORS", "Generator", "build", "build_discriminator"]

GENERATORS: dict[str, type[Generator]] = {
    "compact": Compact,
    "srresnet": SRResNet,
    "rrdbnet": RRDBNet,
    "bicubic": Bicubic,
    "lanczos": Lanczos,
}


def build(network: Mapping[str, Any], where: str) -> Generator:
    """Make the untrained generator that ``network`` (``{"arch": ..., hyper-parameters}``) describes.

    Raises:
        ConfigError: naming ``where``, for an unknown architecture or hyper-parameter.
    """
    return _build(GENERATORS, network, where)


def build_discriminator(network: Mapping[str, Any], where: str) -> nn.Module:
    """Make the untrained discriminator that ``network`` describes; errors as ``build``."""
    return _build(DISCRIMINATORS, network, where)


Network = TypeVar("Network", bound=nn.Module)


def _build(table: Mapping[str, type[Network]], network: Mapping[str, Any], where: str) -> Network:
    arch = str(network.get("arch"))
    if arch not in table:
        raise ConfigError(f"{where}.arch: expected one of {', '.join(map(repr, table))}, got {arch!r}")
    cls: Any = table[arch]
    made: Network = cls(parse(cls.Config, {key: value for key, value in network.items() if key != "arch"}, where))
    return made
