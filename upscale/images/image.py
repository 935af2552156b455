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
    """One picture, upright, RGB; its bit depth is the dtype of its arrays.

    An animation or a document of several pages is its first frame with the others in ``following``.
    """

    pixels: Pixels
    """``[H, W, 3]``; a grey picture has three equal channels."""
    alpha: Pixels | None = None
    """``[H, W]``, same dtype."""
    grayscale: bool = False
    """Read from one channel, so written as one."""
    lossy: bool = False
    """From a file that had lost detail to its compression already, so the result may be compressed likewise."""
    metadata: Metadata = field(default_factory=Metadata)
    notices: tuple[str, ...] = ()
    """What was changed or left out in reading, in words for the user."""
    duration: float | None = None
    """Milliseconds that a frame of an animation is shown; None: not an animation."""
    loop: int | None = None
    """How often an animation plays, 0 for endlessly; None: once."""
    following: tuple[Image, ...] = ()

    @property
    def frames(self) -> tuple[Image, ...]:
        """This picture and those that follow it."""
        return (self, *self.following)
