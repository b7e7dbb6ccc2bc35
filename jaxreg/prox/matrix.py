"""Operators that act on singular values: the last two axes of `x` are a matrix, the others a batch.

For a penalty of the singular values alone, R(X) = r(s), the prox keeps the singular vectors:

    prox_R(U diag(s) V^T) = U diag(prox_r(s)) V^T

for any r that is symmetric in the values and even in each, convex or not, by von Neumann's trace
inequality (Lewis 1995; Parikh & Boyd 2014, section 6.7.2). So each operator is one SVD,
O(m n min(m, n)), and a map on the values; the derivatives are finite at ties and zeros.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg.prox import elementwise, maximum, nonconvex
from jaxreg.prox._common import floating, wide
from jaxreg.prox._spectral import Rule, map_values

__all__ = ["log_det", "low_rank", "nuclear", "orthogonal", "spectral_ball", "spectral_norm"]


def nuclear(x: ArrayLike, threshold: ArrayLike) -> Array:
    """Soft-threshold the singular values: the prox of their sum, the nuclear norm.

    Args:
      x: [..., m, n], floating.
      threshold: scalar or broadcastable to [..., 1, 1], >= 0. Units of `x`.

    Returns:
      Array of the shape and dtype of `x`, of lower rank up to rounding; where all singular values
      are <= threshold it is exactly 0.

    Raises:
      TypeError: `x` is not floating. ValueError: it has fewer than two axes.

    Source: Cai, Candes & Shen (2010), theorem 2.1.
    >>> jnp.diag(nuclear(jnp.diag(jnp.array([3.0, 0.5])), 1.0)).round(3)
    Array([2., 0.], dtype=float32)
    """
    return _apply("nuclear", _NUCLEAR, x, _per_value(threshold))


def log_det(x: ArrayLike, threshold: ArrayLike, epsilon: ArrayLike) -> Array:
    """The prox of sum log(1 + s / epsilon) over the singular values; see `log_sum`.

    Args:
      x: [..., m, n], floating.
      threshold: scalar or broadcastable to [..., 1, 1], >= 0. Squared units of `x`.
      epsilon: likewise, > 0. Units of `x`.

    Returns:
      Array of the shape and dtype of `x`; a global minimiser. Single-valued, and continuous in `x`,
      for threshold <= epsilon^2.

    Raises:
      TypeError: `x` is not floating. ValueError: it has fewer than two axes.

    Source: Lu, Zhu, Xu, Yan & Lin (2015), theorem 1, with the scalar prox of `log_sum`.
    >>> jnp.diag(log_det(jnp.diag(jnp.array([3.0, 0.5])), 1.0, 1.0)).round(3)
    Array([2.732, 0.   ], dtype=float32)
    """
    return _apply("log_det", _LOG_DET, x, _per_value(threshold), _per_value(epsilon))


def spectral_norm(x: ArrayLike, threshold: ArrayLike) -> Array:
    """Clip the singular values at the height that removes `threshold` in all: the prox of the largest.

    Args:
      x: [..., m, n], floating.
      threshold: scalar or broadcastable to [..., 1, 1], >= 0. Units of `x`.

    Returns:
      Array of the shape and dtype of `x`; exactly 0 where the singular values sum to <= threshold.

    Raises:
      TypeError: `x` is not floating. ValueError: it has fewer than two axes.

    Source: Parikh & Boyd (2014), section 6.7.2: the prox of the maximum, `linf`.
    >>> jnp.diag(spectral_norm(jnp.diag(jnp.array([3.0, 2.5])), 1.5)).round(3)
    Array([2., 2.], dtype=float32)
    """
    return _apply("spectral_norm", _SPECTRAL_NORM, x, _per_value(threshold))


def orthogonal(x: ArrayLike, threshold: ArrayLike) -> Array:
    """Pull the singular values towards 1: the prox of |X^T X - I|_F^2 / 2, the sum of (s^2 - 1)^2 / 2.

    Each value moves to the largest root of z + 2 threshold (z^3 - z) = s. Not convex, and yet
    single-valued but for a singular value that is 0 while threshold > 1/2: then there is no nearest
    direction, and the one that the SVD gives is taken.

    Args:
      x: [..., m, n], floating.
      threshold: scalar or broadcastable to [..., 1, 1], >= 0. Dimensionless for unit scale of `x`.

    Returns:
      Array of the shape and dtype of `x`; a global minimiser.

    Raises:
      TypeError: `x` is not floating. ValueError: it has fewer than two axes.

    Source: derived here; convex and rising in z beyond the root, so Newton from above converges.
    >>> jnp.diag(orthogonal(jnp.diag(jnp.array([2.0, 1.0])), 0.5))  # cbrt(2) and 1
    Array([1.2599..., 1.       ], dtype=float32)
    """
    return _apply("orthogonal", _ORTHOGONAL, x, _per_value(threshold))


def spectral_ball(x: ArrayLike, radius: ArrayLike) -> Array:
    """Clip the singular values at the radius: the projection on {largest singular value <= radius}.

    Args:
      x: [..., m, n], floating.
      radius: scalar or broadcastable to [..., 1, 1], >= 0. Units of `x`.

    Returns:
      Array of the shape and dtype of `x`; a matrix inside is `x` to the last bit.

    Raises:
      TypeError: `x` is not floating. ValueError: it has fewer than two axes.

    Source: Parikh & Boyd (2014), section 6.7.2.
    >>> jnp.diag(spectral_ball(jnp.diag(jnp.array([3.0, 0.5])), 1.0)).round(3)
    Array([1. , 0.5], dtype=float32)
    """
    return _apply("spectral_ball", _BALL, x, _per_value(radius))


def low_rank(x: ArrayLike, rank: ArrayLike) -> Array:
    """The nearest matrix of at most this rank: the SVD cut off after `rank` values.

    Args:
      x: [..., m, n], floating.
      rank: scalar or broadcastable to [..., 1, 1], >= 0. May be traced.

    Returns:
      Array of the shape and dtype of `x`.

    Raises:
      TypeError: `x` is not floating. ValueError: it has fewer than two axes.

    Source: Eckart & Young (1936).
    >>> jnp.diag(low_rank(jnp.diag(jnp.array([4.0, 2.0, 1.0])), 2))
    Array([4., 2., 0.], dtype=float32)
    """
    return _apply("low_rank", _LOW_RANK, x, _per_value(rank))


def _apply(name: str, rule: Rule, x: ArrayLike, *args: Array) -> Array:
    x = floating(name, x)
    if x.ndim < 2:
        raise ValueError(
            f"{name}: `x` must have at least two axes, got shape {x.shape}; the last two are a matrix."
        )
    if x.size == 0:
        return x
    matrix = wide(x)
    return map_values(rule, matrix, tuple(a.astype(matrix.dtype) for a in args)).astype(x.dtype)


def _alone(s: Array, *args: Array) -> tuple[Array, ...]:
    """The values do not know of each other."""
    del s
    return args


def _height(s: Array, threshold: Array) -> tuple[Array]:
    """What is left of the largest value, once `threshold` is taken off the largest ones in all."""
    return (maximum.linf(s, threshold, axis=-1)[..., :1],)


def _first(s: Array, rank: Array) -> tuple[Array]:
    return ((jnp.arange(s.shape[-1], dtype=jnp.result_type(rank)) < rank).astype(s.dtype),)


def _clip(s: Array, height: Array) -> Array:
    return jnp.clip(s, -height, height)


def _quartic(s: Array, threshold: Array) -> Array:
    """The largest root z of 2 c z^3 + (1 - 2 c) z = s, c the threshold; odd in s.

    Newton falls monotonically from any point above the root, where the left side is convex and
    rising, and the start is at most twice the root: eight steps are at rounding.
    """
    c, size = jnp.broadcast_arrays(threshold, jnp.abs(s))
    linear = 1 - 2 * c

    def newton(z, c, size):
        cube = 2 * c * z * z
        below = 3 * cube + (1 - 2 * c)
        return jnp.where(below > 0, (2 * cube * z + size) / jnp.where(below > 0, below, 1), z)

    still_c, still_size = jax.lax.stop_gradient((c, size))
    double = jnp.where(c > 0, 2 * still_c, 1)
    cubic = jnp.where(c > 0, jnp.cbrt(still_size) / jnp.cbrt(double), jnp.inf)
    line = jnp.where(linear > 0, still_size / jnp.where(linear > 0, linear, 1), jnp.inf)
    edge = jnp.where(linear < 0, jnp.sqrt(jnp.where(linear < 0, -linear / double, 1)), 0)
    start = jax.lax.stop_gradient(jnp.where(linear > 0, jnp.minimum(cubic, line), edge + cubic))
    z = jax.lax.fori_loop(0, 8, lambda _, z: newton(z, still_c, still_size), start)
    # One step more carries the derivative of the implicit function.
    return jnp.where(s < 0, -1, 1) * newton(jax.lax.stop_gradient(z), c, size)


_NUCLEAR = Rule(elementwise.soft_threshold, _alone)
_LOG_DET = Rule(nonconvex.log_sum, _alone)
_SPECTRAL_NORM = Rule(_clip, _height)
_ORTHOGONAL = Rule(_quartic, _alone)
_BALL = Rule(_clip, _alone)
_LOW_RANK = Rule(lambda s, mask: s * mask, _first)


def _per_value(value: ArrayLike) -> Array:
    """From [..., 1, 1] to [..., 1], to go with singular values; a scalar stays."""
    value = jnp.asarray(value)
    return value[..., 0] if value.ndim else value
