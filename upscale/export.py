"""Networks -> files for this and other programs, each checked by running it."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from upscale.checkpoint import load_generator, save_generator
from upscale.errors import UsageError
from upscale.files import replacing, said_of
from upscale.models import Generator

OPSET = 18


def export_safetensors(generator: Generator, path: Path, about: Mapping[str, Any], *, half: bool) -> float:
    """Write ``generator`` to ``path``; return the largest difference of its result, in [0, 1], when read again.

    ``about`` is what is known of it, such as how it was trained.

    Raises:
        UsageError: it has no weights.
        InputError: the file cannot be written.
    """
    if not generator.has_weights:
        raise UsageError("this network has no weights to export", "its name is all that it needs")
    lr = _probe(generator, 24, 32)
    with said_of(path), replacing(path) as temporary, torch.inference_mode():
        save_generator(temporary, generator, about, torch.float16 if half else torch.float32)
        return float((load_generator(temporary).enlarge(lr) - generator.enlarge(lr)).abs().max())


def export_onnx(generator: Generator, path: Path, *, half: bool) -> float:
    """Write ``generator`` to ``path`` for onnxruntime and others; return the largest difference when run there.

    The input is called ``lr`` ``[B, C, h, w]``, float32, of the network's own channels: RGB, or luma alone. The output
    is called ``sr``. Batch, height and width are free. With ``half``, the weights between first and last are float16.

    Raises:
        UsageError: the packages for it are not installed, or it interpolates to any scale.
        InputError: the file cannot be written.
    """
    if generator.any_scale:
        raise UsageError("ONNX cannot hold this network: it interpolates to any scale", "export to .safetensors")
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"ONNX needs {' and '.join(missing)}", "pip install onnx onnxruntime")
    import onnxruntime

    core = _Core(copy.deepcopy(generator.folded()))
    if half:
        core.generator.to_precision(torch.float16)
    with (
        said_of(path),
        replacing(path) as temporary,
        warnings.catch_warnings(action="ignore"),  # "legacy", and remarks on tracing
    ):
        torch.onnx.export(
            core,
            (_probe(generator, 24, 32),),
            temporary,
            input_names=["lr"],
            output_names=["sr"],
            dynamic_axes={name: {0: "batch", 2: f"{name}_height", 3: f"{name}_width"} for name in ("lr", "sr")},
            opset_version=OPSET,
            dynamo=False,  # the newer exporter needs a further package
        )
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        lr = _probe(generator, 32, 20)  # another size than it was traced with
        (found,) = session.run(["sr"], {"lr": lr.numpy()})
    with torch.inference_mode():
        return float((torch.from_numpy(found) - generator.enlarge(lr)).abs().max())


class _Core(nn.Module):
    """A network on its own channels, without what makes colours of luma."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, lr: Tensor) -> Tensor:
        return self.generator.enlarge(lr)


def _probe(generator: Generator, height: int, width: int) -> Tensor:
    """Return noise of the size and the channels that ``generator`` takes."""
    m = generator.multiple_of
    noise = torch.Generator().manual_seed(0)
    return torch.rand(1, generator.channels[0], -(-height // m) * m, -(-width // m) * m, generator=noise)
