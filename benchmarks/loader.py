"""Steps a second of training against the same steps on one batch that is there already; prints a Markdown table.

python benchmarks/loader.py DATA [--recipe compact --recipe realesrnet] [--set KEY=VALUE] [--steps 20] [--rounds 3]

The loop is that of `upscale train`: for a GPU, threads cut crops and degrade them on it while the networks are busy.
Rounds of both are taken in turn, so that other work on the machine hits both alike, and the median round counts.
"Loader alone" is how many batches a second are made when nothing else runs. Rows in bf16 appear where the processor
multiplies it natively; elsewhere it is emulated, many times slower than float32, and `--bf16` asks for it all
the same: with a small batch.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from upscale.device import describe, has_native_bf16, resolve_device
from upscale.train.data import Batches, Pictures, crop_size, open_pictures
from upscale.train.ranks import Ranks
from upscale.train.recipe import Recipe, load_recipe
from upscale.train.start import fresh, objective
from upscale.train.step import Objective, train_step


def measure(
    pictures: Pictures, recipe: Recipe, goal: Objective, device: torch.device, steps: int, rounds: int
) -> tuple[float, float, float]:
    """Return medians over ``rounds``: steps a second of the loop, on one batch, and batches a second of the loader."""
    state = fresh(recipe, device)
    source = Batches(pictures, recipe)
    stream = source.starting_at(0, device)
    fixed = next(stream)  # for a GPU, the pictures are copied to it now
    stream.close()
    for _ in range(2):  # the first steps choose kernels and allocate
        train_step(state, fixed, goal)
    loop, bare, alone = [], [], []
    for turn in range(rounds):
        stream = source.starting_at(turn * steps, device)
        loop.append(rate(lambda stream=stream: train_step(state, next(stream), goal), steps, device))
        stream.close()  # or its thread goes on making a batch while the others are timed
        bare.append(rate(lambda: train_step(state, fixed, goal), steps, device))
        numbers = itertools.count(turn * steps)
        alone.append(rate(lambda numbers=numbers: source.batch(next(numbers), device), min(steps, 5), device))
    return statistics.median(loop), statistics.median(bare), statistics.median(alone)


def rate(work: Callable[[], object], count: int, device: torch.device) -> float:
    """Return how often a second ``work`` is done, over ``count`` times."""
    began = time.perf_counter()
    for _ in range(count):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return count / (time.perf_counter() - began)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", action="append")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    precisions: dict[str, torch.dtype | None] = {"float32": None}
    if arguments.bf16 or device.type == "cuda" or has_native_bf16():
        precisions["bf16"] = torch.bfloat16

    print(
        f"{platform.machine()}, {describe(device)}, PyTorch {torch.__version__}; {arguments.rounds} rounds of", end=" "
    )
    print(f"{arguments.steps} steps\n")
    print("| recipe | batch | precision | steps/s, training | steps/s, one batch | share | loader alone, batches/s |")
    print("|---|---|---|--:|--:|--:|--:|")
    for name in arguments.recipe or ["compact"]:
        recipe = load_recipe(name, arguments.overrides)
        pictures = open_pictures(arguments.data, crop_size(recipe.data.gt_size, recipe.scale), sizes=recipe.data.sizes)
        crops = f"{recipe.data.batch_size} x {recipe.data.gt_size}x{recipe.data.gt_size}"
        for precision, dtype in precisions.items():
            goal = replace(objective(recipe, device, Ranks()), autocast=dtype)
            loop, bare, alone = measure(pictures, recipe, goal, device, arguments.steps, arguments.rounds)
            figures = f"{loop:.3f} | {bare:.3f} | {loop / bare:.0%} | {alone:.2f}"
            print(f"| {name} | {crops} | {precision} | {figures} |", flush=True)
    if "bf16" not in precisions:
        print("\nNo rows in bf16: this processor does not multiply it natively.")


if __name__ == "__main__":
    main()
