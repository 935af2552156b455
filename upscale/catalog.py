"""weights.toml -> Catalog of WeightsEntry: which pretrained networks there are."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from upscale.config import did_you_mean, parse
from upscale.errors import UnknownWeights

CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt")
DEFAULT_MODEL = "compact"
_PACKAGE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsEntry:
    """One network: a table of weights.toml, or a file that the user named."""

    name: str
    summary: str
    network: Mapping[str, Any] | None
    """Architecture and hyper-parameters; None: the checkpoint says it itself."""
    license: str
    scale: int | None = None
    """None: any integer."""
    family: str | None = None
    """The name under which a user asks for networks that differ in scale only."""
    file: str | None = None
    """Path of the checkpoint, relative to the package; None: a network without weights."""
    sha256: str | None = None
    bytes: int | None = None

    @property
    def path(self) -> Path | None:
        """Where the checkpoint lies, None for a network without weights."""
        return None if self.file is None else _PACKAGE / self.file


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
        """Return the network called ``model``, those of the family ``model``, or the file ``model``.

        Raises:
            UnknownWeights: neither a name nor a file.
        """
        if model in self.entries:
            return [self.entries[model]]
        family = [entry for entry in self.entries.values() if entry.family == model]
        if family:
            return family
        path = Path(model)
        if path.is_file():
            summary, license_ = f"the file {path}", "unknown"
            return [
                WeightsEntry(name=path.stem, summary=summary, network=None, license=license_, file=str(path.resolve()))
            ]
        if path.suffix in CHECKPOINT_SUFFIXES or path.parent != Path():
            raise UnknownWeights(f"{model}: no such checkpoint file")
        hint = did_you_mean(model, self.names)
        known = f"known are {', '.join(self.names)}, or a file ({' '.join(CHECKPOINT_SUFFIXES)})"
        raise UnknownWeights(f"unknown model {model!r}", f"{hint} {known}" if hint else known)


@cache
def shipped() -> Catalog:
    """Return the catalogue that comes with the package."""
    beside = _PACKAGE / "weights.toml"  # in an installed package; in a checkout it is one folder up
    return read(beside if beside.exists() else _PACKAGE.parent / "weights.toml")


def read(path: Path) -> Catalog:
    """Read a weights.toml."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return Catalog(
        {
            name: parse(WeightsEntry, {"name": name, "network": None, **table}, f"{path.name}.{name}")
            for name, table in tables.items()
        }
    )
