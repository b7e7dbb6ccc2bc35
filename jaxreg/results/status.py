"""How a lane ended, as data: failure is a status in the result and never an exception."""

from __future__ import annotations

import enum

__all__ = ["Status"]


class Status(enum.IntEnum):
    """How a lane ended.

    >>> Status.DIVERGED.message
    'diverged: a loss or parameter became NaN or infinite'
    """

    FINISHED = 0
    DIVERGED = 1
    GIVEN_UP = 2
    STOPPED = 3
    RUNNING = 4

    @property
    def message(self) -> str:
        return _MESSAGES[self]


_MESSAGES = {
    Status.FINISHED: "finished all steps",
    Status.DIVERGED: "diverged: a loss or parameter became NaN or infinite",
    Status.GIVEN_UP: "given up at a rung: its point was not among the best",
    Status.STOPPED: "stopped early: its validation loss had ceased to fall",
    Status.RUNNING: "interrupted: it had further steps to go",
}
