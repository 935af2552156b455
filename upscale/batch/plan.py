"""Inputs -> jobs: which file becomes which; every clash and limit is found before any work."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from upscale.errors import InputError, OutputExists, UnsupportedFormat
from upscale.images import FORMATS, is_picture
from upscale.images.formats import SUFFIXES


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to be enlarged."""

    source: Path
    output: Path


def plan(inputs: Sequence[str], output: Path | None, label: str, suffix: str | None, *, force: bool) -> list[Job]:
    """Say which file each picture becomes.

    ``inputs`` are files, folders (searched with their subfolders) and glob patterns. ``output`` is a file for a single
    picture, otherwise a folder; without it results lie beside their sources with ``label`` (``"x4"``) in their names:
    ``photo_x4.jpg``, and ``dir_x4/`` with the tree and the names of ``dir/``. ``suffix`` (``".png"``) asks for another
    format than the source's.

    Raises:
        InputError: an input that is not there, a folder without pictures, or a folder that cannot be written to.
        UnsupportedFormat: a suffix that cannot be written.
        OutputExists: two sources for one file, a source that would be replaced, or an existing file without ``force``.
    """
    if suffix is not None and suffix not in SUFFIXES:
        raise UnsupportedFormat(f"--format {suffix[1:]}: cannot be written", f"supported are {_format_names()}")
    paths = [path for pattern in inputs for path in _expand(pattern)]
    if output is not None and not output.is_dir() and output.suffix.lower() in SUFFIXES:
        if len(paths) != 1 or paths[0].is_dir():
            raise InputError(f"{output}: is one file, but there are several pictures", "name a folder with --output")
        jobs = [Job(paths[0], output)]
    else:
        jobs = [job for path in paths for job in _jobs(path, output, label, suffix)]
    _check_clashes(jobs, force=force)
    for folder in dict.fromkeys(job.output.parent for job in jobs):
        _check_writable(folder)
    return jobs


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.exists():
        return [path]
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  (Path.glob takes no absolute patterns)
    if not matches:
        raise InputError(f"{pattern}: no such file or folder")
    return [Path(match) for match in matches]


def _jobs(path: Path, output: Path | None, label: str, suffix: str | None) -> Iterator[Job]:
    if path.is_dir():
        whole = path.resolve()
        target = output or whole.with_name(f"{whole.name}_{label}")
        sources = list(_pictures(path, target))
        if not sources:
            raise InputError(f"{path}: no pictures in it", f"pictures are {' '.join(SUFFIXES)} and a few more")
        for source in sources:
            yield Job(source, (target / source.relative_to(path)).with_suffix(_suffix(source, suffix)))
    elif output is not None:
        yield Job(path, output / f"{path.stem}{_suffix(path, suffix)}")
    else:
        yield Job(path, path.with_name(f"{path.stem}_{label}{_suffix(path, suffix)}"))


def _pictures(folder: Path, target: Path) -> Iterator[Path]:
    """Yield the pictures below ``folder``, sorted, without hidden files and what an earlier run put into ``target``."""
    inside = target.resolve() if target.resolve() != folder.resolve() else None
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if is_picture(path) and path.is_file() and not hidden:
            if inside is None or inside not in path.resolve().parents:
                yield path


def _suffix(source: Path, suffix: str | None) -> str:
    if suffix is not None:
        return suffix
    return source.suffix if source.suffix.lower() in SUFFIXES else ".png"


def _check_clashes(jobs: Sequence[Job], *, force: bool) -> None:
    sources = {job.source.resolve() for job in jobs}
    seen: dict[Path, Path] = {}
    for job in jobs:
        output = job.output.resolve()
        if output in seen:
            raise OutputExists(
                f"{job.output}: both {seen[output]} and {job.source} would become this file",
                "give them to two runs with different --output",
            )
        if output in sources:
            raise OutputExists(f"{job.output}: is an input; it will not be replaced", "name another --output")
        seen[output] = job.source
    existing = [job.output for job in jobs if job.output.exists()]
    if existing and not force:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise OutputExists(f"{existing[0]}: exists already{more}", "--force replaces it, --output names another")


def _check_writable(folder: Path) -> None:
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise InputError(f"{folder}: cannot be made, {there} is a file", "name another --output")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{there}: no permission to write into this folder", "name another --output")


def _format_names() -> str:
    return " ".join(row.suffixes[0][1:] for row in FORMATS)
