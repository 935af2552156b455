"""Metrics of networks on sets of pictures, under a named protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from upscale.bench.memory import PeakMemory
from upscale.bench.published import published
from upscale.bench.sets import Case, DataSet, as_batch, open_case, reduce
from upscale.device import told_of_memory
from upscale.engine import Upscaler
from upscale.errors import InputError, OutOfMemory, UpscaleError
from upscale.images import Image, Pixels
from upscale.imaging import resize, to_array
from upscale.metrics import (
    LPIPS,
    METRICS,
    FeatureDistance,
    Metric,
    Protocol,
    ciede2000,
    ms_ssim,
    prepare,
    psnr,
    srgb_to_lab,
)

CROP = 128
"""Edge of the crops in the report, pixels."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the metrics see of one result."""

    sr: Tensor  # [1, 3, H, W] float64 in [0, 1]
    gt: Tensor
    lr: Tensor  # [1, 3, h, w]
    reduced: Tensor  # [1, 3, h, w]: sr, reduced as gt was
    compared_sr: Tensor  # [1, C, H', W']: what the protocol compares
    compared_gt: Tensor


@dataclass(frozen=True, slots=True)
class Quantity:
    """A row of ``quantities()``."""

    title: str
    higher_is_better: bool
    function: Callable[[Comparison], Tensor] | None
    """``[1]``; None where its weights are missing."""
    meaning: str
    digits: int = 4


def quantities(features: FeatureDistance | None = None, lpips: LPIPS | None = None) -> dict[str, Quantity]:
    """Return every metric of the bench, by the name that it has in files."""
    return {
        "psnr": _compared("PSNR", METRICS["psnr"], "under the protocol", digits=2),
        "ssim": _compared("SSIM", METRICS["ssim"], "under the protocol; Wang et al. 2004"),
        "ms_ssim": _compared("MS-SSIM", Metric(ms_ssim, True), "under the protocol; Wang et al. 2003"),
        "consistency": Quantity(
            "LR-cons.",
            True,
            lambda c: psnr(c.reduced, c.lr),
            "PSNR in RGB of the reduced result against the input: how exactly it gives the input back",
            digits=2,
        ),
        "color": Quantity(
            "dE2000",
            False,
            lambda c: ciede2000(srgb_to_lab(c.reduced), srgb_to_lab(c.lr)).mean((1, 2)),
            "mean colour difference of the reduced result from the input: 1 is just visible",
            digits=3,
        ),
        "features": Quantity(
            "features",
            False,
            None if features is None else lambda c: features(c.sr, c.gt),
            "unweighted distance of SqueezeNet's features; not LPIPS"
            + ("" if features else ": no weights, give --features FILE"),
        ),
        "lpips": Quantity(
            f"LPIPS-{lpips.name}" if lpips else "LPIPS",
            False,
            None if lpips is None else lambda c: lpips(c.sr, c.gt),
            "Zhang et al. 2018, with its published weights"
            + ("" if lpips else ": no weights, give --lpips BACKBONE LINEAR"),
        ),
    }


def _compared(title: str, metric: Metric, meaning: str, digits: int = 4) -> Quantity:
    """Return ``metric`` of what the protocol compares."""
    return Quantity(
        title, metric.higher_is_better, lambda c: metric.function(c.compared_sr, c.compared_gt), meaning, digits
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one network did to one picture."""

    dataset: str
    image: str
    model: str
    scale: int
    values: Mapping[str, float | None]
    """None: could not be measured, ``reasons`` says why."""
    reasons: Mapping[str, str]
    seconds: float | None
    megapixels: float | None
    """Of the result."""
    memory: int | None
    """Peak, bytes."""
    error: str | None = None
    """Why there is no result at all."""


@dataclass(frozen=True, slots=True)
class Crops:
    """The same part of a picture, from every network: where bicubic enlargement is worst."""

    dataset: str
    image: str
    scale: int
    left: int
    top: int
    pictures: Mapping[str, Pixels]
    """Name -> ``[h, w, 3]`` uint8: ``bicubic``, each network, ``HR``."""


def run(
    upscalers: Mapping[str, Upscaler],
    sets: Sequence[DataSet],
    scales: Sequence[int],
    protocol: Protocol,
    table: Mapping[str, Quantity],
) -> Iterator[tuple[list[Row], Crops | None]]:
    """Yield for each picture of each set and scale what every network did to it; nothing is left out.

    A network's first picture at a scale is done twice and timed the second time: the first run also loads kernels.
    """
    warm: set[tuple[str, int]] = set()
    for dataset in sets:
        for scale in scales:
            for picture in dataset.pictures:
                yield _picture(upscalers, dataset, picture, scale, protocol, table, warm)


def _picture(
    upscalers: Mapping[str, Upscaler],
    dataset: DataSet,
    picture: Path,
    scale: int,
    protocol: Protocol,
    table: Mapping[str, Quantity],
    warm: set[tuple[str, int]],
) -> tuple[list[Row], Crops | None]:
    place = (dataset.name, picture.stem, scale)
    try:
        case = open_case(dataset, picture, scale)
    except UpscaleError as error:
        return [_failed(place, model, table, error) for model in upscalers], None
    rows: list[Row] = []
    results: dict[str, Pixels] = {}
    for model, upscaler in upscalers.items():
        try:
            if (model, scale) not in warm:
                upscaler.upscale(case.lr, scale)
                warm.add((model, scale))
            peak = PeakMemory(upscaler.device)
            done = upscaler.upscale(case.lr, scale)
            memory = peak.bytes()  # before the metrics, which take more than small networks
            with told_of_memory(case.name, "close other programs"):
                values, reasons = measure(case, done.image.pixels, scale, protocol, table)
        except UpscaleError as error:
            rows.append(_failed(place, model, table, error))
            continue
        results[model] = done.image.pixels
        rows.append(
            Row(
                dataset=dataset.name,
                image=case.name,
                model=model,
                scale=scale,
                values=values,
                reasons=reasons,
                seconds=done.seconds,
                megapixels=math.prod(case.gt.shape[:2]) / 1e6,
                memory=memory,
            )
        )
    try:
        with told_of_memory(case.name, ""):
            return rows, _crops(dataset.name, case, results, scale)
    except OutOfMemory:  # what was measured counts without the picture for the page
        return rows, None


def _failed(place: tuple[str, str, int], model: str, table: Mapping[str, Quantity], error: UpscaleError) -> Row:
    dataset, image, scale = place
    return Row(
        dataset=dataset,
        image=image,
        model=model,
        scale=scale,
        values=dict.fromkeys(table),
        reasons={},
        seconds=None,
        megapixels=None,
        memory=None,
        error=error.message,
    )


def measure(
    case: Case, result: Pixels, scale: int, protocol: Protocol, table: Mapping[str, Quantity]
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Return every metric of ``result`` ``[s*h, s*w, 3]``, and why some could not be measured."""
    levels, border = int(np.iinfo(case.gt.dtype).max), protocol.border(scale)
    sr, gt = as_batch(result), as_batch(case.gt)
    comparison = Comparison(
        sr=sr,
        gt=gt,
        lr=as_batch(case.lr.pixels),
        reduced=as_batch(reduce(result, scale)),
        compared_sr=prepare(sr, border, protocol, levels=levels, grayscale=case.grayscale),
        compared_gt=prepare(gt, border, protocol, levels=levels, grayscale=case.grayscale),
    )
    values: dict[str, float | None] = dict.fromkeys(table)
    reasons: dict[str, str] = {}
    for name, row in table.items():
        try:
            if row.function is None:
                raise InputError("no weights")
            if comparison.compared_gt.numel() == 0:
                raise InputError("no pixels are left inside the border")
            value = float(row.function(comparison))
            if math.isnan(value):
                raise InputError("not a number")
            values[name] = value
        except InputError as error:
            reasons[name] = error.message
    return values, reasons


def _crops(dataset: str, case: Case, results: Mapping[str, Pixels], scale: int) -> Crops:
    gt = as_batch(case.gt)
    height, width = case.gt.shape[:2]
    bicubic = resize(as_batch(case.lr.pixels), height, width)
    h, w = min(CROP, height), min(CROP, width)
    error = F.avg_pool2d((bicubic - gt).square().mean(1, keepdim=True), (h, w), stride=8)[0, 0]
    row, column = divmod(int(error.argmax()), error.shape[1])
    top, left = 8 * row, 8 * column
    pictures = {"bicubic": to_array(bicubic[0], case.gt.dtype), **results, "HR": case.gt}
    parts = {
        name: Image(pixels=np.ascontiguousarray(pixels[top : top + h, left : left + w])).in_eight_bits().pixels
        for name, pixels in pictures.items()
    }
    return Crops(dataset, case.name, scale, left, top, parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Means of one network on one set at one scale."""

    dataset: str
    scale: int
    model: str
    images: int
    failed: int
    """Pictures without a result; where there are any, there are no means."""
    means: Mapping[str, float | None]
    """None where any picture has no value: a mean over fewer pictures would compare with nothing."""
    counts: Mapping[str, int]
    """How many pictures have a value."""
    seconds_per_megapixel: float | None
    memory: int | None
    published: tuple[float, float] | None
    """PSNR and SSIM that papers state for this network on this set."""


def summarise(rows: Iterable[Row], protocol: Protocol) -> list[Summary]:
    """Return the means of ``rows`` in the order of their first appearance."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.scale, row.model), []).append(row)
    return [_summary(key, group, protocol) for key, group in groups.items()]


def _summary(key: tuple[str, int, str], rows: Sequence[Row], protocol: Protocol) -> Summary:
    dataset, scale, model = key
    failed = sum(row.error is not None for row in rows)
    found = {name: [row.values[name] for row in rows] for name in rows[0].values}
    known = {name: [value for value in values if value is not None] for name, values in found.items()}
    megapixels = sum(row.megapixels or 0 for row in rows)
    memory = [row.memory for row in rows if row.memory is not None]
    return Summary(
        dataset=dataset,
        scale=scale,
        model=model,
        images=len(rows),
        failed=failed,
        means={name: sum(values) / len(values) if len(values) == len(rows) else None for name, values in known.items()},
        counts={name: len(values) for name, values in known.items()},
        seconds_per_megapixel=None if failed else sum(row.seconds or 0 for row in rows) / megapixels,
        memory=max(memory, default=None),
        published=published(dataset, len(rows), scale, model) if protocol.name == "y" else None,
    )
