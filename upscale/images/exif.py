"""EXIF: a TIFF structure, kept as it is but for what an upright, larger picture needs changed."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from PIL import ExifTags
from PIL import Image as PILImage

EXIF_HEADER = b"Exif\x00\x00"
TIFF_HEADERS = (b"II*\0", b"MM\0*")  # that EXIF begins with

LAYERS = 37724
"""The tag of TIFF in which Photoshop keeps layers."""
# What a TIFF file says about how its pixels are stored, and what Metadata holds on its own: not EXIF to be kept.
STRUCTURE = frozenset((*range(254, 267), 273, *range(277, 282), 284, *range(290, 294), 297, 301, 317, *range(320, 326)))
STRUCTURE |= {330, *range(332, 337), *range(338, 348), *range(512, 522), *range(529, 533), 700, 33723, 34377, 34675}
STRUCTURE |= {LAYERS, 50255}
# GeoTIFF 1.1, requirements classes 7.1.2 and 7.1.4: where a pixel of the picture is on the map.
_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _GEO_KEYS, _RASTER_TYPE = 33550, 33922, 34264, 34735, 1025
PLACES = frozenset((_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION))
"""Those of these tags that depend on the size of the picture."""

DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)  # of EXIF, beside the main one
_SHORT, _LONG, _RATIONAL, _DOUBLE = 3, 4, 5, 12  # types of fields, and bytes of each: TIFF 6.0, section 2
_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}


def pack_exif(exif: PILImage.Exif) -> bytes:
    """Return ``exif`` as a classic TIFF structure, without what describes the storage of a TIFF or BigTIFF file."""
    kept = PILImage.Exif()
    kept.update(kept_tags(exif))
    return kept.tobytes().removeprefix(EXIF_HEADER)


def open_exif(exif: bytes | None) -> PILImage.Exif:
    """Parse ``exif``; without any, return an empty one."""
    tags = PILImage.Exif()
    if exif:
        tags.load(EXIF_HEADER + exif)
    return tags


def kept_tags(exif: PILImage.Exif) -> dict[int, Any]:
    """Return what of ``exif`` does not describe storage, to be written: tags, and directories as mappings."""
    kept = {tag: value for tag, value in exif.items() if tag not in STRUCTURE and tag not in DIRECTORIES}
    return _as_read(kept | {tag: values for tag in DIRECTORIES if (values := _directory(exif, tag))})


def _directory(exif: PILImage.Exif, tag: int) -> dict[int, Any]:
    """Return what the directory ``tag`` of ``exif`` holds, with the one inside it for interoperability."""
    values: dict[int, Any] = dict(exif.get_ifd(tag))
    if ExifTags.IFD.Interop in values:
        values[ExifTags.IFD.Interop] = dict(exif.get_ifd(ExifTags.IFD.Interop))
    return values


class _Text(str):
    """A text that Pillow writes as it read it: it reads Latin-1, in which all bytes are, but would write ASCII."""

    __slots__ = ()

    def encode(self, encoding: str = "latin-1", errors: str = "replace") -> bytes:
        """Return the bytes that were read, whatever ``encoding``."""
        return super().encode("latin-1", errors)


def _as_read(tags: dict[int, Any]) -> dict[int, Any]:
    """Return ``tags`` with texts that stay what they were."""
    return {
        tag: _Text(value) if isinstance(value, str) else _as_read(value) if isinstance(value, dict) else value
        for tag, value in tags.items()
    }


def fit_exif(exif: bytes, height: int, width: int, mapped: tuple[int, int] | None) -> bytes | None:
    """Return ``exif`` with orientation, size and place on the map made to fit; what cannot be parsed is dropped.

    All else stays where it is, as makers' notes point into the whole.
    """
    if not exif.startswith(TIFF_HEADERS):
        return None
    across, down = (ExifTags.Base.ImageWidth, 0xA002, 0x1001), (ExifTags.Base.ImageLength, 0xA003, 0x1002)
    values = dict.fromkeys(across, width) | dict.fromkeys(down, height) | {ExifTags.Base.Orientation: 1}
    try:
        open_exif(exif).tobytes()  # as a TIFF will need it
        fitted = patched(_without_thumbnail(exif), values)
        return _mapped(fitted, height / mapped[0], width / mapped[1]) if mapped else fitted
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
        if directory != offsets[0] and not _has_directory(exif, directory):
            continue  # the others are worth keeping
        (count,) = struct.unpack_from(order + "H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", exif, entry)
            inline = _BYTES.get(kind, 1) * number <= 4
            yield _Field(tag, kind, number, entry, entry + 8 if inline else _long(exif, entry + 8))
            if tag in (ExifTags.IFD.Exif, ExifTags.IFD.Interop) and len(offsets) < 3:  # damaged ones go in circles
                offsets.append(_long(exif, entry + 8))


def _has_directory(exif: bytes, at: int) -> bool:
    """Tell whether a whole directory fits in where a pointer says that one is."""
    if not 8 <= at <= len(exif) - 2:
        return False
    (count,) = struct.unpack_from(_order(exif) + "H", exif, at)
    return bool(at + 2 + 12 * count <= len(exif))


def _order(exif: bytes) -> str:
    return "<" if exif.startswith(b"II") else ">"


def _long(exif: bytes, at: int) -> int:
    return int(struct.unpack_from(_order(exif) + "I", exif, at)[0])


def patched(exif: bytes, values: Mapping[int, float]) -> bytes:
    """Return ``exif`` with ``values`` in place of those that it has for these tags."""
    order = _order(exif)
    changed = bytearray(exif)
    for field in _fields(exif):
        if field.tag not in values or field.count != 1:
            continue
        value = values[field.tag]
        if field.kind == _SHORT and value < 1 << 16:
            struct.pack_into(order + "H", changed, field.entry + 8, round(value))
        elif field.kind in (_SHORT, _LONG):
            struct.pack_into(order + "HII", changed, field.entry + 2, _LONG, 1, round(value))
        elif field.kind == _RATIONAL:
            ratio = Fraction(value).limit_denominator(1000)
            struct.pack_into(order + "II", changed, field.value, ratio.numerator, ratio.denominator)
    return bytes(changed)


def _without_thumbnail(exif: bytes) -> bytes:
    """Return ``exif`` without its second directory, and without the picture that it describes if that is at the end."""
    main = _long(exif, 4)
    (count,) = struct.unpack_from(_order(exif) + "H", exif, main)
    link = main + 2 + 12 * count
    if len(exif) < link + 4 or not _long(exif, link):
        return exif
    thumbnail = exif[:4] + exif[link : link + 4] + exif[8:]  # as if its directory were the main one
    try:
        found = {field.tag: _long(exif, field.value) for field in _fields(thumbnail)}
    except struct.error:
        found = {}
    start, size = found.get(ExifTags.Base.JpegIFOffset, 0), found.get(ExifTags.Base.JpegIFByteCount, 0)
    last = max(link, *(field.value for field in _fields(exif)))
    end = start if start > last and start + size >= len(exif) else len(exif)
    return exif[:link] + bytes(4) + exif[link + 4 : end]


def _mapped(exif: bytes, down: float, across: float) -> bytes:
    """Return ``exif`` with what says where pixels are on the map, for a picture so many times higher and wider."""
    order = _order(exif)
    changed = bytearray(exif)
    places = {field.tag: field for field in _fields(exif)}

    def numbers(tag: int, code: str, kind: int) -> list[Any]:
        field = places.get(tag)
        if field is None or field.kind != kind:
            return []
        return list(struct.unpack_from(f"{order}{field.count}{code}", exif, field.value))

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
            struct.pack_into(f"{order}{len(values)}d", changed, places[tag].value, *values)
    return bytes(changed)
