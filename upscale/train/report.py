"""The page at the end of a run: its curves, what was remarked, and what the network makes."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image as PILImage

from upscale.files import write_text
from upscale.page import COLOURS, axis, chart, details, document, paragraph, place, polyline
from upscale.train.recipe import Recipe, to_toml

POINTS = 200
"""Of a curve: more are averaged, as single batches scatter."""
NOT_CURVES = ("time", "event", "step")
UNITS = {"psnr": "PSNR in dB", "ssim": "SSIM", "drift": "drift of the mean colour in levels of 255"}

Curve = Sequence[tuple[float, float]]


def write_report(out: Path, recipe: Recipe) -> None:
    """Write ``report.html`` into the folder of a run, from its log and its last preview sheet.

    Raises:
        DiskFull: no room for it.
    """
    events = list(_events(out / "log.jsonl"))
    sheets = sorted((out / "previews").glob("*.png"))
    write_text(out / "report.html", _page(out.resolve().name, recipe, events, sheets[-1:]))


def _events(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):  # part of a line, where a disk was full or the power went
            yield json.loads(line)


def _page(name: str, recipe: Recipe, events: Sequence[Mapping[str, Any]], sheets: Sequence[Path]) -> str:
    steps, valid = _curves(events, "step"), _curves(events, "valid")
    rates = {"steps_per_second": steps.pop("steps_per_second", [])}
    logits: dict[str, Curve] = {term: steps.pop(term) for term in ("real_logits", "fake_logits") if term in steps}
    losses = [_chart(f"{term} against steps", {term: curve}, log=True) for term, curve in steps.items()]
    last = {key: curve[-1][1] for key, curve in valid.items()}
    figures = ", ".join(f"{key} {value:.4f}" for key, value in last.items()) or "no pictures to measure on"
    done = max((event["step"] for event in events), default=0)
    said = [
        f"<li>{escape(str(event['step']))}: {escape(event.get('text') or event.get('reason', ''))}</li>"
        for event in events
        if event["event"] in ("remark", "stop")
    ]
    body = [
        f"<h1>Training of {escape(name)}</h1>",
        paragraph(f"Step {done} of {recipe.steps}; last validation: {figures}."),
        *(["<h2>Remarks, by step</h2>", f"<ul>{''.join(said)}</ul>"] if said else []),
        "<h2>Validation</h2>" if valid else "",
        _charts([_chart(UNITS.get(key, key), {key: curve}, log=False) for key, curve in valid.items()]),
        *("<h2>Bicubic, SR and GT at the last validation</h2>" + _picture(sheet) for sheet in sheets),
        "<h2>Losses, without their weights</h2>",
        _charts([*losses, _chart("mean logits of the discriminator", logits, log=False)]),
        "<h2>Speed</h2>",
        _charts([_chart("steps a second", rates, log=False)]),
        details("Recipe", f"<pre>{escape(to_toml(recipe))}</pre>"),
    ]
    return document(f"Training of {name}", body)


def _curves(events: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Curve]:
    """Return each number of the events of a ``kind`` as (step, value), averaged to ``POINTS`` at most."""
    found: dict[str, list[tuple[float, float]]] = {}
    for event in events:
        if event["event"] == kind:
            for key, value in event.items():
                if key not in NOT_CURVES and isinstance(value, int | float) and abs(value) < float("inf"):
                    found.setdefault(key, []).append((event["step"], value))
    return {key: _thinned(curve) for key, curve in found.items()}


def _thinned(curve: Curve) -> Curve:
    size = -(-len(curve) // POINTS)
    groups = [curve[i : i + size] for i in range(0, len(curve), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _charts(charts: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(charts)}</div>'


def _chart(title: str, curves: Mapping[str, Curve], *, log: bool) -> str:
    """Return a chart of ``curves`` over steps; logarithmic only where all values are above 0."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    x_axis = axis([x for x, _ in points], log=False, margin=0.02, least=0.5)
    y_axis = axis([y for _, y in points], log=log and min(y for _, y in points) > 0, least=1e-3)
    marks = []
    for index, (name, curve) in enumerate(curves.items()):
        colour = f"var(--s{index % COLOURS})"
        places = [place(x_axis, y_axis, x, y) for x, y in curve]
        marks.append(polyline(places, colour))
        x, y = places[-1]
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        label = f"{name} {curve[-1][1]:.4g}" if len(curves) > 1 else f"{curve[-1][1]:.4g}"
        marks.append(f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{escape(label)}</text>')
    return chart(title, x_axis, y_axis, marks)


def _picture(path: Path) -> str:
    """Return a PNG as an element that carries it, compressed as a photograph: a sheet is megabytes otherwise."""
    file = io.BytesIO()
    with PILImage.open(path) as sheet:
        sheet.convert("RGB").save(file, "JPEG", quality=92, subsampling=0)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img alt="bicubic, SR and GT" style="max-width: 100%" src="data:image/jpeg;base64,{data}">'
