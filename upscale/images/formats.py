"""The FORMATS table: which files are read and written, and what each can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from upscale.errors import UnsupportedFormat


class Transparency(Enum):
    """What a format knows of transparency."""

    NONE = "none"
    BINARY = "binary"
    """A pixel is there or not."""
    FULL = "full"


class Several(Enum):
    """What more than one picture in a file of a format means."""

    NO = "one picture"
    FRAMES = "an animation"
    PAGES = "pages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What a format can say of how an animation plays; times are in milliseconds."""

    tick: int = 1
    """The unit in which the times of frames are given; 0: in fractions of a second, of sixteen bits each side."""
    shortest: int = 0
    longest: int = 2**31 - 1
    """That a frame can be shown."""
    loops: int = 65_535
    """How often it can say to play at most; 0: it says nothing of that and plays endlessly."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # a row is itself: it can be a key
class ImageFormat:
    """A row of FORMATS."""

    name: str
    """Pillow's name of the format."""
    suffixes: tuple[str, ...]
    transparency: Transparency = Transparency.NONE
    deep: bool = False
    """Whether it takes 16 bits a channel."""
    several: Several = Several.NO
    timing: Timing = Timing()
    """Of animations."""
    longest: int = 2**31 - 1
    """The largest width or height that the format can hold."""
    gray: bool = True
    """Whether it has pictures of one channel, which may carry a profile for grey."""
    gray_alpha: int = 16
    """Bits a channel that grey pictures with alpha may have in it, 0 for none of them."""
    colours: int | None = None
    """How many different ones a picture may have."""
    holds: frozenset[str] = frozenset()
    """The fields of ``Metadata`` that it has a place for; ``comment`` is that of the texts."""
    largest_block: int | None = None
    """Bytes that EXIF, XMP or IPTC may have."""
    highest_dpi: float = 1e6
    lossless: Mapping[str, Any] | None = field(default_factory=dict)
    """Options of the encoder; None: the format always loses."""
    lossy: Mapping[str, Any] | None = None
    """Options of the encoder; ``quality`` among them is what ``--quality`` replaces. None: it never loses."""
    bytes_per_pixel: float = 1.5
    """Of a result at default quality, to estimate the room it takes: measured on an enlarged photograph."""
    plugin: str | None = None
    """Module that teaches the format to Pillow."""
    package: str | None = None
    """That has the plug-in."""


_ALL = frozenset(("icc", "exif", "xmp", "iptc", "dpi"))
_MODERN = _ALL - {"iptc", "dpi"}

FORMATS = (
    ImageFormat(
        name="PNG",
        suffixes=(".png", ".apng"),
        transparency=Transparency.FULL,
        deep=True,
        several=Several.FRAMES,
        timing=Timing(tick=0, longest=65_535_000, loops=2**31 - 1),
        holds=_ALL | {"texts", "colour"},
    ),
    ImageFormat(
        name="JPEG",
        suffixes=(".jpg", ".jpeg", ".jfif"),
        bytes_per_pixel=0.45,
        longest=65_500,
        holds=_ALL | {"comment"},
        largest_block=65_500,  # a segment has 65 533 bytes, of which a header takes up to 29
        highest_dpi=65_535,
        lossless=None,
        lossy={"quality": 95, "subsampling": 0},
    ),
    ImageFormat(
        name="WEBP",
        suffixes=(".webp",),
        bytes_per_pixel=0.95,
        transparency=Transparency.FULL,
        several=Several.FRAMES,
        timing=Timing(longest=2**24 - 1),
        longest=16_383,
        gray=False,
        holds=_MODERN,
        lossless={"lossless": True, "method": 2, "exact": True},
        lossy={"quality": 95, "method": 4},
    ),
    ImageFormat(
        name="TIFF",
        suffixes=(".tif", ".tiff"),
        bytes_per_pixel=1.7,
        transparency=Transparency.FULL,
        deep=True,
        gray_alpha=8,  # with 16 it is what no usual program opens
        several=Several.PAGES,
        holds=_ALL,
    ),
    ImageFormat(name="BMP", suffixes=(".bmp",), bytes_per_pixel=3.0, holds=frozenset(("dpi",))),
    ImageFormat(
        name="AVIF",
        suffixes=(".avif",),
        bytes_per_pixel=0.2,
        transparency=Transparency.FULL,
        several=Several.FRAMES,
        timing=Timing(loops=0),
        longest=65_535,
        gray=False,
        holds=_MODERN,
        lossless=None,
        lossy={"quality": 90, "subsampling": "4:4:4"},
    ),
    ImageFormat(
        name="GIF",
        suffixes=(".gif",),
        bytes_per_pixel=0.85,
        transparency=Transparency.BINARY,
        gray_alpha=0,
        several=Several.FRAMES,
        timing=Timing(tick=10, shortest=20, longest=655_350),  # less than 20 is shown as 100
        longest=65_535,
        colours=256,
        holds=frozenset(("comment",)),
    ),
    ImageFormat(
        name="HEIF",
        suffixes=(".heic", ".heif"),
        bytes_per_pixel=0.3,
        transparency=Transparency.FULL,
        longest=65_535,
        gray_alpha=0,
        holds=_MODERN,
        lossless=None,
        lossy={"quality": 90, "chroma": 444},
        plugin="pillow_heif",
        package="pillow-heif",
    ),
    ImageFormat(
        name="JXL",
        suffixes=(".jxl",),
        bytes_per_pixel=1.0,
        transparency=Transparency.FULL,
        holds=_MODERN - {"icc"},  # its plug-in writes none
        lossless={"lossless": True},
        lossy={"quality": 95},
        plugin="pillow_jxl",
        package="pillow-jxl-plugin",
    ),
)

SUFFIXES = {suffix: row for row in FORMATS for suffix in row.suffixes}
READ_ONLY = (".pbm", ".pgm", ".ppm", ".pnm", ".tga", ".jp2", ".j2k", ".mpo", ".ico")
"""What is read as well; the results of these are PNG."""


def format_of(path: Path) -> ImageFormat:
    """Return the format that the suffix of ``path`` names.

    Raises:
        UnsupportedFormat: no format has this suffix, or its plug-in is not installed.
    """
    row = SUFFIXES.get(path.suffix.lower())
    if row is None:
        raise UnsupportedFormat(
            f"{path}: cannot write {path.suffix or 'a file without a suffix'}",
            f"supported are {' '.join(SUFFIXES)}",
        )
    if not is_installed(row):
        raise missing_plugin(path.name, row)
    return row


def is_picture(path: Path) -> bool:
    """Tell whether the suffix of ``path`` is one of a picture; so are files of a folder chosen."""
    return path.suffix.lower() in SUFFIXES or path.suffix.lower() in READ_ONLY


@cache
def is_installed(row: ImageFormat) -> bool:
    """Tell whether ``row`` can be read and written; import its plug-in if it needs one."""
    if row.plugin is None:
        return True
    try:
        module = import_module(row.plugin)
    except ImportError:
        return False
    if hasattr(module, "register_heif_opener"):  # the other one registers itself
        module.register_heif_opener()
    return True


def missing_plugin(name: str, row: ImageFormat) -> UnsupportedFormat:
    """Return the error that says how to install what ``row`` needs."""
    return UnsupportedFormat(f"{name}: {row.name} needs a plug-in that is not installed", f"pip install {row.package}")
