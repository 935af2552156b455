"""What a run does when it goes wrong, and what it says."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import network
from tests.train.conftest import CPU, interrupted_at, recipe, run
from upscale.errors import Diverged, OutOfMemory
from upscale.losses import GAN_LOSSES, LOSSES
from upscale.models import Discriminator, build_discriminator
from upscale.train.branches import add_branches
from upscale.train.data import Batch, Batches, Pictures
from upscale.train.health import LOOKED_AT, MOST_ROLLBACKS, MOST_SKIPPED, PLATEAU, Watch, parted, roll_back, trouble
from upscale.train.loop import _set_rates
from upscale.train.recipe import load_recipe
from upscale.train.saving import load_state
from upscale.train.start import assemble
from upscale.train.step import Objective, TrainState, train_step


def remarks(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["event"] == "remark"]


class Poison:
    """A loss that is not a number from one call on, for so many calls."""

    def __init__(self, start: int, calls: int) -> None:
        self.bad = range(start, start + calls)
        self.call = 0

    def __call__(self, sr: Tensor, gt: Tensor) -> Tensor:
        self.call += 1
        return LOSSES["mse"](sr, gt) * (float("nan") if self.call - 1 in self.bad else 1.0)


def test_steps_that_are_not_finite_lead_back_to_the_last_checkpoint_at_half_the_rate(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES, "l1_luma", Poison(13, MOST_SKIPPED))  # a checkpoint is written at step 10
    result, events = run(recipe(), pictures, tmp_path / "run")
    assert result.finished
    assert remarks(events) == [
        f"{MOST_SKIPPED} updates in a row had no finite gradient: back from step 18 to 10, at 0.5 of the learning rate"
    ]
    steps = [event["step"] for event in events if event["event"] == "step"]
    assert steps == [*range(1, 18), *range(11, 21)]
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert (state["rollbacks"], state["rate"]) == (1, 0.5)
    rates = recipe().optim
    assert state["optimizer"]["param_groups"][0]["lr"] < 0.5 * rates.lr


def test_a_checkpoint_is_not_replaced_while_updates_are_skipped(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES, "l1_luma", Poison(18, MOST_SKIPPED))  # a checkpoint would be written at step 20
    result, events = run(recipe("steps=30"), pictures, tmp_path / "run")
    assert result.finished
    assert [text.partition(": ")[2] for text in remarks(events)] == [
        "back from step 23 to 10, at 0.5 of the learning rate"
    ]
    assert [event["step"] for event in events if event["event"] == "valid"] == [10, 20, 30]

    monkeypatch.setitem(LOSSES, "l1_luma", Poison(19, 1))  # the last update alone
    result, events = run(recipe(), pictures, tmp_path / "once")
    assert result.finished
    assert result.generator.name == "generator-0000021.safetensors"
    assert not remarks(events)


class Interrupts(list[dict[str, Any]]):
    """Events of a run that is interrupted at one of them."""

    def __init__(self, kind: str, step: int) -> None:
        self.at = kind, step

    def append(self, event: dict[str, Any]) -> None:
        super().append(event)
        if (event["event"], event.get("step")) == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interruption_saves_nothing_that_is_not_finite(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES, "l1_luma", Poison(13, 1000))
    result, events = run(recipe(), pictures, tmp_path / "run", events=Interrupts("step", 15))
    assert not result.finished
    assert result.generator.name == "generator-0000010.safetensors"
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 10
    assert remarks(events) == ["gradients or weights are not finite, so step 10 stays the last saved"]

    monkeypatch.setitem(LOSSES, "l1_luma", Poison(1, 1000))
    with pytest.raises(Diverged, match=r"step 3: .* no step before was saved"):
        run(recipe(), pictures, tmp_path / "early", events=Interrupts("step", 3))


def test_an_interruption_after_a_roll_back_keeps_its_lower_rate(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES, "l1_luma", Poison(13, MOST_SKIPPED))
    run(recipe(), pictures, tmp_path / "run", events=Interrupts("remark", 10))
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert (state["step"], state["rollbacks"], state["rate"]) == (10, 1, 0.5)


def test_before_the_first_checkpoint_a_run_begins_anew_and_after_some_roll_backs_it_gives_up(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LOSSES, "l1_luma", Poison(2, 1000))
    events: list[dict[str, Any]] = []
    with pytest.raises(Diverged, match=r"updates in a row .* also at 0.125 of the learning rate") as caught:
        run(recipe(), pictures, tmp_path / "run", events=events)
    assert caught.value.hint is not None
    assert "optim.lr=" in caught.value.hint
    assert len(remarks(events)) == MOST_ROLLBACKS
    assert all("to 0, at" in text for text in remarks(events))


def test_weights_that_are_not_finite_are_not_saved() -> None:
    state = assemble(network(arch="compact", num_feat=4, num_conv=1), recipe(), CPU)
    assert trouble(state, saving=True) is None
    next(state.generator.parameters()).data[0] = float("inf")
    assert trouble(state, saving=False) is None
    assert trouble(state, saving=True) == "the network's weights are not finite"
    judged = small_state("vanilla")
    assert trouble(judged, saving=True) is None
    assert judged.discriminator is not None
    next(judged.discriminator.parameters()).data[0] = float("nan")
    assert trouble(judged, saving=True) == "the network's weights are not finite"


def test_saturation_drift_and_plateau_are_told_once_at_their_onset() -> None:
    state = assemble(network(arch="compact", num_feat=4, num_conv=1), recipe(), CPU)
    watch = Watch(recipe("valid_every=10"), GAN_LOSSES["vanilla"])
    lines = [list(watch.step({"discriminator": 0.01})) for _ in range(LOOKED_AT + 3)]
    assert [len(line) for line in lines] == [0] * (LOOKED_AT - 1) + [1] + [0] * 3
    assert "saturated: its loss is 0.01, guessing would give 1.39" in lines[LOOKED_AT - 1][0]
    assert list(watch.step({"discriminator": 1.3})) == []
    assert not list(Watch(recipe(), None).step({"l1": 0.0}))

    state.step, state.best, state.best_step = 10, 30.0, 10
    assert list(watch.valid({"psnr": 30.0, "drift": 0.9}, state)) == []
    assert list(watch.valid({"psnr": 30.0, "drift": 1.5}, state)) == [
        "colours drift: the mean of SR is 1.50 levels of 255 off that of GT"
    ]
    assert list(watch.valid({"psnr": 30.0, "drift": 1.6}, state)) == []
    assert list(watch.valid({"psnr": 30.0, "drift": 0.5}, state)) == []
    assert len(list(watch.valid({"psnr": 30.0, "drift": 1.6}, state))) == 1, "it has come back"
    state.step += PLATEAU * 10
    assert "no better PSNR than 30.000 dB since step 10" in next(watch.valid({"psnr": 29.0}, state))


def objective(kind: str | None = None) -> Objective:
    gan = None if kind is None else GAN_LOSSES[kind]
    return Objective(losses={"l1": (1.0, LOSSES["l1"]), "ldl": (0.5, LOSSES["ldl"])}, gan=gan, gan_weight=0.1)


class Judge(Discriminator):
    """Without BatchNorm, so that a batch in parts is judged as the whole is."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(), nn.Conv2d(4, 1, 3))

    def forward(self, image: Tensor) -> Tensor:
        return self.body(image)  # type: ignore[no-any-return]


def small_state(kind: str | None = None) -> TrainState:
    torch.manual_seed(0)
    state = assemble(network(arch="compact", num_feat=4, num_conv=1, scale=2).requires_grad_(True), recipe(), CPU)
    if kind is not None:
        state.discriminator = Judge()
        state.optimizer_d = torch.optim.SGD(state.discriminator.parameters(), 0.1)
    return state


class Fails:
    """A forward pass that has no memory for more than ``most`` crops."""

    def __init__(self, forward: Any, most: int) -> None:
        self.forward = forward
        self.most = most

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        result: Tensor = self.forward(x)
        return result


@pytest.mark.parametrize("kind", [None, "vanilla"])
def test_less_memory_gives_the_same_update(
    pictures: Pictures, kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batches(pictures, recipe("data.batch_size=5")).batch(0)
    whole, parts = small_state(kind), small_state(kind)
    failing = parts.generator if kind is None else parts.discriminator  # the discriminator's turn comes later
    assert failing is not None
    monkeypatch.setattr(failing, "forward", Fails(failing.forward, 2))
    one, other = train_step(whole, batch, objective(kind)), train_step(parts, batch, objective(kind))
    assert (whole.parts, parts.parts) == (1, 4)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)
    for name, tensor in whole.generator.state_dict().items():
        torch.testing.assert_close(parts.generator.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    if whole.discriminator is not None and parts.discriminator is not None:
        for a, b in zip(whole.discriminator.parameters(), parts.discriminator.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_one_crop_that_does_not_fit_is_the_end(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    state = small_state()
    monkeypatch.setattr(state.generator, "forward", Fails(state.generator.forward, 0))
    with pytest.raises(OutOfMemory, match="one crop at a time"):
        train_step(state, Batches(pictures, recipe()).batch(0), objective())


def test_other_errors_of_a_step_are_not_taken_for_too_little_memory() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        train_step(small_state(), Batch(torch.zeros(2, 5, 8, 8), torch.zeros(2, 3, 16, 16)), objective())


def test_a_run_says_that_it_goes_on_in_parts_and_what_that_changes(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce(state: TrainState, *arguments: Any) -> Any:
        if not isinstance(state.generator.forward, Fails):
            monkeypatch.setattr(state.generator, "forward", Fails(state.generator.forward, 1))
        return train_step(state, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr("upscale.train.loop.train_step", scarce)
        _, events = run(recipe("steps=2"), pictures, tmp_path / "run")
    assert remarks(events) == [
        "not enough memory: batches of 2 go through the networks in 2 parts, gradients added up;"
        " the update is that of the whole batch"
    ]
    state = small_state()
    add_branches(state.generator, 2)  # parametrized as well, and the same in parts
    assert parted(state, objective(), 4).endswith("of the whole batch")
    state = small_state("relativistic")
    state.discriminator = build_discriminator({"arch": "unet", "num_feat": 4}, "test")
    state.generator.add_module("norm", nn.BatchNorm2d(3))
    text = parted(state, objective("relativistic"), 4)
    assert all(word in text for word in ("batch norm", "relativistic", "spectral norm"))


def test_a_gradient_is_clipped(pictures: Pictures) -> None:
    state = small_state()
    state.optimizer = torch.optim.SGD(state.generator.parameters(), 1.0)
    before = [parameter.detach().clone() for parameter in state.generator.parameters()]
    terms = train_step(state, Batches(pictures, recipe()).batch(0), replace(objective(), clip=1e-3))
    assert float(terms["gradient"]) > 1e-2  # what is told is what it was
    steps = [(a.detach() - b).square().sum() for a, b in zip(state.generator.parameters(), before, strict=True)]
    assert float(torch.stack(steps).sum().sqrt()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("kind", sorted(GAN_LOSSES))
def test_each_side_of_the_game_is_told_what_is_real(
    pictures: Pictures, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, batch = small_state(kind), Batches(pictures, recipe()).batch(0)
    assert state.discriminator is not None
    forward = state.discriminator.forward
    batch = batch._replace(gt=torch.ones_like(batch.gt))

    def sure(crops: Tensor) -> Tensor:
        """Return 5 for what is all white, -5 for anything else."""
        logits: Tensor = forward(crops)
        return logits * 0 + (5.0 if bool((crops == 1).all()) else -5.0)

    monkeypatch.setattr(state.discriminator, "forward", sure)
    terms = train_step(state, batch, objective(kind))
    assert (float(terms["real_logits"]), float(terms["fake_logits"])) == (5, -5)
    real, fake = torch.tensor(5.0), torch.tensor(-5.0)
    gan = GAN_LOSSES[kind]
    assert float(terms["discriminator"]) == pytest.approx(float(gan.discriminator(real, fake)))
    assert float(terms["adversarial"]) == pytest.approx(float(gan.generator(real, fake)))


def test_a_discriminator_has_a_rate_of_its_own() -> None:
    numbers = load_recipe("srgan", ["init=", "optim.lr=1.0", "gan.lr=0.25", "optim.warmup=0", "optim.milestones=[]",
                                    "optim.final=1.0"])  # fmt: skip
    state = small_state("vanilla")
    _set_rates(state, numbers)
    assert state.optimizer_d is not None
    assert [each.param_groups[0]["lr"] for each in (state.optimizer, state.optimizer_d)] == [1.0, 0.25]


def test_a_run_that_goes_on_and_cannot_keeps_what_it_began_with(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe("steps=4"), pictures, tmp_path / "run")
    monkeypatch.setitem(LOSSES, "l1_luma", Poison(0, 1000))
    with monkeypatch.context() as patch:
        patch.setattr("upscale.train.loop.train_step", interrupted_at(5))
        result, events = run(recipe("steps=8"), pictures, tmp_path / "run", resume=True)
    assert not result.finished
    assert result.generator.name == "generator-0000004.safetensors"
    assert remarks(events) == ["gradients or weights are not finite, so step 4 stays the last saved"]


def test_a_mean_that_is_not_finite_is_not_saved() -> None:
    state = small_state()
    next(state.ema.parameters()).data[0] = float("nan")
    assert trouble(state, saving=True) == "the network's weights are not finite"


def test_a_roll_back_keeps_what_memory_asked_for(pictures: Pictures, tmp_path: Path) -> None:
    run(recipe("steps=2"), pictures, tmp_path)
    state = load_state(recipe("steps=2"), tmp_path, CPU)
    state.parts = 2
    assert roll_back(state, recipe("steps=2"), tmp_path, CPU, "why").parts == 2
