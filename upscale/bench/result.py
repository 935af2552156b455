"""One run of the bench: how it was made, what it found, and the files that say so."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from upscale import __version__, store
from upscale.bench.quality import Quantity, Row, Summary
from upscale.bench.sets import DataSet
from upscale.bench.speed import Timing
from upscale.catalog import known
from upscale.device import describe
from upscale.engine import Upscaler
from upscale.errors import InputError
from upscale.files import write_text
from upscale.metrics import Protocol


@dataclass(frozen=True, slots=True)
class Result:
    """Everything of a run."""

    about: Mapping[str, Any]
    """Versions, hardware, protocol, hashes of data and networks: what someone needs to repeat it."""
    summaries: Sequence[Summary]
    rows: Sequence[Row]
    timings: Sequence[Timing]

    def as_json(self) -> dict[str, Any]:
        """Return one JSON object; infinite values are the string ``"inf"``, which JSON lacks as a number."""
        return {
            "event": "result",
            "about": self.about,
            "summaries": [as_json(summary) for summary in self.summaries],
            "rows": [as_json(row) for row in self.rows],
            "timings": [as_json(timing) for timing in self.timings],
        }


def as_json(record: Row | Summary | Timing) -> dict[str, Any]:
    """Return ``record`` as JSON can hold it."""
    fields: dict[str, Any] = _plain(asdict(record))
    return fields


def about(
    upscalers: Mapping[str, Upscaler],
    models: Sequence[str],
    sets: Sequence[DataSet],
    protocol: Protocol,
    scales: Sequence[int],
) -> dict[str, Any]:
    """Return how a run is made; ``models`` are what ``upscalers`` were loaded from."""
    first = next(iter(upscalers.values()))
    return {
        "upscale": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
        "device": f"{first.device.type} ({describe(first.device)})",
        "precision": first.precision.value,
        "protocol": protocol.name,
        "protocol_summary": protocol.summary,
        "lr": "given" if any(dataset.lr for dataset in sets) else "imresize of doubles, bicubic, antialiased, rounded",
        "scales": list(scales),
        "data": {
            dataset.name: {"pictures": len(dataset.pictures), "sha256": dataset.digest(scales)} for dataset in sets
        },
        "models": {name: _hashes(model) for name, model in zip(upscalers, models, strict=True)},
    }


def _hashes(model: str) -> list[str]:
    """Return the sha256 of each file of ``model``; none for an interpolation."""
    paths = [store.locate(entry) for entry in known().networks(model)]
    return [store.sha256(path) for path in paths if path is not None]


def write_csv(path: Path, result: Result, table: Mapping[str, Quantity]) -> None:
    """Write a line for each picture and network, with the protocol on every line."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["protocol", "set", "scale", "image", "model", *table, "seconds", "megapixels", "memory", "error"])
    for row in result.rows:
        values = ["" if value is None else value for value in row.values.values()]
        ends = ["" if value is None else value for value in (row.seconds, row.megapixels, row.memory, row.error)]
        writer.writerow([result.about["protocol"], row.dataset, row.scale, row.image, row.model, *values, *ends])
    write_text(path, text.getvalue())


def read_result(path: Path) -> Mapping[str, Any]:
    """Read what ``--json`` printed: the last line of the file.

    Raises:
        InputError: not such a file.
    """
    try:
        lines = path.read_text(encoding="utf-8").strip().splitlines()
        result = json.loads(lines[-1]) if lines else None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise _foreign(path) from error
    if not isinstance(result, dict) or not {"about", "summaries", "timings"} <= result.keys():
        raise _foreign(path)
    try:
        for summary in result["summaries"]:
            _ = summary["dataset"], summary["scale"], summary["model"]
            _ = [float(mean) for mean in summary["means"].values() if mean is not None]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise _foreign(path) from error
    return result


def _foreign(path: Path) -> InputError:
    return InputError(f"{path}: not a result of the bench", "make one: upscale bench --json > FILE")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
