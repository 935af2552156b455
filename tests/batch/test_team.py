"""Several devices and several processes share the pictures of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image as PILImage

from tests.conftest import picture
from upscale.batch import pipeline
from upscale.batch.pipeline import Ended
from upscale.batch.plan import Job, Naming, plan
from upscale.batch.results import Settings
from upscale.batch.team import Team
from upscale.device import devices_of, resolve_device
from upscale.engine import Upscaled, Upscaler
from upscale.errors import UsageError
from upscale.images import Image
from upscale.inference import OnTile
from upscale.models import build
from upscale.options import Precision, Target, Tiling

DIES_ONCE = """
import os, signal
from pathlib import Path
from upscale.batch import pipeline
from upscale.cli import main

encode = pipeline.encode

def dying(*arguments):
    if os.environ["RANK"] == "2" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        Path(__file__).with_name("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(*arguments)

pipeline.encode = dying
main()
"""


def test_shares_are_balanced_by_pixels_and_all_is_in_sight_of_each() -> None:
    heights = (900, 5, 300, 310, 290, 7)
    jobs = [Job(source=Path(str(height)), output=Path(f"{height}.png"), size=(height, 10)) for height in heights]
    jobs.append(Job(source=Path("?"), output=Path("?.png")))  # whose size cannot be told
    orders = [Team(rank, 3).order(jobs) for rank in range(3)]
    assert [[job.source.name for job in order] for order in orders] == [
        ["900", "310", "300", "290", "7", "5", "?"],
        ["310", "7", "5", "?", "900", "300", "290"],
        ["300", "290", "900", "310", "7", "5", "?"],
    ]
    assert Team().order(jobs) == jobs


class _Together(Upscaler):
    """Enlarges only when another one does so at the same time."""

    def __init__(self, both: threading.Barrier) -> None:
        super().__init__([build({"arch": "nearest"}, "test")], torch.device("cpu"), Precision.FP32, Tiling())
        self.both = both

    def upscale(self, image: Image, target: Target | float | None = None, on_tile: OnTile | None = None) -> Upscaled:
        self.both.wait(60)
        return super().upscale(image, target, on_tile)


def test_devices_work_at_the_same_time_and_results_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(6):
        PILImage.fromarray(picture(8, 8)).save(tmp_path / "in" / f"{index}.png")
    both = threading.Barrier(2)
    target = Target.parse("2")
    ended: list[Ended] = []
    jobs = plan([str(tmp_path / "in")], tmp_path / "out", target, Naming())
    upscalers = [_Together(both), _Together(both)]
    pipeline.run(jobs, upscalers, Settings(target=target), on_tile=lambda job, done, total: None, on_end=ended.append)
    assert [each.job.source.name for each in ended] == [f"{index}.png" for index in range(6)]
    assert {type(each) for each in ended} == {pipeline.Done}


def test_workers_of_torchrun_do_a_folder_once_also_when_one_is_killed(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    names = [f"{index}.png" for index in range(16)]
    for name in names:
        PILImage.fromarray(picture(96, 96)).save(source / name)
    (source / "bad.png").write_text("text")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4", "--max-restarts", "1"]
    (tmp_path / "dies_once.py").write_text(DIES_ONCE)
    arguments = [str(tmp_path / "dies_once.py"), str(source), "-o", str(out), "-m", "bicubic", "-x", "4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 1  # bad.png
    assert (tmp_path / "died").exists()
    assert sorted(path.name for path in out.iterdir()) == sorted([".upscale", *names])  # and no partial file
    notes = [json.loads(line) for line in (out / ".upscale" / "journal.jsonl").read_text().splitlines()]
    assert sorted(note["output"] for note in notes if note["status"] == "done") == sorted(names)
    tables = [line for line in done.stderr.splitlines() if line.endswith("1 failed")]
    assert len(tables) == 1


def test_no_device_is_passed_over() -> None:
    assert devices_of("cpu, cpu") == ["cpu", "cpu"]
    with pytest.raises(UsageError, match="--device tpu: no such device"):
        [resolve_device(name) for name in devices_of("cpu,tpu")]
