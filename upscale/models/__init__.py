"""The networks: what a generator promises, and the table of those there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

from upscale.config import parse
from upscale.errors import ConfigError
from upscale.models.base import Generator
from upscale.models.classical import Bicubic, Bilinear, Lanczos, Nearest, Wiener
from upscale.models.compact import Compact
from upscale.models.composed import Chain, Compiled, SelfEnsemble
from upscale.models.discriminators import DISCRIMINATORS, Discriminator
from upscale.models.edsr import EDSR
from upscale.models.espcn import ESPCN
from upscale.models.fsrcnn import FSRCNN
from upscale.models.rrdbnet import RRDBNet
from upscale.models.span import SPAN
from upscale.models.srcnn import SRCNN
from upscale.models.srgan import SRGAN
from upscale.models.srresnet import SRResNet
from upscale.models.vdsr import VDSR

__all__ = [
    "GENERATORS",
    "Chain",
    "Compiled",
    "Discriminator",
    "Generator",
    "SelfEnsemble",
    "build",
    "build_discriminator",
    "network_of",
]

GENERATORS: dict[str, type[Generator]] = {
    "compact": Compact,
    "span": SPAN,
    "srresnet": SRResNet,
    "srgan": SRGAN,
    "edsr": EDSR,
    "rrdbnet": RRDBNet,
    "srcnn": SRCNN,
    "fsrcnn": FSRCNN,
    "espcn": ESPCN,
    "vdsr": VDSR,
    "nearest": Nearest,
    "bilinear": Bilinear,
    "bicubic": Bicubic,
    "lanczos": Lanczos,
    "wiener": Wiener,
}


def build(network: Mapping[str, Any], where: str) -> Generator:
    """Make the untrained generator that ``network`` (``{"arch": ..., hyper-parameters}``) describes.

    Raises:
        ConfigError: naming ``where``, for an unknown architecture or hyper-parameter.
    """
    return _build(GENERATORS, network, where)


def network_of(generator: Generator) -> dict[str, Any]:
    """Return the table ``{"arch": ..., hyper-parameters}`` from which ``build`` makes the like of ``generator``."""
    arch = next((name for name, cls in GENERATORS.items() if type(generator) is cls), "spandrel")
    config = generator.config
    return {"arch": arch, **{field: getattr(config, field) for field in config.__dataclass_fields__}}


def build_discriminator(network: Mapping[str, Any], where: str) -> Discriminator:
    """Make the untrained discriminator that ``network`` describes; errors as ``build``."""
    return _build(DISCRIMINATORS, network, where)


Made = TypeVar("Made", bound=nn.Module)


def _build(table: Mapping[str, type[Made]], network: Mapping[str, Any], where: str) -> Made:
    arch = str(network.get("arch"))
    if arch not in table:
        raise ConfigError(f"{where}.arch: expected one of {', '.join(map(repr, table))}, got {arch!r}")
    cls: Any = table[arch]
    for key, value in network.items():
        least = 1 if key in ("scale", "num_feat", "num_grow_ch") else 0
        if isinstance(value, int) and value < least:
            raise ConfigError(f"{where}.{key}: {value} is too small")
    made: Made = cls(parse(cls.Config, {key: value for key, value in network.items() if key != "arch"}, where))
    return made
