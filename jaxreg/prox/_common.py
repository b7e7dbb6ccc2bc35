"""What the operators share: a dtype check, and a norm that neither over- nor underflows."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike


def floating(name: str, x: ArrayLike) -> Array:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name}: `x` must be a floating array, got dtype {x.dtype}; "
            "an integer prox would silently truncate. Cast it with x.astype(jnp.float32)."
        )
    return x


def scaled_norm(x: Array, axis) -> Array:
    """Euclidean norm with keepdims that neither over- nor underflows on huge or tiny entries."""
    if x.size == 0:
        return jnp.sqrt(jnp.sum(x * x, axis, keepdims=True))
    top = jnp.max(jnp.abs(x), axis, keepdims=True)
    top = lax.stop_gradient(jnp.where((top > 0) & jnp.isfinite(top), top, 1))
    square = jnp.sum((x / top) ** 2, axis, keepdims=True)
    # The input of the square root is guarded, so the derivative at a zero group is finite.
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0) * top
