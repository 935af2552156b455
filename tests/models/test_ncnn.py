"""Graphs in ncnn's format, written here and, where ncnn is installed, run by it as well."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import network
from upscale.catalog import known
from upscale.checkpoint import load_generator
from upscale.errors import IncompatibleCheckpoint, UnknownWeights
from upscale.models import Generator, network_of
from upscale.models.ncnn import FLOAT16


class Graph:
    """A .param and a .bin in the making; each method adds a layer and returns the name of what comes out."""

    def __init__(self, half: bool) -> None:
        self.lines, self.data, self.half = ["Input in 0 1 in"], b"", half
        self.blobs = ["in"]

    def add(self, kind: str, *inputs: str, **numbers: float) -> str:
        name = f"{kind.lower()}_{len(self.lines)}"
        settings = " ".join(f"{key[1:]}={value}" for key, value in numbers.items())
        self.lines.append(f"{kind} {name} {len(inputs)} 1 {' '.join(inputs)} {name} {settings}")
        self.blobs.append(name)
        return name

    def conv(self, x: str, layer: nn.Conv2d, slope: float | None = None) -> str:
        weight = layer.weight.detach().numpy()
        fused = {} if slope is None else {"_9": 2}
        name = self.add("Convolution", x, _0=len(weight), _1=3, _4=1, _5=1, _6=weight.size, **fused)
        if slope is not None:
            self.lines[-1] += f" -23310=1,{slope}"
        if self.half:
            self.data += struct.pack("<I", FLOAT16) + weight.astype("<f2").tobytes() + bytes(weight.size % 2 * 2)
        else:
            self.data += struct.pack("<I", 0) + weight.astype("<f4").tobytes()
        assert layer.bias is not None
        self.data += layer.bias.detach().numpy().astype("<f4").tobytes()
        return name

    def split(self, x: str, count: int) -> list[str]:
        outputs = [f"{x}_{i}" for i in range(count)]
        self.lines.append(f"Split split_{len(self.lines)} 1 {count} {x} {' '.join(outputs)}")
        self.blobs += outputs
        return outputs

    def prelu(self, x: str, layer: nn.PReLU) -> str:
        self.data += layer.weight.detach().numpy().astype("<f4").tobytes()
        return self.add("PReLU", x, _0=layer.weight.numel())

    def save(self, path: Path) -> Path:
        path.write_text("\n".join(["7767517", f"{len(self.lines)} {len(self.blobs)}", *self.lines]) + "\n")
        path.with_suffix(".bin").write_bytes(self.data)
        return path


def compact_graph(net: Generator, half: bool) -> Graph:
    graph = Graph(half)
    body, base = graph.split("in", 2)
    for layer in net.get_submodule("body").children():
        if isinstance(layer, nn.Conv2d):
            body = graph.conv(body, layer)
        elif isinstance(layer, nn.PReLU):
            body = graph.prelu(body, layer)
    scale = net.scale
    graph.add(
        "BinaryOp", graph.add("PixelShuffle", body, _0=scale), graph.add("Interp", base, _0=1, _1=scale, _2=scale)
    )
    return graph


def rrdb_graph(net: Generator, half: bool) -> Graph:
    graph = Graph(half)

    def conv(x: str, name: str, slope: float | None = None) -> str:
        layer = net.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        return graph.conv(x, layer, slope)

    def scaled(x: str, y: str) -> str:
        return graph.add("BinaryOp", graph.add("BinaryOp", y, _0=2, _1=1, _2=0.2), x, _0=0)

    first, whole = graph.split(conv("in", "conv_first"), 2)
    x = first
    for i in range(net.config.num_block):
        x, around = graph.split(x, 2)
        for j in (1, 2, 3):
            copies = graph.split(x, 6)
            seen = [[copy] for copy in copies[:5]]
            for k in range(5):
                joined = graph.add("Concat", *seen[k], _0=0) if k else seen[0][0]
                y = conv(joined, f"body.{i}.rdb{j}.conv{k + 1}", 0.2 if k < 4 else None)
                for later, copy in zip(seen[k + 1 :], graph.split(y, 4 - k) if k < 4 else [], strict=True):
                    later.append(copy)
            x = scaled(copies[5], y)
        x = scaled(around, x)
    x = graph.add("BinaryOp", whole, conv(x, "conv_body"), _0=0)
    for i in range(len(net.factors)):  # type: ignore[arg-type]
        x = conv(graph.add("Interp", x, _0=1, _1=2.0, _2=2.0), f"conv_up{i + 1}", 0.2)
    conv(conv(x, "conv_hr", 0.2), "conv_last")
    return graph


def trained(net: Generator) -> Generator:
    """Give weights with which ``net`` repeats pixels, plus a little: what is of no effect is nobody's network."""
    torch.manual_seed(0)
    ends = ("conv_first", "conv_up", "conv_hr", "conv_last")
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0, 0.005)
            if name.startswith(ends):
                layer.weight[range(3), range(3), 1, 1] += 1
    return net


CASES: dict[str, tuple[Generator, Callable[[Generator, bool], Graph]]] = {
    "compact": (trained(network(arch="compact", scale=2, num_feat=5, num_conv=2)), compact_graph),
    "rrdbnet": (trained(network(arch="rrdbnet", scale=4, num_feat=6, num_block=1, num_grow_ch=3)), rrdb_graph),
}


def run_by_ncnn(path: Path, lr: Tensor) -> Tensor:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_storage = net.opt.use_fp16_packed = net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False
    assert net.load_param(str(path)) == 0
    assert net.load_model(str(path.with_suffix(".bin"))) == 0
    with net.create_extractor() as extractor:
        extractor.input("in", ncnn.Mat(lr[0].numpy()).clone())
        _, out = extractor.extract(net.output_names()[0])
        return torch.from_numpy(np.array(out))[None]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("arch", CASES)
def test_graph_is_the_network_that_it_was_written_from(arch: str, half: bool, tmp_path: Path) -> None:
    net, write = CASES[arch]
    path = write(net, half).save(tmp_path / "net.param")
    lr = torch.rand(1, 3, 9, 12)
    for given in (path, path.with_suffix(".bin")):
        (entry,) = known().find(str(given))
        assert entry.path == path.with_suffix(".bin")  # whose hash the results note
        loaded = load_generator(given)
        assert network_of(loaded) == network_of(net)
        torch.testing.assert_close(loaded(lr), net(lr), atol=2e-3 if half else 1e-6, rtol=0)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("arch", CASES)
def test_ncnn_itself_gives_the_same(arch: str, half: bool, tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    net, write = CASES[arch]
    path = write(net, half).save(tmp_path / "net.param")
    lr = torch.rand(1, 3, 9, 12)
    torch.testing.assert_close(run_by_ncnn(path, lr), load_generator(path)(lr), atol=1e-4, rtol=0)


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    net, write = CASES["compact"]
    path = write(net, False).save(tmp_path / "net.param")
    weights, whole, text = path.with_suffix(".bin"), path.with_suffix(".bin").read_bytes(), path.read_text()
    for content, message in ((whole[:-4], "too short for net.param"), (whole + bytes(8), "8 bytes too many")):
        weights.write_bytes(content)
        with pytest.raises(IncompatibleCheckpoint, match=message):
            load_generator(path)
    weights.write_bytes(struct.pack("<I", 0x000D4B38) + whole[4:])
    with pytest.raises(IncompatibleCheckpoint, match="stored as whole numbers"):
        load_generator(path)
    weights.write_bytes(whole)
    for changed, message in (
        (text.replace("PixelShuffle", "Softmax"), "a layer of kind Softmax"),
        (text.replace("7767517", "1"), "not a graph of ncnn"),
        (text.replace("0=5", "0=-5"), "too short"),
        (text.replace("0=5", "0=99999999999"), "too short"),
        (text[:40], "not a graph of ncnn"),
    ):
        path.write_text(changed)
        with pytest.raises(IncompatibleCheckpoint, match=message):
            load_generator(path)
    weights.unlink()
    with pytest.raises(UnknownWeights, match="its weights are not here"):
        known().find(str(path))
