"""One optimisation step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from upscale.device import is_out_of_memory
from upscale.errors import OutOfMemory
from upscale.losses import CLASSIFIER, PERCEPTUAL, GanLoss
from upscale.models import Discriminator, Generator
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
    discriminator: Discriminator | None = None
    optimizer_d: Optimizer | None = None
    data: str = ""
    """The digest of the pictures that it was trained on."""
    best: float = float("-inf")
    """The highest PSNR that a validation gave, in dB, and the step at which it did."""
    best_step: int = 0
    skipped_in_a_row: int = 0
    """Updates of either network left out since the last that was done."""
    parts: int = 1
    """In how many parts a batch goes through the networks: as many as memory asks for."""
    rate: float = 1.0
    """What the learning rates of the recipe are multiplied by: less after a roll-back."""
    rollbacks: int = 0
    anew: tuple[str, ...] = ()
    """Tensors that the network started from lacks, or has in another shape."""


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
    shift: int = 0
    """The losses see so much less of the crops in height and width, another part at each step; so does a discriminator
    that takes any size. To a network with strides, some pixels matter more than their neighbours; always the same ones
    would print a grid into all results."""

    def part(self, crops: Tensor, step: int) -> Tensor:
        """Return what the losses of ``step`` see of ``crops`` ``[B, C, H, W]``."""
        height, width = (edge - self.shift for edge in crops.shape[-2:])
        top, left = (Random(2 * step + axis).randint(0, self.shift) for axis in (0, 1))
        return crops[..., top : top + height, left : left + width]

    def judged(self, discriminator: Discriminator, crops: Tensor, step: int) -> Tensor:
        """Return what ``discriminator`` says of ``crops``."""
        with self.casting(crops.device):
            logits: Tensor = discriminator(self.part(crops, step) if discriminator.any_size else crops)
        return logits.float()

    def casting(self, device: torch.device) -> torch.autocast:
        """Return the context of a forward pass."""
        return torch.autocast(device.type, self.autocast, enabled=self.autocast is not None)


def train_step(state: TrainState, batch: Batch, objective: Objective) -> dict[str, Tensor]:
    """Update ``state`` once, the generator first; return the unweighted terms and the gradient's norm, detached.

    Where memory runs out, ``state.parts`` grows and gradients are added up over the parts of the batch.

    Raises:
        OutOfMemory: a single crop is too much.
    """
    discriminator, gan = state.discriminator, objective.gan
    if discriminator is not None:
        discriminator.requires_grad_(False)
    terms, made = _accumulate(
        lambda lr, target, gt: _generator_terms(state, lr, target, gt, objective, batch.texture),
        state.optimizer,
        (batch.lr, batch.gt if batch.sharp is None else batch.sharp, batch.gt),
        state,
    )
    norm = _update(state.generator, state.optimizer, objective.clip, objective.ranks)
    finite = bool(torch.isfinite(norm))
    if finite:
        state.ema.update_parameters(state.generator)
    terms["gradient"] = norm

    if discriminator is not None and gan is not None and state.optimizer_d is not None:
        discriminator.requires_grad_(True)
        terms_d, _ = _accumulate(
            lambda sr, gt: _discriminator_terms(state, sr, gt, objective, batch.texture),
            state.optimizer_d,
            (made, batch.gt),
            state,
        )
        norm = _update(discriminator, state.optimizer_d, None, objective.ranks)
        finite = finite and bool(torch.isfinite(norm))
        terms |= terms_d

    state.skipped_in_a_row = 0 if finite else state.skipped_in_a_row + 1
    state.step += 1
    return terms


@dataclass(frozen=True, slots=True)
class _Terms:
    loss: Tensor
    """The weighted sum, to descend."""
    values: Mapping[str, Tensor]
    output: Tensor
    """``[B, ...]``"""


def _generator_terms(
    state: TrainState, lr: Tensor, target: Tensor, gt: Tensor, objective: Objective, texture: float
) -> _Terms:
    discriminator, gan = state.discriminator, objective.gan
    with objective.casting(lr.device), parametrize.cached():  # branches are summed once, not at every look
        sr = state.generator(lr).float()  # [B, 3, s*h, s*w]
    compared = objective.part(sr, state.step), objective.part(target, state.step)
    terms = {name: loss(*compared) for name, (_, loss) in objective.losses.items()}
    weighted = [
        (texture if name in (PERCEPTUAL, CLASSIFIER) else 1) * weight * terms[name]
        for name, (weight, _) in objective.losses.items()
    ]
    if discriminator is not None and gan is not None:
        fake = objective.judged(discriminator, sr, state.step)
        real = objective.judged(discriminator, gt, state.step) if gan.needs_real else fake
        terms["adversarial"] = gan.generator(real, fake)
        weighted.append(texture * objective.gan_weight * terms["adversarial"])
    return _Terms(torch.stack(weighted).sum(), terms, sr)


def _discriminator_terms(state: TrainState, sr: Tensor, gt: Tensor, objective: Objective, texture: float) -> _Terms:
    discriminator, gan = state.discriminator, objective.gan
    assert discriminator is not None
    assert gan is not None
    real, fake = (objective.judged(discriminator, crops, state.step) for crops in (gt, sr))
    loss = gan.discriminator(real, fake)
    # Less weight where the generator has less: it would learn what tells degraded pictures, which is easy.
    return _Terms(texture * loss, {"discriminator": loss, "real_logits": real.mean(), "fake_logits": fake.mean()}, fake)


def _accumulate(
    compute: Callable[..., _Terms], optimizer: Optimizer, batch: Sequence[Tensor], state: TrainState
) -> tuple[dict[str, Tensor], Tensor]:
    """Give the parameters of ``optimizer`` the gradient of the mean loss over the parts of ``batch``.

    Returns the means of the terms, and the outputs put together. When memory runs out, the parts are halved.
    """
    while True:
        optimizer.zero_grad(set_to_none=True)
        try:
            return _in_parts(compute, batch, state.parts)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if state.parts >= len(batch[0]):
                raise OutOfMemory(
                    f"{batch[0].device}: not enough memory for a step, also with one crop at a time",
                    "use smaller crops: --set data.gt_size=N",
                ) from error
        # Out of the handler, so that the traceback no longer holds what the failed attempt had made.
        state.parts = min(2 * state.parts, len(batch[0]))
        if batch[0].is_cuda:
            torch.cuda.empty_cache()


def _in_parts(compute: Callable[..., _Terms], batch: Sequence[Tensor], count: int) -> tuple[dict[str, Tensor], Tensor]:
    values: dict[str, Tensor] = {}
    outputs = []
    for part in zip(*(tensor.chunk(count) for tensor in batch), strict=True):
        share = len(part[0]) / len(batch[0])
        terms = compute(*part)
        (share * terms.loss).backward()  # type: ignore[no-untyped-call]
        for name, term in terms.values.items():
            values[name] = values.get(name, 0) + share * term.detach()
        outputs.append(terms.output.detach())
    return values, outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _update(network: nn.Module, optimizer: Optimizer, clip: float | None, ranks: Ranks) -> Tensor:
    """Step ``network`` down its gradient unless that is not finite; return its norm before clipping."""
    ranks.average_gradients(network)
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), float("inf") if clip is None else clip)
    if bool(torch.isfinite(norm)):
        optimizer.step()
    return norm
