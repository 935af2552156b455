"""State dict files: read whatever holds one, and take it out of its wrapping.

A weights file is data. Pickles are read by torch's restricted unpickler, which refuses everything but tensors and
plain containers, so no file can run code; and before anything is read, a file must not claim to be more than it is.
"""

from __future__ import annotations

import argparse
import pathlib
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from upscale.errors import IncompatibleCheckpoint
from upscale.models.ncnn import read_ncnn

WRAPPERS = (
    *("params_ema", "ema_state_dict", "net_g_ema", "generator_ema", "g_ema", "model_ema", "ema"),
    *("params", "state_dict", "model_state_dict", "generator_state_dict", "model"),
    *("generator", "g_model", "netG", "net_g", "gen", "g", "G"),
)  # in order of preference
WRAPPING = ("module.", "_orig_mod.")  # left by DataParallel and torch.compile, never part of a name
PREFIXES = ("generator_ema.", "generator.", "g_model.", "netG.", "net_g.", "gen.", "g.", "G.", "model.", "net.")
COUNTERS = ("total_ops", "total_params")  # left in a network by the profiler thop

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
MAX_PREFIXES = 10  # of a name: wrappers in wrappers
MAX_INFLATION = 20  # weights hardly shrink when they are zipped
HARMLESS = 64 << 20  # bytes that may come out of any zip


def candidates(path: Path) -> Iterator[dict[str, Tensor]]:
    """Yield the state dicts in ``path``, the likeliest first, each also without the prefixes that wrappers leave.

    Raises:
        IncompatibleCheckpoint: the file cannot be read, would run code, or holds no tensors.
    """
    for state_dict in _read(path):
        yield from _without_prefixes(state_dict)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors in ``path`` (safetensors, or a PyTorch file), out of any known wrapping.

    Raises:
        IncompatibleCheckpoint: the file cannot be read, would run code, or holds no tensors.
    """
    return next(candidates(path))


def _read(path: Path) -> list[dict[str, Tensor]]:
    """Return the state dicts in ``path``, whichever kind of file it is, after a look at what it claims to hold.

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
        elif _begins_safetensors(start):
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
        found = list(_state_dicts(content)) if isinstance(content, Mapping) else []
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
        *(AttributeError, MemoryError, OverflowError),  # a pickle of plain data can still ask for what is not there
        *(RecursionError, struct.error),  # it may hold itself, a zip less than its end claims
    ) as error:
        raise _unreadable(path) from error
    if not found:
        raise IncompatibleCheckpoint(f"{path}: no state dict in it")
    if any(sum(value.numel() for value in state_dict.values()) > size for state_dict in found):
        raise _too_much(path, "tensors larger than the file")  # views that repeat one number without end
    return found


def keeps_order(path: Path) -> bool:
    """Tell whether the tensors in ``path`` are in the order of the network: safetensors sorts them by name."""
    with path.open("rb") as file:
        return not _begins_safetensors(file.read(16))


def _begins_safetensors(start: bytes) -> bool:
    return start[8:9] == b"{"


def _unpickle(path: Path) -> Any:
    # The last is what torch takes: a class, or a class and the name under which it is known to the file.
    plain: list[Any] = [*PLAIN, *((as_, name) for name, as_ in RENAMED.items())]
    with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(plain):
        return torch.load(path, map_location="cpu", weights_only=True)  # warnings: of other versions of pickle


def _read_safetensors(path: Path, header: int) -> dict[str, Tensor]:
    if header > MAX_HEADER:
        raise _too_much(path, f"a header of {header / 2**20:.0f} MiB")
    with safe_open(path, "pt") as file:
        keys = sorted(file.keys(), key=_naturally)
        if len(keys) > MAX_TENSORS:
            raise _too_much(path, f"{len(keys)} tensors")
        return {key: file.get_tensor(key) for key in keys}


def _naturally(name: str) -> list[str | int]:
    """Return what sorts ``name`` with its numbers as numbers: body.2 before body.10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


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


def _state_dicts(content: Mapping[Any, Any], seen: set[int] | None = None) -> Iterator[dict[str, Tensor]]:
    """Yield the state dicts in ``content``, the preferred ones first; a mapping that it holds again and again, once."""
    seen = set() if seen is None else seen
    if id(content) in seen:
        return
    seen.add(id(content))
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    tensors = {name: value for name, value in tensors.items() if name.rpartition(".")[2] not in COUNTERS}
    if any("." in key for key in tensors):
        yield tensors
    for wrapper in sorted(content, key=lambda key: WRAPPERS.index(key) if key in WRAPPERS else len(WRAPPERS)):
        if isinstance(content[wrapper], Mapping):
            yield from _state_dicts(content[wrapper], seen)
    if tensors and not any("." in key for key in tensors):  # more likely a counter than a network
        yield tensors


def _without_prefixes(state_dict: dict[str, Tensor], most: int = MAX_PREFIXES) -> Iterator[dict[str, Tensor]]:
    if most == 0:
        return
    for prefix in WRAPPING:
        inner = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        if inner:
            yield from _without_prefixes(inner, most - 1)
            return
    yield state_dict
    first = next(iter(state_dict)).partition(".")[0] + "."  # of every name: that of a module around the network
    shared = all(name.startswith(first) for name in state_dict)
    for prefix in (*PREFIXES, *([first] if shared and first not in PREFIXES else [])):
        inner = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        if inner:
            yield from _without_prefixes(inner, most - 1)


def _unreadable(path: Path) -> IncompatibleCheckpoint:
    return IncompatibleCheckpoint(
        f"{path}: not a readable checkpoint (damaged, cut short, or another kind of file)",
        "fetch it again; supported are state dicts in .safetensors, .pth, .pt and .ckpt, and ncnn's .param",
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
