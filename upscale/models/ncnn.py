"""Networks in the format of ncnn: a text that names the layers (.param), and their weights in that order (.bin).

Only convolutions and PReLU have weights in the graphs of ESRGAN's and Real-ESRGAN's networks. Their order says which
network it is; what lies between them (splits, sums, enlargement) is that network's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upscale.errors import IncompatibleCheckpoint

MAGIC = b"7767517"
MAX_LAYERS = 30_000
FLOAT32, FLOAT16 = 0, 0x01306B47  # tags before the weights of a convolution, uint32
# Without weights of their own.
PLAIN = {
    *("Input", "Split", "ReLU", "BinaryOp", "Eltwise", "Concat", "Interp", "PixelShuffle", "Reorg", "Noop", "Clip"),
    *("Reshape", "Permute", "Dropout"),
}


@dataclass(frozen=True, slots=True)
class _Layer:
    kind: str
    name: str
    numbers: dict[int, float]
    """The layer's settings by ncnn's numbers for them; arrays are left out."""

    def whole(self, number: int, default: int = 0) -> int:
        return int(self.numbers.get(number, default))


def read_ncnn(weights: Path) -> dict[str, Tensor]:
    """Return the weights in the .bin file ``weights``, whose layers the .param file beside it names, in their order.

    Keys are ``<layer>.weight`` and ``<layer>.bias``, values float32: ``[out, in, h, w]`` and ``[out]`` of
    convolutions, ``[slopes]`` of PReLU.

    Raises:
        IncompatibleCheckpoint: a layer that is neither, weights in whole numbers, or files that do not belong together.
        OSError: a file cannot be read.
    """
    graph = weights.with_suffix(".param")
    source = _Weights(weights, weights.read_bytes())
    tensors: dict[str, Tensor] = {}
    for layer in _layers(graph):
        if layer.kind == "Convolution":
            outputs, width = layer.whole(0), layer.whole(1)
            height = layer.whole(11, width)
            inputs = layer.whole(6) // max(1, outputs * height * width)
            values = source.tagged(outputs * inputs * height * width)
            tensors[f"{layer.name}.weight"] = torch.from_numpy(values.reshape(outputs, inputs, height, width))
            if layer.whole(5):
                tensors[f"{layer.name}.bias"] = torch.from_numpy(source.floats(outputs))
        elif layer.kind == "PReLU":
            tensors[f"{layer.name}.weight"] = torch.from_numpy(source.floats(layer.whole(0)))
        elif layer.kind not in PLAIN:
            raise IncompatibleCheckpoint(
                f"{graph}: a layer of kind {layer.kind}; only graphs of RRDBNet and compact networks are read",
                "use the network's PyTorch file",
            )
    source.end()
    return tensors


def _layers(graph: Path) -> Iterator[_Layer]:
    try:
        magic, counts, *lines = graph.read_text(encoding="utf-8").split("\n", MAX_LAYERS + 2)
        if magic.encode() != MAGIC or len(lines) < int(counts.split()[0]) or len(lines) > MAX_LAYERS:
            raise ValueError
        for fields in (line.split() for line in lines if line.strip()):
            first = 4 + int(fields[2]) + int(fields[3])  # behind the names of what goes in and comes out
            settings = (field.split("=") for field in fields[first:])
            numbers = {int(key): float(value) for key, value in settings if int(key) >= 0}
            yield _Layer(fields[0], fields[1], numbers)
    except (ValueError, IndexError) as error:
        raise IncompatibleCheckpoint(
            f"{graph}: not a graph of ncnn in its text form", "a .param begins with 7767517; .param.bin is not read"
        ) from error


class _Weights:
    """The bytes of a .bin file, from the start on."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path, self._data, self._at = path, data, 0

    def floats(self, count: int) -> NDArray[np.float32]:
        return self._take("<f4", count).astype(np.float32)

    def tagged(self, count: int) -> NDArray[np.float32]:
        """Return the next ``count`` numbers, in the form that the word before them says."""
        tag = int(self._take("<u4", 1)[0])
        if tag == FLOAT32:
            return self.floats(count)
        if tag == FLOAT16:
            return self._take("<f2", count + count % 2)[:count].astype(np.float32)  # in words of four bytes
        raise IncompatibleCheckpoint(
            f"{self._path}: weights are stored as whole numbers (tag {tag:#x})", "use a file in float16 or float32"
        )

    def end(self) -> None:
        if self._at != len(self._data):
            raise self._amiss(f"{len(self._data) - self._at} bytes too many")

    def _take(self, kind: str, count: int) -> NDArray[np.generic]:
        size = count * np.dtype(kind).itemsize
        if count < 0 or self._at + size > len(self._data):
            raise self._amiss("too short")
        self._at += size
        return np.frombuffer(self._data, kind, count, self._at - size)

    def _amiss(self, how: str) -> IncompatibleCheckpoint:
        return IncompatibleCheckpoint(
            f"{self._path}: {how} for {self._path.with_suffix('.param').name}", "give the two files of one network"
        )
