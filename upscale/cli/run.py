"""``upscale INPUTS...``."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upscale import __version__
from upscale.cli import console
from upscale.cli import picture_options as opt
from upscale.cli.arguments import (
    Offline,
    Verbose,
    colour_of,
    devices_for,
    listed_in,
    naming_of,
    parse_target,
    tile_size,
    tiling_of,
    writers_of,
)
from upscale.cli.models import prepare
from upscale.cli.report import Report, show_plan
from upscale.cli.streams import Streams
from upscale.errors import DiskFull, UsageError
from upscale.options import Precision, Target

if TYPE_CHECKING:
    from upscale.batch.plan import Job, Refused
    from upscale.batch.results import Settings
    from upscale.engine import Upscaler
    from upscale.images import Image


def _print_version(wanted: bool) -> None:
    if wanted:
        console.line(f"upscale {__version__}")
        raise typer.Exit


def run(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUTS", help="Pictures, folders (with all below them) or patterns; - is standard input."
        ),
    ] = None,
    scale: opt.Scale = None,
    width: opt.Width = None,
    height: opt.Height = None,
    long: opt.Long = None,
    short: opt.Short = None,
    megapixels: opt.Megapixels = None,
    fit: opt.Fit = None,
    at_least: opt.AtLeast = None,
    skip_large: opt.SkipLarge = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File or folder, - for standard output; default: beside the input."),
    ] = None,
    model: opt.Model = "compact",
    strength: opt.Strength = None,
    tta: opt.Tta = False,
    faithful: opt.Faithful = False,
    compile_: opt.Compile = False,
    offline: Offline = False,
    tile: opt.Tile = "auto",
    overlap: opt.Overlap = None,
    device: opt.Devices = "auto",
    precision: opt.NumberFormat = Precision.AUTO,
    format_: opt.Format = None,
    quality: opt.Quality = None,
    background: opt.Background = None,
    strip: opt.Strip = False,
    provenance: opt.Provenance = True,
    name: opt.Name = None,
    suffix: opt.Suffix = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace results that exist.", rich_help_panel="Files")
    ] = False,
    list_: Annotated[
        Path | None,
        typer.Option(
            "--list", metavar="FILE", help="More inputs, one a line; - is standard input.", rich_help_panel="Batches"
        ),
    ] = None,
    recursive: Annotated[
        bool,
        typer.Option("--recursive/--flat", help="Take the subfolders of folders, too.", rich_help_panel="Batches"),
    ] = True,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Try what failed in an earlier run again, leave all that was done.",
            rich_help_panel="Batches",
        ),
    ] = False,
    jobs_: Annotated[
        str, typer.Option("--jobs", "-j", metavar="N", help="Results written at a time.", rich_help_panel="Batches")
    ] = "2",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be done, and what it would take.", rich_help_panel="Batches"),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per event on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    verbose: Verbose = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    input_: Annotated[list[str] | None, typer.Option("--input", "-i", hidden=True)] = None,
    gpu: Annotated[str | None, typer.Option("--gpu-id", "-g", hidden=True)] = None,
) -> None:
    """Enlarge pictures."""
    from upscale.batch.plan import plan
    from upscale.batch.team import Team
    from upscale.catalog import known

    wanted = parse_target(scale, width, height, long, short, megapixels, fit, at_least)
    naming = naming_of(name, suffix, format_, model)
    if strength is not None:
        model = known().mixed(model, strength)
    native = known().scale(model)  # before torch is imported: a slip in a name is answered at once
    tiling = tiling_of(tile_size(tile), overlap)
    behind = colour_of(background)
    writers = writers_of(jobs_)
    given = [*(inputs or ()), *(input_ or ()), *listed_in(list_)]
    if "-" in given and list_ == Path("-"):
        raise UsageError("--list -: standard input is a picture already", "name a file with --list")
    if not given:
        raise UsageError("no picture is named", "for example: upscale photo.jpg -x 4")
    if wanted is None and native is not None:
        wanted = Target.parse(str(native))
    team = Team.joined()
    leads = team.rank == 0  # and speaks for all

    piped = "-" in given or output == Path("-")
    with tempfile.TemporaryDirectory(prefix="upscale-") if piped else nullcontext("") as folder:
        streams = Streams(given, output, Path(folder), naming, json=json)

        def loaded() -> list[Upscaler]:
            with _collector_paused():
                from upscale.loading import load

            prepare(model, offline=offline, quiet=quiet or json or not leads)
            return on_each(
                devices_for(device, gpu, team),
                partial(
                    load,
                    model,
                    precision=precision,
                    tiling=tiling,
                    tta=tta,
                    faithful=faithful,
                    offline=offline,
                    on_compile=(_ignore if quiet or not leads else console.notice) if compile_ else None,
                ),
            )

        upscalers = None
        if wanted is None:  # the scale of a file is known once it is read
            upscalers = loaded()
            wanted = upscalers[0].native
        refused: list[Refused] = []
        jobs = plan(streams.inputs, streams.output, wanted, naming, recursive=recursive, force=force, refused=refused)
        if len(refused) == 1 and not jobs:
            raise refused[0].error
        if not team.alone and any(job.root is None for job in jobs):
            raise UsageError(
                f"torchrun: {team.world} processes need a folder of results to share", "name one with --output"
            )
        report = Report(
            len(jobs) + len(refused),
            json=json and leads,
            quiet=quiet or not leads,
            verbose=verbose,
            piped=streams.to_stdout,
        )
        if leads:
            for name, error in refused:
                report.refuse(name, error, told=team.attempt > 0)
            if dry_run and jobs:
                _dry_run(jobs, wanted, retry_failed=retry_failed, force=force, json=json)
        if quality is not None and leads and not (quiet or json) and _keeps_all(jobs):
            console.notice(
                "--quality: no result is of a format that loses anything, as jpg or webp: it changes nothing"
            )
        if not jobs and leads and not dry_run:
            report.summary()
        if dry_run or not jobs:
            raise typer.Exit(1 if report.failed else 0)

        alone = len(jobs) == 1 and jobs[0].root is None  # of several, the first would stay in memory
        first = _begun(jobs[0]) if alone and not upscalers else None
        upscalers = upscalers or loaded()
        from upscale.batch import pipeline

        settings = settings_for(
            model,
            upscalers[0],
            wanted,
            quality=quality,
            background=behind,
            strip=strip,
            provenance=provenance,
            skip_large=skip_large,
            tta=tta,
            faithful=faithful,
        )
        try:
            with report.bars:
                pipeline.run(
                    jobs,
                    upscalers,
                    settings,
                    on_tile=report.on_tile if leads else _ignore,
                    on_end=report.on_end if leads else _ignore,
                    writers=writers,
                    retry_failed=retry_failed,
                    redo=force,
                    team=team,
                    first=first,
                )
        except KeyboardInterrupt:
            report.summary()
            if not (json or quiet):
                console.notice(f"interrupted: {report.done} of {report.total} pictures are done")
            raise typer.Exit(130) from None
        except DiskFull:  # told with the picture that it stopped
            if leads:
                console.notice(f"stopped: {report.done} of {report.total} pictures are done, the others were not begun")
        # torchrun starts again what ended with failures, which need not be told twice.
        if leads and (team.is_first_to("sum up") or report.has_news):
            report.summary()
        streams.send(report.done)
    if report.failed:
        raise typer.Exit(1)


def _keeps_all(jobs: Sequence[Job]) -> bool:
    """Whether every result is in a format without lossy compression."""
    from upscale.images.formats import format_of

    return bool(jobs) and all(format_of(job.output).lossy is None for job in jobs)


def _begun(job: Job) -> Future[Image]:
    """Return the picture of ``job``, decoded by one core while another imports PyTorch."""
    from upscale.images import decode

    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(lambda: decode(job.source.read_bytes(), str(job.source)))
    finally:
        pool.shutdown(wait=False)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep Python's collector from looking through PyTorch's many objects while they are made, and later on.

    It takes a seventh of the time that importing PyTorch takes, and finds nothing.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _ignore(*_: Any, **__: Any) -> None:
    """Leave it to the leader of the team to say."""


def settings_for(
    model: str,
    upscaler: Upscaler,
    target: Target,
    *,
    quality: int | None,
    background: tuple[int, int, int] | None,
    strip: bool,
    provenance: bool,
    skip_large: bool,
    tta: bool,
    faithful: bool,
) -> Settings:
    """Return what makes the results of ``upscaler``, which was loaded as ``model``, what they are."""
    from upscale import store
    from upscale.batch.results import Settings
    from upscale.images import Provenance

    weights = store.hashes(model)
    dials = " tta" * tta + " faithful" * faithful
    made = Provenance(
        tool=f"upscale {__version__}", model=model, weights=weights, settings=f"{target} {upscaler.precision}{dials}"
    )
    return Settings(
        target=target,
        quality=quality,
        background=background,
        strip=strip,
        provenance=made if provenance else None,
        skip_large=skip_large,
        engine=f"{model} {weights} {upscaler.precision}{dials}",
    )


def _dry_run(jobs: Sequence[Job], target: Target, *, retry_failed: bool, force: bool, json: bool) -> None:
    from upscale.batch.journal import Journal

    journals = {root: Journal.read(root) for root in {job.root for job in jobs} if root is not None}
    if retry_failed:
        jobs = [job for job in jobs if job.root is None or not journals[job.root].has_done(job.source, job.output)]
    sizes = [job.result_size(target) for job in jobs]
    paces = (journal.pace() for journal in journals.values())
    show_plan(jobs, sizes, next((pace for pace in paces if pace is not None), None), force=force, json=json)


def on_each(devices: Sequence[str], load: Callable[..., Upscaler]) -> list[Upscaler]:
    """Return an upscaler for each of ``devices``, all of which give the same results."""
    import torch

    upscalers = [load(device=name) for name in devices]
    if len({upscaler.precision for upscaler in upscalers}) > 1:
        raise UsageError(
            f"--device {','.join(devices)}: these compute in different precisions, so results would differ",
            "--precision fp32 makes them the same",
        )
    if all(upscaler.device.type == "cpu" for upscaler in upscalers):
        torch.set_num_threads(max(1, torch.get_num_threads() // len(upscalers)))
    return upscalers
