"""Selectors: which leaves a penalty touches.

A selector is a hashable predicate (path, leaf) -> bool, built of objects, so that equal selectors
hit the jit cache and a selector can be the static part of a penalty. Combine with `&`, `|`, `~`.
What the names of leaves mean is in _names.py.
"""

from __future__ import annotations

import abc
import dataclasses
import difflib
import fnmatch
import warnings
from collections.abc import Callable
from typing import Any

from jaxreg import _names, _tree

__all__ = [
    "Selector",
    "biases",
    "embeddings",
    "everything",
    "kernels",
    "leaf_mask",
    "norms",
    "path",
    "where",
]


class Selector(abc.ABC):
    """A rule that says of a leaf, by path and value, whether it is selected.

    Combine rules with `&`, `|` and `~`; give one to `Penalty.on`.

    >>> rule = kernels & ~path("head/*")
    >>> rule.matches("body/kernel", None), rule.matches("head/kernel", None)
    (True, False)
    """

    @abc.abstractmethod
    def matches(self, path: str, leaf: Any) -> bool:
        """Whether the leaf at `path` (keys joined by "/") is selected."""

    def mask(self, params: _tree.PyTree) -> list[bool]:
        """One bool per leaf of `params`, in the order of `jax.tree.leaves`.

        Raises:
          ValueError: nothing is selected; the message names the nearest paths.
        """
        _tree.refuse_count(f"selector {self!r}", params)
        leaves = _tree.flatten(params)
        # What a module holds beside its arrays is in no selection, not even that of all but some.
        held = [s or callable(x) for s, x in zip(leaves.settings, leaves.values)]
        mask = [hit and not out for hit, out in zip(self.among(leaves), held)]
        if not any(mask) and mask:
            raise ValueError(
                f"selector {self!r} matches none of the {len(mask)} leaves of the parameters; "
                f"the nearest paths are {_nearest(repr(self), leaves.paths)}. "
                'Paths are keys joined by "/"; a "*" in a pattern also crosses "/".'
            )
        return mask

    def among(self, leaves: _tree.Leaves) -> list[bool]:
        """One bool per leaf; a rule that asks for the leaves beside one has them here."""
        return [bool(self.matches(p, x)) for p, x in zip(leaves.paths, leaves.values)]

    def __and__(self, other: Selector) -> Selector:
        return _And(self, as_selector(other))

    def __or__(self, other: Selector) -> Selector:
        return _Or(self, as_selector(other))

    def __invert__(self) -> Selector:
        return _Not(self)


@dataclasses.dataclass(frozen=True)
class _And(Selector):
    left: Selector
    right: Selector

    def matches(self, path: str, leaf: Any) -> bool:
        return self.left.matches(path, leaf) and self.right.matches(path, leaf)

    def among(self, leaves: _tree.Leaves) -> list[bool]:
        return [a and b for a, b in zip(self.left.among(leaves), self.right.among(leaves))]

    def __repr__(self):
        return f"{_in_and(self.left)} & {_in_and(self.right)}"


@dataclasses.dataclass(frozen=True)
class _Or(Selector):
    left: Selector
    right: Selector

    def matches(self, path: str, leaf: Any) -> bool:
        return self.left.matches(path, leaf) or self.right.matches(path, leaf)

    def among(self, leaves: _tree.Leaves) -> list[bool]:
        return [a or b for a, b in zip(self.left.among(leaves), self.right.among(leaves))]

    def __repr__(self):
        return f"{self.left!r} | {self.right!r}"


@dataclasses.dataclass(frozen=True)
class _Not(Selector):
    rule: Selector

    def matches(self, path: str, leaf: Any) -> bool:
        return not self.rule.matches(path, leaf)

    def among(self, leaves: _tree.Leaves) -> list[bool]:
        return [not hit for hit in self.rule.among(leaves)]

    def __repr__(self):
        inner = repr(self.rule)
        return f"~({inner})" if isinstance(self.rule, (_And, _Or)) else f"~{inner}"


def _in_and(rule: Selector) -> str:
    return f"({rule!r})" if isinstance(rule, _Or) else repr(rule)


@dataclasses.dataclass(frozen=True)
class _Path(Selector):
    pattern: str

    def matches(self, path: str, leaf: Any) -> bool:
        return fnmatch.fnmatchcase(path, self.pattern)

    def __repr__(self):
        return f"path({self.pattern!r})"


@dataclasses.dataclass(frozen=True)
class _Where(Selector):
    predicate: Callable[[str, Any], bool]

    def matches(self, path: str, leaf: Any) -> bool:
        return self.predicate(path, leaf)

    def __repr__(self):
        return f"where({getattr(self.predicate, '__name__', self.predicate)!s})"


@dataclasses.dataclass(frozen=True)
class _Listed(Selector):
    paths: frozenset[str]

    def matches(self, path: str, leaf: Any) -> bool:
        # A mask may stop early, as optax's may: True then stands for the whole subtree.
        keys = path.split("/")
        above = {"/".join(keys[:i]) for i in range(len(keys) + 1)}
        return not self.paths.isdisjoint(above)

    def __repr__(self):
        return f"leaf_mask({len(self.paths)} leaves)"


@dataclasses.dataclass(frozen=True)
class _Rule(Selector):
    """A built-in rule, known by its name."""

    name: str

    def matches(self, path: str, leaf: Any) -> bool:
        return _RULES[self.name](path, leaf, None)

    def among(self, leaves: _tree.Leaves) -> list[bool]:
        if self.name == "everything":
            return [True] * len(leaves.values)
        _warn_unnamed(self.name, leaves)
        rule, beside = _RULES[self.name], _names.beside(leaves)
        return [rule(p, x, near) for p, x, near in zip(leaves.paths, leaves.values, beside)]

    def __repr__(self):
        return self.name


def _warn_unnamed(rule: str, leaves: _tree.Leaves) -> None:
    """Say where rank has to stand in for a name."""
    if told := _names.unnamed(leaves):
        warnings.warn(f"{rule}: {told}", stacklevel=2)


# By name and not in the rule, so that a rule, and a penalty with it, is pickled.
_RULES: dict[str, Callable[[str, Any, _names.Beside], bool]] = {
    "everything": lambda path, leaf, beside: True,
    "biases": _names.is_bias,
    "norms": _names.is_norm,
    "kernels": _names.is_kernel,
    "embeddings": _names.is_embedding,
}

everything: Selector = _Rule("everything")
"""Every leaf."""

biases: Selector = _Rule("biases")
"""Leaves named b, bias, offset or intercept, with an optional number or suffix; vectors without name."""

norms: Selector = _Rule("norms")
"""Scales and offsets of normalisation: leaves named scale, gamma or beta, or inside a layer named
after a norm (BatchNorm_0, layer_norm, bn1, ln_f) or layer_scale."""

kernels: Selector = _Rule("kernels")
"""The weights proper: every leaf that is neither a bias nor a norm's, embeddings included; without
them, `kernels & ~embeddings`."""

embeddings: Selector = _Rule("embeddings")
"""Tables of tokens and positions: leaves named embed, embedding, emb, wte or wpe, also with something in
front, the weight or table of a layer of such a name, and class and mask tokens. The projection of a patch
(patch_embed) is none."""


def path(pattern: str) -> Selector:
    """Select leaves whose slash-joined path matches a glob; "*" also crosses "/".

    Raises:
      TypeError: `pattern` is no string.

    >>> path("*/kernel").matches("layers/0/kernel", None)
    True
    """
    if not isinstance(pattern, str) or not pattern:
        raise TypeError(
            f"path: `pattern` must be a string such as '*/kernel', and '*' is every leaf, got {pattern!r}."
        )
    return _Path(pattern)


def where(predicate: Callable[[str, Any], bool]) -> Selector:
    """Select by your own function of (path, leaf).

    Define the function once and reuse it: a selector is part of what jit caches on, and a new
    lambda at every call compiles anew.

    >>> def wide(path, leaf):
    ...     return leaf.shape[-1] >= 128
    >>> where(wide)
    where(wide)
    """
    if not callable(predicate):
        raise TypeError(f"where: `predicate` must be a function of (path, leaf), got {predicate!r}")
    return _Where(predicate)


def leaf_mask(mask: _tree.PyTree) -> Selector:
    """Select the leaves that are True in a pytree of bools, such as a mask made for optax.

    As there the mask may be a prefix of the parameters: True at a layer selects all of it.

    >>> rule = leaf_mask({"w": True, "b": False})
    >>> rule.matches("w", None), rule.matches("b", None)
    (True, False)
    """
    leaves = _tree.flatten(mask)
    odd = [(p, x) for p, x in zip(leaves.paths, leaves.values) if not isinstance(x, bool)]
    if odd or not leaves.values:
        at, got = odd[0] if odd else ("", mask)
        where = f" at {at!r}" if at else ""
        raise TypeError(
            f"leaf_mask: `mask` must be True or False at every leaf, got {got!r}{where}."
        )
    return _Listed(frozenset(p for p, x in zip(leaves.paths, leaves.values) if x))


def as_selector(
    rule: Selector | str | Callable[[str, Any], bool], owner: str = "on", name: str = "where"
) -> Selector:
    """A selector from a selector, a glob or a predicate."""
    if isinstance(rule, Selector):
        return rule
    if isinstance(rule, str):
        return path(rule)
    if callable(rule):
        return where(rule)
    raise TypeError(
        f"{owner}: `{name}` must be a selector such as jaxreg.kernels, a glob such as '*/kernel' or a "
        f"function of (path, leaf), got {rule!r}. For a pytree of bools use jaxreg.select.leaf_mask."
    )


def floating_where(
    owner: str, name: str, tree: Any, rule: Selector | str | Callable[[str, Any], bool]
) -> tuple[_tree.Leaves, tuple[bool, ...]]:
    """The leaves of parameters, and which of them a rule selects.

    Raises:
      TypeError: nothing is floating, a selected leaf is not, or `rule` is no rule. ValueError: it selects
        no leaf.
    """
    leaves = _tree.flatten(tree)
    if not any(_tree.is_floating(x) and hasattr(x, "dtype") for x in leaves.values):
        raise TypeError(f"{owner}: `{name}` must be floating arrays, got {tree!r:.60}.")
    selector = as_selector(rule, owner)
    try:
        chosen = selector.mask(tree)
    except ValueError as error:  # which does not know who asks
        raise ValueError(f"{owner}: `where` must select a leaf, got none: {error}") from error
    hit = zip(leaves.paths, leaves.values, chosen)
    if odd := [p for p, x, c in hit if c and not _tree.is_floating(x)]:
        raise TypeError(
            f"{owner}: `{name}` must be floating where it is selected, got others at {odd}. Select less, "
            "as by jaxreg.kernels."
        )
    return leaves, tuple(chosen)


def _nearest(wanted: str, paths: tuple[str, ...], most: int = 5) -> list[str]:
    wanted = wanted.removeprefix("path('").removesuffix("')")
    near = difflib.get_close_matches(wanted, paths, n=most, cutoff=0.0)
    return near or sorted(paths)[:most]
