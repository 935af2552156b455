"""Files -> images: eight bits by Pillow, more by ``deep``."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, ImageCms, PngImagePlugin, UnidentifiedImageError
from PIL import Image as PILImage

from upscale.errors import InputError, UnreadableImage, UpscaleError
from upscale.images.animation import composed, gif_parts, png_parts, still
from upscale.images.chunks import chunks
from upscale.images.deep import TURNED_BY_DECODERS, can_be_deep, decode_deep, is_deep, is_deep_avif
from upscale.images.exif import LAYERS
from upscale.images.formats import FORMATS, Several, is_installed, missing_plugin
from upscale.images.image import Image
from upscale.images.metadata import EXTENDED_XMP, Metadata, read_metadata, upright

_SUBFILE_TYPE = 254  # TIFF 6.0, section 8
_READABLE_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB")
_ROWS = {row.name: row for row in FORMATS}
_PARTS = {"GIF": gif_parts, "PNG": png_parts}
_SIGNATURES = {  # of formats that need a plug-in; ISO 14496-12, section 4.3, and ISO 18181-2
    "HEIF": re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.DOTALL),
    "JXL": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "),
}
# Both for the process: Pillow refuses pictures of more than twice this, 89 million by default, where cameras make 400
# million; and a whole PNG for a profile of more than 1 MB, which those of printers may have.
PILImage.MAX_IMAGE_PIXELS = 1 << 28
PngImagePlugin.MAX_TEXT_CHUNK = 1 << 26
_REDUCED = "has more than 8 bits a channel; reduced to 8"


def read_image(path: Path | str) -> Image:
    """Read one picture with all its frames or pages: upright, RGB, with the bit depth of the file.

    Raises:
        InputError: no such file.
        UnsupportedFormat: a format that needs a plug-in.
        UnreadableImage: not an image, damaged, or larger than the pixel limit.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    return decode(data, str(path))


def decode(data: bytes, name: str) -> Image:
    """Read the picture in ``data``, the content of a file that messages call ``name``."""
    if not data:
        raise UnreadableImage(f"{name}: the file is empty")
    _load_plugin(data, name)
    try:
        # Pillow warns at half of the size that it refuses; the refusal is enough.
        with warnings.catch_warnings(action="ignore"), _open(data) as opened:
            return _decode(data, opened, name)
    except UnidentifiedImageError as error:
        raise UnreadableImage(
            f"{name}: not an image, damaged at its beginning, or of a kind that is not supported"
        ) from error
    except PILImage.DecompressionBombError as error:
        raise UnreadableImage(
            f"{name}: claims more than {2 * (PILImage.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels, the limit",
            "cut it into parts first",
        ) from error
    except (UpscaleError, MemoryError):
        raise
    except Exception as error:  # decoders raise anything at all on damaged files
        raise UnreadableImage(f"{name}: damaged or cut short ({_one_line(error)})") from error


def read_size(path: Path) -> tuple[int, int] | None:
    """Return height and width of the first picture of ``path``, upright, by a look at its header.

    None: whatever is wrong with the file is said when its turn comes.
    """
    try:
        with path.open("rb") as file:
            _load_plugin(file.read(32), str(path))
        with warnings.catch_warnings(action="ignore"), PILImage.open(path) as opened:
            lying = _orientation(opened) > 4 and opened.format not in TURNED_BY_DECODERS
            return opened.size if lying else opened.size[::-1]
    except Exception:  # decoders raise anything
        return None


def _orientation(opened: PILImage.Image) -> int:
    """Return what EXIF before the picture says; in PNG, Pillow would decode the picture to look behind it."""
    if opened.format == "PNG" and not {"exif", "Raw profile type exif"} & opened.info.keys():
        return 1
    return int(opened.getexif().get(ExifTags.Base.Orientation, 1))


def suffix_of(data: bytes) -> str:
    """Return the suffix for a file of the content ``data``; what is not known is ``.png``, and refused when read."""
    try:
        _load_plugin(data, "")
        with PILImage.open(io.BytesIO(data)) as opened:
            kind = opened.format
    except Exception:  # whatever is wrong with it is said when it is read
        return ".png"
    return next((row.suffixes[0] for row in FORMATS if row.name == kind), ".png")


def _load_plugin(data: bytes, name: str) -> None:
    """Make Pillow know the format of ``data``, which may be the beginning of a file only."""
    for row in FORMATS:
        if row.name in _SIGNATURES and _SIGNATURES[row.name].match(data) and not is_installed(row):
            raise missing_plugin(name, row)


def _open(data: bytes) -> PILImage.Image:
    """Open the picture in ``data``, its ``info`` with what Pillow leaves out or reads wrongly."""
    opened = PILImage.open(io.BytesIO(data))
    kind, info = opened.format or "", opened.info
    if kind == "JXL" and (xmp := _xmp_box(data)):
        info["xmp"] = xmp
    codes = _colour_codes(data, kind)
    if codes and (kind == "PNG" or not info.get("icc_profile")):  # they count in PNG before a profile
        info["cicp"] = codes
    if kind == "PNG" and opened.mode == "L" and "transparency" in info:
        top = 2 ** data[24] - 1  # of 1 to 8 bits, which become 8
        info["transparency"] = (info["transparency"] & top) * 255 // top
    return opened


def _decode(data: bytes, opened: PILImage.Image, name: str) -> Image:
    kind = opened.format or ""
    notices = _png_notices(data) if kind == "PNG" else []
    count = getattr(opened, "n_frames", 1)
    several = _ROWS[kind].several if kind in _ROWS else Several.NO
    if several is Several.FRAMES and (count > 1 or kind == "GIF"):  # whose only picture may be smaller than it is
        if is_deep(data, opened):
            notices.append("is an animation of 16 bits; reduced to 8")
        if getattr(opened, "default_image", False):
            notices.append("its picture for programs that know no animations is left out")
        frames = _animation(data, opened, count, name)
    elif count > 1 and several is Several.PAGES:
        frames = tuple(_pages(data, opened, count, name))
    else:
        if count > 1:
            notices.append(f"holds {count} pictures; only the first is used")
        frames = (_single(data, opened, name, 0),)
    if (kind == "AVIF" and is_deep_avif(data)) or (kind == "HEIF" and opened.info.get("bit_depth", 8) > 8):
        notices.append(_REDUCED)
    if _is_oblong(opened):
        notices.append("that its pixels are not square is left out")
    tags = getattr(opened, "tag_v2", {})
    if LAYERS in tags:
        notices.append("its layers are left out")
    if 0 in tags.get(ExifTags.Base.ExtraSamples, ()):
        notices.append("a channel of unknown meaning is left out")
    if EXTENDED_XMP in (frames[0].metadata.xmp or b""):
        notices.append("what its XMP says in further segments is left out")
    lossy = kind in ("JPEG", "MPO", "AVIF", "HEIF") or (kind == "WEBP" and _is_lossy_webp(data))
    return replace(frames[0], following=frames[1:], lossy=lossy, notices=(*frames[0].notices, *notices))


def _is_oblong(opened: PILImage.Image) -> bool:
    """Tell whether pixels across and down are given for one length that has no unit, and differ.

    With a unit, that is a resolution, and is kept.
    """
    info = opened.info
    sides: Any = info.get("aspect", (1, 1))
    if info.get("jfif_unit") == 0:
        sides = info.get("jfif_density", sides)
    elif getattr(opened, "tag_v2", {}).get(ExifTags.Base.ResolutionUnit) == 1:
        sides = info.get("resolution", sides)
    try:
        across, down = (float(side) for side in sides)
    except (TypeError, ValueError, ArithmeticError):  # tags can be of any type
        return False
    return abs(across - down) > 0.01 * max(across, down)  # not, either, if one is not a number


def _png_notices(data: bytes) -> list[str]:
    """Return what is left out of a PNG, and look at all of it; damage is a ValueError."""
    notices = []
    texts = {content for chunk, content in chunks(data) if chunk in (b"tEXt", b"zTXt", b"iTXt")}
    if len({text.partition(b"\0")[0] for text in texts}) < len(texts):
        notices.append("of its texts with the same keyword, only the last is kept")
    return notices


def _animation(data: bytes, opened: PILImage.Image, count: int, name: str) -> tuple[Image, ...]:
    """Read every frame as it is shown, with its duration."""
    if opened.format == "PNG":  # which Pillow would play to look for more behind it
        with _open(still(data)) as picture:
            metadata, orientation = read_metadata(picture)
    else:
        metadata, orientation = read_metadata(opened)
    shown = list(_frames(data, opened, count, name))
    opaque = all(frame.alpha is None or frame.alpha.min() == 255 for frame in shown)
    grayscale = all(frame.grayscale for frame in shown)
    loop = opened.info.get("loop", None if _ROWS[opened.format or ""].timing.loops else 0)
    return tuple(
        Image(
            pixels=np.ascontiguousarray(upright(frame.pixels, orientation)),
            alpha=None if frame.alpha is None or opaque else np.ascontiguousarray(upright(frame.alpha, orientation)),
            grayscale=grayscale,
            metadata=metadata,
            duration=frame.duration if len(shown) > 1 else None,
            loop=loop if len(shown) > 1 else None,
        )
        for frame in shown
    )


def _frames(data: bytes, opened: PILImage.Image, count: int, name: str) -> Iterator[Image]:
    """Yield every frame as it is shown but for its orientation, with its duration; uint8, with alpha."""
    if opened.format in _PARTS:
        parts = _PARTS[opened.format](data)
        yield from composed(((part, _alone(part.file, name)) for part in parts), *opened.size[::-1])
        return
    for index in range(count):
        opened.seek(index)
        pixels = np.asarray(opened.convert("RGBA"))
        yield Image(pixels=pixels[..., :3], alpha=pixels[..., 3], duration=float(opened.info.get("duration", 0) or 0))


def _alone(data: bytes, name: str) -> Image:
    with _open(data) as opened:
        return _single(data, opened, name, 0)


def _pages(data: bytes, opened: PILImage.Image, count: int, name: str) -> Iterator[Image]:
    for index in range(count):
        opened.seek(index)
        reduced = int(opened.tag_v2.get(_SUBFILE_TYPE, 0)) & 1  # type: ignore[attr-defined]
        if index == 0 or not reduced:  # a thumbnail or a level of a pyramid is no page
            yield _single(data, opened, name, index)


def _single(data: bytes, opened: PILImage.Image, name: str, index: int) -> Image:
    """Read the picture at which ``opened`` stands, the ``index``th of its file."""
    if not is_deep(data, opened):
        return _eight_bit(opened, name)
    if not can_be_deep(data, opened):
        image = _eight_bit(opened, name)
        return replace(image, notices=(*image.notices, _REDUCED))
    return decode_deep(data, opened, name, index)


def _xmp_box(data: bytes) -> bytes | None:
    """Return the XMP of a JPEG XL container: ISO/IEC 18181-2, section 9."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"xml ":
            return data[at + 8 : at + size if size else None]
        if size < 8:  # up to the end of the file, or longer than 4 GB
            return None
        at += size
    return None


def _colour_codes(data: bytes, kind: str) -> bytes | None:
    """Return what a PNG, an AVIF or a HEIC says of its primaries and its curve in the codes of ITU-T H.273."""
    if kind == "PNG":
        found = re.search(rb"\0\0\0\x04cICP(.)(.)", data[: data.find(b"IDAT")], re.DOTALL)  # PNG, section 11.3.2.6
    elif kind in ("AVIF", "HEIF"):
        found = re.search(rb"colrnclx\0(.)\0(.)", data, re.DOTALL)  # ISO 14496-12, section 12.1.5
    else:
        return None
    return b"".join(found.groups()) if found else None


def _is_lossy_webp(data: bytes, at: int = 12) -> bool:
    """Tell by the chunk of the first picture whether it is compressed with loss: WebP container, RFC 9649."""
    while at + 8 <= len(data):
        name, size = struct.unpack("<4sI", data[at : at + 8])
        if name in (b"VP8 ", b"VP8L"):
            return bool(name == b"VP8 ")
        at += 24 if name == b"ANMF" else 8 + size + size % 2  # a frame has a header, then chunks of its own
    return False


def _eight_bit(opened: PILImage.Image, name: str) -> Image:
    notices = []
    metadata, orientation = read_metadata(opened)
    if opened.mode not in _READABLE_MODES:
        raise UnreadableImage(
            f"{name}: pictures of mode {opened.mode} are not supported", "save it with 8 or 16 bits a channel"
        )
    opened.load()
    kind = opened.format  # a converted picture has none
    if opened.mode == "La":
        opened = opened.convert("LA")  # Pillow converts it to nothing else
    grayscale = opened.mode in ("1", "L", "LA")
    if opened.mode in ("CMYK", "LAB"):
        notices.append(f"{opened.mode} is converted to sRGB{'' if metadata.icc else ', without a profile'}")
        opened = _to_srgb(opened, metadata)
        metadata = replace(metadata, icc=None)  # it describes inks, not the result
    mode = "RGBA" if opened.has_transparency_data else "RGB"
    pixels = np.asarray(opened.convert(mode))
    if kind not in TURNED_BY_DECODERS:
        pixels = upright(pixels, orientation)
    return Image(
        pixels=np.ascontiguousarray(pixels[..., :3]),
        alpha=np.ascontiguousarray(pixels[..., 3]) if mode == "RGBA" else None,
        grayscale=grayscale,
        metadata=metadata,
        notices=tuple(notices),
    )


def _to_srgb(opened: PILImage.Image, metadata: Metadata) -> PILImage.Image:
    """Convert through the picture's own profile where it has one."""
    if opened.mode == "LAB":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    elif metadata.icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(metadata.icc))
        except (OSError, ImageCms.PyCMSError):
            return opened.convert("RGB")
    else:
        return opened.convert("RGB")
    try:
        converted = ImageCms.profileToProfile(opened, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError:
        converted = None
    return converted or opened.convert("RGB")


def _one_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
