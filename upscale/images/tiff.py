"""Write TIFF: 8 and 16 bits, strip by strip, several pages, with all metadata; above 4 GB as BigTIFF.

Pillow writes no 16-bit colour, and OpenCV no metadata into TIFF.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import numpy as np
from PIL import ExifTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from upscale.images.exif import kept_tags, open_exif
from upscale.images.image import Pixels
from upscale.images.metadata import Metadata

_STRIP = 1 << 18  # bytes of picture in a strip
_SHORT, _LONG, _RATIONAL, _UNDEFINED, _LONG8 = 3, 4, 5, 7, 16  # field types: TIFF 6.0, section 2; BigTIFF
_DEFLATE = 8  # Compression: TIFF technical note, Adobe Photoshop
_HORIZONTAL = 2  # Predictor: TIFF 6.0, section 14


@dataclass(frozen=True, slots=True)
class TiffPage:
    """One page to be written."""

    height: int
    width: int
    bands: Iterable[Pixels]
    """``[n, width, C]`` from top to bottom; ``C`` is 1 to 4: grey or RGB, then alpha."""
    metadata: Metadata


def write_tiff(file: BinaryIO, pages: Iterable[TiffPage], *, big: bool) -> None:
    """Write ``pages``; ``big``: as BigTIFF, which has no limit of 4 GB."""
    layout = _BIG if big else _CLASSIC
    file.write(layout.header)
    link = file.tell() - struct.calcsize(layout.offset)  # where the offset of the next page is noted
    for page in pages:
        fields = _write_strips(file, page, layout)
        directory, link_in_it = _write_directory(file, fields, page.metadata, layout)
        file.seek(link)
        file.write(struct.pack(layout.offset, directory))
        file.seek(0, 2)
        link = link_in_it


@dataclass(frozen=True, slots=True)
class _Layout:
    """Classic TIFF or BigTIFF: struct formats of what differs."""

    header: bytes
    count: str
    offset: str
    offset_type: int


_CLASSIC = _Layout(b"II*\0" + bytes(4), "<H", "<I", _LONG)
_BIG = _Layout(b"II+\0\x08\0\0\0" + bytes(8), "<Q", "<Q", _LONG8)


_Fields = Mapping[int, tuple[int, int, bytes]]  # tag -> field type, count, value


def _write_strips(file: BinaryIO, page: TiffPage, layout: _Layout) -> dict[int, tuple[int, int, bytes]]:
    """Write the picture; return the fields that describe it."""
    offsets: list[int] = []
    lengths: list[int] = []
    rows = 0
    rest: Pixels | None = None
    for part in page.bands:
        band = part if rest is None else np.concatenate((rest, part))
        rows = rows or max(1, _STRIP // band[0].nbytes)
        whole = len(band) // rows * rows
        rest = band[whole:]
        _write_rows(file, band[:whole], rows, offsets, lengths)
    assert rest is not None, "a page has rows"
    _write_rows(file, rest, rows, offsets, lengths)
    channels = rest.shape[2]
    fields = {
        ExifTags.Base.ImageWidth: _longs(page.width),
        ExifTags.Base.ImageLength: _longs(page.height),
        ExifTags.Base.BitsPerSample: _shorts(*[8 * rest.dtype.itemsize] * channels),
        ExifTags.Base.Compression: _shorts(_DEFLATE),
        ExifTags.Base.PhotometricInterpretation: _shorts(1 if channels < 3 else 2),  # black is zero, or RGB
        ExifTags.Base.StripOffsets: _numbers(layout.offset_type, layout.offset[1], offsets),
        ExifTags.Base.SamplesPerPixel: _shorts(channels),
        ExifTags.Base.RowsPerStrip: _longs(rows),
        ExifTags.Base.StripByteCounts: _numbers(_LONG, "I", lengths),
        ExifTags.Base.PlanarConfiguration: _shorts(1),
        ExifTags.Base.Predictor: _shorts(_HORIZONTAL),
        ExifTags.Base.SampleFormat: _shorts(*[1] * channels),
    }
    if channels in (2, 4):
        fields[ExifTags.Base.ExtraSamples] = _shorts(2)  # alpha, not premultiplied
    return {int(tag): value for tag, value in fields.items()}


def _write_rows(file: BinaryIO, band: Pixels, rows: int, offsets: list[int], lengths: list[int]) -> None:
    for top in range(0, len(band), rows):
        strip = band[top : top + rows]
        difference = strip.astype(strip.dtype.newbyteorder("<"))
        difference[:, 1:] -= strip[:, :-1]
        data = zlib.compress(difference.tobytes(), 1)
        offsets.append(file.tell())
        lengths.append(len(data))
        file.write(data)


def _write_directory(file: BinaryIO, fields: _Fields, metadata: Metadata, layout: _Layout) -> tuple[int, int]:
    """Write an image file directory; return where it is, and where the offset of the next one goes."""
    described = dict(fields)
    for tag, value in ((700, metadata.xmp), (33723, metadata.iptc), (34675, metadata.icc)):
        if value:
            described[tag] = (_UNDEFINED, len(value), value)
    if metadata.dpi:
        for tag, dpi in zip((ExifTags.Base.XResolution, ExifTags.Base.YResolution), metadata.dpi, strict=True):
            ratio = Fraction(dpi).limit_denominator(1000)
            described[int(tag)] = (_RATIONAL, 1, struct.pack("<2I", ratio.numerator, ratio.denominator))
        described[int(ExifTags.Base.ResolutionUnit)] = _shorts(2)
    entries = _exif_entries(file, metadata, layout)
    room = struct.calcsize(layout.offset)
    for tag, (kind, count, value) in described.items():
        if len(value) > room:
            at = _align(file)
            file.write(value)
            value = struct.pack(layout.offset, at)
        entries[tag] = struct.pack("<HH", tag, kind) + struct.pack(layout.offset, count) + value.ljust(room, b"\0")
    at = _align(file)
    file.write(struct.pack(layout.count, len(entries)) + b"".join(entries[tag] for tag in sorted(entries)))
    link = file.tell()
    file.write(bytes(room))
    return at, link


def _exif_entries(file: BinaryIO, metadata: Metadata, layout: _Layout) -> dict[int, bytes]:
    """Write EXIF as a directory of its own; return its entries, whose offsets are right from any other directory."""
    exif = open_exif(metadata.exif)
    if not exif:
        return {}
    directory = ImageFileDirectory_v2(layout.header)
    for tag, value in kept_tags(exif).items():
        directory[tag] = value
    at = _align(file)
    data = directory.tobytes(at)
    file.write(data)
    start = struct.calcsize(layout.count)
    size = 4 + 2 * struct.calcsize(layout.offset)
    (count,) = struct.unpack(layout.count, data[:start])
    entries = [data[start + size * i : start + size * (i + 1)] for i in range(count)]
    return {struct.unpack("<H", entry[:2])[0]: entry for entry in entries}


def _align(file: BinaryIO) -> int:
    """Move to the next even offset, where TIFF wants values to begin."""
    if file.tell() % 2:
        file.write(b"\0")
    return file.tell()


def _shorts(*values: int) -> tuple[int, int, bytes]:
    return _numbers(_SHORT, "H", values)


def _longs(*values: int) -> tuple[int, int, bytes]:
    return _numbers(_LONG, "I", values)


def _numbers(kind: int, code: str, values: Iterable[int]) -> tuple[int, int, bytes]:
    listed = list(values)
    return kind, len(listed), struct.pack(f"<{len(listed)}{code}", *listed)
