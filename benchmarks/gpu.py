"""Whether the engine runs right and fast on a GPU, and what stands in its way; prints a Markdown report.

python benchmarks/gpu.py [--only SECTION]... [--device cuda] [--budget 120] [--quick]

Each section is printed as it goes, and one that fails leaves the others alone. `compiled`, the last, takes as long as
compilers do: its parts begin only where they will probably end within the budget, in seconds since the start. `--quick`
takes small networks and pictures, so that `--device cpu --quick` tries the script itself. The networks have random
weights but for the bundled ones: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from engines import settle
from torch import Tensor, nn

from upscale import load
from upscale.bench.memory import PeakMemory
from upscale.bench.speed import flop_per_pixel, matmul
from upscale.checkpoint import save_generator
from upscale.device import describe
from upscale.engine import Upscaled, Upscaler
from upscale.errors import UpscaleError
from upscale.images import Image, Pixels
from upscale.imaging import to_array, to_tensor
from upscale.inference import Network
from upscale.metrics.fidelity import psnr
from upscale.models import GENERATORS, Generator, build
from upscale.models.rrdbnet import ResidualDenseBlock
from upscale.options import Precision, Tiling

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
ENOUGH = 0.25  # seconds that a median is taken over
FP16, BF16, FP32 = Precision.FP16, Precision.BF16, Precision.FP32
KINDS = {  # of kernels, by their names; the first that matches
    "layout transforms": r"nchw.?to|nhwc.?to|transpose|permute",
    "convolution, gemm": r"conv(?!ert)|gemm|xmma|cutlass|fprop|wgmma|winograd|mkldnn",
    "concatenation, copies": r"cat|copy|memcpy|memset",
    "activation, elementwise": r"elementwise|leaky|relu|add|mul|reduce|clamp",
}


@dataclass(slots=True)
class Bench:
    """What the sections share."""

    device: torch.device
    quick: bool
    budget: float
    began: float = field(default_factory=time.perf_counter)
    peaks: dict[Precision, float] = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU of CUDA's kind."""
        return self.device.type == "cuda"

    @property
    def edge(self) -> int:
        """LR edge of the usual picture."""
        return 32 if self.quick else 512

    def left(self) -> float:
        """Return the seconds of the budget that are left."""
        return self.budget - (time.perf_counter() - self.began)

    def peak(self, precision: Precision) -> float:
        """Return FLOP/s of the matmul in ``precision``, measured the first time."""
        if precision not in self.peaks:
            product = matmul(self.device, precision)
            self.peaks[precision] = product.flop / self.timed(product.run)
        return self.peaks[precision]

    def rate(self, flop: float, seconds: float) -> str:
        """Return TFLOP/s, and their share of the fp16 matmul's."""
        return f"{flop / seconds / 1e12:.1f} ({flop / seconds / self.peak(FP16):.0%})"

    def timed(self, work: Callable[[], object]) -> float:
        """Return the median seconds of ``work`` on the device, after two to warm up; if ``quick``, of one run."""
        if not self.quick:
            work(), work()
        times: list[float] = []
        while not times or (not self.quick and (len(times) < 3 or (len(times) < 50 and sum(times) < ENOUGH))):
            if self.cuda:
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                work()
                end.record()
                end.synchronize()
                times.append(start.elapsed_time(end) / 1000)
            else:
                began = time.perf_counter()
                work()
                times.append(time.perf_counter() - began)
        return statistics.median(times)

    def make(self, arch: str) -> Generator:
        """Return a network of random weights, in the form that the engine runs: the large one of its kind."""
        small: dict[str, dict[str, Any]] = {"rrdbnet": {"num_block": 1}, "compact": {"num_conv": 2}}
        torch.manual_seed(0)
        generator = build({"arch": arch, **(small.get(arch, {}) if self.quick else {})}, arch)
        generator.initialise()
        return generator.folded().requires_grad_(False).eval()

    def bare(self, generator: Generator, precision: Precision = FP16) -> nn.Module:
        """Return the network itself as the engine runs it: on the device, channels last, edges in float32."""
        return Network(copy.deepcopy(generator), self.device, precision).versions[0]

    def noise(self, batch: int, edge: int, channels: int = 3, width: int | None = None) -> Tensor:
        """Return a random picture on the device, channels last."""
        x = torch.rand(batch, channels, edge, width or edge, device=self.device)
        return x.contiguous(memory_format=torch.channels_last)

    def engine(self, generator: Generator, precision: Precision, tile: int | None = None) -> Upscaler:
        """Return the engine around a copy of ``generator``, which it moves to its device."""
        return Upscaler([copy.deepcopy(generator)], self.device, precision, Tiling(size=tile))


def table(*columns: str) -> None:
    """Print the head of a table."""
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def row(*cells: object) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |")


def attempted(work: Callable[[], str]) -> str:
    """Return what ``work`` says, or why it could not."""
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0][:120]}".replace("|", "/")


@contextlib.contextmanager
def cudnn(**settings: bool) -> Iterator[None]:
    """Change settings of cuDNN for a while."""
    before = {name: getattr(torch.backends.cudnn, name) for name in settings}
    try:
        for name, value in settings.items():
            setattr(torch.backends.cudnn, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(torch.backends.cudnn, name, value)


def picture(height: int, width: int) -> Pixels:
    """Return a picture with gradients, edges, lines, noise, black and white."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x / width, y / height, (x + y) / (height + width)], 2) * 255
    pixels[(x // 23 + y // 17) % 3 == 0] *= 0.3
    pixels[(x % 7 == 0) & (y > height // 2)] = 0
    pixels[height // 3 : height // 2, width // 4 : width // 2] = 255
    noisy = slice(width // 2, None)
    pixels[:, noisy] += np.random.default_rng(0).normal(0, 20, pixels[:, noisy].shape)
    return pixels.clip(0, 255).astype(np.uint8)


def differ(a: Pixels, b: Pixels) -> str:
    """Return the largest difference in levels and the PSNR."""
    levels = np.abs(a.astype(int) - b).max()
    return f"{levels}, {psnr(to_tensor(a)[None], to_tensor(b)[None]).item():.1f} dB"


def ceilings(bench: Bench) -> None:
    """Measure what the machine can do."""
    print(f"{describe(bench.device)}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, ", end="")
    print(f"CUDA {torch.version.cuda}, {os.cpu_count()} cores, cudnn.benchmark {torch.backends.cudnn.benchmark}")
    table("what", "rate")
    for precision in (FP16, BF16, FP32):
        row(f"matmul, {precision}", f"{bench.peak(precision) / 1e12:.1f} TFLOP/s")
    size = 1 << (22 if bench.quick else 30)
    a, b = (torch.randint(0, 255, (size,), dtype=torch.uint8, device=bench.device) for _ in range(2))
    row("copy on the device, read and written", f"{2 * size / bench.timed(lambda: a.copy_(b)) / 1e9:.0f} GB/s")
    part = a[: size // 4]
    for name, pinned in (("pageable", False), ("pinned", True)):
        if pinned and not bench.cuda:
            print("\npinned memory: skipped, CUDA only")
            continue
        host = torch.empty(len(part), dtype=torch.uint8, pin_memory=pinned).random_()
        row(f"to the device, {name}", f"{len(part) / bench.timed(lambda host=host: part.copy_(host)) / 1e9:.1f} GB/s")
        row(f"from the device, {name}", f"{len(part) / bench.timed(lambda host=host: host.copy_(part)) / 1e9:.1f} GB/s")


def right(bench: Bench) -> None:
    """Compare devices, precisions and tiles; differences are the largest in levels, then PSNR."""
    pixels = picture(24, 300) if bench.quick else picture(160, 560)  # wide: a tile may be four times its size
    whole = max(pixels.shape)
    networks = {f"bundled compact x{scale}": g for scale, g in load("compact", device="cpu").generators.items()}
    for arch in GENERATORS:
        networks[arch] = settle(bench.make(arch), picture(32, 48))
    table(
        *("network", "clipped", "fp32, device against CPU", "fp16 against fp32", "bf16 against fp32", "float32_tiles"),
        *("fp32, tiles of 64; 128 against whole", "fp16, the same"),
    )
    for name, generator in networks.items():

        def ran(precision: Precision, tile: int | None, generator: Generator = generator) -> Upscaled:
            return bench.engine(generator, precision, tile).upscale(Image(pixels=pixels))

        def compared(precision: Precision, tile: int | None, reference: Upscaled, ran: Any = ran) -> str:
            return attempted(lambda: differ(ran(precision, tile).image.pixels, reference.image.pixels))

        try:
            exact, half = ran(FP32, whole), ran(FP16, whole)
        except Exception as error:
            row(name, f"{type(error).__name__}: {error}", *[""] * 6)
            continue
        cpu = Upscaler([copy.deepcopy(generator)], CPU, FP32, Tiling()).upscale(Image(pixels=pixels))
        row(
            name,
            f"{np.isin(exact.image.pixels, (0, 255)).mean():.0%}",
            differ(exact.image.pixels, cpu.image.pixels),
            differ(half.image.pixels, exact.image.pixels),
            compared(BF16, whole, exact),
            half.float32_tiles,
            "; ".join(compared(FP32, tile, exact) for tile in (64, 128)),
            "; ".join(compared(FP16, tile, half) for tile in (64, 128)),
        )


def memory(bench: Bench) -> None:
    """Let memory run out, and put tiles together on the device and on the CPU; RRDBNet in fp16."""
    generator, image = bench.make("rrdbnet"), Image(pixels=picture(bench.edge, bench.edge * 3 // 2))
    upscaler = bench.engine(generator, FP16)
    print(f"{image.pixels.shape[1]}x{image.pixels.shape[0]}, assembly on {upscaler.assembly}")
    upscaler.upscale(image)
    peak = PeakMemory(bench.device)
    usual = upscaler.upscale(image)
    most = peak.bytes() or 0
    upscaler.assembly = CPU
    there = upscaler.upscale(image)
    print(f"together on the CPU: {differ(there.image.pixels, usual.image.pixels)}; {there.seconds:.3f} s", end=" ")
    print(f"against {usual.seconds:.3f} s; peak {most / 2**20:.0f} MiB")
    del upscaler
    if not bench.cuda:
        print("limits: skipped, CUDA only")
        return
    table("limit", "difference", "shrunk", "tile_size", "assembly", "seconds", "then again")
    for share in (0.6, 0.3, 0.12, 0.02):
        gc.collect()
        torch.cuda.empty_cache()
        limited = bench.engine(generator, FP16)
        torch.cuda.set_per_process_memory_fraction(share * most / torch.cuda.get_device_properties(0).total_memory)
        try:
            done = limited.upscale(image)
            again = limited.upscale(image)
            cells = [differ(done.image.pixels, usual.image.pixels), done.shrunk, done.tile_size, limited.assembly]
            cells += [done.seconds, f"{again.seconds:.3f} s, shrunk {again.shrunk}"]
        except UpscaleError as error:  # a limit below the weights: an error of ours is right
            cells = [f"{type(error).__name__}: {error}", *[""] * 5]
        except Exception as error:
            lines = str(error).splitlines() or [""]
            cells = [f"NOT RECOGNISED: {type(error).__name__}: {lines[0][:200]}".replace("|", "/"), *[""] * 5]
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        row(f"{share:.0%} of the peak", *cells)
    print(f"\nlimit off again: {differ(bench.engine(generator, FP16).upscale(image).image.pixels, usual.image.pixels)}")


def eager(network: nn.Module, pixels: Pixels, device: torch.device, dtype: torch.dtype) -> Pixels:
    """Do what the well-known script does: the whole image at once, NCHW, all layers of one dtype."""
    with torch.inference_mode():
        sr = network(to_tensor(pixels, device)[None].to(dtype).contiguous())[0]
        return to_array(sr.float().clamp(0, 1), np.dtype(np.uint8))


def speed(bench: Bench) -> None:
    """Time the engine from pixels to pixels, the bare network, and PyTorch as the well-known script runs it."""
    sizes = [(bench.edge, bench.edge), (2 * bench.edge, 2 * bench.edge)]
    large = (64, 96) if bench.quick else (2000, 3000)
    table("network, input", "how", "seconds", "TFLOP/s (of fp16 peak)", "LR megapixels/s")
    for arch, shapes in {"rrdbnet": sizes, "compact": [*sizes, large]}.items():
        generator = bench.make(arch)
        for height, width in shapes:
            speed_of(bench, generator, f"{arch} x{generator.scale}, {width}x{height}", height, width)


def speed_of(bench: Bench, generator: Generator, title: str, height: int, width: int) -> None:
    """Print the rows of one network and size."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image, flop = Image(pixels=pixels), (flop_per_pixel(generator) or 0) * height * width
    large = max(64, max(height, width) + 2 * generator.margin)
    tiled = bench.engine(generator, FP16, large)
    for version in tiled.generators.values():
        version.streams = False  # only of this copy
    script = partial(eager, pixels=pixels, device=bench.device)
    usual = copy.deepcopy(generator).to(bench.device)  # NCHW
    halved = copy.deepcopy(usual).half()
    bare, x = bench.bare(generator), bench.noise(1, height, width=width)
    engine = bench.engine(generator, FP16)
    wide = bench.engine(generator, FP16, 2 * max(bench.edge, 32))
    ways: dict[str, tuple[Callable[[], object], dict[str, bool]]] = {
        "engine, fp16": (lambda: engine.upscale(image), {}),
        "engine, fp16, cudnn.benchmark": (lambda: engine.upscale(image), {"benchmark": True}),
        f"engine, fp16, tile {wide.tiling.size}": (lambda: wide.upscale(image), {}),
        "engine, fp16, tiles, not rows": (lambda: tiled.upscale(image), {}),
        "bare network, fp16, channels last": (lambda: bare(x), {}),
        "script, fp16 NCHW": (lambda: script(halved, dtype=torch.float16), {}),
        "script, float32 NCHW, TF32": (lambda: script(usual, dtype=torch.float32), {"allow_tf32": True}),
        "script, float32 NCHW": (lambda: script(usual, dtype=torch.float32), {}),
    }
    for way, (work, settings) in ways.items():

        def figures(work: Callable[[], object] = work, settings: Mapping[str, bool] = settings) -> str:
            with torch.inference_mode(), cudnn(**settings):
                seconds = bench.timed(work)
            return f"{seconds:.4f} | {bench.rate(flop, seconds)} | {height * width / seconds / 1e6:.2f}"

        row(title, way, attempted(figures))


def sweep(bench: Bench) -> None:
    """Time the bare network in fp16: shapes, layouts, what cuDNN tries, and where launches cost time."""
    unit = 8 if bench.quick else 256
    shapes = [(1, unit), (4, unit), (16, unit), (1, 2 * unit), (4, 2 * unit), (1, 4 * unit)]
    table("network", "batch x tile", "how", "TFLOP/s (of peak)", "with cudnn.benchmark")
    for arch in ("rrdbnet", "compact"):
        generator = bench.make(arch)
        per_pixel = flop_per_pixel(generator) or 0
        network = bench.bare(generator)
        planar = bench.bare(generator).to(memory_format=torch.contiguous_format)
        halved = bench.bare(generator).half()  # with the edges

        def graph(x: Tensor, network: nn.Module = network) -> Callable[[], object]:
            return captured(lambda: network(x))

        def line(how: str, batch: int, edge: int, make: Callable[[Tensor], Callable[[], object]]) -> None:
            def figures(**settings: bool) -> str:
                with torch.inference_mode(), cudnn(**settings):
                    work = make(bench.noise(batch, edge))
                    return bench.rate(per_pixel * batch * edge**2, bench.timed(work))  # noqa: B023

            tf32 = {"allow_tf32": True} if "TF32" in how else {}
            cells = [attempted(lambda b=b: figures(benchmark=b, **tf32)) for b in (False, True)]
            row(arch, f"{batch}x{edge}", how, *cells)  # noqa: B023

        for batch, edge in shapes:
            line("channels last", batch, edge, lambda x, n=network: partial(n, x))
        for edge in (unit, 2 * unit):
            line("contiguous", 1, edge, lambda x, n=planar: partial(n, x.contiguous()))
            line("channels last, edges in fp16", 1, edge, lambda x, n=halved: partial(n, x))
            line("channels last, edges in TF32", 1, edge, lambda x, n=network: partial(n, x))
            if bench.cuda:
                line("channels last, CUDA graph", 1, edge, graph)
    if not bench.cuda:
        print("\nCUDA graphs: skipped, CUDA only")


def captured(work: Callable[[], object]) -> Callable[[], object]:
    """Return what launches all kernels of ``work`` at once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries allocate at first, which a capture may not
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def profile(bench: Bench) -> None:
    """Show where the time goes: kernels of the bare network and of the engine, and each convolution alone."""
    rrdb, compact = bench.make("rrdbnet"), bench.make("compact")
    bare, x = bench.bare(rrdb), bench.noise(1, bench.edge)
    small = bench.bare(compact)
    image = Image(pixels=picture(bench.edge, bench.edge))
    kernels_of(bench, f"bare rrdbnet, fp16, {bench.edge}", lambda: bare(x), 12)
    kernels_of(bench, f"bare compact, fp16, {bench.edge}", lambda: small(x), 6)
    for arch, generator in (("rrdbnet", rrdb), ("compact", compact)):
        engine = bench.engine(generator, FP16)
        kernels_of(bench, f"engine, {arch}, fp16, {bench.edge}", lambda e=engine: e.upscale(image), 6)
    print(f"\n3x3 convolutions alone, {bench.edge}x{bench.edge}, channels last")
    table("convolution", "precision", "ms", "TFLOP/s (of fp16 peak)", "with cudnn.benchmark")
    shapes = [(inputs, 32) for inputs in (64, 96, 128, 160)] + [(192, 64), (64, 64), (64, 160), (64, 192), (128, 128)]
    for inputs, outputs, dtype in [(*s, torch.float16) for s in shapes] + [(64, 48, torch.float32)]:
        y = bench.noise(1, bench.edge, inputs).to(dtype)
        layer = nn.Conv2d(inputs, outputs, 3, padding=1).to(bench.device, dtype, memory_format=torch.channels_last)
        flop, cells = 2.0 * 9 * inputs * outputs * bench.edge**2, []
        for tries in (False, True):
            with torch.inference_mode(), cudnn(benchmark=tries):
                seconds = bench.timed(lambda layer=layer, y=y: layer(y))
            cells += [f"{seconds * 1000:.3f}", bench.rate(flop, seconds)]
        row(f"{inputs} -> {outputs}", str(dtype).split(".")[1], *cells[:2], cells[3])


def kernels_of(bench: Bench, title: str, work: Callable[[], object], top: int) -> None:
    """Print the kernels that ``work`` spends its time in, and their sums by kind."""
    activity = torch.profiler.ProfilerActivity
    with torch.inference_mode():
        work(), work()
        with torch.profiler.profile(activities=[activity.CUDA if bench.cuda else activity.CPU]) as profiler:
            work()
            if bench.cuda:
                torch.cuda.synchronize()
    kind = torch.autograd.DeviceType.CUDA if bench.cuda else torch.autograd.DeviceType.CPU
    spans, sums, counts = [], {}, {}
    for event in profiler.events() or []:
        if event.device_type == kind:
            taken = event.time_range.elapsed_us() if bench.cuda else event.self_cpu_time_total
            spans += [event.time_range.start, event.time_range.end]
            sums[event.name] = sums.get(event.name, 0.0) + taken
            counts[event.name] = counts.get(event.name, 0) + 1
    whole = max(spans) - min(spans)
    print(f"\n{title}: {whole / 1000:.2f} ms, {sum(counts.values())} kernels")
    table("kernel", "times", "ms", "share")
    kinds = dict.fromkeys([*KINDS, "other"], 0.0)
    for name, taken in sorted(sums.items(), key=lambda item: -item[1]):
        kinds[next((k for k, named in KINDS.items() if re.search(named, name, re.IGNORECASE)), "other")] += taken
        if top > 0:
            short = re.sub(r"void |at::native::|\(anonymous namespace\)::|cudnn::|_cudnn", "", name)[:60]
            row(f"`{short.replace('|', '/')}`", counts[name], taken / 1000, f"{taken / whole:.1%}")
            top -= 1
    kinds["idle"] = whole - sum(kinds.values())
    print("\n" + ", ".join(f"{kind} {taken / whole:.1%}" for kind, taken in kinds.items()))


def dense(bench: Bench) -> None:
    """Run a dense block in other ways; (c) does more arithmetic than is counted, the others all the same."""
    torch.manual_seed(0)
    reference = ResidualDenseBlock(64, 32, 0.2, plus=False).requires_grad_(False).to(bench.device)
    block = copy.deepcopy(reference).half().to(memory_format=torch.channels_last)
    x = (bench.noise(1, bench.edge, 64) - 0.5).half()
    ways = {
        "(a) torch.cat, as the model does it": block.forward,
        "(b) slices of one buffer": partial(in_a_buffer, block),
        "(c) torch.cat, 64 outputs each": padded(block),
        "(d) sums, each feature convolved once": partial_sums(block),
    }
    flop = sum(2.0 * 9 * layer.in_channels * layer.out_channels for layer in layers(block)) * bench.edge**2
    table("way", "ms", "TFLOP/s (of peak)", "with cudnn.benchmark", "from float32")
    with torch.inference_mode():
        exact = reference(x.float())
        for name, way in ways.items():

            def figures(way: Callable[[Tensor], Tensor] = way) -> str:
                cells, off = [], (way(x).float() - exact).abs().max().item()
                for tries in (False, True):
                    with cudnn(benchmark=tries):
                        seconds = bench.timed(lambda: way(x))
                    cells += [f"{seconds * 1000:.3f}", bench.rate(flop, seconds)]
                return f"{cells[0]} | {cells[1]} | {cells[3]} | {off:.1e}"

            row(name, attempted(figures))


def layers(block: ResidualDenseBlock) -> list[nn.Conv2d]:
    """Return the five convolutions."""
    return [block.conv1, block.conv2, block.conv3, block.conv4, block.conv5]


def in_a_buffer(block: ResidualDenseBlock, x: Tensor) -> Tensor:
    """Put each result beside what it is made of; a convolution of some channels of a buffer may copy them first."""
    room = x.new_empty(len(x), *x.shape[2:], 192).permute(0, 3, 1, 2)
    room[:, :64] = x
    made = 64
    for layer in layers(block)[:4]:
        room[:, made : made + 32] = block.act(layer(room[:, :made]))
        made += 32
    return x + 0.2 * block.conv5(room)


def padded(block: ResidualDenseBlock) -> Callable[[Tensor], Tensor]:
    """Return the block whose convolutions make 64 features, of which half are of no use: a wider product each."""
    wide = [
        (layer.weight if layer.out_channels == 64 else torch.cat((layer.weight, torch.zeros_like(layer.weight))))
        for layer in layers(block)
    ]
    wide = [weight.contiguous(memory_format=torch.channels_last) for weight in wide]
    biases = [F.pad(layer.bias, (0, 64 - layer.out_channels)) for layer in layers(block) if layer.bias is not None]

    def run(x: Tensor) -> Tensor:
        known = [x]
        for weight, bias in zip(wide[:4], biases, strict=False):
            known.append(block.act(F.conv2d(torch.cat(known, 1), weight, bias, padding=1)[:, :32]))
        return x + 0.2 * F.conv2d(torch.cat(known, 1), wide[4], biases[4], padding=1)

    return run


def partial_sums(block: ResidualDenseBlock) -> Callable[[Tensor], Tensor]:
    """Return the block as sums: each feature is convolved for all later layers at once, when it is known."""
    weights = []
    for i in range(5):  # what is the i-th to be known, and all layers behind it
        first, last = (0, 64) if i == 0 else (32 + 32 * i, 64 + 32 * i)
        parts = torch.cat([layer.weight[:, first:last] for layer in layers(block)[i:]])
        weights.append(parts.contiguous(memory_format=torch.channels_last))
    bias = torch.cat([layer.bias for layer in layers(block) if layer.bias is not None])

    def run(x: Tensor) -> Tensor:
        sums, new = F.conv2d(x, weights[0], bias, padding=1), x
        for weight in weights[1:]:
            new = F.leaky_relu(sums[:, :32], 0.2).contiguous(memory_format=torch.channels_last)
            sums = sums[:, 32:] + F.conv2d(new, weight, padding=1)
        return x + 0.2 * sums

    return run


def command(bench: Bench) -> None:
    """Run the command itself, from file to file, with all that a start takes."""
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.jpg"
        PIL.Image.fromarray(picture(*((60, 80) if bench.quick else (3000, 4000)))).save(photo, quality=90)
        table("command", "wall seconds", "of them the picture", "events", "stderr")
        for scale in ("2", "4"):
            called(bench, photo, ["-x", scale], 90)


def called(bench: Bench, photo: Path, options: list[str], limit: float) -> None:
    """Print the row of a run of the command on ``photo``, which is stopped after ``limit`` seconds."""
    line = [sys.executable, "-m", "upscale", str(photo), "-o", str(photo.parent / "results"), "--force", "--json"]
    # Its caches are beside the picture: what the compiler came to is to be tried anew, and nothing is to stay.
    settings = {"XDG_CACHE_HOME": str(photo.parent / "cache")}
    began = time.perf_counter()
    title = " ".join(Path(option).name for option in (str(photo), *options))
    try:
        done = subprocess.run(
            [*line, "--device", str(bench.device), *options],
            capture_output=True,
            text=True,
            timeout=limit,
            cwd=ROOT,
            env={**os.environ, **settings},
        )
    except subprocess.TimeoutExpired:
        row(title, f"stopped after {limit:.0f}", "", "", "")
        return
    wall = time.perf_counter() - began
    events = [json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")]
    facts = next((event for event in events if event["event"] in ("done", "failed")), {})
    shown = {key: facts[key] for key in ("event", "tiles", "tile_size", "float32_tiles", "notices") if key in facts}
    said = "<br>".join(done.stderr.strip().splitlines()[-6:])[-600:]
    row(title, f"{wall:.2f}, exit {done.returncode}", facts.get("seconds", ""), shown, said.replace("|", "/"))


def compiled(bench: Bench) -> None:
    """Try PyTorch's compiler, as far as the budget goes."""
    x = bench.noise(1, bench.edge)
    table("network, fp16", "mode", "first call, s", "TFLOP/s (of peak)", "plain")
    trials = [("compact", "default", 20.0), ("rrdbnet", "default", 30.0)]
    late = "max-autotune-no-cudagraphs"
    for arch, mode, guess in [*trials, *((arch, late, 2.5 * guess) for arch, _, guess in trials)]:
        if bench.left() < guess:
            row(arch, mode, f"skipped: {max(0, bench.left()):.0f} s left, it may take {guess:.0f}", "", "")
            continue
        row(arch, mode, attempted(partial(compiled_of, bench, arch, mode, x)))
    print(f"\n`--compile`, {bench.edge}x{bench.edge}")
    if bench.left() < (60 if bench.cuda else 5):
        print(f"skipped: {max(0, bench.left()):.0f} s left")
        return
    with tempfile.TemporaryDirectory() as folder:
        photo, network = Path(folder) / "small.png", Path(folder) / "rrdbnet.safetensors"
        PIL.Image.fromarray(picture(bench.edge, bench.edge)).save(photo)
        save_generator(network, settle(bench.make("rrdbnet"), picture(32, 48)), {}, torch.float32)
        table("command", "wall seconds", "of them the picture", "events", "stderr")
        for options in (["--compile"], ["--compile"], []):  # the second time, it is remembered
            called(bench, photo, [*options, "-m", str(network)], max(10, bench.left()))


def compiled_of(bench: Bench, arch: str, mode: str, x: Tensor) -> str:
    """Return the cells of one network: of RRDBNet each block is compiled, as the first one's result serves them all."""
    torch.compiler.reset()
    generator = bench.make(arch)
    flop = (flop_per_pixel(generator) or 0) * bench.edge**2
    network = bench.bare(generator)
    with torch.inference_mode():
        plain, before = bench.timed(lambda: network(x)), network(x)
        for part in network.body if arch == "rrdbnet" else [network]:
            part.compile(mode=mode)
        began = time.perf_counter()
        off = (network(x) - before).abs().max() / before.abs().max()
        first = time.perf_counter() - began
        seconds = bench.timed(lambda: network(x))
    return f"{first:.1f} (differs by {off:.1e}) | {bench.rate(flop, seconds)} | {bench.rate(flop, plain)}"


SECTIONS = {
    section.__name__: section for section in (ceilings, right, memory, speed, sweep, profile, dense, command, compiled)
}


def main() -> None:
    """Run the sections and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", action="append", choices=SECTIONS)
    parser.add_argument("--budget", type=float, default=120.0)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # what is done is not lost with the rest
    bench = Bench(torch.device(arguments.device), arguments.quick, arguments.budget)
    for name in arguments.only or SECTIONS:
        print(f"\n## {name}\n\n{SECTIONS[name].__doc__}\n")
        began = time.perf_counter()
        try:
            SECTIONS[name](bench)
        except Exception:
            print("\n```\n" + "".join(traceback.format_exc().splitlines(keepends=True)[-8:]) + "```")
        gc.collect()
        if bench.cuda:
            torch.cuda.empty_cache()
        print(f"\n{name}: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
