"""Operators without a closed form: they iterate, and report a bound on their error.

Images (total variation along two axes) and piecewise linear signals (trend filtering). Both return an
`Iterated`: the value, a bound on its relative error, and the number of steps.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg.prox._common import floating, wide
from jaxreg.prox._dual import ImageDual, Trend, regression_line
from jaxreg.prox._iterated import Iterated, differentiable, iterate

__all__ = ["Iterated", "total_variation_2d", "trend_filter"]


def total_variation_2d(
    x: ArrayLike,
    threshold: ArrayLike,
    axes: tuple[int, int] = (-2, -1),
    *,
    isotropic: bool = False,
    tolerance: float = 1e-3,
    max_steps: int = 2000,
) -> Iterated:
    """Flatten an image: the prox of the sum of |differences| along two axes.

    Anisotropic (the default) adds |vertical| + |horizontal| at each pixel, isotropic their Euclidean
    norm. Accelerated projected gradient on the dual, restarted when it overshoots: no sequential
    part, so it suits accelerators.

    Args:
      x: floating, of rank 2 or more; each slice along `axes` is an image of its own.
      threshold: scalar, or broadcastable to `x` with size 1 on `axes`, >= 0. Units of `x`.
      axes: the two axes of the image.
      isotropic: which of the two.
      tolerance: stop when the bound on the relative error is below it. In float32 the bound cannot
        be seen to fall below about 1e-3 (strong thresholds) to 1e-4.
      max_steps: stop then in any case; `residual` says where it got.

    Returns:
      `Iterated`: value, residual (one per image), n_steps.

    Raises:
      TypeError: `x` is not floating.

    Source: Beck & Teboulle, Fast gradient-based algorithms for constrained total variation (2009);
    restart: O'Donoghue & Candes (2015).
    >>> near = total_variation_2d(jnp.array([[0.0, 0.0], [0.0, 4.0]]), 0.5)
    >>> near.value.round(2).tolist(), bool(near.residual < 1e-3)
    ([[0.3..., 0.3...], [0.3..., 3.0]], True)
    """
    x = floating("total_variation_2d", x)
    y = wide(x)
    axes = (axes[0] % y.ndim, axes[1] % y.ndim)
    t = jnp.broadcast_to(jnp.asarray(threshold, y.dtype), _reduced(y, axes))
    found = _image(y, t, axes, isotropic, float(tolerance), max_steps)
    return found._replace(value=found.value.astype(x.dtype))


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _image(
    y: Array, t: Array, axes: tuple[int, int], isotropic: bool, tolerance: float, max_steps: int
) -> Iterated:
    """Total variation of images in the dtype of sums."""

    def solve(y: Array, t: Array) -> Iterated:
        mean, scale, size = _standard(y, jnp.mean(y, axes, keepdims=True), axes)
        image, level = (y - mean) / scale, t / scale
        dual = ImageDual(image, level, axes, isotropic)
        zero = (jnp.zeros_like(y), jnp.zeros_like(y))
        one = jnp.ones(level.shape, y.dtype)
        state, residual, n = iterate(
            dual.step, lambda s: dual.error(s[0], size), (zero, zero, one), tolerance, max_steps
        )
        value = jnp.where(t > 0, mean + scale * dual.answer(state[0]), y)
        return Iterated(value, jnp.squeeze(residual, axes), n)

    return differentiable(jax.jit(solve))(y, t)


def trend_filter(
    x: ArrayLike,
    threshold: ArrayLike,
    axis: int = -1,
    *,
    free: ArrayLike = False,
    tolerance: float = 1e-3,
    max_steps: int = 1000,
) -> Iterated:
    """Bend each line as rarely as possible: the prox of sum |z_{i+1} - 2 z_i + z_{i-1}|.

    The result is piecewise linear. The slopes are piecewise constant, so ADMM between the signal (a
    tridiagonal system) and its slopes (the exact total-variation prox) needs few rounds.

    Args:
      x: floating; every line along `axis` is a signal of its own.
      threshold: scalar, or broadcastable to `x` with size 1 on `axis`, >= 0. Units of `x`.
      axis: the axis that neighbours are taken along.
      free: bool, broadcastable to the second differences: bends that cost nothing.
      tolerance: stop when the bound on the relative error is below it; float32 sees it fall to 1e-4.
      max_steps: stop then in any case; `residual` says where it got.

    Returns:
      `Iterated`: value, residual (one per signal), n_steps.

    Raises:
      TypeError: `x` is not floating. ValueError: `free` is not boolean, or has another shape.

    Source: Kim, Koh, Boyd & Gorinevsky (2009); the splitting: Ramdas & Tibshirani, Fast and flexible
    ADMM algorithms for trend filtering (2016), with their rho a little larger.
    >>> near = trend_filter(jnp.array([0.0, 1.0, 2.0, 1.0, 0.0]), 0.1)
    >>> near.value.round(2).tolist()  # flatter, with the bend where it was
    [0.0..., 0.9..., 1.9..., 0.9..., 0.0...]
    >>> hat, bends = jnp.array([0.0, 1.0, 2.0, 1.0, 0.0]), jnp.array([False, True, False])
    >>> trend_filter(hat, 3.0).value.round(1).tolist()  # a line
    [0.8..., 0.8..., 0.8..., 0.8..., 0.8...]
    >>> trend_filter(hat, 3.0, free=bends).value.round(1).tolist()  # its one bend costs nothing
    [0.0, 1.0, 2.0, 1.0, 0.0]
    """
    x = floating("trend_filter", x)
    axis = axis % x.ndim
    y = jnp.moveaxis(wide(x), axis, -1)
    t = jnp.broadcast_to(jnp.asarray(threshold, y.dtype), _reduced(x, (axis,)))
    t = jnp.moveaxis(t, axis, -1)
    if y.shape[-1] < 3:
        return Iterated(x, jnp.zeros(y.shape[:-1], y.dtype), jnp.zeros((), jnp.int32))
    found = _trend(y, t, _bends(free, x, axis), float(tolerance), max_steps)
    return found._replace(value=jnp.moveaxis(found.value, -1, axis).astype(x.dtype))


def _bends(free: ArrayLike, x: Array, axis: int) -> Array:
    """`free` for every second difference, the signals along the last axis."""
    free, shape = jnp.asarray(free), tuple(n - 2 * (a == axis) for a, n in enumerate(x.shape))
    fits = free.ndim <= len(shape) and all(
        n in (1, m) for n, m in zip(reversed(free.shape), reversed(shape))
    )
    if free.dtype != bool or not fits:
        raise ValueError(
            f"trend_filter: `free` must be boolean and broadcast to {shape}, the second differences of "
            f"`x` along axis {axis}, got {free.dtype}{list(free.shape)}."
        )
    return jnp.moveaxis(jnp.broadcast_to(free, shape), axis, -1)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _trend(y: Array, t: Array, free: Array, tolerance: float, max_steps: int) -> Iterated:
    """Trend filtering along the last axis, in the dtype of sums."""

    def solve(y: Array, t: Array, free: Array) -> Iterated:
        line, scale, size = _standard(y, regression_line(y), (-1,))
        trend = Trend.of((y - line) / scale, t / scale, free)
        zero = jnp.zeros_like(y[..., 1:])
        start = (zero, zero, jnp.zeros_like(y))
        state, residual, n = iterate(
            trend.step, lambda s: trend.error(s, size), start, tolerance, max_steps
        )
        value = jnp.where(t > 0, line + scale * trend.primal(state), y)
        return Iterated(value, jnp.squeeze(residual, -1), n)

    return differentiable(jax.jit(solve))(y, t, free)


def _reduced(x: Array, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if a in axes else n for a, n in enumerate(x.shape))


def _standard(y: Array, unseen: Array, axes: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """What the penalty does not see, the scale of the rest, and the squared norm of the rest."""
    rest = lax.stop_gradient(y - unseen)
    scale = jnp.max(jnp.abs(rest), axes, keepdims=True, initial=0)
    scale = jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1)
    return unseen, scale, jnp.sum((rest / scale) ** 2, axes, keepdims=True)
