"""A pytree of arrays and a header in a directory: reading gives what was written or raises `Damaged`.

Orbax stores the arrays. Alone it restores some flipped bits in silence and takes the paths ("a.b",) and
("a", "b") for one place, so a manifest beside it has the path, place, shape, dtype and SHA-256 of each
leaf. PRNG keys are stored as their data, and arrays without entries, which orbax refuses, in the
manifest alone. Every JSON file carries a SHA-256 of itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import operator
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg._tree import PyTree
from jaxreg.storage.tree import Keys, StoredTree, keyed, kind, nest, shown

__all__ = ["MANIFEST", "TREE", "Damaged", "Leaf", "as_leaves", "json_text", "read_json"]
__all__ += ["read_manifest", "read_tree", "write_json", "write_tree"]

MANIFEST, TREE = "jaxreg.json", "tree"
_VERSION = 1


class Damaged(Exception):
    """What is wrong with a file or a leaf."""


class Leaf(NamedTuple):
    """A leaf on its way to the disk: its bytes, and its line in the manifest."""

    data: np.ndarray
    entry: dict[str, Any]


# --- writing --------------------------------------------------------------------------------------


def as_leaves(owner: str, tree: PyTree, nested: bool) -> list[Leaf]:
    """Every leaf of `tree` on the host.

    Args:
      owner: who asks, for errors.
      tree: arrays of any dtype and shape, PRNG keys included.
      nested: whether orbax alone shall read nested dicts by the paths, in which "%" and "." are written
        %25 and %2E, and a lone array is "leaf"; else one dict by number and path, which has room for
        any tree.

    Raises:
      TypeError: a leaf is no array of numbers.
      ValueError: it lives partly on another process, or has no place of its own in nested dicts.
    """
    keys, _ = keyed(tree)
    places = _nested_places(owner, keys) if nested else _flat_places(keys)
    return [_leaf(owner, *item) for item in zip(keys, places, jax.tree.leaves(tree))]


def _nested_places(owner: str, keys: list[Keys]) -> list[tuple[str, ...]]:
    escape = lambda key: str(key).replace("%", "%25").replace(".", "%2E")
    escaped = [tuple(map(escape, path or ("leaf",))) for path in keys]
    taken = Counter([*escaped, *{place[:i] for place in escaped for i in range(len(place))}])
    clash = next((path for path, place in zip(keys, escaped) if taken[place] > 1), None)
    if clash is not None:
        raise ValueError(
            f"{owner}: two leaves have the same path {shown(clash)}, or one lies below the other; "
            "rename one of them."
        )
    return escaped


def _flat_places(keys: list[Keys]) -> list[tuple[str, ...]]:
    return [(f"{i}_{re.sub(r'[^A-Za-z0-9_]', '_', shown(path))}",) for i, path in enumerate(keys)]


def _leaf(owner: str, keys: Keys, place: tuple[str, ...], leaf: Any) -> Leaf:
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
        "place": list(place),
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
    full = [leaf for leaf in leaves if leaf.data.size]
    if full:
        nested = nest([leaf.entry["place"] for leaf in full], [leaf.data for leaf in full])
        with _checkpointer() as orbax:
            orbax.save(directory / TREE, _orbax().args.PyTreeSave(nested))


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
    found = iter(_read(directory / TREE, [e for e in entries if 0 not in e["shape"]]))
    leaves = [
        _checked(np.zeros(e["shape"], e["dtype"]) if 0 in e["shape"] else next(found), e)
        for e in entries
    ]
    return StoredTree([tuple(e["keys"]) for e in entries], leaves)


def _read(directory: Path, entries: list[dict[str, Any]]) -> list[Any]:
    """All in one go; one by one if that fails, to say whose fault it is."""
    _orbax()  # if that is missing, nothing is damaged
    try:
        return _restore(directory, entries) if entries else []
    except Exception as error:  # orbax raises what its parsers raise: KeyError, ValueError, …
        if len(entries) > 1:
            return [x for entry in entries for x in _read(directory, [entry])]
        what = f"unreadable, {type(error).__name__}: {error!s:.120}"
        raise Damaged(f"leaf {shown(entries[0]['keys'])}: {what}") from error


def _restore(directory: Path, entries: list[dict[str, Any]]) -> list[Any]:
    ocp, places = _orbax(), [entry["place"] for entry in entries]
    as_numpy = nest(places, [ocp.RestoreArgs(restore_type=np.ndarray) for _ in places])
    args = ocp.args.PyTreeRestore(
        nest(places, [0 for _ in places]), restore_args=as_numpy, partial_restore=True
    )
    with _checkpointer() as orbax:
        found = orbax.restore(directory, args)
    return [reduce(operator.getitem, place, found) for place in places]


def _checked(data: Any, entry: dict[str, Any]) -> Any:
    """The leaf of that data, which must be what the manifest says."""
    where, saved = f"leaf {shown(entry['keys'])}", f"{entry['dtype']}{entry['shape']}"
    if not isinstance(data, np.ndarray):  # orbax says nothing when it has no such entry
        raise Damaged(f"{where}: unreadable, orbax has no array of it")
    if kind(data) != saved:
        raise Damaged(f"{where}: {kind(data)} instead of {saved}")
    if _sha256(data) != entry["sha256"]:
        raise Damaged(f"{where}: sha256 of its bytes is not the one saved")
    if entry["prng"]:
        return jax.random.wrap_key_data(jnp.asarray(data), impl=entry["prng"])
    return data


# --- orbax, JSON and hashes -----------------------------------------------------------------------


def _orbax() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError("orbax is not installed: pip install orbax-checkpoint.") from error
    return ocp


@contextmanager
def _checkpointer() -> Iterator[Any]:
    """An orbax checkpointer of this process alone, whose barriers wait for nobody.

    It logs nothing, for the error itself is raised and told by us.
    """
    ocp, mine = _orbax(), jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=mine, active_processes={mine}, barrier_sync_key_prefix=f"process_{mine}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone, use_compression=False)
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as orbax:
            yield orbax
    finally:
        log.setLevel(level)


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
