"""The floors of the package, and what must not be imported to print a help text."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import upscale

PACKAGE = Path(upscale.__file__).parent

FLOORS = {
    "cli": 6,
    "batch": 5,
    "train": 5,
    "bench": 5,
    "engine": 4,
    "loading": 4,
    "export": 4,
    "backprojection": 3,
    "inference": 3,
    "checkpoint": 3,
    "recognise": 3,
    "compiling": 3,
    "losses": 3,
    "statedict": 3,
    "metrics": 3,
    "tiling": 3,
    "models": 2,
    "device": 2,
    "imaging": 2,
    "torchrun": 2,
    "catalog": 1,
    "store": 1,
    "download": 1,
    "images": 1,
    "errors": 0,
    "config": 0,
    "options": 0,
    "files": 0,
    "ahead": 0,
    "page": 0,
}
# Neighbours on a floor that may see each other, with the reason.
NEIGHBOURS = {
    ("store", "catalog"),  # the store keeps what the catalogue names
    ("store", "download"),  # and fetches it
    ("models", "imaging"),  # the classical interpolations are networks
    ("loading", "engine"),  # an upscaler is what is loaded
    ("checkpoint", "recognise"),  # the file of a network says which it is
    ("checkpoint", "statedict"),  # networks are read from state dicts
    ("recognise", "statedict"),  # which may keep the order of the layers
    ("config", "errors"),  # a wrong table is an error
    ("files", "errors"),  # a full disk is an error
    ("options", "errors"),  # a picture too small for a target is an error
}


def module_of(path: Path) -> str:
    """Return the unit (module or package) that a file of the package belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    """Return the units of the package that a file imports, wherever in the file."""
    units = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        units += [name.split(".")[1] for name in names if name.startswith("upscale.")]
    return units


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_import_only_lower_floors(path: Path) -> None:
    unit = module_of(path)
    if unit in ("__init__", "__main__"):
        return
    for imported in imports_of(path):
        if imported in (unit, "__version__"):
            continue
        allowed = FLOORS[imported] < FLOORS[unit] or (unit, imported) in NEIGHBOURS
        assert allowed, f"{path}: {unit} (floor {FLOORS[unit]}) imports {imported} (floor {FLOORS[imported]})"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["bench", "--help"],
        ["check", "--help"],
        ["bench", "-m", "bicubix"],
        ["try", "a.png", "-m", "bicubix"],
        ["no-such-file.png"],
    ],
)
def test_help_and_slips_are_answered_without_torch(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "upscale", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    imported = {
        line.rsplit("|", 1)[1].strip() for line in result.stderr.splitlines() if line.startswith("import time:")
    }
    assert "upscale.cli" in imported
    assert "torch" not in imported


def test_public_names_resolve() -> None:
    for name in upscale.__all__:
        assert getattr(upscale, name) is not None
    assert set(dir(upscale)) == set(upscale.__all__) == {*upscale._LAZY, "__version__"}
