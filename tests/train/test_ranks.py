"""Two processes under torchrun against one with twice the batch, also when one of the two is lost on the way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PILImage

from tests.conftest import picture
from upscale.device import has_native_bf16
from upscale.train.ranks import Ranks, own_device
from upscale.train.recipe import load_recipe
from upscale.train.start import objective

NUMBERS = {
    "generator.num_feat": 8, "generator.num_conv": 2, "generator.scale": 2, "data.gt_size": 16, "steps": 6,
    "valid_every": 3, "log_every": 1, "optim.warmup": 2,
}  # fmt: skip


TWO = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1")
DIES_ONCE = """
import os
from upscale.cli import main
from upscale.train import loop

step = loop.train_step

def train_step(state, *rest):
    if state.step == 4 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os._exit(9)
    return step(state, *rest)

loop.train_step = train_step
main()
"""

SAYS_ITS_THREADS = """
import atexit
import sys
from pathlib import Path
from upscale.cli import main

def say():
    for name in Path("/proc/self/task").glob("*/comm"):  # none but on Linux
        if "gloo" in name.read_text():
            print("left running:", name.read_text(), file=sys.stderr)

atexit.register(say)
main()
"""


def static() -> tuple[str, ...]:
    """Launch with a fixed rendezvous: torchrun takes a free port for one that names none, as ``--standalone`` does."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return (*TWO, "--master-port", str(found.getsockname()[1]))


def standalone() -> tuple[str, ...]:
    return (*TWO, "--standalone")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures in ``data`` and ``valid``."""
    folder = tmp_path_factory.mktemp("ranks")
    for seed, name in enumerate(("data", "data", "valid")):
        (folder / name).mkdir(exist_ok=True)
        PILImage.fromarray(picture(60, 50, seed)).save(folder / name / f"{seed}.png")
    return folder


def run(folder: Path, out: str, batch: int, launcher: Sequence[str]) -> subprocess.CompletedProcess[str]:
    numbers = {**NUMBERS, "data.batch_size": batch}
    overrides = [argument for key, value in numbers.items() for argument in ("--set", f"{key}={value}")]
    command = [sys.executable, *launcher, "train", "data", "--out", out, "--valid", "valid", "--patience", "1"]
    command += overrides
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=300
    )


def events(out: Path, kind: str) -> list[dict[str, Any]]:
    lines = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


@pytest.fixture(scope="module")
def alone(folder: Path) -> list[dict[str, Any]]:
    """The steps of one process."""
    done = run(folder, "one", 8, ["-m", "upscale"])
    assert done.returncode == 0, done.stderr
    return events(folder / "one", "step")


def assert_alike(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> None:
    assert [each["step"] for each in one] == [each["step"] for each in two] == [1, 2, 3, 4, 5, 6]
    # In bf16, in which a CPU that has it trains, sums over four crops are rounded otherwise than over eight; processes
    # with the same crops would be .03 apart in the first step.
    loss, gradient = (1e-2, 5e-2) if has_native_bf16() else (1e-4, 1e-3)
    for a, b in zip(one, two, strict=True):
        assert a["l1_luma"] == pytest.approx(b["l1_luma"], rel=loss)
        assert a["gradient"] == pytest.approx(b["gradient"], rel=gradient)


def test_two_processes_train_like_one_with_twice_the_batch(folder: Path, alone: list[dict[str, Any]]) -> None:
    (folder / "says_its_threads.py").write_text(SAYS_ITS_THREADS)
    done = run(folder, "two", 4, [*static(), "says_its_threads.py"])
    assert done.returncode == 0, done.stderr
    assert "left running" not in done.stderr  # the interpreter would abort now and then, and torchrun start anew
    assert_alike(alone, events(folder / "two", "step"))
    (network,) = done.stdout.split()
    assert (folder / network).is_file()
    again = run(folder, "two", 4, [*standalone(), "-m", "upscale"])
    assert again.returncode == 1
    assert again.stderr.count("holds a training run already") >= 2  # torchrun's second attempt does not go on either
    assert len(events(folder / "two", "start")) == 1


@pytest.mark.parametrize("launcher", [static, standalone])
def test_a_restart_goes_on_from_what_was_saved(
    folder: Path, alone: list[dict[str, Any]], launcher: Callable[[], Sequence[str]]
) -> None:
    (folder / "dies_once.py").write_text(DIES_ONCE)
    out = f"restarted-{launcher.__name__}"
    done = run(folder, out, 4, [*launcher(), "dies_once.py"])
    assert done.returncode == 0, done.stderr
    assert [event["step"] for event in events(folder / out, "start")] == [0, 3]
    steps = {event["step"]: event for event in events(folder / out, "step")}  # 4 is done twice
    assert_alike(alone, list(steps.values()))


def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    cuda = torch.device("cuda")
    assert own_device(cuda) == cuda
    for rank, index in ((0, 0), (1, 1), (2, 0)):
        place = {"RANK": rank, "WORLD_SIZE": 3, "LOCAL_RANK": rank, "TORCHELASTIC_RUN_ID": 1}
        for name, value in {**place, "TORCHELASTIC_RESTART_COUNT": 0}.items():
            monkeypatch.setenv(name, str(value))
        assert own_device(cuda) == torch.device("cuda", index) == chosen[-1]
    for named in (torch.device("cpu"), torch.device("cuda:1")):
        assert own_device(named) == named
    assert len(chosen) == 3


@pytest.mark.parametrize("native", [False, True])
def test_gpus_without_bf16_train_in_float32(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or native)
    numbers = load_recipe("compact")
    assert objective(numbers, torch.device("cuda"), Ranks()).autocast is (torch.bfloat16 if native else None)
