"""Files of weights -> networks, and back."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from upscale import store
from upscale.catalog import shipped
from upscale.errors import IncompatibleCheckpoint
from upscale.files import replacing
from upscale.models import Generator, network_of
from upscale.models.base import IMAGENET_MEAN, IMAGENET_STD
from upscale.models.features import EXTRACTORS, FeatureExtractor, load_part
from upscale.models.foreign import recognised_by_spandrel
from upscale.recognise import recognise
from upscale.statedict import candidates, read_state_dict

METADATA_KEY = "upscale"
"""Key of our JSON object in the metadata of a safetensors file: network, and how it was trained."""


def load_generator(path: Path, network: Mapping[str, Any] | None = None) -> Generator:
    """Return the generator whose weights are in ``path``: float32, on the CPU, in evaluation mode.

    ``network`` names the architecture and its hyper-parameters (as in weights.toml); without it, the tensors tell.

    Raises:
        IncompatibleCheckpoint: not a checkpoint, of no known architecture, or keys that do not match exactly.
    """
    state_dicts = list(candidates(path))
    try:
        generator = recognise(state_dicts, path, network)
    except IncompatibleCheckpoint:
        foreign = (recognised_by_spandrel(state_dict) for state_dict in state_dicts if network is None)
        found = next((generator for generator in foreign if generator is not None), None)
        if found is None:
            raise
        return found
    return generator.requires_grad_(False).eval()


def load_extractor(path: Path, kind: str, layers: Collection[str]) -> FeatureExtractor:
    """Return the feature extractor ``kind`` up to the last of ``layers``, with the weights in ``path``.

    Raises:
        IncompatibleCheckpoint: not a checkpoint of that classifier.
    """
    extractor = EXTRACTORS[kind](layers)
    load_part(extractor, read_classifier(path), "", f"{path}: does not fit {kind}")
    return extractor.requires_grad_(False).eval()


def read_classifier(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a classifier under torchvision's names; those of a SqueezeNet take RGB in [0, 1].

    torchvision's own, which its hash tells, wants ImageNet's mean taken off and its deviation divided out: that goes
    into the first layer, exactly, as this has no padding. Any other file is taken for one that has it there.
    """
    tensors = dict(read_state_dict(path))
    entry = shipped().entries["squeezenet"]
    if path.stat().st_size != entry.bytes or store.sha256(path) != entry.sha256:
        return tensors
    weight, bias = (tensors[f"features.0.{name}"].float() for name in ("weight", "bias"))
    weight = weight / torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    tensors["features.0.weight"] = weight
    tensors["features.0.bias"] = bias - (weight.sum((2, 3)) * torch.tensor(IMAGENET_MEAN)).sum(1)
    return tensors


def save_generator(path: Path, generator: Generator, metadata: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Write the weights of ``generator`` as ``dtype`` to ``path`` (safetensors), under its name only when whole.

    ``metadata`` is stored as JSON beside the architecture and its hyper-parameters.
    """
    tensors = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for key, value in generator.state_dict().items()
    }
    about = {"network": network_of(generator), **metadata}
    with replacing(path) as temporary:
        # As bytes, so that a full disk is the system's error and not one of the library's own.
        temporary.write_bytes(save(tensors, {METADATA_KEY: json.dumps(about)}))


def read_metadata(path: Path) -> Mapping[str, Any]:
    """Return what ``save_generator`` stored about the network in ``path``; empty for a file from elsewhere."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        try:
            about = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
        except ValueError:  # somebody else's, under our key
            return {}
    return about if isinstance(about, dict) else {}
