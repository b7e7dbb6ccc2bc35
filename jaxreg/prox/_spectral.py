"""Singular values and maps of them, with derivatives that are finite everywhere.

Differentiating an SVD divides by differences of singular values, which is NaN where two agree or
one is 0. A map F(X) = U diag(f(s)) V^T is better behaved than its factors: with P = U^T dX V,

    U^T dF V = (f_i - f_j) / (s_i - s_j) * sym P  +  (f_i + f_j) / (s_i + s_j) * skew P

entry by entry, with the derivative of f along diag P on the diagonal, and slopes of f in place of
ratios where values agree. Source: Daleckii & Krein (1965); Lewis & Sendov (2005) for singular values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Rule", "map_values", "positive", "rounding", "singular_values", "svd", "times"]


@jax.custom_jvp
def singular_values(x: Array) -> Array:
    """Singular values [..., k] of x [..., m, n], falling, with the least-norm derivative.

    A value that is 0 to rounding has derivative 0, so that the gradient of the nuclear norm at a
    matrix of low rank is its least-norm subgradient.
    """
    if x.size == 0:
        return jnp.zeros((*x.shape[:-2], min(x.shape[-2:])), x.dtype)
    return jnp.linalg.svd(x, full_matrices=False, compute_uv=False)


@singular_values.defjvp
def _singular_values_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    if x.size == 0:
        return singular_values(x), jnp.zeros((*x.shape[:-2], min(x.shape[-2:])), x.dtype)
    u, s, vt = svd(x)
    along = _diagonal(times(_t(u), times(dx, _t(vt))))
    return s, jnp.where(positive(s, x), along, 0)


def svd(x: Array) -> tuple[Array, Array, Array]:
    """The thin SVD: u [..., m, k], s [..., k], vt [..., k, n] with k = min(m, n)."""
    u, s, vt = jnp.linalg.svd(x, full_matrices=False)
    return u, s, vt


def rounding(x: Array) -> float:
    """The error of a singular value of `x` relative to the largest: numpy's rule, times 8."""
    return 8 * max(x.shape[-2:]) * float(jnp.finfo(x.dtype).eps)


def positive(s: Array, x: Array) -> Array:
    """Which singular values of `x` are more than rounding."""
    return s > rounding(x) * s[..., :1]


def times(a: Array, b: Array) -> Array:
    """a @ b in full precision, where accelerators would round products to fewer bits."""
    return jnp.matmul(a, b, precision="highest")


class Rule(NamedTuple):
    """A map of singular values: `curve(s, *settled)`, entry by entry, odd and rising in s >= 0.

    What couples the values, such as a common height, is `settle(s, *args)`: a tuple of arrays.
    """

    curve: Callable[..., Array]
    settle: Callable[..., tuple[Array, ...]]

    def __call__(self, s: Array, *args: Array) -> Array:
        return self.curve(s, *self.settle(s, *args))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def map_values(rule: Rule, x: Array, args: tuple[Array, ...]) -> Array:
    """U rule(s) V^T; where the rule changes nothing, `x` itself to the last bit."""
    u, s, vt = svd(x)
    moved = rule(s, *args)
    same = jnp.all(moved == s, -1)[..., None, None]
    return jnp.where(same, x, times(u * moved[..., None, :], vt))


@map_values.defjvp
def _map_values_jvp(rule, primals, tangents):
    (x, args), (dx, dargs) = primals, tangents
    u, s, vt = svd(x)
    ahead, aside = times(dx, _t(vt)), times(_t(u), dx)
    inner = times(_t(u), ahead)
    moved, along = jax.jvp(rule, (s, *args), (_diagonal(inner), *dargs))
    minus, plus = _differences(rule, s, moved, args)
    core = 0.5 * (minus * (inner + _t(inner)) + plus * (inner - _t(inner)))
    core = jnp.where(jnp.eye(s.shape[-1], dtype=bool), along[..., None], core)
    # What leaves the span of the singular vectors turns them, and is scaled as the values are.
    scale = _diagonal(plus)
    left = times(u, core) + (ahead - times(u, inner)) * scale[..., None, :]
    right = scale[..., None] * (aside - times(inner, vt))
    return map_values(rule, x, args), times(left, vt) + times(u, right)


def _differences(rule: Rule, s: Array, moved: Array, args: tuple[Array, ...]):
    """(f_i - f_j) / (s_i - s_j) and (f_i + f_j) / (s_i + s_j) [..., k, k], the slope in the limit."""
    settled = rule.settle(s, *args)
    slope = jax.jvp(lambda s: rule.curve(s, *settled), (s,), (jnp.ones_like(s),))[1]
    a, b = s[..., :, None], s[..., None, :]
    fa, fb = moved[..., :, None], moved[..., None, :]
    limit = 0.5 * (slope[..., :, None] + slope[..., None, :])
    eps = float(jnp.finfo(s.dtype).eps)
    apart = jnp.abs(a - b) > eps**0.5 * (a + b)
    nonzero = a + b > eps * s[..., :1, None]
    minus = jnp.where(apart, (fa - fb) / jnp.where(apart, a - b, 1), limit)
    plus = jnp.where(nonzero, (fa + fb) / jnp.where(nonzero, a + b, 1), limit)
    return minus, plus


def _diagonal(x: Array) -> Array:
    return jnp.diagonal(x, axis1=-2, axis2=-1)


def _t(x: Array) -> Array:
    return jnp.swapaxes(x, -1, -2)
