"""Animations of GIF and PNG, frame by frame and as browsers show them.

Pillow can do neither: it mixes colours with what shines through them, clears to a colour what should become
transparent, and forgets palettes. Here, each frame becomes a file of its own, which is read like any other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from PIL import Image as PILImage

from upscale.images.chunks import SIGNATURE, chunks, packed
from upscale.images.image import Image, Pixels


class Dispose(IntEnum):
    """What becomes of the place of a frame before the next one is drawn: PNG, section 11.3.6.2."""

    NONE = 0
    BACKGROUND = 1
    """It becomes transparent."""
    PREVIOUS = 2
    """It becomes what it was before this frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a frame draws."""

    file: bytes
    """A picture of its own."""
    top: int
    left: int
    duration: float
    """Milliseconds."""
    dispose: Dispose
    over: bool = True
    """Whether what is there shines through; otherwise it is replaced, transparency and all."""


def composed(parts: Iterable[tuple[Part, Image]], height: int, width: int) -> Iterator[Image]:
    """Yield ``[height, width]`` as it is shown after each part, given with its picture; uint8, with alpha."""
    pixels, alpha = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    for part, picture in parts:
        picture = picture.in_eight_bits()
        colours, opacity = (plane[part.top :, part.left :] for plane in (pixels, alpha))  # the place that is drawn to
        h, w = (min(pair) for pair in zip(opacity.shape, picture.pixels.shape, strict=False))
        colours, opacity = colours[:h, :w], opacity[:h, :w]
        drawn, seen = picture.pixels[:h, :w], None if picture.alpha is None else picture.alpha[:h, :w]
        before = (colours.copy(), opacity.copy()) if part.dispose is Dispose.PREVIOUS else (0, 0)
        if part.over and seen is not None:
            drawn, seen = _over(drawn, seen, colours, opacity)
        colours[:], opacity[:] = drawn, 255 if seen is None else seen
        yield replace(picture, pixels=pixels.copy(), alpha=alpha.copy(), duration=part.duration)
        if part.dispose is not Dispose.NONE:
            colours[:], opacity[:] = before


def _over(colours: Pixels, opacity: Pixels, below: Pixels, its_opacity: Pixels) -> tuple[Pixels, Pixels]:
    """Return colours and opacity of one picture laid over another, all uint8."""
    back, front = (PILImage.fromarray(np.dstack(planes)) for planes in ((below, its_opacity), (colours, opacity)))
    both = np.asarray(PILImage.alpha_composite(back, front))
    return both[..., :3], both[..., 3]


def png_parts(data: bytes) -> Iterator[Part]:
    """Yield the frames of an animated PNG: section 11.3.6.

    Raises:
        ValueError: frames are missing or not in order.
    """
    depth = colours = b""  # what tells how to read pixels
    frames: list[tuple[bytes, list[bytes]]] = []
    count = number = 0
    for name, content in chunks(data):
        if name in (b"fcTL", b"fdAT"):
            if int.from_bytes(content[:4]) != number:
                raise ValueError("frames that are not in order")
            number += 1
        if name == b"acTL":
            count = int.from_bytes(content[:4])
        elif name == b"IHDR":
            depth = content[8:]
        elif name in (b"PLTE", b"tRNS"):
            colours += packed(name, content)
        elif name == b"fcTL":
            frames.append((content, []))
        elif name == b"fdAT" or (name == b"IDAT" and frames):  # a picture before the first frame is none of them
            frames[-1][1].append(content[4:] if name == b"fdAT" else content)
    if len(frames) < count:
        raise ValueError(f"{len(frames)} of {count} frames")
    for control, pixels in frames[:count]:
        left, top, delay, unit, dispose, blend = struct.unpack_from(">2I2H2B", control, 12)
        header = packed(b"IHDR", control[4:12] + depth)
        yield Part(
            file=SIGNATURE + header + colours + packed(b"IDAT", b"".join(pixels)) + packed(b"IEND", b""),
            top=top,
            left=left,
            duration=1000 * delay / (unit or 100),
            dispose=Dispose(dispose),
            over=blend == 1,
        )


def still(data: bytes) -> bytes:
    """Return an animated PNG without its animation."""
    kept = (packed(name, content) for name, content in chunks(data) if name not in (b"acTL", b"fcTL", b"fdAT"))
    return b"".join((SIGNATURE, *kept, packed(b"IEND", b"")))


def gif_parts(data: bytes) -> Iterator[Part]:
    """Yield the pictures of a GIF: GIF89a, sections 17 to 26."""
    first = 13 + _table(data[10])
    at, control = first, bytes(4)
    while at < len(data) and data[at] != 0x3B:  # the end
        if data[at] == 0x21:  # an extension
            if data[at + 1] == 0xF9:
                control = data[at + 3 : at + 7]
            at = _behind_blocks(data, at + 2)
        elif data[at] == 0x2C:  # a picture
            left, top = struct.unpack_from("<2H", data, at + 1)
            size = data[at + 5 : at + 9]
            end = _behind_blocks(data, at + 11 + _table(data[at + 9]))
            flags, delay = struct.unpack_from("<BH", control)
            described = b"!\xf9\4" + control + b"\0," + bytes(4) + data[at + 5 : end]
            yield Part(
                file=data[:6] + size + data[10:first] + described,
                top=top,
                left=left,
                duration=10.0 * delay if delay > 1 else 100.0,  # as browsers do
                dispose=Dispose(min(max((flags >> 2 & 7) - 1, 0), 2)),  # counted from 1 there
            )
            at, control = end, bytes(4)
        else:  # decoders pass over it
            at += 1


def _table(flags: int) -> int:
    """Return the bytes of the colour table that is told of by ``flags``."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _behind_blocks(data: bytes, at: int) -> int:
    """Return where the blocks that begin at ``at``, each with its length before it, have ended."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1
