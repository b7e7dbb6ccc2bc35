"""Operators of total variation along one axis, exact and linear in the length.

    tv(z) = sum_i |z_{i+1} - z_i|

The prox solves the chain from left to right by dynamic programming: given its right neighbour, the best
z_i is that neighbour clipped to an interval [low_i, high_i], and the derivative of the cost so far is
piecewise linear, with two knots added per entry and each removed at most once. Going back, the
clips are applied; then each run's value is computed from its own entries, which also gives the
derivative.

Source: Johnson, A dynamic programming algorithm for the fused lasso and L0-segmentation (2013).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg.prox._common import floating, wide
from jaxreg.prox._lanes import along, one_line, pooled
from jaxreg.prox.elementwise import soft_threshold

__all__ = ["fused_lasso", "total_variation"]


def total_variation(
    x: ArrayLike, threshold: ArrayLike, axis: int = -1, *, step: ArrayLike | None = None
) -> Array:
    """Make each line piecewise constant: the prox of sum_i threshold_i * |z_{i+1} - z_i|.

    Args:
      x: floating; every line along `axis` is a signal of its own.
      threshold: scalar, or broadcastable to `x` with n - 1 instead of n along `axis`: one for each
        pair of neighbours, >= 0. Units of `x`.
      axis: the axis that neighbours are taken along.
      step: for another metric, broadcastable to `x`, >= 0: then z minimises
        sum threshold_i * |z_{i+1} - z_i| + sum (z - x)^2 / (2 step). Exact to rounding times the
        spread of the steps.

    Returns:
      Array of the shape and dtype of `x`; entries of a run are equal to the last bit. Linear in
      the number of entries; on an accelerator the lines run side by side, each in sequence.

    Raises:
      TypeError: `x` is not floating.

    Source: Johnson (2013); with weights also Barbero & Sra, Modular proximal optimization (2018).
    >>> total_variation(jnp.array([0.0, 0.0, 3.0, 3.0]), 0.5).tolist()
    [0.25, 0.25, 2.75, 2.75]
    """
    x = floating("total_variation", x)
    axis = axis % x.ndim
    if x.size == 0 or x.shape[axis] == 1:
        return x
    y = wide(x)
    t, step = (jnp.asarray(a, y.dtype) for a in (threshold, 1 if step is None else step))
    top = jnp.max(step)
    scale = lax.stop_gradient(jnp.where(top > 0, top, 1))
    # Only ratios of steps count. A step of 0 holds its entry: so stiff that only rounding moves it.
    stiff = jnp.broadcast_to(1 / jnp.maximum(step / scale, jnp.finfo(y.dtype).eps / 8), x.shape)
    edges = (*x.shape[:axis], x.shape[axis] - 1, *x.shape[axis + 1 :])
    # Far beyond what joins all entries, and small enough that no sum of them overflows.
    t = jnp.broadcast_to(jnp.minimum(t * scale, jnp.finfo(y.dtype).max ** 0.5), edges)
    z = along(_line, axis, y, stiff, t)
    return jnp.where(step > 0, z, y).astype(x.dtype)


def fused_lasso(
    x: ArrayLike, l1_threshold: ArrayLike, tv_threshold: ArrayLike, axis: int = -1
) -> Array:
    """Total variation's prox, then soft-thresholding: the prox of a |z|_1 + b tv(z).

    Args:
      x: floating; every line along `axis` is a signal of its own.
      l1_threshold: step times the strength of |z|_1, >= 0; equal for the entries of a line.
      tv_threshold: step times the strength of tv(z), as `threshold` of `total_variation`.
      axis: the axis that neighbours are taken along.

    Returns:
      Array of the shape and dtype of `x`.

    Raises:
      TypeError: `x` is not floating.

    Source: Friedman, Hastie, Hofling & Tibshirani, Pathwise coordinate optimization (2007): the two
    proxes compose exactly.
    >>> fused_lasso(jnp.array([0.0, 0.0, 3.0, 3.0]), 1.0, 0.5).tolist()
    [0.0, 0.0, 1.75, 1.75]
    """
    x = floating("fused_lasso", x)
    return soft_threshold(total_variation(wide(x), tv_threshold, axis), l1_threshold).astype(
        x.dtype
    )


def _line(x: Array, weights: Array, t: Array) -> Array:
    """The prox of one line: the runs by dynamic programming, then their values by a formula."""
    z = _chain(x, weights, t)
    first = jnp.concatenate([jnp.ones(1, int), (z[1:] != z[:-1]).astype(int)])
    # The jumps at its ends pull a run towards its neighbours; spread over the entries they are in
    # the mean that the run gets.
    pull = t * jnp.sign(jnp.diff(z))
    pull = jnp.pad(pull, (0, 1)) - jnp.pad(pull, (1, 0))
    return pooled(first, x + pull / weights, weights, z)


class _Cost(NamedTuple):
    """The derivative of the cost of the entries so far, as a function of the last of them.

    It is -before left of the first knot and +before right of the last; in between it is linear
    from knot to knot. `bends` are the changes of slope at the knots.
    """

    knots: Array
    bends: Array
    first: Array
    last: Array
    low: Array
    high: Array


@one_line
def _chain(x: Array, weights: Array, t: Array) -> Array:
    """argmin_z sum weights (z - x)^2 / 2 + sum t_i |z_{i+1} - z_i|, for one line [n]."""
    n = x.shape[0]
    none = jnp.zeros(1, x.dtype)
    before, after = jnp.concatenate([none, t]), jnp.concatenate([t, none])
    # An entry adds one knot on either side, so after all of them there is room for no more.
    room = jnp.zeros(2 * n + 2, x.dtype)
    start = _Cost(room, room, jnp.array(n), jnp.array(n - 1), x[0], x[0])
    _, bounds = lax.scan(_absorb, start, (x, weights, before, after))

    def back(right, bound):
        z = jnp.clip(right, *bound)
        return z, z

    # The last entry has no right neighbour: its bounds are both where the derivative is 0.
    return lax.scan(back, bounds[0][-1], bounds, reverse=True)[1]


def _absorb(cost: _Cost, entry: tuple[Array, ...]) -> tuple[_Cost, tuple[Array, Array]]:
    """Add weight (z - x)^2 / 2 to the cost and cut its derivative off at -after and at +after.

    Where that happens are the bounds that the entry is clipped to, and the two new knots.
    """
    x, weight, before, after = entry
    knots, bends, first, last, low, high = cost

    def right(walk):
        i, knot, value, slope = walk
        slope = slope + bends[i]
        ahead = jnp.where(i < last, knots[i + 1], knot)
        return i + 1, ahead, value + slope * (ahead - knot), slope

    walk = first, low, weight * (low - x) - before, weight
    i, knot, value, slope = lax.while_loop(
        lambda walk: (walk[0] <= last) & (walk[2] < -after), right, walk
    )
    low = jnp.where(i == first, x - (after - before) / weight, knot - (value + after) / slope)
    low = jnp.where(i > last, x - (after + before) / weight, low)
    knots, bends = knots.at[i - 1].set(low), bends.at[i - 1].set(slope)

    def left(walk):
        j, knot, value, slope = walk
        slope = slope - bends[j]
        ahead = jnp.where(j > i, knots[j - 1], knot)
        return j - 1, ahead, value - slope * (knot - ahead), slope

    walk = last, high, weight * (high - x) + before, weight
    j, knot, value, slope = lax.while_loop(
        lambda walk: (walk[0] >= i) & (walk[2] > after), left, walk
    )
    high = jnp.where((j < i) & (i == first), x + (after + before) / weight,
                     knot - (value - after) / slope)  # fmt: skip
    high = jnp.where(j == last, x + (after - before) / weight, high)
    high = jnp.maximum(high, low)
    knots, bends = knots.at[j + 1].set(high), bends.at[j + 1].set(-slope)
    return _Cost(knots, bends, i - 1, j + 1, low, high), (low, high)
