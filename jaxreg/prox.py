"""Proximal operators and projections as theorems: arrays in, arrays out.

    prox_f(x, t) = argmin_z  f(z) + |z - x|^2 / (2 t)

Every function takes the *threshold* `t * lam` already multiplied, so no convention about lam
can enter here; pytrees, selection and strengths live in the layers above.
Source: Parikh & Boyd, Proximal Algorithms (2014), chapter 6.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

__all__ = [
    "elastic_net",
    "group_soft_threshold",
    "group_soft_threshold_metric",
    "shrink",
    "soft_threshold",
]


def _floating(name: str, x: ArrayLike) -> Array:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name}: `x` must be a floating array, got dtype {x.dtype}; "
            "an integer prox would silently truncate. Cast it with x.astype(jnp.float32)."
        )
    return x


def soft_threshold(x: ArrayLike, threshold: ArrayLike) -> Array:
    """Shrink each entry towards zero: sign(x) * max(|x| - threshold, 0), the prox of |x|.

    Args:
      x: any shape, floating. Units of the parameters.
      threshold: scalar or broadcastable to `x`, >= 0 (step * lam). Same units as `x`.

    Returns:
      Array of the shape and dtype of `x`; entries with |x| <= threshold are exactly 0.

    Raises:
      TypeError: `x` is not floating.

    Source: Parikh & Boyd (2014), section 6.5.2.
    >>> soft_threshold(jnp.array([3.0, -0.5]), 1.0).tolist()
    [2.0, 0.0]
    """
    x = _floating("soft_threshold", x)
    # x minus its clipped self: one pass, and a zero that is never -0.
    return (x - jnp.clip(x, -jnp.asarray(threshold), threshold)).astype(x.dtype)


def shrink(x: ArrayLike, threshold: ArrayLike) -> Array:
    """Scale every entry down: x / (1 + threshold), the prox of x^2 / 2 (mind the half).

    Args:
      x: any shape, floating.
      threshold: scalar or broadcastable to `x`, >= 0 (step * lam). Dimensionless.

    Returns:
      Array of the shape and dtype of `x`. Nothing becomes exactly 0.

    Raises:
      TypeError: `x` is not floating.

    Source: Parikh & Boyd (2014), section 6.1.1.
    >>> shrink(jnp.array([3.0, -1.0]), 1.0).tolist()
    [1.5, -0.5]
    """
    x = _floating("shrink", x)
    return (x / (1 + jnp.asarray(threshold))).astype(x.dtype)


def elastic_net(x: ArrayLike, l1_threshold: ArrayLike, l2_threshold: ArrayLike) -> Array:
    """Soft-threshold, then scale: the prox of a*|x| + b*x^2/2 for the two thresholds a and b.

    Args:
      x: any shape, floating.
      l1_threshold: step times the strength of |x|, >= 0. Units of `x`.
      l2_threshold: step times the strength of x^2/2, >= 0. Dimensionless.

    Returns:
      Array of the shape and dtype of `x`.

    Raises:
      TypeError: `x` is not floating.

    Source: Parikh & Boyd (2014), section 6.5.3.
    >>> elastic_net(jnp.array([3.0, -0.5]), 1.0, 1.0).tolist()
    [1.0, 0.0]
    """
    return shrink(soft_threshold(x, l1_threshold), l2_threshold)


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
    x = _floating("group_soft_threshold", x)
    norm = _scaled_norm(x, axis)
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
    x = _floating("group_soft_threshold_metric", x)
    step = jnp.asarray(step, x.dtype)
    lam = jnp.asarray(lam, x.dtype)
    dual = _scaled_norm(x / jnp.where(step > 0, step, 1), axis)
    alive = jnp.any(step > 0, axis, keepdims=True) & (dual > lam) & (lam > 0)
    norm = _scaled_norm(x, axis)
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


def _scaled_norm(x: Array, axis) -> Array:
    """Euclidean norm with keepdims that neither over- nor underflows on huge or tiny entries."""
    if x.size == 0:
        return jnp.sqrt(jnp.sum(x * x, axis, keepdims=True))
    top = jnp.max(jnp.abs(x), axis, keepdims=True)
    top = lax.stop_gradient(jnp.where((top > 0) & jnp.isfinite(top), top, 1))
    square = jnp.sum((x / top) ** 2, axis, keepdims=True)
    # The input of the square root is guarded, so the derivative at a zero group is finite.
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0) * top
