"""A pytree of arrays and a header in a directory: reading gives what was written or raises `Damaged`.

The arrays lie uncompressed in one zip file of `.npy` members, which `numpy.load` opens; a manifest beside
it has the path, shape, dtype and SHA-256 of each leaf, and a SHA-256 of itself. dtypes that npy does not
know, such as bfloat16, are stored as unsigned integers of the same width, PRNG keys as their data.
A dedicated checkpoint library would add asynchronous saves and state sharded over hosts; what is saved
here is one table on the host, written by one process, and the hashes are ours in any case.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg._tree import PyTree
from jaxreg.storage.tree import Keys, StoredTree, keyed, kind, shown

__all__ = ["MANIFEST", "TREE", "Damaged", "Leaf", "as_leaves", "json_text", "read_json"]
__all__ += ["read_manifest", "read_tree", "write_json", "write_tree"]

MANIFEST, TREE = "jaxreg.json", "tree.npz"
_VERSION = 2


class Damaged(Exception):
    """What is wrong with a file or a leaf."""


class Leaf(NamedTuple):
    """A leaf on its way to the disk: its bytes, and its line in the manifest."""

    data: np.ndarray
    entry: dict[str, Any]


# --- writing --------------------------------------------------------------------------------------


def as_leaves(owner: str, tree: PyTree, nested: bool = False) -> list[Leaf]:
    """Every leaf of `tree`, arrays of any dtype and shape, PRNG keys included, on the host.

    Args:
      owner: who asks, for errors.
      tree: the arrays.
      nested: whether each must have a place of its own in nested dicts.

    Raises:
      TypeError: a leaf is no array of numbers.
      ValueError: it lives partly on another process, or has no place of its own.
    """
    keys, _ = keyed(tree)
    taken = Counter([*keys, *{path[:i] for path in keys for i in range(len(path))}])
    clash = next((path for path in keys if nested and taken[path] > 1), None)
    if clash is not None:
        raise ValueError(
            f"{owner}: two leaves have the same path {shown(clash)}, or one lies below the other; "
            "rename one of them."
        )
    return [_leaf(owner, *item) for item in zip(keys, jax.tree.leaves(tree))]


def _leaf(owner: str, keys: Keys, leaf: Any) -> Leaf:
    if not getattr(leaf, "is_fully_addressable", True):
        raise ValueError(
            f"{owner}: the leaf {shown(keys)} lives partly on another process; gather it first, "
            "as with jax.experimental.multihost_utils.process_allgather."
        )
    is_key = jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)
    data = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    if not (jnp.issubdtype(data.dtype, np.number) or data.dtype == bool):
        raise TypeError(
            f"{owner}: the leaf {shown(keys)} has dtype {data.dtype}; give numbers or bools."
        )
    data = np.asarray(data, data.dtype.newbyteorder("="), order="C")
    entry = {
        "keys": list(keys),
        "shape": list(data.shape),
        "dtype": data.dtype.name,
        "prng": str(jax.random.key_impl(leaf)) if is_key else None,
        "sha256": _sha256(data),
    }
    return Leaf(data, entry)


def write_tree(directory: Path, header: Mapping[str, Any], leaves: list[Leaf]) -> None:
    """Fill an empty directory, of which nothing need be on the disk when this returns."""
    entries = [leaf.entry for leaf in leaves]
    write_json(directory / MANIFEST, {**header, "version": _VERSION, "leaves": entries})
    with zipfile.ZipFile(directory / TREE, "w", zipfile.ZIP_STORED) as archive:
        for i, leaf in enumerate(leaves):
            data = leaf.data.view(_stored_as(leaf.data.dtype))
            with archive.open(_member(i), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, data, allow_pickle=False)


def _member(i: int) -> str:
    return f"{i}.npy"


def _stored_as(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}") if dtype.kind == "V" else dtype


# --- reading --------------------------------------------------------------------------------------


def read_manifest(directory: Path) -> dict[str, Any]:
    """The header and the "leaves" of what `write_tree` wrote.

    Raises:
      Damaged: it is not what was written. ValueError: a newer version wrote it.
    """
    manifest = read_json(directory / MANIFEST)
    version = manifest.get("version", 0)
    if version > _VERSION:
        raise ValueError(
            f"{directory} has the format version {version}; this jaxreg reads up to "
            f"{_VERSION}. Update jaxreg."
        )
    return manifest


def read_tree(directory: Path, manifest: Mapping[str, Any]) -> StoredTree:
    """The leaves of a manifest, as numpy arrays and PRNG keys.

    Raises:
      Damaged: a leaf is not what was written; says which and why.
    """
    entries = manifest["leaves"]
    leaves = [_checked(_read(directory / TREE, i, entry), entry) for i, entry in enumerate(entries)]
    return StoredTree([tuple(e["keys"]) for e in entries], leaves)


def _read(file: Path, i: int, entry: Mapping[str, Any]) -> np.ndarray:
    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    try:
        with zipfile.ZipFile(file) as archive, archive.open(_member(i)) as member:
            # Looked at before its memory is taken: a damaged header may ask for any amount.
            version = np.lib.format.read_magic(member)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                version, np.lib.format.read_array_header_2_0
            )
            header = read_header(member)
            if header != (shape, False, _stored_as(dtype)):
                raise ValueError(f"{header[2]}{list(header[0])} is stored there")
            data = np.empty(shape, _stored_as(dtype))
            size = member.readinto(data.reshape(-1).view(np.uint8).data) if data.size else 0
            if size != data.nbytes or member.read(1):
                raise ValueError(f"{size} bytes of it instead of {data.nbytes}")
    except Exception as error:  # what zipfile and numpy raise on damage has many names
        what = f"unreadable, {type(error).__name__}: {error!s:.120}"
        raise Damaged(f"leaf {shown(entry['keys'])}: {what}") from error
    return data.view(dtype)


def _checked(data: np.ndarray, entry: dict[str, Any]) -> Any:
    """The leaf of that data, which must be what the manifest says."""
    where, saved = f"leaf {shown(entry['keys'])}", f"{entry['dtype']}{entry['shape']}"
    if kind(data) != saved:
        raise Damaged(f"{where}: {kind(data)} instead of {saved}")
    if _sha256(data) != entry["sha256"]:
        raise Damaged(f"{where}: sha256 of its bytes is not the one saved")
    if entry["prng"]:
        return jax.random.wrap_key_data(jnp.asarray(data), impl=entry["prng"])
    return data


# --- JSON and hashes ------------------------------------------------------------------------------


def json_text(content: Any) -> str:
    """JSON in one spelling, so that equal text means equal values, NaN included."""
    return json.dumps(content, sort_keys=True)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """`content` and, under "sha256", the hash of the rest."""
    digest = hashlib.sha256(json_text(content).encode()).hexdigest()
    file.write_text(json.dumps({**content, "sha256": digest}, indent=1), encoding="utf-8")


def read_json(file: Path) -> dict[str, Any]:
    """The content that `write_json` was given; raises `Damaged` if this is anything else."""
    try:
        content = json.loads(file.read_bytes())
        digest = content.pop("sha256")
    except FileNotFoundError:
        raise Damaged(f"{file.name} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{file.name} is unreadable, {type(error).__name__}: {error}") from error
    if hashlib.sha256(json_text(content).encode()).hexdigest() != digest:
        raise Damaged(f"{file.name}: sha256 of its content is not the one saved")
    return content


def _sha256(data: np.ndarray) -> str:
    # hashlib does not know bfloat16, so it gets the bytes; a view spares their copy.
    return hashlib.sha256(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data).hexdigest()
