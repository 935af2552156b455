"""Steps, validation, checkpoints, resume."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from upscale.config import for_json
from upscale.device import whole_float32
from upscale.errors import ConfigError, DiskFull, Diverged
from upscale.files import ends_with_newline, said_of, write_text
from upscale.train.data import Batches, Pictures
from upscale.train.health import Watch, parted, roll_back, trouble
from upscale.train.ranks import Ranks, joined
from upscale.train.recipe import Recipe, to_toml
from upscale.train.report import write_report
from upscale.train.saving import averaged, load_state, network_path, save_network, save_state
from upscale.train.start import fresh, objective
from upscale.train.step import TrainState, train_step
from upscale.train.validation import Distance, Pair, validate

Event = Mapping[str, Any]
OnEvent = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    generator: Path
    """The network to use."""
    finished: bool
    """False where a signal ended the run early; ``resume`` goes on from there."""


def train(
    recipe: Recipe,
    pictures: Pictures,
    valid: Sequence[Pair],
    out: Path,
    device: torch.device,
    *,
    resume: bool,
    on_event: OnEvent,
    distances: Mapping[str, Distance] | None = None,
    compiled: bool = False,
    command: str = "",
) -> Outcome:
    """Train as ``recipe`` says, in the folder ``out``; ``on_event`` gets what also goes to ``log.jsonl``.

    ``distances`` are measured beside PSNR and SSIM; ``compiled``: by PyTorch's compiler, which has to work here;
    ``command`` is what the model card says made the network.

    Raises:
        ConfigError: ``out`` holds another run, or ``resume`` finds none or one of another recipe.
        DiskFull: no room in ``out``; what was saved there last is whole.
        Diverged: gradients stayed not finite after several roll-backs, or were so when it was interrupted early.
        OutOfMemory: not even a single crop fits into memory.
    """
    with _saving_to(out), joined() as ranks, _interruptible() as interrupted:
        whole_float32(device)
        goal = objective(recipe, device, ranks, compiled=compiled)
        going_on = resume or (ranks.begun and (out / "state.pt").exists())
        state = load_state(recipe, out, device) if going_on else _start(recipe, out, device, ranks)
        if ranks.first:
            write_text(out / "recipe.toml", to_toml(recipe))
        if compiled:
            state.generator.compile()
        source = Batches(pictures, recipe, ranks.rank)
        batches = source.starting_at(state.step, device)
        watch = Watch(recipe, goal.gan)
        saved = _stage(state) if going_on else None

        def save(metrics: Mapping[str, float]) -> None:
            nonlocal saved
            save_state(state, out)
            if metrics or not network_path(out, state.step).exists():
                save_network(state, recipe, pictures, metrics, out, command)
            saved = _stage(state)

        with _log(out, on_event, ranks, anew=not going_on) as log:
            log({"event": "start", "step": state.step, "steps": recipe.steps, "pictures": len(pictures.arrays)})
            if state.anew:
                log(_remark(state, f"{recipe.init} has other shapes: {', '.join(state.anew)} begin anew"))
            if state.data not in ("", pictures.digest):
                log(_remark(state, "the pictures, or their dates, are not those of before"))
            state.data = pictures.digest
            began, done = time.perf_counter(), 0
            stop, due = None, False
            while (state.step < recipe.steps or due) and stop is None and not ranks.anyone(bool(interrupted)):
                _set_rates(state, recipe)
                parts = state.parts
                terms = train_step(state, next(batches), goal)
                done += 1
                if state.parts > parts:
                    log(_remark(state, parted(state, goal, recipe.data.batch_size)))
                due = due or state.step % recipe.valid_every == 0 or state.step == recipe.steps
                reason = trouble(state, saving=due)
                if ranks.anyone(reason is not None):
                    reason = reason or "weights of another process are not finite"
                    at, state = state.step, roll_back(state, recipe, out, device, reason)
                    if compiled:
                        state.generator.compile()
                    batches = source.starting_at(state.step, device)
                    text = f"{reason}: back from step {at} to {state.step}, at {state.rate:g} of the learning rate"
                    log(_remark(state, text))
                    due = False
                    continue
                if state.step % recipe.log_every == 0:
                    rate = done / (time.perf_counter() - began)
                    values = dict(zip(terms, ranks.mean(terms.values()), strict=True))
                    log({"event": "step", "step": state.step, **values, "steps_per_second": round(rate, 3)})
                    for text in watch.step(values):
                        log(_remark(state, text))
                if due and not state.skipped_in_a_row:  # else the next steps tell whether all is well
                    due = False
                    if ranks.first:
                        sheet = out / "previews" / f"{state.step:07d}.png"
                        metrics, missed = validate(averaged(state), valid, device, sheet, distances)
                        for text in missed:
                            log(_remark(state, text))
                        log({"event": "valid", "step": state.step, **metrics})
                        if metrics.get("psnr", state.best) > state.best:
                            state.best, state.best_step = metrics["psnr"], state.step
                        for text in watch.valid(metrics, state):
                            log(_remark(state, text))
                        save(metrics)
                    if ranks.anyone(ranks.first and _out_of_patience(state, recipe)):
                        stop = f"no better PSNR than {state.best:.3f} dB since step {state.best_step}"
            if ranks.first and (_stage(state) != saved or not network_path(out, state.step).exists()):
                if not state.skipped_in_a_row and trouble(state, saving=True) is None:
                    save({})
                elif saved is not None:
                    log(_remark(state, f"gradients or weights are not finite, so step {saved[0]} stays the last saved"))
                else:
                    raise Diverged(
                        f"step {state.step}: gradients or weights are not finite, and no step before was saved",
                        f"start anew with a lower rate: --set optim.lr={recipe.optim.lr / 10:g}",
                    )
            if stop is not None:
                log({"event": "stop", "step": state.step, "reason": stop})
        if ranks.first:
            write_report(out, recipe)
        ranks.wait()
        last = state.step if saved is None else saved[0]
        used = state.best_step if _out_of_patience(state, recipe) else last
        return Outcome(network_path(out, used), stop is not None or state.step >= recipe.steps)


@contextmanager
def _saving_to(out: Path) -> Iterator[None]:
    """Say after a full disk how to go on."""
    try:
        yield
    except DiskFull as error:
        saved = (out / "state.pt").is_file()
        way = "go on with --resume: what was saved last is whole" if saved else "give the same command again"
        raise DiskFull(error.message, f"make room, then {way}") from error


def _start(recipe: Recipe, out: Path, device: torch.device, ranks: Ranks) -> TrainState:
    if (out / "state.pt").exists():
        raise ConfigError(f"{out}: holds a training run already", "go on with --resume, or choose another --out")
    if any(out.glob("generator-*.safetensors")):  # which this run would take for its own, and tidy up
        raise ConfigError(f"{out}: holds networks of another run", "choose another --out")
    state = fresh(recipe, device)
    if ranks.first:
        out.mkdir(parents=True, exist_ok=True)
        ranks.begin()
    ranks.wait()
    return state


def _stage(state: TrainState) -> tuple[int, int]:
    """Return what tells ``state`` from others of its run: a roll-back leads to a step that was there before."""
    return state.step, state.rollbacks


def _remark(state: TrainState, text: str) -> Event:
    return {"event": "remark", "step": state.step, "text": text}


def _out_of_patience(state: TrainState, recipe: Recipe) -> bool:
    if recipe.patience is None or state.best == -math.inf:  # nothing could be measured
        return False
    return state.step - state.best_step >= recipe.patience * recipe.valid_every


def _set_rates(state: TrainState, recipe: Recipe) -> None:
    """Warm up linearly; then fall at the milestones, or along half a cosine (Loshchilov and Hutter 2017)."""
    optim = recipe.optim
    factor = min(1.0, (state.step + 1) / (optim.warmup + 1))
    if optim.milestones:
        factor *= optim.gamma ** sum(state.step >= milestone for milestone in optim.milestones)
    else:
        cosine = 0.5 + 0.5 * math.cos(math.pi * state.step / recipe.steps)
        factor *= optim.final + (1 - optim.final) * cosine
    for optimizer, rate in ((state.optimizer, optim.lr), (state.optimizer_d, recipe.rate_d)):
        for group in optimizer.param_groups if optimizer else ():
            group["lr"] = rate * factor * state.rate


@contextmanager
def _log(out: Path, on_event: OnEvent, ranks: Ranks, *, anew: bool) -> Iterator[OnEvent]:
    if not ranks.first:
        yield lambda event: None
        return
    path = out / "log.jsonl"
    with path.open("wb" if anew else "ab", buffering=0) as file:
        if not ends_with_newline(path):  # a full disk or a power cut left part of a line
            file.write(b"\n")

        def log(event: Event) -> None:
            with said_of(path):
                file.write(json.dumps(for_json({"time": round(time.time(), 1), **event})).encode() + b"\n")
            on_event(event)

        yield log


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Yield a list that SIGINT and SIGTERM append to, so that a step is finished and saved before the run ends."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    handlers = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
