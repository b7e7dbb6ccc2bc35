"""What a group is: whole axes of an array, or coordinates that carry the same label.

An operator on groups needs three things of them: a total per group, a maximum per group, and a
number per group handed back to the group's coordinates. With these three, one formula serves rows,
columns, filters, and groups of unequal size.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["Axes", "Labels", "largest", "spread", "total"]


class Labels:
    """Groups by label: coordinates with the same label are one group.

    It is hashable, so it can be the static part of a penalty, and equal labels share a program.

    Args:
      values: integers [n] from 0 to G - 1, each of them used.
      axis: the axis that `values` run along, a group then having all of the other axes; None for
        labels of the flattened array.

    >>> groups = Labels(np.array([0, 1, 0]))
    >>> total(jnp.array([1.0, 2.0, 3.0]), groups).tolist()
    [4.0, 2.0]
    """

    def __init__(self, values: np.ndarray, axis: int | None = None):
        self.values = np.ascontiguousarray(values, np.int32).ravel()
        self.axis = axis
        self.sizes = np.bincount(self.values)
        # Equal groups in order are the rows of a matrix, and need no scatter.
        self.rows = bool(np.ptp(self.sizes) == 0 and np.all(np.diff(self.values) >= 0))
        self._key = (self.values.tobytes(), axis)
        self._hash = hash(self._key)

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(self.sizes)

    def size_in(self, shape: tuple[int, ...]) -> np.ndarray:
        """How many coordinates each group has in an array of this shape, [G]."""
        return self.sizes * (math.prod(shape) // max(len(self.values), 1))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Labels) and self._key == other._key

    def __repr__(self) -> str:
        along = "" if self.axis is None else f" along axis {self.axis}"
        return f"<{self.count} groups of {len(self.values)}{along}>"


Axes: TypeAlias = int | tuple[int, ...] | Labels | None
"""The axes a group extends over (None: all of them), or labels."""


def total(v: Array, groups: Axes) -> Array:
    """The sum over each group: with keepdims for axes, [G] for labels."""
    if not isinstance(groups, Labels):
        return jnp.sum(v, groups, keepdims=True)
    v = jnp.sum(v, _others(v, groups)) if groups.axis is not None else jnp.ravel(v)
    if groups.rows:
        return jnp.sum(v.reshape(groups.count, -1), 1)
    return jax.ops.segment_sum(v, groups.values, groups.count)


def largest(v: Array, groups: Axes) -> Array:
    """The maximum over each group of numbers >= 0, 0 for an empty one; shaped as in `total`."""
    if not isinstance(groups, Labels):
        return jnp.max(v, groups, keepdims=True, initial=0)
    v = jnp.max(v, _others(v, groups), initial=0) if groups.axis is not None else jnp.ravel(v)
    if groups.rows:
        return jnp.max(v.reshape(groups.count, -1), 1, initial=0)
    return jnp.maximum(jax.ops.segment_max(v, groups.values, groups.count), 0)


def spread(g: Array, groups: Axes, x: Array) -> Array:
    """One number per group, or one for all, as an array that broadcasts against `x`."""
    if not isinstance(groups, Labels) or jnp.ndim(g) == 0:
        return g
    width = len(groups.values) // groups.count
    each = jnp.repeat(g, width) if groups.rows else g[groups.values]
    if groups.axis is None:
        return each.reshape(x.shape)
    return jnp.expand_dims(each, _others(x, groups))


def _others(x: Array, groups: Labels) -> tuple[int, ...]:
    return tuple(a for a in range(x.ndim) if a != groups.axis % x.ndim)  # pyright: ignore
