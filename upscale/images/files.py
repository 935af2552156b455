"""Read and write one picture file.

Pillow does eight bits, OpenCV sixteen: Pillow reduces 16-bit colour to eight bits without a word.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, ImageCms, UnidentifiedImageError
from PIL import Image as PILImage

from upscale.errors import InputError, UnreadableImage, UnsupportedFormat, UpscaleError
from upscale.files import replacing
from upscale.images.formats import ImageFormat, format_of
from upscale.images.image import Image, Pixels
from upscale.images.metadata import EXIF_HEADER, Metadata, exif_for, upright, xmp_upright

_BITS_PER_SAMPLE = 258  # TIFF 6.0, section 8


def read_image(path: Path | str) -> Image:
    """Read one picture: upright, RGB, with the bit depth of the file.

    Raises:
        InputError: no such file.
        UnreadableImage: not an image, damaged, or larger than the pixel limit.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    if not data:
        raise UnreadableImage(f"{path}: the file is empty")
    try:
        # Pillow warns at half of the size that it refuses; the refusal is enough.
        with warnings.catch_warnings(action="ignore"), PILImage.open(io.BytesIO(data)) as opened:
            return _deep(data, opened, path) if _is_deep(data, opened) else _eight_bit(opened)
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"{path}: not an image, or of a kind that is not supported") from error
    except PILImage.DecompressionBombError as error:
        raise UnreadableImage(
            f"{path}: claims more than {2 * (PILImage.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels, the limit",
            "cut it into parts first",
        ) from error
    except UpscaleError:
        raise
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        zlib.error,
        IndexError,
        KeyError,
    ) as error:
        raise UnreadableImage(f"{path}: damaged or cut short ({error})") from error


def write_image(path: Path | str, image: Image, *, quality: int | None = None) -> tuple[str, ...]:
    """Write ``image`` in the format of the suffix of ``path``, under its name only when it is whole.

    ``quality`` 1 to 100 asks for lossy compression of that quality where the format has it. Returns notices about what
    the format could not hold.

    Raises:
        UnsupportedFormat: no such format, or a picture too large for it.
        InputError: the file cannot be written.
    """
    path = Path(path)
    row = format_of(path)
    height, width = image.pixels.shape[:2]
    if max(height, width) > row.longest:
        raise UnsupportedFormat(
            f"{path}: {width}x{height} is more than the {row.longest} pixels that {row.name} holds",
            "write PNG or TIFF: --format png",
        )
    image, notices = _fit(image, row)
    metadata = image.metadata
    if metadata.exif:
        metadata = replace(metadata, exif=exif_for(metadata.exif, height, width))
    if metadata.xmp:
        metadata = replace(metadata, xmp=xmp_upright(metadata.xmp))
    image = replace(image, metadata=metadata)
    try:
        with replacing(path) as temporary:
            if image.pixels.dtype == np.uint16:
                _write_deep(temporary, image, row)
            else:
                _write_eight_bit(temporary, image, row, quality)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    return notices


def _is_deep(data: bytes, opened: PILImage.Image) -> bool:
    """Tell from the header, never from the values, whether the file has 16 bits a channel."""
    if opened.format == "PNG":
        return data[24] == 16  # bit depth: PNG, section 11.2.1
    if opened.format == "TIFF":
        bits = opened.tag_v2.get(_BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]
        return 16 in (bits if isinstance(bits, tuple) else (bits,))
    return opened.mode.startswith("I;16") or opened.mode == "I"


def _eight_bit(opened: PILImage.Image) -> Image:
    notices = []
    if getattr(opened, "n_frames", 1) > 1:
        notices.append(f"has {getattr(opened, 'n_frames', 1)} frames or pages; only the first is used")
    metadata, orientation = _metadata(opened)
    opened.load()
    if opened.mode == "CMYK":
        opened, metadata = _cmyk_to_rgb(opened, metadata)
        notices.append("CMYK is converted to sRGB")
    grayscale = opened.mode in ("1", "L", "LA", "La", "I;16", "F")
    mode = "RGBA" if opened.has_transparency_data else "RGB"
    pixels = upright(np.asarray(opened.convert(mode)), orientation)
    return Image(
        pixels=np.ascontiguousarray(pixels[..., :3]),
        alpha=np.ascontiguousarray(pixels[..., 3]) if mode == "RGBA" else None,
        grayscale=grayscale,
        metadata=metadata,
        notices=tuple(notices),
    )


def _deep(data: bytes, opened: PILImage.Image, path: Path) -> Image:
    metadata, orientation = _metadata(opened)
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    decoded: Pixels | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None or decoded.dtype != np.uint16:
        raise UnreadableImage(f"{path}: damaged, or a kind of 16-bit picture that is not supported")
    decoded = upright(decoded, orientation)
    if decoded.ndim == 2:
        pixels, alpha = np.repeat(decoded[..., None], 3, 2), None
    else:
        pixels = decoded[..., 2::-1]
        alpha = decoded[..., 3] if decoded.shape[2] == 4 else None
    return Image(
        pixels=np.ascontiguousarray(pixels),
        alpha=None if alpha is None else np.ascontiguousarray(alpha),
        grayscale=decoded.ndim == 2 or opened.mode in ("L", "LA", "I;16"),
        metadata=metadata,
    )


def _metadata(opened: PILImage.Image) -> tuple[Metadata, int]:
    """Return what is kept, and the orientation."""
    try:
        exif = opened.getexif()
        orientation = int(exif.get(ExifTags.Base.Orientation, 1))
        raw = exif.tobytes() if exif else b""
    except Exception:  # Pillow's parser raises anything at all on damaged EXIF; the picture matters more
        orientation, raw = 1, b""
    dpi = opened.info.get("dpi")
    metadata = Metadata(
        icc=opened.info.get("icc_profile"),
        exif=raw.removeprefix(EXIF_HEADER) or None,
        xmp=opened.info.get("xmp"),
        dpi=(float(dpi[0]), float(dpi[1])) if dpi else None,
    )
    return metadata, orientation


def _cmyk_to_rgb(opened: PILImage.Image, metadata: Metadata) -> tuple[PILImage.Image, Metadata]:
    """Convert through the picture's own profile; the profile describes inks, so it does not go along."""
    converted: PILImage.Image | None = None
    if metadata.icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(metadata.icc))
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(opened, profile, srgb, outputMode="RGB")
        except ImageCms.PyCMSError:
            converted = None
    return converted or opened.convert("RGB"), replace(metadata, icc=None)


def _fit(image: Image, row: ImageFormat) -> tuple[Image, tuple[str, ...]]:
    """Reduce ``image`` to what the format holds, and say so."""
    notices = []
    if image.pixels.dtype == np.uint16 and not row.deep:
        notices.append(f"{row.name} has no 16 bits; reduced to 8")
        image = replace(
            image,
            pixels=_to_eight_bit(image.pixels),
            alpha=None if image.alpha is None else _to_eight_bit(image.alpha),
        )
    if image.alpha is not None and not row.alpha:
        notices.append(f"{row.name} has no transparency; laid on white")
        levels = np.iinfo(image.pixels.dtype).max
        a = image.alpha[..., None].astype(np.float32) / levels
        blend = image.pixels * a + levels * (1 - a)
        image = replace(image, pixels=np.rint(blend).astype(image.pixels.dtype), alpha=None)
    return image, tuple(notices)


def _to_eight_bit(plane: Pixels) -> Pixels:
    return ((plane.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _write_eight_bit(path: Path, image: Image, row: ImageFormat, quality: int | None) -> None:
    pixels = image.pixels[..., 0] if image.grayscale else image.pixels
    picture = PILImage.fromarray(np.ascontiguousarray(pixels))
    if image.alpha is not None:
        picture.putalpha(PILImage.fromarray(image.alpha))
    options: dict[str, Any] = dict(row.save_options)
    if quality is not None and "lossless" in options:
        options = {"lossless": False, "quality": quality}
    elif quality is not None and "quality" in options:
        options["quality"] = quality
    kept = image.metadata
    for key, value in (("icc_profile", kept.icc), ("exif", kept.exif), ("xmp", kept.xmp), ("dpi", kept.dpi)):
        if value:
            options[key] = EXIF_HEADER + value if key == "exif" and isinstance(value, bytes) else value
    picture.save(path, row.name, **options)


def _write_deep(path: Path, image: Image, row: ImageFormat) -> None:
    channels = image.pixels[..., :1] if image.grayscale and image.alpha is None else image.pixels[..., ::-1]
    if image.alpha is not None:
        channels = np.concatenate((channels, image.alpha[..., None]), 2)
    kinds = (
        (cv2.IMAGE_METADATA_EXIF, image.metadata.exif),
        (cv2.IMAGE_METADATA_ICCP, image.metadata.icc),
        (cv2.IMAGE_METADATA_XMP, image.metadata.xmp),
    )
    found = [(kind, np.frombuffer(value, np.uint8)) for kind, value in kinds if value]
    done, encoded = cv2.imencodeWithMetadata(
        path.suffix,
        np.ascontiguousarray(channels),
        [kind for kind, _ in found],
        [value for _, value in found],
    )
    if not done:
        raise OSError(f"OpenCV cannot encode {row.name}")
    path.write_bytes(encoded.tobytes())
