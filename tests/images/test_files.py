"""What goes into a file comes out of it, by the word of readers that this package did not write."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import ExifTags, ImageCms
from PIL import Image as PILImage

from upscale.errors import DiskFull, InputError, UnreadableImage, UnsupportedFormat
from upscale.images import (
    FORMATS,
    Image,
    ImageFormat,
    Metadata,
    Provenance,
    read_image,
    read_size,
    write_bands,
    write_image,
)
from upscale.images import read as read_module
from upscale.images import write as write_module
from upscale.images.exif import open_exif
from upscale.images.formats import Transparency, is_installed

HEIGHT, WIDTH = 12, 20
INSTALLED = [row for row in FORMATS if is_installed(row)]
LOSSLESS = [row for row in INSTALLED if row.lossless is not None and row.colours is None]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PROVENANCE = Provenance(tool="upscale 1.2.3", model="compact", weights=("ab12",), settings='scale "4" & tile <64>')


def picture(channels: int, dtype: Any, seed: int = 0) -> Image:
    """Return noise of 1 (grey), 2 (grey and alpha), 3 or 4 channels."""
    levels = np.iinfo(dtype).max
    planes = np.random.default_rng(seed).integers(0, levels, (HEIGHT, WIDTH, channels), dtype, endpoint=True)
    grayscale = channels < 3
    return Image(
        pixels=np.repeat(planes[..., :1], 3, 2) if grayscale else planes[..., :3],
        alpha=planes[..., -1] if channels in (2, 4) else None,
        grayscale=grayscale,
    )


def exif_of(**tags: int | str) -> bytes:
    """Return EXIF with these tags of the main directory, a camera's details and a place."""
    exif = PILImage.Exif()
    for name, value in tags.items():
        exif[ExifTags.Base[name]] = value
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] = 1
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageHeight] = 1
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] = "Some lens"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize("profile", [None, SRGB], ids=["plain", "profile"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("row", LOSSLESS, ids=lambda row: row.name)
def test_lossless_formats_return_what_they_hold(
    tmp_path: Path, row: ImageFormat, channels: int, dtype: Any, profile: bytes | None
) -> None:
    given = replace(picture(channels, dtype), metadata=Metadata(icc=profile))
    path = tmp_path / f"a{row.suffixes[0]}"
    notices = write_image(path, given)
    back = read_image(path)
    reduced = dtype is np.uint16 and not row.deep
    laid = given.alpha is not None and row.transparency is Transparency.NONE
    assert back.pixels.dtype == (np.uint8 if reduced else dtype)
    assert any("no 16 bits" in text for text in notices) == reduced
    assert any("transparency" in text for text in notices) == laid
    if not laid and not reduced:
        np.testing.assert_array_equal(back.pixels, given.pixels)
        assert (back.alpha is None) == (given.alpha is None)
        if given.alpha is not None and back.alpha is not None:
            np.testing.assert_array_equal(back.alpha, given.alpha)
    as_colour = row.name == "TIFF" and dtype is np.uint16 and channels == 2
    assert back.grayscale == (given.grayscale and row.gray and not as_colour)
    if row.name != "JXL":  # of which every picture has a profile when it is read
        assert back.metadata.icc == (profile if "icc" in row.holds else None)
    assert any("no place for ICC" in text for text in notices) == (profile is not None and "icc" not in row.holds)
    with PILImage.open(path) as opened:  # Pillow agrees about the size and can decode it
        assert opened.size == (WIDTH, HEIGHT)
        opened.load()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("row", [row for row in INSTALLED if row.lossy is not None], ids=lambda row: row.name)
def test_lossy_formats_keep_the_mean(tmp_path: Path, row: ImageFormat, channels: int) -> None:
    flat = np.full((32, 32), 90, np.uint8)
    noise = picture(channels, np.uint8)
    given = replace(
        noise,
        pixels=np.stack([flat, flat, flat if noise.grayscale else flat + 60], 2),
        alpha=None if noise.alpha is None else flat + 165,
        lossy=True,
    )
    write_image(tmp_path / f"a{row.suffixes[0]}", given, quality=80)
    back = read_image(tmp_path / f"a{row.suffixes[0]}")
    assert back.lossy == (row.name != "JXL")  # whose plug-in does not tell
    assert np.abs(back.pixels.mean((0, 1)) - given.pixels.mean((0, 1))).max() < 3
    if given.grayscale:
        assert (back.pixels == back.pixels[..., :1]).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_opencv_reads_the_same_16_bits(tmp_path: Path, suffix: str, channels: int) -> None:
    given = picture(channels, np.uint16)
    write_image(tmp_path / f"a{suffix}", given)
    array = cv2.imread(str(tmp_path / f"a{suffix}"), cv2.IMREAD_UNCHANGED)
    assert array is not None
    np.testing.assert_array_equal(given.pixels if channels > 1 else given.pixels[..., 0], _rgb(array))


def _rgb(array: Any) -> Any:
    return array if array.ndim == 2 else array[..., 2::-1]


def test_dark_16_bit_image_is_not_read_as_8_bit(tmp_path: Path) -> None:
    dark = np.random.default_rng(1).integers(0, 200, (HEIGHT, WIDTH, 3), np.uint16)
    for suffix in (".png", ".tif"):
        cv2.imwrite(str(tmp_path / f"dark{suffix}"), dark)
        image = read_image(tmp_path / f"dark{suffix}")
        assert image.pixels.dtype == np.uint16
        assert image.pixels.mean() == dark.mean()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
def test_orientation_is_applied_once_and_reset(tmp_path: Path, suffix: str, orientation: int) -> None:
    quarters = np.zeros((32, 48, 3), np.uint8)
    quarters[:16, :24] = (255, 0, 0)  # upright: red top left, green top right
    quarters[:16, 24:] = (0, 255, 0)
    stored = PILImage.fromarray(quarters)
    inverse: dict[int, PILImage.Transpose] = {
        2: PILImage.Transpose.FLIP_LEFT_RIGHT,
        3: PILImage.Transpose.ROTATE_180,
        4: PILImage.Transpose.FLIP_TOP_BOTTOM,
        5: PILImage.Transpose.TRANSPOSE,
        6: PILImage.Transpose.ROTATE_90,
        7: PILImage.Transpose.TRANSVERSE,
        8: PILImage.Transpose.ROTATE_270,
    }
    if orientation in inverse:
        stored = stored.transpose(inverse[orientation])
    exif = PILImage.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    source, result = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    stored.save(source, exif=exif)
    assert read_size(source) == (32, 48)
    write_image(result, read_image(source))
    for image in (read_image(source), read_image(result)):
        assert image.pixels.shape == (32, 48, 3)
        assert np.abs(image.pixels[4, 4].astype(int) - (255, 0, 0)).max() < 40
        assert np.abs(image.pixels[4, -4].astype(int) - (0, 255, 0)).max() < 40
    with PILImage.open(result) as opened:
        assert opened.getexif().get(ExifTags.Base.Orientation, 1) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("row", [row for row in INSTALLED if "exif" in row.holds], ids=lambda row: row.name)
def test_metadata_is_kept_and_fits_the_result(tmp_path: Path, row: ImageFormat, dtype: Any) -> None:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"'
        b' tiff:ImageWidth="7"/></rdf:RDF></x:xmpmeta>'
    )
    iptc = b"\x1c\x02\x78\x00\x07Caption"
    exif = exif_of(Make="Some maker", Orientation=6)
    found = Metadata(icc=SRGB, exif=exif, xmp=xmp, iptc=iptc, dpi=(300.0, 300.0))
    path = tmp_path / f"a{row.suffixes[0]}"
    notices = write_image(path, replace(picture(3, dtype), metadata=found.signed(PROVENANCE)))
    with PILImage.open(path) as opened:
        tags = opened.getexif()
        details = tags.get_ifd(ExifTags.IFD.Exif)
        if "icc" in row.holds:
            assert opened.info["icc_profile"] == SRGB
        assert tags[ExifTags.Base.Make] == "Some maker"
        assert tags.get(ExifTags.Base.Orientation, 1) == 1
        assert details[ExifTags.Base.LensModel] == "Some lens"
        assert (details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight]) == (WIDTH, HEIGHT)
        assert tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
        dpi = opened.info.get("dpi") or (tags[ExifTags.Base.XResolution], tags[ExifTags.Base.YResolution])
        assert [round(float(value)) for value in dpi] == [300, 300]
    back = read_image(path).metadata
    assert back.xmp is not None
    assert b'tiff:Orientation="1"' in back.xmp
    assert b'tiff:ImageWidth="20"' in back.xmp
    assert b"digitalsourcetype/algorithmicallyEnhanced" in back.xmp
    assert b'upscale:WeightsSHA256="ab12"' in back.xmp
    assert back.dpi is not None
    assert round(back.dpi[0]) == 300
    if "iptc" in row.holds:
        assert back.iptc == iptc
    else:
        assert f"{row.name} has no place for IPTC" in notices


def test_stale_thumbnail_is_dropped(tmp_path: Path) -> None:
    thumbnail = io.BytesIO()
    PILImage.new("RGB", (16, 16)).save(thumbnail, "JPEG")
    data = thumbnail.getvalue()
    # A TIFF structure of two directories: the orientation, then a thumbnail (EXIF 2.32, section 4.5.5).
    first = b"\x01\x00" + b"\x12\x01\x03\x00\x01\x00\x00\x00\x01\x00\x00\x00" + (26).to_bytes(4, "little")
    entries = b"\x01\x02\x04\x00\x01\x00\x00\x00" + (56).to_bytes(4, "little")
    entries += b"\x02\x02\x04\x00\x01\x00\x00\x00" + len(data).to_bytes(4, "little")
    exif = b"II*\0\x08\0\0\0" + first + b"\x02\x00" + entries + bytes(4) + data
    PILImage.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "in.jpg", exif=b"Exif\0\0" + exif)
    with PILImage.open(tmp_path / "in.jpg") as opened:
        assert data in opened.info["exif"]
    write_image(tmp_path / "out.jpg", read_image(tmp_path / "in.jpg"))
    assert data not in (tmp_path / "out.jpg").read_bytes()


def test_signing_twice_leaves_one_signature() -> None:
    once = Metadata().signed(PROVENANCE)
    twice = once.signed(replace(PROVENANCE, model="other"))
    assert twice.xmp is not None
    assert twice.xmp.count(b"DigitalSourceType=") == 1
    assert b'upscale:Model="other"' in twice.xmp
    assert b'upscale:Model="compact"' not in twice.xmp


def test_stripped_metadata_is_the_profile() -> None:
    found = Metadata(icc=SRGB, exif=exif_of(Make="x"), xmp=b"x", iptc=b"x", dpi=(72.0, 72.0))
    assert found.stripped() == Metadata(icc=SRGB)


def test_xmp_too_long_for_jpeg_is_left_out_with_a_notice(tmp_path: Path) -> None:
    image = replace(picture(3, np.uint8), metadata=Metadata(xmp=b"x" * 70_000))
    assert "XMP of 70000 bytes is too long for JPEG" in write_image(tmp_path / "a.jpg", image)
    assert read_image(tmp_path / "a.jpg").metadata.xmp is None


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".avif"])
def test_animation_keeps_frames_timing_and_loop(tmp_path: Path, suffix: str) -> None:
    frames = []
    for index, duration in enumerate((40, 120, 200)):
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[:, :, index] = 200
        frames.append(Image(pixels=pixels, duration=float(duration), loop=3))
    write_image(tmp_path / f"a{suffix}", replace(frames[0], following=tuple(frames[1:])))
    back = read_image(tmp_path / f"a{suffix}")
    assert [frame.duration for frame in back.frames] == [40, 120, 200]
    for index, frame in enumerate(back.frames):
        assert frame.pixels.mean((0, 1)).argmax() == index
    if suffix != ".avif":  # which has no such number
        assert back.loop == 3


def test_the_picture_for_programs_without_animations_is_left_out_and_told(tmp_path: Path) -> None:
    default, *frames = (PILImage.fromarray(picture(3, np.uint8, seed).pixels) for seed in range(3))
    default.save(tmp_path / "a.png", save_all=True, default_image=True, append_images=frames)
    image = read_image(tmp_path / "a.png")
    assert np.array_equal(image.pixels, np.asarray(frames[0]))
    assert len(image.frames) == 2
    assert image.notices == ("its picture for programs that know no animations is left out",)


def test_transparent_gif_animation_clears_each_frame(tmp_path: Path) -> None:
    frames = []
    for column in (0, 8):
        alpha = np.zeros((16, 16), np.uint8)
        alpha[:, column : column + 8] = 255
        frames.append(Image(pixels=np.full((16, 16, 3), 90, np.uint8), alpha=alpha, duration=50.0, loop=0))
    write_image(tmp_path / "a.gif", replace(frames[0], following=(frames[1],)))
    for given, back in zip(frames, read_image(tmp_path / "a.gif").frames, strict=True):
        assert given.alpha is not None
        assert back.alpha is not None
        np.testing.assert_array_equal(back.alpha, given.alpha)


def test_every_page_of_a_tiff_is_kept(tmp_path: Path) -> None:
    pages = [picture(3, np.uint16, 1), picture(1, np.uint8, 2), picture(4, np.uint8, 3)]
    write_image(tmp_path / "a.tif", replace(pages[0], following=tuple(pages[1:])))
    back = read_image(tmp_path / "a.tif")
    assert len(back.frames) == 3
    for given, page in zip(pages, back.frames, strict=True):
        np.testing.assert_array_equal(page.pixels, given.pixels)
    notices = write_image(tmp_path / "a.jpg", back)
    assert "JPEG cannot hold pages; only the first of 3 is written" in notices


def test_a_tiff_is_big_only_where_it_must_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_module, "_BIG_TIFF", HEIGHT * WIDTH)
    for grayscale, version in ((True, b"*"), (False, b"+")):
        image = picture(1 if grayscale else 3, np.uint8)
        write_image(tmp_path / "a.tif", image)
        write_bands(tmp_path / "b.tif", image, HEIGHT, WIDTH, [image.pixels])
        assert [(tmp_path / name).read_bytes()[2:3] for name in ("a.tif", "b.tif")] == [version, version]


def test_big_tiff_is_read_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_module, "_BIG_TIFF", 100)
    given = replace(
        picture(3, np.uint16), metadata=Metadata(icc=SRGB, exif=exif_of(Make="Some maker"), dpi=(96.0, 96.0))
    )
    write_image(tmp_path / "a.tif", given)
    assert (tmp_path / "a.tif").read_bytes()[:4] == b"II+\0"
    array = cv2.imread(str(tmp_path / "a.tif"), cv2.IMREAD_UNCHANGED)
    assert array is not None
    np.testing.assert_array_equal(array[..., ::-1], given.pixels)
    back = read_image(tmp_path / "a.tif").metadata
    assert back.icc == SRGB
    assert back.dpi == (96.0, 96.0)
    assert open_exif(back.exif)[ExifTags.Base.Make] == "Some maker"


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "LAB", "YCbCr"])
def test_other_modes_become_rgb_or_grey(tmp_path: Path, mode: str) -> None:
    PILImage.new("RGB", (WIDTH, HEIGHT), (255, 255, 255)).save(tmp_path / "white.tif")
    with PILImage.open(tmp_path / "white.tif") as white:
        source = white.convert("L").convert("1") if mode == "1" else _converted(white, mode)
        source.save(tmp_path / f"in{'.jpg' if mode == 'YCbCr' else '.tif'}")
    image = read_image(next(tmp_path.glob("in.*")))
    assert image.pixels.shape == (HEIGHT, WIDTH, 3)
    assert image.pixels.min() >= 254
    assert image.grayscale == (mode == "1")
    assert any("converted to sRGB" in text for text in image.notices) == (mode in ("CMYK", "LAB"))


def _converted(picture: PILImage.Image, mode: str) -> PILImage.Image:
    if mode != "LAB":
        return picture.convert(mode)
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    result = ImageCms.applyTransform(picture, to_lab)
    assert result is not None
    return result


@pytest.mark.parametrize(("background", "level"), [(None, 255), ((0, 0, 0), 0)])
def test_background_shows_where_jpeg_has_no_transparency(
    tmp_path: Path, background: tuple[int, int, int] | None, level: int
) -> None:
    image = Image(pixels=np.full((16, 16, 3), 90, np.uint8), alpha=np.zeros((16, 16), np.uint8))
    notices = write_image(tmp_path / "a.jpg", image, background=background)
    assert abs(read_image(tmp_path / "a.jpg").pixels.mean() - level) < 1
    assert bool(notices) == (background is None)


def test_webp_is_lossless_unless_the_source_was_lossy(tmp_path: Path) -> None:
    given = picture(3, np.uint8)
    write_image(tmp_path / "a.webp", given)
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp").pixels, given.pixels)
    write_image(tmp_path / "b.webp", replace(given, lossy=True))
    assert read_image(tmp_path / "b.webp").lossy


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "a.png", "the file is empty"),
        (b"not a picture", "a.jpg", "not an image"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "a.heic", "HEIF needs a plug-in"),
        (b"\xff\x0a" + bytes(40), "a.jxl", "JXL needs a plug-in"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, name: str, message: str
) -> None:
    monkeypatch.setattr(read_module, "is_installed", lambda row: row.plugin is None)
    (tmp_path / name).write_bytes(content)
    with pytest.raises((UnreadableImage, UnsupportedFormat)) as raised:
        read_image(tmp_path / name)
    assert message in raised.value.message
    assert name in raised.value.message


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg", ".tif", ".webp", ".gif", ".bmp"):
        write_image(tmp_path / f"a{suffix}", picture(3, np.uint8))
        data = (tmp_path / f"a{suffix}").read_bytes()
        (tmp_path / f"a{suffix}").write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(UnreadableImage):
            read_image(tmp_path / f"a{suffix}")


def test_pictures_of_400_megapixels_are_read(tmp_path: Path) -> None:
    PILImage.new("1", (20_000, 20_000)).save(tmp_path / "a.png")
    assert read_size(tmp_path / "a.png") == (20_000, 20_000)
    PILImage.new("1", (30_000, 20_000)).save(tmp_path / "b.png")
    with pytest.raises(UnreadableImage, match="more than 536 megapixels, the limit"):
        read_image(tmp_path / "b.png")


def test_too_large_for_the_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="16384x1 is more than the 16383 pixels that WEBP holds"):
        write_image(tmp_path / "a.webp", Image(pixels=np.zeros((1, 16_384, 3), np.uint8)))


def test_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setitem(write_module._WRITERS, "PNG", full)
    with pytest.raises(DiskFull):
        write_image(tmp_path / "a.png", picture(3, np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((8, 9, 3)), r"float64 \[8, 9, 3\]"),
        (np.zeros((8, 9, 4), np.uint8), r"uint8 \[8, 9, 4\]"),
        (np.zeros((8, 9), np.uint8), r"uint8 \[8, 9\]"),
        (np.zeros((8, 9, 3), np.int32), "int32"),
        ([[[1, 2, 3]]], "list"),
    ],
)
def test_an_array_that_is_no_picture_is_refused(array: Any, found: str) -> None:
    with pytest.raises(ValueError, match=f"pixels: {found}.* where an array of uint8 or uint16"):
        Image(pixels=array)
    with pytest.raises(ValueError, match="alpha: "):
        Image(pixels=np.zeros((8, 9, 3), np.uint8), alpha=array[:7])


def test_missing_file_is_said() -> None:
    with pytest.raises(InputError, match=r"nowhere\.png"):
        read_image("nowhere.png")


def test_more_bits_than_a_plug_in_reads_are_told(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    deep = np.full((32, 32, 3), 40_000, np.uint16)
    heif.from_bytes(mode="RGB;16", size=(32, 32), data=deep.tobytes()).save(tmp_path / "a.heic", quality=90)
    image = read_image(tmp_path / "a.heic")
    assert "has more than 8 bits a channel; reduced to 8" in image.notices
    assert image.pixels.mean() == pytest.approx(40_000 / 257, abs=1)


def test_what_a_plug_in_reads_has_a_size_and_a_name_before_it_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    write_image(tmp_path / "a.heic", picture(3, np.uint8))
    code = (
        "import sys, pathlib; from upscale.images import read; path = pathlib.Path(sys.argv[1]);"
        "print(*(read.read_size(path), read.suffix_of(path.read_bytes()))[:: int(sys.argv[2])])"
    )
    for order, said in (
        ("1", f"{(HEIGHT, WIDTH)} .heic"),
        ("-1", f".heic {(HEIGHT, WIDTH)}"),
    ):  # whatever comes first loads the plug-in
        command = [sys.executable, "-c", code, str(tmp_path / "a.heic"), order]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == said


def test_sixteen_bits_of_grey_are_read_from_jpeg_xl(tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl")
    dark = np.random.default_rng(0).integers(0, 200, (16, 20), np.uint16)
    PILImage.fromarray(dark).save(tmp_path / "a.jxl", lossless=True)
    image = read_image(tmp_path / "a.jxl")
    assert image.grayscale
    np.testing.assert_array_equal(image.pixels[..., 0], dark)
