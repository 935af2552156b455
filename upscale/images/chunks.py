"""The chunks that a PNG file is made of: PNG, section 5."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PICTURE = frozenset((b"IHDR", b"PLTE", b"IDAT", b"fcTL", b"fdAT"))


def packed(name: bytes, content: bytes) -> bytes:
    """Return a chunk as it stands in a file."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each chunk of the PNG ``data``, up to its end or to where it is cut short.

    Raises:
        ValueError: a chunk of the picture is not what its checksum says; of most, Pillow does not look at it.
    """
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        content, check = data[at + 8 : end], data[end : end + 4]
        if name in _PICTURE and len(check) == 4 and zlib.crc32(content, zlib.crc32(name)) != int.from_bytes(check):
            raise ValueError(f"the checksum of {name.decode()} is wrong")
        if name == b"IEND":
            return
        yield name, content
        at = end + 4
