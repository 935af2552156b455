"""How much memory a piece of work takes."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class PeakMemory:
    """The highest memory use from here on: of a CUDA device, or of this process on Linux; unknown elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif _RESET.exists():
            _return_what_is_free()
            _reset_peak()
        self._start = self.bytes()

    def bytes(self) -> int | None:
        """Return the peak: allocated by torch on the device, or resident of the whole process, libraries included."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        if not _STATUS.exists():
            return None
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)

    def extra(self) -> int | None:
        """Return how far the peak is above where it began: what the work itself took."""
        peak = self.bytes()
        return None if peak is None or self._start is None else peak - self._start


def _return_what_is_free() -> None:
    """Give the C library's free memory back, or the work would reuse it and seem to need none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def _reset_peak() -> None:
    try:
        _RESET.write_text("5", encoding="ascii")  # proc(5): sets VmHWM to what is resident now
    except OSError:  # not permitted in some containers: the peak of the whole run is reported, which is no less
        return
