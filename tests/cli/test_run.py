"""``upscale INPUTS...``: options that say what comes out, and streams."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from rich.console import Console
from torch import Tensor

from tests.conftest import picture
from upscale.cli import console, main
from upscale.images import Pixels
from upscale.inference import Network, Progress

Outcome = tuple[int, str, str]


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Outcome]]:
    """Run the program in ``tmp_path`` with bicubic interpolation; return exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    PILImage.fromarray(picture(12, 10)).save(tmp_path / "a.png")

    def run(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as caught:
            main([*arguments, "-m", "bicubic"])
        streams = capsys.readouterr()
        return int(caught.value.code or 0), streams.out, streams.err

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)  # two networks share the cores, and take a part each


def test_the_collector_rests_while_pytorch_is_imported_and_no_longer(tmp_path: Path) -> None:
    PILImage.fromarray(picture(12, 10)).save(tmp_path / "a.png")
    program = (
        "import gc, sys; from upscale.cli import main\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('torch', 'torch.export'): print(name, gc.isenabled(), file=sys.stderr)\n"
        "sys.meta_path.insert(0, Watch())\n"
        "try: main(['a.png', '-m', 'bicubic'])\n"
        "finally: print('end', gc.isenabled(), gc.get_freeze_count() > 10_000, file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stderr.splitlines() == ["torch False", "torch.export False", "end True True"]
    assert gc.isenabled()


def test_an_ordinary_picture_does_not_wait_for_libraries_that_it_does_not_need(tmp_path: Path) -> None:
    PILImage.fromarray(picture(12, 10)).save(tmp_path / "a.jpg")
    program = (
        "import sys; from upscale.cli import main\n"
        "try: main(['a.jpg', '-m', 'compact-x2', '-x', '2'])\n"
        "finally: print([name for name in ('httpx', 'filelock', 'cv2') if name in sys.modules], file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stderr.splitlines()[-1] == "[]"
    assert (tmp_path / "a_x2.jpg").is_file()


@pytest.mark.parametrize(("name", "end"), [("a.png", "decoded\nready\n"), ("bad.png", "decoded\nready\nerror: ")])
def test_a_single_picture_is_decoded_while_pytorch_is_imported(tmp_path: Path, name: str, end: str) -> None:
    PILImage.fromarray(picture(12, 10)).save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    program = (
        "import sys, threading; import upscale.images as images; from upscale.cli import main\n"
        "decoded, decode = threading.Event(), images.decode\n"
        "def watched(data, name):\n"
        "    print('decoded', file=sys.stderr, flush=True); decoded.set(); return decode(data, name)\n"
        "images.decode = watched\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name != 'torch.export': return\n"
        "        print('ready' if decoded.wait(60) else 'late', file=sys.stderr, flush=True)\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"main([{name!r}, '-m', 'bicubic', '-x', '2', '-q'])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert result.stderr.startswith(end)
    assert result.stderr.count("decoded") == 1
    assert (result.returncode == 0) == (tmp_path / "a_x2.png").exists() == (name == "a.png")


@pytest.mark.parametrize(
    ("arguments", "name", "size"),
    [
        (["-x", "2.5"], "a_x2.5.png", (25, 30)),
        (["--width", "30"], "a_30w.png", (30, 36)),
        (["--height", "30"], "a_30h.png", (25, 30)),
        (["--long", "24"], "a_24l.png", (20, 24)),
        (["--short", "20"], "a_20s.png", (20, 24)),
        (["--megapixels", "0.00048"], "a_0.00048mp.png", (20, 24)),
        (["--fit", "20x100"], "a_20x100.png", (20, 24)),
        (["--at-least", "20x100"], "a_20x100.png", (83, 100)),
        (["--outscale", "2"], "a_x2.png", (20, 24)),
        (["-s", "2", "--suffix", "out"], "a_out.png", (20, 24)),
        (["-x", "2", "--name", "{stem}_{scale}x{ext}"], "a_2x.png", (20, 24)),
        (["-x", "2", "-g", "-1", "-j", "1:2:2", "-t", "0"], "a_x2.png", (20, 24)),
        (["-x", "2", "-g", "-1,-1"], "a_x2.png", (20, 24)),
        (["-x", "2", "--fit", "3x3"], None, None),
        (["--fit", "3"], None, None),
        (["--width", "2.5"], None, None),
        (["--name", "{nothing}"], None, None),
        (["--background", "no-colour"], None, None),
        (["-dn", "0.5"], None, None),
        (["-g", "first"], None, None),
        (["-j", "many"], None, None),
    ],
)
def test_sizes_and_names(
    run: Callable[..., Outcome], tmp_path: Path, arguments: list[str], name: str | None, size: tuple[int, int] | None
) -> None:
    code, out, err = run("a.png", *arguments)
    if name is None:
        assert code == 2
        assert err.startswith("error: --")
        assert "hint: " in err
        assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    else:
        assert (code, out.strip()) == (0, name)
        with PILImage.open(tmp_path / name) as result:
            assert result.size == size


def test_habits_of_other_tools(run: Callable[..., Outcome], tmp_path: Path) -> None:
    assert run("-i", "a.png", "-o", "out", "-s", "2", "-f", "jpg")[0] == 0
    assert (tmp_path / "out" / "a.jpg").exists()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["-i", "a.png", "-x"], "--tta"),
        (["-x", "-f", "png", "-i", "a.png"], "--tta"),
        (["-x", "a.png"], "--tta"),
        (["a.png", "--fp32"], "--precision fp32"),
        (["a.png", "-w", "1920"], "--width N"),
        (["a.png", "--tile_pad=10"], "--overlap N"),
        (["a.png", "-n", "RealESRGAN_x4plus"], "'realesrgan-x4plus'"),
        (["a.png", "-n", "RealESRGAN_x4plus_anime_6B"], "'realesrgan-x4plus-anime'"),
    ],
)
def test_habits_that_mean_something_else_here_are_answered(
    capsys: pytest.CaptureFixture[str], arguments: list[str], hint: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code in (1, 2)
    assert hint in " ".join(capsys.readouterr().err.partition("hint: ")[2].split())


@pytest.mark.parametrize(("word", "command"), [("trian", "train"), ("bnech", "bench"), ("model", "models")])
def test_a_misspelt_command_is_answered(run: Callable[..., Outcome], tmp_path: Path, word: str, command: str) -> None:
    code, _, err = run(word, "data")
    assert code == 2
    assert f"did you mean `upscale {command}`?" in err
    PILImage.fromarray(picture(8, 8)).save(tmp_path / word, "PNG")
    assert run(word, "-m", "bicubic", "-x", "2", "-f", "png")[0] == 0


def test_a_list_of_inputs(run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PILImage.fromarray(picture(8, 8)).save(tmp_path / "b c.png")
    (tmp_path / "list.txt").write_text("a.png\n\nb c.png\n")
    code, out, _ = run("--list", "list.txt", "-x", "2")
    assert code == 0
    assert out.split("\n")[:2] == ["a_x2.png", "b c_x2.png"]
    assert run("--list", "gone.txt")[0] == 1
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfb c.png\n")))
    assert run("--list", "-", "-x", "3")[1] == "b c_x3.png\n"
    assert run("-", "--list", "-", "-x", "3")[0] == 2


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"lat\xe9.png")
    try:
        PILImage.fromarray(picture(8, 8)).save(tmp_path / name)
    except OSError:
        pytest.skip("this file system wants UTF-8")
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    for more in ([], ["--json", "--force"]):
        command = [sys.executable, "-m", "upscale", name, "-x", "2", "-m", "bicubic", *more]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert events[-2]["output"] == os.fsdecode(b"lat\xe9_x2.png")


def test_the_bars_of_a_terminal_do_not_run_into_names(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = (Console(file=io.StringIO(), force_terminal=True, width=80, soft_wrap=True) for _ in range(2))
    monkeypatch.setattr(console, "out", out)
    monkeypatch.setattr(console, "err", err)
    assert run("a.png", "-x", "2")[0] == 0
    assert isinstance(err.file, io.StringIO)
    assert "\x1b[2Ka_x2.png\n" in err.file.getvalue()  # the line of the bar erased, then the name


def test_names_go_to_standard_output_while_bars_go_to_a_terminal(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "err", Console(file=io.StringIO(), force_terminal=True, width=80, soft_wrap=True))
    assert run("a.png", "-x", "2")[:2] == (0, "a_x2.png\n")


def test_what_the_system_refuses_is_one_line(run: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run("a" * 300 + ".png", "-x", "2")
    assert (code, err.count("error: ")) == (1, 1)
    with pytest.raises(SystemExit) as caught:
        main(["models", "export", "compact-x4", "-o", "a" * 300 + ".safetensors"])
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_no_picture_is_named(run: Callable[..., Outcome]) -> None:
    code, _, err = run("-x", "2")
    assert code == 2
    assert "no picture is named" in err


def test_pictures_through_pipes(tmp_path: Path) -> None:
    data = io.BytesIO()
    PILImage.fromarray(picture(12, 10)).save(data, "BMP")
    command = [sys.executable, "-m", "upscale", "-", "-x", "2", "-m", "bicubic"]
    done = subprocess.run(
        [*command, "-f", "webp"], input=data.getvalue(), capture_output=True, check=True, cwd=tmp_path
    )
    with PILImage.open(io.BytesIO(done.stdout)) as result:
        assert (result.format, result.size) == ("WEBP", (20, 24))
    assert done.stderr == b""
    gray = io.BytesIO()
    PILImage.new("LA", (12, 10)).save(gray, "PNG")
    done = subprocess.run([*command, "-f", "jpg"], input=gray.getvalue(), capture_output=True, check=True, cwd=tmp_path)
    assert done.stderr.startswith(b"note: standard input: JPEG has no transparency; laid on white")
    failed = subprocess.run(command, input=b"text", capture_output=True, check=False, cwd=tmp_path)
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert failed.stderr.startswith(b"error: standard input: not an image")


def test_dry_run_says_everything_and_does_nothing(run: Callable[..., Outcome], tmp_path: Path) -> None:
    code, out, err = run("a.png", "-x", "2", "--dry-run")
    assert code == 0
    assert out.strip() == "a.png 10x12 -> a_x2.png 20x24"
    assert err.startswith("1 picture, 0.0 megapixels")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    (start, planned) = [json.loads(line) for line in run("a.png", "-x", "2", "--dry-run", "--json")[1].splitlines()]
    assert start == {"event": "start", "schema": 1, "version": start["version"], "pictures": 1}
    assert (planned["event"], planned["width"], planned["height"]) == ("plan", 20, 24)


def test_dry_run_of_a_very_large_result_knows_that_it_is_never_whole(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    PILImage.new("1", (12_500, 12_500)).save(tmp_path / "wide.png")
    code, out, err = run("wide.png", "-x", "8", "-f", "tif", "--dry-run")
    assert (code, out.strip()) == (0, "wide.png 12500x12500 -> wide_x8.tif 100000x100000")
    assert "10000.0 megapixels, about 17000 MB of disk and 1006 MB of memory" in err


def test_events(run: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "bad.png").write_text("text")

    def events() -> list[dict[str, object]]:
        code, out, _ = run("in", "-x", "2", "--json")
        assert code == 1
        return [json.loads(line) for line in out.splitlines()]

    assert [event["event"] for event in events()] == ["start", "tile", "done", "failed", "end"]
    again = events()
    assert [event["event"] for event in again] == ["start", "skipped", "failed", "end"]
    assert again[1]["reason"] == "unchanged"
    assert again[2]["earlier"] is True
    assert again[3] == {"event": "end", "done": 0, "skipped": 1, "failed": 1}


def test_what_ends_a_run_is_an_event_too(run: Callable[..., Outcome]) -> None:
    code, out, err = run("gone.png", "-x", "2", "--json")
    (event,) = [json.loads(line) for line in out.splitlines()]
    assert (code, event["event"], event["error"]) == (1, "error", "gone.png: no such file or folder")
    assert err == "error: gone.png: no such file or folder\n"
    assert run("gone.png", "-x", "2")[1] == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["a.png", "--quality", "500"], 2, "--quality"),
        (["a.png", "--bogus"], 2, "--bogus"),
        (["a.png", "--fp32"], 2, "--fp32"),
        (["compare", "a.png"], 2, "B"),
        (["check", "a.png", "gone.png"], 1, "gone.png"),
        (["check", "a.png", "a.png", "--report", "a" * 300 + ".html"], 1, "aaa"),  # a refusal of the system's
    ],
)
def test_every_mistake_is_an_event(
    run: Callable[..., Outcome], capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--json"])
    (event,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (caught.value.code, set(event), event["event"]) == (code, {"event", "error", "hint"}, "error")
    assert said in event["error"]


@pytest.mark.parametrize(("output", "count"), [("b.png", 1), ("b.jpg", 0)])
def test_a_quality_that_changes_nothing_is_told(run: Callable[..., Outcome], output: str, count: int) -> None:
    code, _, err = run("a.png", "-x", "2", "-o", output, "--quality", "80")
    assert (code, err.count("changes nothing")) == (0, count)


def test_quiet_tells_each_error_once(run: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    code, out, err = run("a.png", "bad.png", "-x", "2", "-q")
    assert (code, out, err.count("bad.png")) == (1, "", 1)
    assert err.endswith("1 done, 1 failed\n")


def test_a_dry_run_of_what_failed_lists_what_would_be_done(run: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "bad.png").write_text("text")
    assert run("in", "-x", "2")[0] == 1
    assert run("in", "-x", "2", "--retry-failed", "--dry-run")[1] == "in/bad.png ? -> in_x2/bad.png ?\n"
    (tmp_path / "in" / "bad.png").unlink()
    code, out, err = run("in", "-x", "2", "--retry-failed", "--dry-run")
    assert (code, out, err.startswith("0 pictures")) == (0, "", True)


def test_an_input_that_cannot_be_used_does_not_keep_the_others(run: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    PILImage.new("1", (40_000, 2)).save(tmp_path / "wide.jpg")  # x2 is more than JPEG can be
    inputs = ("gone.png", "a.png", "empty", "wide.jpg", "b*.png")
    code, out, err = run(*inputs, "-x", "2")
    assert (code, out) == (1, "a_x2.png\n")
    assert "error: gone.png: no such file or folder\n" in err
    summary = err.partition("1 done, 4 failed\n")[2].splitlines()
    assert [line.split()[0] for line in summary] == ["gone.png", "b*.png", "empty", "wide.jpg"]
    events = [json.loads(line) for line in run(*inputs, "-x", "2", "--force", "--json")[1].splitlines()]
    assert (events[0]["pictures"], events[-1]) == (5, {"event": "end", "done": 1, "skipped": 0, "failed": 4})
    assert [event["input"] for event in events if event["event"] == "failed"] == [
        "gone.png",
        "b*.png",
        "empty",
        "wide.jpg",
    ]
    code, out, err = run(*inputs, "-x", "2", "--force", "--dry-run")
    assert (code, len(out.splitlines())) == (1, 1)
    assert "gone.png" in err
    code, out, err = run("gone.png", "empty", "-x", "2")
    assert (code, out, err.count("error: "), err.count("0 done, 2 failed")) == (1, "", 2, 1)
    assert run("gone.png", "empty", "-x", "2", "--dry-run")[0] == 1
    code, _, err = run("a.png", "gone.png", "-x", "2", "-o", "out.png")
    assert code == 1
    assert "out.png: is one file, but there are several pictures" in err


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_to_nowhere_and_to_themselves_are_told_and_keep_nobody(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "in" / "round.png").symlink_to("round.png")
    code, out, err = run("in", "-x", "2")
    assert (code, out) == (1, f"{Path('in_x2/a.png')}\n")
    assert "1 done, 2 failed" in err
    code, out, err = run("in/round.png", "-x", "2")
    assert (code, out, err.startswith("error: in/round.png: ")) == (1, "", True)
    (tmp_path / "self").symlink_to("self")
    code, out, err = run("in", "-x", "2", "-o", "self/out")
    assert (code, out, "Traceback" in err) == (1, "", False)


def test_a_changed_result_is_left_and_told(run: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "in" / "a.png")
    assert run("in", "-x", "2")[0] == 0
    (tmp_path / "in_x2" / "a.png").write_bytes(b"edited")
    code, _, err = run("in", "-x", "2", "--dry-run")
    assert code == 0
    assert "1 of the results are there already; of those, only what changed since or has other settings" in err
    assert "they would be replaced" in run("in", "-x", "2", "--dry-run", "--force")[2]
    code, _, err = run("in", "-x", "2")
    assert code == 0
    assert "results that were changed since they were made are left: 1; --force replaces them" in err
    assert (tmp_path / "in_x2" / "a.png").read_bytes() == b"edited"


def test_a_picture_that_is_left_out_is_told(run: Callable[..., Outcome]) -> None:
    assert run("a.png", "--long", "10", "--skip-large", "-o", "b.png") == (0, "", "b.png: is large enough already\n")


def test_smaller_tiles_for_want_of_memory_are_told(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PILImage.fromarray(picture(80, 90)).save(tmp_path / "b.png")
    original = Network.run

    def small_only(network: Network, tile: Pixels, progress: Progress) -> Tensor:
        if max(tile.shape) > 70:
            raise MemoryError
        return original(network, tile, progress)

    monkeypatch.setattr(Network, "run", small_only)
    assert run("b.png", "-x", "2") == (0, "b_x2.png\n", "note: b.png: memory ran out; from there on in tiles of 64\n")


def test_results_say_how_they_were_made_unless_asked_not_to(run: Callable[..., Outcome], tmp_path: Path) -> None:
    run("a.png", "-x", "2")
    assert b'upscale:Model="bicubic"' in (tmp_path / "a_x2.png").read_bytes()
    run("a.png", "-x", "3", "--no-provenance")
    assert b"upscale:" not in (tmp_path / "a_x3.png").read_bytes()


def test_a_format_without_place_for_how_it_was_made_is_none_of_the_users_concern(run: Callable[..., Outcome]) -> None:
    assert run("a.png", "-x", "2", "-f", "bmp") == (0, "a_x2.bmp\n", "")


def test_background(run: Callable[..., Outcome], tmp_path: Path) -> None:
    clear = np.zeros((12, 10, 4), np.uint8)
    PILImage.fromarray(clear).save(tmp_path / "clear.png")
    code, _, err = run("clear.png", "-x", "2", "-f", "jpg", "--background", "#0000ff")
    assert (code, err) == (0, "")
    with PILImage.open(tmp_path / "clear_x2.jpg") as result:
        assert np.abs(np.asarray(result).astype(int) - (0, 0, 255)).max() <= 2
