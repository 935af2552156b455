"""The command: what is refused before any work, what it prints, and how a run is gone on with."""

from __future__ import annotations

import io
import json
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from rich.console import Console

from tests.conftest import picture
from tests.train.conftest import interrupted_at
from upscale.cli import console, main
from upscale.cli.live import LiveView

Outcome = tuple[int, str, str]
SMALL = {
    "generator.num_feat": 4, "generator.num_conv": 1, "generator.scale": 2, "data.gt_size": 16, "data.batch_size": 2,
    "data.large": 0, "steps": 6, "log_every": 1, "valid_every": 3,
}  # fmt: skip
SET = [argument for key, value in SMALL.items() for argument in ("--set", f"{key}={value}")]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run the program in a folder with pictures in ``data`` and ``valid``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, edge in (("data", 60), ("valid", 40)):
        (tmp_path / name).mkdir()
        PILImage.fromarray(picture(edge, edge + 5)).save(tmp_path / name / "a.png")

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["upscale", *arguments])
        try:
            main(arguments)
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        streams = capsys.readouterr()
        assert "Traceback" not in streams.err
        return code, streams.out, streams.err

    return run


def test_a_run_that_is_told_to_stop_prints_the_command_that_goes_on(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("upscale.train.loop.train_step", interrupted_at(3, signal.SIGTERM))
        code, out, err = run("train", "data", "--out", "my run", *SET)
    assert code == 130
    assert out == f"{Path('my run/generator-0000004.safetensors')}\n"
    command = err.split("go on with: ")[1].strip()
    assert "'my run'" in command
    code, out, _ = run(*shlex.split(command)[1:])
    assert code == 0
    assert out == f"{Path('my run/generator-0000006.safetensors')}\n"
    card = (tmp_path / "my run" / "generator-0000006.md").read_text(encoding="utf-8")
    assert "upscale train data --out 'my run'" in card


def test_a_run_goes_on_by_its_own_recipe(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("upscale.train.loop.train_step", interrupted_at(3))
        assert run("train", "data", "--out", "mine", *SET)[0] == 130
    code, _, err = run("train", "data", "--out", "mine", "--resume", "--set", "optim.lr=1e-5")
    assert code == 1
    assert "--out mine --resume alone goes on with its own" in err
    assert run("train", "data", "--out", "mine", "--resume")[:2] == (
        0,
        f"{Path('mine/generator-0000006.safetensors')}\n",
    )


def test_lines_where_there_is_no_terminal(run: Callable[..., Outcome], tmp_path: Path) -> None:
    code, _, err = run("train", "data", "--valid", "valid", "--out", "run", *SET)
    assert code == 0
    lines = err.splitlines()
    assert [line.split()[1] for line in lines if "l1_luma" in line] == ["1", "2", "3", "4", "5", "6"]
    assert [line.split()[1] for line in lines if "psnr" in line] == ["3", "6"]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    events = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    measured = [event for event in events if event["event"] == "valid"]
    assert "drift" in measured[0]
    for text in ("PSNR in dB", "l1_luma against steps", f"{measured[-1]['psnr']:.4g}", "data:image/jpeg;base64,"):
        assert text in page
    assert page.count("<svg") == page.count("</svg>") >= 6
    assert "http://" not in page
    assert "https://" not in page


def test_the_live_view_shows_where_a_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(console, "err", terminal)
    with LiveView("runs/mine", 100) as view:
        view.show({"event": "start", "step": 0, "steps": 100, "pictures": 3})
        for step in range(10, 60, 10):
            view.show({"event": "step", "step": step, "l1": 1 / step, "steps_per_second": 2.0})
        view.show({"event": "valid", "step": 50, "psnr": 30.25, "ssim": 0.9, "features": 0.25})
        view.show({"event": "remark", "step": 50, "text": "colours drift"})
        with terminal.capture() as captured:
            terminal.print(view.render())
    shown = captured.get()
    for text in ("runs/mine  step 50 of 100  2 steps/s  0:00:25 left", "█▄▂▁▁", "psnr", "30.25", "0.25"):
        assert text in shown, text
    assert isinstance(terminal.file, io.StringIO)
    assert "note: step 50: colours drift" in terminal.file.getvalue()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--patience", "2"], 2, "--valid DIR"),
        (["--lr", "none"], 1, "none: no such folder"),
        (["--lr", "valid"], 1, "x2 of GT, 65x60, is 32x30"),
        (["--features", "no-such-network"], 2, "no-such-network"),
        (["--set", "data.gt_size=20", "--set", "generator.scale=5"], 2, "expected one of 1, 2, 3, 4, 8, got 5"),
        (["--valid", "data"], 2, "--valid data: holds the pictures to train on"),
        (["--valid", "."], 2, "--valid .: holds the pictures to train on"),
        (["--valid-lr", "valid"], 2, "--valid-lr: goes with --valid"),
        (["--preview", "data/a.png", "--force"], 2, "data/a.png: lies in a folder of pictures to train on"),
        (["--valid", "valid", "--preview", "valid/new.png"], 2, "valid/new.png: lies in a folder of pictures"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    run: Callable[..., Outcome], tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    found, _, err = run("train", "data", "--out", "run", *SET, *arguments)
    assert found == code
    assert said in err
    assert not (tmp_path / "run").exists()


def test_pictures_are_cut_reduced_as_well_but_pairs_are_not(run: Callable[..., Outcome], tmp_path: Path) -> None:
    sizes = ("--set", "data.sizes=[0.8]", "--set", "data.gt_size=16")
    PILImage.fromarray(picture(30, 32)).save(tmp_path / "valid" / "a.png")

    def used(name: str, *arguments: str) -> tuple[int, str]:
        code, _, err = run("train", "data", "--out", name, *SET, *sizes, *arguments)
        assert code == 0
        return json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[0])["pictures"], err

    count, err = used("made")
    assert count == 2
    assert "data.sizes" not in err
    count, err = used("given", "--lr", "valid")
    assert count == 1
    assert "pairs stay as large as they are, whatever data.sizes says" in " ".join(err.split())


def test_a_preview_replaces_no_file_unasked(run: Callable[..., Outcome], tmp_path: Path) -> None:
    assert run("train", "data", *SET, "--preview", "sheet.png")[0] == 0
    first = (tmp_path / "sheet.png").read_bytes()
    assert "--force" in run("train", "data", *SET, "--set", "seed=1", "--preview", "sheet.png")[2]
    assert (tmp_path / "sheet.png").read_bytes() == first
    assert run("train", "data", *SET, "--set", "seed=1", "--preview", "sheet.png", "--force")[0] == 0
    assert (tmp_path / "sheet.png").read_bytes() != first


def test_patience_ends_a_run_and_says_why(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([20.0, 30.0, 29.0, 28.0])
    monkeypatch.setattr("upscale.train.loop.validate", lambda *arguments: ({"psnr": next(scores)}, []))
    code, out, err = run("train", "data", "--valid", "valid", "--out", "run", *SET, "--set", "valid_every=1",
                         "--patience", "2")  # fmt: skip
    assert code == 0
    assert out.endswith("generator-0000002.safetensors\n"), "the best"
    assert "stopped at step 4: no better PSNR than 30.000 dB since step 2" in err


def test_tensorboard_gets_the_numbers_or_says_what_to_install(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorboard", None)
        patch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
        code, _, err = run("train", "data", "--out", "without", *SET, "--tensorboard")
    assert code == 2
    assert "pip install tensorboard" in err
    assert not (tmp_path / "without").exists()
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run("train", "data", "--valid", "valid", "--out", "run", *SET, "--tensorboard")[0] == 0
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    assert [scalar.step for scalar in board.Scalars("step/l1_luma")] == [1, 2, 3, 4, 5, 6]
    assert np.isfinite([scalar.value for scalar in board.Scalars("valid/psnr")]).all()
