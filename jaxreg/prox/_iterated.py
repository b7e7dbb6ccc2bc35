"""Operators that iterate: what they report, and their derivatives.

An iterate z is given with a bound on its error that needs no knowledge of the answer. A prox's
objective P is strongly convex, so for any dual point u

    |z - prox|_2^2 <= 2 (P(z) - D(u)) = 2 * (duality gap).

Derivatives need no transposed loop. A prox is the gradient of a convex function, so its Jacobian is
symmetric; and for a penalty that is homogeneous of degree one Euler's theorem gives the derivative
by the threshold from the one by x:  prox(x, t) = J x + t * d prox / dt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

__all__ = ["Iterated", "differentiable", "iterate"]


class Iterated(NamedTuple):
    """A prox found by iteration, and how far from exact it is.

    Attributes:
      value: the prox, in the shape and dtype of `x`.
      residual: a bound on |value - prox|_2 / |x|_2, one per signal or image, with `x` taken relative
        to what the penalty does not see (its mean, or its regression line).
      n_steps: how many iterations were made.
    """

    value: Array
    residual: Array
    n_steps: Array


def iterate(
    advance: Callable, bound: Callable, start: tuple, tolerance: float, max_steps: int
) -> tuple[tuple, Array, Array]:
    """`advance` the state until its `bound` is within the tolerance everywhere, or for max_steps."""

    def unfinished(carry):
        _, residual, n = carry
        # NaN is not within the tolerance, and no iteration mends it.
        return jnp.any(residual > tolerance) & (n < max_steps)

    def step(carry):
        state, _, n = carry
        state = advance(state)
        return state, bound(state), n + 1

    return lax.while_loop(unfinished, step, (start, bound(start), jnp.zeros((), jnp.int32)))


def differentiable(solve: Callable[..., Iterated]) -> Callable[..., Iterated]:
    """`solve(x, threshold, *masks)` with both derivatives, forward and backward, of its value.

    They are as accurate as the iterate: more steps make them better, as they do the value. Second
    derivatives are taken as 0, which they are where the prox is piecewise linear.
    """

    @jax.custom_jvp
    def solved(x: Array, t: Array, *masks: Array) -> Iterated:
        return solve(x, t, *masks)

    @solved.defjvp
    def _tangents(primals, tangents):
        (x, t, *masks), (dx, dt) = primals, tangents[:2]

        def at(x: Array) -> tuple[Array, Iterated]:
            found = solve(x, t, *masks)
            return found.value, found

        def jacobian(v: Array) -> Array:
            return jax.jvp(lambda x: at(x)[0], (x,), (v,))[1]

        value, radial, found = jax.jvp(at, (x,), (x,), has_aux=True)
        # A linear map that is its own transpose, and jax need not know more: not a solve at all.
        moved = lax.custom_linear_solve(
            lambda v: v, dx, lambda _, v: jacobian(v), symmetric=True
        )  # fmt: skip
        rest = value - radial
        moved = moved + jnp.where(t > 0, rest / jnp.where(t > 0, t, 1), 0) * dt
        no_change = jnp.zeros_like(found.residual)
        none = jnp.zeros(found.n_steps.shape, jax.dtypes.float0)
        return found, Iterated(moved, no_change, none)  # pyright: ignore[reportArgumentType]

    return solved
