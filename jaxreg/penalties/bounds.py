"""Bounds on every entry: indicators, whose value is 0 inside and inf outside.

Their prox is the projection, whatever the step. Gradients of an indicator say nothing (they are 0),
so bounds act through `proximal` only.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from optax import projections

from jaxreg._check import number, shown
from jaxreg._tree import PyTree, is_concrete
from jaxreg.penalties._constraint import Constraint
from jaxreg.penalty import Penalty

__all__ = ["box", "nonneg"]


class Interval(Constraint):
    """The indicator of low <= theta <= high, entry by entry, to the last bit."""

    @abc.abstractmethod
    def bounds(self) -> tuple[ArrayLike, ArrayLike]:
        """(low, high) on one leaf."""

    def holds(self, x: Array) -> Array:
        low, high = self.bounds()
        return jnp.all((low <= x) & (x <= high))

    def rest(self, x: Array, grad: Array) -> Array:
        low, high = self.bounds()
        held = jnp.where(x == low, jnp.minimum(grad, 0), grad)
        return jnp.where(x == high, jnp.maximum(held, 0), held)

    def leaf_conjugate(self, dual: Array) -> Array:
        low, high = self.bounds()
        end = jnp.where(dual > 0, high, low)
        # 0 * inf would be NaN where a side is open.
        return jnp.sum(jnp.where(dual == 0, 0, dual * jnp.where(dual == 0, 0, end)))


class Box(Interval):
    """The indicator of low <= theta <= high."""

    low: ArrayLike | PyTree
    high: ArrayLike | PyTree

    def bounds(self) -> tuple[ArrayLike, ArrayLike]:
        return self.low, self.high

    def leaf_prox(self, x: Array, step: Array) -> Array:
        del step
        return projections.projection_box(x, self.low, self.high)

    def on_leaves(self, params: PyTree) -> Iterator[tuple[str, Any, Any]]:
        # The bound is what the leaf's dtype makes of it: else a projected bfloat16 entry, rounded
        # to a neighbour of 0.1, would lie outside again.
        for path, x, leaf in super().on_leaves(params):
            low, high = (
                b.astype(jnp.result_type(x)).astype(b.dtype) for b in (leaf.low, leaf.high)
            )
            yield path, x, dataclasses.replace(leaf, low=low, high=high)

    def __repr__(self) -> str:
        return f"box({shown(self.low)}, {shown(self.high)})"


class Nonneg(Interval):
    """The indicator of theta >= 0."""

    one_sided = True

    def bounds(self) -> tuple[ArrayLike, ArrayLike]:
        return 0.0, jnp.inf

    def leaf_prox(self, x: Array, step: Array) -> Array:
        del step
        return projections.projection_non_negative(x)


def box(low: ArrayLike | PyTree = -np.inf, high: ArrayLike | PyTree = np.inf) -> Penalty:
    """The constraint low <= theta_i <= high as a penalty: 0 inside, inf outside; its prox clips.

    For weights that must stay in a range: clipped critics, quantised or physical parameters.

    Args:
      low: the least value: a scalar, a prefix pytree (per layer) or arrays (per coordinate); -inf,
        the default, leaves that side open. Units of the parameters. Bounds are leaves like
        strengths; both count as rounded to the dtype of the parameters.
      high: the largest value, in any of the same forms.

    Raises:
      ValueError: a bound is NaN, or `low` exceeds `high`. TypeError: it is no number.

    Source: Parikh & Boyd (2014), section 6.2.4. Cost: one pass. The projection is optax's.
    >>> import jaxreg as jr
    >>> jr.box(-1.0, 1.0).prox(jnp.array([3.0, -0.2]), 0.1).tolist()
    [1.0, -0.2...]
    """
    checked = number("box", "low", low), number("box", "high", high)
    for a, b in _meeting(*checked):
        if is_concrete(a) and is_concrete(b) and bool(np.any(np.asarray(a) > np.asarray(b))):
            raise ValueError(
                f"box: `low` must not exceed `high`, got {shown(low)} and {shown(high)}."
            )
    return Box(*checked)


def _meeting(low: PyTree, high: PyTree) -> list[tuple[Array, Array]]:
    """Bounds that meet on a leaf, as far as that is plain before the parameters are known."""
    lows, highs = jax.tree.leaves(low), jax.tree.leaves(high)
    if jax.tree.structure(low) == jax.tree.structure(0):
        lows = lows * len(highs)
    elif jax.tree.structure(high) == jax.tree.structure(0):
        highs = highs * len(lows)
    elif jax.tree.structure(low) != jax.tree.structure(high):
        return []
    return [(a, b) for a, b in zip(lows, highs) if a.shape == b.shape or not (a.ndim and b.ndim)]


def nonneg() -> Penalty:
    """The constraint theta_i >= 0 as a penalty: 0 inside, inf outside; its prox is max(theta, 0).

    For rates, scales and mixture weights, and for parts-based factors. With a strength as well use
    the keyword `nonneg` of `l1`, `l2` and the other separable penalties.

    Source: Parikh & Boyd (2014), section 6.2.4. Cost: one pass. The projection is optax's.
    >>> import jaxreg as jr
    >>> jr.nonneg().prox(jnp.array([3.0, -0.2]), 0.1).tolist()
    [3.0, 0.0]
    """
    return Nonneg()
