"""One optimisation step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from upscale.losses import LOSSES
from upscale.models import Generator
from upscale.train.data import Batch


@dataclass(slots=True, kw_only=True)
class TrainState:
    """All that changes while training."""

    step: int
    """Updates done, those that were skipped included."""
    generator: Generator
    ema: AveragedModel
    optimizer: Optimizer
    skipped: int = 0
    """Updates left out because the gradient was not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is minimised, and how."""

    losses: Mapping[str, float]
    """Weight of each row of LOSSES."""
    clip: float | None
    autocast: torch.dtype | None
    """The dtype of the forward pass, None for float32."""


def train_step(state: TrainState, batch: Batch, objective: Objective) -> dict[str, Tensor]:
    """Update ``state`` once; return the unweighted loss terms and the gradient's norm, detached, on the device."""
    device = batch.lr.device.type
    with torch.autocast(device, objective.autocast, enabled=objective.autocast is not None):
        sr = state.generator(batch.lr).float()  # [B, 3, s*h, s*w]
    terms = {name: LOSSES[name](sr, batch.gt) for name in objective.losses}
    total = torch.stack([weight * terms[name] for name, weight in objective.losses.items()]).sum()
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    limit = objective.clip if objective.clip is not None else float("inf")
    norm = torch.nn.utils.clip_grad_norm_(state.generator.parameters(), limit)
    if bool(torch.isfinite(norm)):
        state.optimizer.step()
        state.ema.update_parameters(state.generator)
    else:
        state.skipped += 1
    state.step += 1
    return {**{name: term.detach() for name, term in terms.items()}, "gradient": norm.detach()}
