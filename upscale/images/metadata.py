"""EXIF, XMP, IPTC, ICC, DPI, texts: what is kept, what an upright, larger picture needs rewritten, what is added."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as PILImage

EXIF_HEADER = b"Exif\x00\x00"
_TIFF_HEADERS = (b"II*\0", b"MM\0*")  # that EXIF begins with

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

# What a TIFF file says about how its pixels are stored, and what Metadata holds on its own: not EXIF to be kept.
_STRUCTURE = frozenset(
    (*range(254, 267), 273, *range(277, 282), 284, *range(290, 294), 297, 301, 317, *range(320, 326))
)
_STRUCTURE |= {330, *range(332, 337), *range(338, 348), *range(512, 522), *range(529, 533), 700, 33723, 34377, 34675}

COMMENT = "Comment"
"""The keyword, in PNG, of the one text that JPEG and GIF have."""
_ELSEWHERE = ("Raw profile type ", "XML:com.adobe.xmp")  # beginnings of keywords of texts that are other metadata
_USUAL = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # white, red, green and blue of sRGB: IEC 61966-2-1

LEAST_DPI, MOST_DPI = 0.02, 1e6  # that are believed; less would be 0 in PNG, which counts pixels per metre

DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)  # of EXIF, beside the main one

_XMP_EMPTY = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
_ENHANCED = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced"  # IPTC NewsCodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a file says beside its pixels, as found; orientation is already applied to the pixels."""

    icc: bytes | None = None
    exif: bytes | None = None
    """A TIFF structure, without the ``Exif`` header of JPEG."""
    xmp: bytes | None = None
    iptc: bytes | None = None
    """IPTC-IIM records."""
    dpi: tuple[float, float] | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    """By keyword, as PNG has them: what a picture was generated from, titles, comments."""
    colour: Mapping[bytes, bytes] = field(default_factory=dict)
    """Chunks of PNG that say how colours are to be shown where there is no profile: sRGB, gAMA, cHRM."""
    unusual: bool = False
    """Whether ``colour`` says anything else than sRGB."""

    def stripped(self) -> Metadata:
        """Return the profile alone, without which the colours would be others."""
        return Metadata(icc=self.icc, colour=self.colour, unusual=self.unusual)

    def resized(self, height: int, width: int) -> Metadata:
        """Return the same for an upright picture of ``height`` by ``width``: orientation, size, thumbnails."""
        return replace(
            self,
            exif=_exif_for(self.exif, height, width) if self.exif else None,
            xmp=_xmp_for(self.xmp, height, width) if self.xmp else None,
        )

    def signed(self, provenance: Provenance) -> Metadata:
        """Return the same with a note in XMP of how the picture was made."""
        return replace(self, xmp=_sign(self.xmp or _XMP_EMPTY, provenance))

    def dpi_in_exif(self) -> Metadata:
        """Return the same with the resolution in EXIF, for formats that have no other place for it."""
        if self.dpi is None:
            return self
        exif = open_exif(self.exif)
        exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = self.dpi
        exif[ExifTags.Base.ResolutionUnit] = 2  # inches
        return replace(self, exif=exif.tobytes().removeprefix(EXIF_HEADER))


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How a picture was made."""

    tool: str
    """Name and version of the program."""
    model: str
    weights: tuple[str, ...]
    """sha256 of each checkpoint; none for an interpolation."""
    settings: str


def read_metadata(opened: PILImage.Image) -> tuple[Metadata, int]:
    """Return what is kept of ``opened``, and its orientation."""
    info = opened.info
    found = _block(info.get("exif")).removeprefix(EXIF_HEADER)
    # What is damaged is kept all the same, for the notice that it is lost when the result is written.
    damaged = b"" if found.startswith(_TIFF_HEADERS) else found
    try:
        exif = opened.getexif()
        orientation = int(exif.get(ExifTags.Base.Orientation, 1))
        raw = _pack_exif(exif) if exif else damaged
        dpi = info.get("dpi") or _dpi(exif)
    except Exception:  # Pillow's parser raises anything at all on damaged EXIF; the picture matters more
        orientation, raw, dpi = 1, found, None
    colour, unusual = _colour(info)
    tags = getattr(opened, "tag_v2", {})
    metadata = Metadata(
        icc=_block(info.get("icc_profile")) or None,
        exif=raw or None,
        xmp=_block(info.get("xmp") or tags.get(700)) or None,
        iptc=_iptc(opened) or None,
        dpi=_plausible(dpi),
        texts=_texts(opened),
        colour=colour,
        unusual=unusual,
    )
    return metadata, orientation


def _block(value: object) -> bytes:
    """Return what Pillow found as the block that it is; tags of TIFF can be of any type."""
    if isinstance(value, tuple) and len(value) == 1:
        (value,) = value
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return value if isinstance(value, bytes) else b""


def _plausible(dpi: Any) -> tuple[float, float] | None:
    """Return ``dpi`` if it can be true: damaged and careless files say 0, NaN, or more than PNG can hold."""
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return (across, down) if all(LEAST_DPI <= value <= MOST_DPI for value in (across, down)) else None


def _texts(opened: PILImage.Image) -> dict[str, str]:
    comment = opened.info.get("comment", b"")
    if isinstance(comment, bytes):
        try:
            comment = comment.decode()
        except UnicodeDecodeError:
            comment = comment.decode("latin-1")
    texts = {COMMENT: comment} if comment else {}
    for keyword, text in getattr(opened, "text", {}).items():  # PNG
        if not keyword.startswith(_ELSEWHERE):
            texts[keyword] = str(text)
    return texts


def _colour(info: Mapping[Any, Any]) -> tuple[dict[bytes, bytes], bool]:
    """Return chunks of PNG (sections 11.3.2.1, .2 and .5) that Pillow has read, and whether they differ from sRGB."""
    gamma, points = info.get("gamma"), info.get("chromaticity")
    chunks = {}
    if gamma:
        chunks[b"gAMA"] = struct.pack(">I", round(gamma * 100_000))
    if points:
        chunks[b"cHRM"] = struct.pack(">8I", *(round(point * 100_000) for point in points))
    if "srgb" in info:
        chunks[b"sRGB"] = bytes((info["srgb"],))
    unusual = (gamma and abs(gamma * 2.2 - 1) > 0.02) or (points and not np.allclose(points, _USUAL, atol=0.002))
    return chunks, bool(unusual) and "srgb" not in info


def _pack_exif(exif: PILImage.Exif) -> bytes:
    """Return ``exif`` as a classic TIFF structure, without what describes the storage of a TIFF or BigTIFF file."""
    kept = PILImage.Exif()
    for tag, value in exif.items():
        if tag not in _STRUCTURE and tag not in DIRECTORIES:
            kept[tag] = value
    for tag in DIRECTORIES:
        if values := exif.get_ifd(tag):
            kept.get_ifd(tag).update(values)
    return kept.tobytes().removeprefix(EXIF_HEADER)


def open_exif(exif: bytes | None) -> PILImage.Exif:
    """Parse ``exif``; without any, return an empty one."""
    tags = PILImage.Exif()
    if exif:
        tags.load(EXIF_HEADER + exif)
    return tags


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror ``pixels`` ``[H, W, ...]`` as the EXIF ``orientation`` (1 to 8) asks."""
    turns, mirror = _UPRIGHT.get(orientation, (0, False))
    pixels = np.rot90(pixels, turns)
    return pixels[:, ::-1] if mirror else pixels


def _dpi(exif: PILImage.Exif) -> tuple[float, float] | None:
    across, down = exif.get(ExifTags.Base.XResolution), exif.get(ExifTags.Base.YResolution)
    unit = {2: 1.0, 3: 2.54}.get(exif.get(ExifTags.Base.ResolutionUnit, 2))
    return (float(across) * unit, float(down) * unit) if across and down and unit else None


def _iptc(opened: PILImage.Image) -> bytes:
    """Return the IPTC-IIM records of a JPEG, TIFF or PNG file."""
    resources = opened.info.get("photoshop")  # JPEG: image resource 0x0404 of Photoshop's segment
    if isinstance(resources, dict):
        return bytes(resources.get(0x0404, b""))
    # The bytes as they are in the file: Photoshop calls them LONG, and of those Pillow gives the first.
    if records := getattr(getattr(opened, "tag_v2", None), "_tagdata", {}).get(33723):
        return bytes(records)
    text = opened.info.get("Raw profile type iptc", "")  # PNG, as ImageMagick and ExifTool write it
    try:
        return bytes.fromhex("".join(text.split()[2:])) if isinstance(text, str) else b""
    except ValueError:
        return b""


def _exif_for(exif: bytes, height: int, width: int) -> bytes | None:
    """Return ``exif`` with orientation and size made to fit; what cannot be parsed is dropped."""
    if not exif.startswith(_TIFF_HEADERS):
        return None
    try:
        tags = open_exif(exif)
        details = tags.get_ifd(ExifTags.IFD.Exif)
        if details:
            details[ExifTags.Base.ExifImageWidth] = width
            details[ExifTags.Base.ExifImageHeight] = height
        if ExifTags.Base.Orientation in tags:
            tags[ExifTags.Base.Orientation] = 1
        return tags.tobytes().removeprefix(EXIF_HEADER)  # Pillow writes no thumbnail (IFD1)
    except Exception:  # Pillow's parser raises anything at all on damaged EXIF; the picture matters more
        return None


def _xmp_for(xmp: bytes, height: int, width: int) -> bytes:
    """Return ``xmp`` with its copies of orientation and size made to fit, and without its thumbnail."""
    xmp = re.sub(rb"<xmp:Thumbnails>.*?</xmp:Thumbnails>", b"", xmp, flags=re.DOTALL)
    for name, value in (
        (b"tiff:Orientation", 1),
        (b"tiff:ImageWidth", width),
        (b"tiff:ImageLength", height),
        (b"exif:PixelXDimension", width),
        (b"exif:PixelYDimension", height),
    ):
        xmp = re.sub(rb"(\b" + name + rb"\s*=\s*[\"'])\d+([\"'])", rb"\g<1>%d\g<2>" % value, xmp)
        xmp = re.sub(rb"(<" + name + rb">)\s*\d+\s*(</)", rb"\g<1>%d\g<2>" % value, xmp)
    return xmp


def _sign(xmp: bytes, provenance: Provenance) -> bytes:
    """Return ``xmp`` with a description of the enlargement instead of any earlier one of the same kind."""
    xmp = re.sub(rb"<rdf:Description[^>]*xmlns:upscale=[^>]*/>", b"", xmp)
    xmp = re.sub(rb"\sIptc4xmpExt:DigitalSourceType\s*=\s*(\"[^\"]*\"|'[^']*')", b"", xmp)
    xmp = re.sub(
        rb"<Iptc4xmpExt:DigitalSourceType\b.*?(/>|</Iptc4xmpExt:DigitalSourceType>)", b"", xmp, flags=re.DOTALL
    )
    facts = {
        "Tool": provenance.tool,
        "Model": provenance.model,
        "WeightsSHA256": " ".join(provenance.weights),
        "Settings": provenance.settings,
    }
    attributes = " ".join(f"upscale:{name}={quoteattr(value)}" for name, value in facts.items() if value)
    description = (
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f' Iptc4xmpExt:DigitalSourceType="{_ENHANCED}" xmlns:upscale="urn:upscale:provenance:1" {attributes}/>'
    )
    head, end, tail = xmp.rpartition(b"</rdf:RDF>")
    return head + description.encode() + end + tail if end else _sign(_XMP_EMPTY, provenance)
