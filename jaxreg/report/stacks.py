"""Penalties whose groups take a stack of layers for one array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from jaxreg import _names, _tree
from jaxreg._tree import PyTree
from jaxreg.penalties._axes import across
from jaxreg.penalties._constraint import GroupSet
from jaxreg.penalties._groups import Grouped
from jaxreg.penalty import Penalty

__all__ = ["stack_warnings"]


def stack_warnings(penalty: Penalty, params: PyTree, *, layers: bool = False) -> Iterator[str]:
    """A warning for each term with groups that lie across layers which were stacked for a scan.

    With `layers` also where a group is a whole layer, which may be what is meant.

    >>> import jaxreg as jr
    >>> layer = {"kernel": jnp.ones((4, 2, 3)), "bias": jnp.ones((4, 3))}
    >>> list(stack_warnings(jr.unit_norm().on(jr.kernels), layer))
    ["unit_norm.on(kernels) acts on 'kernel' (4, 2, 3), which looks like a stack of 4 layers, ..."]
    >>> list(stack_warnings(jr.unit_norm(axis=(0, -1)).on(jr.kernels), layer))
    []
    """
    leaves = _tree.flatten(params)
    depth = _names.stacks(leaves)
    for term in penalty.terms() if any(depth) else ():
        inner = _inner(term)
        if not isinstance(inner, (Grouped, GroupSet)) or getattr(inner, "groups", None) is not None:
            continue
        hit = [i for i, on in enumerate(term.support(params)) if on and depth[i]]
        ranks = {i: jnp.ndim(leaves.values[i]) for i in hit}
        lying = [i for i in hit if 0 not in {a % ranks[i] for a in across(inner.axis)}]
        if lying:
            own = tuple(a for a in across(inner.axis))
            each = (0, *own) if own else 0
            then = f"a group lies across all of them; axis={each} makes groups in each"
            yield _told(term, leaves, depth, lying, inner.axis, then)
        elif layers and hit and across(inner.axis) == (0,):
            then = "a group is a whole layer; axis=(0, 1) makes one for each row of a layer"
            yield _told(term, leaves, depth, hit, inner.axis, then)


def _told(
    term: Penalty, leaves: _tree.Leaves, depth: list[int], where: list[int], axis: Any, then: str
) -> str:
    first = where[0]
    more = f" and {len(where) - 1} more" if len(where) > 1 else ""
    return (
        f"{term.label} acts on {leaves.paths[first]!r} {jnp.shape(leaves.values[first])}{more}, which "
        f"looks like a stack of {depth[first]} layers, and with axis={axis} {then}."
    )


def _inner(term: Penalty) -> Any:
    """The penalty inside of restrictions, factors and centres."""
    while hasattr(term, "penalty"):
        term = term.penalty  # pyright: ignore[reportAttributeAccessIssue]
    return term
