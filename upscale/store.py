"""Where weights lie on disk, how they get there, and whether they are what the catalogue says."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

from upscale.catalog import (
    CHECKPOINT_SUFFIXES,
    OPENMODELDB,
    Catalog,
    WeightsEntry,
    from_toml,
    known,
    own,
    read_tables,
    to_toml,
    write_user,
)
from upscale.config import did_you_mean
from upscale.errors import ChecksumMismatch, DownloadFailed, UnknownWeights, WeightsError
from upscale.files import replacing, said_of

if TYPE_CHECKING:
    from upscale.download import OnBytes

_ROWS = "weights.toml"  # in a bundle: of networks that no catalogue shipped
_LOOK = "open it in a browser, to see why"
INDEX = "https://openmodeldb.info/api/v1/models.json"
"""All networks of OpenModelDB: name -> record with ``license``, ``scale`` and ``resources``."""


def locate(entry: WeightsEntry, *, offline: bool = False, on_bytes: OnBytes | None = None) -> Path | None:
    """Return the checkpoint of ``entry``, verified, and fetched before if need be; None for a network without weights.

    What comes from a URL that is in no catalogue is pinned: its sha256 goes into the user's own.

    Raises:
        WeightsError: the file is not there.
        DownloadFailed: it cannot be had.
        ChecksumMismatch: the file is not the one that the catalogue describes.
    """
    entry = resolve(entry, offline=offline)
    if entry.path is None and not entry.url:
        return None
    path = place(entry)
    if path is not None and path.is_file() and (entry.sha256 or entry.file):
        _verify(path, entry)
        return path
    if path is None or not entry.url:
        raise WeightsError(f"{path}: the weights of {entry.name} are missing", _way_out(entry))
    if not path.is_file():  # it is, unpinned, where a process died, or pins it just now
        _check_online(entry, offline)
    from upscale.download import download, lock  # its HTTP client takes longer to import than weights to find

    with lock(path):
        pinned = resolve(entry)
        if pinned != entry:  # by the process that held the lock
            return locate(pinned, offline=offline, on_bytes=on_bytes)
        download(entry.url, path, sha256=entry.sha256, size=entry.bytes, on_bytes=on_bytes)
        return path if entry.sha256 else _pin(entry, path)


def resolve(entry: WeightsEntry, *, offline: bool = False) -> WeightsEntry:
    """Return ``entry``, or what was pinned of it, or what the index of OpenModelDB says: address, sha256 and licence.

    From then on it is an entry of the user's own catalogue, so that a later change of the index is of no effect.

    Raises:
        UnknownWeights: it is not in the index, or not as a file for PyTorch.
        DownloadFailed: the index cannot be had.
    """
    if entry.url and entry.sha256 is None:
        known.cache_clear()  # it may have been fetched since, by another process, too
        return next((one for one in known().entries.values() if one.sha256 and entry.url[0] in one.url), entry)
    if entry.url or not entry.name.startswith(OPENMODELDB):
        return entry
    if entry.name in known().entries:
        return known().entries[entry.name]
    _check_online(entry, offline)
    from upscale.download import download

    folder().mkdir(parents=True, exist_ok=True)
    # In a folder of its own, for a download leaves its lock beside the file, and its part where it is broken off.
    with tempfile.TemporaryDirectory(prefix=".openmodeldb-", dir=folder()) as passing:
        index = Path(passing) / "models.json"
        download([INDEX], index, sha256=None, size=None)
        try:
            found = _described(entry.name, json.loads(index.read_text(encoding="utf-8")))
        except (ValueError, TypeError, AttributeError) as error:
            raise DownloadFailed(
                f"{INDEX}: not the index that it was", "give the file's own address: -m https://..."
            ) from error
    if found.sha256 is not None:  # else the file itself is pinned when it is here
        add(found)
    return found


def _described(name: str, records: Mapping[str, Any]) -> WeightsEntry:
    identity = name.removeprefix(OPENMODELDB)
    if identity not in records:
        near = did_you_mean(identity, records)
        raise UnknownWeights(f"{name}: no such network at openmodeldb.info", near or "its pages show the names")
    record = records[identity]
    files = [r for r in record.get("resources", ()) if r.get("platform") == "pytorch" and r.get("urls")]
    if not files:
        raise UnknownWeights(f"{name}: openmodeldb.info has no file for PyTorch", "convert it, or choose another")
    file = files[0]
    # Addresses of pages, which some hosts show first, come after those of files.
    urls = sorted(file["urls"], key=lambda url: _suffix(url) not in CHECKPOINT_SUFFIXES)
    return WeightsEntry(
        name=name,
        summary=str(record.get("name", identity)),
        license=str(record.get("license") or "unknown"),
        scale=record.get("scale"),
        url=tuple(urls),
        sha256=file.get("sha256"),
        bytes=file.get("size"),
    )


def _check_online(entry: WeightsEntry, offline: bool) -> None:
    if offline or os.environ.get("UPSCALE_OFFLINE", "0") not in ("", "0"):
        what = entry.url[0] if entry.url and entry.sha256 is None else entry.name
        forbids = "--offline" if offline else "UPSCALE_OFFLINE"
        raise DownloadFailed(
            f"{what}: not on this machine, and {forbids} forbids to fetch it",
            f"fetch it where there is a network: `upscale models fetch {what}`, or bring a bundle",
        )


def state(entry: WeightsEntry) -> str:
    """Return "built in", "bundled", "here", "to fetch" or "missing"."""
    if not entry.url and entry.name.startswith(OPENMODELDB):
        return "to fetch"
    path = place(entry)
    if path is None:
        return "built in"
    if path.is_file():
        return "here" if entry.url or Path(entry.file or "").is_absolute() else "bundled"
    return "to fetch" if entry.url else "missing"


def in_state(catalog: Catalog, *states: str) -> list[str]:
    """Return the networks of ``catalog`` in one of ``states``, those of a family under its name."""
    there = [entry for entry in catalog.entries.values() if entry.generator and state(entry) in states]
    return list(dict.fromkeys(entry.family or entry.name for entry in there))


def hashes(model: str) -> tuple[str, ...]:
    """Return the sha256 of each file of ``model``, all of which are here; none for an interpolation."""
    paths = ((entry, locate(entry)) for entry in known().networks(model))
    return tuple(entry.sha256 or sha256(path) for entry, path in paths if path is not None)


def place(entry: WeightsEntry) -> Path | None:
    """Return where the checkpoint of ``entry`` lies or will lie, None for a network without weights."""
    if entry.path is not None:
        return entry.path
    return _own_place(entry) if entry.url else None


def _own_place(entry: WeightsEntry) -> Path:
    """Return where in the folder of weights the checkpoint of ``entry`` belongs."""
    origin = entry.url[0] if entry.url else str(entry.file)
    suffix = _suffix(origin)
    # A name alone may come from two places; the address tells them apart, and stays when the catalogue moves on.
    mark = entry.sha256 or hashlib.sha256(origin.encode(errors="surrogateescape")).hexdigest()
    # File systems take 255 bytes, those of the lock and the part beside it, too.
    name = re.sub(r"[^\w.-]+", "-", entry.name).encode()[:200].decode(errors="ignore")
    return folder() / f"{name}-{mark[:8]}{suffix if suffix in CHECKPOINT_SUFFIXES else '.pth'}"


def _suffix(address: str) -> str:
    """Return the suffix of a path or of the path in a URL, which may be one that cannot be parsed."""
    return Path(re.split(r"[?#]", address)[0]).suffix


def folder() -> Path:
    """Return the folder of fetched weights; the environment variable UPSCALE_HOME moves it."""
    home = os.environ.get("UPSCALE_HOME")
    return (Path(home).resolve() if home else user_cache_path("upscale")) / "weights"


def remove(entry: WeightsEntry) -> int:
    """Delete what was fetched or unbundled for ``entry``; return how many bytes that was."""
    path = place(entry)
    if path is None or path.parent != folder() or not path.is_file():
        return 0
    size = path.stat().st_size
    path.unlink()
    return size


def bundle(entries: Iterable[WeightsEntry], archive: Path) -> int:
    """Write the checkpoints of ``entries`` that came after the package into the zip ``archive``; return how many.

    Beside them goes what the user's own catalogue says of them.

    Raises:
        ChecksumMismatch: one is not what the catalogue says.
        WeightsError: none of them is here, or one is of two files.
        DiskFull: no room for it.
    """
    mine = own().entries
    resolved = {entry.name: entry for entry in map(resolve, entries)}.values()
    places = [(entry, place(entry)) for entry in resolved if entry.url or mine.get(entry.name) == entry]
    here = [(entry, path) for entry, path in places if path is not None and path.is_file()]
    if not here:
        raise WeightsError(
            "no network that was fetched or added is here",
            "name one that `upscale models list` shows, and it is fetched; the bundled ones are everywhere",
        )
    for entry, path in here:
        if path.with_suffix(".param").is_file():
            way = f"give the one of `upscale models export {entry.name} -o FILE.safetensors` a name"
            raise WeightsError(f"{entry.name}: is in two files, of ncnn; a bundle holds single ones", way)
    # Files of reproducible builds may be of 1970, and zip knows no time before 1980.
    with (
        said_of(archive),
        replacing(archive) as temporary,
        zipfile.ZipFile(temporary, "w", strict_timestamps=False) as file,
    ):
        for entry, path in here:
            _verify(path, entry)
            file.write(path, _own_place(entry).name)
        rows = {entry.name: _row(entry, _own_place(entry).name) for entry, _ in here if entry.name in mine}
        if rows:
            file.writestr(_ROWS, to_toml(rows))
    return len(here)


def unbundle(archive: Path, entries: Iterable[WeightsEntry]) -> list[str]:
    """Put the checkpoints in the zip ``archive`` into the folder of weights; return whose of ``entries`` they are.

    What its maker had in a catalogue of their own is put into the user's. Files elsewhere are left alone.

    Raises:
        ChecksumMismatch: one, or the file of it that is here, is not what the catalogue says.
        WeightsError: not such a file, nothing in it that a catalogue knows, or a network called like another one here.
        DiskFull: no room for one; those before it are in their places.
    """
    folder().mkdir(parents=True, exist_ok=True)
    found, rows = [], {}
    try:
        with zipfile.ZipFile(archive) as file:
            inside = {info.filename: info for info in file.infolist()}
            new = _new_entries(file.read(_ROWS), archive) if _ROWS in inside else []
            for entry in (*entries, *new):
                path = _own_place(entry)
                info = inside.get(path.name)
                if info is None or (entry.bytes or info.file_size) != info.file_size:
                    continue
                there = place(entry)
                if not entry.url and entry not in new and there is not None and there.is_file():
                    _verify(there, entry)
                else:
                    with said_of(path), replacing(path) as part:
                        with file.open(info) as source, part.open("wb") as target:
                            shutil.copyfileobj(source, target, 1 << 20)
                        _verify(part, entry)
                    if entry in new or not entry.url:
                        rows[entry.name] = _row(entry, str(path))
                found.append(entry.name)
    except FileNotFoundError as error:
        raise WeightsError(f"{archive}: no such file") from error
    # What zipfile raises where an archive is damaged, encrypted, or of a compression that it does not know.
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        told = str(error) or type(error).__name__
        raise WeightsError(f"{archive}: not a bundle ({told})", "make one with `upscale models bundle`") from error
    if not found:
        raise WeightsError(f"{archive}: no network in it that is known here", "make one with `upscale models bundle`")
    if rows:
        write_user(rows)
    return found


def _new_entries(text: bytes, archive: Path) -> list[WeightsEntry]:
    """Return the networks of the catalogue in a bundle that are not known here, without siblings that are not, either.

    They are not of a family that is: what its name means here does not change.

    Raises:
        WeightsError: one is called like another network here.
    """
    there, where = known().entries, f"{archive}/{_ROWS}"
    tables = read_tables(text.decode("utf-8", "replace"), where)
    for table in tables.values():
        if table.get("sibling") not in [*tables, *there]:
            table.pop("sibling", None)
        if table.get("family") in known().names:
            table.pop("family", None)
    found = from_toml(to_toml(tables), where, known()).entries.values()
    for entry in found:
        other = entry.name in known().names if entry.name not in there else there[entry.name].sha256 != entry.sha256
        if other:
            raise WeightsError(
                f"{archive}: another network is called {entry.name} here", f"`upscale models remove {entry.name}` first"
            )
    return [entry for entry in found if entry.name not in there]


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(path: Path, entry: WeightsEntry) -> None:
    if entry.sha256 is not None and (actual := sha256(path)) != entry.sha256:
        raise ChecksumMismatch(f"{path}: sha256 is {actual}, {entry.name} should have {entry.sha256}", _way_out(entry))


def _way_out(entry: WeightsEntry) -> str:
    """Return what to do where the file of ``entry`` is not there or not what it was."""
    if entry.url:
        return f"`upscale models remove {entry.name}` and fetch it again"
    if entry.name in own().entries:
        return f"put it back, or `upscale models remove {entry.name}` and add another"
    return "install the package again"


def _pin(entry: WeightsEntry, path: Path) -> Path:
    """Remember what ``entry``, a URL, gave on its first use, so that another file is refused from now on.

    Raises:
        DownloadFailed: no weights at all.
    """
    with path.open("rb") as file:
        start = file.read(9)
    if not (start.startswith((b"PK\3\4", b"\x80")) or start[8:] == b"{"):  # zip, pickle, safetensors
        path.unlink()
        raise DownloadFailed(f"{entry.url[0]}: gives a file that is not one of weights; it was removed", _LOOK)
    digest = sha256(path)
    known.cache_clear()  # others may have been pinned meanwhile
    name = f"{entry.name}-{digest[:8]}" if entry.name in known().names else entry.name
    pinned = replace(entry, name=name, sha256=digest, bytes=path.stat().st_size)
    target = place(pinned)
    assert target is not None  # it has an address
    path.replace(target)
    add(pinned)
    return target


def add(entry: WeightsEntry) -> None:
    """Put ``entry`` into the user's own catalogue."""
    write_user({entry.name: _row(entry, entry.file)})


def _row(entry: WeightsEntry, file: str | None) -> dict[str, Any]:
    """Return the table of ``entry`` in a weights.toml; where it is not fetched, it lies in ``file``."""
    row = {key: value for key, value in asdict(entry).items() if key != "name"}
    return row if entry.url else {**row, "file": file}


def forget(name: str) -> bool:
    """Take ``name`` out of the user's own catalogue; return whether it was there."""
    if name not in own().entries:
        return False
    write_user({name: None})
    return True
