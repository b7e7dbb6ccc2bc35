"""Leaves by the keys that lead to them, and back into a tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.tree_util import GetAttrKey, keystr

from jaxreg._tree import PyTree

__all__ = ["Keys", "StoredTree", "keyed", "kind", "nest", "shown"]

Keys: TypeAlias = tuple[str | int, ...]


class StoredTree(NamedTuple):
    """The arrays of a tree as they were read, with the keys that lead to each."""

    keys: list[Keys]
    arrays: list[Any]

    def nested(self) -> PyTree:
        """Dicts of dicts, with the integers of lists as keys; a lone array is itself."""
        return nest(self.keys, self.arrays)

    def like(self, template: PyTree, owner: str, name: str) -> PyTree:
        """The tree in the structure of `template`, whose leaves do not matter.

        Raises:
          ValueError: the template has other leaves.
        """
        keys, treedef = keyed(template)
        if keys != self.keys:
            here, there = set(keys), set(self.keys)
            raise ValueError(
                f"{owner}: the {name} of `like` have other leaves than the file. Only in the file: "
                f"{_listed([k for k in self.keys if k not in here])}; only in `like`: "
                f"{_listed([k for k in keys if k not in there])}."
            )
        return jax.tree.unflatten(treedef, self.arrays)

    def same_as(self, template: PyTree, owner: str, where: str) -> PyTree:
        """The tree in the structure of `template`, whose leaves must have these dtypes and shapes.

        Raises:
          ValueError: they differ; names the first leaf that does.
        """
        keys, treedef = keyed(template)
        saved = list(zip(self.keys, map(kind, self.arrays)))
        wanted = list(zip(keys, map(kind, jax.tree.leaves(template))))
        if saved == wanted:
            return jax.tree.unflatten(treedef, self.arrays)
        key, was, is_now = next(x for x in _compared(saved, wanted) if x[1] != x[2])
        raise ValueError(
            f"{owner}: the leaf {shown(key)} is {was} in {where} and {is_now} in `like`. Restore with "
            "the model, the optimizer and the jax_enable_x64 it was saved with, or give another "
            "directory."
        )


def keyed(tree: PyTree) -> tuple[list[Keys], Any]:
    """The keys of every leaf, without the attribute `value` of a box, and the treedef."""
    with_paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return [_keys(path) for path, _ in with_paths], treedef


def nest(keys: Iterable[Keys], values: Iterable[Any]) -> PyTree:
    """Dicts of dicts that hold each value under its keys; the value itself if it has none."""
    root: dict = {}
    for path, value in zip(keys, values):
        *above, last = ("", *path)  # one key more, so that a value without keys has a place too
        inner = root
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return root.get("", {})


def kind(leaf: Any) -> str:
    """Dtype and shape in words; `leaf` may be an array, a scalar or a PRNG key, or the shape of one."""
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return f"{leaf.dtype.name}{list(leaf.shape)}"


def shown(keys: Keys) -> str:
    """The keys joined by slashes, for messages."""
    return "/".join(map(str, keys)) or "(the tree itself)"


def _keys(path: tuple) -> Keys:
    if len(path) > 1 and isinstance(path[-1], GetAttrKey) and path[-1].name == "value":
        path = path[:-1]
    return tuple(_key(entry) for entry in path)


def _key(entry: Any) -> str | int:
    # An index stays an integer, so that a list read back as a dict is indexed the same way.
    raw = getattr(entry, "key", getattr(entry, "idx", None))
    return raw if isinstance(raw, (int, str)) else keystr((entry,), simple=True)


def _compared(
    saved: list[tuple[Keys, str]], wanted: list[tuple[Keys, str]]
) -> Iterator[tuple[Keys, str, str]]:
    """Leaves with what they were and are now, of which one differs if the lists do."""
    there, here = dict(saved), dict(wanted)
    for key in here | there:
        yield key, there.get(key, "absent"), here.get(key, "absent")
    for (key, was), (other, is_now) in zip(saved, wanted):
        if key == other:  # the same path twice, or the dicts had told
            yield key, was, is_now
        else:
            yield key, f"before {shown(other)}", "after it"
    yield (), f"{len(saved)} leaves", f"{len(wanted)} leaves"


def _listed(keys: list[Keys], most: int = 5) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return (", ".join(repr("/".join(map(str, k))) for k in keys[:most]) or "none") + more
