"""What the operators share: dtypes, and a norm that neither over- nor underflows."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg.prox._groups import Axes, largest, spread, total


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


def scaled_norm(x: Array, axis: Axes) -> Array:
    """Euclidean norm per group, as `total` shapes it, that neither over- nor underflows."""
    top = scale(x, axis)
    return norm(x / spread(top, axis, x), axis) * top


def scale(x: Array, axis: Axes) -> Array:
    """The largest size per group, a constant to derivatives; 1 where it is 0 or not finite."""
    top = largest(jnp.abs(x), axis)
    return lax.stop_gradient(jnp.where((top > 0) & jnp.isfinite(top), top, 1))


def norm(x: Array, axis: Axes) -> Array:
    """Euclidean norm per group of entries of ordinary size."""
    square = total(x**2, axis)
    # The input of the square root is guarded, so the derivative at a zero group is finite.
    # Asking for 0, and not for > 0, lets NaN through.
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
