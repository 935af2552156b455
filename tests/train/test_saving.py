"""A full disk, and what stands beside a network."""

from __future__ import annotations

import secrets
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PILImage

from tests.conftest import picture
from tests.train.conftest import CPU, interrupted_at, losses, recipe, run
from upscale.errors import ConfigError, DiskFull
from upscale.files import part_prefix
from upscale.train.data import Batches, Pictures, open_pictures
from upscale.train.loop import train
from upscale.train.saving import load_state, save_state
from upscale.train.validation import Pair

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.is_char_device(), reason="there is no /dev/full")


def fill(monkeypatch: pytest.MonkeyPatch, out: Path, name: str) -> None:
    """Let everything that is written to replace the file ``name`` of ``out`` find no room: a real ENOSPC."""
    monkeypatch.setattr(secrets, "token_hex", lambda count: "full")
    path = out / name
    path.with_name(f"{part_prefix(path)}full.part{path.suffix}").symlink_to(FULL)


@needs_full
@pytest.mark.parametrize("name", ["state.pt", "generator-0000020.safetensors", "previews/0000020.png", "report.html"])
def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on_later(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    numbers, out = recipe(), tmp_path / "run"
    _, expected = run(numbers, pictures, tmp_path / "whole")
    events: list[dict[str, Any]] = []

    def fill_later(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "step" and event["step"] == 11:
            (out / "previews").mkdir(exist_ok=True)
            fill(monkeypatch, out, name)

    valid: list[Any] = []
    if name.startswith("previews"):
        batch = Batches(pictures, recipe()).batch(0)
        valid = [Pair("v", batch.lr[:1], batch.gt[:1].double())]
    with pytest.raises(DiskFull, match="no room left on the disk") as caught:
        train(numbers, pictures, valid, out, CPU, resume=False, on_event=lambda event: fill_later(dict(event)))
    assert caught.value.hint == "make room, then go on with --resume: what was saved last is whole"
    monkeypatch.undo()
    assert not list(out.rglob("*.part*")), "what could not be written is gone"
    result, rest = run(numbers, pictures, out, resume=True)
    assert result.finished
    assert losses(events)[:10] + losses(rest) == losses(expected)[: 10 + len(losses(rest))]
    assert result.generator.read_bytes()


@needs_full
def test_a_full_disk_before_the_first_checkpoint(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    fill(monkeypatch, out, "state.pt")
    with pytest.raises(DiskFull) as caught:
        run(recipe(), pictures, out)
    assert caught.value.hint == "make room, then give the same command again"


@needs_full
def test_a_full_disk_while_pictures_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    for index in range(2):
        PILImage.fromarray(picture(200, 200, index)).save(tmp_path / "data" / f"{index}.png")
    monkeypatch.setattr("upscale.train.data.replacing", lambda path: nullcontext(FULL))
    with pytest.raises(DiskFull, match=r"\.rgb: no room"):
        open_pictures(tmp_path / "data", 32)


@needs_full
def test_a_full_disk_while_logging(pictures: Pictures, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").symlink_to(FULL)
    with pytest.raises(DiskFull, match=r"log\.jsonl: no room"):
        run(recipe(), pictures, tmp_path / "run")


def test_a_card_stands_beside_every_network(pictures: Pictures, tmp_path: Path) -> None:
    numbers = recipe("steps=6", "valid_every=2", "keep=1", "losses.fft=0.1")
    result = train(
        numbers, pictures, [], tmp_path, CPU, resume=False, on_event=lambda event: None, command="upscale train data"
    )
    assert [path.name for path in tmp_path.glob("*.md")] == ["generator-0000006.md"]
    card = result.generator.with_suffix(".md").read_text(encoding="utf-8")
    for fact in (
        "# generator-0000006", "`compact`, num_feat 8, num_conv 2", "| scale | x2 |", "6 steps of 6", "0.1 fft",
        f"`{pictures.digest}`", "Not measured", "upscale train data", "[optim]", "lr = 0.002",
        "-m generator-0000006.safetensors",
    ):  # fmt: skip
        assert fact in card, fact


def test_a_run_without_its_recipe_is_none_to_resume(pictures: Pictures, tmp_path: Path) -> None:
    run(recipe("steps=1"), pictures, tmp_path / "run")
    (tmp_path / "run" / "recipe.toml").unlink()
    with pytest.raises(ConfigError, match="no training run to resume"):
        run(recipe("steps=1"), pictures, tmp_path / "run", resume=True)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "of another program", "of another type"])
def test_a_damaged_state_is_said_and_what_to_go_on_from(pictures: Pictures, tmp_path: Path, damage: str) -> None:
    run(recipe("steps=2", "valid_every=2"), pictures, tmp_path / "run")
    state = tmp_path / "run" / "state.pt"
    if damage == "of another program":
        torch.save({"weights": torch.zeros(3)}, state)
    elif damage == "of another type":
        torch.save({**torch.load(state, weights_only=True), "step": "two"}, state)
    else:
        whole = state.read_bytes()
        state.write_bytes({"cut": whole[: len(whole) // 2], "text": b"hello", "empty": b""}[damage])
    with pytest.raises(ConfigError, match=r"state\.pt: damaged") as caught:
        run(recipe("steps=2", "valid_every=2"), pictures, tmp_path / "run", resume=True)
    assert "generator-0000002.safetensors" in str(caught.value.hint)


def test_a_run_that_goes_on_knows_its_best_and_its_rate(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([20.0, 30.0, 29.0, 28.0, 27.0, 26.0])
    monkeypatch.setattr("upscale.train.loop.validate", lambda *arguments: ({"psnr": next(scores)}, []))
    numbers = recipe("steps=20", "valid_every=2", "patience=3", "keep=1")
    with monkeypatch.context() as patch:
        patch.setattr("upscale.train.loop.train_step", interrupted_at(5))
        run(numbers, pictures, tmp_path / "run")
    result, events = run(numbers, pictures, tmp_path / "run", resume=True)
    assert events[-1]["reason"] == "no better PSNR than 30.000 dB since step 4"
    assert result.generator.name == "generator-0000004.safetensors"
    assert result.generator.is_file()


def test_all_numbers_of_a_state_come_back(pictures: Pictures, tmp_path: Path) -> None:
    run(recipe("steps=2"), pictures, tmp_path)
    state = load_state(recipe("steps=2"), tmp_path, CPU)
    told = {"step": 1, "data": "d", "skipped_in_a_row": 2, "best": 31.0, "best_step": 1, "parts": 4, "rate": 0.25,
            "rollbacks": 2}  # fmt: skip
    for name, value in told.items():
        setattr(state, name, value)
    save_state(state, tmp_path)
    again = load_state(recipe("steps=2"), tmp_path, CPU)
    assert {name: getattr(again, name) for name in told} == told
