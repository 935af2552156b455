"""Image: what of a picture file the rest of the program sees."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upscale.images.metadata import Metadata

Pixels = NDArray[Any]
"""uint8 or uint16: the dtype is the bit depth."""
Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
WHITE: Colour = (255, 255, 255)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One picture, upright, RGB; its bit depth is the dtype of its arrays.

    An animation or a document of several pages is its first frame with the others in ``following``.

    Raises:
        ValueError: arrays of another shape or dtype than these.
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

    def __post_init__(self) -> None:
        _check("pixels", self.pixels, (*np.shape(self.pixels)[:2], 3))
        if self.alpha is not None:
            _check("alpha", self.alpha, self.pixels.shape[:2])

    @property
    def frames(self) -> tuple[Image, ...]:
        """This picture and those that follow it."""
        return (self, *self.following)

    def in_eight_bits(self) -> Image:
        """Return the picture with 8 bits a channel."""
        if self.pixels.dtype == np.uint8:
            return self
        alpha = None if self.alpha is None else _to_eight_bit(self.alpha)
        return replace(self, pixels=_to_eight_bit(self.pixels), alpha=alpha)

    def laid_on(self, background: Colour) -> Image:
        """Return the picture without alpha, as it is seen on ``background``."""
        if self.alpha is None:
            return self
        levels = np.iinfo(self.pixels.dtype).max
        a = self.alpha[..., None].astype(np.float32) / levels
        behind = np.array(background, np.float32) * (levels / 255)
        pixels: Pixels = np.rint(self.pixels * a + behind * (1 - a)).astype(self.pixels.dtype)
        return replace(self, pixels=pixels, alpha=None, grayscale=self.grayscale and len(set(background)) == 1)


def _to_eight_bit(plane: Pixels) -> Pixels:
    return ((plane.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _check(name: str, array: object, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``array`` has ``shape`` and one of the dtypes of pictures."""
    if not isinstance(array, np.ndarray) or array.dtype not in (np.uint8, np.uint16) or array.shape != shape:
        found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        wanted = "[H, W, 3]" if name == "pixels" else "[H, W] of the pixels"
        raise ValueError(f"{name}: {found}, where an array of uint8 or uint16 {wanted} is needed")
