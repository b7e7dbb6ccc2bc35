"""What penalties of singular values share: a leaf read as matrices, and pieces of certificates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxreg.leaf import LeafPenalty
from jaxreg.prox._spectral import singular_values, times
from jaxreg.value import static_field

__all__ = [
    "OfMatrices",
    "axes",
    "on_face",
    "inside_ball",
    "largest",
    "largest_ratio",
    "off_range",
    "to_matrix",
    "to_values",
]


class OfMatrices(LeafPenalty):
    """A penalty that reads a leaf as matrices [..., m, n]; see the module for `rows`, `columns`."""

    rows: int = static_field(default=1, kw_only=True)
    columns: int = static_field(default=1, kw_only=True)

    def check_leaf(self, path: str, x: Any) -> None:
        if jnp.ndim(x) < self.rows + self.columns:
            raise ValueError(
                f"{self.label}: the leaf {path!r} of shape {jnp.shape(x)} has fewer than the "
                f"{self.rows} + {self.columns} axes of a matrix. Select matrices with .on(kernels), or "
                "give `rows` and `columns`, how many axes number each."
            )

    def matrices(self, x: Array) -> Array:
        """The leaf as [..., m, n]."""
        return self._read(x, x.shape)

    def per_matrix(self, name: str, value: Any) -> Array:
        """A scalar as it is, or one number per matrix as [..., 1, 1]."""
        value = jnp.asarray(value)
        if value.ndim == 0:
            return value
        if math.prod(value.shape[-self.rows - self.columns :]) != 1:
            remedy = (
                "An optimizer with one step per leaf, such as SGD with momentum, has an exact prox; "
                "a metric per coordinate (Adam's) has none in closed form."
                if name == "step"
                else "Give a scalar, or an array with size 1 on the axes of the matrix."
            )
            raise ValueError(
                f"{self.label}: `{name}` has shape {value.shape} and differs inside a matrix. {remedy}"
            )
        return self._read(value, value.shape)

    def field(self, name: str) -> Array:
        """A strength, shaped to go with the matrices."""
        return self.per_matrix(name, getattr(self, name))

    def _read(self, x: Array, shape: tuple[int, ...]) -> Array:
        lead = len(shape) - self.rows - self.columns
        m, n = math.prod(shape[lead : lead + self.rows]), math.prod(shape[lead + self.rows :])
        return x.reshape(*shape[:lead], m, n)


def largest(w: Array) -> Array:
    """The largest singular value, as [..., 1, 1]."""
    return jnp.max(singular_values(w), -1, initial=0)[..., None, None]


def off_range(g: Array, u: Array, vt: Array, keep: Array) -> Array:
    """The part of `g` off the kept singular vectors on both sides."""
    u, vt = u * keep[..., None, :], vt * keep[..., :, None]
    g = g - times(u, times(jnp.swapaxes(u, -1, -2), g))
    return g - times(times(g, jnp.swapaxes(vt, -1, -2)), vt)


def on_face(
    g: Array, u: Array, vt: Array, top: Array, onto: Callable[[Array], Array], reach: Array
) -> Array:
    """U1 M V1^T for the psd M = onto(eigenvalues of -U1^T g V1), 1 meaning the vectors in `top`.

    The others get eigenvalues so low that `onto` makes them 0; `reach` bounds the trace of M.
    """
    d = -times(jnp.swapaxes(u, -1, -2), times(g, jnp.swapaxes(vt, -1, -2)))
    d = jnp.where(top[..., :, None] & top[..., None, :], 0.5 * (d + jnp.swapaxes(d, -1, -2)), 0)
    low = -2 * (jnp.sum(jnp.abs(d), (-2, -1), keepdims=True) + reach)
    d = jnp.where(jnp.eye(d.shape[-1], dtype=bool) & ~top[..., None, :], low, d)
    values, q = jnp.linalg.eigh(d)
    m = times(q * onto(values)[..., None, :], jnp.swapaxes(q, -1, -2))
    return times(times(u, m), vt)


def largest_ratio(size: Array, reach: Array) -> Array:
    """max size / reach over matrices: what strength holds all of them at 0."""
    needed = jnp.where(reach > 0, size / jnp.where(reach > 0, reach, 1), jnp.inf)
    return jnp.max(jnp.where(size > 0, needed, 0), initial=0.0)


def inside_ball(size: Array, bound: Array) -> Array:
    """0 where every size is <= its bound, up to the rounding of an SVD, else inf."""
    slack = 1 + 64 * float(jnp.finfo(size.dtype).eps)
    return jnp.where(jnp.all(size <= slack * bound), 0.0, jnp.inf).astype(size.dtype)


def to_values(v: Array) -> Array:
    """From [..., 1, 1] to [..., 1]; a scalar stays."""
    return v[..., 0] if v.ndim else v


def to_matrix(v: Array) -> Array:
    """From [..., 1, 1] to [...]; a scalar stays."""
    return v[..., 0, 0] if v.ndim else v


def axes(owner: str, rows: int, columns: int) -> dict[str, int]:
    """`rows` and `columns`, checked."""
    for name, count in (("rows", rows), ("columns", columns)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise TypeError(
                f"{owner}: `{name}` must be an integer >= 1, how many axes number the matrix's "
                f"{name}, got {count!r}."
            )
    return {"rows": rows, "columns": columns}
