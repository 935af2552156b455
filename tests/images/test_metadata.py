"""What a file says beside its pixels: it stays, it fits the larger picture, or its loss is told."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, ImageCms
from PIL import Image as PILImage

from tests.conftest import picture
from upscale.images import Image, Metadata, Provenance, decode, read_image, write_image
from upscale.images import read as read_module
from upscale.images import write as write_module
from upscale.images.exif import EXIF_HEADER, open_exif
from upscale.images.formats import SUFFIXES, is_installed
from upscale.images.write import write_bands

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PROVENANCE = Provenance(tool="upscale 1.2.3", model="compact", weights=(), settings="")
NOTE = 0x927C  # of the maker: EXIF 2.32, section 4.6.5
UNUSUAL = "no place for gamma and primaries"


def enlarged(image: Image) -> Image:
    """Return ``image`` twice as high and three times as wide."""
    return replace(image, pixels=image.pixels.repeat(2, 0).repeat(3, 1))


def camera_exif() -> bytes:
    """Return EXIF with a maker's note that says where it is, and a directory for interoperability."""
    exif = PILImage.Exif()
    exif[ExifTags.Base.Make] = "Some maker"
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = 72.0, 72.0
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight] = 8, 6
    details[NOTE] = b"note of the maker...."
    details[ExifTags.IFD.Interop] = {1: "R03", 0x1001: 8}
    data = bytearray(exif.tobytes().removeprefix(EXIF_HEADER))
    at = data.index(b"note of the maker")
    data[at + 17 : at + 21] = struct.pack("<I", at)
    return bytes(data)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("dpi", [72, 300])
def test_notes_of_makers_stay_where_their_offsets_point(tmp_path: Path, suffix: str, dpi: int) -> None:
    PILImage.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=EXIF_HEADER + camera_exif(), dpi=(dpi, dpi))
    path = tmp_path / f"b{suffix}"
    write_image(path, enlarged(read_image(tmp_path / "a.jpg")))
    with PILImage.open(path) as opened:
        data = opened.info["exif"].removeprefix(EXIF_HEADER)
        exif = opened.getexif()
        assert exif[ExifTags.Base.Make] == "Some maker"
        assert exif.get(ExifTags.Base.Orientation, 1) == 1
        assert exif[ExifTags.Base.XResolution] == dpi or "dpi" in SUFFIXES[suffix].holds
        details = exif.get_ifd(ExifTags.IFD.Exif)
        assert (details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight]) == opened.size
        assert exif.get_ifd(ExifTags.IFD.Interop) == {1: "R03", 0x1001: opened.width}
    at = data.index(b"note of the maker")
    assert struct.unpack_from("<I", data, at + 17) == (at,)


def test_interoperability_goes_into_tiff_and_out_of_it(tmp_path: Path) -> None:
    image = Image(pixels=np.zeros((6, 8, 3), np.uint8), metadata=Metadata(exif=camera_exif()))
    for name in ("a.tif", "b.tif", "c.jpg"):
        write_image(tmp_path / name, image)
        image = read_image(tmp_path / name)
        exif = open_exif(image.metadata.exif)
        assert exif.get_ifd(ExifTags.IFD.Exif)[NOTE].startswith(b"note")
        assert exif.get_ifd(ExifTags.IFD.Interop)[1] == "R03"


NAME = "Jürgen 日本".encode()


@pytest.mark.parametrize("names", [("a.tif", "b.tif"), ("a.tif", "b.jpg"), ("a.tif", "b.webp", "c.tif", "d.png")])
def test_texts_that_are_not_ascii_stay_what_they_are(tmp_path: Path, names: tuple[str, ...]) -> None:
    exif = PILImage.Exif()
    exif[ExifTags.Base.Artist] = exif[0xFDE8] = "x" * len(NAME)  # a tag that Pillow knows, and one of nobody
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] = "x" * len(NAME)
    data = exif.tobytes().removeprefix(EXIF_HEADER).replace(b"x" * len(NAME), NAME)
    image = Image(pixels=np.zeros((6, 8, 3), np.uint8), metadata=Metadata(exif=data, dpi=(300, 300)))
    for name in names:
        write_image(tmp_path / name, image)
        image = read_image(tmp_path / name)
    exif = open_exif(image.metadata.exif)
    assert image.metadata.dpi is not None
    for text in (exif[ExifTags.Base.Artist], exif[0xFDE8], exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel]):
        assert text.encode("latin-1") == NAME


def test_xmp_that_a_tiff_calls_text_is_read_byte_by_byte() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((6, 8, 3), np.uint8), photometric="rgb", extratags=[(700, "s", 0, NAME, True)])
    assert decode(file.getvalue(), "a.tif").metadata.xmp == NAME


def test_damaged_directories_are_left_out_and_told(tmp_path: Path) -> None:
    whole = camera_exif()
    order = "<" if whole.startswith(b"II") else ">"
    pointer = whole.index(struct.pack(order + "HHI", ExifTags.IFD.Exif, 4, 1)) + 8
    in_a_circle = whole[:pointer] + struct.pack(order + "I", 8) + whole[pointer + 4 :]
    for exif in (whole[:30], b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0", in_a_circle):
        image = Image(pixels=np.zeros((6, 8, 3), np.uint8), metadata=Metadata(exif=exif))
        notices = write_image(tmp_path / "a.jpg", image)
        with PILImage.open(tmp_path / "a.jpg") as opened:
            assert notices == ("its EXIF is damaged, so it is left out",) or "exif" in opened.info


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_one_damaged_directory_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    whole = camera_exif()
    order = "<" if whole.startswith(b"II") else ">"
    for tag in (ExifTags.IFD.Exif, ExifTags.IFD.Interop):
        at = whole.index(struct.pack(order + "HHI", tag, 4, 1)) + 8
        for pointer in (0, 1, len(whole) - 1, len(whole) + 99, 0xFFFFFFFF):
            exif = whole[:at] + struct.pack(order + "I", pointer) + whole[at + 4 :]
            image = Image(pixels=np.zeros((6, 8, 3), np.uint8), metadata=Metadata(exif=exif))
            assert write_image(tmp_path / "a.jpg", image) == ()
            kept = open_exif(read_image(tmp_path / "a.jpg").metadata.exif)
            assert kept[ExifTags.Base.Make] == "Some maker"
            assert kept[ExifTags.Base.Orientation] == 1


def geo_tags(*, points: bool) -> list[tuple[int, Any, int, Any, bool]]:
    keys = (1, 1, 0, 1, 1025, 0, 1, 2 if points else 1)
    matrix = (0.5, 0.1, 0, 100, 0.2, -0.5, 0, 50, 0, 0, 0, 0, 0, 0, 0, 1)
    return [
        (33550, "d", 3, (0.5, 0.25, 0.0), True),
        (33922, "d", 6, (2.0, 1.0, 0.0, 100.0, 50.0, 0.0), True),
        (34264, "d", 16, matrix, True),
        (34735, "H", 8, keys, True),
    ]


@pytest.mark.parametrize("points", [False, True])
def test_every_corner_stays_where_it_is_on_the_map(tmp_path: Path, points: bool) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((6, 8, 3), np.uint8), photometric="rgb", extratags=geo_tags(points=points))
    write_image(tmp_path / "b.tif", enlarged(decode(file.getvalue(), "a.tif")))

    def on_the_map(tags: Any, place: tuple[float, float], width: int, height: int) -> tuple[Any, Any]:
        """Return where a point, given as shares of the picture, is by scale and tie point and by the matrix."""
        centre = 0.5 if points else 0.0
        column, row = place[0] * width - centre, place[1] * height - centre
        scale, tie, matrix = (tags[tag] for tag in (33550, 33922, 34264))
        by_tie = (tie[3] + (column - tie[0]) * scale[0], tie[4] - (row - tie[1]) * scale[1])
        by_matrix = np.reshape(matrix, (4, 4))[:2] @ (column, row, 0, 1)
        return by_tie, tuple(by_matrix)

    with PILImage.open(io.BytesIO(file.getvalue())) as before, PILImage.open(tmp_path / "b.tif") as after:
        assert after.size == (24, 12)
        for place in ((0, 0), (0, 1), (1, 0), (0.3, 0.7)):
            old = on_the_map(before.tag_v2, place, 8, 6)  # type: ignore[attr-defined]
            new = on_the_map(after.tag_v2, place, 24, 12)  # type: ignore[attr-defined]
            np.testing.assert_allclose(new, old, rtol=1e-9)


def test_layers_of_photoshop_are_left_out_and_told(tmp_path: Path) -> None:
    file = io.BytesIO()
    layers = [(37724, "B", 200_000, b"8BIM" * 50_000, True), (271, "s", 0, "Some maker", True)]
    tifffile.imwrite(file, np.zeros((6, 8, 3), np.uint8), photometric="rgb", extratags=layers)
    image = decode(file.getvalue(), "a.tif")
    assert "its layers are left out" in image.notices
    assert write_image(tmp_path / "a.jpg", image) == ()
    assert open_exif(read_image(tmp_path / "a.jpg").metadata.exif)[ExifTags.Base.Make] == "Some maker"


def png(*chunks: tuple[bytes, bytes], after: tuple[bytes, bytes] | None = None) -> bytes:
    """Return a PNG of one pixel with ``chunks`` before the picture, and perhaps one after it."""
    whole = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)), *chunks, (b"IDAT", zlib.compress(bytes(4)))]
    whole += [after] if after else []
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in (*whole, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_xmp_behind_the_picture_is_found_whatever_stands_before_it() -> None:
    xmp = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")
    assert decode(png((b"eXIf", camera_exif()), after=xmp), "a.png").metadata.xmp == b"<x/>"
    assert decode(png(after=xmp), "a.png").metadata.xmp == b"<x/>"


def test_xmp_as_imagemagick_writes_it_is_found() -> None:
    text = b"\nxmp\n       4\n" + b"<x/>".hex().encode() + b"\n"
    chunk = (b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(text))
    assert decode(png(chunk), "a.png").metadata.xmp == b"<x/>"


@pytest.mark.parametrize(("codes", "unusual"), [((1, 13), False), ((9, 16), True), ((12, 13), True), ((2, 2), False)])
def test_colours_given_by_codes_are_kept_by_png_and_told_elsewhere(
    tmp_path: Path, codes: tuple[int, int], unusual: bool
) -> None:
    image = decode(png((b"cICP", bytes((*codes, 0, 1)))), "a.png")
    write_image(tmp_path / "b.png", image)
    assert (b"cICP" + bytes((*codes, 0, 1)) in (tmp_path / "b.png").read_bytes()) == unusual
    assert any(UNUSUAL in notice for notice in write_image(tmp_path / "b.jpg", image)) == unusual
    in_a_profile = replace(image, metadata=replace(image.metadata, icc=SRGB))
    assert write_image(tmp_path / "c.jpg", in_a_profile) == ()


@pytest.mark.parametrize("suffix", [".avif", ".heic"])
def test_colours_given_by_codes_are_found_where_videos_have_them(tmp_path: Path, suffix: str) -> None:
    if not is_installed(SUFFIXES[suffix]):
        pytest.skip("no plug-in for it")
    PILImage.new("RGB", (64, 64)).save(tmp_path / f"a{suffix}")
    data = (tmp_path / f"a{suffix}").read_bytes()
    at = data.index(b"colrnclx") + 8
    data = data[:at] + struct.pack(">HH", 12, 16) + data[at + 4 :]  # Display P3, PQ
    image = decode(data, f"a{suffix}")
    assert image.metadata.colour == {b"cICP": bytes((12, 16, 0, 1))}
    assert any(UNUSUAL in notice for notice in write_image(tmp_path / f"b{suffix}", image))


def test_a_profile_counts_before_codes_but_in_png(tmp_path: Path) -> None:
    PILImage.new("RGB", (64, 64)).save(tmp_path / "a.avif", icc_profile=SRGB)
    data = (tmp_path / "a.avif").read_bytes()
    at = data.index(b"colrnclx") + 8
    image = decode(data[:at] + struct.pack(">HH", 9, 16) + data[at + 4 :], "a.avif")
    write_image(tmp_path / "a.png", image)
    assert image.metadata.icc == SRGB
    assert b"cICP" not in (tmp_path / "a.png").read_bytes()


def xmp_of(attributes: str, content: str = "") -> bytes:
    start = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    description = f'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"{attributes}>{content}'
    return f"{start}{description}</rdf:Description></rdf:RDF></x:xmpmeta>".encode()


RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"


@pytest.mark.parametrize("prefix", ["", "r:", "rdf:"])
def test_the_note_finds_its_place_whatever_rdf_is_called(prefix: str) -> None:
    space = f"xmlns:{prefix[:-1]}" if prefix else "xmlns"
    own = '<Description xmlns="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="urn:dc" dc:creator="me"/>'
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><{prefix}RDF {space}="{RDF}">{own}</{prefix}RDF></x:xmpmeta>'
    signed = Metadata(xmp=xmp.encode()).signed(PROVENANCE)
    assert signed.xmp is not None
    mine, note = ElementTree.fromstring(signed.xmp).findall(f"{{{RDF}}}RDF/{{{RDF}}}Description")
    assert mine.get("{urn:dc}creator") == "me"
    assert note.get("{urn:upscale:provenance:1}Tool") == "upscale 1.2.3"
    assert signed.signed(PROVENANCE) == signed


def test_the_note_goes_into_rdf_that_was_empty() -> None:
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"/></x:xmpmeta>'.encode()
    signed = Metadata(xmp=xmp).signed(PROVENANCE)
    assert signed.xmp is not None
    (note,) = ElementTree.fromstring(signed.xmp).findall(f"{{{RDF}}}RDF/{{{RDF}}}Description")
    assert note.get("{urn:upscale:provenance:1}Tool") == "upscale 1.2.3"


def test_xmp_without_a_place_for_the_note_stays_as_it_is() -> None:
    for xmp in (xmp_of(' xmp:Rating="5"').decode().encode("utf-16"), b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'):
        assert Metadata(xmp=xmp).signed(PROVENANCE).xmp == xmp


@pytest.mark.parametrize("as_elements", [False, True])
def test_an_older_note_among_the_users_own_is_replaced_and_theirs_stay(as_elements: bool) -> None:
    names = {"xmp:Rating": "5", "upscale:Tool": "upscale 0.9", "upscale:Model": "old"}
    space = ' xmlns:upscale="urn:upscale:provenance:1/"'
    if as_elements:
        xmp = xmp_of(space, "".join(f"<{name}>{value}</{name}>" for name, value in names.items()))
    else:
        xmp = xmp_of(space + "".join(f" {name}='{value}'" for name, value in names.items()), "<dc:x/>")
    signed = Metadata(xmp=xmp).signed(PROVENANCE).xmp
    assert signed is not None
    assert signed.count(b"upscale:Tool") == 1
    assert b'upscale:Tool="upscale 1.2.3"' in signed
    assert b"provenance:1/" not in signed
    assert (b"<xmp:Rating>5" if as_elements else b"xmp:Rating='5'") in signed
    assert Metadata(xmp=signed).signed(PROVENANCE).xmp == signed


def test_an_empty_property_ends_where_it_ends() -> None:
    source = "<Iptc4xmpExt:DigitalSourceType rdf:resource='x'/>"
    later = "<y:Bag><Iptc4xmpExt:DigitalSourceType>q</Iptc4xmpExt:DigitalSourceType></y:Bag>"
    signed = Metadata(xmp=xmp_of("", f"{source}<dc:title>KEEP</dc:title>{later}")).signed(PROVENANCE).xmp
    assert signed is not None
    assert b"<dc:title>KEEP</dc:title><y:Bag></y:Bag></rdf:Description>" in signed


def test_what_xmp_says_in_further_segments_is_told(tmp_path: Path) -> None:
    xmp = xmp_of(' xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="A0A0"')
    PILImage.new("RGB", (8, 6)).save(tmp_path / "a.jpg", xmp=xmp)
    image = read_image(tmp_path / "a.jpg")
    assert "what its XMP says in further segments is left out" in image.notices
    write_image(tmp_path / "b.jpg", image)
    assert b"HasExtendedXMP" not in (tmp_path / "b.jpg").read_bytes()


@pytest.mark.parametrize("kind", ["plain", "profile", "alpha", "animation"])
@pytest.mark.parametrize("lossless", [False, True])
def test_webp_is_told_by_its_picture_whether_it_is_lossy(tmp_path: Path, kind: str, lossless: bool) -> None:
    picture = PILImage.new(
        "RGBA" if kind == "alpha" else "RGB", (64, 48), (9, 99, 200, 80)[: 4 if kind == "alpha" else 3]
    )
    options: dict[str, Any] = {"icc_profile": SRGB * 40} if kind == "profile" else {}
    if kind == "animation":
        options = {"save_all": True, "append_images": [PILImage.new("RGB", (64, 48))]}
    picture.save(tmp_path / "a.webp", lossless=lossless, **options)
    assert read_image(tmp_path / "a.webp").lossy is not lossless


def test_grey_with_alpha_becomes_colour_where_a_format_has_no_such_pictures(tmp_path: Path) -> None:
    alpha = np.zeros((6, 8), np.uint8)
    alpha[:, 4:] = 255
    image = Image(pixels=np.full((6, 8, 3), 90, np.uint8), alpha=alpha, grayscale=True)
    write_image(tmp_path / "a.gif", image)
    result = read_image(tmp_path / "a.gif")
    assert result.alpha is not None
    np.testing.assert_array_equal(result.alpha, alpha)


@pytest.mark.parametrize("suffix", [".tif", ".avif", ".heic", ".webp", ".gif"])
def test_no_profile_for_grey_gets_into_a_picture_of_colours(tmp_path: Path, suffix: str) -> None:
    if not is_installed(SUFFIXES[suffix]):
        pytest.skip("no plug-in for it")
    gray = SRGB[:16] + b"GRAY" + SRGB[20:]
    pixels = np.full((64, 64, 3), 9000, np.uint16)
    image = Image(pixels=pixels, alpha=pixels[..., 0].copy(), grayscale=True, metadata=Metadata(icc=gray))
    notices = write_image(tmp_path / f"a{suffix}", image)
    assert any("profile for grey" in notice for notice in notices)
    assert read_image(tmp_path / f"a{suffix}").metadata.icc is None


def test_a_resolution_that_gets_lost_is_told(tmp_path: Path) -> None:
    image = Image(pixels=np.zeros((6, 8, 3), np.uint8), metadata=Metadata(dpi=(300, 300)))
    assert "GIF has no place for the resolution" in write_image(tmp_path / "a.gif", image)
    assert write_image(tmp_path / "a.webp", image) == ()


def test_a_gif_shows_what_is_at_least_half_there(tmp_path: Path) -> None:
    alpha = np.array([[0, 127, 128, 255]], np.uint8).repeat(4, 0)
    write_image(tmp_path / "a.gif", Image(pixels=np.full((4, 4, 3), 90, np.uint8), alpha=alpha))
    back = read_image(tmp_path / "a.gif").alpha
    assert back is not None
    assert back[0].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_quality_is_what_the_encoder_gets(tmp_path: Path, suffix: str) -> None:
    image = Image(pixels=picture(96, 96))
    sizes = []
    for quality in (20, 60, 90):
        write_image(tmp_path / f"a{suffix}", image, quality=quality)
        assert read_image(tmp_path / f"a{suffix}").lossy
        sizes.append((tmp_path / f"a{suffix}").stat().st_size)
    assert sizes[0] < sizes[1] < sizes[2]


def test_bands_of_more_than_four_gigabytes_become_big_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_module, "_BIG_TIFF", 100)
    image = Image(pixels=picture(12, 20))
    write_bands(tmp_path / "a.tif", image, 12, 20, [image.pixels[:5], image.pixels[5:]])
    assert (tmp_path / "a.tif").read_bytes()[:4] == b"II+\0"
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), image.pixels)


def test_the_largest_that_a_format_holds_is_written(tmp_path: Path) -> None:
    write_image(tmp_path / "a.webp", Image(pixels=np.zeros((1, 16_383, 3), np.uint8)))
    assert read_image(tmp_path / "a.webp").pixels.shape == (1, 16_383, 3)


def test_too_little_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(read_module, "_decode", greedy)
    data = io.BytesIO()
    PILImage.new("RGB", (8, 8)).save(data, "PNG")
    with pytest.raises(MemoryError):
        decode(data.getvalue(), "a.png")


def test_levels_of_a_pyramid_and_thumbnails_are_no_pages() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for height, reduced in ((12, 0), (6, 1), (3, 1), (10, 0)):
            writer.write(picture(height, 8), photometric="rgb", subfiletype=reduced)
    assert [page.pixels.shape[0] for page in decode(file.getvalue(), "a.tif").frames] == [12, 10]


def inks() -> bytes:
    """Return a profile (ICC.1:2001-04) of printing inks, in which full cyan is a mid grey and no ink is white."""
    lightness = [0 if black else 128 if cyan else 255 for cyan in (0, 1) for _ in range(4) for black in (0, 1)]
    grid = b"".join(bytes((level, 128, 128)) for level in lightness)  # L*, a*, b*
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (row == column) for row in range(3) for column in range(3)))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + ramp * 4 + grid + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in (0.9642, 1.0, 0.8249)))
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"inks\0" + bytes(78)
    tags = {b"desc": description, b"cprt": b"text\0\0\0\0none\0", b"wtpt": white, b"A2B0": table}
    index, data = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        index += tag + struct.pack(">2I", 132 + 12 * len(tags) + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    header = struct.pack(">I4xI4s4s4s", 132 + len(index) - 4 + len(data), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += bytes(12) + b"acsp" + bytes(28) + white[8:]
    return header.ljust(128, b"\0") + index + data


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_inks_have_the_colours_of_their_profile_which_does_not_describe_the_result(tmp_path: Path, suffix: str) -> None:
    PILImage.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / f"a{suffix}", icc_profile=inks())
    image = read_image(tmp_path / f"a{suffix}")
    assert image.metadata.icc is None
    assert np.abs(image.pixels.astype(int) - 119).max() <= 6  # L* of 50, not cyan


def test_a_camera_of_two_pictures_is_as_lossy_as_of_one(tmp_path: Path) -> None:
    shown = PILImage.fromarray(picture(16, 16))
    shown.save(tmp_path / "a.mpo", save_all=True, append_images=[shown])
    assert read_image(tmp_path / "a.mpo").lossy


def test_sizes_that_a_short_cannot_hold_become_long_ones(tmp_path: Path) -> None:
    image = Image(pixels=np.zeros((1, 70_000, 3), np.uint8), metadata=Metadata(exif=camera_exif()))
    assert write_image(tmp_path / "a.png", image) == ()
    exif = open_exif(read_image(tmp_path / "a.png").metadata.exif)
    assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] == 70_000


def test_a_resolution_in_centimetres_is_one_in_inches() -> None:
    exif = PILImage.Exif()
    exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = 100
    exif[ExifTags.Base.ResolutionUnit] = 3
    file = io.BytesIO()
    PILImage.new("RGB", (8, 8)).save(file, "WEBP", exif=exif.tobytes())
    assert decode(file.getvalue(), "a.webp").metadata.dpi == (254, 254)


def test_metadata_that_a_png_has_as_a_text_is_no_text(tmp_path: Path) -> None:
    xmp = b"\nxmp\n       4\n" + b"<x/>".hex().encode() + b"\n"
    image = decode(png((b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(xmp)), (b"tEXt", b"Title\0mine")), "a.png")
    assert image.metadata.texts == {"Title": "mine"}
    write_image(tmp_path / "b.png", image)
    assert b"Raw profile type" not in (tmp_path / "b.png").read_bytes()


def test_xmp_of_elements_fits_the_result_and_has_no_thumbnail() -> None:
    thumbnail = "<xmp:Thumbnails><rdf:Alt><rdf:li>AAAA</rdf:li></rdf:Alt></xmp:Thumbnails>"
    facts = "<tiff:Orientation>6</tiff:Orientation><exif:PixelXDimension> 8 </exif:PixelXDimension>"
    xmp = Metadata(xmp=xmp_of("", thumbnail + facts + "<xmp:Rating>5</xmp:Rating>")).resized(12, 20).xmp
    assert xmp is not None
    assert b"<tiff:Orientation>1</tiff:Orientation><exif:PixelXDimension>20</exif:PixelXDimension>" in xmp
    assert b"Thumbnails" not in xmp
    assert b"<xmp:Rating>5" in xmp


def with_thumbnail(*, before: bool) -> bytes:
    """Return EXIF of a maker's name and a thumbnail that claims all that follows it; ``before`` the name, or behind."""
    name, picture_ = b"Some maker\0", b"\xff\xd8thumbnail"
    first = struct.pack("<HHHII", 1, 271, 2, len(name), 0) + struct.pack("<I", 26)
    second = struct.pack("<H", 2) + struct.pack("<HHII", 513, 4, 1, 0) + struct.pack("<HHII", 514, 4, 1, 999) + bytes(4)
    data = bytearray(b"II*\0\x08\0\0\0" + first + second)
    parts = (picture_, name) if before else (name, picture_)
    for part in parts:
        at = len(data)
        data += part
        if part is name:
            struct.pack_into("<I", data, 18, at)
        else:
            struct.pack_into("<I", data, 26 + 2 + 8, at)
    return bytes(data)


@pytest.mark.parametrize("before", [False, True])
def test_a_thumbnail_takes_nothing_with_it(tmp_path: Path, before: bool) -> None:
    image = Image(pixels=picture(6, 8), metadata=Metadata(exif=with_thumbnail(before=before)))
    assert write_image(tmp_path / "a.jpg", image) == ()
    kept = read_image(tmp_path / "a.jpg").metadata.exif
    assert open_exif(kept)[ExifTags.Base.Make] == "Some maker"
    assert (b"thumbnail" in (kept or b"")) == before
