"""What the operators share: which arrays they take, and the dtype they compute in."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


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
