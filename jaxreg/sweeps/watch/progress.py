"""A live progress bar for long sweeps: in terminals and notebooks, silent elsewhere."""

from __future__ import annotations

import importlib.util
import sys
from types import TracebackType
from typing import Any

__all__ = ["Progress"]


def _in_notebook() -> bool:
    # There rich draws with ipywidgets, and without them it would only warn.
    return "ipykernel" in sys.modules and importlib.util.find_spec("ipywidgets") is not None


def _wanted(progress: bool | None) -> bool:
    return progress if progress is not None else _in_notebook() or sys.stderr.isatty()


class Progress:
    """Points alive, steps, best validation loss so far, speed and time left, on stderr."""

    def __init__(self, label: str, points: int, steps: int, progress: bool | None):
        self._bar: Any = None
        if _wanted(progress):
            self._bar, self._task = _bar(label, points, steps)
        self._label = label

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def move(self, step: int, alive: int, best: float, speed: float) -> None:
        """All running lanes have reached `step`; `speed` is in steps a second."""
        if self._bar is not None:
            self._bar.update(
                self._task, completed=step, description=self._label, alive=alive,
                best=f"{best:.4g}", speed=f"{speed:,.0f}",
            )  # fmt: skip


def _bar(label: str, points: int, steps: int) -> tuple[Any, Any]:
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    # No column wraps or is cut: in 80 characters it is the bar that gives way.
    field = lambda text: progress.TextColumn(text, table_column=Column(no_wrap=True, min_width=1))
    bar = progress.Progress(
        field("{task.description}"),
        progress.BarColumn(bar_width=None, table_column=Column(ratio=1)),
        field("{task.completed:.0f}/{task.total:.0f}"),
        field("{task.fields[alive]} left"),
        field("valid {task.fields[best]}"),
        field("{task.fields[speed]}/s"),
        progress.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=Console(stderr=True),
        expand=True,
        # A bar that has ended would stay in a notebook as an empty output.
        transient=_in_notebook(),
        # rich's own ten times a second took 5 % of a two-core machine.
        refresh_per_second=1,
    )
    task = bar.add_task("compiling", total=steps, alive=points, best="-", speed="-")
    return bar, task
