"""How a result is written: encoded, as rows that come, or as a copy of its source; each says what it could not hold."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from upscale.batch.plan import Job
from upscale.engine import Upscaled, Upscaler
from upscale.errors import InputError
from upscale.files import replacing
from upscale.images import Image, Metadata, Pixels, Provenance, format_of, write_bands, write_image
from upscale.inference import OnTile
from upscale.options import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What makes the results what they are; other settings make other results."""

    target: Target
    quality: int | None = None
    background: tuple[int, int, int] | None = None
    strip: bool = False
    """Keep no metadata but the profile."""
    provenance: Provenance | None = None
    """Noted in the results; None: nothing is."""
    skip_large: bool = False
    """Leave out pictures that have the size asked for; otherwise they are copied."""
    engine: str = ""
    """Model, weights and how they run, in words of no meaning here."""

    @property
    def key(self) -> str:
        """A short text that is the same for the same settings."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


Written = tuple[Upscaled | None, tuple[str, ...]]
"""How a result was made, None: it was copied, and what its format could not hold."""


def encode(job: Job, result: Upscaled, settings: Settings) -> Written:
    """Write what the network made."""
    return result, _write_image(job, _with_metadata(job, result.image, settings), settings)


def copy(job: Job, image: Image, settings: Settings) -> Written:
    """Write a picture that is large enough already, bit for bit where format and metadata stay."""
    said = ("is large enough already; copied",)
    if settings.strip or job.source.suffix.lower() not in format_of(job.output).suffixes:
        kept = _changed(image, Metadata.stripped) if settings.strip else image
        return None, said + _write_image(job, kept, settings)
    with replacing(job.output) as temporary:
        shutil.copyfile(job.source, temporary)
    return None, said


def stream(job: Job, image: Image, settings: Settings, upscaler: Upscaler, on_tile: OnTile) -> Written:
    """Enlarge ``image`` and write the rows as they come, so that a very large result is never whole in memory."""
    target = settings.target
    height, width = target.size(*image.pixels.shape[:2])
    notices: list[str] = []

    def write(bands: Iterator[Pixels]) -> None:
        notices.extend(write_bands(job.output, _with_metadata(job, image, settings), height, width, bands))

    return upscaler.write_rows(image, target, write, on_tile), tuple(notices)


def _write_image(job: Job, image: Image, settings: Settings) -> tuple[str, ...]:
    return write_image(job.output, image, quality=settings.quality, background=settings.background)


def _with_metadata(job: Job, image: Image, settings: Settings) -> Image:
    """Return ``image`` and its frames with the metadata that the settings ask for."""
    note = settings.provenance
    if settings.strip:
        return _changed(image, Metadata.stripped)
    if note is None or "xmp" not in format_of(job.output).holds:
        return image
    return _changed(image, lambda metadata: metadata.signed(note))


def _changed(image: Image, change: Callable[[Metadata], Metadata]) -> Image:
    """Return ``image`` with ``change`` made to the metadata of each of its frames."""
    frames = [replace(frame, metadata=change(frame.metadata), following=()) for frame in image.frames]
    return replace(frames[0], following=tuple(frames[1:]))


def make_folder(folder: Path) -> None:
    """Make the folder of a result and those above it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}", "name another --output") from error


def keep_time(job: Job) -> None:
    """Give the result the time of the source, by which people sort their pictures, if both can be had."""
    with suppress(OSError):  # a disk of another owner takes no times; the result is whole all the same
        stat = job.source.stat()
        os.utime(job.output, ns=(stat.st_atime_ns, stat.st_mtime_ns))
