"""Pytrees of arrays in one file, bit for bit, without pickle.

The file is a zip of `.npy` members (so `numpy.load` opens it) and a `header.json` that names the
place of each array in its tree. dtypes that npy does not know, such as bfloat16, are stored as
unsigned integers of the same width.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxreg._tree import PyTree
from jaxreg.storage.atomic import new_file
from jaxreg.storage.tree import StoredTree, keyed

__all__ = ["archive_path", "read_archive", "write_archive"]

_HEADER = "header.json"
_VERSION = 1


def archive_path(path: str | os.PathLike) -> Path:
    """`path` with the ending .npz if it has none."""
    path = Path(path)
    return path if path.suffix else path.with_suffix(".npz")


def write_archive(
    path: Path, header: Mapping[str, Any], trees: Mapping[str, PyTree], overwrite: bool
) -> None:
    """Write a JSON-able header and named trees of arrays; a tree may be None.

    Raises:
      ValueError: `path` is there already and `overwrite` is False; or two leaves of a tree have the
        same path.
    """
    with (
        new_file("save", path, overwrite) as unfinished,
        zipfile.ZipFile(unfinished, "w") as archive,
    ):
        index = {name: _write_tree(archive, name, tree) for name, tree in trees.items()}
        text = json.dumps({**header, "version": _VERSION, "trees": index}, indent=1)
        archive.writestr(zipfile.ZipInfo(_HEADER), text)


def _write_tree(archive: zipfile.ZipFile, name: str, tree: PyTree) -> list[dict] | None:
    if tree is None:
        return None
    keys, _ = keyed(tree)
    if len(set(keys)) < len(keys):
        raise ValueError(f"save: two leaves of `{name}` have the same path; rename one of them.")
    index = []
    for i, (path, x) in enumerate(zip(keys, jax.tree.leaves(tree))):
        array = np.asarray(x)
        member = "/".join([name, str(i), *map(str, path)]) + ".npy"
        foreign = array.dtype.kind == "V"
        index.append({"keys": path, "file": member, "dtype": array.dtype.name if foreign else None})
        if foreign:
            array = array.view(f"u{array.dtype.itemsize}")
        with archive.open(member, "w", force_zip64=True) as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
    return index


def read_archive(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, StoredTree | None]]:
    """The header and the trees of a file whose header says `format` is `kind`.

    Raises:
      FileNotFoundError: there is no such file. ValueError: it is another kind of file, is damaged,
        or was written by a newer version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            header = json.loads(archive.read(_HEADER))
            if header["format"] != kind:
                raise KeyError(kind)
            _check_version(path, header["version"])
            trees = {n: _read_tree(archive, index) for n, index in header["trees"].items()}
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"load: {str(path)!r} is damaged or no {kind} file: {error}.") from error
    except KeyError as error:
        raise ValueError(f"load: {str(path)!r} is no {kind} file.") from error
    return header, trees


def _check_version(path: Path, version: int) -> None:
    if version > _VERSION:
        raise ValueError(
            f"load: {str(path)!r} has the format version {version}; this jaxreg reads up to "
            f"{_VERSION}. Update jaxreg."
        )


def _read_tree(archive: zipfile.ZipFile, index: list[dict] | None) -> StoredTree | None:
    if index is None:
        return None
    arrays = []
    for entry in index:
        with archive.open(entry["file"]) as file:
            stored = np.lib.format.read_array(file, allow_pickle=False)
        arrays.append(stored.view(np.dtype(entry["dtype"])) if entry["dtype"] else stored)
    return StoredTree([tuple(entry["keys"]) for entry in index], arrays)
