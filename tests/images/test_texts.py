"""Texts of PNG, comments of JPEG and GIF, and what PNG says of colours where it has no profile."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from PIL.PngImagePlugin import PngInfo

from tests.conftest import picture
from upscale.images import Image, read_image, write_image
from upscale.images.metadata import Provenance

TEXTS = {
    "parameters": "a castle, oil painting\nSteps: 20, Seed: 7",
    "Title": "Schloß",
    "Comment": "from the web",
    "Author": "北斎",
    "workflow": '{"nodes": []}' * 4000,
}


def saved(path: Path, more: Mapping[str, bytes] | None = None, *, frames: int = 1, deep: bool = False) -> Path:
    """Write a PNG with all of TEXTS, half of them after the picture."""
    chunks = PngInfo()
    for keyword, text in TEXTS.items():
        if keyword in ("Author", "Title"):
            chunks.add_itxt(keyword, text)
        else:
            chunks.add_text(keyword, text, zip=keyword == "workflow")
    for name, data in (more or {}).items():
        chunks.add(name.encode(), data)
    pixels = picture(6, 8)
    array = pixels[..., 0].astype(np.uint16) * 257 if deep else pixels
    others = [PILImage.fromarray(picture(6, 8, seed)) for seed in range(1, frames)]
    PILImage.fromarray(array).save(path, pnginfo=chunks, save_all=frames > 1, append_images=others)
    if not others:
        data = path.read_bytes()
        at, end = data.index(b"tEXtparameters") - 4, data.index(b"IEND") - 4
        length = 12 + struct.unpack(">I", data[at : at + 4])[0]
        path.write_bytes(data[:at] + data[at + length : end] + data[at : at + length] + data[end:])
    return path


def texts_of(path: Path) -> dict[str, str]:
    with PILImage.open(path) as opened:
        opened.load()
        return {str(keyword): str(text) for keyword, text in opened.text.items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["eight bits", "deep", "animated"])
def test_png_keeps_all_texts(tmp_path: Path, kind: str) -> None:
    source = saved(tmp_path / "a.png", frames=3 if kind == "animated" else 1, deep=kind == "deep")
    image = read_image(source)
    made = Provenance(tool="upscale 1", model="compact", weights=(), settings="x4")
    frames = [replace(frame, metadata=frame.metadata.signed(made)) for frame in image.frames]
    assert not write_image(tmp_path / "b.png", replace(frames[0], following=tuple(frames[1:])))
    found = texts_of(tmp_path / "b.png")
    assert "urn:upscale:provenance:1" in found.pop("XML:com.adobe.xmp")
    assert found == TEXTS


@pytest.mark.parametrize(("suffix", "lost"), [("jpg", 4), ("gif", 4), ("webp", 5), ("tif", 5), ("bmp", 5)])
def test_other_formats_keep_the_comment_at_most_and_say_so(tmp_path: Path, suffix: str, lost: int) -> None:
    image = read_image(saved(tmp_path / "a.png"))
    notices = [notice for notice in write_image(tmp_path / f"b.{suffix}", image) if "text" in notice]
    assert len(notices) == 1
    assert notices[0].endswith(f"and {lost - 3} more")
    assert ("Comment" in notices[0]) == (lost == 5)
    with PILImage.open(tmp_path / f"b.{suffix}") as opened:
        assert opened.info.get("comment") == (b"from the web" if lost == 4 else None)


def test_comments_go_from_jpeg_to_jpeg_gif_and_png(tmp_path: Path) -> None:
    PILImage.fromarray(picture(6, 8)).save(tmp_path / "a.jpg", comment="Grüße".encode("latin-1"))
    image = read_image(tmp_path / "a.jpg")
    for suffix in ("jpg", "gif"):
        write_image(tmp_path / f"b.{suffix}", image)
        with PILImage.open(tmp_path / f"b.{suffix}") as opened:
            assert opened.info["comment"] == "Grüße".encode()
    assert not write_image(tmp_path / "b.png", image)
    assert texts_of(tmp_path / "b.png") == {"Comment": "Grüße"}
    assert write_image(tmp_path / "b.bmp", image) == ("BMP has no place for the text Comment",)


def test_a_comment_too_long_for_jpeg_is_left_out_with_a_notice(tmp_path: Path) -> None:
    image = Image(pixels=picture(6, 8))
    image = replace(image, metadata=replace(image.metadata, texts={"Comment": "x" * 70_000}))
    assert write_image(tmp_path / "a.jpg", image) == ("JPEG has no place for the text Comment",)
    assert read_image(tmp_path / "a.jpg").metadata.texts == {}


def test_stripped_pictures_have_no_texts_but_keep_what_makes_their_colours(tmp_path: Path) -> None:
    gamma = struct.pack(">I", 100_000)
    metadata = read_image(saved(tmp_path / "a.png", {"gAMA": gamma})).metadata.stripped()
    assert not metadata.texts
    assert metadata.colour == {b"gAMA": gamma}


@pytest.mark.parametrize("frames", [1, 2])
def test_png_keeps_gamma_and_primaries(tmp_path: Path, frames: int) -> None:
    points = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    source = saved(tmp_path / "a.png", {"gAMA": struct.pack(">I", 55_556), "cHRM": points}, frames=frames)
    write_image(tmp_path / "b.png", read_image(source))
    with PILImage.open(tmp_path / "b.png") as opened:
        assert opened.info["gamma"] == 0.55556
        assert opened.info["chromaticity"][4] == 0.21
    (notice,) = [said for said in write_image(tmp_path / "b.webp", read_image(source)) if "colours" in said]
    assert "gamma" in notice


@pytest.mark.parametrize(
    "chunks", [{"gAMA": struct.pack(">I", 45_455)}, {"sRGB": b"\0", "gAMA": struct.pack(">I", 99)}]
)
def test_what_is_srgb_anyway_needs_no_words(tmp_path: Path, chunks: dict[str, bytes]) -> None:
    image = read_image(saved(tmp_path / "a.png", chunks))
    assert not [said for said in write_image(tmp_path / "b.webp", image) if "colours" in said]
    write_image(tmp_path / "b.png", image)
    assert read_image(tmp_path / "b.png").metadata.colour == {name.encode(): data for name, data in chunks.items()}
