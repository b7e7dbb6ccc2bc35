"""Operators of penalties that are not convex: less bias on large entries than the lasso.

Where the objective of a prox has two minimisers (at a jump) the smaller one in size is returned;
elsewhere each formula is the global minimiser. Each is written as `x` minus a correction, so that
a zero threshold is the identity to the last bit, and NaN stays NaN.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg.prox._common import floating, scaled_norm
from jaxreg.prox.elementwise import soft_threshold

__all__ = ["l0", "l1_minus_l2", "l_half", "l_two_thirds", "log_sum", "mcp", "scad"]


def mcp(x: ArrayLike, step: ArrayLike, lam: ArrayLike, gamma: ArrayLike) -> Array:
    """Firm threshold: 0 up to step * lam, `x` itself beyond gamma * lam, and a line in between.

    With step >= gamma the line is gone and entries jump from 0 to `x` at lam * sqrt(step * gamma).

    Args:
      x: any shape, floating.
      step: prox step times weights, >= 0, broadcastable to `x`. MCP is not linear in lam, so the
        two are not one threshold.
      lam: slope at 0, >= 0. Units of `x` (for unit steps).
      gamma: how far the bend reaches, > 0; the prox is single-valued for step < gamma.

    Returns:
      Array of the shape and dtype of `x`.

    Raises:
      TypeError: `x` is not floating.

    Source: Zhang (2010), eq. 2.1; the operator: Breheny & Huang (2011), section 2.
    >>> mcp(jnp.array([0.5, 1.5, 3.0]), 1.0, 1.0, 2.0).tolist()
    [0.0, 1.0, 3.0]
    """
    x = floating("mcp", x)
    step, lam, gamma = jnp.asarray(step), jnp.asarray(lam), jnp.asarray(gamma)
    slope = 1 - step / gamma
    firm = slope > 0
    line = soft_threshold(x, step * lam) / jnp.where(firm, slope, 1)
    cut = jnp.where(firm, gamma * lam, lam * jnp.sqrt(step * gamma))
    # 0 * |x| and not 0: NaN stays NaN, and the zero is never -0.
    below = jnp.where(firm, line, 0 * jnp.abs(x))
    return jnp.where((jnp.abs(x) > cut) | (lam == 0), x, below).astype(x.dtype)


def scad(x: ArrayLike, step: ArrayLike, lam: ArrayLike, gamma: ArrayLike) -> Array:
    """Soft threshold near 0, `x` itself beyond gamma * lam, and a line in between.

    With step >= gamma - 1 the line is gone and entries jump from the soft threshold to `x`.

    Args:
      x: any shape, floating.
      step: prox step times weights, >= 0, broadcastable to `x`.
      lam: slope at 0, >= 0. Units of `x` (for unit steps).
      gamma: where the bend ends, > 1; the prox is single-valued for step < gamma - 1.

    Returns:
      Array of the shape and dtype of `x`.

    Raises:
      TypeError: `x` is not floating.

    Source: Fan & Li (2001), eq. 2.8 for step 1; any step: Gong et al. (2013), appendix.
    >>> scad(jnp.array([0.5, 1.5, 2.9]), 1.0, 1.0, 3.7).tolist()
    [0.0, 0.5, 2.4294...]
    """
    x = floating("scad", x)
    step, lam, gamma = jnp.asarray(step), jnp.asarray(lam), jnp.asarray(gamma)
    slope = 1 - step / (gamma - 1)
    firm = slope > 0
    line = soft_threshold(x, step * lam * gamma / (gamma - 1)) / jnp.where(firm, slope, 1)
    inner = jnp.where(firm & (jnp.abs(x) > lam * (1 + step)), line, soft_threshold(x, step * lam))
    # Without a line: where keeping x costs as much as its soft threshold (or as 0, once that is 0).
    wide = jnp.sqrt(step * (gamma + 1))
    jump = lam * jnp.where(step <= gamma + 1, 0.5 * (gamma + 1 + step), wide)
    return jnp.where(jnp.abs(x) > jnp.where(firm, gamma * lam, jump), x, inner).astype(x.dtype)


def log_sum(x: ArrayLike, threshold: ArrayLike, epsilon: ArrayLike) -> Array:
    """The prox of log(1 + |x| / epsilon): the larger root of a quadratic, or 0.

    Continuous for threshold <= epsilon^2; beyond, entries jump to 0, where both cost the same.

    Args:
      x: any shape, floating.
      threshold: step * lam, >= 0, broadcastable to `x`. Squared units of `x`.
      epsilon: > 0, the size below which the penalty is nearly |x| / epsilon. Units of `x`.

    Returns:
      Array of the shape and dtype of `x`.

    Raises:
      TypeError: `x` is not floating.

    Source: Prater-Bennette, Shen & Tripp (2022); in place of the root of their eq. 9 the two
    candidates' costs are compared, which needs no bisection.
    >>> log_sum(jnp.array([3.0, 0.5]), 1.0, 1.0).tolist()
    [2.73..., 0.0]
    """
    x = floating("log_sum", x)
    t, size = jnp.asarray(threshold), jnp.abs(x)
    # z = size - t / (z + epsilon), so (z + epsilon) = (reach + sqrt(reach^2 - 4 t)) / 2.
    reach = size + epsilon
    inside = 1 - 4 * (t / reach) / reach
    root = jnp.where(inside > 0, jnp.sqrt(jnp.where(inside > 0, inside, 1)), 0)
    gap = 2 * (t / reach) / (1 + root)
    z = jnp.maximum(size - gap, 0)
    cheaper = (inside >= 0) & (t * jnp.log1p(z / epsilon) < 0.5 * z * (size + gap))
    continuous = jnp.sqrt(t) <= epsilon
    kept = jnp.where(continuous, size >= t / epsilon, cheaper)
    # 0 * |x| and not 0: NaN stays NaN, and the zero is never -0.
    return jnp.where(kept, x - jnp.sign(x) * jnp.minimum(gap, size), 0 * size).astype(x.dtype)


def _cut(size: Array, cut: Array, threshold: Array) -> tuple[Array, Array, Array]:
    """Which entries die, and a threshold and a size to compute the others from without 0 / 0.

    At threshold 0 nothing dies, not even a 0: the derivative there is that of the identity.
    """
    dead = (size <= cut) & (threshold > 0)
    unused = dead | (size == 0)
    return dead, jnp.where(unused, 0, threshold), jnp.where(unused, 1, size)


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _over_power(threshold: Array, size: Array, power: float) -> Array:
    """threshold / size^power, without the overflow of that power or of its derivative."""
    limits = jnp.finfo(size.dtype)
    unit = lax.stop_gradient(jnp.clip(size, limits.tiny**0.6, limits.max**0.6))
    return threshold / unit**power * (size / unit) ** -power


def l_half(x: ArrayLike, threshold: ArrayLike) -> Array:
    """Half thresholding, the prox of sqrt|x|: 0 up to 3/2 * threshold^(2/3), then a jump.

    Args:
      x: any shape, floating.
      threshold: step * lam, >= 0, broadcastable to `x`. Units of `x` to the power 3/2.

    Returns:
      Array of the shape and dtype of `x`; entries that survive keep at least 2/3 of their size.

    Raises:
      TypeError: `x` is not floating.

    Source: Xu, Chang, Xu & Zhang (2012), theorem 1 (their lambda is 2 * threshold), with the cosine
    rewritten by the sine of the shift so that small thresholds do not cancel.
    >>> l_half(jnp.array([3.0, 1.4]), 1.0).tolist()
    [2.69..., 0.0]
    """
    x = floating("l_half", x)
    t, size = jnp.asarray(threshold), jnp.abs(_wide(x))
    dead, t, size = _cut(size, 1.5 * jnp.cbrt(t) ** 2, t)
    shift = 2 / 3 * jnp.arcsin(3**1.5 / 4 * _over_power(t, size, 1.5))
    gap = size / 3 * (2 * jnp.sin(shift / 2) ** 2 + math.sqrt(3) * jnp.sin(shift))
    return jnp.where(dead, 0, x - jnp.sign(x) * gap).astype(x.dtype)


def l_two_thirds(x: ArrayLike, threshold: ArrayLike) -> Array:
    """The prox of |x|^(2/3): 0 up to 2 * (2/3 * threshold)^(3/4), then a jump.

    Args:
      x: any shape, floating.
      threshold: step * lam, >= 0, broadcastable to `x`. Units of `x` to the power 4/3.

    Returns:
      Array of the shape and dtype of `x`; entries that survive keep at least half of their size.

    Raises:
      TypeError: `x` is not floating.

    Source: Cao, Sun & Xu (2013), section 3 (their lambda is 2 * threshold), with the quartic solved
    for the share kept, s = (z / x)^(1/3), which has no scale: s^4 - s + k = 0 and 0 <= k <= 0.4.
    >>> l_two_thirds(jnp.array([3.0, 1.4]), 1.0).tolist()
    [2.50..., 0.0]
    """
    x = floating("l_two_thirds", x)
    t, size = jnp.asarray(threshold), jnp.abs(_wide(x))
    dead, t, size = _cut(size, 2 * (2 / 3) ** 0.75 * jnp.sqrt(t) * jnp.sqrt(jnp.sqrt(t)), t)
    k = 2 / 3 * _over_power(t, size, 4 / 3)
    # Cardano for the resolvent m^3 - 4 k m - 1 = 0, which has one real root here.
    u = jnp.cbrt(0.5 + jnp.sqrt(0.25 - 64 / 27 * k**3))
    m = u + 4 * k / (3 * u)
    s = 0.5 * (jnp.sqrt(m) + jnp.sqrt(2 / jnp.sqrt(m) - m))
    return jnp.where(dead, 0, x - jnp.sign(x) * size * k / s).astype(x.dtype)


def l0(x: ArrayLike, threshold: ArrayLike) -> Array:
    """Hard thresholding, the prox of the count of nonzeros: 0 up to sqrt(2 * threshold), else `x`.

    Args:
      x: any shape, floating.
      threshold: step * lam, >= 0, broadcastable to `x`. Squared units of `x`; it is the price of a
        nonzero, and not the size at which entries are cut.

    Returns:
      Array of the shape and dtype of `x`.

    Raises:
      TypeError: `x` is not floating.

    Source: Blumensath & Davies (2008), section 2.
    >>> l0(jnp.array([3.0, -1.4]), 1.0).tolist()
    [3.0, 0.0]
    """
    x = floating("l0", x)
    t = jnp.asarray(threshold)
    dead, _, _ = _cut(jnp.abs(x), jnp.sqrt(2 * t), t)
    return jnp.where(dead, 0, x).astype(x.dtype)


def l1_minus_l2(x: ArrayLike, threshold: ArrayLike, l2_ratio: ArrayLike = 1.0) -> Array:
    """The prox of |x|_1 - l2_ratio * |x|_2 over the whole array, global though not convex.

    If an entry exceeds the threshold: soft-threshold, then lengthen by l2_ratio * threshold. Else
    the largest entry alone survives, soft-thresholded by (1 - l2_ratio) * threshold; of equally
    large ones the first.

    Args:
      x: any shape, floating; the array is one group.
      threshold: scalar, step * lam, >= 0. Units of `x`.
      l2_ratio: scalar from 0 (the lasso) to 1.

    Returns:
      Array of the shape and dtype of `x`.

    Raises:
      TypeError: `x` is not floating.

    Source: Lou & Yan (2018), lemma 1.
    >>> l1_minus_l2(jnp.array([4.0, 5.0, 0.5]), 1.0).tolist()
    [3.59..., 4.80..., 0.0]
    >>> l1_minus_l2(jnp.array([0.4, -0.5]), 1.0).tolist()
    [0.0, -0.5]
    """
    x = floating("l1_minus_l2", x)
    if x.size == 0:
        return x
    t, ratio, size = jnp.asarray(threshold), jnp.asarray(l2_ratio), jnp.abs(x)
    shrunk = soft_threshold(x, t)
    norm = scaled_norm(shrunk, None)
    dense = shrunk + ratio * t * (shrunk / jnp.where(norm == 0, 1, norm))
    first = (jnp.arange(x.size) == jnp.argmax(size)).reshape(x.shape)
    single = jnp.where(first, soft_threshold(x, (1 - ratio) * t), 0)
    return jnp.where((jnp.max(size) > t) | (t == 0), dense, single).astype(x.dtype)
