"""The log of a run for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from upscale.errors import UsageError


def tensorboard(folder: Path) -> Callable[[Mapping[str, Any]], None]:
    """Return what writes each event's numbers into ``folder``, losses and validations apart.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("--tensorboard: TensorBoard is not installed", "pip install tensorboard") from error
    # Made with the first event: of several processes, one has events, and a run may be refused before it has any.
    writer = cache(lambda: SummaryWriter(str(folder)))

    def write(event: Mapping[str, Any]) -> None:
        for key, value in event.items():
            if event["event"] in ("step", "valid") and key != "step" and isinstance(value, int | float):
                writer().add_scalar(f"{event['event']}/{key}", value, event["step"])
        if text := event.get("text") or event.get("reason"):
            writer().add_text("remarks", str(text), event["step"])
        if event["event"] != "step":
            writer().flush()

    return write
