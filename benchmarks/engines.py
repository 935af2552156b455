"""The engine against other ways to run the same network, interleaved; prints a Markdown table.

python benchmarks/engines.py [--repeats 5] [--threads N] [--only RRDBNet]

Rows: ours, from 8-bit pixels to 8-bit pixels with tiles and blending; float32 PyTorch as the well-known inference
script runs it (whole image, NCHW, no tiles); onnxruntime and OpenVINO where they are installed. Each is fed the same
pixels. The networks have random weights: speed does not depend on them. Beside each figure, the share of what a matmul
of the same precision reaches on this machine. Each has a process of its own, and waits there while another runs: how
memory is used again is set for a process, and our engine's way of it makes the others up to twice as fast.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from upscale.bench.speed import flop_per_pixel, matmul
from upscale.device import resolve_precision
from upscale.engine import Upscaler
from upscale.export import export_onnx
from upscale.images import Image, Pixels
from upscale.imaging import to_array, to_tensor
from upscale.models import Generator, build
from upscale.options import Precision, Tiling

NETWORKS = {
    "compact 64x16 x4, 256x256": ({"arch": "compact", "scale": 4}, 256),
    "compact 64x16 x4, 512x512": ({"arch": "compact", "scale": 4}, 512),
    "RRDBNet-23 x4, 128x128": ({"arch": "rrdbnet", "scale": 4}, 128),
    "RRDBNet-23 x4, 512x512": ({"arch": "rrdbnet", "scale": 4}, 512),
}
CPU = torch.device("cpu")
FRAME = 16  # LR pixels that results are not compared in: there ours sees the picture mirrored, the others zeros
Run = Callable[[Pixels], Pixels]


def ours(generator: Generator, precision: Precision) -> Run:
    """Return our engine with its defaults."""
    upscaler = Upscaler([generator], CPU, precision, Tiling())
    return lambda pixels: upscaler.upscale(Image(pixels=pixels)).image.pixels


def eager(generator: Generator) -> Run:
    """Return plain PyTorch: float32, whole image, NCHW."""

    def run(pixels: Pixels) -> Pixels:
        with torch.inference_mode():
            return to_array(generator(to_tensor(pixels)[None].contiguous())[0].clamp(0, 1), np.dtype(np.uint8))

    return run


def onnxruntime(path: Path, threads: int) -> Run:
    """Return onnxruntime on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: _rounded(session.run(None, {"lr": _batch(pixels)})[0])


def openvino(path: Path, threads: int) -> Run:
    """Return OpenVINO on the CPU, in the precision that it chooses: bf16 where the processor has it."""
    import openvino as ov

    model = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": threads})
    return lambda pixels: _rounded(model(_batch(pixels))[0])


def _batch(pixels: Pixels) -> np.ndarray:
    return np.ascontiguousarray(to_tensor(pixels)[None].numpy())


def _rounded(sr: np.ndarray) -> Pixels:
    return to_array(torch.from_numpy(sr[0]).clamp(0, 1), np.dtype(np.uint8))


def settle(generator: Generator, pixels: Pixels) -> Generator:
    """Scale the last layer until what the network adds has a deviation of 0.15: clipped results would all be alike."""
    if not generator.edges:
        return generator
    last = [m for m in generator.get_submodule(generator.edges[-1]).modules() if hasattr(m, "weight")][-1]
    made: list[Tensor] = []
    hook = last.register_forward_hook(lambda _layer, _given, result: made.append(result))
    x = to_tensor(pixels)[None]
    generator(x)
    last.weight.data *= 0.15 / made[-1].std()
    if last.bias is not None:
        last.bias.data.zero_()
    drawn, weight = generator(x), last.weight.data.clone()
    last.weight.data.zero_()
    gain = 0.15 / (drawn - generator(x)).std()  # EDSR's last layer counts in levels of 255
    last.weight.data.copy_(weight * gain)
    if last.bias is not None:
        generator(x)
        last.bias.data -= made[-1].mean()
        if generator(x).mean() < 0.2:  # nothing but this layer gives the picture its light
            last.bias.data += 0.5
    hook.remove()
    return generator


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default="", help="rows whose title has this in it")
    arguments = parser.parse_args()
    fast = resolve_precision(Precision.AUTO, CPU)
    print(
        f"{platform.processor() or platform.machine()}, {arguments.threads} threads, PyTorch {torch.__version__}; ",
        end="",
    )
    print(f"medians of {arguments.repeats}, interleaved\n")
    print("| network, input | how | seconds | against float32 eager | largest difference | of the matmul peak |")
    print("|---|---|--:|--:|--:|--:|")
    for title, (config, size) in NETWORKS.items():
        if arguments.only not in title:
            continue
        compare(title, config, size, fast, arguments.repeats, arguments.threads)


@dataclass(frozen=True)
class Task:
    """A network, and how to run it."""

    how: str
    config: dict[str, object]
    size: int
    fast: Precision
    threads: int
    path: Path
    """Of the network in ONNX."""


def network(task: Task) -> tuple[Generator, Pixels]:
    """Return the network of ``task``, the same each time, and what it is given."""
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    generator = build(task.config, task.path.stem)
    generator.initialise()
    pixels = np.random.default_rng(0).integers(0, 256, (task.size, task.size, 3), np.uint8)
    return settle(generator.requires_grad_(False).eval(), pixels[:48, :64]), pixels


def serve(task: Task, pipe: Connection) -> None:
    """Run ``task`` once and send its result; then, whenever asked, send how long a matmul and another run took."""
    generator, pixels = network(task)
    run = {
        "float32 eager": lambda: eager(generator),
        "ours, fp32": lambda: ours(generator, Precision.FP32),
        f"ours, {task.fast}": lambda: ours(generator, task.fast),
        "onnxruntime": lambda: onnxruntime(task.path, task.threads),
        "OpenVINO": lambda: openvino(task.path, task.threads),
    }[task.how]()
    reference = matmul(CPU, task.fast if task.how == f"ours, {task.fast}" else Precision.FP32)
    pipe.send((run(pixels), reference.flop))
    while pipe.recv():
        product = min(reference.run() for _ in range(3))  # the first wakes a process that waited
        began = time.perf_counter()
        run(pixels)
        pipe.send((product, time.perf_counter() - began))


def compare(title: str, config: dict[str, object], size: int, fast: Precision, repeats: int, threads: int) -> None:
    """Print the rows of one network."""
    hows = ["float32 eager", "ours, fp32"]
    if fast is not Precision.FP32:
        hows.append(f"ours, {fast}")
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        hows.append("onnxruntime")
        if importlib.util.find_spec("openvino"):
            hows.append("OpenVINO")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        tasks = [Task(how, config, size, fast, threads, Path(folder) / "network.onnx") for how in hows]
        generator, _ = network(tasks[0])
        if "onnxruntime" in hows:
            export_onnx(generator, tasks[0].path, half=False)
        pipes: dict[str, Connection] = {}
        results, flop = {}, {}
        for task in tasks:
            pipes[task.how], other = context.Pipe()
            context.Process(target=serve, args=(task, other), daemon=True).start()
            other.close()
            result, flop[task.how] = pipes[task.how].recv()
            results[task.how] = result.astype(int)
        taken: dict[str, list[tuple[float, float]]] = {how: [] for how in hows}
        for _ in range(repeats):
            for how, pipe in pipes.items():
                pipe.send(True)
                taken[how].append(pipe.recv())
        for pipe in pipes.values():
            pipe.send(False)
    work = (flop_per_pixel(generator) or 0) * size**2
    base = statistics.median(seconds for _, seconds in taken["float32 eager"])
    inside = (slice(FRAME * generator.scale, -FRAME * generator.scale),) * 2
    for how, times in taken.items():
        median = statistics.median(seconds for _, seconds in times)
        share = work / median / (flop[how] / min(product for product, _ in times))
        off = np.abs(results[how] - results["float32 eager"])[inside].max()
        print(f"| {title} | {how} | {median:.3f} | {base / median:.2f}x | {off} | {share:.0%} |", flush=True)


if __name__ == "__main__":
    main()
