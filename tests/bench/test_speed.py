"""Timing: what is counted, not how fast this machine is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from upscale.bench.memory import PeakMemory
from upscale.bench.speed import Timing, flop_per_pixel, measure, scaling
from upscale.checkpoint import save_generator
from upscale.engine import Upscaler
from upscale.loading import load
from upscale.models import build
from upscale.models.foreign import Foreign
from upscale.options import Precision, Tiling

TINY = {"arch": "compact", "scale": 2, "num_feat": 8, "num_conv": 1}


def test_arithmetic_is_that_of_the_convolutions() -> None:
    """Three 3x3 convolutions: 3 -> 8, 8 -> 8, 8 -> 12, a multiply-add as two."""
    expected = 2 * 9 * (3 * 8 + 8 * 8 + 8 * 12)
    assert flop_per_pixel(build(TINY, "tiny")) == pytest.approx(expected)
    assert flop_per_pixel(build({"arch": "bicubic"}, "bicubic")) is None


def test_a_network_is_timed_at_every_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = build(TINY, "tiny")
    save_generator(tmp_path / "tiny.safetensors", generator, {}, torch.float32)
    upscaler = load(str(tmp_path / "tiny.safetensors"), device="cpu", precision=Precision.FP32)
    sizes: list[None] = []
    timings = measure("tiny", upscaler, 2, (16, 24), repeats=(2, 2), on_size=lambda: sizes.append(None))
    assert [timing.size for timing in timings] == [16, 24]
    assert len(sizes) == 2
    for timing in timings:
        assert timing.megapixels == (2 * timing.size) ** 2 / 1e6
        assert timing.seconds > 0
        assert timing.work > 0
        per_pixel = flop_per_pixel(generator)
        assert per_pixel
        assert timing.tflops == pytest.approx(per_pixel * timing.size**2 / timing.seconds / 1e12)
        assert timing.share is not None
        assert 0 < timing.share < 1


def test_the_arithmetic_of_all_passes_is_counted() -> None:
    generator = build(TINY, "tiny")
    upscaler = Upscaler([generator], torch.device("cpu"), Precision.FP32, Tiling())
    (timing,) = measure("tiny", upscaler, 4, (16,), repeats=(2, 2))
    per_pixel = flop_per_pixel(generator)
    assert per_pixel
    assert timing.tflops == pytest.approx((per_pixel + 4 * per_pixel) * 16**2 / timing.seconds / 1e12)


def test_a_network_of_another_library_is_timed_without_its_arithmetic() -> None:
    class Descriptor(SimpleNamespace):
        """As spandrel's."""

        model: nn.Module = nn.Conv2d(3, 3, 1)
        input_channels = output_channels = 3

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x).repeat_interleave(2, -1).repeat_interleave(2, -2)  # type: ignore[no-any-return]

    generator = Foreign(Foreign.Config(scale=2, kind="Odd"), Descriptor()).requires_grad_(False).eval()
    upscaler = Upscaler([generator], torch.device("cpu"), Precision.FP32, Tiling())
    (timing,) = measure("odd", upscaler, 2, (16,), repeats=(2, 2))
    assert timing.seconds > 0
    assert (timing.tflops, timing.share) == (None, None)


def test_exponents_are_recovered() -> None:
    timing = Timing(
        model="net", device="cpu", precision="fp32", tile=64, scale=2, size=1, megapixels=1.0, seconds=1.0, spread=0.0,
        work=1.0, tflops=None, share=None, memory=1, extra=1,
    )  # fmt: skip
    grown = [
        replace(timing, size=n, megapixels=float(n), seconds=3 * n**1.25, extra=int(1e9 * n**0.5)) for n in (1, 2, 4, 8)
    ]
    fit = scaling(grown)
    assert fit is not None
    assert fit.time == pytest.approx(1.25)
    assert fit.memory == pytest.approx(0.5, abs=1e-6)
    assert scaling(grown[:1]) is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux says how much memory was used")
def test_peak_memory_sees_what_was_freed_again() -> None:
    torch.ones(300_000_000, dtype=torch.uint8).max()
    peak = PeakMemory(torch.device("cpu"))
    torch.ones(200_000_000, dtype=torch.uint8).max()
    extra, total = peak.extra(), peak.bytes()
    assert extra is not None
    assert total is not None
    assert 150_000_000 < extra < 250_000_000
    assert total > extra
