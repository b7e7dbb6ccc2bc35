"""Operators of penalties that are not convex: less bias on large entries than the lasso.

Where the objective of a prox has two minimisers (at a jump) the smaller one in size is returned;
elsewhere each formula is the global minimiser. Each is written as `x` minus a correction, so that
a zero threshold is the identity to the last bit, and NaN stays NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg.prox._common import floating
from jaxreg.prox._norm import scaled_norm
from jaxreg.prox._roots import inverse_cube_root, inverse_root
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

    Source: Prater-Bennette, Shen & Tripp (2022); the root of their eq. 9, where it jumps, by Newton.
    >>> log_sum(jnp.array([3.0, 0.5]), 1.0, 1.0).tolist()
    [2.73..., 0.0]
    """
    x = floating("log_sum", x)
    t, size = jnp.asarray(threshold), jnp.abs(x)
    dead = (size <= _log_sum_cut(lax.stop_gradient(t), epsilon)) & (t > 0)
    # z = size - t / (z + epsilon), and (z + epsilon) = (reach + sqrt(reach^2 - 4 t)) / 2.
    reach = size + epsilon
    inside = 1 - 4 * (t / reach) / reach
    root = jnp.where(inside > 0, jnp.sqrt(jnp.where(inside > 0, inside, 1)), 0)
    gap = jnp.minimum(2 * (t / reach) / (1 + root), size)
    return jnp.where(dead, 0, x - jnp.sign(x) * gap).astype(x.dtype)


def _log_sum_cut(t: Array, epsilon: ArrayLike) -> Array:
    """The size at which 0 and the larger root cost the same, or t / epsilon if there is no jump.

    With u = z / epsilon and m = t / epsilon^2 they do where m (log(1 + u) - u / (1 + u)) = u^2 / 2.
    The start is within 6 % for every m > 1, and four Newton steps are at rounding.
    """
    m = jnp.maximum(t / epsilon / epsilon, 1)
    low = 0.75 * (m - 1)
    u = low / jnp.sqrt(1 + jnp.square(low / jnp.sqrt(m * (1 + jnp.log(m)))))
    for _ in range(4):
        excess = m * (jnp.log1p(u) - u / (1 + u)) - 0.5 * u * u
        slope = m * u / jnp.square(1 + u) - u
        u = jnp.maximum(u - excess / jnp.where(slope < 0, slope, -1), 0)
    return jnp.where(m > 1, epsilon * (u + m / (1 + u)), t / epsilon)


def l_half(x: ArrayLike, threshold: ArrayLike) -> Array:
    """Half thresholding, the prox of sqrt|x|: 0 up to 3/2 * threshold^(2/3), then a jump.

    Args:
      x: any shape, floating.
      threshold: step * lam, >= 0, broadcastable to `x`. Units of `x` to the power 3/2.

    Returns:
      Array of the shape and dtype of `x`; entries that survive keep at least 2/3 of their size.

    Raises:
      TypeError: `x` is not floating.

    Source: Xu, Chang, Xu & Zhang (2012), theorem 1 (their lambda is 2 * threshold). Their cosine is
    the root of a cubic for s = sqrt(z / x), s^3 - s + k = 0, which is solved as it stands.
    >>> l_half(jnp.array([3.0, 1.4]), 1.0).tolist()
    [2.69..., 0.0]
    """
    x = floating("l_half", x)
    dead, share, ratio = _beyond(x, threshold, lambda t: 1.5 * jnp.exp(2 / 3 * jnp.log(t)))
    k = math.sqrt(6) / 9 * share * lax.rsqrt(ratio) ** 3
    return jnp.where(dead, 0, x - x * (k * inverse_root(k, 3))).astype(x.dtype)


def l_two_thirds(x: ArrayLike, threshold: ArrayLike) -> Array:
    """The prox of |x|^(2/3): 0 up to 2 * (2/3 * threshold)^(3/4), then a jump.

    Args:
      x: any shape, floating.
      threshold: step * lam, >= 0, broadcastable to `x`. Units of `x` to the power 4/3.

    Returns:
      Array of the shape and dtype of `x`; entries that survive keep at least half of their size.

    Raises:
      TypeError: `x` is not floating.

    Source: Cao, Sun & Xu (2013), section 3 (their lambda is 2 * threshold). Their nested roots solve
    a quartic for s = (z / x)^(1/3), s^4 - s + k = 0, which is solved as it stands.
    >>> l_two_thirds(jnp.array([3.0, 1.4]), 1.0).tolist()
    [2.50..., 0.0]
    """
    x = floating("l_two_thirds", x)
    cut = lambda t: 2 * (2 / 3) ** 0.75 * jnp.sqrt(t) * jnp.sqrt(jnp.sqrt(t))
    dead, share, ratio = _beyond(x, threshold, cut)
    # Not by a fourth power, which would make four rounding errors of one; and with the product last,
    # for a quotient that is used twice is not fused on a CPU, but stored.
    k = inverse_cube_root(ratio) / ratio * (2 ** (-4 / 3) * share)
    return jnp.where(dead, 0, x - x * (k * inverse_root(k, 4))).astype(x.dtype)


def _beyond(
    x: Array, threshold: ArrayLike, cut: Callable[[Array], Array]
) -> tuple[Array, Array, Array]:
    """Which entries die, and for the others threshold and size in units of the cut.

    The units are constants to derivatives: powers of a ratio >= 1 do not overflow there. At threshold
    0 nothing dies, not even a 0; there the threshold's unit is 1.
    """
    t, size = jnp.asarray(threshold), jnp.abs(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
    unit = lax.stop_gradient(jnp.where(t > 0, t, 1))
    edge = cut(unit)
    dead = (size <= edge) & (t > 0)
    idle = dead | ((t == 0) & (size < jnp.finfo(size.dtype).tiny ** 0.3))
    return dead, t / unit, jnp.where(idle, 1, size * (1 / edge))


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
    # At threshold 0 nothing dies, not even a 0: the derivative there is that of the identity.
    return jnp.where((jnp.abs(x) <= jnp.sqrt(2 * t)) & (t > 0), 0, x).astype(x.dtype)


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
    t, ratio = jnp.asarray(threshold), jnp.asarray(l2_ratio)
    # Finite, since it is multiplied by 1 - ratio, which may be 0.
    t = jnp.minimum(t, jnp.finfo(jnp.result_type(t, float)).max)
    # That it is not 0 says that an entry exceeds the threshold, without a pass for the largest.
    norm = scaled_norm(x, None, t)

    def dense() -> Array:
        shrunk = soft_threshold(x, t)
        return (shrunk + ratio * t * (shrunk / jnp.where(norm == 0, 1, norm))).astype(x.dtype)

    def single() -> Array:
        size = jnp.abs(x)
        top, places = jnp.max(size), jnp.arange(x.size).reshape(x.shape)
        first = jnp.min(jnp.where(size == top, places, x.size))
        kept = jnp.where(places == first, soft_threshold(x, (1 - ratio) * t), 0)
        return (kept + 0 * top).astype(x.dtype)  # NaN stays NaN

    return lax.cond((norm.reshape(()) > 0) | (t == 0), dense, single)
