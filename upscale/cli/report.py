"""What the user sees of a run: lines, progress bars and a summary, or JSON events.

``--json`` prints one JSON object per line (NDJSON) on standard output, everything else goes to standard error. Each has
``event``; fields may be added, and ``schema`` in the first event is raised when one changes its meaning or goes:

- ``start``: ``schema`` (1), ``version``, ``pictures``.
- ``plan``, for each picture, with ``--dry-run`` only: ``input``, ``output``, ``width``, ``height``, ``bytes`` (of the
  result, estimated) and ``seconds`` (estimated, null without a journal to learn from); sizes are null where the file
  must be decoded to tell.
- ``tile``: ``input``, ``done``, ``total``.
- ``done``: ``input``, ``output``, ``width``, ``height``, ``seconds``, ``tiles``, ``tile_size``, ``float32_tiles``,
  ``notices``; ``seconds`` and the tiles are 0 for a picture that was large enough and copied, and for one that another
  process of the same ``torchrun`` did.
- ``skipped``: ``input``, ``output``, ``reason``.
- ``failed``: ``input``, ``error``, ``hint``, ``earlier`` (in an earlier run, not tried again).
- ``end``: ``done``, ``skipped``, ``failed``; not with ``--dry-run``.
- ``error``: ``error``, ``hint``: why nothing, or nothing more, is done; then there is no ``end``.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from upscale import __version__
from upscale.cli import console
from upscale.files import exists

if TYPE_CHECKING:
    from rich.progress import TaskID

    from upscale.batch.pipeline import Done, Ended
    from upscale.batch.plan import Job
    from upscale.errors import UpscaleError

SCHEMA = 1


class Report:
    """Tells the user of the pictures of a run as they end."""

    def __init__(self, total: int, *, json: bool, quiet: bool, verbose: bool, piped: bool = False) -> None:
        """``piped``: the result itself goes to standard output."""
        self.json, self.quiet, self.verbose, self.piped = json, quiet, verbose, piped
        self.done = 0
        self.skipped = 0
        self.kept = 0
        self.failed: list[tuple[str, str]] = []
        """Inputs and what was wrong with them."""
        self.earlier = 0
        """How many of those failed in an earlier run and were not tried again."""
        self.told = 0
        """How many of those an earlier attempt of ``torchrun`` told."""
        self.total = total
        self.bars = console.progress(quiet=quiet or json or piped)
        self._files = self.bars.add_task("pictures", total=total, unit="pictures", visible=total > 1)
        self._tiles: dict[Job, TaskID] = {}
        if json:
            console.event({"event": "start", "schema": SCHEMA, "version": __version__, "pictures": total})

    def on_tile(self, job: Job, done: int, total: int) -> None:
        """Show how far the picture of ``job`` is."""
        if job not in self._tiles:
            self._tiles[job] = self.bars.add_task(job.source.name, total=total, unit="tiles")
        self.bars.update(self._tiles[job], completed=done, total=total)  # of which there may be more for want of memory
        if self.json:
            console.event({"event": "tile", "input": str(job.source), "done": done, "total": total})

    def on_end(self, ended: Ended) -> None:
        """Show how a picture ended."""
        from upscale.batch.pipeline import Failed, Skipped

        job = ended.job
        if job in self._tiles:
            self.bars.remove_task(self._tiles.pop(job))
        if isinstance(ended, Failed):
            self.refuse(str(job.source), ended.error, earlier=ended.earlier)
            return
        self.bars.advance(self._files)
        if isinstance(ended, Skipped):
            self.skipped += 1
            self.kept += ended.kept
            if self.json:
                facts = {"output": str(job.output), "reason": ended.reason}
                console.event({"event": "skipped", "input": str(job.source), **facts})
            elif self.verbose or (self.total == 1 and not self.quiet):
                console.err.print(console.said(f"{job.output}: {ended.reason}"), markup=False)
        else:
            self.done += 1
            self._show(ended)

    def refuse(self, name: str, error: UpscaleError, *, earlier: bool = False, told: bool = False) -> None:
        """Show why nothing was made of the input ``name``.

        ``earlier``: it was shown in an earlier run; ``told``: in an earlier attempt of this one.
        """
        self.bars.advance(self._files)
        self.failed.append((console.said(name), console.said(error.message.removeprefix(f"{name}: "))))
        self.earlier += earlier
        self.told += told
        if told:
            return
        if self.json:
            facts = {"error": error.message, "hint": error.hint, "earlier": earlier}
            console.event({"event": "failed", "input": name, **facts})
        elif not earlier:
            console.error_line(error, name)

    def _show(self, ended: Done) -> None:
        job, result, (height, width) = ended.job, ended.result, ended.size
        notices = list(ended.notices)
        if result is not None and result.float32_tiles:
            notices.append(f"{result.float32_tiles} of {result.tiles} tiles overflowed and were done in float32")
        if result is not None and result.shrunk:
            notices.append(f"memory ran out; from there on in tiles of {result.tile_size}")
        if self.json:
            facts = {
                "seconds": 0 if result is None else round(result.seconds, 3),
                "width": width,
                "height": height,
                "tiles": 0 if result is None else result.tiles,
                "tile_size": 0 if result is None else result.tile_size,
                "float32_tiles": 0 if result is None else result.float32_tiles,
                "notices": notices,
            }
            console.event({"event": "done", "input": str(job.source), "output": str(job.output), **facts})
            return
        if not self.quiet:
            for text in notices:
                console.notice(f"{job.source}: {text}")
        if not (self.quiet or self.piped):
            # Where both are a terminal, only what the bars print themselves comes above them.
            if console.out.is_terminal and not self.bars.disable:
                console.err.print(str(job.output), markup=False)
            else:
                console.line(str(job.output))
        if self.verbose and result is not None:
            console.err.print(
                f"  {width}x{height}, {console.counted(result.tiles, 'tile')} of {result.tile_size},"
                f" {result.seconds:.1f} s",
                markup=False,
            )

    @property
    def has_news(self) -> bool:
        """Whether a picture was done or failed in this run."""
        return self.done > 0 or len(self.failed) > self.earlier + self.told

    def summary(self) -> None:
        """Show how many pictures ended how, and which failed."""
        if self.json:
            counts = {"done": self.done, "skipped": self.skipped, "failed": len(self.failed)}
            console.event({"event": "end", **counts})
            return
        if (self.total > 1 or self.earlier) and (self.failed or self.skipped) and not (self.quiet and not self.failed):
            skipped = f"{self.skipped} skipped, " if self.skipped else ""
            console.err.print(f"{self.done} done, {skipped}{len(self.failed)} failed", style="bold")
        if self.failed and (self.total > 1 or self.earlier) and not self.quiet:  # then each stands alone already
            width = max(len(name) for name, _ in self.failed)
            for name, reason in self.failed:
                console.err.print(f"  {name:<{width}}  {reason}", markup=False)
        if self.kept and not self.quiet:
            console.notice(
                f"results that were changed since they were made are left: {self.kept}; --force replaces them"
            )
        if self.earlier:
            console.err.print("--retry-failed tries those again that failed in an earlier run", style="bold")


def show_plan(
    jobs: Sequence[Job], sizes: Sequence[tuple[int, int] | None], pace: float | None, *, force: bool, json: bool
) -> None:
    """Print what would be done: ``sizes`` are height and width of the results, ``pace`` seconds a megapixel."""
    from upscale.images import format_of

    total_bytes, total_pixels, memory = 0, 0, 0
    for job, size in zip(jobs, sizes, strict=True):
        pixels = 0 if size is None else size[0] * size[1]
        estimate = round(pixels * format_of(job.output).bytes_per_pixel)
        total_bytes += estimate
        total_pixels += pixels
        memory = max(memory, _memory(job, pixels))
        if json:
            facts = {
                "input": str(job.source),
                "output": str(job.output),
                "height": None if size is None else size[0],
                "width": None if size is None else size[1],
                "bytes": None if size is None else estimate,
                "seconds": None if pace is None else round(pace * pixels / 1e6, 1),
            }
            console.event({"event": "plan", **facts})
        else:
            there = "?" if job.size is None else f"{job.size[1]}x{job.size[0]}"
            then = "?" if size is None else f"{size[1]}x{size[0]}"
            console.line(f"{job.source} {there} -> {job.output} {then}")
    if not json:
        time = "" if pace is None else f", about {pace * total_pixels / 1e6:.0f} s"
        console.err.print(
            f"{console.counted(len(jobs), 'picture')}, {total_pixels / 1e6:.1f} megapixels{time}, about"
            f" {total_bytes / 1e6:.0f} MB of disk"
            f" and {memory / 1e6:.0f} MB of memory beside the network's",
            markup=False,
        )
        if there_already := sum(exists(job.output) for job in jobs):
            what = (
                "they would be replaced"
                if force
                else "of those, only what changed since or has other settings would be done again"
            )
            console.notice(f"{there_already} of the results are there already; {what}")
        places = (folder for job in jobs for folder in job.output.absolute().parents)
        folder = next((folder for folder in places if folder.exists()), Path())
        free = shutil.disk_usage(folder).free
        if free < total_bytes:
            console.notice(f"{folder}: the disk has {free / 1e6:.0f} MB left, less than that")


def _memory(job: Job, pixels: int) -> int:
    """Estimate the bytes that ``job`` takes beside the network, with a result of ``pixels`` of 8 bits."""
    from upscale.images import LARGE, format_of, takes_bands

    if 3 * pixels > LARGE and takes_bands(format_of(job.output)):
        return 3 * prod(job.size or (0, 0)) + 2 * LARGE  # a strip of tiles, and the one before
    return 3 * pixels * _IN_FLIGHT


_IN_FLIGHT = 4  # results that may be in memory at once: one being made, two being written, one on its way
