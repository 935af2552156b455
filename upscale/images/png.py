"""Write PNG: 8 and 16 bits, row by row, with all metadata, as fast as the processors allow.

Pillow writes no 16-bit colour, OpenCV no resolution, and both compress on one processor. Measured on an enlarged
photograph of 1.6 megapixels on one processor: Pillow at level 4 takes 0.40 s for 2.36 MB, OpenCV at level 1 0.14 s for
2.38 MB, this module 0.11 s for 2.37 MB, and it shares the work among all processors.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from os import cpu_count
from typing import BinaryIO, NamedTuple

import numpy as np

from upscale.ahead import ahead
from upscale.images.chunks import SIGNATURE, packed
from upscale.images.image import Pixels
from upscale.images.metadata import COMMENT, Metadata

_PART = 1 << 20  # bytes of picture that are compressed at once: a few per picture, so that processors share the work
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type: PNG, section 11.2.1
_PAETH = 4  # filter type: PNG, section 9.2; the best single one for photographs
_INCHES_PER_METRE = 1 / 0.0254


def write_png(file: BinaryIO, height: int, width: int, bands: Iterable[Pixels], metadata: Metadata) -> None:
    """Write ``bands`` ``[n, width, C]``, uint8 or uint16, from top to bottom; ``C`` is 1 to 4: grey or RGB, alpha."""
    parts = _joined(bands)
    first = next(parts)
    channels = first.rows.shape[2]
    bits = 8 * first.rows.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, bits, _COLOUR_TYPES[channels], 0, 0, 0)
    file.write(SIGNATURE + packed(b"IHDR", header))
    for name, data in ancillary(metadata):
        file.write(packed(name, data))
    file.write(packed(b"IDAT", b"\x78\x01"))  # zlib: RFC 1950, section 2.2
    check = zlib.adler32(b"")
    with ThreadPoolExecutor(cpu_count() or 1) as pool:
        for _, (filtered, compressed) in ahead(pool, _compress, chain((first,), parts), 2 * (cpu_count() or 1)):
            file.write(packed(b"IDAT", compressed))
            check = zlib.adler32(filtered, check)
    file.write(packed(b"IDAT", struct.pack(">I", check)))
    file.write(packed(b"IEND", b""))


class _Part(NamedTuple):
    rows: Pixels
    above: Pixels
    """The row before them."""
    last: bool


def _joined(bands: Iterable[Pixels]) -> Iterator[_Part]:
    """Yield the rows of ``bands`` in parts of about ``_PART`` bytes."""
    waiting: _Part | None = None
    for band in bands:
        step = max(1, _PART // band[0].nbytes)
        for top in range(0, len(band), step):
            if waiting is not None:
                yield waiting
            rows = band[top : top + step]
            waiting = _Part(rows, np.zeros_like(rows[:1]) if waiting is None else waiting.rows[-1:], last=False)
    if waiting is not None:
        yield waiting._replace(last=True)


def _compress(part: _Part) -> tuple[bytes, bytes]:
    """Return the rows of ``part`` filtered, and the same as a piece of a deflate stream."""
    filtered = _filter(part.rows, part.above)
    # What a photograph leaves after the filter has no repetitions worth looking for; drawings are made of them.
    drawn = np.count_nonzero(filtered) * 2 < filtered.size
    level, strategy = (6, zlib.Z_DEFAULT_STRATEGY) if drawn else (1, zlib.Z_RLE)
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    data = filtered.tobytes()
    return data, packer.compress(data) + packer.flush(zlib.Z_FINISH if part.last else zlib.Z_SYNC_FLUSH)


def _filter(rows: Pixels, above: Pixels) -> Pixels:
    """Return ``rows`` ``[n, W, C]`` as bytes ``[n, 1 + bytes of a row]``, Paeth-filtered; ``above`` is the row before.

    PNG, section 9.4: each byte less that of its neighbours (left, above, above left) nearest to left + above - above
    left.
    """
    pixel = rows.dtype.itemsize * rows.shape[2]
    big_endian = np.concatenate((above, rows)).astype(rows.dtype.newbyteorder(">"), copy=False)
    data = np.ascontiguousarray(big_endian).view(np.uint8).reshape(len(rows) + 1, -1)
    padded = np.zeros((data.shape[0], data.shape[1] + pixel), np.int16)
    padded[:, pixel:] = data
    here, left = padded[1:, pixel:], padded[1:, :-pixel]
    up, corner = padded[:-1, pixel:], padded[:-1, :-pixel]
    by_left, by_up = up - corner, left - corner  # distances of the estimate from left and from above
    by_corner = np.abs(by_left + by_up)
    np.abs(by_left, out=by_left)
    np.abs(by_up, out=by_up)
    nearest = np.where((by_left <= by_up) & (by_left <= by_corner), left, np.where(by_up <= by_corner, up, corner))
    out = np.empty((len(rows), data.shape[1] + 1), np.uint8)
    out[:, 0] = _PAETH
    np.subtract(here, nearest, out=out[:, 1:], casting="unsafe")
    return out


def ancillary(metadata: Metadata) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of the chunks that hold ``metadata``, all of which may stand before the picture."""
    if metadata.icc:
        yield b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)
    yield from metadata.colour.items()
    if metadata.dpi:
        across, down = (round(dpi * _INCHES_PER_METRE) for dpi in metadata.dpi)
        yield b"pHYs", struct.pack(">IIB", across, down, 1)
    if metadata.exif:
        yield b"eXIf", metadata.exif
    if metadata.xmp:
        yield b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp
    if metadata.iptc:  # as ImageMagick and ExifTool write it: PNG itself has no place for IPTC
        digits = metadata.iptc.hex().encode()
        lines = b"\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
        text = b"\niptc\n%8d\n%s\n" % (len(metadata.iptc), lines)
        yield b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(text)
    for keyword, content in metadata.texts.items():
        # Section 11.3.3.1: 1 to 79 bytes; a NUL ends a keyword, and no text may hold one.
        name = keyword.replace("\0", "").encode("latin-1", "replace")[:79].strip() or COMMENT.encode()
        content = content.replace("\0", "")
        try:
            yield b"tEXt", name + b"\0" + content.encode("latin-1")
        except UnicodeEncodeError:
            yield b"iTXt", name + b"\0\0\0\0\0" + content.encode("utf-8", "replace")
