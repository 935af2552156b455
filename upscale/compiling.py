"""Whether PyTorch's compiler makes a network faster: tried on the device that is there, and remembered."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from upscale.device import describe
from upscale.errors import UsageError
from upscale.files import replacing
from upscale.models import Generator
from upscale.options import Precision

LEAST_GAIN = 1.1  # every run compiles again, which takes it some seconds
_RUNS = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of compiling a network: seconds for the same picture, as it is and compiled."""

    plain: float
    compiled: float | None
    """None: it could not be compiled."""
    failure: str = ""

    @property
    def pays(self) -> bool:
        """Whether the compiled network is the faster one, by enough to be worth it."""
        return self.compiled is not None and LEAST_GAIN * self.compiled < self.plain

    def __str__(self) -> str:
        if self.compiled is None:
            return f"not compiled: {self.failure}"
        times = f"{self.plain / self.compiled:.2f} times as fast"
        return f"compiled, {times}" if self.pays else f"not compiled, it would be {times}"


def can_be_compiled(generator: Generator) -> bool:
    """Tell whether ``generator`` does without interpolation, whose tables are made in Python: not for a compiler."""
    return not any(part.any_scale or 1 in part.channels for part in generator.modules() if isinstance(part, Generator))


def require_compiler(device: torch.device) -> None:
    """Make sure that PyTorch's compiler works for ``device``.

    Raises:
        UsageError: it does not.
    """
    try:
        torch.compile(torch.neg)(torch.ones(8, device=device))
    except Exception as error:
        raise UsageError(f"PyTorch's compiler does not work here: {_said(error)}", "leave out --compile") from error


def tried(
    generator: Generator,
    device: torch.device,
    precision: Precision,
    edge: int,
    *,
    plain: Callable[[int], float],
    compiled: Callable[[int], float],
    say: Callable[[str], None],
) -> Trial:
    """Return what came of compiling ``generator`` for tiles of ``edge`` on ``device``, now or in an earlier run.

    ``plain`` and ``compiled`` time the network, the best of so many runs after a first. An error of the compiler's
    is not remembered: the next time it may be installed, or memory be free. ``say`` is told what takes long.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(_file().with_name("compiled")))  # by default, in /tmp
    table, key = _remembered(), _key(generator, device, precision, edge)
    if key in table:
        with suppress(TypeError):
            return _still(Trial(**table[key]), compiled)
    say(f"x{generator.scale}: trying PyTorch's compiler once, which may take minutes")
    seconds = plain(_RUNS)
    try:
        trial = Trial(seconds, compiled(_RUNS))
    except Exception as error:
        return _failed(seconds, error)
    with suppress(OSError):  # of a cache that cannot be written: the next time it is tried again, too
        _file().parent.mkdir(parents=True, exist_ok=True)
        with replacing(_file()) as temporary:
            table = {**_remembered(), key: {"plain": trial.plain, "compiled": trial.compiled}}
            temporary.write_text(json.dumps(table, indent=1), encoding="utf-8")
    return trial


def _still(trial: Trial, compiled: Callable[[int], float]) -> Trial:
    """Return a remembered ``trial``, or that the compiler it stands on fails now."""
    if trial.pays:
        try:
            compiled(0)
        except Exception as error:
            return _failed(trial.plain, error)
    return trial


def _failed(plain: float, error: Exception) -> Trial:
    """Return what came of a compiler that raised ``error``: of any kind, as it may be missing, or not up to it."""
    return Trial(plain, None, _said(error))


def _said(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _key(generator: Generator, device: torch.device, precision: Precision, edge: int) -> str:
    parts = [f"{type(part).__name__} {part.config}" for part in generator.modules() if isinstance(part, Generator)]
    return " | ".join(
        (*parts, platform.node(), describe(device), precision.value, str(edge), f"PyTorch {torch.__version__}")
    )


def _remembered() -> dict[str, Any]:
    try:
        table = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def _file() -> Path:
    return user_cache_path("upscale") / "compiled.json"
