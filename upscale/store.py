"""Where weights lie on disk, how they get there, and whether they are what the catalogue says."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import urlsplit

from platformdirs import user_cache_path

from upscale.catalog import CHECKPOINT_SUFFIXES, WeightsEntry, known, write_user
from upscale.download import OnBytes, download
from upscale.errors import ChecksumMismatch, DownloadFailed, UnknownWeights


def locate(entry: WeightsEntry, *, offline: bool = False, on_bytes: OnBytes | None = None) -> Path | None:
    """Return the checkpoint of ``entry``, verified, and fetched before if need be; None for a network without weights.

    What comes from a URL that is in no catalogue is pinned: its sha256 goes into the user's own.

    Raises:
        UnknownWeights: the file is not there.
        DownloadFailed: it cannot be had.
        ChecksumMismatch: the file is not the one that the catalogue describes.
    """
    if entry.path is None and not entry.url:
        return None
    path = place(entry)
    if path is not None and path.is_file():
        _verify(path, entry)
        return path
    if path is None or not entry.url:
        raise UnknownWeights(f"{path}: the weights of {entry.name} are missing", "install the package again")
    if offline or os.environ.get("UPSCALE_OFFLINE"):
        raise DownloadFailed(
            f"{entry.name}: not on this machine, and --offline forbids to fetch it",
            f"fetch it where there is a network: `upscale models fetch {entry.name}`, or bring a bundle",
        )
    download(entry.url, path, sha256=entry.sha256, size=entry.bytes, on_bytes=on_bytes)
    return path if entry.sha256 else _pin(entry, path)


def state(entry: WeightsEntry) -> str:
    """Return "built in", "bundled", "here", "to fetch" or "missing"."""
    path = place(entry)
    if path is None:
        return "built in"
    if path.is_file():
        return "here" if entry.url or Path(entry.file or "").is_absolute() else "bundled"
    return "to fetch" if entry.url else "missing"


def place(entry: WeightsEntry) -> Path | None:
    """Return where the checkpoint of ``entry`` lies or will lie, None for a network without weights."""
    if entry.path is not None:
        return entry.path
    if not entry.url:
        return None
    suffix = Path(urlsplit(entry.url[0]).path).suffix
    # A name alone may come from two places; the address tells them apart, and stays when the catalogue moves on.
    mark = entry.sha256 or hashlib.sha256(entry.url[0].encode()).hexdigest()
    return folder() / f"{entry.name}-{mark[:8]}{suffix if suffix in CHECKPOINT_SUFFIXES else '.pth'}"


def folder() -> Path:
    """Return the folder of fetched weights; the environment variable UPSCALE_HOME moves it."""
    home = os.environ.get("UPSCALE_HOME")
    return (Path(home) if home else user_cache_path("upscale")) / "weights"


def remove(entry: WeightsEntry) -> int:
    """Delete what was fetched for ``entry``; return how many bytes that was."""
    path = place(entry)
    if path is None or not entry.url or not path.is_file():
        return 0
    size = path.stat().st_size
    path.unlink()
    return size


def bundle(entries: Iterable[WeightsEntry], archive: Path) -> int:
    """Write the fetched checkpoints of ``entries`` into the zip ``archive``; return how many there are."""
    written = 0
    with zipfile.ZipFile(archive, "w") as file:
        for entry in entries:
            path = place(entry)
            if path is not None and entry.url and path.is_file():
                _verify(path, entry)
                file.write(path, path.name)
                written += 1
    return written


def unbundle(archive: Path, entries: Iterable[WeightsEntry]) -> list[str]:
    """Put the checkpoints in the zip ``archive`` where those of ``entries`` belong; return whose they were.

    Raises:
        ChecksumMismatch: one is not what the catalogue says.
        UnknownWeights: not such a file.
    """
    folder().mkdir(parents=True, exist_ok=True)
    found = []
    try:
        with zipfile.ZipFile(archive) as file:
            inside = {info.filename: info for info in file.infolist()}
            for entry in entries:
                path = place(entry)
                info = inside.get(path.name) if path is not None and entry.url else None
                if path is None or info is None or (entry.bytes or info.file_size) != info.file_size:
                    continue
                part = path.with_name(f".{path.name}.bundle")
                with file.open(info) as source, part.open("wb") as target:
                    while chunk := source.read(1 << 20):
                        target.write(chunk)
                try:
                    _verify(part, entry)
                    part.replace(path)
                finally:
                    part.unlink(missing_ok=True)
                found.append(entry.name)
    except (OSError, zipfile.BadZipFile) as error:
        raise UnknownWeights(f"{archive}: not a bundle ({error})", "make one with `upscale models bundle`") from error
    return found


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(path: Path, entry: WeightsEntry) -> None:
    if entry.sha256 is not None and (actual := sha256(path)) != entry.sha256:
        way_out = (
            f"`upscale models remove {entry.name}` and fetch it again" if entry.url else "install the package again"
        )
        raise ChecksumMismatch(f"{path}: sha256 is {actual}, {entry.name} should have {entry.sha256}", way_out)


def _pin(entry: WeightsEntry, path: Path) -> Path:
    """Remember what ``entry``, a URL, gave on its first use, so that another file is refused from now on."""
    digest = sha256(path)
    name = f"{entry.name}-{digest[:8]}" if entry.name in known().entries else entry.name
    pinned = replace(entry, name=name, sha256=digest, bytes=path.stat().st_size)
    target = path.with_name(f"{name}-{digest[:8]}{path.suffix}")
    path.replace(target)
    add(pinned)
    return target


def add(entry: WeightsEntry) -> None:
    """Put ``entry`` into the user's own catalogue."""
    write_user({entry.name: {key: value for key, value in asdict(entry).items() if key != "name"}})
