"""``upscale watch``."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from upscale.cli import console
from upscale.cli import picture_options as opt
from upscale.cli.arguments import (
    Offline,
    Verbose,
    colour_of,
    naming_of,
    parse_target,
    tile_size,
    tiling_of,
)
from upscale.cli.models import prepare
from upscale.cli.report import Report
from upscale.cli.run import on_each, settings_for
from upscale.errors import InputError, UpscaleError, UsageError
from upscale.files import check_folder, resolved
from upscale.options import Precision


def watch(
    folder: Annotated[Path, typer.Argument(help="Folder to watch, with all its subfolders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of results.")],
    scale: opt.Scale = None,
    width: opt.Width = None,
    height: opt.Height = None,
    long: opt.Long = None,
    short: opt.Short = None,
    megapixels: opt.Megapixels = None,
    fit: opt.Fit = None,
    at_least: opt.AtLeast = None,
    skip_large: opt.SkipLarge = False,
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
    interval: Annotated[float, typer.Option(min=0.1, max=86_400, metavar="SECONDS", help="Time between looks.")] = 2.0,
    verbose: Verbose = False,
) -> None:
    """Enlarge the pictures of a folder, and each new one as soon as it is complete, until interrupted.

    A picture is complete when its size and time do not change from one look to the next. What is done stays done over
    restarts: the journal in the folder of results knows.
    """
    from upscale.batch import pipeline
    from upscale.batch.journal import output_state
    from upscale.batch.plan import Job, Refused, plan
    from upscale.catalog import known
    from upscale.device import devices_of
    from upscale.images import is_picture, pictures_in
    from upscale.loading import load

    check_folder(folder)
    if output.is_file() or resolved(output) == resolved(folder) or (is_picture(output) and not output.is_dir()):
        raise UsageError(f"{output}: is not a folder of results", "name another --output")
    wanted = parse_target(scale, width, height, long, short, megapixels, fit, at_least)
    naming = naming_of(name, suffix, format_, model)
    if strength is not None:
        model = known().mixed(model, strength)
    tiling = tiling_of(tile_size(tile), overlap)
    behind = colour_of(background)
    prepare(model, offline=offline)
    upscalers = on_each(
        devices_of(device),
        partial(
            load,
            model,
            precision=precision,
            tiling=tiling,
            tta=tta,
            faithful=faithful,
            offline=offline,
            on_compile=console.notice if compile_ else None,
        ),
    )
    target = wanted or upscalers[0].native
    settings = settings_for(
        model,
        upscalers[0],
        target,
        quality=quality,
        background=behind,
        strip=strip,
        provenance=provenance,
        skip_large=skip_large,
        tta=tta,
        faithful=faithful,
    )
    console.err.print(f"watching {folder}; Ctrl-C ends", markup=False)
    before: dict[Path, tuple[int, ...]] = {}
    planned: dict[Path, tuple[int, ...]] = {}
    handled: dict[Job, tuple[int, ...]] = {}  # not by source: its result may get another name when others come
    told: set[str] = set()
    with _interruptible() as interrupted:
        while not interrupted:
            now: dict[Path, tuple[int, ...]] = {}
            refused: list[Refused] = []
            try:
                states = {path: output_state(path) for path in pictures_in(folder, leaving=[output])}
                now = {path: state for path, state in states.items() if state is not None}  # not gone since listed
                complete = {path: state for path, state in now.items() if before.get(path) == state}
                if complete and complete != planned:
                    jobs = plan([str(folder)], output, target, naming, refused=refused)
                    there = {job: complete[job.source] for job in jobs if job.source in complete}
                    jobs = [job for job, state in there.items() if handled.get(job) != state]
                    if jobs:
                        report = Report(len(jobs), json=False, quiet=False, verbose=verbose)
                        with report.bars:
                            pipeline.run(jobs, upscalers, settings, on_tile=report.on_tile, on_end=report.on_end)
                    handled, planned = there, {} if refused else complete
            except (UpscaleError, OSError) as error:  # a disk away: once it is back, all goes on
                said = error if isinstance(error, UpscaleError) else InputError(f"{folder}: {error}")
                refused.append(Refused(str(folder), said))
            for name, reason in refused:
                if reason.message not in told:
                    console.error_line(reason, name)
            told = {reason.message for _, reason in refused}
            before = now
            time.sleep(interval)
    raise typer.Exit(130)


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """End the block at Ctrl-C; what it yields is not empty then, as an exception that meets a destructor is lost."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGINT, note)
    if handler is signal.SIG_IGN:  # of a script's background
        signal.signal(signal.SIGINT, handler)
    try:
        yield received
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, handler)
