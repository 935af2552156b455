"""Every format, mode, depth, orientation and profile: enlarged, and read back by Pillow, OpenCV and tifffile."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import ExifTags, ImageCms
from PIL import Image as PILImage

from upscale.engine import Upscaler
from upscale.images import FORMATS, read_image, write_image
from upscale.images.formats import is_installed
from upscale.images.metadata import upright
from upscale.models import build
from upscale.options import Precision, Target, Tiling

HEIGHT, WIDTH = 24, 32
DPI = 300
UNDO = {6: 8, 8: 6}
"""Orientations that undo another one; the rest undo themselves."""


def profile_of(kind: str) -> bytes:
    """Return an ICC profile (ICC.1:2001-04) of gamma 2.2 with these primaries, adapted to D50, or of grey."""
    primaries = {
        "adobe": {"r": (0.60974, 0.31111, 0.01947), "g": (0.20528, 0.62567, 0.06087), "b": (0.14919, 0.06322, 0.74457)},
        "wide": {"r": (0.79767, 0.28804, 0.0), "g": (0.13519, 0.71188, 0.0), "b": (0.03134, 0.00009, 0.82491)},
        "grey": {},
    }[kind]

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH2x", 1, round(2.2 * 256))
    name = kind.encode() + b"\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78)
    tags = {b"desc": description, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    for letter, values in primaries.items():
        tags |= {letter.encode() + b"XYZ": xyz(values), letter.encode() + b"TRC": curve}
    if not primaries:
        tags[b"kTRC"] = curve
    table, data = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        table += tag + struct.pack(">2I", 132 + 12 * len(tags) + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    space = b"RGB " if primaries else b"GRAY"
    header = struct.pack(">I4xI4s4s4s", 132 + len(table) - 4 + len(data), 0x02400000, b"mntr", space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + xyz((0.9642, 1.0, 0.8249))[8:]
    return header.ljust(128, b"\0") + table + data


PROFILES = {kind: profile_of(kind) for kind in ("adobe", "wide", "grey")}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A source file."""

    suffix: str
    mode: str
    """Pillow's name, also for 16 bits."""
    deep: bool = False
    orientation: int = 1
    profile: str | None = None

    def __str__(self) -> str:
        depth = 16 if self.deep else 8
        return f"{self.suffix[1:]}-{self.mode}-{depth}-{self.orientation}-{self.profile or 'plain'}"


MODES = {
    ".png": ("1", "L", "LA", "P", "RGB", "RGBA"),
    ".jpg": ("L", "RGB", "CMYK"),
    ".webp": ("RGB", "RGBA"),
    ".tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"),
    ".bmp": ("1", "L", "P", "RGB"),
    ".avif": ("RGB", "RGBA"),
    ".gif": ("P",),
    ".heic": ("L", "RGB", "RGBA"),
    ".jxl": ("L", "RGB", "RGBA"),
}
DEEP = {".png": ("L", "RGB", "RGBA"), ".tif": ("L", "RGB", "RGBA")}
LOSSY = (".jpg", ".avif", ".heic")


def cases() -> Iterator[Case]:
    for suffix, modes in MODES.items():
        every = [Case(suffix=suffix, mode=mode) for mode in modes]
        every += [Case(suffix=suffix, mode=mode, deep=True) for mode in DEEP.get(suffix, ())]
        for case in every:
            if suffix in (".bmp", ".gif"):  # which hold neither
                yield case
                continue
            grey = case.mode in ("1", "L", "LA")
            profiles = (None, "grey") if grey else (None,) if case.mode == "CMYK" else (None, "adobe", "wide")
            for orientation, profile in product(range(1, 9), profiles):
                yield replace(case, profile=profile, orientation=orientation)


def planes(case: Case) -> NDArray[Any]:
    """Return the upright picture ``[H, W, C]``: four quarters of one colour each; 16 bits are as dark as 8 bits are."""
    quarters = [(200, 60, 40, 255), (60, 180, 70, 120), (50, 70, 190, 255), (180, 170, 60, 120)]
    if case.mode == "1":
        quarters = [(255,) * 4, (0,) * 4, (0,) * 4, (0,) * 4]
    pixels = np.array(quarters).reshape(2, 2, 4).repeat(HEIGHT // 2, 0).repeat(WIDTH // 2, 1)
    channels = {"L": [0], "1": [0], "LA": [0, 3], "RGBA": [0, 1, 2, 3]}.get(case.mode, [0, 1, 2])
    return pixels[..., channels].astype(np.uint16 if case.deep else np.uint8)


def write_source(path: Path, case: Case) -> None:
    """Write the file of ``case`` by means of other packages."""
    stored = np.ascontiguousarray(upright(planes(case), UNDO.get(case.orientation, case.orientation)))
    icc = None if case.profile is None else PROFILES[case.profile]
    exif = PILImage.Exif()
    exif[ExifTags.Base.Orientation] = case.orientation
    exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = DPI
    if case.deep and case.suffix == ".tif":
        tags: list[Any] = [(274, "H", 1, case.orientation, True)]
        tifffile.imwrite(
            path,
            stored.squeeze(),
            photometric="minisblack" if case.mode == "L" else "rgb",
            resolution=(DPI, DPI),
            resolutionunit=2,
            iccprofile=icc,
            extratags=tags,
            extrasamples=["unassalpha"] if case.mode == "RGBA" else None,
        )
    elif case.deep:
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[stored.shape[2]]
        data = bytes(cv2.imencode(".png", stored[..., order])[1])
        chunks = [(b"pHYs", struct.pack(">IIB", *[round(DPI / 0.0254)] * 2, 1)), (b"eXIf", exif.tobytes()[6:])]
        chunks += [] if icc is None else [(b"iCCP", b"x\0\0" + zlib.compress(icc))]
        packed = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
        path.write_bytes(data[:33] + b"".join(packed) + data[33:])
    else:
        opened = PILImage.fromarray(stored.squeeze())
        if case.mode == "P":
            opened = opened.quantize(8)
        elif case.mode != opened.mode:
            opened = opened.convert(case.mode)
        options: dict[str, Any] = {"dpi": (DPI, DPI), "exif": exif.tobytes(), "icc_profile": icc}
        if case.suffix in (".bmp", ".gif"):
            options = {"dpi": (DPI, DPI)}
        lossless = {".webp": {"lossless": True}, ".jxl": {"lossless": True}}.get(case.suffix, {"quality": 95})
        opened.save(path, **({key: value for key, value in options.items() if value is not None} | lossless))


@pytest.fixture(scope="module")
def upscaler() -> Upscaler:
    return Upscaler([build({"arch": "nearest"}, "test")], torch.device("cpu"), Precision.FP32, Tiling())


@pytest.mark.parametrize("case", cases(), ids=str)
def test_what_goes_in_comes_out(tmp_path: Path, upscaler: Upscaler, case: Case) -> None:
    row = next(row for row in FORMATS if case.suffix in row.suffixes)
    if not is_installed(row):
        pytest.skip(f"{row.plugin} is not installed")
    source, result = tmp_path / f"in{case.suffix}", tmp_path / f"out{case.suffix}"
    write_source(source, case)
    image = read_image(source)
    write_image(result, upscaler.upscale(image, Target.parse("2")).image)

    given = planes(case)
    grey_kept = given.shape[2] < 3 and case.suffix != ".webp"
    transparent = case.mode in ("LA", "RGBA")
    tolerance = 6 if case.suffix in LOSSY or case.mode == "CMYK" else 0
    with PILImage.open(result) as opened:
        assert opened.size == (2 * WIDTH, 2 * HEIGHT)
        assert int(opened.getexif().get(ExifTags.Base.Orientation, 1)) == 1
        kept = None if case.profile is None or (case.profile == "grey" and not grey_kept) else PROFILES[case.profile]
        if case.suffix != ".jxl":  # which keeps what a profile means, in its own words
            assert opened.info.get("icc_profile") == kept
        if case.suffix != ".gif":
            tags = opened.getexif()
            dpi = opened.info.get("dpi") or (tags[ExifTags.Base.XResolution], tags[ExifTags.Base.YResolution])
            assert [round(float(value)) for value in dpi] == [DPI, DPI]
        if not case.deep:
            mode = ("L" if grey_kept else "RGB") + "A" * transparent
            compare(np.asarray(opened.convert(mode)), given, tolerance)
    if case.suffix == ".tif":
        page = tifffile.imread(result)
        assert page.dtype == given.dtype
        compare(page, given, tolerance)
        with tifffile.TiffFile(result) as file:
            first = file.pages.first
            assert first.tags.get(274) is None or first.tags[274].value == 1
            assert (first.iccprofile or None) == kept
            assert first.get_resolution(2) == (DPI, DPI)
    array = cv2.imread(str(result), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    premultiplied = case.suffix == ".tif" and transparent and not case.deep  # so does OpenCV read it
    if array is not None and case.suffix != ".gif" and not premultiplied:
        assert array.dtype == given.dtype
        colours = array if array.ndim == 2 else array[..., [2, 1, 0, 3][: array.shape[2]]]
        compare(colours, given, tolerance)


def compare(result: NDArray[Any], given: NDArray[Any], tolerance: int) -> None:
    """Compare what another program reads with the upright picture, its edges left out."""
    result = result.reshape(2 * HEIGHT, 2 * WIDTH, -1)
    if result.shape[2] > given.shape[2]:  # grey shown as colour
        given = given[..., [0, 0, 0, 1][: result.shape[2]]]
    assert result.shape[2] == given.shape[2]
    twice = given.repeat(2, 0).repeat(2, 1)
    inside = [slice(4, HEIGHT - 4), slice(HEIGHT + 4, 2 * HEIGHT - 4)]
    across = [slice(4, WIDTH - 4), slice(WIDTH + 4, 2 * WIDTH - 4)]
    for rows in inside:
        for columns in across:
            difference = result[rows, columns].astype(int) - twice[rows, columns]
            assert np.abs(difference.mean((0, 1))).max() <= tolerance


def test_profiles_are_ones_that_others_read() -> None:
    for data in PROFILES.values():
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        assert profile.profile.version == 2.4
