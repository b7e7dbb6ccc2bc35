"""A live progress bar for long sweeps: in terminals and notebooks, silent elsewhere."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator

__all__ = ["show_progress"]


def _wanted(progress: bool | None) -> bool:
    if progress is not None:
        return progress
    # In a notebook rich draws with ipywidgets, and without them it would only warn.
    notebook = "ipykernel" in sys.modules and importlib.util.find_spec("ipywidgets") is not None
    return notebook or sys.stderr.isatty()


@contextlib.contextmanager
def show_progress(
    label: str, steps: int, progress: bool | None
) -> Iterator[Callable[[int, float], None]]:
    """A function (steps done, best validation loss) -> None that moves the bar, on stderr."""
    if not _wanted(progress):
        yield lambda done, best: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
        TextColumn("best valid {task.fields[best]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{label}: compiling", total=steps, best="-")

        def move(done: int, best: float) -> None:
            bar.update(task, completed=done, best=f"{best:.4g}", description=label)

        yield move
