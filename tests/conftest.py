"""Pictures and networks that several tests use."""

from __future__ import annotations

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

Run = Callable[..., "subprocess.CompletedProcess[str]"]


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
