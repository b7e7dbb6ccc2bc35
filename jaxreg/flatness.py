"""Gradients that look for flat minima: that of the loss at the worst place nearby.

Sharpness-aware minimisation (Foret et al. 2021, eqs. 2 and 3) takes the gradient at w + ε, where ε is the
step of length ρ that raises the loss most, to first order; the adaptive kind (Kwon et al. 2021, eq. 12)
measures the length of ε in sizes of the weights, so that rescaling layers of a ReLU net changes nothing:

    SAM   ε = ρ g / |g|
    ASAM  ε = ρ T² g / |T g|,  T = |w| + η

with g the gradient at w and norms over all parameters. An update costs two gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._check import flag, shown, strength
from jaxreg._tree import PyTree

__all__ = ["sam"]

_ETA = 0.01  # η of ASAM


def sam(
    fun: Callable[..., Any], rho: ArrayLike, *, adaptive: bool = False, has_aux: bool = False
) -> Callable[..., tuple[Any, PyTree]]:
    """As `jax.value_and_grad`, with the gradient of the worst place within ρ.

    In a trainer it is Trainer(init, loss, tx, value_and_grad=functools.partial(sam, rho=point["rho"])). The
    value, and what comes with it, such as statistics of batch norm, are those at the parameters themselves.
    Penalties that couplings add are not moved: they are added to what this returns.

    Args:
      fun: (params, *args) -> scalar, or (scalar, aux) with `has_aux`; both passes get the same arguments, a
        PRNG key included.
      rho: ρ >= 0, which may be swept; at 0 it is the plain gradient.
      adaptive: whether lengths are in sizes of the weights (ASAM, whose ρ is ten times as large or more).
      has_aux: whether `fun` returns a pair.

    Returns:
      The function (params, *args) -> (what `fun` returns, gradient).

    Raises:
      TypeError, ValueError: `fun` is no function, `rho` no number >= 0, or a flag none.

    >>> loss = lambda w: 0.5 * jnp.sum(jnp.array([1.0, 9.0]) * w**2)
    >>> value, grad = sam(loss, rho=0.5)(jnp.array([2.0, 0.0]))
    >>> value.item(), grad.tolist()  # at w + 0.5 (1, 0)
    (2.0, [2.5, 0.0])
    """
    if not callable(fun):
        raise TypeError(f"sam: `fun` must be a function (params, *args) -> loss, got {shown(fun)}.")
    rho = strength("sam", "rho", rho)
    if not isinstance(rho, Array) or rho.ndim:
        raise ValueError(f"sam: `rho` must be one number, got {shown(rho)}.")
    flag("sam", "adaptive", adaptive)
    flag("sam", "has_aux", has_aux)

    def value_and_grad(params: PyTree, *args: Any, **kwargs: Any) -> tuple[Any, PyTree]:
        both = jax.value_and_grad(fun, has_aux=has_aux)
        value, grad = both(params, *args, **kwargs)
        worst = jax.tree.map(jnp.add, params, _ascent(params, grad, rho, adaptive))
        return value, both(worst, *args, **kwargs)[1]

    return value_and_grad


def _ascent(params: PyTree, grad: PyTree, rho: Array, adaptive: bool) -> PyTree:
    """ε, finite where the gradient is 0."""
    wide = lambda x: x.astype(_tree.accumulator(x))
    size = jax.tree.map(
        lambda w: jnp.abs(wide(w)) + _ETA if adaptive else jnp.ones((), wide(w).dtype), params
    )
    scaled = jax.tree.map(lambda t, g: t * wide(g), size, grad)
    squares = sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(scaled))
    length = rho / jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 1)
    return jax.tree.map(lambda t, s, w: (length * t * s).astype(w.dtype), size, scaled, params)
