"""One equation behind five operators: where does the waterline lie?

    sum_i max(a_i - w_i * tau, 0) = excess + slope * tau          (per group, w > 0, slope >= 0)

The left side falls, is convex and piecewise linear in tau; the right side rises. Newton's method from
the left of the root solves the linear piece it is on, never jumps over the root, and ends at it after
finitely many pieces: no sort, no tolerance, a handful of sums. Projections onto the l1 ball and the
simplex, and the proxes of the maximum, of the squared l1 norm and of LassoNet are all of this form.

Source: Michelot (1986), as reviewed in Condat, Fast projection onto the simplex and the l1 ball (2016).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg.prox._groups import Axes, spread, total

__all__ = ["waterline"]


def waterline(
    a: Array,
    w: ArrayLike,
    excess: ArrayLike,
    slope: ArrayLike,
    groups: Axes,
    floor: float = 0.0,
) -> Array:
    """The root tau of the equation above, per group, or `floor` where the root is lower.

    Args:
      a: levels, any shape; -inf for a coordinate that does not take part.
      w: weights > 0, broadcastable to `a`.
      excess: one number, or one per group.
      slope: one number, or one per group, >= 0.
      groups: the axes a group extends over, or labels.
      floor: the least value of tau.

    Returns:
      tau per group, shaped as `total` does. Differentiable: the coordinates above the waterline are
      found first, and the root of their linear piece is a formula.
    """
    w = jnp.broadcast_to(jnp.asarray(w, a.dtype), a.shape)

    def root(above, a, w, excess, slope, otherwise: ArrayLike = floor) -> Array:
        weight = total(jnp.where(above, w, 0), groups) + slope
        rest = total(jnp.where(above, a, 0), groups) - excess
        tau = jnp.where(weight > 0, rest / jnp.where(weight > 0, weight, 1), otherwise)
        return jnp.where(tau > floor, tau, floor)

    still = lax.stop_gradient((a, w, jnp.asarray(excess, a.dtype), jnp.asarray(slope, a.dtype)))

    def above(tau: Array) -> Array:
        return still[0] > still[1] * spread(tau, groups, a)

    def rise(state: tuple[Array, Array]) -> tuple[Array, Array]:
        tau, _ = state
        higher = jnp.maximum(tau, root(above(tau), *still))
        # Strictly higher, or done: rounding cannot make it cycle, and NaN ends it.
        return higher, jnp.any(higher > tau)

    start = root(still[0] > -jnp.inf, *still)
    tau, _ = lax.while_loop(lambda state: state[1], rise, (start, jnp.array(True)))
    # Within rounding of the highest level nothing is above it, and the root stays what it is.
    return root(above(tau), a, w, excess, slope, otherwise=tau)
