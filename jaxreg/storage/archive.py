"""Pytrees of arrays in one file: reading gives what was written, to the bit, or an error that says why not.

The file is a zip of uncompressed `.npy` members, so `numpy.load` opens it, and a `header.json` that has
the path, shape, dtype and SHA-256 of every array, and a SHA-256 of itself. dtypes that npy does not
know, such as bfloat16, are stored as unsigned integers of the same width, PRNG keys as their data;
nothing is pickled.

Nothing that a file says is believed before it is checked: sizes are compared with the size of the file
before memory is taken for them. A checkpoint library would add asynchronous saves and state sharded
over hosts; what is saved here is one table on the host, written by one process.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.lib import format as npy

from jaxreg._tree import PyTree
from jaxreg.storage.atomic import file_path, new_file
from jaxreg.storage.sealed import Damaged, readable, sealed, unsealed
from jaxreg.storage.tree import Keys, StoredTree, keyed, nest, shown

__all__ = ["archive_path", "read_archive", "read_header", "read_trees", "write_archive"]

_HEADER = "header.json"
_VERSION = 3


class _Entry(NamedTuple):
    """The line of a leaf in the header."""

    keys: Keys
    file: str
    shape: tuple[int, ...]
    dtype: str
    prng: str | None
    sha256: str


def archive_path(owner: str, path: str | os.PathLike) -> Path:
    """`path` with the ending .npz if it has none.

    Raises:
      TypeError, ValueError: it is no path of a file.
    """
    path = file_path(owner, path)
    return path if path.suffix else path.with_suffix(".npz")


# --- writing --------------------------------------------------------------------------------------


def write_archive(
    path: Path,
    header: Mapping[str, Any],
    trees: Mapping[str, PyTree],
    overwrite: bool,
    *,
    owner: str = "save",
    nested: bool = True,
) -> None:
    """Write a JSON-able header and named trees of arrays: the file appears whole or not at all.

    Args:
      path: the file.
      header: its "format" is the kind that reading asks for.
      trees: arrays of any shape and dtype, PRNG keys and arrays of text included; a tree may be None.
      overwrite: whether a file that is there may be replaced.
      owner: who asks, for errors.
      nested: whether each leaf must have a place of its own in nested dicts.

    Raises:
      ValueError: `path` is there already; a leaf lives partly on another process, or has no place of
        its own.
      TypeError: a leaf is no array of numbers.
    """
    index, arrays = {}, []
    for name, tree in trees.items():
        leaves = None if tree is None else _leaves(owner, name, tree, nested)
        index[name] = None if leaves is None else [entry._asdict() for entry, _ in leaves]
        arrays += leaves or []
    text = sealed({**header, "version": _VERSION, "trees": index})
    with (
        new_file(owner, path, overwrite) as unfinished,
        zipfile.ZipFile(unfinished, "w") as archive,
    ):
        archive.writestr(
            zipfile.ZipInfo(_HEADER), text
        )  # a date of its own would differ every time
        for entry, data in arrays:
            with archive.open(entry.file, "w", force_zip64=True) as member:
                as_stored = data.view(_stored_as(data.dtype))
                npy.write_array_header_1_0(member, npy.header_data_from_array_1_0(as_stored))
                member.write(_bytes(data))


def _leaves(owner: str, name: str, tree: PyTree, nested: bool) -> list[tuple[_Entry, np.ndarray]]:
    keys, _ = keyed(tree)
    if nested:
        nest(owner, keys, keys)  # which refuses what has no place
    leaves = []
    for i, (path, leaf) in enumerate(zip(keys, jax.tree.leaves(tree))):
        data, prng = _on_host(owner, path, leaf)
        words = (re.sub(r"[^\w-]+", "_", str(key)) for key in path)  # zip takes no \0, say
        file = "/".join([name, str(i), *words])[:200] + ".npy"
        sha256 = hashlib.sha256(_bytes(data)).hexdigest()
        leaves.append((_Entry(path, file, data.shape, _name(data.dtype), prng, sha256), data))
    return leaves


def _on_host(owner: str, keys: Keys, leaf: Any) -> tuple[np.ndarray, str | None]:
    if not getattr(leaf, "is_fully_addressable", True):
        raise ValueError(
            f"{owner}: the leaf {shown(keys)} lives partly on another process; gather it first, "
            "as with jax.experimental.multihost_utils.process_allgather."
        )
    is_key = jnp.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key)
    data = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    if isinstance(leaf, str) or not _can_be_stored(data.dtype):
        raise TypeError(
            f"{owner}: the leaf {shown(keys)} has dtype {data.dtype}; give numbers or bools."
        )
    data = np.asarray(data, data.dtype.newbyteorder("="), order="C")
    return data, str(jax.random.key_impl(leaf)) if is_key else None


# --- reading --------------------------------------------------------------------------------------


def read_archive(
    path: Path, kind: str, *, owner: str = "load"
) -> tuple[dict[str, Any], dict[str, StoredTree | None]]:
    """The header and the trees of a file whose header says `format` is `kind`.

    Raises:
      FileNotFoundError: there is no such file. ValueError: it is another kind of file, is damaged,
        or was written by a newer version.
    """
    if not path.exists():
        raise FileNotFoundError(f"{owner}: there is no file {str(path)!r}.")
    try:
        header = read_header(path, kind, owner=owner)
        return header, read_trees(path, header)
    except Damaged as damage:
        what = f"{owner}: {str(path)!r} is damaged or no {kind} file"
        raise ValueError(f"{what}: {damage}.") from damage


def read_header(path: Path, kind: str, *, owner: str = "load") -> dict[str, Any]:
    """The header alone.

    Raises:
      Damaged: it is not what was written, or its `format` is another. ValueError: it is of a newer version.
    """
    with _opened(path, _HEADER) as archive:
        header = unsealed(archive.read(_HEADER), _HEADER)
        if header["format"] != kind:
            raise Damaged(f"its format is {header['format']!r:.50}")
        newer = header["version"] > _VERSION
    if newer:
        raise ValueError(
            f"{owner}: {str(path)!r} has the format version {header['version']}; this jaxreg reads up "
            f"to {_VERSION}. Update jaxreg."
        )
    return header


def read_trees(path: Path, header: Mapping[str, Any]) -> dict[str, StoredTree | None]:
    """The trees that a header lists, as numpy arrays and PRNG keys.

    Raises:
      Damaged: a leaf is not what was written; says which and why.
    """
    with _opened(path, "the list of its arrays") as archive:
        trees = header["trees"]
        entries = {n: None if t is None else [_entry(**row) for row in t] for n, t in trees.items()}
        named = [_HEADER, *(entry.file for tree in entries.values() for entry in tree or [])]
        if sorted(named) != sorted(archive.namelist()):
            differ = sorted({*named} ^ {*archive.namelist()}) or ["one twice"]
            raise Damaged(f"it has other members than its header lists: {differ[0]!r:.100}")
        return {n: None if t is None else _tree(archive, t) for n, t in entries.items()}


@contextlib.contextmanager
def _opened(path: Path, what: str) -> Iterator[zipfile.ZipFile]:
    """An archive of which no member is larger than the file, for reading of `what`."""
    with readable(what), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        plain = all(m.compress_type == 0 and m.compress_size == m.file_size for m in members)
        if not plain or sum(m.file_size for m in members) > path.stat().st_size:
            raise Damaged("its members are compressed, or larger than the file")
        yield archive


def _entry(keys: Any, shape: Any, **rest: Any) -> _Entry:
    """A line of the header, of which nothing is believed."""
    entry = _Entry(tuple(keys), shape=tuple(shape), **rest)
    sound = all(type(key) in (str, int) for key in keys)
    if not (sound and all(type(size) is int and size >= 0 for size in shape)):
        raise Damaged(f"leaf {shown(entry.keys)}: no keys and shape, {keys!r:.50} {shape!r:.50}")
    return entry


def _tree(archive: zipfile.ZipFile, entries: list[_Entry]) -> StoredTree:
    return StoredTree([entry.keys for entry in entries], [_leaf(archive, e) for e in entries])


def _leaf(archive: zipfile.ZipFile, entry: _Entry) -> Any:
    where = f"leaf {shown(entry.keys)}"
    with readable(where):
        with archive.open(entry.file) as member:
            data = _data(member, entry, archive.getinfo(entry.file).file_size)
        if hashlib.sha256(_bytes(data)).hexdigest() != entry.sha256:
            raise Damaged(f"{where}: sha256 of its bytes is not the one saved")
        if entry.prng is None:
            return data
        return jax.random.wrap_key_data(jnp.asarray(data), impl=entry.prng)


def _data(member: Any, entry: _Entry, available: int) -> np.ndarray:
    dtype = np.dtype(entry.dtype)
    if not _can_be_stored(dtype) or _name(dtype) != entry.dtype:
        raise ValueError(f"there is no dtype {entry.dtype!r}")
    version = npy.read_magic(member)
    if version != (1, 0):
        raise ValueError(f"npy version {version}")
    header = npy.read_array_header_1_0(member)
    if header != (entry.shape, False, _stored_as(dtype)):
        raise ValueError(f"{header[2]}{list(header[0])} is stored there")
    size = math.prod(entry.shape) * dtype.itemsize
    if size > available:
        raise ValueError(f"{size} bytes of it are more than the file has")
    data = np.empty(entry.shape, _stored_as(dtype))
    if (data.size and member.readinto(_bytes(data)) != size) or member.read(1):
        raise ValueError(f"its data are not {size} bytes")
    return data.view(dtype)


# --- arrays and their bytes -----------------------------------------------------------------------


def _can_be_stored(dtype: np.dtype) -> bool:
    return dtype.kind in "bU" or jnp.issubdtype(dtype, np.number)


def _name(dtype: np.dtype) -> str:
    return dtype.str if dtype.kind == "U" else dtype.name  # of which numpy makes it again


def _stored_as(dtype: np.dtype) -> np.dtype:
    return np.dtype(f"u{dtype.itemsize}") if dtype.kind == "V" else dtype


def _bytes(data: np.ndarray) -> memoryview:
    """The bytes of a contiguous array; a view, since neither hashlib nor zipfile knows bfloat16."""
    return data.reshape(-1).view(np.uint8).data
