"""Files as other programs write them, damaged ones, and metadata that cannot be true."""

from __future__ import annotations

import io
import random
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as PILImage

from upscale.errors import UpscaleError
from upscale.images import FORMATS, Image, Metadata, decode, read_image, write_image
from upscale.images.exif import open_exif
from upscale.images.formats import is_installed

REDUCED = "has more than 8 bits a channel; reduced to 8"
TOP = 65_535


def noise(channels: int, top: int = TOP) -> NDArray[np.uint16]:
    """Return ``[40, 48, channels]`` with levels up to ``top``."""
    array = np.random.default_rng(0).integers(0, top, (40, 48, channels), np.uint16, endpoint=True)
    array[0, 0] = top
    return array


def tiff(pixels: NDArray[Any], *, header: dict[str, Any] | None = None, **options: Any) -> bytes:
    """Return a TIFF as tifffile writes it."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **(header or {})) as writer:
        writer.write(pixels, **options)
    return file.getvalue()


@pytest.mark.parametrize("header", [{}, {"byteorder": ">"}, {"bigtiff": True}], ids=str)
@pytest.mark.parametrize(
    "layout",
    [{}, {"rowsperstrip": 7}, {"tile": (16, 16)}, {"compression": "zlib", "predictor": True}],
    ids=str,
)
@pytest.mark.parametrize("channels", [3, 4])
def test_planes_one_after_the_other_are_read_as_channels(
    channels: int, layout: dict[str, Any], header: dict[str, Any]
) -> None:
    given = noise(channels)
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    planes = np.ascontiguousarray(np.moveaxis(given, 2, 0))
    image = decode(tiff(planes, photometric="rgb", planarconfig="separate", header=header, **extra, **layout), "a.tif")
    np.testing.assert_array_equal(image.pixels, given[..., :3])
    assert (image.alpha is not None) == (channels == 4)
    if image.alpha is not None:
        np.testing.assert_array_equal(image.alpha, given[..., 3])


def test_planes_of_a_turned_page_are_turned_once() -> None:
    given = noise(3)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page, orientation in ((given[::-1], 1), (given, 6)):
            planes = np.ascontiguousarray(np.moveaxis(page, 2, 0))
            turn = [(274, 3, 1, orientation, True)]
            writer.write(planes, photometric="rgb", planarconfig="separate", extratags=turn)
    first, second = decode(file.getvalue(), "a.tif").frames
    np.testing.assert_array_equal(first.pixels, given[::-1])
    np.testing.assert_array_equal(second.pixels, np.rot90(given, 3))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_at_zero_is_inverted(dtype: Any) -> None:
    given = noise(1)[..., 0].astype(dtype)
    image = decode(tiff(given, photometric="miniswhite"), "a.tif")
    assert image.grayscale
    np.testing.assert_array_equal(image.pixels[..., 0], np.iinfo(dtype).max - given)


def test_premultiplied_16_bit_alpha_is_divided_out() -> None:
    given = noise(4)
    given[0, 0, 3] = 0
    alpha = given[..., 3:].astype(np.float64) / TOP
    stored = np.rint(given * np.concatenate((alpha, alpha, alpha, alpha * 0 + 1), 2)).astype(np.uint16)
    image = decode(tiff(stored, photometric="rgb", extrasamples=["assocalpha"]), "a.tif")
    assert image.alpha is not None
    np.testing.assert_array_equal(image.alpha, given[..., 3])
    assert not image.pixels[0, 0].any()
    seen = alpha[..., 0] > 0.01
    assert np.abs(image.pixels.astype(int) - given[..., :3])[seen].max() <= 0.5 / 0.01 + 1


def test_premultiplied_grey_is_read() -> None:
    stored = np.stack((np.full((8, 8), 60, np.uint8), np.full((8, 8), 120, np.uint8)), 2)
    image = decode(tiff(stored, photometric="minisblack", extrasamples=["assocalpha"], planarconfig="contig"), "a.tif")
    assert image.grayscale
    assert image.alpha is not None
    assert set(image.alpha.flat) == {120}
    assert set(image.pixels.flat) <= {127, 128}


def test_a_channel_of_unknown_meaning_is_no_alpha() -> None:
    image = decode(tiff(noise(4), photometric="rgb", extrasamples=["unspecified"]), "a.tif")
    assert image.alpha is None
    np.testing.assert_array_equal(image.pixels, noise(4)[..., :3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", ["unspecified", "unassalpha"])
def test_a_channel_of_unknown_meaning_is_told_of(kind: str, dtype: Any) -> None:
    image = decode(tiff(noise(4).astype(dtype), photometric="rgb", extrasamples=[kind]), "a.tif")
    assert ("a channel of unknown meaning is left out" in image.notices) == (kind == "unspecified")


def test_16_bit_inks_are_read_with_8_bits_and_a_notice() -> None:
    image = decode(tiff(np.zeros((8, 8, 4), np.uint16), photometric="separated"), "a.tif")
    assert image.pixels.min() == 255
    assert REDUCED in image.notices


@pytest.mark.parametrize("maximum", [256, 300, 1023, 4095, 65_535])
@pytest.mark.parametrize("magic", [b"P2", b"P3", b"P5", b"P6"])
def test_ppm_keeps_all_bits_and_white_stays_white(magic: bytes, maximum: int) -> None:
    given = noise(3 if magic in (b"P3", b"P6") else 1, maximum)
    plain = b" ".join(b"%d" % level for level in given.flat)
    raster = given.astype(">u2").tobytes() if magic in (b"P5", b"P6") else plain
    image = decode(magic + b" # of a # camera\n48 40\n# levels\n%d\n" % maximum + raster, "a.ppm")
    assert image.pixels.dtype == np.uint16
    assert image.grayscale == (magic in (b"P2", b"P5"))
    expected = np.rint(given * (TOP / maximum))
    assert np.abs(image.pixels[..., : given.shape[2]] - expected).max() <= 1
    assert image.pixels.max() == TOP


def test_comments_without_end_do_not_keep_the_reader_busy() -> None:
    with pytest.raises(UpscaleError):
        decode(b"P6\n" + b"# " * 5000, "a.ppm")
    with pytest.raises(UpscaleError):
        decode(b"P6\n" + b"# " * 40 + b"\n8 8 x" + bytes(99), "a.ppm")


def jp2(channels: int, bits: int = 16) -> tuple[bytes, NDArray[np.uint16]]:
    """Return a JPEG 2000 of so many bits, and its levels."""
    given = noise(channels, 2**bits - 1)
    # A file of 16 bits in which 12 are written: the decoder adds half of the range that the header names.
    stored = given + np.uint16(2**15 - 2 ** (bits - 1))
    bgr = stored[..., [2, 1, 0, 3][:channels]] if channels > 1 else stored
    lossless = (cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000)
    done, encoded = cv2.imencode(".jp2", np.ascontiguousarray(np.tile(bgr, (2, 2, 1))), lossless)
    assert done
    data = bytearray(encoded.tobytes())
    at = data.index(b"\xff\x4f\xff\x51") + 42  # depth of each channel: ISO/IEC 15444-1, A.5.1
    for channel in range(channels):
        assert data[at + 3 * channel] == 15
        data[at + 3 * channel] = bits - 1
    data[data.index(b"ihdr") + 14] = bits - 1
    return bytes(data), np.tile(given, (2, 2, 1))


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_jpeg_2000_keeps_all_bits(channels: int, bits: int) -> None:
    data, given = jp2(channels, bits)
    image = decode(data, "a.jp2")
    expected = np.rint(given * (TOP / (2**bits - 1)))
    assert image.pixels.dtype == np.uint16
    assert image.grayscale == (channels == 1)
    planes = image.pixels if image.alpha is None else np.dstack((image.pixels, image.alpha))
    assert np.abs(planes[..., :channels] - expected).max() <= 1


def test_jpeg_2000_that_opencv_does_not_read_is_reduced_with_a_notice() -> None:
    data = bytearray(jp2(3)[0])
    data[data.index(b"\xff\x4f\xff\x51") + 42] |= 0x80  # the first channel is signed
    image = decode(bytes(data), "a.jp2")
    assert image.pixels.dtype == np.uint8
    assert REDUCED in image.notices


def png(pixels: NDArray[Any], *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of ``[H, W, 1 or 3]`` with more chunks before its picture."""
    height, width, channels = pixels.shape
    raw = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)
    kind = 0 if channels == 1 else 2
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, kind, 0, 0, 0)
    return png_of((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw)))


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of these chunks."""
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in (*chunks, (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return data


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_colour_of_a_png_is_alpha(channels: int, dtype: Any) -> None:
    given = noise(channels).astype(dtype)
    chosen = given[3, 5]
    image = decode(png(given, (b"tRNS", chosen.astype(">u2").tobytes())), "a.png")
    assert image.grayscale == (channels == 1)
    assert image.alpha is not None
    assert image.alpha.dtype == dtype
    expected = np.where((given == chosen).all(2), 0, np.iinfo(dtype).max)
    np.testing.assert_array_equal(image.alpha, expected)
    np.testing.assert_array_equal(image.pixels, np.broadcast_to(given, (40, 48, 3)))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_transparent_level_of_a_png_of_few_bits_is_alpha(bits: int) -> None:
    levels = np.arange(8, dtype=np.uint8) % 2**bits
    packed = np.packbits(np.unpackbits(levels[:, None], axis=1)[:, -bits:]).tobytes()
    header = struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"tRNS", b"\0\1"), (b"IDAT", zlib.compress(b"\0" + packed)))
    image = decode(png_of(*chunks), "a.png")
    assert image.grayscale
    assert image.alpha is not None
    np.testing.assert_array_equal(image.alpha[0], np.where(levels == 1, 0, 255))
    np.testing.assert_array_equal(image.pixels[0, :, 0], levels * (255 // (2**bits - 1)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("frames", [1, 2])
def test_a_bit_of_a_png_that_flipped_is_found(tmp_path: Path, dtype: Any, frames: int) -> None:
    image = Image(pixels=noise(3).astype(dtype), duration=40.0)
    image = replace(image, following=(replace(image, pixels=255 - image.pixels),) * (frames - 1))
    write_image(tmp_path / "a.png", image)
    whole = (tmp_path / "a.png").read_bytes()
    for at in range(whole.index(b"IDAT") + 10, whole.rindex(b"IEND") - 8, len(whole) // 20):
        data = bytearray(whole)
        data[at] ^= 1
        with pytest.raises(UpscaleError, match="damaged or cut short"):
            decode(bytes(data), "a.png")


def test_what_is_missing_or_too_much_at_the_end_of_a_png_does_no_harm() -> None:
    given = noise(3).astype(np.uint8)
    whole = png(given)
    for data in (whole[:-4], whole[:-12], whole[:-14], whole + b"\0\0\0\1IDATjunk", whole + whole):
        np.testing.assert_array_equal(decode(data, "a.png").pixels, given)


def test_what_is_left_out_of_a_png_is_told() -> None:
    texts = [(b"tEXt", b"Author\0One"), (b"tEXt", b"Author\0Two")]
    square, oblong = ((b"pHYs", struct.pack(">IIB", *sides, 0)) for sides in ((1, 1), (1, 2)))
    assert decode(png(noise(3), square, texts[0]), "a.png").notices == ()
    assert decode(png(noise(3), oblong, *texts), "a.png").notices == (
        "of its texts with the same keyword, only the last is kept",
        "that its pixels are not square is left out",
    )


@pytest.mark.parametrize(("sides", "count"), [((1, 2), 1), ((3, 3), 0), ((0, 0), 0)])
def test_pixels_of_jpeg_and_tiff_that_are_not_square_are_told(
    tmp_path: Path, sides: tuple[int, int], count: int
) -> None:
    picture = PILImage.new("RGB", (8, 6), "red")
    picture.save(tmp_path / "a.jpg")
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    start = content.index(b"JFIF\0") + 7
    content[start : start + 5] = struct.pack(">BHH", 0, *sides)
    (tmp_path / "a.jpg").write_bytes(content)
    picture.save(tmp_path / "a.tif", resolution_unit=1, x_resolution=sides[0], y_resolution=sides[1])
    for name in ("a.jpg", "a.tif"):
        assert read_image(tmp_path / name).notices.count("that its pixels are not square is left out") == count, name


def small(suffix: str, channels: int = 3) -> bytes:
    """Return a small picture with metadata in the format of ``suffix``."""
    file = io.BytesIO()
    exif = PILImage.Exif()
    exif[ExifTags.Base.Make] = "Some maker"
    shown = PILImage.fromarray((noise(4)[:16, :16, :channels] >> 8).astype(np.uint8))
    shown.save(file, PILImage.registered_extensions()[suffix], exif=exif.tobytes())
    return file.getvalue()


def test_damaged_avif_is_refused_in_words() -> None:
    data = small(".avif")
    at = data.index(b"mdat") + 4
    with pytest.raises(UpscaleError, match="damaged or cut short"):
        decode(data[:at] + b"\xff" * (len(data) - at), "a.avif")


@pytest.mark.parametrize("row", [row for row in FORMATS if is_installed(row)], ids=lambda row: row.name)
def test_damage_anywhere_is_refused_in_words_or_read(row: Any) -> None:
    chance = random.Random(row.name)
    whole = small(row.suffixes[0])
    for _ in range(20):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 2, 8))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(1, len(data)) :]
        try:
            image = decode(bytes(data), "a")
        except UpscaleError:
            continue
        assert image.pixels.ndim == 3


@pytest.mark.parametrize("value", [4_294_967_295.0, float("nan"), float("inf")])
def test_resolutions_that_cannot_be_true_are_dropped(tmp_path: Path, value: float) -> None:
    shown = PILImage.fromarray(noise(3).astype(np.uint8))
    exif = PILImage.Exif()
    exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = min(value, 4_294_967_295.0)
    exif[ExifTags.Base.ResolutionUnit] = 3  # a centimetre
    if value == value:  # which EXIF cannot say otherwise
        shown.save(tmp_path / "a.jpg", exif=exif)
        image = read_image(tmp_path / "a.jpg")
        assert image.metadata.dpi is None
    else:
        image = Image(pixels=noise(3).astype(np.uint8))
    claimed = replace(image, metadata=replace(image.metadata, dpi=(72.0, value)))  # as a caller may
    for row in FORMATS:
        if is_installed(row):
            write_image(tmp_path / f"b{row.suffixes[0]}", image)
            notices = write_image(tmp_path / f"b{row.suffixes[0]}", claimed)
            assert any("cannot hold a resolution" in text for text in notices)


def test_jpeg_says_that_it_cannot_hold_the_resolution_of_a_microscope(tmp_path: Path) -> None:
    image = Image(pixels=noise(3).astype(np.uint8), metadata=Metadata(dpi=(254_000.0, 254_000.0)))
    assert write_image(tmp_path / "a.jpg", image) == ("JPEG cannot hold a resolution of 254000 by 254000 dpi",)
    assert not write_image(tmp_path / "a.tif", image)
    assert read_image(tmp_path / "a.tif").metadata.dpi == (254_000.0, 254_000.0)


def test_texts_that_png_cannot_hold_are_written_as_it_can(tmp_path: Path) -> None:
    texts = {"a\0b": "one\0two", "": "nameless", "k" * 90: "\ud800 long", " ": "blank"}
    write_image(tmp_path / "a.png", Image(pixels=noise(3), metadata=Metadata(texts=texts)))
    data = (tmp_path / "a.png").read_bytes()
    assert b"tEXtab\0onetwo" in data
    assert b"tEXtComment\0nameless" in data
    assert b"tEXtComment\0blank" in data
    assert read_image(tmp_path / "a.png").metadata.texts["k" * 79] == "? long"


@pytest.mark.parametrize("frames", [1, 2])
def test_long_iptc_is_kept_by_png_and_told_of_by_jpeg(tmp_path: Path, frames: int) -> None:
    iptc = b"\x1c\x02\x78\x00\x07Caption" * 6000
    image = Image(pixels=noise(3).astype(np.uint8), metadata=Metadata(iptc=iptc), duration=40.0)
    image = replace(image, following=(image,) * (frames - 1))
    write_image(tmp_path / "a.png", image)
    assert read_image(tmp_path / "a.png").metadata.iptc == iptc
    assert f"IPTC of {len(iptc)} bytes is too long for JPEG" in write_image(tmp_path / "a.jpg", image)


@pytest.mark.parametrize("order", ["<", ">"])
def test_iptc_is_read_from_tiff_as_photoshop_writes_it(order: str) -> None:
    iptc = b"\x1c\x02\x78\x00\x07Caption"
    numbers = struct.unpack(f"{order}3I", iptc)
    data = tiff(noise(3), photometric="rgb", header={"byteorder": order}, extratags=[(33723, 4, 3, numbers, True)])
    assert decode(data, "a.tif").metadata.iptc == iptc
    data = tiff(noise(3), photometric="rgb", extratags=[(33723, 4, 1, (2**31,), True)])  # not two gigabytes
    assert decode(data, "a.tif").metadata.iptc == struct.pack("<I", 2**31)


def test_blocks_of_the_wrong_type_do_no_harm(tmp_path: Path) -> None:
    wrong = [(tag, 4, 2, (1, 2), True) for tag in (700, 33723, 34675)]
    image = decode(tiff(noise(3), photometric="rgb", extratags=wrong), "a.tif")
    for row in FORMATS:
        if is_installed(row):
            write_image(tmp_path / f"b{row.suffixes[0]}", image)
    assert image.metadata.icc is None
    assert image.metadata.xmp is None


def test_damaged_exif_is_left_out_with_a_notice(tmp_path: Path) -> None:
    data = small(".jpg").replace(b"Exif\0\0MM\0*", b"Exif\0\0XX\0*")
    image = decode(data, "a.jpg")
    assert "its EXIF is damaged, so it is left out" in write_image(tmp_path / "a.jpg", image)
    assert not open_exif(read_image(tmp_path / "a.jpg").metadata.exif)


def test_a_png_with_a_large_profile_is_read(tmp_path: Path) -> None:
    profile = np.random.default_rng(0).bytes(1_500_000)  # as those of printers
    write_image(tmp_path / "a.png", Image(pixels=noise(3), metadata=Metadata(icc=profile)))
    assert read_image(tmp_path / "a.png").metadata.icc == profile
