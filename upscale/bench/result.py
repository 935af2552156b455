"""One run of the bench: how it was made, what it found, and the files that say so."""

from __future__ import annotations

import csv
import io
import json
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
from upscale.config import for_json
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
        fields: dict[str, Any] = for_json({"event": "result", **asdict(self)})
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
        "models": {name: list(store.hashes(model)) for name, model in zip(upscalers, models, strict=True)},
    }


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
        for fields in result["timings"]:
            _ = float(Timing(**fields).work)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise _foreign(path) from error
    return result


def _foreign(path: Path) -> InputError:
    return InputError(f"{path}: not a result of the bench", "make one: upscale bench --json > FILE")
