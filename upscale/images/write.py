"""Images -> files: PNG and TIFF by this package, the other formats by Pillow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL.PngImagePlugin import PngInfo

from upscale.errors import UnsupportedFormat
from upscale.files import replacing, said_of
from upscale.images.exif import EXIF_HEADER
from upscale.images.formats import ImageFormat, Several, Transparency, format_of
from upscale.images.image import WHITE, Colour, Image, Pixels
from upscale.images.metadata import COMMENT, LEAST_DPI, Metadata
from upscale.images.png import ancillary, write_png
from upscale.images.tiff import TiffPage, write_tiff

LARGE = 1 << 28
"""Bytes of a result above which it is written as it comes, in the formats that can, and never whole in memory."""
_BIG_TIFF = 2**32 - 2**26  # bytes; what compression does not shrink and the metadata must fit below 4 GB


def write_image(
    path: Path | str, image: Image, *, quality: int | None = None, background: Colour | None = None
) -> tuple[str, ...]:
    """Write ``image`` in the format of the suffix of ``path``, under its name only when it is whole.

    ``quality`` 1 to 100 asks for lossy compression of that quality where the format has it; ``background`` is what
    shows through transparent pixels where the format has none. Returns notices about what the format could not hold.

    Raises:
        UnsupportedFormat: no such format, or a picture too large for it.
        DiskFull: no room for the file.
        InputError: the file cannot be written.
    """
    path = Path(path)
    row = format_of(path)
    for frame in image.frames:
        check_size(str(path), row, *frame.pixels.shape[:2])
    frames, notices = _fit(image, row, background)
    with said_of(path), replacing(path) as temporary:
        _WRITERS.get(row.name, _write_with_pillow)(temporary, frames, row, quality)
    return notices


def write_bands(path: Path | str, like: Image, height: int, width: int, bands: Iterable[Pixels]) -> tuple[str, ...]:
    """Write ``bands`` ``[n, width, 3]`` from top to bottom, as they come, as a picture ``like`` another one.

    ``like`` is one frame without alpha, whose metadata, depth and greyness the picture takes; see ``can_stream`` for
    which formats. Returns and raises what ``write_image`` does.
    """
    path = Path(path)
    row = format_of(path)
    check_size(str(path), row, height, width)
    metadata, lost = _fit_metadata(like, row, height, width)
    planes = (band[..., :1] if like.grayscale else band for band in bands)
    with said_of(path), replacing(path) as temporary, temporary.open("wb") as file:
        if row.name == "PNG":
            write_png(file, height, width, planes, metadata)
        else:
            size = height * width * (1 if like.grayscale else 3) * like.pixels.itemsize
            write_tiff(file, [TiffPage(height, width, planes, metadata)], big=size > _BIG_TIFF)
    return tuple(lost)


def can_stream(path: Path, image: Image) -> bool:
    """Tell whether a picture like ``image`` can be written to ``path`` row by row."""
    return takes_bands(format_of(path)) and image.alpha is None and not image.following


def takes_bands(row: ImageFormat) -> bool:
    """Tell whether opaque single pictures can be written row by row in this format."""
    return row.name in _WRITERS


def check_size(name: str, row: ImageFormat, height: int, width: int) -> None:
    """Raise UnsupportedFormat if ``row`` cannot hold a picture of ``height`` by ``width``."""
    if max(height, width) > row.longest:
        raise UnsupportedFormat(
            f"{name}: {width}x{height} is more than the {row.longest} pixels that {row.name} holds",
            "write PNG or TIFF: --format png",
        )


def held_by(row: ImageFormat, image: Image) -> Image:
    """Return ``image``, or of several frames or pages that the format cannot hold the first, with a notice."""
    kind = _kind(image)
    if kind is Several.NO or row.several is kind:
        return image
    told = f"{row.name} cannot hold {kind.value}; only the first of {len(image.frames)} is written"
    return replace(image, following=(), notices=(*image.notices, told))


def _kind(image: Image) -> Several:
    return Several.NO if not image.following else Several.PAGES if image.duration is None else Several.FRAMES


def _fit(image: Image, row: ImageFormat, background: Colour | None) -> tuple[tuple[Image, ...], tuple[str, ...]]:
    """Reduce ``image`` to frames that the format holds, and say what that costs."""
    held = held_by(row, image)
    notices = dict.fromkeys(held.notices[len(image.notices) :])  # in order, each once
    kind = _kind(held)
    fitted = []
    for frame in held.frames:
        if frame.pixels.dtype == np.uint16 and not (row.deep and kind is not Several.FRAMES):
            notices[f"{row.name} has no 16 bits; reduced to 8"] = None
            frame = frame.in_eight_bits()
        if frame.alpha is not None and row.transparency is Transparency.NONE:
            if background is None:
                notices[f"{row.name} has no transparency; laid on white (--background takes another colour)"] = None
            frame = frame.laid_on(background or WHITE)
        elif frame.alpha is not None and row.transparency is Transparency.BINARY:
            notices[f"{row.name} has no partial transparency"] = None
            frame = replace(frame, alpha=np.where(frame.alpha < 128, 0, 255).astype(np.uint8))
        if frame.alpha is not None and frame.pixels.itemsize * 8 > row.gray_alpha:
            frame = replace(frame, grayscale=False)
        if row.colours is not None:
            notices[f"{row.name} has {row.colours} colours a frame; --format png keeps all"] = None
        metadata, lost = _fit_metadata(frame, row, *frame.pixels.shape[:2])
        notices |= dict.fromkeys(lost)
        fitted.append(replace(frame, metadata=metadata))
    if kind is row.several is Several.FRAMES:
        fitted, lost = _fit_timing(fitted, row)
        notices |= dict.fromkeys(lost)
    return tuple(fitted), tuple(notices)


def _fit_metadata(frame: Image, row: ImageFormat, height: int, width: int) -> tuple[Metadata, list[str]]:
    """Return the metadata of ``frame`` as the format takes it, and what is lost."""
    metadata = frame.metadata.resized(height, width)
    lost = []
    if frame.metadata.exif and not metadata.exif:
        lost.append("its EXIF is damaged, so it is left out")
    if metadata.dpi and not all(LEAST_DPI <= dpi <= row.highest_dpi for dpi in metadata.dpi):
        lost.append(f"{row.name} cannot hold a resolution of {metadata.dpi[0]:g} by {metadata.dpi[1]:g} dpi")
        metadata = replace(metadata, dpi=None)
    if "dpi" not in row.holds and "exif" in row.holds:
        metadata = metadata.dpi_in_exif()
    elif metadata.dpi and "dpi" not in row.holds:
        lost.append(f"{row.name} has no place for the resolution")
    if metadata.icc and metadata.icc[16:20] == b"GRAY" and not (row.gray and frame.grayscale):
        lost.append("its profile for grey is left out, as the result is in colour")
        metadata = replace(metadata, icc=None)
    for name in ("icc", "exif", "xmp", "iptc"):
        block = getattr(metadata, name)
        if not block:
            continue
        if name not in row.holds:
            lost.append(f"{row.name} has no place for {name.upper()}")
        elif name == "icc" or not row.largest_block or len(block) <= row.largest_block:
            continue
        else:
            lost.append(f"{name.upper()} of {len(block)} bytes is too long for {row.name}")
        cleared: dict[str, Any] = {name: None}
        metadata = replace(metadata, **cleared)
    if "texts" not in row.holds:
        comment = metadata.texts.get(COMMENT, "") if "comment" in row.holds else ""
        kept = {COMMENT: comment} if 0 < len(comment.encode("utf-8", "replace")) <= (row.largest_block or 2**31) else {}
        if left := [keyword for keyword in metadata.texts if keyword not in kept]:
            lost.append(f"{row.name} has no place for {_listed(left)}")
        metadata = replace(metadata, texts=kept)
    if metadata.unusual and not metadata.icc and "colour" not in row.holds:
        lost.append(f"{row.name} has no place for gamma and primaries other than sRGB's; colours will look different")
    return metadata, lost


def _fit_timing(frames: Sequence[Image], row: ImageFormat) -> tuple[list[Image], list[str]]:
    """Return ``frames`` timed as the format counts, such that no error adds up, and what is lost."""
    timing, lost = row.timing, []
    times = [frame.duration or 0 for frame in frames]
    if min(times) < timing.shortest:
        lost.append(f"{row.name} shows a frame for {timing.shortest} ms at least")
    if max(times) > timing.longest:
        lost.append(f"{row.name} shows a frame for {timing.longest / 1000:g} s at most")
    loop = frames[0].loop
    plays = 1 if loop is None else loop
    if plays > timing.loops:
        lost.append(f"{row.name} has no place for how often it plays: {plays}")
        loop = timing.loops
    fitted, late = [], 0.0
    for frame, time in zip(frames, times, strict=True):
        time = min(max(time, timing.shortest), timing.longest)
        ticks = round((time + late) / timing.tick) * timing.tick if timing.tick else _fraction(time + late)
        late += time - ticks
        fitted.append(replace(frame, duration=min(ticks, timing.longest), loop=loop))
    return fitted, lost


def _fraction(time: float) -> float:
    """Return the milliseconds nearest to ``time`` that are a fraction of a second of two numbers of sixteen bits."""
    seconds = time / 1000
    return float(1000 * Fraction(seconds).limit_denominator(max(1, int(65_535 / max(1, seconds)))))


def _listed(keywords: Sequence[str]) -> str:
    """Return the first of ``keywords`` of texts, in words for a notice."""
    more = f" and {len(keywords) - 3} more" if len(keywords) > 3 else ""
    return f"the text{'s' * (len(keywords) > 1)} {', '.join(keywords[:3])}{more}"


def _channels(frame: Image) -> Pixels:
    """Return ``[H, W, C]``: grey or RGB, then alpha."""
    planes = frame.pixels[..., :1] if frame.grayscale else frame.pixels
    return planes if frame.alpha is None else np.concatenate((planes, frame.alpha[..., None]), 2)


def _write_png(path: Path, frames: tuple[Image, ...], row: ImageFormat, quality: int | None) -> None:
    if len(frames) > 1:
        _write_with_pillow(path, frames, row, quality)
        return
    height, width = frames[0].pixels.shape[:2]
    with path.open("wb") as file:
        write_png(file, height, width, [_channels(frames[0])], frames[0].metadata)


def _write_tiff(path: Path, frames: tuple[Image, ...], row: ImageFormat, quality: int | None) -> None:
    del row, quality  # the same for all
    channels = [_channels(frame) for frame in frames]
    pages = [
        TiffPage(part.shape[0], part.shape[1], [part], frame.metadata)
        for part, frame in zip(channels, frames, strict=True)
    ]
    with path.open("wb") as file:
        write_tiff(file, pages, big=sum(part.nbytes for part in channels) > _BIG_TIFF)


def _write_with_pillow(path: Path, frames: tuple[Image, ...], row: ImageFormat, quality: int | None) -> None:
    pictures = [_picture(frame) for frame in frames]
    options = _options(frames[0], row, quality)
    if len(frames) > 1:
        durations = [frame.duration for frame in frames]
        options |= {"save_all": True, "append_images": pictures[1:], "duration": durations}
        if row.name != "GIF" or frames[0].loop is not None:  # a GIF without a number plays once
            options["loop"] = 1 if frames[0].loop is None else frames[0].loop
        if row.name == "GIF" and frames[0].alpha is not None:
            options["disposal"] = 2  # each frame is whole: the one before is cleared
    try:
        pictures[0].save(path, row.name, **options)
    except (ValueError, RuntimeError, OverflowError) as error:
        raise OSError(f"{row.name}: {error}") from error


def _picture(frame: Image) -> PILImage.Image:
    pixels = frame.pixels[..., 0] if frame.grayscale else frame.pixels
    picture = PILImage.fromarray(np.ascontiguousarray(pixels))
    if frame.alpha is not None:
        picture.putalpha(PILImage.fromarray(frame.alpha))
    return picture


def _options(frame: Image, row: ImageFormat, quality: int | None) -> dict[str, Any]:
    if row.lossy is not None and (row.lossless is None or quality is not None or frame.lossy):
        options = dict(row.lossy) if quality is None else {**row.lossy, "quality": quality}
    else:
        options = dict(row.lossless or {})
    kept = frame.metadata
    if kept.icc:
        options["icc_profile"] = kept.icc
    if kept.exif:
        options["exif"] = EXIF_HEADER + kept.exif
    if kept.xmp:
        options["xmp"] = kept.xmp
    if kept.dpi and "dpi" in row.holds:
        options["dpi"] = kept.dpi
    if row.name == "PNG":
        options["pnginfo"] = chunks = PngInfo()
        for name, data in ancillary(replace(kept, icc=None, exif=None, dpi=None)):
            chunks.add(name, data)
        return options
    if comment := kept.texts.get(COMMENT):
        options["comment"] = comment.encode("utf-8", "replace")
    if kept.iptc:  # JPEG, the only one left that holds it: in a segment of Photoshop's
        resource = b"8BIM\x04\x04\0\0" + len(kept.iptc).to_bytes(4, "big") + kept.iptc + bytes(len(kept.iptc) % 2)
        segment = b"Photoshop 3.0\0" + resource
        options["extra"] = b"\xff\xed" + (len(segment) + 2).to_bytes(2, "big") + segment
    return options


_WRITERS: dict[str, Callable[[Path, tuple[Image, ...], ImageFormat, int | None], None]] = {
    "PNG": _write_png,
    "TIFF": _write_tiff,
}
