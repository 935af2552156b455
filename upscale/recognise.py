"""State dict -> generator: by our names of the tensors, by those of others, or by the order of the layers."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from upscale.errors import ConfigError, IncompatibleCheckpoint
from upscale.imaging import resize
from upscale.models import GENERATORS, Generator, build, network_of
from upscale.models.base import faults, first_of, read_notes
from upscale.models.order import spell
from upscale.statedict import keeps_order

FAITHFUL = 20.0  # dB: an enlargement, reduced again, is this near to its source or of another convention
CERTAIN = 30.0  # dB: no need to try another
DECISIVE = 3.0  # dB: by so much a convention must be better than the author's usual one to be believed


def recognise(
    state_dicts: Sequence[Mapping[str, Tensor]], path: Path, network: Mapping[str, Any] | None = None
) -> Generator:
    """Return the generator of the first of ``state_dicts``, all of ``path``, that any fits, with its weights.

    ``network`` names the architecture and its hyper-parameters (as in weights.toml); without it, the tensors tell.
    Weights are float32, on the CPU.

    Raises:
        IncompatibleCheckpoint: none fits; it names the nearest architecture and what is foreign to it.
    """
    fit = _identify(state_dicts, path, network)
    _load(fit.generator, fit.tensors)
    return fit.generator


def _load(generator: Generator, tensors: Mapping[str, Tensor]) -> None:
    floats = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    generator.load_state_dict(floats, assign=True)


@dataclass(frozen=True, slots=True)
class _Fit:
    """A network of one architecture, on the meta device, and the tensors for it under its own names."""

    arch: str
    generator: Generator
    tensors: Mapping[str, Tensor]
    faults: tuple[str, ...]
    """Why the tensors do not fit, in words; empty where they do."""
    noted: bool = False
    """Whether the file says itself what its tensors leave open."""


def _identify(state_dicts: Sequence[Mapping[str, Tensor]], path: Path, network: Mapping[str, Any] | None) -> _Fit:
    if network is not None and network.get("arch") not in GENERATORS:
        raise IncompatibleCheckpoint(f"{path}: {network.get('arch')!r} is no architecture")
    archs = GENERATORS if network is None else {str(network["arch"]): GENERATORS[str(network["arch"])]}
    misfits = []
    for state_dict in state_dicts:
        for arch, cls in archs.items():
            for layout in (None, *cls.layouts):
                names = {name: name for name in state_dict} if layout is None else layout.translate(state_dict)
                if names is None:
                    continue
                implied = {**layout.implies, **layout.tells(state_dict)} if layout else {}
                fit = _fit(state_dict, arch, names, implied, path, network)
                if fit is not None and not fit.faults:
                    return _tried(fit, named=True)[0] if network is None else fit
                if fit is not None:
                    misfits.append(fit)
    if network is None:
        for state_dict in state_dicts:
            tried = [_tried(fit, named=False) for fit in _in_order(state_dict, path)]
            best, decibels = max(tried, key=lambda found: found[1], default=(None, 0.0))
            if best is not None and decibels > FAITHFUL:
                return best
    if misfits:
        nearest = min(misfits, key=lambda fit: len(fit.faults))
        raise IncompatibleCheckpoint(f"{path}: does not fit {nearest.arch}; {'; '.join(nearest.faults)}")
    raise _unknown(state_dicts[0], path)


def _in_order(state_dict: Mapping[str, Tensor], path: Path) -> Iterator[_Fit]:
    """Yield the networks whose layers follow each other like those of ``state_dict``, whatever they are called."""
    kinds = {re.sub(r"\d+", "#", name.rpartition(".")[0]) for name in state_dict}
    if len(kinds) > 1 and not keeps_order(path):  # what is sorted by name follows the network if names are numbers
        return
    letters = spell({name: tuple(value.shape) for name, value in state_dict.items()})
    for arch, cls in GENERATORS.items():
        layers = cls.in_order("".join(letters.values()))
        if layers is None:
            continue
        ours = dict(zip(letters, layers, strict=True))
        names = {name: f"{ours[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}" for name in state_dict}
        fit = _fit(state_dict, arch, names, {}, path, None)
        if fit is not None and not fit.faults and fit.generator.scale > 1:
            yield fit


def _tried(fit: _Fit, *, named: bool) -> tuple[_Fit, float]:
    """Return ``fit`` with what its tensors leave open as a trial tells it, and how well it then does, in dB.

    Authors differ in what they feed to a network and what comes out, and no tensor shows it. But an enlargement,
    reduced to the size of its source, is the source again, and with another author's conventions it is far from it.
    Weights that are not trained are near in none; they keep what is usual.
    """
    doubts = fit.generator.doubts(named=named)
    usual = network_of(fit.generator)
    if named and (not doubts or fit.noted):
        return fit, 0.0
    choices = ({**usual, **dict(zip(doubts, values, strict=True))} for values in itertools.product(*doubts.values()))
    best, most, least = fit, -math.inf, -math.inf
    for network in (usual, *choices):
        try:
            with torch.device("meta"):
                generator = build(network, fit.arch)
        except ConfigError:
            continue
        tensors = _completed(fit.tensors, generator)
        decibels = _faith(generator, tensors)
        if decibels > most:
            best, most = _Fit(fit.arch, generator, tensors, ()), decibels
        if network is usual:
            least = decibels + DECISIVE
            if decibels > CERTAIN:
                break
    return (best, most) if most > max(FAITHFUL, least if named else 0.0) else (fit, most)


def _faith(generator: Generator, tensors: Mapping[str, Tensor]) -> float:
    """Return how near an enlargement by ``generator`` with ``tensors``, reduced again, is to its source, in dB."""
    _load(generator, tensors)
    edge = 16  # pixels: enough to tell, and quick
    y, x = torch.meshgrid(torch.arange(edge), torch.arange(edge), indexing="ij")
    lr = torch.stack([0.5 + 0.45 * torch.sin((x + k * y) / 4 + k) for k in (0, 1, 2)])[None]  # [1, 3, 16, 16]
    with torch.inference_mode():
        sr = generator.eval()(lr)
    error = (resize(sr, edge, edge) - lr).square().mean()
    return float(-10 * torch.log10(error)) if torch.isfinite(error) else -math.inf


def _fit(
    state_dict: Mapping[str, Tensor],
    arch: str,
    names: Mapping[str, str | None],
    implied: Mapping[str, Any],
    path: Path,
    given: Mapping[str, Any] | None,
) -> _Fit | None:
    """Return the network of ``arch`` whose tensors are called ``names`` in the file (to ours), None if it is none."""
    tensors = {ours: state_dict[name] for name, ours in names.items() if ours is not None}
    network = {"arch": arch, **implied, **(given or {})}
    notes = read_notes(tensors)
    tensors = {name: value for name, value in tensors.items() if "=" not in name}
    if given is None:
        cls = GENERATORS[arch]
        try:
            visible = cls.recognise({name: tuple(value.shape) for name, value in tensors.items()})
        except IndexError:  # right names, shapes of fewer axes
            return None
        if visible is None:
            return None
        scale = _scale_in_name(path) if "scale" in cls.unseen else {}
        network = {"arch": arch, **scale, **visible, **implied, **notes}
    try:
        with torch.device("meta"):
            generator = build(network, str(path))
    except ConfigError as error:
        if given is None:
            return None
        raise IncompatibleCheckpoint(error.message, error.hint) from error
    tensors = _completed(tensors, generator)
    return _Fit(arch, generator, tensors, faults(generator.state_dict(), tensors), bool(notes))


def _completed(tensors: Mapping[str, Tensor], generator: Generator) -> dict[str, Tensor]:
    """Return ``tensors`` with what files of others lack: our notes, and in old ones the count of batches."""
    completed = {name: value for name, value in tensors.items() if "=" not in name}  # those of another trial
    for name, value in generator.state_dict().items():
        if "=" in name or name.endswith(".num_batches_tracked"):
            completed.setdefault(name, torch.zeros_like(value, device="cpu"))
    return completed


def _scale_in_name(path: Path) -> dict[str, int]:
    """Return the scale that the file's name tells: ``fsrcnn_x3.pth``, ``2x-photo.pth``."""
    match = re.search(r"(?:^|[^a-z0-9])(?:x([2-9])|([2-9])x)(?:[^a-z0-9]|$)", path.stem.lower())
    return {"scale": int(match[1] or match[2])} if match else {}


def _unknown(state_dict: Mapping[str, Tensor], path: Path) -> IncompatibleCheckpoint:
    """Return the error that names the architecture with the most names in common, and the first it does not have."""
    foreign: dict[str, list[str]] = {}
    for arch, cls in GENERATORS.items():
        with torch.device("meta"):
            own = {_plain(name) for name in build({"arch": arch}, arch).state_dict()}
        if own:
            foreign[arch] = [
                name
                for name in state_dict
                if _plain(name) not in own and not any(layout.known(name) for layout in cls.layouts)
            ]
    nearest = min(foreign, key=lambda arch: len(foreign[arch]))
    if len(foreign[nearest]) == len(state_dict):
        told = f"its tensors are called {first_of(list(state_dict))}"
    elif foreign[nearest]:
        told = f"nearest is {nearest}, which has no {first_of(foreign[nearest])}"
    else:
        told = f"nearest is {nearest}, with other tensors missing or of another shape"
    return IncompatibleCheckpoint(
        f"{path}: of no known architecture; {told}",
        f"known are {', '.join(foreign)}; with `pip install spandrel`, what that library knows",
    )


def _plain(name: str) -> str:
    return re.sub(r"\d+", "0", name)
