"""Files and directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

__all__ = ["new_directory", "new_file"]


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
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(
    owner: str, directory: Path, overwrite: bool, ours: frozenset[str]
) -> Iterator[Path]:
    """An empty directory beside `directory` to fill, moved to its place at the end.

    A directory cannot be replaced in one step: a kill between the two leaves the old one beside it,
    under a name that ends in ".old".

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
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        _swap(unfinished, directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


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


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{ending}")


def _check_free(owner: str, path: Path, taken: bool) -> None:
    if taken:
        raise ValueError(
            f"{owner}: {str(path)!r} is there already and is left as it was. Give another path, or "
            "overwrite=True to replace it."
        )
