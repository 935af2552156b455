"""The name of a model -> Upscaler: what brings catalogue, store, checkpoints and engine together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from upscale import store
from upscale.catalog import DEFAULT_MODEL, Blend, WeightsEntry, known
from upscale.checkpoint import load_generator
from upscale.device import resolve_device, resolve_precision
from upscale.engine import Upscaler
from upscale.errors import IncompatibleCheckpoint
from upscale.models import Chain, Generator, SelfEnsemble, build, network_of
from upscale.options import Precision, Tiling


def load(
    model: str = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: Precision = Precision.AUTO,
    tiling: Tiling | None = None,
    tta: bool = False,
    faithful: bool = False,
    offline: bool = False,
    on_compile: Callable[[str], None] | None = None,
) -> Upscaler:
    """Return an upscaler for ``model``, which is fetched before if need be.

    ``model`` is a name or a family of the catalogue, a checkpoint file or a URL; ``a+b`` runs one network after the
    other, ``a:0.7,b:0.3`` averages the weights of two like-built ones (ESRGAN, section 3.4). ``tta`` is the mean over
    eight orientations, eight times as slow. ``faithful`` changes results by back-projection until they reduce to their
    source. ``on_compile`` is told in a line what came of PyTorch's compiler; without it, nothing is compiled.
    ``device`` is "auto", "cpu", "cuda", "cuda:N" or "mps"; ``precision`` AUTO is fp16 on a GPU, bf16 on a CPU that has
    it natively, else float32; without ``tiling``, tiles are what suits the device. ``offline`` fetches nothing.

    Raises:
        UnknownWeights, DownloadFailed, ChecksumMismatch, IncompatibleCheckpoint: the network cannot be had.
        WeightsError: its file is missing.
        ConfigError: the user's own weights.toml cannot be read.
        UsageError: no device is called so, or shares do not add up to 1.
        DeviceUnavailable: the device is not there.
    """
    torch_device = resolve_device(device)
    stages = [load_blend(stage, offline=offline) for stage in known().stages(model)]
    *first, last = [[generator.folded() for generator in family] for family in stages]
    if first:  # of a family in front, the largest scale
        before = [max(family, key=lambda generator: generator.scale) for family in first]
        last = [Chain([*before, generator]) for generator in last]
    generators = [SelfEnsemble(generator) for generator in last] if tta else last
    precision = resolve_precision(precision, torch_device)
    return Upscaler(generators, torch_device, precision, tiling or Tiling(), faithful=faithful, on_compile=on_compile)


def load_blend(blend: Blend, *, offline: bool = False) -> Sequence[Generator]:
    """Return the networks of a family, one for each scale that all parts of ``blend`` have, averaged by their shares.

    Raises:
        UnknownWeights, DownloadFailed, ChecksumMismatch, IncompatibleCheckpoint: a network cannot be had, or is not
            built like the one that it is to be averaged with.
    """
    families = [[_load_entry(entry, offline) for entry in part.entries] for part in blend]
    if len(blend) == 1:
        return families[0]
    blended = []
    for generator in families[0]:
        alike = [next((g for g in family if network_of(g) == network_of(generator)), None) for family in families]
        parts = [(g, part.share) for g, part in zip(alike, blend, strict=True) if g is not None]
        if len(parts) == len(blend):  # else a scale that not all have
            blended.append(_mean(parts))
    if not blended:
        raise IncompatibleCheckpoint(
            f"{', '.join(part.entries[0].name for part in blend)}: not built alike, so no blend of them",
            "run them one after the other: a+b",
        )
    return blended


def _mean(parts: Sequence[tuple[Generator, float]]) -> Generator:
    """Return the first of ``parts`` with the mean of the weights of all, by their shares."""
    first = parts[0][0]
    states = [(generator.state_dict(), share) for generator, share in parts]
    mean = {name: sum(share * state[name] for state, share in states) for name in first.state_dict()}
    first.load_state_dict({name: mean[name].to(value) for name, value in first.state_dict().items()})
    return first


def _load_entry(entry: WeightsEntry, offline: bool) -> Generator:
    path = store.locate(entry, offline=offline)
    if path is None:
        return build(entry.network or {}, entry.name).eval()
    return load_generator(path, entry.network)
