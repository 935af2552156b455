"""``upscale try``."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tests.conftest import picture
from upscale.bench.sheet import GAP, LABEL, detailed, sheet
from upscale.cli import main
from upscale.images import Image, read_image, write_image


def code_of(arguments: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_part_is_shown_as_each_network_enlarges_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "my photo.png"
    PILImage.fromarray(picture(90, 120)).save(source)
    asked = ["try", str(source), "-m", "bicubic", "-m", "nearest", "-x", "3", "--size", "32", "--at", "40,50"]
    assert not code_of(asked)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"upscale {shlex.quote(str(source))} -x 3 -m {name}" for name in ("bicubic", "nearest")]
    shown = read_image(tmp_path / "my photo_try.png").pixels
    assert shown.shape == (96 + LABEL + 2 * GAP, 2 * 96 + 3 * GAP, 3)
    part = read_image(source).pixels[50 - 16 : 50 + 16, 40 - 16 : 40 + 16]
    repeated = part.repeat(3, axis=0).repeat(3, axis=1)
    assert np.array_equal(shown[GAP : GAP + 96, 96 + 2 * GAP : 2 * 96 + 2 * GAP], repeated)
    page = (tmp_path / "my photo_try.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2
    assert "-x 3 -m nearest" in page
    assert code_of(asked) == 1
    assert "--force" in capsys.readouterr().err
    assert not code_of([*asked, "--force"])


def test_the_picture_itself_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "holiday.png"
    PILImage.fromarray(picture(20, 20)).save(source)
    before = source.read_bytes()
    assert code_of(["try", str(source), "-o", str(tmp_path / "holiday"), "-m", "bicubic", "--force"]) == 1
    assert "is an input; it will not be replaced" in capsys.readouterr().err
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("output", "name"),
    [(".", "a_try"), ("", "a_try"), ("to/", "to/a_try"), ("t.v2", "t.v2"), ("b.PNG", "b"), ("b.html", "b")],
)
def test_names_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    PILImage.fromarray(picture(20, 20)).save("a.png")
    (tmp_path / "to").mkdir()
    assert not code_of(["try", "a.png", "-o", output, "-m", "bicubic"])
    assert {f"{name}.png", f"{name}.html"} <= {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}


def test_part_is_where_most_detail_is() -> None:
    even = np.full((96, 160, 3), 90, np.uint8)
    even[48:80, 96:128] = np.random.default_rng(0).integers(0, 255, (32, 32, 3))
    assert detailed(even, 32, 32) == (48, 96)


def test_long_names_stay_under_their_pictures() -> None:
    shown = sheet({"a" * 200: np.zeros((16, 64, 3), np.uint8)}, {})
    assert shown.shape == (16 + LABEL + 2 * GAP, 64 + 2 * GAP, 3)
    assert (shown[:, -GAP:] == 255).all()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-m", "bicubix"], 2, "unknown model 'bicubix'"),
        (["--at", "middle"], 2, "'middle' is not a place"),
        (["--at", "99,3"], 2, "outside of 20x10"),
        (["--at", "²,3"], 2, "'²,3' is not a place"),
        (["-o", "none/such"], 2, "there is no folder"),
    ],
)
def test_slips(
    arguments: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "a.png"
    write_image(source, Image(pixels=np.zeros((10, 20, 3), np.uint8)))
    assert code_of(["try", str(source), *arguments]) == code
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
