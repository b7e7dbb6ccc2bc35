"""Files that appear whole or not at all, and directories that go so.

A file is filled under another name beside its place, forced to the disk, and renamed: a rename happens
or it does not. What a kill leaves behind is hidden, begins with the name and ends in ".tmp" or ".old".
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from jaxreg._check import flag

__all__ = ["file_path", "new_file", "remove_directory"]


def file_path(owner: str, path: str | os.PathLike) -> Path:
    """The path of a file, there or not.

    Raises:
      TypeError: it is no path. ValueError: it is empty, or a directory.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{owner}: `path` must be the path of a file, got {path!r}.")
    found = Path(path).expanduser()
    if not found.name or found.is_dir():
        raise ValueError(
            f"{owner}: `path` must be the path of a file, got {os.fspath(path)!r}, which is a directory or "
            "none."
        )
    return found


@contextlib.contextmanager
def new_file(owner: str, path: str | os.PathLike, overwrite: bool) -> Iterator[Path]:
    """A path beside `path` to write to, moved to its place at the end.

    Raises:
      ValueError: `path` is there already and `overwrite` is False, or it is a directory.
    """
    path = file_path(owner, path)
    flag(owner, "overwrite", overwrite)
    if path.exists() and not overwrite:
        raise ValueError(
            f"{owner}: {str(path)!r} is there already and is left as it was. Give another path, or "
            "overwrite=True to replace it."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _beside(path, "tmp")
    try:
        yield unfinished
        _sync(unfinished)
        os.replace(unfinished, path)
        _sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_directory(directory: Path) -> None:
    """Renamed first, so that a removal that is cut off leaves nothing that looks whole."""
    old = _beside(directory, "old")
    os.replace(directory, old)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Force a file, or a directory's list of names, to the disk."""
    if path.is_dir() and os.name != "posix":  # elsewhere a directory cannot be opened
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _beside(path: Path, ending: str) -> Path:
    # Not the process id: on several hosts two processes may have the same.
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.{ending}")
