"""Files and directories that appear whole or not at all.

Each is filled under another name beside its place, forced to the disk, and renamed: a rename happens or
it does not. What a kill leaves behind is hidden, begins with the name and ends in ".tmp" or ".old".
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = ["new_directory", "new_file", "remove_directory"]


@contextlib.contextmanager
def new_file(owner: str, path: str | os.PathLike, overwrite: bool) -> Iterator[Path]:
    """A path beside `path` to write to, moved to its place at the end.

    Raises:
      ValueError: `path` is there already and `overwrite` is False, or it is a directory.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{owner}: {str(path)!r} is a directory. Give the path of a file.")
    _check_free(owner, path, path.exists() and not overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _beside(path, "tmp")
    try:
        yield unfinished
        _sync(unfinished)
        os.replace(unfinished, path)
        _sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(
    owner: str, directory: Path, overwrite: bool = False, ours: frozenset[str] = frozenset()
) -> Iterator[Path]:
    """An empty directory beside `directory` to fill, moved to its place at the end.

    A full directory cannot be replaced in one step: a kill between the two leaves the old one beside
    it, under a name that ends in ".old".

    Raises:
      ValueError: there is something already; with `overwrite`, something else than the names `ours`.
    """
    found = {p.name for p in directory.iterdir()} if directory.is_dir() else set()
    is_file = directory.exists() and not directory.is_dir()
    _check_free(owner, directory, is_file or (bool(found) and not overwrite))
    if not found <= ours:
        raise ValueError(
            f"{owner}: overwrite=True replaces only what {owner} wrote, and {str(directory)!r} holds "
            f"{min(found - ours)!r}. Give another path."
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _beside(directory, "tmp")
    try:
        unfinished.mkdir()
        yield unfinished
        for folder, _, files in os.walk(unfinished):
            for name in (*files, "."):
                _sync(Path(folder) / name)
        _swap(unfinished, directory)
        _sync(directory.parent)
    finally:  # Ctrl-C leaves no litter either
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_directory(directory: Path) -> None:
    """Renamed first, so that a removal that is cut off leaves nothing that looks whole."""
    old = _beside(directory, "old")
    os.replace(directory, old)
    shutil.rmtree(old, ignore_errors=True)


def _swap(new: Path, place: Path) -> None:
    if not place.exists():
        os.replace(new, place)
        return
    old = _beside(place, "old")
    os.replace(place, old)
    try:
        os.replace(new, place)
    except OSError:
        os.replace(old, place)
        raise
    shutil.rmtree(old)


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


def _check_free(owner: str, path: Path, taken: bool) -> None:
    if taken:
        raise ValueError(
            f"{owner}: {str(path)!r} is there already and is left as it was. Give another path, or "
            "overwrite=True to replace it."
        )
