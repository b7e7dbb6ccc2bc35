"""Groups as users give them, and the base of the penalties that sum over groups of a leaf.

A group is a slice across an axis, or a set of coordinates: integer labels (an array), or one index
list per group. Groups made of whole leaves are in `jaxreg.penalties.leaf_groups`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxreg import _tree
from jaxreg.penalties._axes import Axis, across, check_across, inside
from jaxreg.penalties._weighted import Weighted
from jaxreg.prox._groups import Axes, Labels, total
from jaxreg.value import snake_name, static_field

__all__ = ["Grouped", "checked_axis", "group_norm", "index_lists", "refuse_missing", "structure"]


def checked_axis(owner: str, axis: Any, several: bool = True) -> Any:
    """`axis` itself if it is an integer, None or (where allowed) a tuple of integers.

    Raises:
      TypeError: it is something else; a list would be refused by jit's cache only, far from here.
    """
    given = axis if isinstance(axis, tuple) and several else () if axis is None else (axis,)
    if not all(isinstance(a, int) and not isinstance(a, bool) for a in given):
        kinds = "an integer, a tuple of them or None" if several else "an integer or None"
        raise TypeError(f"{owner}: `axis` must be {kinds}, got {axis!r}.")
    return axis


def structure(owner: str, axis: Any, groups: Any) -> tuple[Any, Labels | None]:
    """The static fields (axis, groups) from the arguments; labels carry their axis themselves."""
    if groups is None:
        return checked_axis(owner, axis), None
    return None, labels_of(owner, groups, checked_axis(owner, axis, several=False))


def labels_of(owner: str, groups: Any, axis: int | None) -> Labels:
    """Labels from an integer array, or from a list of index lists that is a partition.

    Raises:
      TypeError: no integers. ValueError: an index overlaps, repeats or is missing.
    """
    if isinstance(groups, (list, tuple)) and len(groups) and np.ndim(groups[0]) == 1:
        return Labels(_partition(owner, index_lists(owner, groups)), axis)
    values = np.asarray(groups)
    if values.size == 0 or not np.issubdtype(values.dtype, np.integer):
        raise TypeError(
            f"{owner}: `groups` must be an array of integer labels, a list of index lists, or paths "
            f"of leaves, got {groups!r}."
        )
    known = np.unique(values)
    if known[0] < 0 or known[-1] >= len(known):
        # Not by an array as long as the largest label, which may be any number.
        unused = int(np.argmax(known != np.arange(len(known))))
        wrong = "is negative" if known[0] < 0 else f"leaves label {unused} unused"
        raise ValueError(
            f"{owner}: `groups` as labels must count from 0 without a gap, and it {wrong}. "
            "numpy.unique(labels, return_inverse=True)[1] makes it so."
        )
    return Labels(values, axis)


def index_lists(owner: str, groups: Sequence[Any]) -> list[np.ndarray]:
    """The groups as arrays of indices >= 0, each without repeats and not empty."""
    lists = []
    for g, given in enumerate(groups):
        indices = np.asarray(given)
        if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
            what = "is empty" if np.size(given) == 0 else f"is {given!r}"
            raise TypeError(f"{owner}: `groups`[{g}] {what}; give a list of integer indices.")
        if indices.min() < 0:
            raise ValueError(
                f"{owner}: `groups`[{g}] has the negative index {indices.min()}; count from 0."
            )
        seen, counts = np.unique(indices, return_counts=True)
        if counts.max() > 1:
            raise ValueError(
                f"{owner}: index {seen[counts > 1][0]} is repeated in `groups`[{g}]; name it once."
            )
        lists.append(indices)
    return lists


def _partition(owner: str, lists: list[np.ndarray]) -> np.ndarray:
    labels = np.full(1 + max(indices.max() for indices in lists), -1)
    for g, indices in enumerate(lists):
        taken = indices[labels[indices] >= 0]
        if taken.size:
            raise ValueError(
                f"{owner}: index {taken[0]} is in `groups`[{labels[taken[0]]}] and in `groups`[{g}]; "
                "groups must not overlap. For groups that share coordinates use "
                "overlapping_group_lasso."
            )
        labels[indices] = g
    refuse_missing(owner, labels)
    return labels


def refuse_missing(owner: str, labels: np.ndarray) -> None:
    """Raise where an index has no group, a label below 0."""
    missing = np.flatnonzero(labels < 0)
    if missing.size:
        raise ValueError(
            f"{owner}: index {missing[0]} is in no group, and `groups` reach to {len(labels) - 1}. Give "
            "it a group of its own, with weight 0 if it is not to be penalized."
        )


class Grouped(Weighted):
    """lam * sum_g weights_g * r(theta_g): a sum over the groups of each leaf."""

    axis: Axis = static_field(default=None)
    groups: Labels | None = static_field(default=None)

    def check_leaf(self, path: str, x: Any) -> None:
        owner, shape = snake_name(type(self)), jnp.shape(x)
        check_across(owner, self._axis, path, x)
        if self.groups is None:
            return
        n = jnp.size(x) if self.groups.axis is None else shape[self.groups.axis]
        have = len(self.groups.values)
        if n != have:
            wrong = f"index {have} is in no group" if n > have else f"there is no index {n}"
            raise ValueError(
                f"{owner}: `groups` has {have} indices, and on the leaf {path!r} of shape {shape} "
                f"there are {n} of them: {wrong}. Give groups for this shape, say which axis they run "
                "along, or select other leaves with .on(...)."
            )

    @property
    def _axis(self) -> Axis:
        """The axes that number the groups, or that labels run along."""
        return self.axis if self.groups is None else self.groups.axis

    def members(self, x: Array) -> tuple[int, ...] | Labels:
        """The axes a group extends over, all but those that number the groups; or the labels."""
        if self.groups is not None:
            return self.groups
        return inside(self._axis, x.ndim)

    def group_lam(self, x: Array) -> Array:
        """lam times weights per group, in the shape of a group's total, or a scalar for all."""
        lam, members = jnp.asarray(self.lam), self.members(x)
        if lam.ndim and (isinstance(members, Labels) or any(lam.shape[a] != 1 for a in members)):
            owner = snake_name(type(self))
            raise ValueError(
                f"{owner}: `lam` has shape {lam.shape} and differs inside a group; give a scalar, and "
                "one factor per group as `weights`."
            )
        return lam if self.weights is None else lam * jnp.asarray(self.weights)

    def per_group(self, total_of: Array, strengths: Array) -> Array:
        """sum_g strengths_g * total_g; a scalar strength stays outside the sum."""
        if strengths.ndim == 0:
            return strengths * jnp.sum(total_of)
        # A weight of 0 is no penalty, also where the total has overflown.
        return jnp.sum(jnp.where(strengths > 0, strengths * total_of, 0))

    def ratio(self, needed: Array, strengths: Array) -> Array:
        """The largest needed_g / strengths_g: inf where there is need and no strength."""
        strengths = jnp.broadcast_to(strengths, needed.shape)
        found = jnp.where(strengths > 0, needed / jnp.where(strengths > 0, strengths, 1), jnp.inf)
        return jnp.max(jnp.where(needed > 0, found, 0), initial=0.0)

    def fit_weights(self, weights: Any, x: Any, path: str) -> Array:
        """One factor per group, in the shape of a group's total."""
        weights, shape = jnp.asarray(weights, _tree.accumulator(x)), jnp.shape(x)
        numbering = [a % len(shape) for a in across(self._axis)]
        kept = tuple(n if a in numbering else 1 for a, n in enumerate(shape))
        wanted = tuple(shape[a] for a in numbering)
        if self.groups is not None:
            wanted = kept = (self.groups.count,)
        if weights.shape == kept or weights.ndim == 0:
            return weights
        if weights.shape != wanted:
            raise ValueError(
                f"{snake_name(type(self))}: `weights` has shape {weights.shape} on the leaf {path!r} "
                f"of shape {shape}; give a scalar or one per group, shape {wanted}."
            )
        # A tuple of axes may name them in any order.
        return jnp.transpose(weights, [int(i) for i in np.argsort(numbering)]).reshape(kept)


def group_norm(x: Array, groups: Axes) -> Array:
    """Euclidean norms per group whose gradient at 0 is 0 instead of NaN."""
    square = total(jnp.square(x), groups)
    # Guard the input of the root, not its output: else the gradient is 0 * inf.
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
