"""``upscale compare`` and ``upscale check``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upscale.cli import console
from upscale.cli.arguments import Force, check_texts, protocol_of, spare
from upscale.errors import InputError, UsageError
from upscale.files import write_text

if TYPE_CHECKING:
    from upscale.images import Image


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A picture.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another of the same size.")],
    ref: Annotated[Path | None, typer.Argument(metavar="[REF]", help="What both should look like.")] = None,
    protocol: Annotated[str, typer.Option(metavar="NAME", help="See upscale bench --protocol list.")] = "y",
    border: Annotated[int, typer.Option(min=0, metavar="N", help="Pixels left out at each edge.")] = 0,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page with a slider.")] = None,
    force: Force = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each picture.")] = False,
) -> None:
    """Compare two pictures of one size, with each other or with a third."""
    from upscale.bench.pairs import enlarged, figures
    from upscale.bench.report import Slider, compare_page
    from upscale.images import read_image

    chosen = protocol_of(protocol)
    paths = [a, b] if ref is None else [a, b, ref]
    spare(paths, report, force=force)
    check_texts(report)
    images = [read_image(path) for path in paths]
    _check_sizes(paths, images, border)
    names = _names(paths)
    measured = dict(zip(names[:2], images, strict=False)) if ref is not None else {names[0]: images[0]}
    grid = figures(measured, images[-1], chosen, border)
    title = f"{' and '.join(measured)} against {names[-1]}, protocol {protocol}, {border} pixels off"
    if report is not None:
        height, width = images[0].pixels.shape[:2]
        shown = {name: enlarged(image.pixels, height, width) for name, image in zip(names, images, strict=True)}
        slider = Slider(f"{width}x{height}", shown, names[0], names[1], {}, strip=False)
        write_text(report, compare_page(title, grid, slider))
    if json:
        for row in grid.rows:
            values = {column: cell.value for column, cell in zip(grid.columns, row, strict=True)}
            console.event({**values, "picture": row[0].text, "against": names[-1], "protocol": protocol})
    else:
        console.table(title, grid.columns, [[cell.text for cell in row] for row in grid.rows])


def check(
    sr: Annotated[Path, typer.Argument(metavar="SR", help="The enlarged picture.")],
    lr: Annotated[Path, typer.Argument(metavar="LR", help="Its source.")],
    heat: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write where colours differ, of the source's size.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page with a slider.")] = None,
    least: Annotated[float | None, typer.Option(metavar="DB", help="Exit 1 if less faithful than this.")] = None,
    force: Force = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how faithful an enlarged picture is to its source."""
    from upscale.bench.pairs import HOT, enlarged, faith
    from upscale.bench.report import Slider, compare_page
    from upscale.bench.tables import Cell, Grid
    from upscale.images import Image, read_image, write_image

    spare([sr, lr], heat, report, force=force)
    check_texts(report)
    large, small = read_image(sr), read_image(lr)
    found = faith(large, small)
    facts = [
        ("scale", f"x{found.scale:.4g}", ""),
        (
            "LR-consistency",
            f"{found.consistency:.2f} dB",
            "reduced, against the source; above 40, hard to see",
        ),
        ("largest difference", f"{found.largest:.2f}", "of the same two, in levels of 255"),
        ("colour, mean dE2000", f"{found.color_mean:.3f}", "1 is just visible"),
        ("colour, worst hundredth", f"{found.color_worst:.3f}", f"the heat map ends at {HOT:g}"),
        ("local contrast", f"{found.contrast:.3f}", "of the source's; above 1, contrast was invented"),
    ]
    if heat is not None:
        write_image(heat, Image(pixels=found.heat))
    if report is not None:
        size = large.pixels.shape[:2]
        pictures = {"source": small.pixels, "enlarged": large.pixels, "where colours differ": found.heat}
        shown = {name: enlarged(pixels, *size) for name, pixels in pictures.items()}
        grid = Grid(["what", "value", "meaning"], 3, [[Cell(text) for text in row] for row in facts])
        title = f"{sr.name} against its source {lr.name}"
        write_text(
            report,
            compare_page(title, grid, Slider(title, shown, "source", "where colours differ", {}, strip=False)),
        )
    if json:
        console.event({field.name: getattr(found, field.name) for field in fields(found) if field.name != "heat"})
    else:
        for name, value, meaning in facts:
            console.line(f"{name:<24} {value:>10}   {meaning}".rstrip())
    if least is not None and not found.consistency >= least:  # nothing is as faithful as NaN
        raise typer.Exit(1)


def _check_sizes(paths: list[Path], images: list[Image], border: int) -> None:
    height, width = images[0].pixels.shape[:2]
    for path, image in zip(paths, images, strict=True):
        if image.pixels.shape[:2] != (height, width):
            found = f"{image.pixels.shape[1]}x{image.pixels.shape[0]}"
            raise InputError(
                f"{path}: {found}, but {paths[0]} is {width}x{height}",
                "compare takes one size; `upscale check SR LR` compares an enlargement with its source",
            )
    if 2 * border >= min(height, width):
        raise UsageError(f"--border: {border} leaves nothing of {width}x{height}", "give less")


def _names(paths: list[Path]) -> list[str]:
    """Return what the pictures are called: the file's name, or the whole path where two have one name."""
    short = [path.name for path in paths]
    return short if len(set(short)) == len(short) else [f"{index}: {path}" for index, path in enumerate(paths, 1)]
