"""The FORMATS table: which files are read and written, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upscale.errors import UnsupportedFormat


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """A row of FORMATS."""

    name: str
    """Pillow's name of the format."""
    suffixes: tuple[str, ...]
    alpha: bool
    deep: bool
    """Whether it takes 16 bits a channel."""
    longest: int
    """The largest width or height that the format can hold."""
    save_options: Mapping[str, Any]


FORMATS = (
    ImageFormat("PNG", (".png",), True, True, 2**31 - 1, {"compress_level": 4}),
    ImageFormat("JPEG", (".jpg", ".jpeg"), False, False, 65_500, {"quality": 95, "subsampling": 0}),
    ImageFormat("WEBP", (".webp",), True, False, 16_383, {"lossless": True, "method": 2, "exact": True}),
    ImageFormat("TIFF", (".tif", ".tiff"), True, True, 2**31 - 1, {"compression": "tiff_adobe_deflate"}),
    ImageFormat("BMP", (".bmp",), False, False, 2**31 - 1, {}),
    ImageFormat("AVIF", (".avif",), True, False, 65_536, {"quality": 90, "subsampling": "4:4:4"}),
)

SUFFIXES = {suffix: row for row in FORMATS for suffix in row.suffixes}
READ_ONLY = (".gif", ".pbm", ".pgm", ".ppm", ".pnm", ".tga", ".jp2", ".j2k", ".mpo", ".jfif", ".ico")
"""What is read as well; the results of these are PNG."""


def format_of(path: Path) -> ImageFormat:
    """Return the format that the suffix of ``path`` names.

    Raises:
        UnsupportedFormat: no format has this suffix.
    """
    row = SUFFIXES.get(path.suffix.lower())
    if row is None:
        raise UnsupportedFormat(
            f"{path}: cannot write {path.suffix or 'a file without a suffix'}",
            f"supported are {' '.join(SUFFIXES)}",
        )
    return row


def is_picture(path: Path) -> bool:
    """Tell whether the suffix of ``path`` is one of a picture; so are files of a folder chosen."""
    return path.suffix.lower() in SUFFIXES or path.suffix.lower() in READ_ONLY
