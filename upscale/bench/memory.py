"""How much memory a piece of work takes."""

from __future__ import annotations

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
            _reset_peak()

    def bytes(self) -> int | None:
        """Return the peak: allocated by torch on the device, or resident of the whole process, libraries included."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        if not _STATUS.exists():
            return None
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def _reset_peak() -> None:
    try:
        _RESET.write_text("5", encoding="ascii")  # proc(5): sets VmHWM to what is resident now
    except OSError:  # not permitted in some containers: the peak of the whole run is reported, which is no less
        return
