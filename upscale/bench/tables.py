"""The tables of a run, for the terminal and for the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from upscale.bench.published import table as papers
from upscale.bench.quality import Quantity
from upscale.bench.result import Result
from upscale.bench.speed import Timing, scaling


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, and the number that it is sorted by."""

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; its first ``labels`` columns are words, the others numbers."""

    columns: Sequence[str]
    labels: int
    rows: Sequence[Sequence[Cell]]


def means(result: Result, table: Mapping[str, Quantity], dataset: str, scale: int) -> Grid:
    """Return the means of every network on a set; beside PSNR and SSIM, what papers state and our difference."""
    summaries = [s for s in result.summaries if (s.dataset, s.scale) == (dataset, scale)]
    stated = ("psnr", "ssim") if any(summary.published for summary in summaries) else ()
    columns = ["model", "pictures"]
    for name, row in table.items():
        columns += [row.title, "paper", "diff"] if name in stated else [row.title]
    rows = []
    for summary in summaries:
        done = summary.images - summary.failed
        cells = [Cell(summary.model), Cell(f"{done} of {summary.images}" if summary.failed else str(done), done)]
        for name, row in table.items():
            ours = summary.means[name]
            cells.append(_mean(ours, summary.counts[name], summary.images, row.digits))
            if name in stated:
                paper = summary.published[stated.index(name)] if summary.published else None
                cells.append(number(paper, row.digits))
                cells.append(number(None if paper is None or ours is None else ours - paper, row.digits + 1, sign="+"))
        cells.append(number(summary.seconds_per_megapixel, 3))
        cells.append(number(summary.memory and summary.memory / 1e6, 0))
        rows.append(cells)
    return Grid([*columns, "s/MP", "peak MB"], 1, rows)


def images(result: Result, table: Mapping[str, Quantity], dataset: str, scale: int) -> Grid:
    """Return every picture of a set under every network, the worst PSNR first."""
    found = [row for row in result.rows if (row.dataset, row.scale) == (dataset, scale)]
    found.sort(key=lambda row: -math.inf if row.error else row.values["psnr"] or 0.0)
    columns = ["picture", "model", *(row.title for row in table.values()), "seconds", "remark"]
    return Grid(
        columns,
        2,
        [
            [
                Cell(row.image),
                Cell(row.model),
                *(number(row.values[name], measure.digits) for name, measure in table.items()),
                number(row.seconds, 3),
                Cell(row.error or "; ".join(_distinct(row.reasons, table))),
            ]
            for row in found
        ],
    )


def literature(result: Result, dataset: str, scale: int) -> Grid | None:
    """Return what papers state for a set, None where they say nothing that compares."""
    count = next((s.images for s in result.summaries if (s.dataset, s.scale) == (dataset, scale)), 0)
    stated = papers(dataset, count, scale) if result.about["protocol"] == "y" else {}
    rows = [[Cell(name), number(values[0], 2), number(values[1], 4)] for name, values in stated.items()]
    return Grid(["method", "PSNR", "SSIM"], 1, rows) if rows else None


def remarks(result: Result, table: Mapping[str, Quantity]) -> list[str]:
    """Return why some figures are missing, each reason once."""
    lines = [f"{row.title}: {row.meaning}" for row in table.values() if row.function is None]
    counted: dict[str, int] = {}
    for row in result.rows:
        for reason in _distinct(row.reasons, table):
            counted[reason] = counted.get(reason, 0) + 1
    return lines + [f"{reason} ({count} times)" for reason, count in counted.items()]


def speed(result: Result) -> Grid:
    """Return what was timed."""
    columns = ["model", "device", "precision", "tile", "in", "out MP", "seconds", "±", "MP/s", "TFLOP/s", "of peak"]
    rows = [
        [
            Cell(timing.model),
            Cell(timing.device),
            Cell(timing.precision),
            Cell(str(timing.tile), timing.tile),
            Cell(f"{timing.size}x{timing.size} x{timing.scale}", timing.size),
            number(timing.megapixels, 2),
            number(timing.seconds, 4),
            Cell(f"{timing.spread:.1%}", timing.spread),
            number(timing.megapixels / timing.seconds, 2),
            number(timing.tflops, 3),
            Cell("-" if timing.share is None else f"{timing.share:.0%}", timing.share),
            number(timing.memory and timing.memory / 1e6, 0),
            number(None if timing.extra is None else timing.extra / 1e6, 1),
        ]
        for timing in result.timings
    ]
    return Grid([*columns, "peak MB", "extra MB"], 3, rows)


def growth(result: Result) -> list[str]:
    """Return in words how time and memory grow with megapixels, for each network."""
    lines = []
    for name, timings in grouped(result.timings).items():
        fit = scaling(timings)
        if fit is not None:
            memory = "" if fit.memory is None else f", extra memory as MP^{fit.memory:.2f}"
            lines.append(f"{name}: time grows as MP^{fit.time:.2f}{memory}")
    return lines


def grouped(timings: Iterable[Timing]) -> dict[str, list[Timing]]:
    """Return the timings that differ in size only, by a name for them."""
    groups: dict[str, list[Timing]] = {}
    for timing in timings:
        groups.setdefault(timing.series, []).append(timing)
    return groups


def number(value: float | None, digits: int, sign: str = "") -> Cell:
    """Return ``value`` as a cell, a dash where there is none."""
    return Cell("-") if value is None else Cell(f"{value:{sign}.{digits}f}", value)


def _mean(value: float | None, count: int, images: int, digits: int) -> Cell:
    if value is None and 0 < count < images:
        return Cell(f"- ({count} of {images})")
    return number(value, digits)


def _distinct(reasons: Mapping[str, str], table: Mapping[str, Quantity]) -> list[str]:
    return [reason for name, reason in reasons.items() if table[name].function is not None]
