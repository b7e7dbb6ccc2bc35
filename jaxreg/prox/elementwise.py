"""Operators that act entry by entry."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg.prox._common import floating

__all__ = ["elastic_net", "huber", "shrink", "soft_threshold"]


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
    x = floating("soft_threshold", x)
    t = jnp.asarray(threshold)
    # Strictly below: then the derivative at x = threshold = 0 is that of the identity, and the
    # zero is never -0. NaN compares false and stays NaN.
    return jnp.where(jnp.abs(x) < t, 0, x - jnp.sign(x) * t).astype(x.dtype)


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
    x = floating("shrink", x)
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


def huber(x: ArrayLike, threshold: ArrayLike, delta: ArrayLike) -> Array:
    """Scale small entries, shift large ones: the prox of Huber's function with slope 1.

    Entries up to delta + threshold are multiplied by delta / (delta + threshold), larger ones lose
    the threshold. As delta goes to 0 it becomes the soft threshold.

    Args:
      x: any shape, floating.
      threshold: step * lam, >= 0, broadcastable to `x`. Units of `x`.
      delta: where the parabola x^2 / (2 delta) meets the line |x| - delta / 2, > 0. Units of `x`.

    Returns:
      Array of the shape and dtype of `x`. Nothing becomes exactly 0.

    Raises:
      TypeError: `x` is not floating.

    Source: Beck (2017), example 6.66, for threshold 1.
    >>> huber(jnp.array([4.0, 1.0]), 1.0, 1.0).tolist()
    [3.0, 0.5]
    """
    x = floating("huber", x)
    t, delta = jnp.asarray(threshold), jnp.asarray(delta)
    small = jnp.abs(x) <= delta + t
    return jnp.where(small, x * (delta / (delta + t)), x - jnp.sign(x) * t).astype(x.dtype)
