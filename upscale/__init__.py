"""Enlarge pictures with super-resolution networks of the SRGAN and ESRGAN family."""

from __future__ import annotations

from importlib import import_module

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

__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str) -> object:
    """Resolve a public name on first use, so that ``import upscale`` does not import torch."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
