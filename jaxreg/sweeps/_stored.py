"""What a checkpoint is made of: leaves stored by orbax, and JSON files, each with its SHA-256.

Reading gives exactly what was written or raises `Damaged`, which says what is wrong and where.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg import _tree
from jaxreg._tree import PyTree


class Damaged(Exception):
    """What is wrong with a file or a leaf of a step."""


class _Spec(NamedTuple):
    """Dtype and shape of a leaf; a PRNG key has those of its data, and the name of its kind."""

    dtype: str
    shape: tuple[int, ...]
    prng: str | None

    @classmethod
    def of(cls, leaf: Any) -> _Spec:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None:
            leaf = np.asarray(leaf)
        elif jnp.issubdtype(dtype, jax.dtypes.prng_key):
            data = jax.eval_shape(jax.random.key_data, leaf)
            return cls(data.dtype.name, data.shape, str(dtype))
        return cls(np.dtype(leaf.dtype).name, tuple(leaf.shape), None)

    def __str__(self) -> str:
        return f"{self.prng or self.dtype}{list(self.shape)}"


class Leaf(NamedTuple):
    """A leaf on its way to the disk: its bytes, and its line in the manifest."""

    data: np.ndarray
    entry: dict[str, Any]

    @classmethod
    def of(cls, index: int, path: str, leaf: Any) -> Leaf:
        if not getattr(leaf, "is_fully_addressable", True):
            raise ValueError(
                f"save: the leaf {path} lives partly on another process; gather it first, "
                "as with jax.experimental.multihost_utils.process_allgather."
            )
        dtype, shape, prng = _Spec.of(leaf)
        data = np.asarray(jax.random.key_data(leaf) if prng else leaf)
        if not (jnp.issubdtype(data.dtype, np.number) or data.dtype == bool):
            raise TypeError(f"save: the leaf {path} has dtype {data.dtype}; give numbers or bools.")
        data = np.ascontiguousarray(data, data.dtype.newbyteorder("=")).reshape(shape)
        entry = {
            "path": path,
            "key": f"{index}_{re.sub(r'[^A-Za-z0-9_]', '_', path)}",
            "sha256": _sha256(data),
            "dtype": dtype,
            "shape": list(shape),
            "prng": prng,
            "impl": str(jax.random.key_impl(leaf)) if prng else None,
        }
        return cls(data, entry)


def stored_leaves(tree: PyTree) -> list[Leaf]:
    """Every leaf of `tree` on the host.

    Raises:
      TypeError: a leaf is no array of numbers. ValueError: it lives partly on another process.
    """
    return [Leaf.of(i, path, leaf) for i, (path, leaf) in enumerate(_named_leaves(tree))]


def _named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    paths, values, _ = _tree.flatten(tree)
    return [(path or "(the tree itself)", value) for path, value in zip(paths, values)]


def require_same_leaves(manifest: dict[str, Any], like: PyTree, where: Path) -> None:
    """Raise a ValueError that names the first leaf that was saved otherwise than in `like`."""
    saved = [
        (e["path"], _Spec(e["dtype"], tuple(e["shape"]), e["prng"])) for e in manifest["leaves"]
    ]
    wanted = [(path, _Spec.of(leaf)) for path, leaf in _named_leaves(like)]
    if saved == wanted:
        return
    there, here = dict(saved), dict(wanted)
    pairs = [(path, there.get(path, "absent"), here.get(path, "absent")) for path in here | there]
    pairs += [(path, x, y) for (path, x), (_, y) in zip(saved, wanted)]  # two leaves of one path
    order = (saved[0][0], "first", "not first")
    path, was, is_now = next((pair for pair in pairs if pair[1] != pair[2]), order)
    raise ValueError(
        f"restore: the leaf {path} is {was} in {where} and {is_now} in `like`. Restore with the "
        "model, the optimizer and the jax_enable_x64 it was saved with, or give another directory."
    )


def read_tree(arrays: Path, entries: list[dict[str, Any]], like: PyTree) -> PyTree:
    """The leaves of a manifest in the structure of `like`; raises `Damaged` at the first wrong one."""
    leaves = [_read_leaf(arrays, entry) for entry in entries]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _read_leaf(arrays: Path, entry: dict[str, Any]) -> Any:
    """One leaf, checked against its line in the manifest."""
    where, shape = f"leaf {entry['path']}", tuple(entry["shape"])
    if 0 in shape:
        data: Any = np.zeros(shape, jnp.dtype(entry["dtype"]))
    else:
        try:
            data = _orbax_read(arrays, entry["key"])
        except Exception as error:  # orbax raises what its parsers raise: KeyError, ValueError, …
            raise Damaged(f"{where}: unreadable, {type(error).__name__}: {error!s:.120}") from error
    if not isinstance(data, np.ndarray):  # orbax says nothing when it has no such entry
        raise Damaged(f"{where}: unreadable, orbax has no array of it")
    if data.shape != shape:
        raise Damaged(f"{where}: shape {data.shape} instead of {shape}")
    if data.dtype.name != entry["dtype"]:
        raise Damaged(f"{where}: dtype {data.dtype} instead of {entry['dtype']}")
    if _sha256(data) != entry["sha256"]:
        raise Damaged(f"{where}: sha256 of its bytes is not the one saved")
    return (
        jax.random.wrap_key_data(jnp.asarray(data), impl=entry["impl"]) if entry["prng"] else data
    )


def _checkpointer() -> Any:
    """An orbax checkpointer of this process alone, whose barriers wait for nobody."""
    import orbax.checkpoint as ocp

    mine = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=mine, active_processes={mine}, barrier_sync_key_prefix=f"process_{mine}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone, use_compression=False)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def write_arrays(directory: Path, leaves: list[Leaf]) -> None:
    """The leaves that have entries, as one orbax checkpoint; orbax refuses empty arrays and trees."""
    import orbax.checkpoint as ocp

    arrays = {leaf.entry["key"]: leaf.data for leaf in leaves if leaf.data.size}
    if arrays:
        with _silent_log():
            _checkpointer().save(directory, ocp.args.PyTreeSave(arrays))


def _orbax_read(directory: Path, key: str) -> Any:
    """One entry as a numpy array. One at a time, so that an error is this leaf's."""
    import orbax.checkpoint as ocp

    as_numpy = {key: ocp.RestoreArgs(restore_type=np.ndarray)}
    args = ocp.args.PyTreeRestore({key: 0}, restore_args=as_numpy, partial_restore=True)
    return _checkpointer().restore(directory, args)[key]


@contextmanager
def _silent_log() -> Iterator[None]:
    """Without orbax's logged tracebacks: the error itself is raised and told by us."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def _sha256(data: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data).hexdigest()


def as_json(argument: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """`mapping` as JSON will give it back; a value that JSON cannot hold is named."""
    out = {}
    for name, value in mapping.items():
        try:
            out[str(name)] = json.loads(json.dumps(value))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"CheckpointStore: `{argument}` has {name!r} of type {type(value).__name__}, which "
                "JSON cannot hold. Give numbers, strings, or lists of them (array.tolist())."
            ) from error
    return out


def json_text(content: Any) -> str:
    """JSON in one spelling, so that equal text means equal values, nan included."""
    return json.dumps(content, sort_keys=True)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """`content` and its SHA-256, on the disk when this returns."""
    digest = hashlib.sha256(json_text(content).encode()).hexdigest()
    with open(file, "w", encoding="utf-8") as out:
        json.dump({"sha256": digest, "content": content}, out, indent=1)
        out.flush()
        os.fsync(out.fileno())


def read_json(file: Path) -> dict[str, Any]:
    """The content that `write_json` was given; raises `Damaged` if this is anything else."""
    try:
        signed = json.loads(file.read_bytes())
        content = signed["content"]
        sound = hashlib.sha256(json_text(content).encode()).hexdigest() == signed["sha256"]
    except FileNotFoundError:
        raise Damaged(f"{file.name} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{file.name} is unreadable, {type(error).__name__}: {error}") from error
    if not sound:
        raise Damaged(f"{file.name}: sha256 of its content is not the one saved")
    return content


def sync(path: Path) -> None:
    """Force a file, or a directory's list of names, to the disk."""
    if os.name != "posix":  # elsewhere only a handle open for writing can be forced
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
