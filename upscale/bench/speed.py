"""Seconds, megapixels a second, share of the machine's arithmetic peak, and memory, over sizes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from upscale.bench.memory import PeakMemory
from upscale.device import DTYPES
from upscale.engine import Upscaler
from upscale.images import Image
from upscale.models import GENERATORS, Generator, build, network_of
from upscale.options import Precision, Target

SIZES = (96, 136, 192, 272, 384)
"""LR edges, each with twice the pixels of the one before."""
REPEATS = (5, 25)
"""At least and at most; in between, as many as fit into ``ENOUGH``."""
ENOUGH = 1.0
"""Seconds: a median over less moves by more than the regression that it should show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """A network on a square picture."""

    model: str
    device: str
    precision: str
    tile: int
    """LR pixels, as it was after any halving."""
    scale: int
    size: int
    """LR edge."""
    megapixels: float
    """Of the result."""
    seconds: float
    """Median of the repeats."""
    spread: float
    """Half of the distance between the quartiles, as a share of the median."""
    work: float
    """Median of seconds over those of a matmul timed just before: a load on the machine slows both."""
    tflops: float | None
    """Arithmetic of the network only, a second; None for a network without weights or of another library."""
    share: float | None
    """Of the peak that the matmul reached on this machine."""
    memory: int | None
    """Peak, bytes."""
    extra: int | None
    """Of it, above what was in use before."""

    @property
    def series(self) -> str:
        """A name for what differs in size only."""
        return f"{self.model} x{self.scale} {self.device} {self.precision} tile {self.tile}"


@dataclass(frozen=True, slots=True)
class Matmul:
    """A square product that shows what the machine can do."""

    run: Callable[[], float]
    """Do it once, return seconds."""
    flop: float


def matmul(device: torch.device, precision: Precision) -> Matmul:
    """Return the product for ``device`` in ``precision``: large enough to reach the peak, a few milliseconds."""
    edge = 8192 if device.type == "cuda" else 1024
    a = torch.randn(edge, edge, device=device).to(DTYPES[precision])

    def run() -> float:
        began = time.perf_counter()
        (a @ a)[0, 0].item()  # .item() waits for the device
        return time.perf_counter() - began

    run()
    return Matmul(run, 2.0 * edge**3)


def measure(
    model: str,
    upscaler: Upscaler,
    scale: int,
    sizes: Sequence[int] = SIZES,
    repeats: tuple[int, int] = REPEATS,
    on_size: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Time ``upscaler`` on noise of each size: once to warm up, then some times, each right after a matmul."""
    reference = matmul(upscaler.device, upscaler.precision)
    target = Target.parse(str(scale))
    timings = []
    for size in sizes:
        noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
        image = Image(pixels=noise)
        upscaler.upscale(image, target)
        flop = _flop([network.generator for network in upscaler.passes(image, target)], size**2)
        peak = PeakMemory(upscaler.device)
        pairs: list[tuple[float, float]] = []
        while len(pairs) < repeats[0] or (len(pairs) < repeats[1] and sum(map(sum, pairs)) < ENOUGH):
            before = reference.run()
            done = upscaler.upscale(image, target)
            pairs.append((done.seconds, before))
        seconds = [pair[0] for pair in pairs]
        median = statistics.median(seconds)
        tflops = None if flop is None else flop / median / 1e12
        best = reference.flop / min(pair[1] for pair in pairs) / 1e12
        timings.append(
            Timing(
                model=model,
                device=str(upscaler.device),
                precision=upscaler.precision.value,
                tile=done.tile_size,
                scale=scale,
                size=size,
                megapixels=(scale * size) ** 2 / 1e6,
                seconds=median,
                spread=float(np.subtract(*np.percentile(seconds, [75, 25]))) / 2 / median,
                work=statistics.median(taken / before for taken, before in pairs),
                tflops=tflops,
                share=None if tflops is None else tflops / best,
                memory=peak.bytes(),
                extra=peak.extra(),
            )
        )
        on_size()
    return timings


def _flop(passes: Sequence[Generator], pixels: int) -> float | None:
    """Return the arithmetic of ``passes``, one after the other, for so many LR pixels; None where it is unknown."""
    total = 0.0
    for generator in passes:
        per_pixel = flop_per_pixel(generator)
        if per_pixel is None:
            return None
        total += per_pixel * pixels
        pixels *= generator.scale**2
    return total


def flop_per_pixel(generator: Generator) -> float | None:
    """Return the arithmetic for one LR pixel, a multiply-add as two.

    None for a network without weights, and for one of another library, which there is no like of to count on.
    """
    if not generator.has_weights or type(generator) not in GENERATORS.values():
        return None
    edge = 8 * generator.multiple_of
    with torch.device("meta"):
        twin = build(network_of(generator), "generator")
        lr = torch.empty(1, 3, edge, edge)
    with FlopCounterMode(display=False) as counter:
        twin(lr)
    return float(counter.get_total_flops()) / edge**2


@dataclass(frozen=True, slots=True)
class Scaling:
    """How time and memory grow: proportional to megapixels to these powers."""

    time: float
    memory: float | None
    """Above what was in use before; None where that is unknown."""


def scaling(timings: Iterable[Timing]) -> Scaling | None:
    """Fit straight lines to the logarithms; None for fewer than two sizes."""
    points = list(timings)
    if len({timing.size for timing in points}) < 2:
        return None
    x = [math.log(timing.megapixels) for timing in points]
    memory = [timing.extra for timing in points if timing.extra]
    return Scaling(
        time=float(np.polyfit(x, [math.log(timing.seconds) for timing in points], 1)[0]),
        memory=float(np.polyfit(x, np.log(memory), 1)[0]) if len(memory) == len(x) else None,
    )
