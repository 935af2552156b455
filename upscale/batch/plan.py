"""Inputs -> jobs: which file becomes which; every clash and limit is found before any work."""

from __future__ import annotations

import difflib
import glob
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from string import Formatter
from typing import NamedTuple, TypeVar

from upscale.batch.journal import Entry, Journal, Source
from upscale.catalog import CHECKPOINT_SUFFIXES
from upscale.errors import InputError, OutputExists, UnsupportedFormat, UsageError
from upscale.files import exists, resolved
from upscale.images import FORMATS, check_size, format_of, pictures_in, read_header
from upscale.images.formats import READ_ONLY, SUFFIXES
from upscale.options import Target

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One picture to be enlarged."""

    source: Path
    output: Path
    root: Path | None = None
    """The folder of results, which has a journal; None: the result lies beside its source or is a file of its own."""
    size: tuple[int, int] | None = None
    """Height and width of the source by its header; None: it cannot be told, which its turn will explain."""

    def result_size(self, target: Target) -> tuple[int, int] | None:
        """Return height and width of the result, None where they cannot be told.

        Raises:
            InputError: it is too much to enlarge; one of a folder does not keep the others, its turn will tell.
        """
        try:
            return None if self.size is None else target.size(*self.size)
        except InputError:
            if self.root is None:
                raise
            return None


class Refused(NamedTuple):
    """An input of which no picture can be made, and why."""

    name: str
    error: InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How results are called."""

    template: str | None = None
    """With the fields of ``FIELDS``; None: the source's name, with the factor where results lie beside sources."""
    suffix: str | None = None
    """Such as ``.png``; None: the source's."""
    model: str = ""

    FIELDS = ("stem", "scale", "ext", "model", "width", "height")

    def __post_init__(self) -> None:
        if self.suffix is not None and self.suffix not in SUFFIXES:
            names = " ".join(row.suffixes[0][1:] for row in FORMATS)
            raise UsageError(f"--format {self.suffix[1:]}: cannot be written", f"supported are {names}")
        if self.template is not None:
            try:
                unknown = {field for _, field, _, _ in Formatter().parse(self.template)} - {None, *self.FIELDS}
                if unknown:
                    raise ValueError(f"no field {{{min(map(str, unknown))}}}")
                name = self._fill(self.template, dict.fromkeys(self.FIELDS, "x"))
            except (KeyError, IndexError, ValueError, AttributeError) as error:
                fields = " ".join(f"{{{field}}}" for field in self.FIELDS)
                raise UsageError(f"--name {self.template!r}: {error}", f"its fields are {fields}") from error
            if Path(name).name != name or name in (".", ".."):
                raise UsageError(f"--name {self.template!r}: is a path", "name the folder with --output")

    def name(self, job: Job, target: Target, default: str) -> str:
        """Return the name of the result of ``job``, by ``default`` if the user gave no template."""
        height, width = job.result_size(target) or (0, 0)
        ext = self.suffix_of(job.source)
        network = Path(self.model)
        called = network.stem if network.suffix in CHECKPOINT_SUFFIXES else network.name
        values = {
            "stem": job.source.stem,
            "scale": str(target).removeprefix("x"),
            "ext": ext,
            "model": re.sub(r"[^\w.+-]+", "-", called),
            "width": str(width),
            "height": str(height),
        }
        name = self._fill(self.template or default, values)
        return name if Path(name).suffix.lower() in SUFFIXES else name + ext

    def suffix_of(self, source: Path) -> str:
        """Return the suffix of the result of ``source``."""
        if self.suffix is not None:
            return self.suffix
        return source.suffix if source.suffix.lower() in SUFFIXES else ".png"

    @staticmethod
    def _fill(template: str, values: Mapping[str, str]) -> str:
        return template.format(**values)


def plan(
    inputs: Sequence[str],
    output: Path | None,
    target: Target,
    naming: Naming,
    *,
    recursive: bool = True,
    force: bool = False,
    refused: list[Refused] | None = None,
) -> list[Job]:
    """Say which file each picture becomes.

    ``inputs`` are files, folders (``recursive``: with their subfolders) and glob patterns. ``output`` is a file for a
    single picture, otherwise a folder; without it results lie beside their sources with the factor in their names:
    ``photo_x4.jpg``, and ``dir_x4/`` with the tree and the names of ``dir/``; ``a.tga`` beside ``a.png`` becomes
    ``a.tga.png``. Inputs that cannot be enlarged go to ``refused``, so that they do not keep the others; without it,
    or if it is the only one, it is raised.

    Raises:
        UsageError: an empty input, or a format that is not that of ``output``.
        InputError: an input that is not there or a pipe, a folder without pictures, or one that cannot be written to.
        UnsupportedFormat: a suffix that cannot be written, or a result too large for its format, unless in a folder.
        OutputExists: two sources for one file, a source that would be replaced, or, without ``force``, an existing file
            that is not the result of an earlier run for this source.
    """
    paths = [path for pattern in inputs for path in _tried(pattern, partial(_expand, pattern), refused)]
    if output is not None and not output.is_dir() and output.suffix.lower() in SUFFIXES:
        if len(paths) + len(refused or ()) > 1 or any(path.is_dir() for path in paths):
            raise InputError(f"{output}: is one file, but there are several pictures", "name a folder with --output")
        if naming.suffix is not None and SUFFIXES[naming.suffix] is not SUFFIXES[output.suffix.lower()]:
            raise UsageError(
                f"--format {naming.suffix[1:]}: --output names a {output.suffix} file", "leave one of them out"
            )
        jobs = [Job(source=path, output=output, size=_size(path)) for path in paths]
    else:
        single = len(paths) + len(refused or ()) == 1 and not any(path.is_dir() for path in paths)
        if output is not None and not exists(output) and single:
            _check_slip(output)
        jobs = [
            job
            for path in paths
            for job in _tried(str(path), partial(_jobs, path, output, target, naming, recursive), refused)
        ]
        jobs = list({(_place(job.source), _place(job.output)): job for job in jobs}.values())  # named twice
    jobs = [job for one in jobs for job in _tried(str(one.source), partial(_fitting, one, target), refused)]
    if refused and len(refused) == 1 and not jobs:
        raise refused[0].error
    _check_clashes(jobs)
    if not force:
        _check_existing(jobs)
    for folder in dict.fromkeys(job.output.parent for job in jobs if job.root is not None):
        _check_writable(folder)
    return jobs


def _tried(name: str, step: Callable[[], Iterable[T]], refused: list[Refused] | None) -> list[T]:
    """Return what ``step`` gives for the input ``name``; nothing, and a note in ``refused``, if it cannot be used."""
    try:
        return list(step())
    except (InputError, OSError) as error:  # of the system: a name that is too long
        said = error if isinstance(error, InputError) else InputError(f"{name}: {error.strerror or error}")
        if refused is None:
            raise said from error
        refused.append(Refused(name, said))
        return []


def _check_slip(output: Path) -> None:
    """Raise UnsupportedFormat for what would be a folder, but seems to be meant as a file."""
    near = difflib.get_close_matches(output.suffix.lower(), SUFFIXES, n=1, cutoff=0.7)
    if near or output.suffix.lower() in READ_ONLY:
        hint = f"did you mean {near[0]}, or" if near else f"supported are {' '.join(SUFFIXES)};"
        raise UnsupportedFormat(f"{output}: cannot write {output.suffix}", f"{hint} a folder? make it first")


def _expand(pattern: str) -> list[Path]:
    if not pattern:
        raise UsageError("an input is empty", "a variable of the shell without a value?")
    path = Path(pattern)
    if path.is_file() or path.is_dir():
        return [path]
    if path.exists():
        raise InputError(f"{path}: is a pipe or a device, not a file", "give its content to `upscale - -o FILE`")
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  (Path.glob takes no absolute patterns)
    if not matches:
        raise InputError(f"{pattern}: no such file or folder")
    return [Path(match) for match in matches]


def _jobs(path: Path, output: Path | None, target: Target, naming: Naming, recursive: bool) -> Iterator[Job]:
    if path.is_dir():
        whole = path.resolve()
        root = output or whole.with_name(f"{whole.name}_{target}")
        sources = pictures_in(path, recursive=recursive, leaving=[root])
        if not sources:
            raise InputError(f"{path}: no pictures in it", f"pictures are {' '.join(SUFFIXES)} and a few more")
        jobs = [
            _job(source, (root / source.relative_to(path)).parent, root, target, naming, "{stem}{ext}")
            for source in sources
        ]
        yield from jobs if naming.template else _told_apart(jobs)
    elif output is not None:
        yield _job(path, output, output, target, naming, "{stem}{ext}")
    else:
        yield _job(path, path.parent, None, target, naming, f"{{stem}}_{target}{{ext}}")


def _told_apart(jobs: Sequence[Job]) -> Iterator[Job]:
    """Yield ``jobs``, of those with one output the ones that change their format as ``a.tga.png``."""
    count = Counter(job.output for job in jobs)
    for job in jobs:
        if count[job.output] > 1 and job.output.suffix.lower() != job.source.suffix.lower():
            job = replace(job, output=job.output.with_name(job.source.name + job.output.suffix))
        yield job


def _job(source: Path, folder: Path, root: Path | None, target: Target, naming: Naming, default: str) -> Job:
    job = Job(source=source, output=folder, root=root, size=_size(source))
    return Job(source=source, output=folder / naming.name(job, target, default), root=root, size=job.size)


def _size(source: Path) -> tuple[int, int] | None:
    header = read_header(source)
    return None if header is None else (header.height, header.width)


def _fitting(job: Job, target: Target) -> list[Job]:
    """Return ``job`` if its result fits into its format and can be written; of one of a folder, its turn will tell."""
    row = format_of(job.output)
    if job.root is None:
        _check_writable(job.output.parent)
        if job.size is not None:
            check_size(str(job.output), row, *target.size(*job.size))
    return [job]


def _check_clashes(jobs: Sequence[Job]) -> None:
    sources = {_place(job.source) for job in jobs}
    seen: dict[str, Path] = {}
    for job in jobs:
        output = _place(job.output)
        if output in seen:
            raise OutputExists(
                f"{job.output}: both {seen[output]} and {job.source} would become this file",
                "give them to two runs with different --output",
            )
        if output in sources:
            raise OutputExists(f"{job.output}: is an input; it will not be replaced", "name another --output")
        seen[output] = job.source


def _place(path: Path) -> str:
    """Return what is the same for two names of one file."""
    name = str(resolved(path))
    return unicodedata.normalize("NFC", name).casefold() if sys.platform in ("darwin", "win32") else name


def _check_existing(jobs: Sequence[Job]) -> None:
    existing = [job for job in jobs if exists(job.output)]
    # Looked for first, read about then: another run may be at work, and it notes a file before it writes it.
    read = {root: Journal(root) for root in {job.root for job in existing} if root is not None}
    for journal in read.values():
        journal.refresh()
    sources = {_place(job.source) for job in jobs}  # those get results of their own now, perhaps by other names
    foreign = []
    for job in existing:
        entry = None if job.root is None else read[job.root].find(job.output)
        if entry is None:
            foreign.append(f"{job.output}: exists already")
        elif _place(Path(entry.source)) not in sources and _is_of_another(entry, job):
            foreign.append(f"{job.output}: exists already, made from {entry.source}")
    if foreign:
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        raise OutputExists(foreign[0] + more, "--force replaces it, --output names another")


def _is_of_another(entry: Entry, job: Job) -> bool:
    """Tell whether a result is that of another picture, which is still there: not of one that was moved or copied."""
    other = Path(entry.source)
    if not (exists(other) and exists(job.source)):
        return False
    return not Source.of(job.source).is_that_of(entry)


def _check_writable(folder: Path) -> None:
    there = next(parent for parent in (folder, *folder.absolute().parents) if exists(parent))
    if not there.is_dir():
        raise InputError(f"{folder}: cannot be made, {there} is a file", "name another --output")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{there}: no permission to write into this folder", "name another --output")
