"""What a training run looks like while it goes on: a view that stays in place on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from upscale.cli import console

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 32  # columns of a sparkline
NOT_SHOWN = ("event", "step", "time", "steps_per_second")


class LiveView:
    """Shows the events of a run of ``steps`` steps; use it as a context manager."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps = name, steps
        self.step, self.pace = 0, 0.0
        self.curves: dict[str, dict[str, list[float]]] = {"step": {}, "valid": {}}
        self._live = Live(console=console.err, refresh_per_second=2, transient=True, get_renderable=self.render)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, event: Mapping[str, Any]) -> None:
        """Take in an event; print it as a line where it is to stay or where there is no view."""
        if console.err.is_terminal and not self._live.is_started:
            self._live.start()  # only now: of several processes, one has events
        self.step = event["step"]
        self.pace = event.get("steps_per_second", self.pace)
        for key, value in event.items():
            if event["event"] in self.curves and key not in NOT_SHOWN:
                self.curves[event["event"]].setdefault(key, []).append(value)
        if event["event"] == "remark":
            console.notice(f"step {event['step']}: {event['text']}")
        elif event["event"] == "stop":
            console.notice(f"stopped at step {event['step']}: {event['reason']}")
        elif (event["event"] == "valid" and len(event) > 2) or (event["event"] == "step" and not self._live.is_started):
            line = "  ".join(f"{key} {_short(value)}" for key, value in event.items() if key != "event")
            console.err.print(line, markup=False)

    def render(self) -> Group:
        """Return the view."""
        left = timedelta(seconds=round((self.steps - self.step) / self.pace)) if self.pace else None
        head = f"{self.name}  step {self.step} of {self.steps}"
        if left is not None:
            head += f"  {self.pace:.3g} steps/s  {left} left"
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        for kind, style in (("step", "cyan"), ("valid", "green")):
            for key, values in self.curves[kind].items():
                recent = values[-WIDTH:] if kind == "step" else values
                table.add_row(key, _short(values[-1]), Text(sparkline(recent), style=style))
        return Group(Text(head), ProgressBar(total=self.steps, completed=self.step), table)


def sparkline(values: Sequence[float]) -> str:
    """Return a bar for each of ``values``, or for the mean of several, ``WIDTH`` at most.

    >>> sparkline([1.0, 2.0, 3.0, float("nan")])
    '▁▅█ '
    """
    size = max(1, -(-len(values) // WIDTH))
    means = [sum(group) / len(group) for group in (values[i : i + size] for i in range(0, len(values), size))]
    known = [mean for mean in means if abs(mean) < float("inf")]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return "".join(_block((mean - low) / (high - low) if high > low else 0.0) for mean in means)


def _block(part: float) -> str:
    return BLOCKS[round(part * (len(BLOCKS) - 1))] if 0 <= part <= 1 else " "


def _short(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
