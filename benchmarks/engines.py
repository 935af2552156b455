"""The engine against other ways to run the same network, interleaved in one process; prints a Markdown table.

python benchmarks/engines.py [--repeats 5] [--threads N] [--only RRDBNet]

Rows: ours, from 8-bit pixels to 8-bit pixels with tiles and blending; float32 PyTorch as the well-known inference
script runs it (whole image, NCHW, no tiles); onnxruntime and OpenVINO where they are installed. Each is fed the same
pixels. The networks have random weights: speed does not depend on them. Beside each figure, the share of what a matmul
of the same precision reaches on this machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
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
    torch.set_num_threads(arguments.threads)
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


def compare(title: str, config: dict[str, object], size: int, fast: Precision, repeats: int, threads: int) -> None:
    """Print the rows of one network."""
    torch.manual_seed(0)
    generator = build(config, title)
    generator.initialise()
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    settle(generator.requires_grad_(False).eval(), pixels[:48, :64])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        runs: dict[str, Run] = {"float32 eager": eager(generator), "ours, fp32": ours(generator, Precision.FP32)}
        if fast is not Precision.FP32:
            runs[f"ours, {fast}"] = ours(generator, fast)
        if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
            export_onnx(generator, path, half=False)
            runs["onnxruntime"] = onnxruntime(path, threads)
            if importlib.util.find_spec("openvino"):
                runs["OpenVINO"] = openvino(path, threads)
        results = {name: run(pixels).astype(int) for name, run in runs.items()}  # the first run warms up
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        products: dict[str, list[float]] = {name: [] for name in runs}
        references = {name: matmul(CPU, fast if name == f"ours, {fast}" else Precision.FP32) for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                products[name].append(references[name].run())
                began = time.perf_counter()
                run(pixels)
                seconds[name].append(time.perf_counter() - began)
    work = (flop_per_pixel(generator) or 0) * size**2
    base = statistics.median(seconds["float32 eager"])
    inside = (slice(FRAME * generator.scale, -FRAME * generator.scale),) * 2
    for name, taken in seconds.items():
        median = statistics.median(taken)
        share = work / median / (references[name].flop / min(products[name]))
        off = np.abs(results[name] - results["float32 eager"])[inside].max()
        print(f"| {title} | {name} | {median:.3f} | {base / median:.2f}x | {off} | {share:.0%} |", flush=True)


if __name__ == "__main__":
    main()
