"""EXIF, XMP, IPTC, ICC, DPI, texts: what is kept, what an upright, larger picture needs rewritten, what is added."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
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

LAYERS = 37724
"""The tag of TIFF in which Photoshop keeps layers."""
# What a TIFF file says about how its pixels are stored, and what Metadata holds on its own: not EXIF to be kept.
STRUCTURE = frozenset((*range(254, 267), 273, *range(277, 282), 284, *range(290, 294), 297, 301, 317, *range(320, 326)))
STRUCTURE |= {330, *range(332, 337), *range(338, 348), *range(512, 522), *range(529, 533), 700, 33723, 34377, 34675}
STRUCTURE |= {LAYERS, 50255}
# GeoTIFF 1.1, requirements classes 7.1.2 and 7.1.4: where a pixel of the picture is on the map.
_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _GEO_KEYS, _RASTER_TYPE = 33550, 33922, 34264, 34735, 1025

COMMENT = "Comment"
"""The keyword, in PNG, of the one text that JPEG and GIF have."""
_ELSEWHERE = ("Raw profile type ", "XML:com.adobe.xmp")  # beginnings of keywords of texts that are other metadata
_USUAL = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # white, red, green and blue of sRGB: IEC 61966-2-1

_USUAL_PRIMARIES, _USUAL_CURVES = (1, 2), (1, 2, 6, 13, 14, 15)  # sRGB, television, or not said: ITU-T H.273

LEAST_DPI, MOST_DPI = 0.02, 1e6  # that are believed; less would be 0 in PNG, which counts pixels per metre

DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)  # of EXIF, beside the main one
_SHORT, _LONG, _RATIONAL, _DOUBLE = 3, 4, 5, 12  # types of fields, and bytes of each: TIFF 6.0, section 2
_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}

_XMP_EMPTY = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)
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
            exif=_exif_for(self.exif, height, width, self.mapped) if self.exif else None,
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
            return replace(self, exif=_patched(self.exif, values))
        exif.update(values)
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
    texts = _texts(opened)  # first: behind the picture of a PNG there may be more, also of what follows here
    info = opened.info
    found = _block(info.get("exif")).removeprefix(EXIF_HEADER)
    # What is damaged is kept all the same, for the notice that it is lost when the result is written.
    damaged = b"" if found.startswith(_TIFF_HEADERS) else found
    try:
        exif = opened.getexif()
        orientation = int(exif.get(ExifTags.Base.Orientation, 1))
        raw = found if found and not damaged else _pack_exif(exif) if exif else damaged
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
        mapped=opened.size[::-1] if tags.keys() & {_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION} else None,
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


def _pack_exif(exif: PILImage.Exif) -> bytes:
    """Return ``exif`` as a classic TIFF structure, without what describes the storage of a TIFF or BigTIFF file."""
    kept = PILImage.Exif()
    for tag, value in exif.items():
        if tag not in STRUCTURE and tag not in DIRECTORIES:
            kept[tag] = value
    for tag in DIRECTORIES:
        if values := exif_directory(exif, tag):
            kept.get_ifd(tag).update(values)
    return kept.tobytes().removeprefix(EXIF_HEADER)


def open_exif(exif: bytes | None) -> PILImage.Exif:
    """Parse ``exif``; without any, return an empty one."""
    tags = PILImage.Exif()
    if exif:
        tags.load(EXIF_HEADER + exif)
    return tags


def exif_directory(exif: PILImage.Exif, tag: int) -> dict[int, Any]:
    """Return what the directory ``tag`` of ``exif`` holds, with the one inside it for interoperability."""
    values: dict[int, Any] = dict(exif.get_ifd(tag))
    if ExifTags.IFD.Interop in values:
        values[ExifTags.IFD.Interop] = dict(exif.get_ifd(ExifTags.IFD.Interop))
    return values


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


def _exif_for(exif: bytes, height: int, width: int, mapped: tuple[int, int] | None) -> bytes | None:
    """Return ``exif`` with orientation, size and place on the map made to fit; what cannot be parsed is dropped.

    All else stays where it is, as makers' notes point into the whole.
    """
    if not exif.startswith(_TIFF_HEADERS):
        return None
    across, down = (ExifTags.Base.ImageWidth, 0xA002, 0x1001), (ExifTags.Base.ImageLength, 0xA003, 0x1002)
    values = dict.fromkeys(across, width) | dict.fromkeys(down, height) | {ExifTags.Base.Orientation: 1}
    try:
        open_exif(exif).tobytes()  # as a TIFF will need it
        patched = _patched(_without_thumbnail(exif), values)
        return _mapped(patched, height / mapped[0], width / mapped[1]) if mapped else patched
    except Exception:  # Pillow's parser raises anything at all on damaged EXIF; the picture matters more
        return None


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a directory of EXIF, and where its entry and its value are."""

    tag: int
    kind: int
    count: int
    entry: int
    value: int


def _fields(exif: bytes) -> Iterator[_Field]:
    """Yield the fields of the main directory and of those for the camera and for interoperability."""
    order = _order(exif)
    offsets = [_long(exif, 4)]
    for directory in offsets:
        (count,) = struct.unpack_from(order + "H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", exif, entry)
            inline = _BYTES.get(kind, 1) * number <= 4
            yield _Field(tag, kind, number, entry, entry + 8 if inline else _long(exif, entry + 8))
            if tag in (ExifTags.IFD.Exif, ExifTags.IFD.Interop) and len(offsets) < 3:  # damaged ones go in circles
                offsets.append(_long(exif, entry + 8))


def _order(exif: bytes) -> str:
    return "<" if exif.startswith(b"II") else ">"


def _long(exif: bytes, at: int) -> int:
    return int(struct.unpack_from(_order(exif) + "I", exif, at)[0])


def _patched(exif: bytes, values: Mapping[int, float]) -> bytes:
    """Return ``exif`` with ``values`` in place of those that it has for these tags."""
    order = _order(exif)
    patched = bytearray(exif)
    for field_ in _fields(exif):
        if field_.tag not in values or field_.count != 1:
            continue
        value = values[field_.tag]
        if field_.kind == _SHORT and value < 1 << 16:
            struct.pack_into(order + "H", patched, field_.entry + 8, round(value))
        elif field_.kind in (_SHORT, _LONG):
            struct.pack_into(order + "HII", patched, field_.entry + 2, _LONG, 1, round(value))
        elif field_.kind == _RATIONAL:
            ratio = Fraction(value).limit_denominator(1000)
            struct.pack_into(order + "II", patched, field_.value, ratio.numerator, ratio.denominator)
    return bytes(patched)


def _without_thumbnail(exif: bytes) -> bytes:
    """Return ``exif`` without its second directory, and without the picture that it describes if that is at the end."""
    main = _long(exif, 4)
    (count,) = struct.unpack_from(_order(exif) + "H", exif, main)
    link = main + 2 + 12 * count
    if len(exif) < link + 4 or not _long(exif, link):
        return exif
    thumbnail = exif[:4] + exif[link : link + 4] + exif[8:]  # as if its directory were the main one
    try:
        found = {field_.tag: _long(exif, field_.value) for field_ in _fields(thumbnail)}
    except struct.error:
        found = {}
    start, size = found.get(ExifTags.Base.JpegIFOffset, 0), found.get(ExifTags.Base.JpegIFByteCount, 0)
    end = start if start > link and start + size >= len(exif) else len(exif)
    return exif[:link] + bytes(4) + exif[link + 4 : end]


def _mapped(exif: bytes, down: float, across: float) -> bytes:
    """Return ``exif`` with what says where pixels are on the map, for a picture so many times higher and wider."""
    order = _order(exif)
    patched = bytearray(exif)
    places = {field_.tag: field_ for field_ in _fields(exif)}

    def numbers(tag: int, code: str, kind: int) -> list[Any]:
        field_ = places.get(tag)
        if field_ is None or field_.kind != kind:
            return []
        return list(struct.unpack_from(f"{order}{field_.count}{code}", exif, field_.value))

    keys = numbers(_GEO_KEYS, "H", _SHORT)
    points = any(keys[at] == _RASTER_TYPE and keys[at + 3] == 2 for at in range(4, len(keys) - 3, 4))
    centre = 0.5 if points else 0.0  # a pixel is its centre or its corner
    scale, ties, matrix = (numbers(tag, "d", _DOUBLE) for tag in (_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION))
    if scale:
        scale[:2] = scale[0] / across, scale[1] / down
    for at in range(0, len(ties), 6):
        ties[at : at + 2] = (ties[at] + centre) * across - centre, (ties[at + 1] + centre) * down - centre
    for at in range(0, len(matrix) - 4, 4):
        column, row = matrix[at], matrix[at + 1]
        matrix[at : at + 2] = column / across, row / down
        matrix[at + 3] += column * (centre / across - centre) + row * (centre / down - centre)
    for tag, values in ((_PIXEL_SCALE, scale), (_TIE_POINTS, ties), (_TRANSFORMATION, matrix)):
        if values:
            struct.pack_into(f"{order}{len(values)}d", patched, places[tag].value, *values)
    return bytes(patched)


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
    return re.sub(rb"<(" + name + rb")(\s[^>]*)?(/>|>.*?</\1>)", b"", xmp, flags=re.DOTALL)


def _sign(xmp: bytes, provenance: Provenance) -> bytes:
    """Return ``xmp`` with a description of the enlargement instead of any earlier one of the same kind."""
    for name in (rb"upscale:\w+", rb"xmlns:upscale", rb"Iptc4xmpExt:DigitalSourceType"):
        xmp = _without(xmp, name)
    xmp = re.sub(rb"<rdf:Description(\s+(rdf:about|xmlns:\w+)\s*=\s*" + _QUOTED + rb")*\s*/>", b"", xmp)
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
