"""Norms of groups that neither over- nor underflow."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jax.typing import ArrayLike

from jaxreg.prox._common import wide
from jaxreg.prox._groups import Axes, Labels, largest, spread, total
from jaxreg.prox.elementwise import soft_threshold

__all__ = ["scale", "scaled_norm"]


def scaled_norm(x: Array, axis: Axes, threshold: ArrayLike | None = None) -> Array:
    """Euclidean norm per group, as `total` shapes it, that neither over- nor underflows.

    One pass over `x` where the squares add up to something ordinary. Two more are made where a group is
    nearly or exactly 0, or huge: the squares of `x` times a power of two, and the same digits. (Blue,
    1978, takes all three sums at once.) The derivative at a zero group is 0.

    With a `threshold`, which broadcasts to `x`, it is the norm of what soft-thresholding leaves. That
    is never stored: each pass thresholds `x` anew, for memory is slower than arithmetic.
    """
    x = wide(x)
    if threshold is None:
        return _scaled_norm((x,), axis)
    t = jnp.asarray(threshold, x.dtype)
    return _scaled_norm((x, t.reshape((1,) * (x.ndim - t.ndim) + t.shape)), axis)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _scaled_norm(args: tuple[Array, ...], axis: Axes) -> Array:
    if isinstance(axis, Labels):
        return _norm(args, axis)
    batched = custom_vmap(lambda *args: _norm(args, axis))

    @batched.def_vmap
    def one_more_axis(size: int, in_batched: list[bool], *args: Array) -> tuple[Array, bool]:
        # Not by the rule of `cond`, which would make the rare passes for every lane.
        del size
        args = tuple(a if hit else a[None] for a, hit in zip(args, in_batched))
        ndim = args[0].ndim - 1
        inside = range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        return _scaled_norm(args, tuple(1 + a % ndim for a in inside)), True

    return batched(*args)


@_scaled_norm.defjvp
def _scaled_norm_jvp(axis: Axes, primals: tuple, tangents: tuple):
    (args,), (moved,) = primals, tangents
    size, left = _scaled_norm(args, axis), args[0] if len(args) == 1 else soft_threshold(*args)
    unit = left / spread(jnp.where(size == 0, 1, size), axis, left)
    change = unit * moved[0]
    if len(moved) > 1:
        change = change - jnp.abs(unit) * moved[1]
    return size, total(change, axis)


def _norm(args: tuple[Array, ...], axis: Axes) -> Array:
    x, info = args[0], jnp.finfo(args[0].dtype)
    # Below, squares that underflow could matter: x.size of them may be missing.
    low, high = x.size * float(info.tiny / info.eps), float(info.max)
    up, down = 2.0 ** (-info.minexp // 2 + 1), 2.0 ** -(info.maxexp // 2 + 16)
    square = total(_size(args) ** 2, axis)

    def rescued() -> Array:
        small = jnp.sqrt(total((_size(args) * up) ** 2, axis)) / up
        large = jnp.sqrt(total((_size(args) * down) ** 2, axis)) / down
        return jnp.where(square < low, small, jnp.where(square > high, large, jnp.sqrt(square)))

    return lax.cond(jnp.any((square < low) | (square > high)), rescued, lambda: jnp.sqrt(square))


def _size(args: tuple[Array, ...]) -> Array:
    """What is squared. On a CPU a select would keep the sum from being vectorized; and what the caller's
    own soft-thresholding has in common with this would be stored for both, but for the barrier."""
    if len(args) == 1:
        return args[0]
    x, t = args
    return x - jnp.clip(x, -t, lax.optimization_barrier(t))


def scale(x: Array, axis: Axes) -> Array:
    """The largest size per group, a constant to derivatives; 1 where it is 0 or not finite."""
    top = largest(jnp.abs(x), axis)
    return lax.stop_gradient(jnp.where((top > 0) & jnp.isfinite(top), top, 1))
