"""What is done in a folder of results, from which source and with which settings; what failed and why.

The journal is ``.upscale/journal.jsonl`` in that folder: one JSON object per line, only ever appended to, the last line
about a file is the one that counts. A line that a killed process left half-written is skipped. Beside it lies the file
whose bytes are locked, one for each result in work: the locks of a process vanish with it, however it ends, so several
runs, also of several machines on one file system, can share a folder without doing a picture twice.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import statistics
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from upscale.files import ends_with_newline, exists, part_prefix, resolved

FOLDER = ".upscale"
_APPENDING = 0
"""The byte that is locked while a line is written: not every system appends whole lines of several processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the journal: what became of one result."""

    output: str
    """Relative to the folder of results."""
    status: Literal["begun", "done", "failed"]
    source: str
    """Absolute."""
    source_state: tuple[int, ...] = ()
    """Size, times of modification and change: while they are the same, the content is not read again."""
    source_sha256: str = ""
    settings: str = ""
    output_state: tuple[int, ...] = ()
    """Size and time of modification of the result."""
    seconds: float = 0.0
    """That the network took."""
    pixels: int = 0
    """Of the result."""
    notices: tuple[str, ...] = ()
    error: str = ""
    hint: str | None = None


class Journal:
    """The journal of one folder of results. Made when something is noted, not before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries: dict[str, Entry] = {}
        self._by_source: dict[str, Entry] = {}
        self._earlier: dict[str, Entry] = {}
        self._read = 0  # bytes
        self._files: tuple[int, int] | None = None  # the journal and the locks
        self._mutex = threading.Lock()

    @classmethod
    def read(cls, root: Path) -> Journal:
        """Return the journal of ``root`` as it is now."""
        journal = cls(root)
        journal.refresh()
        return journal

    def refresh(self) -> None:
        """Read what was noted since the last time, by whomever."""
        with self._mutex:
            try:
                with (self.root / FOLDER / "journal.jsonl").open("rb") as file:
                    file.seek(self._read)
                    data = file.read()
            except OSError:
                return
            whole = data[: data.rfind(b"\n") + 1]
            self._read += len(whole)
            for line in whole.splitlines():
                entry = _parse(line)
                if entry is not None:
                    self.entries[entry.output] = entry
                    self._by_source[entry.source] = entry

    def begin(self) -> None:
        """Read the journal; what is noted from now on is new."""
        self.refresh()
        self._earlier = dict(self.entries)

    def is_new(self, entry: Entry) -> bool:
        """Tell whether ``entry`` was noted since ``begin``."""
        return self._earlier.get(entry.output) is not entry

    def find(self, output: Path) -> Entry | None:
        """Return the last entry about ``output``."""
        return self.entries.get(self._key(output))

    def has_done(self, source: Path, output: Path) -> bool:
        """Tell whether ``output`` was done, or ``source`` as it is now, under any name, by what was noted last."""
        entry = self.find(output)
        if entry is not None and entry.status == "done":
            return True
        entry = self._by_source.get(_named(source))
        return entry is not None and entry.status == "done" and exists(source) and Source.of(source).is_that_of(entry)

    def made(self, output: Path) -> bool:
        """Tell whether ``output`` is as a run left it, so that another may replace it."""
        entry = self.find(output)
        return entry is not None and (entry.status == "begun" or entry.output_state == output_state(output))

    def claim(self, output: Path) -> bool:
        """Reserve ``output`` for this process, until ``release``; False: another one works on it."""
        _, locks = self._open()
        with self._mutex:  # where a lock lies where the file was last sought to
            return _lock(locks, self._position(output))

    def tidy(self, output: Path) -> None:
        """Remove what a killed process left of ``output``, which this one has claimed."""
        entry = self.find(output)
        if entry is not None and entry.status == "begun":
            for part in output.parent.glob(f"{glob.escape(part_prefix(output))}*"):
                part.unlink(missing_ok=True)

    def release(self, output: Path) -> None:
        """Give up the claim on ``output``."""
        _, locks = self._open()
        with self._mutex:
            _unlock(locks, self._position(output))

    def note(self, entry: Entry) -> None:
        """Append ``entry``; it is on its way to the disk when this returns."""
        journal, locks = self._open()
        line = json.dumps(asdict(entry), ensure_ascii=True).encode() + b"\n"
        with self._mutex:
            while not _lock(locks, _APPENDING):
                time.sleep(0.01)
            try:
                os.write(journal, line)
            finally:
                _unlock(locks, _APPENDING)

    def entry(self, output: Path, status: Literal["begun", "done", "failed"], source: Source, settings: str) -> Entry:
        """Return an entry to be noted; a result of earlier settings stays known until there is another."""
        before = self.find(output)
        return Entry(
            output=self._key(output),
            status=status,
            source=_named(source.path),
            source_state=source.state,
            source_sha256=source.hash(),
            settings=settings,
            output_state=() if before is None else before.output_state,
        )

    def pace(self) -> float | None:
        """Return the seconds that a megapixel of result took so far, None if nothing is done yet."""
        paces = [entry.seconds / entry.pixels * 1e6 for entry in self.entries.values() if entry.seconds]
        return statistics.median(paces) if paces else None

    def close(self) -> None:
        """Let go of files and claims."""
        if self._files is not None:
            for file in self._files:
                os.close(file)
            self._files = None

    def _key(self, output: Path) -> str:
        return output.relative_to(self.root).as_posix()

    def _position(self, output: Path) -> int:
        digest = hashlib.sha256(self._key(output).encode(errors="surrogateescape")).digest()
        return 1 + (int.from_bytes(digest[:4], "big") >> 2)  # of 31 bits: every system locks bytes of that position

    def _open(self) -> tuple[int, int]:
        with self._mutex:
            if self._files is None:
                folder = self.root / FOLDER
                folder.mkdir(parents=True, exist_ok=True)
                binary = getattr(os, "O_BINARY", 0)
                path = folder / "journal.jsonl"
                journal = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | binary, 0o644)
                if not ends_with_newline(path):  # a killed process began that line
                    os.write(journal, b"\n")
                locks = os.open(folder / "locks", os.O_RDWR | os.O_CREAT | binary, 0o644)
                self._files = journal, locks
            return self._files


@dataclass(slots=True)
class Source:
    """A source file, read for its hash only if it must be."""

    path: Path
    state: tuple[int, ...]
    sha256: str = ""

    @classmethod
    def of(cls, path: Path) -> Source:
        """Look at ``path``; raise OSError if it is not there."""
        stat = path.stat()
        return cls(path, (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))

    def is_that_of(self, entry: Entry) -> bool:
        """Tell whether the content is what ``entry`` was made from."""
        if self.state == entry.source_state:
            self.sha256 = entry.source_sha256
            return True
        return self.state[0] == entry.source_state[0] and self.hash() == entry.source_sha256

    def read(self) -> bytes:
        """Return the content, and keep its hash: a file may be replaced while it is worked on."""
        data = self.path.read_bytes()
        self.sha256 = hashlib.sha256(data).hexdigest()
        return data

    def hash(self) -> str:
        """Return the sha256 of the content, empty if it cannot be read, or no longer."""
        if not self.sha256:
            with suppress(OSError), self.path.open("rb") as file:
                self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return self.sha256


def output_state(path: Path) -> tuple[int, ...] | None:
    """Return what tells whether ``path`` was touched; None: it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_size, stat.st_mtime_ns)


def _named(source: Path) -> str:
    """Return what a source is noted as: its own name, in the folder that it is in, whatever that was called."""
    return str(resolved(source.parent) / source.name)


def _parse(line: bytes) -> Entry | None:
    try:
        fields = json.loads(line)
        for name in ("source_state", "output_state", "notices"):
            fields[name] = tuple(fields[name])
        return Entry(**fields)
    except (ValueError, TypeError, KeyError):
        return None


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int, position: int) -> bool:
        os.lseek(file, position, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file: int, position: int) -> None:
        os.lseek(file, position, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: int, position: int) -> bool:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, position)
        except (BlockingIOError, PermissionError):  # which of them, differs from system to system
            return False
        return True

    def _unlock(file: int, position: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, position)
