"""What a run leaves behind: the state to go on from, and the network to use."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError

import torch

from upscale import __version__
from upscale.checkpoint import save_generator
from upscale.errors import ConfigError
from upscale.files import replacing, said_of, write_text
from upscale.models import Generator, build
from upscale.train.branches import without_branches
from upscale.train.card import card
from upscale.train.data import Pictures
from upscale.train.recipe import Recipe, load_recipe, to_toml
from upscale.train.start import assemble, hold
from upscale.train.step import TrainState

LATER = ("steps", "log_every", "valid_every", "keep", "patience")
"""What of a recipe may be another when its run goes on: for how long, and how it is watched."""

PLAIN = ("step", "data", "skipped_in_a_row", "best", "best_step", "parts", "rate", "rollbacks")
"""What of TrainState are numbers and text."""


def load_state(recipe: Recipe, out: Path, device: torch.device) -> TrainState:
    """Return the state that the run in ``out`` saved last.

    Raises:
        ConfigError: there is none, or it is damaged, of another recipe, or further on than ``recipe.steps``.
    """
    path = out / "state.pt"
    if not (path.is_file() and (out / "recipe.toml").is_file()):
        raise ConfigError(f"{out}: no training run to resume", "leave --resume out to start one")
    began = load_recipe(str(out / "recipe.toml"))
    if replace(began, **{name: getattr(recipe, name) for name in LATER}) != recipe:
        raise ConfigError(
            f"{out}: was started with another recipe",
            f"--out {out} --resume alone goes on with its own, --set steps=N makes that longer; "
            "to change more, begin another run from its network",
        )
    state = assemble(build(recipe.generator, "generator"), recipe, device)
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        state.generator.load_state_dict(saved["generator"])
        hold(state.generator)
        state.ema.load_state_dict(saved["ema"])
        state.optimizer.load_state_dict(saved["optimizer"])
        if state.discriminator is not None and state.optimizer_d is not None:
            state.discriminator.load_state_dict(saved["discriminator"])
            state.optimizer_d.load_state_dict(saved["optimizer_d"])
        for name in PLAIN:  # a run of an earlier version has fewer
            setattr(state, name, type(getattr(state, name))(saved.get(name, getattr(state, name))))
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, UnpicklingError) as error:
        networks = sorted(out.glob("generator-*.safetensors"))
        way = f"begin a run from {networks[-1]}: --set init=FILE, another --out" if networks else "begin another run"
        raise ConfigError(f"{path}: damaged ({type(error).__name__})", way) from error
    if state.step > recipe.steps:
        raise ConfigError(f"{out}: is at step {state.step} already", "go on to a later one: --set steps=N")
    return state


def save_state(state: TrainState, out: Path) -> None:
    """Write ``state`` to the folder ``out`` in place of what was saved before.

    Raises:
        DiskFull: no room; what was saved before is as it was.
    """
    content = {
        **{name: getattr(state, name) for name in PLAIN},
        "generator": state.generator.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "discriminator": state.discriminator and state.discriminator.state_dict(),
        "optimizer_d": state.optimizer_d and state.optimizer_d.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)  # to a file, torch reports a full disk as a broken archive
    with said_of(out / "state.pt"), replacing(out / "state.pt") as temporary:
        temporary.write_bytes(buffer.getvalue())


def save_network(
    state: TrainState, recipe: Recipe, pictures: Pictures, metrics: Mapping[str, float], out: Path, command: str
) -> None:
    """Write the averaged network and its card; remove those that are neither among the last nor the best.

    Raises:
        DiskFull: no room; the networks of before are as they were.
    """
    about = {
        "trained_by": f"upscale {__version__}",
        "step": state.step,
        "recipe": to_toml(recipe),
        "data": pictures.digest,
        "metrics": {name: round(value, 4) for name, value in metrics.items()},
    }
    path = network_path(out, state.step)
    with said_of(path):
        save_generator(path, averaged(state), about, torch.float16)
    write_text(path.with_suffix(".md"), card(path, about, recipe, pictures, command))
    for earlier in sorted(out.glob("generator-*.safetensors"))[: -recipe.keep]:
        if earlier not in (path, network_path(out, state.best_step)):
            earlier.unlink()
            earlier.with_suffix(".md").unlink(missing_ok=True)


def network_path(out: Path, step: int) -> Path:
    """Return where the network of ``step`` lies."""
    return out / f"generator-{step:07d}.safetensors"


def averaged(state: TrainState) -> Generator:
    """Return the moving average of the generator, as it runs: what is measured and saved."""
    module = state.ema.module
    assert isinstance(module, Generator)
    return without_branches(module).eval()
