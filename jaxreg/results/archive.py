"""Pytrees of arrays in one file, bit for bit, without pickle.

The file is a zip of `.npy` members (so `numpy.load` opens it) and a `header.json` that names the
place of each array in its tree. dtypes that npy does not know, such as bfloat16, are stored as
unsigned integers of the same width. Writing is atomic: the file appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import GetAttrKey, keystr

from jaxreg._tree import PyTree

__all__ = ["StoredTree", "archive_path", "read_archive", "write_archive"]

_HEADER = "header.json"
_VERSION = 1


class StoredTree(NamedTuple):
    """The arrays of a tree as they were read, with the keys that lead to each."""

    keys: list[tuple[str | int, ...]]
    arrays: list[np.ndarray]

    def nested(self) -> PyTree:
        """Dicts of dicts, with the integers of lists as keys; a lone array is itself."""
        if self.keys == [()]:
            return self.arrays[0]
        tree: dict = {}
        for keys, array in zip(self.keys, self.arrays):
            inner = tree
            for key in keys[:-1]:
                inner = inner.setdefault(key, {})
            inner[keys[-1]] = array
        return tree

    def like(self, template: PyTree, owner: str, name: str) -> PyTree:
        """The tree in the structure of `template`, whose leaves do not matter.

        Raises:
          ValueError: the template has other leaves.
        """
        keys, treedef = _keyed(template)
        if keys != self.keys:
            here, there = set(keys), set(self.keys)
            raise ValueError(
                f"{owner}: the {name} of `like` have other leaves than the file. Only in the file: "
                f"{_shown([k for k in self.keys if k not in here])}; only in `like`: "
                f"{_shown([k for k in keys if k not in there])}."
            )
        return jax.tree.unflatten(treedef, self.arrays)


def _shown(keys: list[tuple[str | int, ...]], most: int = 5) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return (", ".join(repr("/".join(map(str, k))) for k in keys[:most]) or "none") + more


def _keyed(tree: PyTree) -> tuple[list[tuple[str | int, ...]], Any]:
    """The keys of every leaf, without the attribute `value` of a box, and the treedef."""
    with_paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return [_keys(path) for path, _ in with_paths], treedef


def _keys(path: tuple) -> tuple[str | int, ...]:
    if len(path) > 1 and isinstance(path[-1], GetAttrKey) and path[-1].name == "value":
        path = path[:-1]
    return tuple(_key(entry) for entry in path)


def _key(entry: Any) -> str | int:
    # An index stays an integer, so that a list read back as a dict is indexed the same way.
    raw = getattr(entry, "key", getattr(entry, "idx", None))
    return raw if isinstance(raw, (int, str)) else keystr((entry,), simple=True)


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
    if path.exists() and not overwrite:
        raise ValueError(
            f"save: {str(path)!r} is there already and is left as it was. Give another path, or "
            "overwrite=True to replace it."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                index = {name: _write_tree(archive, name, tree) for name, tree in trees.items()}
                text = json.dumps({**header, "version": _VERSION, "trees": index}, indent=1)
                archive.writestr(zipfile.ZipInfo(_HEADER), text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_tree(archive: zipfile.ZipFile, name: str, tree: PyTree) -> list[dict] | None:
    if tree is None:
        return None
    keys, _ = _keyed(tree)
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
