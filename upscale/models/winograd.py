"""Compact networks in float32 on a CPU: by ncnn, whose 3x3 convolutions are Winograd's; PyTorch's are direct.

F(4x4, 3x3) makes 16 pixels of a feature of 36 products instead of 144 (Lavin and Gray 2016, "Fast algorithms for
convolutional neural networks", section 4). Between the layers, features stay in the layout that it works in.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from upscale.models.base import Generator
from upscale.models.compact import Compact
from upscale.models.composed import Chain, SelfEnsemble
from upscale.models.ncnn import FLOAT32, MAGIC
from upscale.models.rows import Part, Rows, Whole, repeated

STRIP = 224**2  # pixels at a time: more would take twice the memory that they take in PyTorch
LEAST_FEATURES = 64  # with fewer, the transforms around the products take what these save


def by_winograd(generator: Generator) -> Generator:
    """Return ``generator`` in a form that is faster on a CPU, itself where there is none."""
    if isinstance(generator, SelfEnsemble):
        return SelfEnsemble(by_winograd(generator.part))
    if isinstance(generator, Chain):
        return Chain([by_winograd(network) for network in generator.networks])
    wide = type(generator) is Compact and generator.streams and generator.config.num_feat >= LEAST_FEATURES
    return WinogradCompact(generator) if wide else generator


class WinogradCompact(Compact):
    """A compact network with the weights of another that goes through ncnn, one image at a time."""

    def __init__(self, compact: Generator) -> None:
        with torch.device("meta"):
            super().__init__(compact.config)
        self.load_state_dict(compact.state_dict(), assign=True)
        self.requires_grad_(False).eval()
        self._nets: dict[bool, Any] = {}
        self._pools: list[Any] = []

    def enlarge(self, x: Tensor) -> Tensor:  # noqa: D102
        rows, (height, width) = Rows(), x.shape[2:]
        tall = max(1, STRIP // width)
        results = []
        for top in range(0, height, tall):
            part = Part(top, min(top + tall, height), height)
            results.append(self.enlarge_rows(x[:, :, part.start : part.stop], part, rows))
            rows.gather()
        return torch.cat(results, 2)

    def enlarge_rows(self, x: Tensor, part: Part, rows: Whole) -> Tensor:  # noqa: D102
        assert isinstance(rows, Rows)
        convolutions = [layer for layer in self.body if isinstance(layer, nn.Conv2d)]
        above, left = [], x.shape[2]
        for layer in convolutions:
            kept = rows.kept(layer)
            if kept is None:  # above the first row there are zeros, as below the last
                kept = x.new_zeros(1, layer.in_channels, 1, x.shape[3])
            above.append(kept)
            left += kept.shape[2] - 2 + part.last
            if left < 1:  # ncnn has no empty images
                return super().enlarge_rows(x, part, rows)
        net = self._net(last=part.last)
        if net is None:
            return super().enlarge_rows(x, part, rows)
        with _Run(net, self._pools) as run:
            run.give("lr", x)
            for i, kept in enumerate(above):
                run.give(f"above{i}", kept)
            if not part.last:  # one after the other, so that what lies between layers is let go of
                for i, layer in enumerate(convolutions):
                    rows.keep(layer, run.take(f"kept{i}"))
            sr = run.take("sr")
        return sr + repeated(rows.delay(self, x, sr.shape[2] // self.scale), self.scale)

    def _net(self, *, last: bool) -> Any:
        """Return the network for the last rows, or for others; None where ncnn could not read its weights."""
        import ncnn

        if not self._pools:  # of ncnn's own, a few rows that are kept would each take the room of a whole strip
            self._pools = [ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()]
            for pool in self._pools:
                pool.set_size_compare_ratio(0.5)
        if last not in self._nets:
            net = ncnn.Net()
            net.opt.blob_allocator, net.opt.workspace_allocator = self._pools
            self._nets[last] = net if _graph(self.body, self.scale, last=last).load_into(net) else None
        return self._nets[last]


@dataclass(frozen=True, slots=True)
class _Graph:
    """A network of ncnn in the making: its layers as lines of text, and their weights in the same order."""

    lines: list[str] = field(default_factory=list)
    blobs: list[str] = field(default_factory=list)
    weights: bytearray = field(default_factory=bytearray)

    def add(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], settings: str = "") -> None:
        names = " ".join((*inputs, *outputs))
        self.lines.append(f"{kind} layer{len(self.lines)} {len(inputs)} {len(outputs)} {names} {settings}")
        self.blobs.extend(outputs)

    def store(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            self.weights.extend(tensor.float().contiguous().numpy().tobytes())

    def load_into(self, net: Any) -> bool:
        """Tell whether ``net`` could read it: not where there is no temporary folder whose name ncnn can open."""
        net.opt.num_threads = torch.get_num_threads()
        # float32 throughout, also where ncnn would rather halve it.
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_storage = False
        text = "\n".join((MAGIC.decode(), f"{len(self.lines)} {len(self.blobs)}", *self.lines, ""))
        try:
            with tempfile.TemporaryDirectory(prefix="upscale-") as folder:  # it takes weights from files only
                weights = Path(folder) / "weights.bin"
                weights.write_bytes(self.weights)
                failed: int = net.load_param_mem(text) or net.load_model(str(weights))
        except OSError:
            return False
        return not failed


def _graph(layers: nn.Sequential, scale: int, *, last: bool) -> _Graph:
    """Return the network that ``Rows`` makes of ``layers``: of ``lr`` and the rows above each convolution, ``sr``.

    Where the rows are not the ``last`` ones, it also gives those that each convolution will need again.
    """
    graph = _Graph()
    graph.add("Input", [], ["lr"])
    x, i = "lr", 0
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is not None  # Compact's have one
            graph.add("Input", [], [f"above{i}"])
            graph.add("Concat", [f"above{i}", x], [f"joined{i}"], "0=1")  # along rows
            x = f"joined{i}"
            if not last:
                graph.add("Split", [x], [f"all{i}", f"again{i}"])
                graph.add("Crop", [f"again{i}"], [f"kept{i}"], "-23309=1,-2 -23310=1,-233 -23311=1,1")  # two rows
                x = f"all{i}"
            padding = f"4=1 15=1 14=0 16={int(last)}"  # left, right, top, bottom
            settings = f"0={layer.out_channels} 1=3 {padding} 5=1 6={layer.weight.numel()}"
            graph.add("Convolution", [x], [f"convolved{i}"], settings)
            graph.weights.extend(FLOAT32.to_bytes(4, "little"))
            graph.store(layer.weight, layer.bias)
            x = f"convolved{i}"
            i += 1
        else:
            if isinstance(layer, nn.PReLU):
                graph.add("PReLU", [x], [f"active{i}"], f"0={layer.weight.numel()}")
                graph.store(layer.weight)
            else:
                graph.add("ReLU", [x], [f"active{i}"], f"0={getattr(layer, 'negative_slope', 0.0)}")
            x = f"active{i}"
    graph.add("PixelShuffle", [x], ["sr"], f"0={scale}")
    return graph


class _Run:
    """One pass through a network of ncnn; its memory is let go of in the end, also after an error."""

    def __init__(self, net: Any, pools: Sequence[Any]) -> None:
        import ncnn

        self._pools = pools
        self._extractor = net.create_extractor()
        self._mat = ncnn.Mat
        self._given: list[Any] = []  # ncnn only refers to the memory of what it is given

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._extractor.clear()
        for pool in self._pools:
            pool.clear()

    def give(self, name: str, x: Tensor) -> None:
        """Let the input ``name`` be ``x`` ``[1, C, h, w]``."""
        array = np.ascontiguousarray(x[0].numpy())
        self._given.append(array)
        self._extractor.input(name, self._mat(array))

    def take(self, name: str) -> Tensor:
        """Return the output ``name`` as float32 ``[1, C, h, w]``, in ncnn's memory."""
        code, mat = self._extractor.extract(name)
        if code:
            raise MemoryError
        return torch.from_numpy(np.asarray(mat))[None]
