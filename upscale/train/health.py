"""Whether a run is well: what to do about it when it is not, and what to say."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import parametrize

from upscale.errors import Diverged
from upscale.losses import GanLoss
from upscale.train.recipe import Recipe
from upscale.train.saving import load_state
from upscale.train.start import fresh
from upscale.train.step import Objective, TrainState

MOST_SKIPPED = 5
"""Updates in a row without a finite gradient: one may be the data's fault, so many are the weights'."""
MOST_ROLLBACKS = 3
SLOWER = 0.5
"""What a roll-back multiplies the learning rates by."""
SATURATED = 0.02
"""A discriminator is, whose loss is this part of what it would be without a clue: it is right and sure of it."""
LOOKED_AT = 10  # lines of the log that saturation is judged by: one batch may be easy
DRIFTED = 1.0  # levels of 255: less is not seen
PLATEAU = 5  # validations without a better PSNR


def trouble(state: TrainState, *, saving: bool) -> str | None:
    """Return why ``state`` should not be gone on with; before ``saving`` it, its weights are looked at as well."""
    if state.skipped_in_a_row >= MOST_SKIPPED:
        return f"{state.skipped_in_a_row} updates in a row had no finite gradient"
    networks = (state.generator, state.ema, state.discriminator) if saving else ()
    if not all(network is None or _finite(network) for network in networks):
        return "the network's weights are not finite"
    return None


def _finite(network: nn.Module) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values())


def roll_back(state: TrainState, recipe: Recipe, out: Path, device: torch.device, reason: str) -> TrainState:
    """Return the state that was saved last, or that of step 0, to go on from at a lower rate.

    Raises:
        Diverged: that was done often enough.
    """
    if state.rollbacks == MOST_ROLLBACKS:
        raise Diverged(
            f"step {state.step}: {reason}, also at {state.rate:g} of the learning rate",
            f"start anew with a lower rate, --set optim.lr={recipe.optim.lr / 10:g}, or clip: --set optim.clip=0.1",
        )
    saved = load_state(recipe, out, device) if (out / "state.pt").is_file() else fresh(recipe, device)
    saved.rollbacks, saved.rate = state.rollbacks + 1, state.rate * SLOWER
    saved.parts, saved.data = state.parts, state.data
    return saved


def parted(state: TrainState, objective: Objective, size: int) -> str:
    """Return what it means that batches of ``size`` now go through the networks in parts."""
    networks = [network for network in (state.generator, state.discriminator) if network is not None]
    layers = [layer for network in networks for layer in network.modules()]
    differing = []
    if any(isinstance(layer, nn.BatchNorm2d) for layer in layers):
        differing.append("batch norm takes its statistics over a part, not the batch")
    if objective.gan is not None and objective.gan.needs_real:
        differing.append("the relativistic loss compares with the mean over a part")
    judge = state.discriminator
    if judge is not None and any(map(parametrize.is_parametrized, judge.modules())):
        differing.append("spectral norm is iterated for every part")
    same = "the update is that of the whole batch"
    return (
        f"not enough memory: batches of {size} go through the networks in {state.parts} parts, gradients added up; "
        + (f"{same}, except that {' and '.join(differing)}" if differing else same)
    )


class Watch:
    """Looks at what is measured, and says once what has begun to go wrong."""

    def __init__(self, recipe: Recipe, gan: GanLoss | None) -> None:
        self._recipe = recipe
        self._recent: deque[float] = deque(maxlen=LOOKED_AT)
        self._clueless = 0.0 if gan is None else float(gan.discriminator(torch.zeros(1), torch.zeros(1)))
        self._told: set[str] = set()

    def step(self, values: Mapping[str, float]) -> Iterator[str]:
        """Yield remarks on the terms of a step."""
        if "discriminator" in values:
            self._recent.append(values["discriminator"])
            loss = sum(self._recent) / len(self._recent)
            saturated = len(self._recent) == LOOKED_AT and loss < SATURATED * self._clueless
            yield from self._at_onset(
                "saturated",
                saturated,
                f"the discriminator is saturated: its loss is {loss:.3g}, guessing would give {self._clueless:.3g},"
                " and the generator learns little from it; a lower gan.lr slows it down",
            )

    def valid(self, metrics: Mapping[str, float], state: TrainState) -> Iterator[str]:
        """Yield remarks on a validation; ``state`` knows the best so far."""
        drift = metrics.get("drift", 0.0)
        yield from self._at_onset(
            "drift", drift > DRIFTED, f"colours drift: the mean of SR is {drift:.2f} levels of 255 off that of GT"
        )
        stale = (state.step - state.best_step) // self._recipe.valid_every
        yield from self._at_onset(
            "plateau",
            "psnr" in metrics and stale >= PLATEAU,
            f"plateau: no better PSNR than {state.best:.3f} dB since step {state.best_step};"
            " --patience N stops a run after N such validations",
        )

    def _at_onset(self, name: str, bad: bool, text: str) -> Iterator[str]:
        if bad and name not in self._told:
            yield text
        (self._told.add if bad else self._told.discard)(name)
