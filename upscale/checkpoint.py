"""State dict files and networks: read, unwrap, recognise, build, load, save.

A weights file is data. Pickles are read by torch's restricted unpickler, which refuses everything but tensors and
plain containers, so no file can run code; and before anything is read, a file must not claim to be more than it is.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import pathlib
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from upscale.errors import ConfigError, IncompatibleCheckpoint
from upscale.files import replacing
from upscale.imaging import resize
from upscale.models import GENERATORS, Generator, build
from upscale.models.base import read_notes
from upscale.models.features import EXTRACTORS, FeatureExtractor
from upscale.models.foreign import recognised_by_spandrel
from upscale.models.ncnn import read_ncnn
from upscale.models.order import spell

WRAPPERS = (
    *("params_ema", "ema_state_dict", "net_g_ema", "generator_ema", "g_ema", "model_ema", "ema"),
    *("params", "state_dict", "model_state_dict", "generator_state_dict", "model"),
    *("generator", "g_model", "netG", "net_g", "gen", "g", "G"),
)  # in order of preference
PREFIXES = (
    *("module.", "_orig_mod."),
    *("generator_ema.", "generator.", "g_model.", "netG.", "net_g.", "gen.", "g.", "G.", "model.", "net."),
)
COUNTERS = ("total_ops", "total_params")  # left in a network by the profiler thop
METADATA_KEY = "upscale"
"""Key of our JSON object in the metadata of a safetensors file: network, and how it was trained."""

_SCALAR: Any = np.float64(0).__reduce__()[0]  # what NumPy's numbers and arrays are read with
_ARRAY: Any = np.zeros(0).__reduce__()[0]
# What whole training states hold beside tensors: the figures of a run and its options. All of it is data.
PLAIN = (
    *(dict, list, argparse.Namespace, pathlib.PurePosixPath),
    *(np.dtype, np.ndarray, _SCALAR, _ARRAY),
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u4", "u8", "?")),
)
RENAMED: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray.scalar": _SCALAR,  # NumPy 1's names
    "numpy.core.multiarray._reconstruct": _ARRAY,
    "__builtin__.dict": dict,
    "__builtin__.list": list,
    "collections.defaultdict": lambda *default: {},
    "pathlib.PosixPath": pathlib.PurePosixPath,
    "pathlib._local.PosixPath": pathlib.PurePosixPath,
    "pytorch_lightning.utilities.parsing.AttributeDict": dict,
    "lightning_fabric.utilities.data.AttributeDict": dict,
    "lightning.fabric.utilities.data.AttributeDict": dict,
}

MAX_TENSORS = 30_000  # the largest networks have a few thousand
MAX_HEADER = 16 << 20  # bytes; 30 000 tensors need less
MAX_OPCODES = 1_000_000  # of a pickle: a tensor needs about 25
MAX_INFLATION = 20  # weights hardly shrink when they are zipped
HARMLESS = 64 << 20  # bytes that may come out of any zip
FAITHFUL = 20.0  # dB: an enlargement, reduced again, is this near to its source or of another convention
CERTAIN = 30.0  # dB: no need to try another
DECISIVE = 3.0  # dB: by so much a convention must be better than the author's usual one to be believed


def load_generator(path: Path, network: Mapping[str, Any] | None = None) -> Generator:
    """Return the generator whose weights are in ``path``: float32, on the CPU, in evaluation mode.

    ``network`` names the architecture and its hyper-parameters (as in weights.toml); without it, the tensors tell.

    Raises:
        IncompatibleCheckpoint: not a checkpoint, of no known architecture, or keys that do not match exactly.
    """
    candidates = list(_candidates(_read(path)))
    try:
        fit = _identify(candidates, path, network)
    except IncompatibleCheckpoint:
        foreign = (recognised_by_spandrel(state_dict) for state_dict in candidates if network is None)
        found = next((generator for generator in foreign if generator is not None), None)
        if found is None:
            raise
        return found
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in fit.tensors.items()}
    fit.generator.load_state_dict(tensors, assign=True)
    return fit.generator.requires_grad_(False).eval()


def load_extractor(path: Path, kind: str, layers: Collection[str]) -> FeatureExtractor:
    """Return the feature extractor ``kind`` up to the last of ``layers``, with the weights in ``path``.

    Raises:
        IncompatibleCheckpoint: not a checkpoint of that classifier.
    """
    extractor = EXTRACTORS[kind](layers)
    wanted = extractor.state_dict()
    found = {key: value.float() for key, value in read_state_dict(path).items() if key in wanted}
    if faults := _faults(wanted, found):
        raise IncompatibleCheckpoint(f"{path}: does not fit {kind}; {'; '.join(faults)}")
    extractor.load_state_dict(found)
    return extractor.requires_grad_(False).eval()


def save_generator(path: Path, generator: Generator, metadata: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Write the weights of ``generator`` as ``dtype`` to ``path`` (safetensors), under its name only when whole.

    ``metadata`` is stored as JSON beside the architecture and its hyper-parameters.
    """
    tensors = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for key, value in generator.state_dict().items()
    }
    about = {"network": describe(generator), **metadata}
    with replacing(path) as temporary:
        # As bytes, so that a full disk is the system's error and not one of the library's own.
        temporary.write_bytes(save(tensors, {METADATA_KEY: json.dumps(about)}))


def describe(generator: Generator) -> dict[str, Any]:
    """Return the table ``{"arch": ..., hyper-parameters}`` from which ``build`` makes the like of ``generator``."""
    arch = next((name for name, cls in GENERATORS.items() if type(generator) is cls), "spandrel")
    config = generator.config
    return {"arch": arch, **{field: getattr(config, field) for field in config.__dataclass_fields__}}


def read_metadata(path: Path) -> Mapping[str, Any]:
    """Return what ``save_generator`` stored about the network in ``path``; empty for a file from elsewhere."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        about = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    return about if isinstance(about, dict) else {}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors in ``path`` (safetensors, or a PyTorch file), out of any known wrapping.

    Raises:
        IncompatibleCheckpoint: the file cannot be read, would run code, or holds no tensors.
    """
    return next(_candidates(_read(path)))


def recognise(state_dict: Mapping[str, Tensor], path: Path) -> Mapping[str, Any]:
    """Return the table ``{"arch": ..., hyper-parameters}`` of the network that these tensors belong to.

    ``path`` is named in errors; where no tensor shows the scale, its name may (``fsrcnn_x3.pth``).

    Raises:
        IncompatibleCheckpoint: no known architecture has tensors of these names and shapes.
    """
    return describe(_identify([state_dict], path, None).generator)


# Reading


def _read(path: Path) -> dict[str, Any]:
    """Return the dictionary in ``path``, whichever kind of file it is, after a look at what it claims to hold.

    Of ncnn's two files, either may be ``path``.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
        if path.suffix in (".param", ".bin") and path.with_suffix(".param").is_file():
            size = path.with_suffix(".bin").stat().st_size
            content = read_ncnn(path.with_suffix(".bin"))
        elif start[:4] == b"PK\3\4":
            size = _check_zip(path)
            content = _unpickle(path)
        elif start[8:9] == b"{":
            size = path.stat().st_size
            content = _read_safetensors(path, struct.unpack("<Q", start[:8])[0])
        elif start[:1] == b"\x80":
            size = path.stat().st_size
            with path.open("rb") as file:
                for _ in range(4):  # a magic number, a version, the system's facts; then the state dict
                    _check_pickle(file, path)
            content = _unpickle(path)
        else:
            raise _not_weights(path, start)
    except pickle.UnpicklingError as error:
        if "operand" in str(error):  # not even a pickle, or one cut short
            raise _unreadable(path) from error
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        objects = f"Python objects ({named[1]})" if named else "Python objects"
        raise IncompatibleCheckpoint(
            f"{path}: holds {objects}, not just tensors; it could run code and is not opened",
            "with its author's code: torch.save(network.state_dict(), 'weights.pth'); or ask for a safetensors file",
        ) from error
    except OSError as error:
        raise IncompatibleCheckpoint(f"{path}: {error.strerror or error}") from error
    except (
        *(SafetensorError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, KeyError, TypeError, IndexError),
        *(AttributeError, MemoryError),  # a pickle of plain data can still ask for what is not there
    ) as error:
        raise _unreadable(path) from error
    if not isinstance(content, Mapping) or not any(True for _ in _state_dicts(content)):
        raise IncompatibleCheckpoint(f"{path}: no state dict in it")
    for state_dict in _state_dicts(content):
        if sum(value.numel() for value in state_dict.values()) > size:
            raise _too_much(path, "tensors larger than the file")  # views that repeat one number without end
    return dict(content)


def _unpickle(path: Path) -> Any:
    # The last is what torch takes: a class, or a class and the name under which it is known to the file.
    plain: list[Any] = [*PLAIN, *((as_, name) for name, as_ in RENAMED.items())]
    with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(plain):
        return torch.load(path, map_location="cpu", weights_only=True)  # warnings: of other versions of pickle


def _read_safetensors(path: Path, header: int) -> dict[str, Tensor]:
    if header > MAX_HEADER:
        raise _too_much(path, f"a header of {header / 2**20:.0f} MiB")
    with safe_open(path, "pt") as file:
        keys = list(file.keys())
        if len(keys) > MAX_TENSORS:
            raise _too_much(path, f"{len(keys)} tensors")
        return {key: file.get_tensor(key) for key in keys}


def _check_zip(path: Path) -> int:
    """Refuse a zip that claims too many files, or files too large for its size; return how much it holds."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        tail = file.read()
    end, end64 = tail.rfind(b"PK\5\6"), tail.rfind(b"PK\6\6")
    if end < 0:
        raise zipfile.BadZipFile
    entries: int = struct.unpack_from("<Q" if end64 >= 0 else "<H", tail, end64 + 32 if end64 >= 0 else end + 10)[0]
    if entries > 3 * MAX_TENSORS:  # weights and their running means, for the network and its optimiser
        raise _too_much(path, f"{entries} parts")
    with zipfile.ZipFile(path) as archive:
        files = archive.infolist()
        if any("/code/" in info.filename for info in files):
            raise IncompatibleCheckpoint(
                f"{path}: a TorchScript program, not just weights; it is not opened",
                "whoever trusts it takes its weights out: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')",
            )
        total = sum(info.file_size for info in files)
        if total > max(HARMLESS, MAX_INFLATION * path.stat().st_size):
            raise _too_much(path, f"{total / 2**20:.0f} MiB in {path.stat().st_size / 2**20:.1f}")
        for info in files:
            if info.filename.endswith("data.pkl"):
                with archive.open(info) as file:
                    _check_pickle(file, path)
    return total


def _check_pickle(file: IO[bytes], path: Path) -> None:
    """Go through one pickle without doing what it says; refuse one that is longer than any network's."""
    for done, _ in enumerate(pickletools.genops(file)):
        if done > MAX_OPCODES:
            raise _too_much(path, "more objects than any network has tensors")


def _state_dicts(content: Mapping[Any, Any]) -> Iterator[dict[str, Tensor]]:
    """Yield the state dicts in ``content``, the preferred ones first."""
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    tensors = {name: value for name, value in tensors.items() if name.rpartition(".")[2] not in COUNTERS}
    if any("." in key for key in tensors):
        yield tensors
    for wrapper in sorted(content, key=lambda key: WRAPPERS.index(key) if key in WRAPPERS else len(WRAPPERS)):
        if isinstance(content[wrapper], Mapping):
            yield from _state_dicts(content[wrapper])
    if tensors and not any("." in key for key in tensors):  # more likely a counter than a network
        yield tensors


def _candidates(content: Mapping[Any, Any]) -> Iterator[dict[str, Tensor]]:
    """Yield the state dicts in ``content``, each also without the prefixes that wrappers of modules leave."""
    for state_dict in _state_dicts(content):
        yield from _without_prefixes(state_dict)


def _without_prefixes(state_dict: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    for prefix in PREFIXES:
        inner = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        if inner and prefix in PREFIXES[:2]:  # left by DataParallel and torch.compile, never part of a name
            yield from _without_prefixes(inner)
            return
    yield state_dict
    first = next(iter(state_dict)).partition(".")[0] + "."  # of every name: that of a module around the network
    shared = all(name.startswith(first) for name in state_dict)
    for prefix in (*PREFIXES[2:], *([first] if shared and first not in PREFIXES else [])):
        inner = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        if inner:
            yield from _without_prefixes(inner)


# Recognising


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


def _identify(candidates: Sequence[Mapping[str, Tensor]], path: Path, network: Mapping[str, Any] | None) -> _Fit:
    """Return the network that fits the first of ``candidates`` that any fits.

    Raises:
        IncompatibleCheckpoint: none fits; it names the nearest architecture and what is foreign to it.
    """
    if network is not None and network.get("arch") not in GENERATORS:
        raise IncompatibleCheckpoint(f"{path}: {network.get('arch')!r} is no architecture")
    archs = GENERATORS if network is None else {str(network["arch"]): GENERATORS[str(network["arch"])]}
    misfits = []
    for state_dict in candidates:
        for arch, cls in archs.items():
            for layout in (None, *cls.layouts):
                names = {name: name for name in state_dict} if layout is None else layout.translate(state_dict)
                if names is None:
                    continue
                fit = _fit(state_dict, arch, names, layout.implies if layout else {}, path, network)
                if fit is not None and not fit.faults:
                    return _tried(fit, named=True)[0] if network is None else fit
                if fit is not None:
                    misfits.append(fit)
    if network is None:
        for state_dict in candidates:
            tried = [_tried(fit, named=False) for fit in _in_order(state_dict, path)]
            best, decibels = max(tried, key=lambda found: found[1], default=(None, 0.0))
            if best is not None and decibels > FAITHFUL:
                return best
    if misfits:
        nearest = min(misfits, key=lambda fit: len(fit.faults))
        raise IncompatibleCheckpoint(f"{path}: does not fit {nearest.arch}; {'; '.join(nearest.faults)}")
    raise _unknown(candidates[0], path)


def _in_order(state_dict: Mapping[str, Tensor], path: Path) -> Iterator[_Fit]:
    """Yield the networks whose layers follow each other like those of ``state_dict``, whatever they are called."""
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
    usual = describe(fit.generator)
    if named and (not doubts or fit.noted or any(value.is_meta for value in fit.tensors.values())):
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
    floats = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    generator.load_state_dict(floats, assign=True)
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
        visible = cls.recognise({name: tuple(value.shape) for name, value in tensors.items()})
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
    return _Fit(arch, generator, tensors, _faults(generator.state_dict(), tensors), bool(notes))


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


def _faults(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> tuple[str, ...]:
    misshapen = [
        f"{key} {list(found[key].shape)} instead of {list(expected[key].shape)}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    faults = (
        ("missing", [key for key in expected if key not in found]),
        ("unexpected", [key for key in found if key not in expected]),
        ("of another shape", misshapen),
    )
    return tuple(f"{what}: {_first(keys)}" for what, keys in faults if keys)


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
        told = f"its tensors are called {_first(list(state_dict))}"
    elif foreign[nearest]:
        told = f"nearest is {nearest}, which has no {_first(foreign[nearest])}"
    else:
        told = f"nearest is {nearest}, with other tensors missing or of another shape"
    return IncompatibleCheckpoint(
        f"{path}: of no known architecture; {told}",
        f"known are {', '.join(foreign)}; with `pip install spandrel`, what that library knows",
    )


def _plain(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


# Errors


def _unreadable(path: Path) -> IncompatibleCheckpoint:
    return IncompatibleCheckpoint(
        f"{path}: not a readable checkpoint (damaged, cut short, or another kind of file)",
        "fetch it again; supported are .safetensors and .pth/.pt state dicts",
    )


def _not_weights(path: Path, start: bytes) -> IncompatibleCheckpoint:
    kinds = {b"<": "a web page", b"version https": "a pointer of Git LFS", b"": "an empty file"}
    for signature, kind in kinds.items():
        if start.lstrip().startswith(signature) and (signature or not start):
            return IncompatibleCheckpoint(f"{path}: {kind}, not weights", "fetch the file itself")
    return _unreadable(path)


def _too_much(path: Path, claim: str) -> IncompatibleCheckpoint:
    return IncompatibleCheckpoint(
        f"{path}: claims {claim}; no network's weights are like that, and the file is not opened",
        "get the weights from where they were published",
    )
