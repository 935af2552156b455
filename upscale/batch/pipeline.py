"""Jobs -> files: each picture is read, enlarged and written, and its failure is its alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from upscale.batch.plan import Job
from upscale.engine import Upscaled, Upscaler
from upscale.errors import InputError, UpscaleError
from upscale.images import read_image, write_image
from upscale.options import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A picture that was written."""

    job: Job
    result: Upscaled
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A picture that could not be done, and why."""

    job: Job
    error: UpscaleError


class OnTile(Protocol):
    """Is told of every tile."""

    def __call__(self, job: Job, done: int, total: int) -> None:
        """Take note that ``done`` of the ``total`` tiles of ``job`` are finished."""


def run(
    jobs: Sequence[Job],
    upscaler: Upscaler,
    target: Target,
    *,
    quality: int | None,
    on_tile: OnTile,
    on_end: Callable[[Done | Failed], None],
) -> None:
    """Do ``jobs`` in their order; ``on_end`` is told of the end of each."""
    for job in jobs:
        try:
            ended: Done | Failed = _one(job, upscaler, target, quality, on_tile)
        except UpscaleError as error:
            ended = Failed(job=job, error=error)
        on_end(ended)


def _one(job: Job, upscaler: Upscaler, target: Target, quality: int | None, on_tile: OnTile) -> Done:
    image = read_image(job.source)
    result = upscaler.upscale(image, target, lambda done, total: on_tile(job, done, total))
    try:
        job.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{job.output.parent}: cannot be made: {error.strerror}", "name another --output") from error
    notices = image.notices + write_image(job.output, result.image, quality=quality)
    return Done(job=job, result=result, notices=notices)
