"""Ctrl-C that is never lost.

While a sweep trains, it looks after Ctrl-C itself. Before that Python would raise wherever it happens to
be, and inside a callback of the garbage collector, such as jax's, what is raised is printed and
forgotten. So a press is noted then, and handed to the sweep at its first evaluation.
"""

from __future__ import annotations

import contextlib
import signal
from typing import Any

import jaxreg as jr
from jaxreg.sweeps.watch import Evaluation

__all__ = ["Presses"]


class Presses(jr.Callback):
    """Around a sweep, and a callback of it: the first press stops it cleanly, the second at once.

    >>> try:
    ...     with Presses():
    ...         signal.raise_signal(signal.SIGINT)
    ...         print("noted")
    ... except KeyboardInterrupt:
    ...     print("no evaluation came: raised at the end")
    noted
    no evaluation came: raised at the end
    """

    def __init__(self) -> None:
        self._waiting = False

    def __enter__(self) -> Presses:
        with contextlib.suppress(ValueError):  # signals belong to the main thread
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, self._before)
        if self._waiting and kind is None:
            raise KeyboardInterrupt

    def _note(self, *_: Any) -> None:
        if self._waiting:
            raise KeyboardInterrupt
        self._waiting = True

    def evaluated(self, evaluation: Evaluation) -> None:
        del evaluation
        if self._waiting:
            self._waiting = False
            signal.raise_signal(signal.SIGINT)
