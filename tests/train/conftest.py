"""A small network on small pictures, and a run of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PILImage

from tests.conftest import picture
from upscale.train.data import Pictures, open_pictures
from upscale.train.loop import Outcome, train
from upscale.train.recipe import Recipe, load_recipe
from upscale.train.step import TrainState, train_step

CPU = torch.device("cpu")
SMALL = (
    "generator.num_feat=8", "generator.num_conv=2", "generator.scale=2",
    "data.gt_size=16", "data.batch_size=2", "data.large=0",
)  # fmt: skip
SHORT = ("steps=20", "valid_every=10", "log_every=1", "optim.warmup=2", "ema_decay=0.9")


def recipe(*overrides: str) -> Recipe:
    return load_recipe("compact", [*SMALL, *SHORT, *overrides])


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pictures:
    """Three small pictures of different sizes, and what must be skipped."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    for i, (height, width) in enumerate([(48, 64), (70, 40), (33, 90)]):
        PILImage.fromarray(picture(height, width, i)).save(folder / ("sub" if i else ".") / f"{i}.png")
    PILImage.fromarray(picture(20, 90)).save(folder / "low.png")
    (folder / "broken.jpg").write_text("not a picture")
    return open_pictures(folder, 32)


def run(
    recipe: Recipe, pictures: Pictures, out: Path, *, resume: bool = False, events: list[dict[str, Any]] | None = None
) -> tuple[Outcome, list[dict[str, Any]]]:
    events = [] if events is None else events
    result = train(recipe, pictures, [], out, CPU, resume=resume, on_event=lambda e: events.append(dict(e)))
    return result, events


def interrupted_at(step: int, number: signal.Signals = signal.SIGINT) -> Callable[..., Any]:
    """Return the update of a run that gets a signal during ``step``."""

    def update(state: TrainState, *arguments: Any) -> Any:
        if state.step == step:
            os.kill(os.getpid(), number)
        return train_step(state, *arguments)

    return update


def losses(events: Sequence[dict[str, Any]]) -> list[float]:
    return [event["l1_luma"] for event in events if event["event"] == "step"]
