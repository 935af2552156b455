"""EXIF, XMP, ICC, DPI: what is kept and what must be rewritten for an upright, larger picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as PILImage

EXIF_HEADER = b"Exif\x00\x00"

# Orientation (EXIF 2.32, tag 0x0112): how often to turn by 90 degrees anticlockwise, then whether to mirror.
_UPRIGHT = {
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (3, True),
    6: (3, False),
    7: (1, True),
    8: (1, False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a file says beside its pixels, as found; orientation is already applied to the pixels."""

    icc: bytes | None = None
    exif: bytes | None = None
    """A TIFF structure, without the ``Exif`` header of JPEG."""
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror ``pixels`` ``[H, W, ...]`` as the EXIF ``orientation`` (1 to 8) asks."""
    turns, mirror = _UPRIGHT.get(orientation, (0, False))
    pixels = np.rot90(pixels, turns)
    return pixels[:, ::-1] if mirror else pixels


def exif_for(exif: bytes, height: int, width: int) -> bytes:
    """Return ``exif`` for an upright picture of ``height`` by ``width``: orientation, size, thumbnail made to fit.

    EXIF that cannot be parsed is dropped: nobody else could read it either.
    """
    tags = PILImage.Exif()
    try:
        tags.load(EXIF_HEADER + exif)
        details = tags.get_ifd(ExifTags.IFD.Exif)
        if details:
            details[ExifTags.Base.ExifImageWidth] = width
            details[ExifTags.Base.ExifImageHeight] = height
        for tag, value in (
            (ExifTags.Base.Orientation, 1),
            (ExifTags.Base.ImageWidth, width),
            (ExifTags.Base.ImageLength, height),
        ):
            if tag in tags:
                tags[tag] = value
        return tags.tobytes().removeprefix(EXIF_HEADER)  # Pillow writes no thumbnail (IFD1)
    except Exception:  # Pillow's parser raises anything at all on damaged EXIF; the picture matters more
        return b""


def xmp_upright(xmp: bytes) -> bytes:
    """Return ``xmp`` with its copy of the orientation set to upright."""
    for value in range(2, 9):
        digit = str(value).encode()
        xmp = xmp.replace(b'tiff:Orientation="' + digit + b'"', b'tiff:Orientation="1"')
        xmp = xmp.replace(
            b"<tiff:Orientation>" + digit + b"</tiff:Orientation>", b"<tiff:Orientation>1</tiff:Orientation>"
        )
    return xmp
