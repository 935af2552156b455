"""Steps, validation, EMA, checkpoints, resume."""

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
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.swa_utils import AveragedModel

from upscale import __version__, store
from upscale.catalog import known
from upscale.checkpoint import load_extractor, load_generator, save_generator
from upscale.device import DTYPES, resolve_precision
from upscale.errors import ConfigError, InputError
from upscale.files import replacing
from upscale.images import read_image
from upscale.imaging import to_tensor
from upscale.losses import GAN_LOSSES, LOSSES, PERCEPTUAL, PerceptualLoss
from upscale.metrics import METRICS, prepare
from upscale.models import Generator, build, build_discriminator
from upscale.options import Precision
from upscale.train.data import Batch, Batches, Pictures, find_pictures
from upscale.train.degradation import degrade
from upscale.train.muon import Muon
from upscale.train.preview import results_sheet
from upscale.train.ranks import Ranks, joined
from upscale.train.recipe import Recipe, to_toml
from upscale.train.step import Objective, TrainState, train_step

Event = Mapping[str, Any]
OnEvent = Callable[[Event], None]
COUNTS = ("step", "skipped", "best", "best_step")  # what of TrainState are plain numbers
SHOWN = 6  # validation pictures on a preview sheet


@dataclass(frozen=True, slots=True)
class Pair:
    """A validation picture and its reduction."""

    name: str
    lr: Tensor  # [1, 3, h, w]
    gt: Tensor  # [1, 3, s*h, s*w]


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended."""

    generator: Path
    """The network to use."""
    metrics: Mapping[str, float]
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
) -> Result:
    """Train as ``recipe`` says, in the folder ``out``; ``on_event`` gets what also goes to ``log.jsonl``.

    Raises:
        ConfigError: ``out`` holds another run, or ``resume`` finds none or one of another recipe.
    """
    with joined() as ranks, _interruptible() as interrupted:
        objective = _objective(recipe, device, ranks)
        state = _resume(recipe, out, device) if resume else _start(recipe, out, device, ranks)
        batches = Batches(pictures, recipe, ranks.rank).starting_at(state.step)
        metrics: dict[str, float] = {}

        def save(metrics: Mapping[str, float]) -> None:
            _save_state(state, out)
            _save_network(state, recipe, pictures, metrics, out)

        with _log(out, on_event, ranks) as log:
            log({"event": "start", "step": state.step, "steps": recipe.steps, "pictures": len(pictures.arrays)})
            began, first = time.perf_counter(), state.step
            while state.step < recipe.steps and not ranks.anyone(bool(interrupted)):
                _set_rates(state, recipe)
                batch = next(batches)
                terms = train_step(state, Batch(batch.lr.to(device), batch.gt.to(device)), objective)
                if state.step % recipe.log_every == 0:
                    rate = (state.step - first) / (time.perf_counter() - began)
                    values = dict(zip(terms, ranks.mean(terms.values()), strict=True))
                    log({"event": "step", "step": state.step, **values, "steps_per_second": round(rate, 3)})
                if state.step % recipe.valid_every == 0 or state.step == recipe.steps:
                    if ranks.first:
                        sheet = out / "previews" / f"{state.step:07d}.png"
                        metrics = validate(_averaged(state), valid, device, sheet)
                        log({"event": "valid", "step": state.step, **metrics})
                        if metrics.get("psnr", state.best) > state.best:
                            state.best, state.best_step = metrics["psnr"], state.step
                        save(metrics)
                    if ranks.anyone(_out_of_patience(state, recipe)):
                        reason = f"no better PSNR than {state.best:.3f} dB since step {state.best_step}"
                        log({"event": "stop", "step": state.step, "reason": reason})
                        return Result(_path(out, state.step), metrics, finished=True)
        if ranks.first and not _path(out, state.step).exists():
            save({})
        ranks.wait()
        return Result(_path(out, state.step), metrics, state.step >= recipe.steps)


def load_pairs(folder: Path, scale: int) -> list[Pair]:
    """Read the pictures of ``folder``, cut to a multiple of ``scale``, and reduce them bicubic."""
    pairs = []
    for path in find_pictures(folder):
        gt = to_tensor(read_image(path).pixels)[None].double()
        gt = gt[..., : gt.shape[-2] // scale * scale, : gt.shape[-1] // scale * scale]
        if min(gt.shape[-2:]) < 16 * scale:
            raise InputError(f"{path}: too small to validate x{scale} on", f"remove it from {folder}")
        pairs.append(Pair(path.name, degrade(gt, scale).float(), gt))
    return pairs


@torch.inference_mode()
def validate(
    generator: Generator, pairs: Sequence[Pair], device: torch.device, sheet: Path | None = None
) -> dict[str, float]:
    """Return the mean of every metric over ``pairs``: luma, ``scale`` pixels off each edge.

    ``sheet`` is where to show the first few: bicubic | SR | GT.
    """
    if not pairs:
        return {}
    totals = dict.fromkeys(METRICS, 0.0)
    shown: list[tuple[Tensor, Tensor, Tensor]] = []
    for pair in pairs:
        sr = generator(pair.lr.to(device)).cpu()
        if len(shown) < SHOWN:
            shown.append((pair.lr, sr, pair.gt))
        compared, truth = prepare(sr, generator.scale), prepare(pair.gt, generator.scale)
        for name, metric in METRICS.items():
            totals[name] += float(metric.function(compared, truth)) / len(pairs)
    if sheet is not None:
        sheet.parent.mkdir(exist_ok=True)
        results_sheet(sheet, shown)
    return totals


def _start(recipe: Recipe, out: Path, device: torch.device, ranks: Ranks) -> TrainState:
    if (out / "state.pt").exists():
        raise ConfigError(f"{out}: holds a training run already", "go on with --resume, or choose another --out")
    if ranks.first:
        out.mkdir(parents=True, exist_ok=True)
        (out / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    ranks.wait()
    torch.manual_seed(recipe.seed)
    generator = build(recipe.generator, "generator")
    generator.initialise()
    if recipe.init is not None:
        _start_from(generator, recipe.init)
    return _state(generator, recipe, device)


def _objective(recipe: Recipe, device: torch.device, ranks: Ranks) -> Objective:
    losses: dict[str, tuple[float, Callable[[Tensor, Tensor], Tensor]]] = {}
    for name, weight in recipe.losses.items():
        losses[name] = (weight, _perceptual(recipe, device) if name == PERCEPTUAL else LOSSES[name])
    precision = resolve_precision(Precision.AUTO, device)
    return Objective(
        losses=losses,
        gan=None if recipe.gan is None else GAN_LOSSES[recipe.gan.kind],
        gan_weight=0.0 if recipe.gan is None else recipe.gan.weight,
        clip=recipe.optim.clip,
        ranks=ranks,
        autocast=None if precision is Precision.FP32 else DTYPES[Precision.BF16],
    )


def _perceptual(recipe: Recipe, device: torch.device) -> PerceptualLoss:
    config = recipe.perceptual
    entry = known().entries.get(config.extractor)
    if config.file is not None:
        path: Path | None = Path(config.file)
    else:
        path = None if entry is None else store.locate(entry)
    if path is None:
        raise ConfigError(
            f"the loss 'perceptual' needs the weights of {config.extractor}",
            "--set perceptual.file=FILE names a state dict with torchvision's names",
        )
    extractor = load_extractor(path, config.extractor, config.layers)
    return PerceptualLoss(extractor, config.layers, config.distance, config.feature_scale).to(device)


def _start_from(generator: Generator, init: str) -> None:
    """Copy the tensors of the network ``init`` into ``generator``, except those of another shape (another scale)."""
    entry = known().find(init)[0]
    path = store.locate(entry)
    if path is None:
        raise ConfigError(f"init: {init} has no weights")
    source = load_generator(path, entry.network).state_dict()
    own = generator.state_dict()
    fitting = {name: tensor for name, tensor in source.items() if name in own and own[name].shape == tensor.shape}
    if len(fitting) < len(own) // 2:
        raise ConfigError(f"init: {init} is another architecture; {len(fitting)} of {len(own)} tensors fit")
    generator.load_state_dict({**own, **fitting})


def _state(generator: Generator, recipe: Recipe, device: torch.device) -> TrainState:
    generator = generator.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    betas = (recipe.optim.betas[0], recipe.optim.betas[1])
    optimizer: Optimizer
    if recipe.optim.kind == "muon":
        optimizer = Muon(generator.parameters(), recipe.optim.lr)
    else:
        optimizer = Adam(generator.parameters(), recipe.optim.lr, betas=betas, foreach=True)
    ema = AveragedModel(generator, multi_avg_fn=_moving_average(recipe.ema_decay))
    state = TrainState(step=0, generator=generator, ema=ema, optimizer=optimizer)
    if recipe.discriminator is not None and recipe.gan is not None:
        state.discriminator = build_discriminator(recipe.discriminator, "discriminator").to(device).train()
        rate = recipe.gan.lr or recipe.optim.lr
        state.optimizer_d = Adam(state.discriminator.parameters(), rate, betas=betas, foreach=True)
    return state


Tensors = tuple[Tensor, ...] | list[Tensor]


def _moving_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Return an exponential moving average that forgets the start: its decay grows to ``decay`` with the count."""

    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        updates = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + updates) / (10 + updates)))

    return update


def _resume(recipe: Recipe, out: Path, device: torch.device) -> TrainState:
    path = out / "state.pt"
    if not path.is_file():
        raise ConfigError(f"{out}: no training run to resume", "leave --resume out to start one")
    if (out / "recipe.toml").read_text(encoding="utf-8") != to_toml(recipe):
        raise ConfigError(
            f"{out}: was started with another recipe", f"use --recipe {out / 'recipe.toml'}, or another --out"
        )
    saved = torch.load(path, map_location=device, weights_only=True)
    state = _state(build(recipe.generator, "generator"), recipe, device)
    state.generator.load_state_dict(saved["generator"])
    state.ema.load_state_dict(saved["ema"])
    state.optimizer.load_state_dict(saved["optimizer"])
    if state.discriminator is not None and state.optimizer_d is not None:
        state.discriminator.load_state_dict(saved["discriminator"])
        state.optimizer_d.load_state_dict(saved["optimizer_d"])
    for name in COUNTS:
        setattr(state, name, saved[name])
    return state


def _save_state(state: TrainState, out: Path) -> None:
    content = {
        **{name: getattr(state, name) for name in COUNTS},
        "generator": state.generator.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "discriminator": state.discriminator and state.discriminator.state_dict(),
        "optimizer_d": state.optimizer_d and state.optimizer_d.state_dict(),
    }
    with replacing(out / "state.pt") as temporary:
        torch.save(content, temporary)


def _save_network(
    state: TrainState, recipe: Recipe, pictures: Pictures, metrics: Mapping[str, float], out: Path
) -> None:
    """Write the averaged network, and remove those that are neither among the last nor the best."""
    about = {
        "trained_by": f"upscale {__version__}",
        "step": state.step,
        "recipe": to_toml(recipe),
        "data": pictures.digest,
        "metrics": {name: round(value, 4) for name, value in metrics.items()},
    }
    save_generator(_path(out, state.step), _averaged(state), about, torch.float16)
    for path in sorted(out.glob("generator-*.safetensors"))[: -recipe.keep]:
        if path != _path(out, state.best_step):
            path.unlink()


def _path(out: Path, step: int) -> Path:
    return out / f"generator-{step:07d}.safetensors"


def _out_of_patience(state: TrainState, recipe: Recipe) -> bool:
    return recipe.patience is not None and state.step - state.best_step >= recipe.patience * recipe.valid_every


def _averaged(state: TrainState) -> Generator:
    module = state.ema.module
    assert isinstance(module, Generator)
    return module


def _set_rates(state: TrainState, recipe: Recipe) -> None:
    """Warm up linearly; then fall at the milestones, or along half a cosine (Loshchilov and Hutter 2017)."""
    optim = recipe.optim
    factor = min(1.0, (state.step + 1) / (optim.warmup + 1))
    if optim.milestones:
        factor *= optim.gamma ** sum(state.step >= milestone for milestone in optim.milestones)
    else:
        cosine = 0.5 + 0.5 * math.cos(math.pi * state.step / recipe.steps)
        factor *= optim.final + (1 - optim.final) * cosine
    rate_d = (recipe.gan.lr if recipe.gan else None) or optim.lr
    for optimizer, rate in ((state.optimizer, optim.lr), (state.optimizer_d, rate_d)):
        for group in optimizer.param_groups if optimizer else ():
            group["lr"] = rate * factor


@contextmanager
def _log(out: Path, on_event: OnEvent, ranks: Ranks) -> Iterator[OnEvent]:
    if not ranks.first:
        yield lambda event: None
        return
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:

        def log(event: Event) -> None:
            file.write(json.dumps({"time": round(time.time(), 1), **event}) + "\n")
            file.flush()
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
