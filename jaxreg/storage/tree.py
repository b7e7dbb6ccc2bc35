"""Leaves by the keys that lead to them, and back into a tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
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
        return nest("load", self.keys, self.arrays)

    def like(
        self, template: PyTree, owner: str, name: str, where: str = "the file", exact: bool = False
    ) -> PyTree:
        """The tree in the structure of `template`, whose values do not matter.

        Raises:
          ValueError: the template has other leaves or, if `exact`, one of another dtype or shape.
        """
        keys, treedef = keyed(template)
        if keys != self.keys:
            here, there = set(keys), set(self.keys)
            raise ValueError(
                f"{owner}: the {name} of `like` have other leaves than {where}, or another order. "
                f"Only in the file: {_listed([k for k in self.keys if k not in here])}; "
                f"only in `like`: {_listed([k for k in keys if k not in there])}."
            )
        for key, *pair in zip(keys, self.arrays, jax.tree.leaves(template)):
            was, is_now = map(kind, pair)
            if exact and was != is_now:
                raise ValueError(
                    f"{owner}: the leaf {shown(key)} is {was} in {where} and {is_now} in `like`. "
                    "Give the model, the optimizer and the jax_enable_x64 it was saved with."
                )
        return jax.tree.unflatten(treedef, self.arrays)


def keyed(tree: PyTree) -> tuple[list[Keys], Any]:
    """The keys of every leaf, without the attribute `value` of a box, and the treedef."""
    with_paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return [_keys(path) for path, _ in with_paths], treedef


def nest(owner: str, keys: Sequence[Keys], values: Iterable[Any]) -> PyTree:
    """Dicts of dicts that hold each value under its keys; the value itself if it has none.

    Raises:
      ValueError: two have the same place, or one has its place inside another.
    """
    taken = Counter([*keys, *{path[:i] for path in keys for i in range(len(path))}])
    clash = next((path for path in keys if taken[path] > 1), None)
    if clash is not None:
        raise ValueError(
            f"{owner}: two leaves have the same path {shown(clash)}, or one lies below the other; "
            "rename one of them."
        )
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
    """The keys joined by slashes, for messages: whatever a file says, they end somewhere."""
    return f"{'/'.join(map(str, keys)):.100}" or "(the tree itself)"


def _keys(path: tuple) -> Keys:
    if len(path) > 1 and isinstance(path[-1], GetAttrKey) and path[-1].name == "value":
        path = path[:-1]
    return tuple(_key(entry) for entry in path)


def _key(entry: Any) -> str | int:
    # An index stays an integer, so that a list read back as a dict is indexed the same way.
    raw = getattr(entry, "key", getattr(entry, "idx", None))
    return raw if isinstance(raw, (int, str)) else keystr((entry,), simple=True)


def _listed(keys: list[Keys], most: int = 5) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return (", ".join(repr(shown(k)) for k in keys[:most]) or "none") + more
