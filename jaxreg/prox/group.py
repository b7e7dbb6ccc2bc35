"""Operators that act on groups of entries through their norms."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg.prox._common import floating, scaled_norm

__all__ = ["group_soft_threshold", "group_soft_threshold_metric"]


def group_soft_threshold(
    x: ArrayLike, threshold: ArrayLike, axis: tuple[int, ...] | int | None = None
) -> Array:
    """Shrink each group's Euclidean norm: x * max(1 - threshold / |x|_2, 0).

    Args:
      x: any shape, floating.
      threshold: scalar or broadcastable to the norms taken with keepdims, >= 0. Units of `x`.
      axis: the axes a group extends over; None makes all of `x` one group.

    Returns:
      Array of the shape and dtype of `x`; a group with norm <= threshold is exactly 0.

    Raises:
      TypeError: `x` is not floating.

    Source: Parikh & Boyd (2014), section 6.5.1.
    >>> group_soft_threshold(jnp.array([[3.0, 4.0], [0.3, 0.4]]), 1.0, axis=1).tolist()
    [[2.4..., 3.2...], [0.0, 0.0]]
    """
    x = floating("group_soft_threshold", x)
    norm = scaled_norm(x, axis)
    # A zero group divides by one instead of zero: 0/0 would make it NaN at threshold 0.
    factor = jnp.maximum(norm - threshold, 0) / jnp.where(norm == 0, 1, norm)
    return (x * factor).astype(x.dtype)


def group_soft_threshold_metric(
    x: ArrayLike, step: ArrayLike, lam: ArrayLike, axis: tuple[int, ...] | int | None = None
) -> Array:
    """The group prox in a diagonal metric: argmin_z lam*|z|_2 + sum (z - x)^2 / (2 step).

    The minimiser is z = x * nu / (nu + step * lam), where nu = |z|_2 solves the secular equation
    |x / (nu + step * lam)|_2 = 1; it is 0 exactly when |x / step|_2 <= lam. Newton on the
    reciprocal norm rises monotonically to the root from the left and is at rounding in ten
    steps, whatever the spread of the metric.

    Args:
      x: any shape, floating.
      step: broadcastable to `x`, > 0: one step per coordinate.
      lam: scalar or broadcastable to the norms taken with keepdims, >= 0.
      axis: the axes a group extends over; None makes all of `x` one group.

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
    step = jnp.asarray(step, x.dtype)
    lam = jnp.asarray(lam, x.dtype)
    dual = scaled_norm(x / jnp.where(step > 0, step, 1), axis)
    alive = jnp.any(step > 0, axis, keepdims=True) & (dual > lam) & (lam > 0)
    norm = scaled_norm(x, axis)
    low = jnp.maximum(norm - lam * jnp.max(step, axis, keepdims=True), 0)

    def newton(_, nu):
        gap = nu + step * lam
        ratio = x / jnp.where(gap > 0, gap, 1)
        square = jnp.sum(ratio**2, axis, keepdims=True)
        cube = jnp.sum(ratio**2 / jnp.where(gap > 0, gap, 1), axis, keepdims=True)
        rise = jnp.where(alive, square * (jnp.sqrt(square) - 1) / jnp.where(cube > 0, cube, 1), 0)
        return jnp.maximum(nu + rise, low)

    nu = lax.fori_loop(0, 10, newton, low)
    gap = nu + step * lam
    moved = jnp.where(alive, x * nu / jnp.where(gap > 0, gap, 1), 0)
    return jnp.where(lam > 0, moved, x).astype(x.dtype)
