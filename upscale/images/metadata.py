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

from upscale.images.exif import EXIF_HEADER, PLACES, TIFF_HEADERS, fit_exif, open_exif, pack_exif, patched

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

COMMENT = "Comment"
"""The keyword, in PNG, of the one text that JPEG and GIF have."""
_ELSEWHERE = ("Raw profile type ", "XML:com.adobe.xmp")  # beginnings of keywords of texts that are other metadata
_USUAL = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # white, red, green and blue of sRGB: IEC 61966-2-1

_USUAL_PRIMARIES, _USUAL_CURVES = (1, 2), (1, 2, 6, 13, 14, 15)  # sRGB, television, or not said: ITU-T H.273

LEAST_DPI, MOST_DPI = 0.02, 1e6  # that are believed; less would be 0 in PNG, which counts pixels per metre

_RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
_XMP_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {_RDF}></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
).encode()
_XMP_PARTS = re.compile(rb"(.*)(</(?:[\w.-]+:)?RDF\s*>.*)", re.DOTALL)  # up to the end of its descriptions, and from it
_QUOTED = rb"(?:\"[^\"]*\"|'[^']*')"
EXTENDED_XMP = b"xmpNote:HasExtendedXMP"
"""The property that says that XMP goes on in other segments of a JPEG, which Pillow does not read."""
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
    """Chunks of PNG that say how colours are to be shown where there is no profile: cICP, sRGB, gAMA, cHRM."""
    unusual: bool = False
    """Whether ``colour`` says anything else than sRGB."""
    mapped: tuple[int, int] | None = None
    """Height and width of the picture for which ``exif`` says where it is on a map; None: it does not."""

    def stripped(self) -> Metadata:
        """Return the profile alone, without which the colours would be others."""
        return Metadata(icc=self.icc, colour=self.colour, unusual=self.unusual)

    def resized(self, height: int, width: int) -> Metadata:
        """Return the same for an upright picture of ``height`` by ``width``: orientation, size, thumbnails."""
        return replace(
            self,
            exif=fit_exif(self.exif, height, width, self.mapped) if self.exif else None,
            xmp=_xmp_for(self.xmp, height, width) if self.xmp else None,
            mapped=(height, width) if self.mapped else None,
        )

    def signed(self, provenance: Provenance) -> Metadata:
        """Return the same with a note in XMP of how the picture was made."""
        return replace(self, xmp=_sign(self.xmp or _XMP_EMPTY, provenance))

    def dpi_in_exif(self) -> Metadata:
        """Return the same with the resolution in EXIF, for formats that have no other place for it."""
        if self.dpi is None:
            return self
        across, down, unit = ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit
        values: dict[int, float] = {across: self.dpi[0], down: self.dpi[1], unit: 2}  # inches
        exif = open_exif(self.exif)
        if self.exif and across in exif and down in exif:
            return replace(self, exif=patched(self.exif, values))
        exif.update(values)
        return replace(self, exif=pack_exif(exif))


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
    texts = _texts(opened)  # first: behind the picture of a PNG there may be more, also of what follows here
    info = opened.info
    found = _block(info.get("exif")).removeprefix(EXIF_HEADER)
    # What is damaged is kept all the same, for the notice that it is lost when the result is written.
    damaged = b"" if found.startswith(TIFF_HEADERS) else found
    try:
        exif = opened.getexif()
        orientation = int(exif.get(ExifTags.Base.Orientation, 1))
        raw = found if found and not damaged else pack_exif(exif) if exif else damaged
        dpi = info.get("dpi") or _dpi(exif)
    except Exception:  # Pillow's parser raises anything at all on damaged EXIF; the picture matters more
        orientation, raw, dpi = 1, found, None
    colour, unusual = _colour(info)
    tags = getattr(opened, "tag_v2", {})
    metadata = Metadata(
        icc=_block(info.get("icc_profile")) or None,
        exif=raw or None,
        xmp=_block(info.get("xmp") or tags.get(700)) or _profile(info, "xmp") or None,
        iptc=_iptc(opened) or None,
        dpi=_plausible(dpi),
        texts=texts,
        colour=colour,
        unusual=unusual,
        mapped=opened.size[::-1] if tags.keys() & PLACES else None,
    )
    return metadata, orientation


def _block(value: object) -> bytes:
    """Return what Pillow found as the block that it is; tags of TIFF can be of any type."""
    if isinstance(value, tuple) and len(value) == 1:
        (value,) = value
    if isinstance(value, str):
        return value.encode("latin-1", "replace")  # as which Pillow reads any bytes
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
    """Return chunks of PNG (sections 11.3.2.1, .2, .5 and .6) that were read, and whether they differ from sRGB."""
    gamma, points, codes = info.get("gamma"), info.get("chromaticity"), info.get("cicp")
    chunks = {}
    if codes and (codes[0] not in _USUAL_PRIMARIES or codes[1] not in _USUAL_CURVES):
        return {b"cICP": bytes((*codes, 0, 1))}, True  # RGB, full range
    if gamma:
        chunks[b"gAMA"] = struct.pack(">I", round(gamma * 100_000))
    if points:
        chunks[b"cHRM"] = struct.pack(">8I", *(round(point * 100_000) for point in points))
    if "srgb" in info:
        chunks[b"sRGB"] = bytes((info["srgb"],))
    unusual = (gamma and abs(gamma * 2.2 - 1) > 0.02) or (points and not np.allclose(points, _USUAL, atol=0.002))
    return chunks, bool(unusual) and "srgb" not in info


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
    return _profile(opened.info, "iptc")


def _profile(info: Mapping[Any, Any], name: str) -> bytes:
    """Return metadata that a PNG holds as a text, as ImageMagick and ExifTool write what it has no place for."""
    text = info.get(f"Raw profile type {name}", "")
    try:
        return bytes.fromhex("".join(text.split()[2:])) if isinstance(text, str) else b""
    except ValueError:
        return b""


def _xmp_for(xmp: bytes, height: int, width: int) -> bytes:
    """Return ``xmp`` with its copies of orientation and size made to fit, and without its thumbnail."""
    for name in (rb"xmp:Thumbnails", EXTENDED_XMP):
        xmp = _without(xmp, name)
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


def _without(xmp: bytes, name: bytes) -> bytes:
    """Return ``xmp`` without the properties whose names match ``name``, be they attributes or elements."""
    xmp = re.sub(rb"\s" + name + rb"\s*=\s*" + _QUOTED, b"", xmp)
    return re.sub(rb"<(" + name + rb")(\s[^>]*?)?(/>|>.*?</\1>)", b"", xmp, flags=re.DOTALL)


def _sign(xmp: bytes, provenance: Provenance) -> bytes:
    """Return ``xmp`` with a description of the enlargement instead of any earlier one of the same kind.

    XMP that is not UTF-8, or no RDF, stays as it is.
    """
    parts = _XMP_PARTS.fullmatch(re.sub(rb"<((?:[\w.-]+:)?RDF)(\s[^<>]*)?/>", rb"<\1\2></\1>", xmp))
    if parts is None:
        return xmp
    head, tail = parts.groups()
    for name in (rb"upscale:\w+", rb"xmlns:upscale", rb"Iptc4xmpExt:DigitalSourceType"):
        head = _without(head, name)
    head = re.sub(rb"<rdf:Description(\s+(rdf:about|xmlns:\w+)\s*=\s*" + _QUOTED + rb")*\s*/>", b"", head)
    facts = {
        "Tool": provenance.tool,
        "Model": provenance.model,
        "WeightsSHA256": " ".join(provenance.weights),
        "Settings": provenance.settings,
    }
    attributes = " ".join(f"upscale:{name}={quoteattr(value)}" for name, value in facts.items() if value)
    description = (  # with the name of RDF, which may have another one around it
        f'<rdf:Description {_RDF} rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f' Iptc4xmpExt:DigitalSourceType="{_ENHANCED}" xmlns:upscale="urn:upscale:provenance:1" {attributes}/>'
    )
    return bytes(head + description.encode() + tail)
