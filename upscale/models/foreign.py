"""Networks that the library spandrel knows, where it is installed: SwinIR, HAT, DAT, PLKSR and many more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from upscale.models.base import Generator

RADIUS = 256
"""Of networks whose attention sees everything, the most that tiles need to care for."""


class Foreign(Generator):
    """A network of spandrel's."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config:
        """What spandrel says of it."""

        scale: int
        kind: str
        """Name of the architecture."""
        tags: tuple[str, ...] = ()

    def __init__(self, config: Config, descriptor: Any) -> None:
        super().__init__(config)
        self.network = descriptor.model
        self.descriptor = descriptor  # pads to the sizes that the network takes
        self.channels = (descriptor.input_channels, descriptor.output_channels)
        self.radius = RADIUS

    def to_precision(self, dtype: torch.dtype) -> None:
        """Cast the network to ``dtype``, where it can run in it."""
        able = {torch.float16: self.descriptor.supports_half, torch.bfloat16: self.descriptor.supports_bfloat16}
        if able.get(dtype, True):
            self.network.to(dtype)

    def enlarge(self, x: Tensor) -> Tensor:  # noqa: D102
        dtype = next(self.network.parameters()).dtype
        return self.descriptor(x.to(dtype)).float()  # type: ignore[no-any-return]


def recognised_by_spandrel(state_dict: Mapping[str, Tensor]) -> Foreign | None:
    """Return the network that spandrel makes of ``state_dict``; None if it cannot be loaded, or knows none."""
    if find_spec("spandrel") is None:
        return None
    try:
        spandrel = import_module("spandrel")
    except (ImportError, OSError, RuntimeError):  # its torchvision is often of another build than torch
        return None
    try:
        descriptor = spandrel.ModelLoader().load_from_state_dict(spandrel.canonicalize_state_dict(dict(state_dict)))
    except (spandrel.UnsupportedModelError, KeyError, IndexError, RuntimeError, ValueError, AssertionError):
        return None  # it looks at a few names first, and stumbles over the others
    possible = isinstance(descriptor, spandrel.ImageModelDescriptor) and descriptor.purpose in ("SR", "Restoration")
    if not possible or not {descriptor.input_channels, descriptor.output_channels} <= {1, 3, 4}:
        return None
    config = Foreign.Config(scale=descriptor.scale, kind=descriptor.architecture.name, tags=tuple(descriptor.tags))
    return Foreign(config, descriptor).requires_grad_(False).eval()
