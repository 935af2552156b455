"""The gate: a loss of 0.05 dB or 10 % speed is caught, the noise of repeated runs is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from upscale.bench.baseline import compare
from upscale.bench.quality import Summary
from upscale.bench.result import Result, read_result
from upscale.bench.speed import Timing
from upscale.errors import InputError

SUMMARY = Summary(
    dataset="set",
    scale=4,
    model="net",
    images=5,
    failed=0,
    means={"psnr": 30.0, "ssim": 0.85},
    counts={"psnr": 5, "ssim": 5},
    seconds_per_megapixel=1.0,
    memory=None,
    published=None,
)
TIMINGS = [
    Timing(
        model="net",
        device="cpu",
        precision="fp32",
        tile=384,
        scale=4,
        size=size,
        megapixels=16 * size**2 / 1e6,
        seconds=size**2 / 1e4,
        spread=0.02,
        work=size**2 / 10,
        tflops=0.5,
        share=0.6,
        memory=10**8,
        extra=10**7,
    )
    for size in (96, 136, 192, 272)
]
ABOUT = {
    "protocol": "y",
    "lr": "imresize",
    "data": {"set": {"pictures": 5, "sha256": "0"}},
    "scales": [4],
    "models": {"net": []},
    "device": "cpu (2 threads, AVX512)",
}


def result(psnr: float = 30.0, ssim: float = 0.85, slower: np.ndarray[Any, Any] | float = 1.0, **about: Any) -> Result:
    factors = np.broadcast_to(slower, len(TIMINGS))
    timings = [replace(timing, work=timing.work * float(f)) for timing, f in zip(TIMINGS, factors, strict=True)]
    return Result({**ABOUT, **about}, [replace(SUMMARY, means={"psnr": psnr, "ssim": ssim})], [], timings)


def saved(found: Result) -> Mapping[str, Any]:
    """Return ``found`` as it comes back from a file."""
    loaded: Mapping[str, Any] = json.loads(json.dumps(found.as_json()))
    return loaded


def regressions(found: Result, baseline: Result | None = None) -> list[str]:
    differences = compare(found, saved(baseline or result()), "base.json")
    assert len(differences) == 3
    return [difference.what for difference in differences if difference.regressed]


def test_equal_runs_pass() -> None:
    assert regressions(result()) == []


def test_losses_are_caught() -> None:
    assert regressions(result(psnr=29.95)) == ["set x4 net psnr"]
    assert regressions(result(ssim=0.8485)) == ["set x4 net ssim"]
    assert regressions(result(slower=1.10)) == ["net x4 cpu fp32 tile 384 speed"]


def test_gains_pass() -> None:
    assert regressions(result(psnr=30.4, ssim=0.86, slower=0.5)) == []


def test_noise_of_repeated_runs_passes_and_a_slower_network_does_not_hide_in_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        noise = np.exp(rng.normal(0, 0.03, len(TIMINGS)))  # medians of five repeats move by about 3 %
        assert regressions(result(psnr=30 + rng.normal(0, 0.003), slower=noise)) == []
        assert regressions(result(slower=1.15 * noise)) == ["net x4 cpu fp32 tile 384 speed"]


def test_a_slower_device_does_not_hide_behind_another() -> None:
    both = [*TIMINGS, *(replace(timing, device="cuda") for timing in TIMINGS)]
    slower = [replace(timing, work=timing.work * (1.13 if timing.device == "cuda" else 1.0)) for timing in both]
    differences = compare(replace(result(), timings=slower), saved(replace(result(), timings=both)), "base.json")
    assert [found.what for found in differences if found.regressed] == ["net x4 cuda fp32 tile 384 speed"]


def test_infinite_psnr_is_equal_to_itself() -> None:
    assert regressions(result(psnr=float("inf")), result(psnr=float("inf"))) == []


def test_what_does_not_compare_is_refused() -> None:
    with pytest.raises(InputError, match="made with another protocol: y, now rgb"):
        compare(result(protocol="rgb"), saved(result()), "base.json")
    with pytest.raises(InputError, match="made with another lr: imresize, now given"):
        compare(result(lr="given"), saved(result()), "base.json")
    with pytest.raises(InputError, match="another data"):
        compare(result(data={}), saved(result()), "base.json")
    with pytest.raises(InputError, match="timed on cpu"):
        compare(result(device="cuda (H200)"), saved(result()), "base.json")
    with pytest.raises(InputError, match="has set x4 net, this run has not"):
        compare(result(models={"other": []}), saved(result()), "base.json")
    with pytest.raises(InputError, match="has set x4 net, this run has not"):
        compare(result(scales=[2, 3]), saved(result()), "base.json")
    with pytest.raises(InputError, match="net x4 cpu fp32 tile 384 at 272 pixels, this run has not"):
        compare(replace(result(), timings=TIMINGS[:3]), saved(result()), "base.json")
    failed = replace(result(), summaries=[replace(SUMMARY, means={"psnr": None, "ssim": None}, failed=1)])
    with pytest.raises(InputError, match="no mean of psnr any more"):
        compare(failed, saved(result()), "base.json")


def test_the_last_line_of_a_file_is_read_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    path.write_text('{"event": "image"}\n' + json.dumps(result().as_json()) + "\n", encoding="utf-8")
    assert read_result(path)["about"]["protocol"] == "y"
    broken = [[3], [{"dataset": "a"}], [{"dataset": "a", "scale": 2, "model": "b", "means": {"psnr": "x"}}]]
    others = [json.dumps({**result().as_json(), "summaries": summaries}) for summaries in broken]
    others += [json.dumps({**result().as_json(), "timings": timings}) for timings in ([3], [{"model": "net"}])]
    for text in ("", "{}", "not json", *others):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="not a result of the bench"):
            read_result(path)
    with pytest.raises(InputError, match="No such file"):
        read_result(tmp_path / "none.json")
