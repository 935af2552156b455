"""weights.toml -> Catalog of WeightsEntry: which pretrained networks there are, and what a model's name means."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from platformdirs import user_config_path

from upscale.config import did_you_mean, parse, toml_key, toml_lines
from upscale.errors import ConfigError, UnknownWeights, UsageError
from upscale.files import said_of, write_text

CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".param", ".bin")
DEFAULT_MODEL = "compact"
URLS = ("https://", "http://")
OPENMODELDB = "openmodeldb:"
"""Begins the names of networks that the index of openmodeldb.info describes."""
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsEntry:
    """One network: a table of weights.toml, or a file that the user named."""

    name: str
    summary: str
    license: str
    network: Mapping[str, Any] | None = None
    """Architecture and hyper-parameters; None: the checkpoint says it itself."""
    scale: int | None = None
    """None: any integer, of an interpolation; of a file that was not looked into, only that tells."""
    family: str | None = None
    """The name under which a user asks for networks that differ in scale only."""
    file: str | None = None
    """Path of the checkpoint, relative to the package; None: to be fetched, or a network without weights."""
    url: tuple[str, ...] = ()
    """Where to fetch the checkpoint, mirrors in order of preference."""
    sha256: str | None = None
    bytes: int | None = None
    speed: Literal["fast", "medium", "slow"] | None = None
    sibling: str | None = None
    """The like-built network that changes less, towards which ``--strength`` interpolates."""
    generator: bool = True
    """False for what only training needs."""

    @property
    def path(self) -> Path | None:
        """Where the checkpoint lies, None for one to be fetched and for a network without weights."""
        return None if self.file is None else _PACKAGE / self.file

    @property
    def commercial(self) -> bool:
        """Whether the licence allows commercial use, as far as its name tells."""
        return not re.search(r"(?<![A-Z0-9])NC(?![A-Z0-9])|NON-?COMMERCIAL", self.license.upper())


@dataclass(frozen=True, slots=True)
class BlendPart:
    """One network of a blend: its scales, if it is a family, and its share."""

    entries: tuple[WeightsEntry, ...]
    share: float = 1.0


Blend = tuple[BlendPart, ...]
"""Networks of one architecture whose weights are averaged."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every network of a weights.toml, in its order."""

    entries: Mapping[str, WeightsEntry]

    @property
    def names(self) -> list[str]:
        """All names that ``find`` knows: families first, then single networks."""
        families = dict.fromkeys(entry.family for entry in self.entries.values() if entry.family)
        return [*families, *self.entries]

    def find(self, model: str) -> list[WeightsEntry]:
        """Return the network called ``model``, those of the family, or that of the file, the URL or OpenModelDB's name.

        Raises:
            UnknownWeights: none of these.
        """
        if model in self.entries:
            return [self.entries[model]]
        family = [entry for entry in self.entries.values() if entry.family == model]
        if family:
            return family
        if model.startswith(URLS):
            known = [entry for entry in self.entries.values() if model in entry.url]
            return known[:1] or [_unpinned(model)]
        if model.startswith(OPENMODELDB):
            return [WeightsEntry(name=model, summary="in the index of openmodeldb.info", license="unknown")]
        path = Path(model)
        if path.is_file():
            summary, license_ = f"the file {path}", "unknown"
            if path.suffix == ".param":  # ncnn's graph: the weights lie beside it
                path = path.with_suffix(".bin")
                if not path.is_file():
                    raise UnknownWeights(f"{model}: its weights are not here", f"put {path.name} beside it")
            return [WeightsEntry(name=path.stem, summary=summary, license=license_, file=str(path.resolve()))]
        if path.suffix in CHECKPOINT_SUFFIXES or path.parent != Path():
            raise UnknownWeights(f"{model}: no such checkpoint file")
        known_hint = f"`upscale models list` shows all; or give a file ({' '.join(CHECKPOINT_SUFFIXES)})"
        near = did_you_mean(model.lower().replace("_", "-"), self.names)  # as RealESRGAN_x4plus is written elsewhere
        raise UnknownWeights(f"unknown model {model!r}", f"{near} {known_hint}" if near else known_hint)

    def stages(self, model: str) -> list[Blend]:
        """Return what ``model`` means: networks one after the other, ``a+b``, each a blend, ``a:0.7,b:0.3``.

        Raises:
            UnknownWeights: a part is neither a name nor a file, or enlarges nothing.
            UsageError: shares that do not add up to 1.
        """
        stages: list[tuple[tuple[str, float], ...]]
        if self._is_whole(model):
            stages = [((model, 1.0),)]
        else:
            stages = [tuple(_share(part) for part in stage.split(",")) for stage in model.split("+")]
        for stage in stages:
            if not abs(sum(share for _, share in stage) - 1) <= 1e-3:  # NaN, too
                raise UsageError(f"{model}: the shares of a blend add up to 1", "for example a:0.7,b:0.3")
        found = [tuple(BlendPart(tuple(self.find(name)), share) for name, share in stage) for stage in stages]
        for entry in (entry for blend in found for part in blend for entry in part.entries):
            if not entry.generator:
                raise UnknownWeights(
                    f"{entry.name}: enlarges nothing, {entry.summary}", "`upscale models list` shows what does"
                )
        return found

    def mixed(self, model: str, share: float) -> str:
        """Return the blend of ``share`` of the stronger of ``model`` and its sibling with the rest of the milder.

        Raises:
            UnknownWeights: neither a name nor a file.
            UsageError: not the name of one network or family that has a sibling.
        """
        for strong in self.entries.values():
            if strong.sibling is None:
                continue
            mild = self.entries[strong.sibling]
            if model in (strong.name, mild.name):
                return f"{strong.name}:{share:g},{mild.name}:{1 - share:g}"
            if model in (strong.family, mild.family):
                return f"{strong.family or strong.name}:{share:g},{mild.family or mild.name}:{1 - share:g}"
        if self._is_whole(model):
            raise UsageError(f"--strength: {model} has no sibling", "mix any two of one architecture: -m a:0.7,b:0.3")
        self.stages(model)
        raise UsageError("--strength: only a single network has a sibling", "write the shares yourself")

    def networks(self, model: str) -> list[WeightsEntry]:
        """Return all networks that ``model`` is made of."""
        return [entry for stage in self.stages(model) for part in stage for entry in part.entries]

    def scales(self, model: str) -> set[int]:
        """Return the scales of ``model`` in a single pass, as far as they are known without its files."""
        stages = self.stages(model)
        found = _scales(stages[0]) if len(stages) == 1 else {self.scale(model)}
        return {scale for scale in found if scale is not None}

    def scale(self, model: str) -> int | None:
        """Return the largest scale of ``model`` in a single pass; None where only the files tell."""
        product = 1
        for stage in self.stages(model):
            scales = [scale for scale in _scales(stage) if scale is not None]
            if not scales:  # what parts have in common, if anything, only the files tell
                return None
            product *= max(scales)
        return product

    def _is_whole(self, model: str) -> bool:
        return model.startswith(URLS) or model in self.names or Path(model).is_file()


@cache
def known() -> Catalog:
    """Return the catalogue that comes with the package, and what the user added to it."""
    return Catalog({**shipped().entries, **own().entries})


def own() -> Catalog:
    """Return what the user added to the catalogue."""
    path = user_file()
    return read(path, shipped()) if path.exists() else Catalog({})


def user_file() -> Path:
    """Return the path of the user's own weights.toml."""
    home = os.environ.get("UPSCALE_HOME")
    return (Path(home) if home else user_config_path("upscale")) / "weights.toml"


def write_user(change: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Add tables to the user's own weights.toml, by name; None takes one out.

    Raises:
        ConfigError: the file would not be a catalogue any more; it is as it was.
        InputError: it cannot be written.
    """
    from filelock import FileLock  # few commands need it

    path = user_file()
    with said_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(".weights.toml.lock")):  # another process may add to it just now
            tables = read_tables(_text(path), path.name) if path.exists() else {}
            text = to_toml({name: table for name, table in {**tables, **change}.items() if table is not None})
            from_toml(text, path.name, shipped())  # every command reads the file: none would work any more
            write_text(path, text)
    known.cache_clear()


def to_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a weights.toml of ``tables``, by name, without what is empty."""
    return "\n".join(_toml(name, table) for name, table in tables.items())


def from_toml(text: str, where: str, more: Catalog | None = None) -> Catalog:
    """Read the content of the weights.toml ``where``, whose siblings may be in the catalogue ``more``, too.

    Raises:
        ConfigError: not TOML, a table that is not one of a network, or a sibling that is not there.
    """
    return Catalog(_entries(read_tables(text, where), where, more))


def read_tables(text: str, where: str) -> dict[str, Any]:
    """Return the tables of the weights.toml ``where``, by name, as they are written.

    Raises:
        ConfigError: not TOML, or not of tables.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: cannot be read: {error}", "mend it, or move it away") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{where}.{name}: is {table!r}, not the table of a network", "mend it, or move it away")
    return tables


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", "mend it, or move it away") from error


@cache
def shipped() -> Catalog:
    """Return the catalogue that comes with the package."""
    beside = _PACKAGE / "weights.toml"  # in an installed package; in a checkout it is one folder up
    return read(beside if beside.exists() else _PACKAGE.parent / "weights.toml")


def read(path: Path, more: Catalog | None = None) -> Catalog:
    """Read a weights.toml, whose siblings may be in the catalogue ``more``, too.

    Raises:
        ConfigError: not TOML, a table that is not one of a network, or a sibling that is not there.
    """
    return from_toml(_text(path), str(path), more)


def _entries(tables: Mapping[str, Any], where: str, more: Catalog | None) -> dict[str, WeightsEntry]:
    entries = {
        name: parse(WeightsEntry, {"name": name, **_listed(table)}, f"{where}.{name}") for name, table in tables.items()
    }
    there = {*entries, *(more.entries if more else ())}
    for name, entry in entries.items():
        if entry.sibling is not None and entry.sibling not in there:
            raise ConfigError(
                f"{where}.{name}.sibling: unknown model {entry.sibling!r}", did_you_mean(entry.sibling, there)
            )
    return entries


def _listed(table: Mapping[str, Any]) -> dict[str, Any]:
    """Let a single URL stand for a list of one."""
    return {key: [value] if key == "url" and isinstance(value, str) else value for key, value in table.items()}


def _toml(name: str, table: Mapping[str, Any]) -> str:
    lines = toml_lines({key: value for key, value in table.items() if value != ()})
    return "\n".join([f"[{toml_key(name)}]", *lines, ""])


def _unpinned(url: str) -> WeightsEntry:
    try:
        path = urlsplit(url).path
    except ValueError as error:
        raise UnknownWeights(f"{url}: not an address: {error}", "look where it comes from") from error
    name = re.sub(r"[^\w.-]+", "-", Path(unquote(path)).stem) or "download"
    return WeightsEntry(name=name, summary=f"from {url}", license="unknown", url=(url,))


def _scales(blend: Blend) -> set[int | None]:
    """Return the scales that all parts of ``blend`` have."""
    return set.intersection(*({entry.scale for entry in part.entries} for part in blend))


def _share(part: str) -> tuple[str, float]:
    name, colon, share = part.strip().rpartition(":")
    if not colon:
        return part.strip(), 1.0
    try:
        return name, float(share)
    except ValueError:
        return part.strip(), 1.0  # a drive letter, or a slip that the name will show
