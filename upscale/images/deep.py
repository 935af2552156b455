"""Pictures of more than 8 bits a channel: OpenCV decodes them, Pillow would reduce colour to 8 without a word."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image as PILImage

from upscale.errors import UnreadableImage
from upscale.images.image import Image, Pixels
from upscale.images.metadata import read_metadata, upright

TURNED_BY_DECODERS = ("TIFF",)
"""Formats that decoders turn themselves: Pillow shows the size upright from the start, and the pixels once they are
loaded; OpenCV turns them whatever its flags say."""
# TIFF 6.0, section 8:
_BITS_PER_SAMPLE, _PHOTOMETRIC, _STRIP_OFFSETS, _SAMPLES_PER_PIXEL = 258, 262, 273, 277
_STRIP_LENGTHS, _PLANAR, _TILE_OFFSETS, _TILE_LENGTHS, _EXTRA_SAMPLES = 279, 284, 324, 325, 338
_OF_EACH_PLANE = (256, 257, 259, 266, 274, 278, 317, 322, 323)
"""Tags of TIFF that are the same for a plane: size, compression, order of bits, orientation, rows of a strip,
predictor, size of a tile."""
_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"  # between two values: Netpbm, ppm(5)
_PPM = re.compile(rb"(P[2356])" + 3 * (_GAP + rb"(\d+)") + rb"\s")


def is_deep(data: bytes, opened: PILImage.Image) -> bool:
    """Tell from the header, never from the values, whether the file has more than 8 bits a channel."""
    if opened.format == "PNG":
        return data[24] == 16  # bit depth: PNG, section 11.2.1
    if opened.format == "TIFF":
        bits = opened.tag_v2.get(_BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]
        return 16 in (bits if isinstance(bits, tuple) else (bits,))
    if opened.format == "PPM":
        return _maximum(data) > 255
    if opened.format == "JPEG2000":
        return any((size & 0x7F) >= 8 for size, _, _ in _components(data))
    return opened.mode.startswith("I;16")


def can_be_deep(data: bytes, opened: PILImage.Image) -> bool:
    """Tell whether OpenCV decodes all bits of what has more than 8: neither inks nor subsampled or signed channels."""
    if opened.format == "JPEG2000":
        components = _components(data)
        plain = len({size for size, _, _ in components}) == 1 and all(part[1:] == (1, 1) for part in components)
        return plain and components[0][0] < 16 and opened.mode in ("I;16", "RGB", "RGBA")
    return opened.mode != "CMYK"


def decode_deep(data: bytes, opened: PILImage.Image, name: str, index: int) -> Image:
    """Read picture ``index`` of a file that ``can_be_deep``, at which ``opened`` stands, with all its bits: uint16.

    Raises:
        UnreadableImage: a kind that OpenCV does not decode, or damage.
    """
    metadata, orientation = read_metadata(opened)
    if opened.format == "JXL":  # which OpenCV does not know; its plug-in has 16 bits for grey alone
        array = np.asarray(opened)
    elif opened.format == "TIFF" and opened.tag_v2.get(_PLANAR) == 2:  # type: ignore[attr-defined]
        array = np.dstack([_decoded(plane, name, 0) for plane in _planes(data, opened)])
    else:
        array = _decoded(_plain(data), name, index)
    if opened.format not in TURNED_BY_DECODERS:
        array = upright(array, orientation)
    grayscale = _is_gray(data, opened, array)
    pixels, alpha = array[..., :3], array[..., 3] if array.ndim == 3 and array.shape[2] == 4 else None
    if array.ndim == 2:
        pixels = np.repeat(array[..., None], 3, 2)
    if opened.format == "TIFF":
        pixels, alpha = _as_tagged(opened, pixels, alpha)
    elif opened.format == "PPM":
        pixels = _stretched(pixels, _maximum(data))
    elif opened.format == "JPEG2000":
        top = 2 ** (_components(data)[0][0] + 1) - 1
        pixels, alpha = _stretched(pixels, top), None if alpha is None else _stretched(alpha, top)
    elif grayscale and isinstance(level := opened.info.get("transparency"), int):  # PNG; OpenCV does it for colour
        alpha = np.where(pixels[..., 0] == level, 0, 65_535).astype(np.uint16)
    return Image(
        pixels=np.ascontiguousarray(pixels),
        alpha=None if alpha is None else np.ascontiguousarray(alpha),
        grayscale=grayscale,
        metadata=metadata,
    )


def _decoded(data: bytes, name: str, index: int) -> Pixels:
    """Return picture ``index`` as OpenCV decodes it, but RGB: uint16 ``[H, W]`` or ``[H, W, C]``."""
    import cv2  # few pictures need it

    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    _, decoded = cv2.imdecodemulti(np.frombuffer(data, np.uint8), flags, range=(index, index + 1))
    if not decoded or decoded[0].dtype != np.uint16:
        raise UnreadableImage(f"{name}: damaged, or a kind of 16-bit picture that is not supported")
    array = decoded[0]
    return array if array.ndim == 2 else array[..., [2, 1, 0, 3][: array.shape[2]]]


def _planes(data: bytes, opened: PILImage.Image) -> Iterator[bytes]:
    """Yield a file for each channel of a TIFF that stores them one after the other, which OpenCV reads wrongly.

    It is the same file, with a directory at its end that describes a grey picture in the strips of this channel.
    """
    tags = opened.tag_v2  # type: ignore[attr-defined]
    big = data[2:3] == b"+"  # BigTIFF has 8 bytes where TIFF has 4
    code, kind, start = ("Q", 16, 8) if big else ("I", 4, 4)
    order = ">" if data[:1] == b"M" else "<"
    count = tags[_SAMPLES_PER_PIXEL]
    for channel in range(count):
        fields = {tag: (tags[tag],) for tag in _OF_EACH_PLANE if tag in tags}
        fields |= {_BITS_PER_SAMPLE: (16,), _PHOTOMETRIC: (1,), _SAMPLES_PER_PIXEL: (1,)}
        for tag in (_STRIP_OFFSETS, _STRIP_LENGTHS, _TILE_OFFSETS, _TILE_LENGTHS):
            if tag in tags:
                each = len(tags[tag]) // count
                fields[tag] = tags[tag][channel * each : (channel + 1) * each]
        head = struct.pack(order + ("Q" if big else "H"), len(fields))
        entries, lists = b"", b""
        after = len(data) + len(head) + len(fields) * (4 + 2 * start) + start
        for tag, values in sorted(fields.items()):
            value = struct.pack(f"{order}{len(values)}{code}", *values)
            if len(values) > 1:
                lists += value
                value = struct.pack(order + code, after + len(lists) - len(value))
            entries += struct.pack(f"{order}HH{code}", tag, kind, len(values)) + value
        first = struct.pack(order + code, len(data))
        yield data[:start] + first + data[2 * start :] + head + entries + bytes(start) + lists


def _as_tagged(opened: PILImage.Image, pixels: Pixels, alpha: Pixels | None) -> tuple[Pixels, Pixels | None]:
    """Return what OpenCV read of a TIFF as its tags mean it: white at 0, premultiplied, no alpha."""
    tags = opened.tag_v2  # type: ignore[attr-defined]
    if tags.get(_PHOTOMETRIC) == 0:
        pixels = 65_535 - pixels
    extra = tags.get(_EXTRA_SAMPLES, ())
    if alpha is None or 0 in extra:
        return pixels, None
    if 1 in extra:
        divisor = np.maximum(alpha, 1).astype(np.uint32)[..., None]
        pixels = np.minimum((pixels * np.uint32(65_535) + divisor // 2) // divisor, 65_535).astype(np.uint16)
    return pixels, alpha


def _stretched(plane: Pixels, top: int) -> Pixels:
    """Return ``plane``, in which ``top`` is the full level, with 65535 for it."""
    levels = np.minimum(plane, top).astype(np.uint32)
    return ((levels * 65_535 + top // 2) // top).astype(np.uint16)


def _is_gray(data: bytes, opened: PILImage.Image, array: Pixels) -> bool:
    if opened.format == "PNG":
        return data[25] in (0, 4)  # colour type: PNG, section 11.2.1; Pillow opens 16-bit grey with alpha as RGBA
    return array.ndim == 2


def _maximum(data: bytes) -> int:
    """Return the value that stands for white in a PPM or PGM."""
    header = _PPM.match(data)
    return int(header[4]) if header else 255


def _plain(data: bytes) -> bytes:
    """Return ``data`` with a plain header and end if it is a PPM or PGM.

    OpenCV stumbles over comments, and over a last number that no space follows.
    """
    header = _PPM.match(data)
    return b"%b %b %b %b\n" % header.groups() + data[header.end() :] + b"\n" if header else data


def _components(data: bytes) -> list[tuple[int, int, int]]:
    """Return bits less one (with 128 for a sign) and steps across and down of each channel of a JPEG 2000.

    ISO/IEC 15444-1, A.5.1: the SIZ segment follows the start of the codestream at once.
    """
    at = data.find(b"\xff\x4f\xff\x51") + 40
    (count,) = struct.unpack(">H", data[at : at + 2])
    return list(struct.iter_unpack("3B", data[at + 2 : at + 2 + 3 * count]))


def is_deep_avif(data: bytes) -> bool:
    """Tell whether an AVIF has more than the 8 bits that its decoder gives."""
    at = data.find(b"av1C")  # AV1 codec configuration: its third byte holds high_bitdepth
    return at >= 0 and bool(data[at + 6] & 0x40)
