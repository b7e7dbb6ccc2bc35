"""Operators that act on groups of entries through their norms."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg.prox._common import floating
from jaxreg.prox._groups import Axes, largest, spread, total
from jaxreg.prox._norm import scale, scaled_norm
from jaxreg.prox.elementwise import soft_threshold

__all__ = ["group_soft_threshold", "group_soft_threshold_metric"]


def group_soft_threshold(
    x: ArrayLike, threshold: ArrayLike, axis: Axes = None, *, entries: ArrayLike | None = None
) -> Array:
    """Shrink each group's Euclidean norm: x * max(1 - threshold / |x|_2, 0).

    With `entries`, of what soft-thresholding each entry by it leaves: the prox of entries * |x|_1 +
    threshold * |x|_2.

    Args:
      x: any shape, floating.
      threshold: scalar or broadcastable to the norms taken with keepdims ([G] with labels), >= 0.
        Units of `x`.
      axis: the axes a group extends over; None makes all of `x` one group. Groups of unequal size
        are given as `Labels`.
      entries: a threshold for each entry, >= 0, broadcastable to `x`. Units of `x`.

    Returns:
      Array of the shape and dtype of `x`; a group with norm <= threshold is exactly 0.

    Raises:
      TypeError: `x` is not floating.

    Source: Parikh & Boyd (2014), section 6.5.1; with `entries` Simon, Friedman, Hastie & Tibshirani
    (2013), section 2.3.
    >>> group_soft_threshold(jnp.array([[3.0, 4.0], [0.3, 0.4]]), 1.0, axis=1).tolist()
    [[2.4..., 3.2...], [0.0, 0.0]]
    """
    x = floating("group_soft_threshold", x)
    size = scaled_norm(x, axis, entries)
    left = x if entries is None else soft_threshold(x, entries)
    # In units of the norm itself: the derivative of a quotient squares what it divides by.
    unit = lax.stop_gradient(jnp.where((size > 0) & jnp.isfinite(size), size, 1))
    ratio = size / unit
    # A zero group divides by one instead of zero: 0/0 would make it NaN at threshold 0.
    factor = jnp.maximum(ratio - threshold / unit, 0) / jnp.where(ratio == 0, 1, ratio)
    return (left * spread(factor, axis, x)).astype(x.dtype)


def group_soft_threshold_metric(
    x: ArrayLike, step: ArrayLike, lam: ArrayLike, axis: Axes = None
) -> Array:
    """The group prox in a diagonal metric: argmin_z lam*|z|_2 + sum (z - x)^2 / (2 step).

    The minimiser is z = x * nu / (nu + t) with t = step * lam, where nu = |z|_2 solves the secular
    equation |x / (nu + t)|_2 = 1; it is 0 exactly when |x / step|_2 <= lam. A coordinate with step 0
    stays, and keeps its group from 0 unless it is 0 itself.

    Args:
      x: any shape, floating.
      step: broadcastable to `x`, >= 0: one step per coordinate.
      lam: scalar or broadcastable to the norms taken with keepdims ([G] with labels), >= 0.
      axis: the axes a group extends over, or `Labels`; None makes all of `x` one group.

    Returns:
      Array of the shape and dtype of `x`.

    Raises:
      TypeError: `x` is not floating.

    Source: optimality condition of the problem above; the secular equation and its Newton
    iteration are those of a trust region (More & Sorensen 1983, section 3).
    >>> x = jnp.array([3.0, 4.0])
    >>> group_soft_threshold_metric(x, jnp.array([1.0, 1.0]), 1.0).tolist()  # equal steps
    [2.4..., 3.2...]
    """
    x = floating("group_soft_threshold_metric", x)
    lam = jnp.asarray(lam, x.dtype)
    step = jnp.broadcast_to(jnp.asarray(step, x.dtype), x.shape)
    if x.size == 0:
        return x
    held = jnp.where(x == 0, 0, jnp.inf)
    dual = scaled_norm(jnp.where(step > 0, x / jnp.where(step > 0, step, 1), held), axis)
    alive = dual > lam
    # In units of the largest entry: the derivative of a quotient squares what it divides by.
    top = spread(scale(x, axis), axis, x)
    t = step * spread(lam, axis, x) / top
    nu = spread(_secular_root(x / top, t, alive, axis), axis, x)
    factor = nu / jnp.where(nu + t > 0, nu + t, 1)
    return jnp.where(spread(alive, axis, x), x * factor, 0).astype(x.dtype)


def _secular_root(x: Array, t: Array, alive: Array, axis: Axes) -> Array:
    """nu >= 0 with |x / (nu + t)|_2 = 1 for the groups that are `alive`, one per group.

    Newton on the reciprocal norm, which is concave, rises monotonically from the left. No ratio
    exceeds 1 from max(|x| - t) on, so nothing overflows; with entries and steps spread over sixteen
    decades the worst of 20,000 draws was at rounding after fourteen steps (ten left 1e-2).
    """

    def rise(nu, x, t):
        gap = spread(nu, axis, x) + t
        gap = jnp.where(gap > 0, gap, 1)
        ratio = x / gap
        square, cube = total(ratio**2, axis), total(ratio**2 / gap, axis)
        square, cube = (jnp.where(alive & (cube > 0), s, 1) for s in (square, cube))
        return square * (jnp.sqrt(square) - 1) / cube

    still_x, still_t = lax.stop_gradient((x, t))
    low = jnp.maximum(
        largest(jnp.abs(still_x) - still_t, axis),
        scaled_norm(still_x, axis) - largest(still_t, axis),
    )
    low = jnp.maximum(low, 0)
    nu = lax.fori_loop(0, 16, lambda _, nu: jnp.maximum(nu + rise(nu, still_x, still_t), low), low)
    # One step more at the root carries the derivative of the implicit function, at no loop's cost.
    return jnp.maximum(nu, 0) + rise(nu, x, t)
