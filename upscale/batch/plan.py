"""Inputs -> jobs: which file becomes which; every clash and limit is found before any work."""

from __future__ import annotations

import difflib
import glob
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter
from typing import NamedTuple

from upscale.batch.journal import Entry, Journal, Source
from upscale.catalog import CHECKPOINT_SUFFIXES
from upscale.errors import InputError, OutputExists, UpscaleError, UsageError
from upscale.files import exists, resolved
from upscale.images import FORMATS, check_size, format_of, pictures_in, read_size
from upscale.images.formats import READ_ONLY, SUFFIXES, ImageFormat
from upscale.options import Target


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
    """An input of which no result can be made, and why."""

    name: str
    error: UpscaleError


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
                name = self.template.format(**dict.fromkeys(self.FIELDS, "x"))
            except (KeyError, IndexError, ValueError, AttributeError) as error:
                fields = " ".join(f"{{{field}}}" for field in self.FIELDS)
                raise UsageError(f"--name {self.template!r}: {error}", f"its fields are {fields}") from error
            if Path(name).name != name or name in (".", ".."):
                raise UsageError(f"--name {self.template!r}: is a path", "name the folder with --output")
            if self.suffix is not None and _format(self.template) not in (None, SUFFIXES[self.suffix]):
                raise UsageError(
                    f"--format {self.suffix[1:]}: --name {self.template!r} is that of another format",
                    "leave one of them out, or end the name with {ext}",
                )

    def name(self, job: Job, target: Target, *, whole: bool = False) -> str:
        """Return the name of the result of ``job``; ``whole``: with the whole name of its source for ``{stem}``."""
        height, width = job.result_size(target) or (0, 0)
        ext = self.suffix_of(job.source)
        network = Path(self.model)
        called = network.stem if network.suffix in CHECKPOINT_SUFFIXES else network.name
        values = {
            "stem": job.source.name if whole else job.source.stem,
            "scale": str(target).removeprefix("x"),
            "ext": ext,
            "model": re.sub(r"[^\w.+-]+", "-", called),
            "width": str(width),
            "height": str(height),
        }
        template = self.template or (f"{{stem}}_{target}{{ext}}" if job.root is None else "{stem}{ext}")
        ends = template.endswith("{ext}") or _format(template) is not None
        return (template if ends else template + "{ext}").format(**values)

    def suffix_of(self, source: Path) -> str:
        """Return the suffix of the result of ``source``."""
        if self.suffix is not None:
            return self.suffix
        return source.suffix if source.suffix.lower() in SUFFIXES else ".png"


def _format(template: str) -> ImageFormat | None:
    """Return the format that the end of ``template`` names itself, whatever its fields are filled with."""
    return SUFFIXES.get(Path(template).suffix.lower())


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
    ``photo_x4.jpg``, and ``dir_x4/`` with the tree and the names of ``dir/``. Of two results of one name, the one that
    changes its format gives way: ``a.tga`` beside ``a.png`` becomes ``a.tga.png``. Inputs that cannot be enlarged, or
    written where they should, go to ``refused``, so that they do not keep the others; without it, the first is raised.

    Raises:
        UsageError: an empty input, or an ``output`` that cannot be written, or of another format than asked for.
        InputError: an input that is not there or a pipe, a folder without pictures, or one that cannot be written to.
        UnsupportedFormat: a suffix that cannot be written, or a result too large for its format, unless in a folder.
        OutputExists: two sources for one file, a source that would be replaced, or, without ``force``, an existing file
            that is not the result of an earlier run for this source.
    """
    paths: list[Path] = []
    for pattern in inputs:
        with _refusing(pattern, refused):
            paths += _expand(pattern)
    several = len(paths) + len(refused or ()) > 1 or any(path.is_dir() for path in paths)
    jobs: list[Job] = []
    if output is not None and not output.is_dir() and output.suffix.lower() in SUFFIXES:
        if several:
            raise InputError(f"{output}: is one file, but there are several pictures", "name a folder with --output")
        if naming.suffix is not None and SUFFIXES[naming.suffix] is not SUFFIXES[output.suffix.lower()]:
            raise UsageError(
                f"--format {naming.suffix[1:]}: --output names a {output.suffix} file", "leave one of them out"
            )
        jobs += (Job(source=path, output=output, size=read_size(path)) for path in paths)
    else:
        if output is not None and not exists(output) and not several:
            _check_slip(output)
        for path in paths:
            with _refusing(str(path), refused):
                jobs += _jobs(path, output, target, naming, recursive)
        jobs = list({(_place(job.source), _place(job.output)): job for job in jobs}.values())  # named twice
        jobs = _told_apart(jobs, target, naming)
    wrong = ({} if force else _foreign(jobs)) | _clashing(jobs)
    good = []
    for job in jobs:
        with _refusing(str(job.source), refused):
            if job in wrong:
                raise wrong[job]
            _check_fit(job, target)
            good.append(job)
    for folder in dict.fromkeys(job.output.parent for job in good if job.root is not None):
        _check_writable(folder)
    return good


@contextmanager
def _refusing(name: str, refused: list[Refused] | None) -> Iterator[None]:
    """Note in ``refused`` why the input ``name`` cannot be used; without it, raise that."""
    try:
        yield
    except (InputError, OSError) as error:  # of the system: a name that is too long
        said = error if isinstance(error, InputError) else InputError(f"{name}: {error.strerror or error}")
        if refused is None:
            raise said from error
        refused.append(Refused(name, said))


def _check_slip(output: Path) -> None:
    """Raise UsageError for what would be a folder, but seems to be meant as a file."""
    near = difflib.get_close_matches(output.suffix.lower(), SUFFIXES, n=1, cutoff=0.7)
    if near or output.suffix.lower() in READ_ONLY or re.fullmatch(r"\.[a-z]{2,4}", output.suffix.lower()):
        hint = f"did you mean {near[0]}, or" if near else f"supported are {' '.join(SUFFIXES)};"
        raise UsageError(f"{output}: cannot write {output.suffix}", f"{hint} a folder? make it first")


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
        root = output or _beside(path, target)
        sources = pictures_in(path, recursive=recursive, leaving=[root])
        if resolved(path).is_relative_to(resolved(root)):  # what earlier runs made there is no picture to enlarge
            journal = Journal.read(resolved(root))
            sources = [source for source in sources if not journal.made(resolved(source.parent) / source.name)]
        if not sources:
            raise InputError(f"{path}: no pictures in it", f"pictures are {' '.join(SUFFIXES)} and a few more")
        for source in sources:
            yield _job(source, (root / source.relative_to(path)).parent, root, target, naming)
    elif output is not None:
        yield _job(path, output, output, target, naming)
    else:
        yield _job(path, path.parent, None, target, naming)


def _beside(folder: Path, target: Target) -> Path:
    """Return the folder of the results of ``folder``, beside it: of a link, beside the link."""
    named = folder.resolve() if folder.name in ("", "..") else folder
    if not named.name:
        raise InputError(f"{folder}: has no folder beside it for the results", "name one with --output")
    return named.with_name(f"{named.name}_{target}")


def _told_apart(jobs: Sequence[Job], target: Target, naming: Naming) -> list[Job]:
    """Return ``jobs``, of those with one output the ones that change their format as ``a.tga.png``."""
    count = Counter(_place(job.output) for job in jobs)
    apart = []
    for job in jobs:
        if count[_place(job.output)] > 1 and job.output.suffix.lower() != job.source.suffix.lower():
            job = replace(job, output=job.output.with_name(naming.name(job, target, whole=True)))
        apart.append(job)
    return apart


def _job(source: Path, folder: Path, root: Path | None, target: Target, naming: Naming) -> Job:
    job = Job(source=source, output=folder, root=root, size=read_size(source))
    return replace(job, output=folder / naming.name(job, target))


def _check_fit(job: Job, target: Target) -> None:
    """Raise if the result of ``job`` does not fit into its format or its place; of one of a folder, its turn will."""
    row = format_of(job.output)
    if job.root is None:
        _check_writable(job.output.parent)
        if job.size is not None:
            check_size(str(job.output), row, *target.size(*job.size))


def _clashing(jobs: Sequence[Job]) -> dict[Job, OutputExists]:
    """Return what is wrong with those of ``jobs`` that would replace a source, or the result of another one."""
    sources = {_place(job.source) for job in jobs}
    claims: dict[str, list[Job]] = {}
    for job in jobs:
        claims.setdefault(_place(job.output), []).append(job)
    wrong = {}
    for output, sharing in claims.items():
        for job in sharing:
            if output in sources:
                wrong[job] = OutputExists(
                    f"{job.output}: is an input; it will not be replaced", "name another --output"
                )
            elif len(sharing) > 1:
                other = next(other for other in sharing if other is not job)
                wrong[job] = OutputExists(
                    f"{job.source}: would become {job.output}, and so would {other.source}",
                    "give them to two runs with different --output",
                )
    return wrong


def _place(path: Path) -> str:
    """Return what is the same for two names of one file."""
    name = str(resolved(path))
    return unicodedata.normalize("NFC", name).casefold() if sys.platform in ("darwin", "win32") else name


def _foreign(jobs: Sequence[Job]) -> dict[Job, OutputExists]:
    """Return what is wrong with those of ``jobs`` whose output is there, and of another source or of no run at all."""
    existing = [job for job in jobs if exists(job.output)]
    # Looked for first, read about then: another run may be at work, and it notes a file before it writes it.
    read = {root: Journal.read(root) for root in {job.root for job in existing} if root is not None}
    sources = {_place(job.source) for job in jobs}  # those get results of their own now, perhaps by other names
    wrong = {}
    for job in existing:
        entry = None if job.root is None else read[job.root].find(job.output)
        if entry is None:
            said = f"{job.output}: exists already"
        elif _place(Path(entry.source)) not in sources and _is_of_another(entry, job):
            said = f"{job.output}: exists already, made from {entry.source}"
        else:
            continue
        wrong[job] = OutputExists(said, "--force replaces it, --output names another")
    return wrong


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
