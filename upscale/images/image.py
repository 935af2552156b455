"""Image: what of a picture file the rest of the program sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from upscale.images.metadata import Metadata

Pixels = NDArray[Any]
"""uint8 or uint16: the dtype is the bit depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One picture, upright, RGB; its bit depth is the dtype of its arrays."""

    pixels: Pixels
    """``[H, W, 3]``; a grey picture has three equal channels."""
    alpha: Pixels | None = None
    """``[H, W]``, same dtype."""
    grayscale: bool = False
    """Read from one channel, so written as one."""
    metadata: Metadata = field(default_factory=Metadata)
    notices: tuple[str, ...] = ()
    """What was changed or left out in reading, in words for the user."""
