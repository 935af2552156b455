"""Pictures and networks that several tests use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from upscale.models import Generator, build

for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):  # with these, rich takes pipes for terminals
    os.environ.pop(name, None)

Run = Callable[..., "subprocess.CompletedProcess[str]"]

DYING = """
import os, signal, sys
from upscale.cli import console, main

tell, kind, left = console.event, sys.argv[1], int(sys.argv[2])

def event(fields):
    global left
    tell(fields)
    if fields["event"] == kind:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

console.event = event
main(sys.argv[3:])
"""


def killed_at(kind: str, count: int, *arguments: str) -> list[str]:
    """The command that runs the program with ``--json`` until its event number ``count`` of a ``kind``; 0: to the end.

    It kills itself: another process that looks on may come too late.
    """
    return [sys.executable, "-c", DYING, kind, str(count), *arguments, "--json"]


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture ``[height, width, 3]`` of smooth shapes, edges and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(2, 9) + y / rng.uniform(2, 9) + k) for k in range(3)]
    image = 128 + 80 * np.stack(waves, 2) + rng.normal(0, 6, (height, width, 3))
    image[height // 3 : height // 2, width // 4 : width // 2] = (230, 40, 90)
    return image.clip(0, 255).astype(np.uint8)


def network(**config: Any) -> Generator:
    """A generator with random weights, ready to run."""
    torch.manual_seed(0)
    generator = build(config, "test")
    generator.initialise()
    return generator.requires_grad_(False).eval()


@pytest.fixture
def upscale_command() -> Run:
    """Run the program in a process of its own; ``cwd`` is required so that nothing lands in the checkout."""

    def run(arguments: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "upscale", *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)

    return run
