"""A pytree of arrays in an orbax checkpoint whose every leaf is checked when it is read.

Orbax alone restores some flipped bits in silence, and takes the paths ("a.b",) and ("a", "b") for one
place. So a manifest beside the checkpoint keeps the path, shape, dtype and hash of each leaf, and names
are escaped; the manifest is hashed too. Arrays without entries, which orbax refuses, live in it alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxreg._tree import PyTree
from jaxreg.results import archive
from jaxreg.results._atomic import new_directory

__all__ = ["read_tree", "write_tree"]

_MANIFEST = "jaxreg.json"
_TREE = "tree"
_VERSION = 1

Keys = tuple[str | int, ...]


def write_tree(
    owner: str,
    directory: str | os.PathLike,
    header: Mapping[str, Any],
    tree: PyTree,
    overwrite: bool,
) -> Path:
    """Write a tree and a JSON-able header, whose `format` says what it is; on the first process only.

    Raises:
      ValueError: there is something already, or two leaves have one path. ImportError: no orbax.
    """
    directory = Path(directory).absolute()
    if jax.process_index() != 0:  # there orbax stores no numpy array, and says nothing
        return directory
    keys, _ = archive._keyed(tree)
    leaves = [np.asarray(x) for x in jax.tree.leaves(tree)]
    places = [_place(k) for k in keys]
    if len(set(places)) < len(places):
        raise ValueError(f"{owner}: two leaves have the same path; rename one of them.")
    index = [_fingerprint(k, x) for k, x in zip(keys, leaves)]
    manifest = _sealed({**header, "version": _VERSION, "leaves": index})
    full = [(place, x) for place, x in zip(places, leaves) if x.size]
    with (
        _checkpointer(owner) as orbax,
        new_directory(owner, directory, overwrite, frozenset({_MANIFEST, _TREE})) as unfinished,
    ):
        if full:
            nested = archive.StoredTree([k for k, _ in full], [x for _, x in full]).nested()
            orbax.save(unfinished / _TREE, nested)
            orbax.wait_until_finished()
        with open(unfinished / _MANIFEST, "w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
    return directory


def read_tree(owner: str, directory: str | os.PathLike, kind: str) -> archive.StoredTree:
    """Read what `write_tree` wrote with the format `kind`.

    Raises:
      FileNotFoundError: there is no such directory. ValueError: it is of another kind, of a newer
        version, or any leaf is not what was written. ImportError: no orbax.
    """
    directory = Path(directory).absolute()
    index = _manifest(owner, directory, kind)["leaves"]
    keys: list[Keys] = [tuple(entry["keys"]) for entry in index]
    nested = None
    if any(0 not in entry["shape"] for entry in index):
        with _checkpointer(owner) as orbax:
            try:
                nested = orbax.restore(directory / _TREE)
            except Exception as error:  # orbax and tensorstore raise every kind
                raise ValueError(f"{owner}: {str(directory)!r} is damaged: {error}") from error
    arrays = [_found(owner, directory, nested, k, entry) for k, entry in zip(keys, index)]
    return archive.StoredTree(keys, arrays)


def _checkpointer(owner: str) -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError(
            f"{owner} needs orbax, which is not installed: pip install orbax-checkpoint."
        ) from error
    # Each process works alone, and waits for no other.
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def _place(keys: Keys) -> tuple[str, ...]:
    return tuple(str(key).replace("%", "%25").replace(".", "%2E") for key in keys)


def _fingerprint(keys: Keys, x: np.ndarray) -> dict[str, Any]:
    # hashlib does not know bfloat16, so it gets the bytes; a view spares their copy.
    data = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
    return {
        "keys": list(keys),
        "shape": list(x.shape),
        "dtype": x.dtype.name,
        "sha256": hashlib.sha256(data.data).hexdigest(),
    }


def _sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with the hash of the rest of it."""
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True)
    return {**rest, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _manifest(owner: str, directory: Path, kind: str) -> dict[str, Any]:
    if not directory.is_dir():
        raise FileNotFoundError(f"{owner}: there is no directory {str(directory)!r}.")
    where = f"{owner}: {str(directory)!r}"
    try:
        manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{where} is no {kind} directory: it has no {_MANIFEST}.") from error
    except ValueError as error:
        raise ValueError(f"{where} is damaged: {_MANIFEST} is no JSON: {error}") from error
    found, version = manifest.get("format"), manifest.get("version", 0)
    if found != kind:
        raise ValueError(f"{where} is no {kind} directory: its format is {found!r}.")
    if version > _VERSION:
        raise ValueError(
            f"{where} has the format version {version}; this jaxreg reads up to {_VERSION}. "
            "Update jaxreg."
        )
    if manifest != _sealed(manifest):
        raise ValueError(f"{where} is damaged: {_MANIFEST} is not what was written.")
    return manifest


def _found(
    owner: str, directory: Path, nested: Any, keys: Keys, entry: Mapping[str, Any]
) -> np.ndarray:
    """The leaf of that path, which must be what the manifest says."""
    dtype = np.dtype(entry["dtype"])
    if 0 in entry["shape"]:
        return np.zeros(entry["shape"], dtype)
    name = "/".join(map(str, keys))
    try:
        for key in _place(keys):
            nested = nested[key]
        array = np.asarray(nested)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{owner}: {str(directory)!r} is damaged: no leaf {name!r}.") from error
    if _fingerprint(keys, array) != dict(entry):
        raise ValueError(
            f"{owner}: {str(directory)!r} is damaged: the leaf {name!r} is not what was written."
        )
    return array
