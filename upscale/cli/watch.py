"""``upscale watch``."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from upscale.cli import console
from upscale.cli.arguments import Device, Offline, Verbose, parse_target
from upscale.cli.models import prepare
from upscale.cli.report import Report
from upscale.cli.run import settings_for
from upscale.errors import UpscaleError, UsageError
from upscale.files import check_folder
from upscale.options import Measure


def watch(
    folder: Annotated[Path, typer.Argument(help="Folder to watch, with all its subfolders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of results.")],
    scale: Annotated[
        str | None, typer.Option("--scale", "-x", "-s", metavar="N", help="Factor; default: the model's.")
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", "-n", metavar="NAME|FILE|URL", help="Network.")] = "compact",
    offline: Offline = False,
    device: Device = "auto",
    format_: Annotated[
        str | None, typer.Option("--format", "-f", metavar="EXT", help="Write this format; default: the input's.")
    ] = None,
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="Lossy quality.")] = None,
    interval: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Time between looks.")] = 2.0,
    verbose: Verbose = False,
) -> None:
    """Enlarge the pictures of a folder, and each new one as soon as it is complete, until interrupted.

    A picture is complete when its size and time do not change from one look to the next. What is done stays done over
    restarts: the journal in the folder of results knows.
    """
    from upscale.batch import pipeline
    from upscale.batch.journal import output_state
    from upscale.batch.plan import Naming, pictures, plan
    from upscale.images import is_picture
    from upscale.loading import load

    check_folder(folder)
    if output.is_file() or output.resolve() == folder.resolve() or (is_picture(output) and not output.is_dir()):
        raise UsageError(f"{output}: is not a folder of results", "name another --output")
    wanted = parse_target({Measure.SCALE: scale})
    naming = Naming(suffix=None if format_ is None else "." + format_.lower().removeprefix("."), model=model)
    prepare(model, offline=offline)
    upscaler = load(model, device=device, offline=offline)
    target = wanted or upscaler.native
    settings = settings_for(model, upscaler, target, quality=quality)
    console.err.print(f"watching {folder}; Ctrl-C ends", markup=False)
    before: dict[Path, tuple[int, ...]] = {}
    handled: dict[Path, tuple[int, ...]] = {}
    told = ""
    with _interruptible() as interrupted:
        while not interrupted:
            now: dict[Path, tuple[int, ...]] = {}
            try:
                states = {path: output_state(path) for path in pictures(folder, output, recursive=True)}
                now = {path: state for path, state in states.items() if state is not None}  # not gone since listed
                complete = {path for path, state in now.items() if before.get(path) == state != handled.get(path)}
                if complete:
                    planned = plan([str(folder)], output, target, naming)
                    jobs = [job for job in planned if job.source in complete]
                    report = Report(len(jobs), json=False, quiet=False, verbose=verbose)
                    with report.bars:
                        pipeline.run(jobs, [upscaler], settings, on_tile=report.on_tile, on_end=report.on_end)
                    handled |= {path: now[path] for path in complete}
                told = ""
            except UpscaleError as error:  # a clash of names, a folder that is away: once it is mended, all goes on
                if error.message != told:
                    console.error_line(error)
                told = error.message
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
