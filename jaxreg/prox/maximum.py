"""Operators of the maximum norm, of the squared l1 norm and of LassoNet: three waterlines.

Each of them cuts or shrinks the entries of a group at a level that all of the group decides. The level
is the root of one equation, `jaxreg.prox._waterline`, found without a sort; with labels the groups
may be of unequal size.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg.prox._common import floating, wide
from jaxreg.prox._groups import Axes, largest, spread
from jaxreg.prox._norm import scaled_norm
from jaxreg.prox._waterline import waterline
from jaxreg.prox.elementwise import soft_threshold

__all__ = ["exclusive", "hierarchical", "linf"]


def linf(
    x: ArrayLike, threshold: ArrayLike, axis: Axes = None, *, step: ArrayLike | None = None
) -> Array:
    """Cut the largest entries of each group to one level: the prox of max |x|.

    z = clip(x, -tau, tau), where what is cut off adds up to the threshold, sum (|x| - tau)+ =
    threshold; a group whose absolute sum is <= threshold is exactly 0. By Moreau's identity it is
    x less its projection onto the l1 ball.

    Args:
      x: any shape, floating.
      threshold: scalar or broadcastable to the groups' totals with keepdims ([G] with labels), >= 0.
        Units of `x`.
      axis: the axes a group extends over, or `Labels`; None makes all of `x` one group.
      step: for another metric, broadcastable to `x`, >= 0: then z minimises
        threshold * max |z| + sum (z - x)^2 / (2 step).

    Returns:
      Array of the shape and dtype of `x`. A few passes over `x`, each linear.

    Raises:
      TypeError: `x` is not floating.

    Source: Parikh & Boyd (2014), section 6.5.2; Condat (2016) for the level.
    >>> linf(jnp.array([3.0, -2.0, 0.5]), 2.0).tolist()
    [1.5, -1.5, 0.5]
    """
    x = floating("linf", x)
    y, t = wide(x), wide(threshold)
    # No arrays of ones and zeros: XLA would fold their reductions, half a minute at 10^7 entries.
    size, inverse, least = jnp.abs(y), jnp.ones((), y.dtype), None
    if step is not None:
        step = jnp.broadcast_to(wide(step), x.shape)
        inverse = jnp.where(step > 0, 1 / jnp.where(step > 0, step, 1), 0)
        # A coordinate with step 0 stays where it is, and the level above it.
        least = largest(jnp.where(step > 0, 0, size), axis)
    level = waterline(size * inverse, inverse, t, 0.0, axis)
    level = spread(level if least is None else jnp.maximum(level, least), axis, y)
    cut = (size > level) & (spread(t, axis, y) > 0)
    # A product with a sign would make -0 of a level of 0.
    return jnp.where(cut, jnp.where(level > 0, jnp.sign(y) * level, 0), y).astype(x.dtype)


def exclusive(x: ArrayLike, threshold: ArrayLike, axis: Axes = None) -> Array:
    """Soft-threshold by threshold times the l1 norm of the result: the prox of |x|_1^2 / 2.

    Entries of a group compete: the larger the sum, the more each of them loses. No group becomes 0
    as a whole.

    Args:
      x: any shape, floating.
      threshold: scalar or broadcastable to `x`, >= 0 (step * lam, so a diagonal metric is covered).
        Dimensionless.
      axis: the axes a group extends over, or `Labels`; None makes all of `x` one group.

    Returns:
      Array of the shape and dtype of `x`. A few passes over `x`, each linear.

    Raises:
      TypeError: `x` is not floating.

    Source: Kowalski, Sparse regression using mixed norms (2009).
    >>> exclusive(jnp.array([3.0, -1.0]), 0.5).tolist()  # |z|_1 = 2: both lose 0.5 * 2
    [2.0, 0.0]
    """
    x = floating("exclusive", x)
    y, t = wide(x), wide(threshold)
    # What is left of an entry, |y| / (1 + t) at most, is then below the last bit that the sum can tell.
    gone = t * jnp.finfo(y.dtype).eps > 1
    y, t = jnp.where(gone, 0 * y, y), jnp.where(gone, 1, t)
    norm = waterline(jnp.abs(y), t, 0.0, 1.0, axis)
    return soft_threshold(y, t * spread(norm, axis, y)).astype(x.dtype)


def hierarchical(
    skip: ArrayLike,
    weights: ArrayLike,
    threshold: ArrayLike,
    M: ArrayLike,
    *,
    steps: tuple[ArrayLike, ArrayLike] | None = None,
) -> tuple[Array, Array]:
    """LassoNet's Hier-Prox: shrink a feature's skip weights, and bound its layer weights by them.

    The global minimiser, feature by feature, of
        threshold * |b|_2 + |b - skip|^2 / 2 + |W - weights|^2 / 2   with   |W_k| <= M * |b|_2.
    The size of b is where M times the layer weights cut off balances what b has lost.

    Args:
      skip: [d] or [d, o], floating: the weights of the skip connection, a row per feature.
      weights: [d, k], floating: the first layer's weights, a row per feature.
      threshold: scalar or [d, 1], >= 0. Units of `skip`.
      M: scalar or [d, 1], >= 0: how much larger than its skip weights a layer weight may be. At 0 the
        layer is off; the larger, the less linear.
      steps: for another metric, one step for `skip` (scalar or [d, 1]) and one for `weights`
        (broadcastable to it); the squares are then over 2 * step, and `threshold` is lam alone.

    Returns:
      `skip` and `weights` after the prox, in their shapes and dtypes: a feature is exactly 0 in both
      or in neither.

    Raises:
      TypeError: an array is not floating.

    Source: Lemhadri, Ruan, Abraham & Tibshirani, LassoNet (2021): their Hier-Prox, which sorts. A
    feature whose skip weights are all 0 is taken to lie on their positive diagonal.
    >>> b, W = hierarchical(jnp.array([2.0, 0.1]), jnp.array([[3.0], [0.1]]), 1.0, 1.0)
    >>> b.tolist(), W.tolist()
    ([2.0, 0.0], [[2.0], [0.0]])
    """
    skip, weights = floating("hierarchical", skip), floating("hierarchical", weights)
    v, u = wide(skip).reshape(skip.shape[0], -1), wide(weights)
    t, M = wide(threshold), wide(M)
    step_v, step_u = (jnp.ones(()), jnp.ones(())) if steps is None else map(wide, steps)
    norm = scaled_norm(v, 1)
    size = waterline(M * jnp.abs(u) / step_u, M**2 / step_u, t - norm / step_v, 1 / step_v, 1)
    unit = jnp.where(norm > 0, v / jnp.where(norm > 0, norm, 1), v.shape[1] ** -0.5)
    b = jnp.where(size > 0, unit * size, 0).reshape(skip.shape)
    W = jnp.where(size > 0, jnp.clip(u, -M * size, M * size), 0)
    return b.astype(skip.dtype), W.astype(weights.dtype)
