"""Compare a run with an earlier one: the gate against regressions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from upscale.bench.result import Result
from upscale.bench.speed import Timing
from upscale.errors import InputError

TOLERANCES = {"psnr": 0.03, "ssim": 0.001}
"""How much lower a mean may be. Reordered sums move PSNR by thousandths of a dB; 0.05 dB is a worse picture."""
SPEED_TOLERANCE = 0.07
"""How much more work, relative to a matmul beside it, all sizes of a network may take in the mean."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure now and then."""

    what: str
    text: str
    regressed: bool


def check(about: Mapping[str, Any], baseline: Mapping[str, Any], name: str, *, speed: bool) -> None:
    """Find before a run ``about`` these settings that it cannot be compared with ``baseline``, read from ``name``.

    Raises:
        InputError: another protocol or other pictures, with ``speed`` another device, or something that the baseline
            has and the run will not have: a gate that compares nothing would always be open.
    """
    for key in ("protocol", "lr", "data"):
        if baseline["about"].get(key) != about[key]:
            raise InputError(
                f"{name}: made with another {key}: {baseline['about'].get(key)}, now {about[key]}",
                "compare equal runs, or make a new baseline with --json",
            )
    if speed and baseline["timings"] and baseline["about"].get("device") != about["device"]:
        raise InputError(
            f"{name}: timed on {baseline['about'].get('device')}, now on {about['device']}",
            "leave out --speed, or make a new baseline on this machine",
        )
    for then in baseline["summaries"]:
        missing = [
            then[key]
            for key, there in (("dataset", "data"), ("scale", "scales"), ("model", "models"))
            if then[key] not in about[there]
        ]
        if missing:
            raise InputError(
                f"{name}: has {then['dataset']} x{then['scale']} {then['model']}, this run has not",
                "measure the same networks and scales",
            )


def compare(result: Result, baseline: Mapping[str, Any], name: str) -> list[Difference]:
    """Return how ``result`` differs from ``baseline``, a result read from the file ``name``.

    Raises:
        InputError: they cannot be compared, or the run gave no figure that the baseline has.
    """
    check(result.about, baseline, name, speed=bool(result.timings))
    differences = _quality(result, baseline, name)
    if result.timings and baseline["timings"]:
        differences += _speed(result, baseline, name)
    return differences


def _quality(result: Result, baseline: Mapping[str, Any], name: str) -> list[Difference]:
    now = {(summary.dataset, summary.scale, summary.model): summary.means for summary in result.summaries}
    differences = []
    for then in baseline["summaries"]:
        key = (then["dataset"], then["scale"], then["model"])
        what = f"{key[0]} x{key[1]} {key[2]}"
        for metric, tolerance in TOLERANCES.items():
            before, after = then["means"].get(metric), now[key].get(metric)
            if before is None:
                continue
            if after is None:
                raise InputError(f"{what}: has no mean of {metric} any more; {name} has {before}")
            before = float(before)  # "inf" in the file
            change = 0.0 if before == after else after - before
            text = f"{metric} {before:.4f} -> {after:.4f} ({change:+.4f})"
            differences.append(Difference(f"{what} {metric}", text, change < -tolerance))
    return differences


def _speed(result: Result, baseline: Mapping[str, Any], name: str) -> list[Difference]:
    now = {(timing.series, timing.size): timing for timing in result.timings}
    ratios: dict[str, list[float]] = {}
    for fields in baseline["timings"]:
        then = Timing(**fields)
        same = now.get((then.series, then.size))
        if same is None:
            raise InputError(
                f"{name}: has times of {then.series} at {then.size} pixels, this run has not",
                "time the same networks and sizes",
            )
        ratios.setdefault(then.series, []).append(same.work / then.work)
    differences = []
    for group, found in ratios.items():
        ratio = math.exp(sum(map(math.log, found)) / len(found))
        text = f"work relative to a matmul {ratio - 1:+.1%} over {len(found)} sizes"
        differences.append(Difference(f"{group} speed", text, ratio > 1 + SPEED_TOLERANCE))
    return differences
