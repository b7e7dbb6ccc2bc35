"""A directory that one run at a time may write to.

The lock is the system's own, on an open file: whatever ends the process ends the lock, and on network disks
it holds between hosts as far as they have locks at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

__all__ = ["LOCK", "locked"]

LOCK = ".lock"
_LOOKS = 5  # at a lock whose holder has not told yet who it is

# A child that was forked has the file open too, and would keep the lock of a parent that has died.
_HELD: weakref.WeakSet[IO] = weakref.WeakSet()


@contextlib.contextmanager
def locked(owner: str, directory: str | os.PathLike) -> Iterator[None]:
    """Hold a directory, which is made if it is missing, against every other run.

    Raises:
      ValueError: another run has it, this process included; says which. OSError: it cannot be written.

    >>> import tempfile
    >>> here = tempfile.mkdtemp()
    >>> with locked("sweep", here), locked("sweep", here):
    ...     pass
    Traceback (most recent call last):
    ValueError: sweep: ... is in use by process ... on ...
    """
    path = Path(directory).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    with open(path / LOCK, "a+", encoding="utf-8") as file:
        if not _taken(file):
            raise ValueError(
                f"{owner}: {str(path)!r} is in use by {_holder(file)}, and its checkpoints are that run's. "
                "Wait until it has ended, or give a directory of its own to each run; never empty this one."
            )
        _HELD.add(file)
        try:
            _tell(file)
            yield
        finally:
            _HELD.discard(file)
            _unlock(file)


def _tell(file: IO) -> None:
    """Who has it, for others to read; a full disk does not matter."""
    with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
        file.flush()


def _holder(file: IO) -> str:
    """Who told that it has the lock; one that has just taken it needs a moment to tell."""
    for _ in range(_LOOKS):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            file.seek(0)
            told = json.load(file)
            here = " (this one)" if told["process"] == os.getpid() else ""
            return f"process {int(told['process'])}{here} on {told['host']!s:.100}"
        time.sleep(0.01)
    return "another process"


def _taken(file: IO) -> bool:
    """Whether the lock is ours now; also where the file system has no locks, and nobody can have one."""
    try:
        _lock(file)
    except BlockingIOError:
        return False
    except PermissionError:  # what Windows calls it
        return os.name != "nt"
    except OSError:
        return True
    return True


def _lock_by_posix(file: IO) -> None:
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_by_windows(file: IO) -> None:
    import msvcrt

    # A byte far behind the text, which others may then read.
    file.seek(2**30)
    msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]


def _unlock(file: IO) -> None:
    """Also where a child that was forked this moment has not let go of it yet; elsewhere closing does."""
    if os.name == "posix":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


_lock: Callable[[IO], None] = _lock_by_windows if os.name == "nt" else _lock_by_posix


def _forget() -> None:
    """Point the child's copies at nothing; closing a copy gives no lock back that another still holds."""
    for file in list(_HELD):
        with contextlib.suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, file.fileno())
            os.close(nothing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
