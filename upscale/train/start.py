"""A recipe made into networks, optimisers and losses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.swa_utils import AveragedModel

from upscale import store
from upscale.catalog import known
from upscale.checkpoint import load_extractor, load_generator
from upscale.device import resolve_precision
from upscale.errors import ConfigError, WeightsError
from upscale.losses import CLASSIFIER, GAN_LOSSES, LOSSES, PERCEPTUAL, PerceptualLoss
from upscale.models import Generator, build, build_discriminator
from upscale.options import Precision
from upscale.train.branches import add_branches
from upscale.train.classifier import load_classifier
from upscale.train.muon import Muon
from upscale.train.ranks import Ranks
from upscale.train.recipe import Recipe
from upscale.train.step import Objective, TrainState


def fresh(recipe: Recipe, device: torch.device) -> TrainState:
    """Return the state at step 0, a function of ``recipe`` alone.

    Raises:
        ConfigError: ``recipe.init`` does not fit.
    """
    torch.manual_seed(recipe.seed)
    generator = build(recipe.generator, "generator")
    generator.initialise()
    anew = () if recipe.init is None else _start_from(generator, recipe.init)
    state = assemble(generator, recipe, device)
    hold(state.generator)
    state.anew = anew
    return state


def objective(recipe: Recipe, device: torch.device, ranks: Ranks, *, compiled: bool = False) -> Objective:
    """Return what ``recipe`` minimises, its feature extractor loaded; ``compiled``: those losses that are formulas.

    Raises:
        ConfigError: the weights of the extractor are not there.
    """
    made = {PERCEPTUAL: _perceptual, CLASSIFIER: _classifier}
    formulas = {name: torch.compile(loss) for name, loss in LOSSES.items()} if compiled else LOSSES
    losses = {
        name: (weight, made[name](recipe).to(device) if name in made else formulas[name])
        for name, weight in recipe.losses.items()
    }
    return Objective(
        losses=losses,
        gan=None if recipe.gan is None else GAN_LOSSES[recipe.gan.kind],
        gan_weight=0.0 if recipe.gan is None else recipe.gan.weight,
        clip=recipe.optim.clip,
        ranks=ranks,
        autocast=_autocast(device),
        shift=recipe.shift,
    )


def _autocast(device: torch.device) -> torch.dtype | None:
    """Return bf16 where it is native, None where only float32 is: fp16 would need its losses scaled."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    return None if resolve_precision(Precision.AUTO, device) is Precision.FP32 else torch.bfloat16


def _perceptual(recipe: Recipe) -> PerceptualLoss:
    config = recipe.perceptual
    extractor = load_extractor(_extractor_file(recipe, PERCEPTUAL), config.extractor, config.layers)
    return PerceptualLoss(extractor, config.layers, config.distance, config.feature_scale)


def _classifier(recipe: Recipe) -> PerceptualLoss:
    config = recipe.perceptual
    network = load_classifier(_extractor_file(recipe, CLASSIFIER), config.extractor)
    return PerceptualLoss(network, {"logits": 1.0}, config.distance, config.feature_scale)


def _extractor_file(recipe: Recipe, loss: str) -> Path:
    """Return where the weights of the recipe's classifier are, for ``loss``."""
    config = recipe.perceptual
    if config.file is not None:
        return Path(config.file)
    try:
        path = store.locate(known().entries[config.extractor])
    except WeightsError as error:
        raise ConfigError(
            f"the loss {loss!r} needs the weights of {config.extractor}: {error.message}",
            "--set perceptual.file=FILE names a state dict with torchvision's names",
        ) from error
    assert path is not None, "the catalogue says where to fetch it"
    return path


def _start_from(generator: Generator, init: str) -> tuple[str, ...]:
    """Copy the tensors of the network ``init`` into ``generator``; return which it lacks or has in another shape."""
    entry = known().find(init)[0]
    path = store.locate(entry)
    if path is None:
        raise ConfigError(f"init: {init} has no weights")
    source = load_generator(path, entry.network)
    own = generator.state_dict()
    found = {
        name: _fitted(tensor, source.scale, own[name], generator.scale)
        for name, tensor in source.state_dict().items()
        if name in own
    }
    fitting = {name: tensor for name, tensor in found.items() if tensor is not None}
    if len(fitting) < len(own) // 2:
        raise ConfigError(f"init: {init} is another architecture; {len(fitting)} of {len(own)} tensors fit")
    generator.load_state_dict({**own, **fitting})
    return tuple(name for name in own if name not in fitting)


def _fitted(tensor: Tensor, scale: int, own: Tensor, own_scale: int) -> Tensor | None:
    """Return ``tensor`` of a network of ``scale`` in the shape of ``own``, one of ``own_scale``; None if it has none.

    The outputs of a layer before a pixel shuffle, ``[C * scale**2, ...]``, become those whose pixels are the means of
    the ones that they cover: the network begins as the other with its result reduced, or enlarged to blocks.
    """
    if tensor.shape == own.shape:
        return tensor
    channels, over = divmod(len(tensor), scale**2)
    if over or own.shape != (channels * own_scale**2, *tensor.shape[1:]):
        return None
    blocks = tensor.float().view(channels, scale, scale, -1).permute(0, 3, 1, 2)
    means = F.interpolate(blocks, size=(own_scale, own_scale), mode="area")
    return means.permute(0, 2, 3, 1).reshape(own.shape)


def assemble(generator: Generator, recipe: Recipe, device: torch.device) -> TrainState:
    """Put ``generator`` beside its moving average, optimisers and discriminator, all on ``device``."""
    if recipe.branches:
        add_branches(generator, recipe.branches)
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
        state.optimizer_d = Adam(state.discriminator.parameters(), recipe.rate_d, betas=betas, foreach=True)
    return state


def hold(generator: Generator) -> None:
    """Let training leave the features of ``generator`` that only pass on LR."""
    for name, count in generator.passing().items():
        layer = generator.get_submodule(name)
        for key, parameter in layer.named_parameters():
            if len(parameter) == layer.out_channels and not key.endswith(".before"):  # its rows are no outputs
                parameter.register_hook(partial(_without_first, count))  # type: ignore[no-untyped-call]


def _without_first(count: int, gradient: Tensor) -> Tensor:
    return torch.cat((torch.zeros_like(gradient[:count]), gradient[count:]))


Tensors = tuple[Tensor, ...] | list[Tensor]


def _moving_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Return an exponential moving average that forgets the start: its decay grows to ``decay`` with the count.

    By ``num_updates`` of TensorFlow's ``ExponentialMovingAverage``.
    """

    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        updates = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + updates) / (10 + updates)))

    return update
