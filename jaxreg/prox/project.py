"""Projections of arrays onto sets: the prox of an indicator, the same for every step.

A set bounds a group of entries: all of `x`, or what extends over `axis`, as for
`group_soft_threshold`. With `step`, one per coordinate, "nearest" is meant in that metric,
sum (z - x)^2 / (2 step), and the answer is as exact as without.

optax projects whole arrays. Its clip is called here; the others are written out, per group and in
a metric, since a radius of 0 or inf, bfloat16, a zero group or entries of 1e-30 turn optax's into
NaN or an error.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from optax import projections

from jaxreg.prox._common import floating, wide
from jaxreg.prox._norm import scaled_norm
from jaxreg.prox._waterline import waterline
from jaxreg.prox.group import group_soft_threshold_metric

__all__ = ["cardinality", "l1_ball", "l2_ball", "linf_ball", "simplex", "unit_norm"]

Axes = tuple[int, ...] | int | None


def l2_ball(
    x: ArrayLike, radius: ArrayLike = 1.0, axis: Axes = None, *, step: ArrayLike | None = None
) -> Array:
    """Scale down each group whose Euclidean norm exceeds the radius: x * min(1, radius / |x|_2).

    Args:
      x: any shape, floating.
      radius: scalar or broadcastable to the norms taken with keepdims, >= 0. Units of `x`.
      axis: the axes a group extends over; None makes all of `x` one group.
      step: > 0, broadcastable to `x`: the metric, if it is not the Euclidean one.

    Returns:
      Array of the shape and dtype of `x`; a group inside its ball is `x` to the last bit.

    Raises:
      TypeError: `x` is not floating.

    Source: Parikh & Boyd (2014), section 6.5.1; in a metric by Moreau's identity from
    `group_soft_threshold_metric`.
    >>> l2_ball(jnp.array([[3.0, 4.0], [0.3, 0.4]]), 1.0, axis=1).round(3)
    Array([[0.6, 0.8], [0.3, 0.4]], dtype=float32)
    """
    dtype, x = floating("l2_ball", x).dtype, wide(x)
    norm, radius = scaled_norm(x, axis), jnp.asarray(radius)
    inside = (norm <= radius) | (norm == 0)
    if step is None or x.size == 0:
        # A factor of 1 keeps x to the last bit.
        factor = jnp.where(inside, 1, jnp.where(inside, 1, radius) / jnp.where(inside, 1, norm))
        return (x * factor).astype(dtype)
    inverse = 1 / _relative(x, step, axis)
    # The part that the projection removes is parallel, in the metric, to the point it leads to.
    normal = group_soft_threshold_metric(x * inverse, inverse, radius, axis)
    size = scaled_norm(normal, axis)
    moved = radius * (normal / jnp.where(size > 0, size, 1))
    return jnp.where(inside | (size == 0), x, moved).astype(dtype)


def unit_norm(x: ArrayLike, axis: Axes = None, *, step: ArrayLike | None = None) -> Array:
    """Give each group Euclidean norm 1: x / |x|_2. A zero group becomes constant, 1 / sqrt(n).

    Every unit vector is as near to a zero group as any other; the constant one has no side. In a
    metric the ties are the coordinates with the largest step.

    Args:
      x: any shape, floating.
      axis: the axes a group extends over; None makes all of `x` one group.
      step: > 0, broadcastable to `x`: the metric, if it is not the Euclidean one.

    Returns:
      Array of the shape and dtype of `x`.

    Raises:
      TypeError: `x` is not floating.

    Source: Lagrange's condition z = x / (1 + nu * step); in a metric nu is the smallest root, as
    for a trust region with a boundary solution (More & Sorensen 1983).
    >>> unit_norm(jnp.array([[3.0, 4.0], [0.0, 0.0]]), axis=1).round(3)
    Array([[0.6  , 0.8  ], [0.707, 0.707]], dtype=float32)
    """
    dtype, x = floating("unit_norm", x).dtype, wide(x)
    if x.size == 0:
        return x.astype(dtype)
    if step is None:
        # Not by a step of ones below: XLA would fold its reductions, for minutes at 10^7 entries.
        size = scaled_norm(x, axis)
        even = math.sqrt(size.size / x.size)
        return jnp.where(size == 0, even, x / jnp.where(size == 0, 1, size)).astype(dtype)
    inverse = 1 / _relative(x, step, axis)
    least = jnp.min(inverse, axis, keepdims=True)
    loosest, push = inverse <= least, x * inverse
    gap = jnp.where(loosest, 0, inverse - least)
    pulled = group_soft_threshold_metric(push, gap, 1.0, axis)
    size = scaled_norm(pulled, axis)
    # Nothing pulls the loosest coordinates: they take up what the others leave of the norm.
    rest = jnp.where(loosest, 0, push / jnp.where(loosest, 1, gap))
    others = lax.stop_gradient(scaled_norm(rest, axis))
    room = jnp.maximum(1 - others**2, 0) / jnp.sum(loosest, axis, keepdims=True)
    share = jnp.where(room > 0, jnp.sqrt(jnp.where(room > 0, room, 1)), 0)
    alone = jnp.where(jnp.isnan(x), x, jnp.where(loosest, share, rest))
    return jnp.where(size == 0, alone, pulled / jnp.where(size == 0, 1, size)).astype(dtype)


def linf_ball(x: ArrayLike, radius: ArrayLike = 1.0) -> Array:
    """Clip every entry to [-radius, radius]; the same in every diagonal metric.

    Args:
      x: any shape, floating.
      radius: scalar or broadcastable to `x`, >= 0. Units of `x`.

    Returns:
      Array of the shape and dtype of `x`.

    Raises:
      TypeError: `x` is not floating.

    Source: Parikh & Boyd (2014), section 6.2. The projection is optax's.
    >>> linf_ball(jnp.array([3.0, -0.5]), 1.0).tolist()
    [1.0, -0.5]
    """
    return projections.projection_linf_ball(floating("linf_ball", x), radius)


def l1_ball(
    x: ArrayLike, radius: ArrayLike = 1.0, axis: Axes = None, *, step: ArrayLike | None = None
) -> Array:
    """Soft-threshold each group whose absolute sum exceeds the radius, until it has that sum.

    Args:
      x: any shape, floating.
      radius: scalar or broadcastable to the sums taken with keepdims, >= 0. Units of `x`.
      axis: the axes a group extends over; None makes all of `x` one group.
      step: > 0, broadcastable to `x`: the metric, if it is not the Euclidean one.

    Returns:
      Array of the shape and dtype of `x`; a group inside its ball is `x` to the last bit.

    Raises:
      TypeError: `x` is not floating.

    Source: Duchi et al. (2008), section 4. A few passes over `x`.
    >>> l1_ball(jnp.array([3.0, -1.0, 0.5]), 3.0).round(3)
    Array([ 2.5, -0.5,  0. ], dtype=float32)
    """
    dtype, x = floating("l1_ball", x).dtype, wide(x)
    size, radius = jnp.abs(x), jnp.asarray(radius)
    inside = jnp.sum(size, axis, keepdims=True) <= radius
    # An unbounded ball is never left; the guard keeps inf out of the derivative.
    bound = jnp.where(jnp.isfinite(radius), radius, 1)
    left = simplex(size, bound, axis, step=step)
    moved = jnp.where(left > 0, jnp.sign(x) * left, 0 * left)  # a zero that is never -0
    return jnp.where(inside, x, moved).astype(dtype)


def simplex(
    x: ArrayLike, scale: ArrayLike = 1.0, axis: Axes = None, *, step: ArrayLike | None = None
) -> Array:
    """The nearest entries >= 0 with sum `scale`, group by group: max(x - level * step, 0).

    Args:
      x: any shape, floating.
      scale: scalar or broadcastable to the sums taken with keepdims, >= 0. Units of `x`.
      axis: the axes a group extends over; None makes all of `x` one group.
      step: > 0, broadcastable to `x`: the metric, if it is not the Euclidean one.

    Returns:
      Array of the shape and dtype of `x`.

    Raises:
      TypeError: `x` is not floating.

    Source: Held, Wolfe & Crowder (1974); the level by `waterline`, a few passes over `x`.
    >>> simplex(jnp.array([0.5, 0.3, -1.0])).round(3)
    Array([0.6, 0.4, 0. ], dtype=float32)
    """
    dtype, x = floating("simplex", x).dtype, wide(x)
    if x.size == 0:
        return x.astype(dtype)
    scale = wide(scale)
    safe = jnp.where(scale > 0, scale, 1)
    s = jnp.ones_like(x) if step is None else _relative(x, step, axis)
    # Only differences to the top count, and of these only such as are below the scale: so entries
    # of 1e30 lose no digits. A shift along the metric has no effect on the answer.
    ratio = x / s
    top = lax.stop_gradient(jnp.max(ratio, axis, keepdims=True))
    first = lax.stop_gradient(jnp.max(jnp.where(ratio == top, s, 0), axis, keepdims=True))
    weight = s / first
    near = jnp.maximum((ratio - top) * (first / safe), -2) * weight
    level = waterline(near, weight, 1.0, 0.0, axis, floor=-jnp.inf)
    unit = jnp.maximum(near - level * weight, 0)
    return jnp.where(scale > 0, safe * unit, 0 * x).astype(dtype)


def cardinality(
    x: ArrayLike, k: ArrayLike, axis: Axes = None, *, step: ArrayLike | None = None
) -> Array:
    """Keep the k largest entries of each group, by absolute value; of equal ones the first.

    Args:
      x: any shape, floating.
      k: how many, >= 0: scalar or broadcastable to the counts taken with keepdims. May be traced.
      axis: the axes a group extends over; None makes all of `x` one group.
      step: > 0, broadcastable to `x`: the metric; then what is kept is largest in |x| / sqrt(step).

    Returns:
      Array of the shape and dtype of `x`, with at most k entries per group that are not 0.

    Raises:
      TypeError: `x` is not floating.

    Source: Blumensath & Davies (2009), the operator H_K. One pass over `x` for each of its bits.
    >>> cardinality(jnp.array([3.0, -4.0, 0.5]), 2).tolist()
    [3.0, -4.0, 0.0]
    """
    x = floating("cardinality", x)
    if x.size == 0:
        return x
    score = jnp.abs(x) if step is None else jnp.abs(x) / jnp.sqrt(_relative(x, step, axis))
    score, k = lax.stop_gradient(score), jnp.asarray(k).astype(jnp.int32)
    cut = _kth_largest(score, k, axis)
    above, tied = score > cut, score == cut
    room = k - jnp.sum(above, axis, keepdims=True)
    crowded = (jnp.sum(tied, axis, keepdims=True) > room) & (cut > 0)
    # Ties are rare, and to count them in order takes longer than all the rest.
    first = lambda: above | (tied & (_count_in_order(tied, axis) <= room))
    keep = lax.cond(jnp.any(crowded), first, lambda: above | tied)
    return jnp.where(keep | jnp.isnan(x), x, 0).astype(x.dtype)


def _kth_largest(score: Array, k: Array, axis: Axes) -> Array:
    """The k-th largest of numbers >= 0 per group, with keepdims; 0 for k > n, NaN for k < 1.

    Such numbers are ordered as their bits are, so the answer is found bit by bit from the highest: it is
    set if k numbers reach that far. One pass a bit, where a sort takes as long as two hundred.
    """
    bits = jnp.finfo(score.dtype).bits
    integer = jnp.dtype(f"uint{bits}")
    ordered = lax.bitcast_convert_type(score, integer)

    def settle(i: Array, low: Array) -> Array:
        higher = low | jnp.left_shift(jnp.ones((), integer), (bits - 2 - i).astype(integer))
        return jnp.where(jnp.sum(ordered >= higher, axis, keepdims=True) >= k, higher, low)

    low = jnp.zeros_like(jnp.max(ordered, axis, keepdims=True))
    return lax.bitcast_convert_type(lax.fori_loop(0, bits - 1, settle, low), score.dtype)


def _count_in_order(marked: Array, axis: Axes) -> Array:
    """How many of a group are `marked` up to each entry, itself included."""
    axes = (
        tuple(range(marked.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    )
    last = tuple(range(marked.ndim - len(axes), marked.ndim))
    rows = jnp.moveaxis(marked, axes, last)
    n = math.prod(marked.shape[a] for a in axes)
    count = jnp.cumsum(rows.reshape(-1, n), -1).reshape(rows.shape)
    return jnp.moveaxis(count, last, axes)


def _relative(x: Array, step: ArrayLike, axis: Axes) -> Array:
    """Steps over the largest of their group: only ratios count. A step of 0 becomes a tiny one."""
    step = jnp.broadcast_to(jnp.asarray(step, x.dtype), x.shape)
    top = jnp.max(step, axis, keepdims=True, initial=0)
    least = float(jnp.finfo(x.dtype).eps) ** 2
    return jnp.maximum(step / jnp.where(top > 0, top, 1), least)
