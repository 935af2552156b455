"""``upscale INPUTS...``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upscale import __version__
from upscale.cli import console
from upscale.errors import UsageError
from upscale.options import Precision, Target, Tiling

if TYPE_CHECKING:
    from upscale.batch.pipeline import Done, Failed
    from upscale.batch.plan import Job


def _print_version(wanted: bool) -> None:
    if wanted:
        console.out.print(f"upscale {__version__}")
        raise typer.Exit


def run(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUTS...", help="Pictures, folders (with all below them) or patterns."),
    ],
    scale: Annotated[
        str | None,
        typer.Option("--scale", "-x", "-s", metavar="N", help="Factor, 1 to 32, fractions too; default: the model's."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File or folder; default: beside the input, with _x4 in the name."),
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME|FILE", help="Network.")] = "compact",
    tile: Annotated[
        str,
        typer.Option("--tile", "-t", metavar="N|auto", help="Edge of a tile in input pixels, 64 or more."),
    ] = "auto",
    overlap: Annotated[
        int | None,
        typer.Option(metavar="N", help="Pixels that tiles share; default: what the network needs."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="Number format of the network.")] = Precision.AUTO,
    format_: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="EXT", help="Write this format; default: the input's."),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="Lossy quality of JPEG, WebP and AVIF; default: 95 for JPEG."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace results that exist.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per event on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print how each picture was done.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Enlarge pictures."""
    from upscale.batch.plan import plan
    from upscale.catalog import shipped

    entries = shipped().find(model)  # before torch is imported: a slip in a name is answered at once
    tiling = _tiling(tile, overlap)
    wanted = _target(scale)
    known = max((entry.scale for entry in entries if entry.scale), default=None)
    if wanted is None and known is not None:
        wanted = Target.parse(str(known))
    if wanted is not None:
        suffix = None if format_ is None else "." + format_.lower().removeprefix(".")
        jobs = plan(inputs, output, str(wanted), suffix, force=force)

    from upscale.batch import pipeline
    from upscale.engine import load

    upscaler = load(model, device=device, precision=precision, tiling=tiling)
    if wanted is None:  # the scale of a file is known once it is read
        wanted = upscaler.native
        suffix = None if format_ is None else "." + format_.lower().removeprefix(".")
        jobs = plan(inputs, output, str(wanted), suffix, force=force)
    report = _Report(jobs, json=json, quiet=quiet, verbose=verbose)
    with report.bars:
        pipeline.run(jobs, upscaler, wanted, quality=quality, on_tile=report.on_tile, on_end=report.on_end)
    report.summary()
    if report.failed:
        raise typer.Exit(1)


def _target(scale: str | None) -> Target | None:
    try:
        return None if scale is None else Target.parse(scale)
    except ValueError as error:
        raise UsageError(f"--scale: {error}", "give a factor, for example -x 4 or -x 2.5") from error


def _tiling(tile: str, overlap: int | None) -> Tiling:
    try:
        size = None if tile in ("auto", "0") else int(tile)
    except ValueError:
        raise UsageError(
            f"--tile: {tile!r} is not a whole number", "give pixels, for example -t 256, or auto"
        ) from None
    try:
        return Tiling(size=size, overlap=overlap)
    except ValueError as error:
        raise UsageError(f"--tile, --overlap: {error}", "leave both out: the program chooses well") from error


class _Report:
    """What the user sees of a run."""

    def __init__(self, jobs: list[Job], *, json: bool, quiet: bool, verbose: bool) -> None:
        self.json, self.quiet, self.verbose = json, quiet, verbose
        self.done = 0
        self.failed: list[Failed] = []
        self.total = len(jobs)
        self.bars = console.progress(quiet=quiet or json)
        self._files = self.bars.add_task("pictures", total=self.total, unit="pictures", visible=self.total > 1)
        self._tiles = self.bars.add_task("", total=None, unit="tiles")
        if json:
            console.event({"event": "start", "pictures": self.total})

    def on_tile(self, job: Job, done: int, total: int) -> None:
        self.bars.update(self._tiles, description=job.source.name, completed=done, total=total)
        if self.json:
            console.event({"event": "tile", "input": str(job.source), "done": done, "total": total})

    def on_end(self, ended: Done | Failed) -> None:
        from upscale.batch.pipeline import Failed

        self.bars.advance(self._files)
        job = ended.job
        if isinstance(ended, Failed):
            self.failed.append(ended)
            if self.json:
                error = {"error": ended.error.message, "hint": ended.error.hint}
                console.event({"event": "failed", "input": str(job.source), **error})
            else:
                console.error_line(ended.error, str(job.source))
            return
        self.done += 1
        result, size = ended.result, ended.result.image.pixels.shape
        notices = list(ended.notices)
        if result.float32_tiles:
            notices.append(f"{result.float32_tiles} of {result.tiles} tiles overflowed and were done in float32")
        if self.json:
            facts = {
                "seconds": round(result.seconds, 3),
                "width": size[1],
                "height": size[0],
                "tiles": result.tiles,
                "tile_size": result.tile_size,
                "float32_tiles": result.float32_tiles,
                "notices": notices,
            }
            console.event({"event": "done", "input": str(job.source), "output": str(job.output), **facts})
            return
        if not self.quiet:
            for text in notices:
                console.notice(f"{job.source}: {text}")
            console.out.print(str(job.output), markup=False)
        if self.verbose:
            console.err.print(
                f"  {size[1]}x{size[0]}, {result.tiles} tiles of {result.tile_size}, {result.seconds:.1f} s",
                markup=False,
            )

    def summary(self) -> None:
        if self.json:
            console.event({"event": "end", "done": self.done, "failed": len(self.failed)})
        elif self.failed and self.total > 1:
            console.err.print(f"{self.done} done, {len(self.failed)} failed:", style="bold")
            for failure in self.failed:
                console.err.print(f"  {failure.job.source}", markup=False)
