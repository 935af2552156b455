from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from PIL import Image as PILImage

from tests.conftest import Run, picture
from upscale.images import read_image


def test_watch_fetches_nothing_offline(upscale_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSCALE_HOME", str(tmp_path / "home"))
    result = upscale_command(["watch", ".", "-o", "out", "-m", "4x-ultrasharp", "--offline"], tmp_path)
    assert result.returncode == 1
    assert "4x-ultrasharp: licensed as CC-BY-NC" in result.stderr
    assert "--offline forbids to fetch it" in result.stderr


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let children be interrupted, as they are not where this process ignores it, run by a script in the background."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("interruptible")
def test_new_pictures_are_picked_up_when_complete_and_done_once(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    PILImage.fromarray(picture(40, 40)).save(folder / "old.png")
    whole = (folder / "old.png").read_bytes()
    command = [sys.executable, "-m", "upscale", "watch", str(folder), "-o", str(out), "-m", "bicubic", "-x", "2"]
    command += ["--interval", "1"]
    for expected in (["old.png", "new.png"], []):  # started again, it has nothing to do
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stderr is not None
                assert process.stderr.readline().startswith("watching")
                if expected:
                    assert process.stdout.readline().strip().endswith("old.png")
                    with (folder / "new.png").open("wb") as file:  # written slowly: over several looks
                        for start in range(0, len(whole), len(whole) // 25):
                            file.write(whole[start : start + len(whole) // 25])
                            file.flush()
                            time.sleep(0.1)
                    assert process.stdout.readline().strip().endswith("new.png")
                else:
                    time.sleep(3)
                process.send_signal(signal.SIGINT)
                rest, errors = process.communicate(timeout=20)
            finally:
                process.kill()  # or a failed assertion waits for it forever
        assert process.returncode == 130
        assert rest == ""
        assert "error" not in errors
    assert read_image(out / "new.png").pixels.shape == (80, 80, 3)


@contextmanager
def watching(folder: Path, *options: str) -> Iterator[tuple[IO[str], IO[str]]]:
    """Watch ``folder``, with ``out`` beside it, until the block ends; yield the program's output and errors."""
    command = [sys.executable, "-m", "upscale", "watch", str(folder), "-o", str(folder.with_name("out"))]
    command += ["-m", "bicubic", "--interval", "0.2", *(options or ("-x", "2"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stderr.readline().startswith("watching")
            yield process.stdout, process.stderr
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130


@pytest.mark.usefixtures("interruptible")
def test_a_clash_holds_up_nothing_for_good(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    for name in ("a.png", "b.png"):
        PILImage.fromarray(picture(8, 8)).save(folder / name)
    (out / "a.png").write_bytes(b"of someone else")
    with watching(folder) as (results, errors):
        assert results.readline().strip().endswith("b.png")
        assert "a.png: exists already" in errors.readline()
        assert errors.readline().startswith("hint: ")
        time.sleep(1)
        (out / "a.png").unlink()
        assert results.readline().strip().endswith("a.png")
        PILImage.fromarray(picture(8, 8)).save(folder / "c.png")
        (out / "c.png").write_bytes(b"of someone else")
        assert "c.png: exists already" in errors.readline()  # the other was told once


@pytest.mark.usefixtures("interruptible")
def test_a_result_whose_name_another_takes_is_made_again(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    PILImage.fromarray(picture(8, 8)).save(folder / "a.jpg")
    with watching(folder, "-x", "2", "-f", "png") as (results, _):
        assert results.readline().strip().endswith("a.png")
        PILImage.fromarray(picture(10, 10)).save(folder / "a.png")
        assert {Path(results.readline().strip()).name for _ in range(2)} == {"a.png", "a.jpg.png"}
        assert read_image(out / "a.jpg.png").pixels.shape == (16, 16, 3)
        assert read_image(out / "a.png").pixels.shape == (20, 20, 3)
        (folder / "a.png").unlink()
        assert results.readline().strip().endswith("a.png")
        assert read_image(out / "a.png").pixels.shape == (16, 16, 3)


@pytest.mark.usefixtures("interruptible")
def test_a_folder_that_is_away_for_a_while_is_watched_when_it_is_back(tmp_path: Path) -> None:
    folder, away = tmp_path / "in", tmp_path / "away"
    folder.mkdir()
    with watching(folder) as (results, errors):
        folder.rename(away)
        assert "No such file or directory" in errors.readline()
        PILImage.fromarray(picture(8, 8)).save(away / "a.png")
        away.rename(folder)
        assert results.readline().strip().endswith("a.png")


@pytest.mark.usefixtures("interruptible")
def test_it_has_the_options_of_a_single_run(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    PILImage.fromarray(picture(8, 10)).save(folder / "a.png")
    options = ("--long", "25", "-f", "webp", "--suffix", "{model}", "--strip", "--device", "cpu,cpu")
    with watching(folder, *options) as (results, _):
        assert Path(results.readline().strip()).name == "a_{model}.webp"
    with PILImage.open(tmp_path / "out" / "a_{model}.webp") as result:
        assert (result.size, "xmp" in result.info) == ((25, 20), False)


@pytest.mark.parametrize("output", ["in", "there.txt", "new.png"])
def test_what_is_no_folder_of_results_is_refused_at_once(tmp_path: Path, output: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "there.txt").write_text("text")
    command = [sys.executable, "-m", "upscale", "watch", "in", "-o", output, "-m", "bicubic", "-x", "2"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert f"{output}: is not a folder of results" in result.stderr
