"""What the operators share: dtypes, and a norm that neither over- nor underflows."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jax.typing import ArrayLike

from jaxreg.prox._groups import Axes, Labels, largest, spread, total


def floating(name: str, x: ArrayLike) -> Array:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name}: `x` must be a floating array, got dtype {x.dtype}; "
            "an integer prox would silently truncate. Cast it with x.astype(jnp.float32)."
        )
    return x


def wide(x: ArrayLike) -> Array:
    """`x` in the dtype that sums are taken in: its own, and float32 at least."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def scaled_norm(x: Array, axis: Axes) -> Array:
    """Euclidean norm per group, as `total` shapes it, that neither over- nor underflows.

    One pass over `x` where the squares add up to something ordinary. Two more are made where a group is
    nearly or exactly 0, or huge: the squares of `x` times a power of two, and the same digits. (Blue,
    1978, takes all three sums at once.) The derivative at a zero group is 0.
    """
    if isinstance(axis, Labels):
        return _norm(wide(x), axis)
    batched = custom_vmap(lambda x: _norm(x, axis))

    @batched.def_vmap
    def one_more_axis(size: int, in_batched: list[bool], x: Array) -> tuple[Array, bool]:
        # Not by the rule of `cond`, which would make the rare passes for every lane.
        del size, in_batched
        inside = range(x.ndim - 1) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        return scaled_norm(x, tuple(1 + a % (x.ndim - 1) for a in inside)), True

    return batched(wide(x))


@scaled_norm.defjvp
def _scaled_norm_jvp(axis: Axes, primals: tuple[Array], tangents: tuple[Array]):
    (x,), (dx,) = primals, tangents
    size = scaled_norm(x, axis)
    unit = x / spread(jnp.where(size == 0, 1, size), axis, x)
    return size, total(unit * dx, axis)


def _norm(x: Array, axis: Axes) -> Array:
    info = jnp.finfo(x.dtype)
    # Below, squares that underflow could matter: x.size of them may be missing.
    low, high = x.size * float(info.tiny / info.eps), float(info.max)
    up, down = 2.0 ** (-info.minexp // 2 + 1), 2.0 ** -(info.maxexp // 2 + 16)
    square = total(x**2, axis)

    def rescued() -> Array:
        small = jnp.sqrt(total((x * up) ** 2, axis)) / up
        large = jnp.sqrt(total((x * down) ** 2, axis)) / down
        return jnp.where(square < low, small, jnp.where(square > high, large, jnp.sqrt(square)))

    return lax.cond(jnp.any((square < low) | (square > high)), rescued, lambda: jnp.sqrt(square))


def scale(x: Array, axis: Axes) -> Array:
    """The largest size per group, a constant to derivatives; 1 where it is 0 or not finite."""
    top = largest(jnp.abs(x), axis)
    return lax.stop_gradient(jnp.where((top > 0) & jnp.isfinite(top), top, 1))
