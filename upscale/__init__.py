"""Enlarge pictures with super-resolution networks of the SRGAN and ESRGAN family."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upscale.engine import Upscaled, Upscaler
    from upscale.errors import UpscaleError
    from upscale.images import Image, read_image, write_image
    from upscale.loading import load
    from upscale.options import Precision, Target, Tiling

__version__ = "0.1.0"

_LAZY = {
    "Image": "upscale.images",
    "Precision": "upscale.options",
    "Target": "upscale.options",
    "Tiling": "upscale.options",
    "UpscaleError": "upscale.errors",
    "Upscaled": "upscale.engine",
    "Upscaler": "upscale.engine",
    "load": "upscale.loading",
    "read_image": "upscale.images",
    "write_image": "upscale.images",
}

__all__ = [
    "Image",
    "Precision",
    "Target",
    "Tiling",
    "UpscaleError",
    "Upscaled",
    "Upscaler",
    "__version__",
    "load",
    "read_image",
    "write_image",
]


def __getattr__(name: str) -> object:
    """Resolve a public name on first use, so that ``import upscale`` does not import torch."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
