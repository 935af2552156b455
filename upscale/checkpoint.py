"""State dict files and networks: read, unwrap, recognise, build, load, save.

A weights file is data. Pickles are read by torch's restricted unpickler, which refuses everything but tensors and
plain containers, so no file can run code.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from upscale.errors import ConfigError, IncompatibleCheckpoint
from upscale.files import replacing
from upscale.models import GENERATORS, Generator, build
from upscale.models.features import EXTRACTORS, FeatureExtractor

WRAPPERS = ("params_ema", "params", "state_dict")  # in order of preference
METADATA_KEY = "upscale"
"""Key of our JSON object in the metadata of a safetensors file: arch, config and how it was trained."""


def load_generator(path: Path, network: Mapping[str, Any] | None = None) -> Generator:
    """Return the generator whose weights are in ``path``: float32, on the CPU, in evaluation mode.

    ``network`` names the architecture and its hyper-parameters (as in weights.toml); without it, the tensors tell.

    Raises:
        IncompatibleCheckpoint: not a checkpoint, of no known architecture, or keys that do not match exactly.
    """
    state_dict = read_state_dict(path)
    if network is None:
        network = recognise(state_dict, path)
    try:
        with torch.device("meta"):
            generator = build(network, str(path))
    except ConfigError as error:
        raise IncompatibleCheckpoint(error.message, error.hint) from error
    _check_keys(generator, state_dict, path)
    generator.load_state_dict({key: value.float() for key, value in state_dict.items()}, assign=True)
    return generator.requires_grad_(False).eval()


def load_extractor(path: Path, kind: str, layers: Collection[str]) -> FeatureExtractor:
    """Return the feature extractor ``kind`` up to the last of ``layers``, with the weights in ``path``.

    Raises:
        IncompatibleCheckpoint: not a checkpoint of that classifier.
    """
    extractor = EXTRACTORS[kind](layers)
    wanted = extractor.state_dict()
    found = {key: value.float() for key, value in read_state_dict(path).items() if key in wanted}
    _check_keys(extractor, found, path)
    extractor.load_state_dict(found)
    return extractor.requires_grad_(False).eval()


def save_generator(path: Path, generator: Generator, metadata: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Write the weights of ``generator`` as ``dtype`` to ``path`` (safetensors), under its name only when whole.

    ``metadata`` is stored as JSON beside the architecture and its hyper-parameters.
    """
    tensors = {key: value.detach().to("cpu", dtype).contiguous() for key, value in generator.state_dict().items()}
    about = {"network": describe(generator), **metadata}
    with replacing(path) as temporary:
        save_file(tensors, temporary, {METADATA_KEY: json.dumps(about)})


def describe(generator: Generator) -> dict[str, Any]:
    """Return the table ``{"arch": ..., hyper-parameters}`` from which ``build`` makes the like of ``generator``."""
    arch = next(name for name, cls in GENERATORS.items() if type(generator) is cls)
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
        IncompatibleCheckpoint: the file cannot be read, would run code, or holds something other than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        with warnings.catch_warnings(action="ignore"):  # remarks on other versions of pickle
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "operand" in str(error):  # not even a pickle, or one cut short
            raise _unreadable(path) from error
        raise IncompatibleCheckpoint(
            f"{path}: holds Python objects, not just tensors; it could run code and is not opened",
            "ask its author for a safetensors file or a plain state dict",
        ) from error
    except OSError as error:
        raise IncompatibleCheckpoint(f"{path}: {error.strerror or error}") from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _unreadable(path) from error
    return _unwrap(content, path)


def recognise(state_dict: Mapping[str, Tensor], path: Path) -> Mapping[str, Any]:
    """Return the table ``{"arch": ..., hyper-parameters}`` of the network that these tensors belong to.

    Raises:
        IncompatibleCheckpoint: no known architecture has tensors of these names and shapes.
    """
    shapes = {key: tuple(value.shape) for key, value in state_dict.items()}
    for arch, cls in GENERATORS.items():
        config = cls.recognise(shapes)
        if config is not None:
            return {"arch": arch, **config}
    keys = ", ".join(list(shapes)[:3])
    known = ", ".join(arch for arch, cls in GENERATORS.items() if cls.edges)
    raise IncompatibleCheckpoint(
        f"{path}: of no known architecture; its tensors are called {keys}, ...", f"known are {known}"
    )


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise IncompatibleCheckpoint(f"{path}: no state dict in it")
    strangers = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise IncompatibleCheckpoint(f"{path}: {strangers[0]!r} is not a tensor, so this is no state dict")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _check_keys(network: nn.Module, state_dict: Mapping[str, Tensor], path: Path) -> None:
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state_dict.items()}
    faults = [
        ("missing", [key for key in expected if key not in found]),
        ("unexpected", [key for key in found if key not in expected]),
        (
            "of another shape",
            [
                f"{key} {list(found[key])} instead of {list(expected[key])}"
                for key in expected
                if key in found and found[key] != expected[key]
            ],
        ),
    ]
    described = [f"{what}: {', '.join(keys[:3])}" + (" ..." if len(keys) > 3 else "") for what, keys in faults if keys]
    if described:
        raise IncompatibleCheckpoint(f"{path}: does not fit {type(network).__name__}; {'; '.join(described)}")


def _unreadable(path: Path) -> IncompatibleCheckpoint:
    return IncompatibleCheckpoint(
        f"{path}: not a readable checkpoint (damaged, cut short, or another kind of file)",
        "fetch it again; supported are .safetensors and .pth/.pt state dicts",
    )
