"""One optimisation step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from upscale.losses import GanLoss
from upscale.models import Generator
from upscale.train.data import Batch
from upscale.train.ranks import Ranks


@dataclass(slots=True, kw_only=True)
class TrainState:
    """All that changes while training."""

    step: int
    """Updates done, those that were skipped included."""
    generator: Generator
    ema: AveragedModel
    optimizer: Optimizer
    discriminator: nn.Module | None = None
    optimizer_d: Optimizer | None = None
    best: float = float("-inf")
    """The highest PSNR that a validation gave, in dB, and the step at which it did."""
    best_step: int = 0
    skipped: int = 0
    """Updates left out because the generator's gradient was not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is minimised, and how."""

    losses: Mapping[str, tuple[float, Callable[[Tensor, Tensor], Tensor]]]
    """Weight and function of each term."""
    gan: GanLoss | None = None
    gan_weight: float = 0.0
    clip: float | None = None
    ranks: Ranks = field(default_factory=Ranks)
    autocast: torch.dtype | None = None
    """The dtype of the networks' forward passes, None for float32."""


def train_step(state: TrainState, batch: Batch, objective: Objective) -> dict[str, Tensor]:
    """Update ``state`` once, the generator first; return the unweighted terms and the gradient's norm, detached."""
    autocast = torch.autocast(batch.lr.device.type, objective.autocast, enabled=objective.autocast is not None)
    discriminator, gan = state.discriminator, objective.gan

    with autocast:
        sr = state.generator(batch.lr).float()  # [B, 3, s*h, s*w]
    terms = {name: loss(sr, batch.gt) for name, (_, loss) in objective.losses.items()}
    weighted = [weight * terms[name] for name, (weight, _) in objective.losses.items()]
    if discriminator is not None and gan is not None:
        discriminator.requires_grad_(False)
        with autocast:
            fake = discriminator(sr).float()
            real = discriminator(batch.gt).float() if gan.needs_real else fake
        terms["adversarial"] = gan.generator(real, fake)
        weighted.append(objective.gan_weight * terms["adversarial"])
    norm = _update(torch.stack(weighted).sum(), state.generator, state.optimizer, objective)
    if bool(torch.isfinite(norm)):
        state.ema.update_parameters(state.generator)
    else:
        state.skipped += 1
    terms["gradient"] = norm

    if discriminator is not None and gan is not None and state.optimizer_d is not None:
        discriminator.requires_grad_(True)
        with autocast:
            real, fake = discriminator(batch.gt).float(), discriminator(sr.detach()).float()
        terms["discriminator"] = gan.discriminator(real, fake)
        _update(terms["discriminator"], discriminator, state.optimizer_d, replace(objective, clip=None))
        terms["real_logits"], terms["fake_logits"] = real.mean(), fake.mean()

    state.step += 1
    return {name: term.detach() for name, term in terms.items()}


def _update(loss: Tensor, network: nn.Module, optimizer: Optimizer, objective: Objective) -> Tensor:
    """Step ``network`` down the gradient of ``loss`` unless it is not finite; return its norm before clipping."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    objective.ranks.average_gradients(network)
    limit = float("inf") if objective.clip is None else objective.clip
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), limit)
    if bool(torch.isfinite(norm)):
        optimizer.step()
    return norm
