"""Animations: every frame is what a browser shows, for as long, and as often."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from upscale.errors import InputError, UnreadableImage
from upscale.images import FORMATS, Image, decode, read_image, write_image
from upscale.images.formats import ImageFormat, Several

SIZE = 8
NONE, BACKGROUND, PREVIOUS = 0, 1, 2
PALETTE = np.array([(200, 10, 20), (30, 220, 40), (50, 60, 230), (250, 250, 250)], np.uint8)
Levels = NDArray[np.uint8]


@dataclass(kw_only=True)
class Frame:
    """What a file says of a frame; ``levels`` ``[h, w]`` or ``[h, w, C]``."""

    levels: Levels
    top: int = 0
    left: int = 0
    dispose: int = NONE
    over: bool = False
    clear: int | None = None
    """The transparent one of the colours of a GIF."""


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def apng_parts(frames: list[Frame], depth: bytes, tables: bytes = b"") -> list[bytes]:
    """Return an animated PNG as its signature and chunks; ``depth`` is bits and type of colour."""
    header = struct.pack(">2I", SIZE, SIZE) + depth + bytes(3)
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), tables, chunk(b"acTL", struct.pack(">2I", len(frames), 3))]
    for index, frame in enumerate(frames):
        height, width = frame.levels.shape[:2]
        control = (2 * index - (index > 0), width, height, frame.left, frame.top, 1, 10, frame.dispose, frame.over)
        parts.append(chunk(b"fcTL", struct.pack(">5I2H2B", *control)))
        pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in frame.levels))
        parts.append(chunk(b"fdAT", struct.pack(">I", 2 * index) + pixels) if index else chunk(b"IDAT", pixels))
    return [*parts, chunk(b"IEND", b"")]


def apng(frames: list[Frame], depth: bytes = b"\x08\x06", tables: bytes = b"") -> bytes:
    return b"".join(apng_parts(frames, depth, tables))


def gif(frames: list[Frame], delay: int = 5) -> bytes:
    """Return a GIF of the colours of PALETTE."""
    data = b"GIF89a" + struct.pack("<2H3B", SIZE, SIZE, 0x81, 1, 0) + PALETTE.tobytes()
    for frame in frames:
        height, width = frame.levels.shape
        flags = frame.dispose + 1 << 2 | (frame.clear is not None)
        data += b"!\xf9\4" + struct.pack("<BHBx", flags, delay, frame.clear or 0)
        data += b"," + struct.pack("<4HB", frame.left, frame.top, width, height, 0) + compressed(frame.levels)
    return data + b";"


def compressed(levels: Levels) -> bytes:
    """Return ``levels``, 0 to 3, as the blocks of a GIF: every code has 3 bits, as the table never grows."""
    codes = [code for level in levels.flat for code in (4, level)] + [5]
    bits = sum(int(code) << 3 * index for index, code in enumerate(codes))
    data = bits.to_bytes(len(codes) * 3 // 8 + 1, "little")
    blocks = [data[at : at + 255] for at in range(0, len(data), 255)]
    return b"\2" + b"".join(bytes((len(block),)) + block for block in blocks) + b"\0"


def shown(image: Image) -> list[NDArray[np.float64]]:
    """Return each frame as ``[H, W, 4]``, colours times alpha, 0 to 255."""
    alphas = [np.full((SIZE, SIZE), 255) if frame.alpha is None else frame.alpha for frame in image.frames]
    return [
        np.dstack((frame.pixels * (alpha[..., None] / 255), alpha))
        for frame, alpha in zip(image.frames, alphas, strict=True)
    ]


def expected(frames: list[Frame], colours: list[Levels]) -> list[NDArray[np.float64]]:
    """Return the same by the words of the specifications, from ``[h, w, 4]`` of each frame."""
    canvas, results = np.zeros((SIZE, SIZE, 4)), []
    for frame, rgba in zip(frames, colours, strict=True):
        before = canvas.copy()
        for row, column in np.ndindex(*rgba.shape[:2]):
            place = row + frame.top, column + frame.left
            if max(place) >= SIZE:
                continue
            alpha = rgba[row, column, 3] / 255
            above = np.append(rgba[row, column, :3] * alpha, rgba[row, column, 3])
            canvas[place] = above + canvas[place] * (1 - alpha if frame.over else 0)
        results.append(canvas.copy())
        if frame.dispose == PREVIOUS:
            canvas = before
        elif frame.dispose == BACKGROUND:
            height, width = rgba.shape[:2]
            canvas[frame.top : frame.top + height, frame.left : frame.left + width] = 0
    return results


def random_frames(rng: np.random.Generator, *, whole: bool, channels: tuple[int, ...]) -> list[Frame]:
    """Return frames at random places; ``whole``: the first covers the picture."""
    frames = []
    for index in range(rng.integers(2, 6)):
        height, width = (SIZE, SIZE) if index == 0 and whole else rng.integers(1, SIZE + 1, 2)
        frames.append(
            Frame(
                levels=rng.integers(0, 256, (height, width, *channels), np.uint8),
                top=int(rng.integers(0, SIZE - height + 1)),
                left=int(rng.integers(0, SIZE - width + 1)),
                dispose=int(rng.integers(0, 3)),
                over=bool(rng.integers(0, 2)),
            )
        )
    return frames


@pytest.mark.parametrize("seed", range(20))
def test_frames_of_png_are_composed_as_specified(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = random_frames(rng, whole=True, channels=(4,))
    for frame in frames:
        frame.levels[..., 3] = rng.choice([0, 128, 255], frame.levels.shape[:2])
    results = shown(decode(apng(frames), "a.png"))
    for result, wanted in zip(results, expected(frames, [frame.levels for frame in frames]), strict=True):
        assert np.abs(result - wanted).max() <= 2


@pytest.mark.parametrize("seed", range(20))
def test_frames_of_gif_are_composed_as_browsers_do(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames, colours = random_frames(rng, whole=False, channels=()), []
    for frame in frames:
        frame.levels %= 4
        frame.over, frame.clear = True, (None, 0, 3)[rng.integers(3)]
        colours.append(np.dstack((PALETTE[frame.levels], np.where(frame.levels == frame.clear, 0, 255))))
    results = shown(decode(gif(frames), "a.gif"))
    np.testing.assert_array_equal(results, expected(frames, colours))


def test_the_only_picture_of_a_gif_may_be_smaller_than_it() -> None:
    image = decode(gif([Frame(levels=np.full((2, 3), 1, np.uint8), top=4, left=5)]), "a.gif")
    assert image.alpha is not None
    assert np.argwhere(image.alpha).tolist() == [[row, column] for row in (4, 5) for column in (5, 6, 7)]
    assert image.duration is None


def test_what_lies_beyond_a_gif_is_not_shown() -> None:
    whole = Frame(levels=np.zeros((SIZE, SIZE), np.uint8))
    beyond = [Frame(levels=np.ones((4, 4), np.uint8), top=top, left=left) for top, left in ((6, 6), (9, 0))]
    image = decode(gif([whole, *beyond]), "a.gif")
    assert [frame.pixels.shape for frame in image.frames] == 3 * [(SIZE, SIZE, 3)]
    assert [int((frame.pixels == PALETTE[1]).all(2).sum()) for frame in image.frames] == [0, 4, 4]


PLTE = chunk(b"PLTE", PALETTE.tobytes())


@pytest.mark.parametrize(
    ("depth", "tables", "colours", "alphas"),
    [
        (b"\x08\x03", PLTE, PALETTE[:3], [255, 255, 255]),
        (b"\x08\x03", PLTE + chunk(b"tRNS", b"\xff\x80"), PALETTE[:3], [255, 128, 255]),
        (b"\x08\x00", chunk(b"tRNS", b"\0\1"), [[0] * 3, [1] * 3, [2] * 3], [255, 0, 255]),
        (b"\x10\x00", b"", [[0] * 3, [1] * 3, [2] * 3], [255, 255, 255]),
    ],
    ids=["palette", "transparent palette", "grey", "16 bits"],
)
def test_frames_have_the_colours_of_their_file(
    depth: bytes, tables: bytes, colours: Sequence[Sequence[int]], alphas: list[int]
) -> None:
    deep = depth[0] == 16
    frames = [Frame(levels=np.full((SIZE, SIZE, 1 + deep), level, np.uint8)) for level in range(3)]
    image = decode(apng(frames, depth, tables), "a.png")
    for frame, colour, alpha in zip(image.frames, colours, alphas, strict=True):
        assert frame.pixels[3, 3].tolist() == list(colour)
        assert (255 if frame.alpha is None else frame.alpha[3, 3]) == alpha
    assert image.grayscale == (depth[1] == 0)
    assert ("is an animation of 16 bits; reduced to 8" in image.notices) == deep


def test_texts_behind_an_animation_are_found() -> None:
    *parts, end = apng_parts([Frame(levels=np.zeros((SIZE, SIZE, 4), np.uint8))] * 2, b"\x08\x06")
    data = b"".join((*parts, chunk(b"tEXt", b"Title\0behind"), end))
    assert decode(data, "a.png").metadata.texts == {"Title": "behind"}


def test_animations_without_some_of_their_frames_are_refused() -> None:
    parts = apng_parts([Frame(levels=np.full((SIZE, SIZE, 4), level, np.uint8)) for level in range(3)], b"\x08\x06")
    missing = parts[:-3] + parts[-1:]
    swapped = parts[:-5] + parts[-3:-1] + parts[-5:-3] + parts[-1:]
    for damaged, words in ((missing, "2 of 3 frames"), (swapped, "not in order")):
        with pytest.raises(UnreadableImage, match=words):
            decode(b"".join(damaged), "a.png")


def moving(times: list[float], loop: int | None = 0) -> Image:
    """Return frames of different colours that are shown for so many milliseconds."""
    frames = [
        Image(pixels=np.full((SIZE, SIZE, 3), 20 * index, np.uint8), duration=time, loop=loop)
        for index, time in enumerate(times)
    ]
    return replace(frames[0], following=tuple(frames[1:]))


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ([39.0] * 10, [40, 40, 40, 40, 40, 30, 40, 40, 40, 40]),
        ([33.0, 33.0, 33.0, 33.0], [30, 40, 30, 30]),
        ([5.0, 16.0, 500.0], [20, 20, 500]),
        ([700_000.0, 50.0], [655_350, 50]),
    ],
)
def test_gif_counts_in_hundredths_of_a_second_and_errors_do_not_add_up(
    tmp_path: Path, given: list[float], written: list[float]
) -> None:
    notices = write_image(tmp_path / "a.gif", moving(given))
    assert [frame.duration for frame in read_image(tmp_path / "a.gif").frames] == written
    assert ("GIF shows a frame for 20 ms at least" in notices) == (min(given) < 20)
    assert ("GIF shows a frame for 655.35 s at most" in notices) == (max(given) > 655_350)


@pytest.mark.parametrize("time", [70_001.0, 100_000.5, 1000 / 60, 0.0, 65_535_000.0])
def test_png_counts_in_fractions_of_a_second(tmp_path: Path, time: float) -> None:
    assert not write_image(tmp_path / "a.png", moving([time] * 3))
    found = [frame.duration or 0.0 for frame in read_image(tmp_path / "a.png").frames]
    assert sum(found) == pytest.approx(3 * time, rel=1e-4)


@pytest.mark.parametrize("row", [row for row in FORMATS if row.several is Several.FRAMES], ids=lambda row: row.name)
@pytest.mark.parametrize("loop", [None, 0, 3, 100_000])
def test_how_often_it_plays_is_kept_or_its_loss_told(tmp_path: Path, row: ImageFormat, loop: int | None) -> None:
    path = tmp_path / f"a{row.suffixes[0]}"
    told = any("how often it plays" in notice for notice in write_image(path, moving([50.0, 50.0], loop)))
    most = {"PNG": 2**31 - 1, "AVIF": 0}.get(row.name, 65_535)
    plays = 1 if loop is None else loop
    assert (read_image(path).loop or (loop is None and row.name == "GIF")) == min(plays, most)
    assert told == (plays > most)


def test_a_gif_that_names_no_time_is_shown_as_browsers_do(tmp_path: Path) -> None:
    frames = [Frame(levels=np.full((SIZE, SIZE), level, np.uint8)) for level in range(2)]
    image = decode(gif(frames, delay=0), "a.gif")
    write_image(tmp_path / "a.avif", image)
    assert [frame.duration for frame in read_image(tmp_path / "a.avif").frames] == [100, 100]


def test_a_time_that_cannot_be_written_is_an_error_of_its_picture(tmp_path: Path) -> None:
    still, *_ = moving([600_000.0]).frames  # frames that are equal become one, whose time is more than GIF can say
    with pytest.raises(InputError, match="GIF"):
        write_image(tmp_path / "a.gif", replace(still, following=(still, moving([50.0, 50.0]).following[0])))
