"""Two processes under torchrun against one with twice the batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

from tests.conftest import picture

NUMBERS = {
    "generator.num_feat": 8, "generator.num_conv": 2, "generator.scale": 2, "data.gt_size": 16, "steps": 6,
    "log_every": 1, "optim.warmup": 2,
}  # fmt: skip


def run(folder: Path, out: str, batch: int, launcher: list[str]) -> list[dict[str, Any]]:
    numbers = {**NUMBERS, "data.batch_size": batch}
    overrides = [argument for key, value in numbers.items() for argument in ("--set", f"{key}={value}")]
    command = [sys.executable, *launcher, "-m", "upscale", "train", "data", "--out", out, *overrides]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=300)
    lines = (folder / out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "step"]


def test_two_processes_train_like_one_with_twice_the_batch(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for seed in range(2):
        PILImage.fromarray(picture(60, 50, seed)).save(tmp_path / "data" / f"{seed}.png")
    one = run(tmp_path, "one", 4, [])
    two = run(tmp_path, "two", 2, ["-m", "torch.distributed.run", "--nproc-per-node", "2"])
    assert len(one) == len(two) == 6
    for a, b in zip(one, two, strict=True):
        assert a["l1"] == pytest.approx(b["l1"], rel=1e-4)
        assert a["gradient"] == pytest.approx(b["gradient"], rel=1e-3)
