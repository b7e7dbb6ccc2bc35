"""What the laws ask of a penalty, compiled once for each layout and structure.

The penalty is an argument, so a law may change strengths at will, and checking a second penalty
of the same class compiles nothing. Points are rows [k, n] of flat coordinates.

A program here runs a few times on a few numbers, so all the time goes into compiling it. On a CPU most
are compiled with fewer optimisations, in less than half the time. Fully optimised are `alone`, which
eager code and batches are compared with, and `narrow` in float32, where overflow is looked at.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxreg._quickly import quickly
from jaxreg.penalty import Penalty
from jaxreg.testing._layout import Layout

_quickly = functools.partial(quickly, static=(0,))


@_quickly
def values(layout: Layout, penalty: Penalty, points: Array) -> Array:
    """R of each point, [k]."""
    return jax.vmap(lambda x: penalty(layout.tree(x)))(points)


@_quickly
def gradients(layout: Layout, penalty: Penalty, points: Array) -> Array:
    """The gradient of R at each point, [k, n]."""
    return jax.vmap(jax.grad(lambda x: penalty(layout.tree(x))))(points)


@_quickly
def proxes(layout: Layout, penalty: Penalty, points: Array, steps: Array) -> Array:
    """The prox at each point, [k, n], with one step each."""
    return jax.vmap(lambda x, s: layout.flat(penalty.prox(layout.tree(x), s)))(points, steps)


@_quickly
def metric_proxes(layout: Layout, penalty: Penalty, points: Array, steps: Array) -> Array:
    """The prox at each point, [k, n], with one step per coordinate, [k, n]."""

    def one(x, s):
        return layout.flat(penalty.prox(layout.tree(x), layout.tree(s)))

    return jax.vmap(one)(points, steps)


@_quickly
def conjugate_proxes(layout: Layout, penalty: Penalty, points: Array, step: Array) -> Array:
    """The prox of the conjugate at each point, [k, n]."""
    return jax.vmap(lambda x: layout.flat(penalty.prox_conjugate(layout.tree(x), step)))(points)


@_quickly
def conjugates(layout: Layout, penalty: Penalty, points: Array) -> Array:
    """R* of each point, [k]."""
    return jax.vmap(lambda x: penalty.conjugate(layout.tree(x)))(points)


@_quickly
def subgradients(layout: Layout, penalty: Penalty, points: Array, grads: Array) -> Array:
    """The least-norm element of grad + dR at each point, [k, n]."""

    def one(x, g):
        return layout.flat(penalty.min_norm_subgradient(layout.tree(x), layout.tree(g)))

    return jax.vmap(one)(points, grads)


@_quickly
def lambda_max(layout: Layout, penalty: Penalty, grad: Array) -> Array:
    """The smallest strength for which 0 is stationary, a scalar."""
    return penalty.lambda_max(layout.tree(grad))


@_quickly
def prox_tangents(
    layout: Layout, penalty: Penalty, points: Array, tangents: Array, steps: Array
) -> Array:
    """The derivative of the prox at each point along its tangent, [k, n]."""

    def one(x, v, s):
        return jax.jvp(lambda x: layout.flat(penalty.prox(layout.tree(x), s)), (x,), (v,))[1]

    return jax.vmap(one)(points, tangents, steps)


@_quickly
def prox_cotangents(
    layout: Layout, penalty: Penalty, points: Array, cotangents: Array, steps: Array
) -> tuple[Array, Array]:
    """The derivatives of <prox, cotangent> by each point, [k, n], and by its step, [k]."""

    def one(x, v, s):
        def prox(x, s):
            return layout.flat(penalty.prox(layout.tree(x), s))

        return jax.vjp(prox, x, s)[1](v)

    return jax.vmap(one)(points, cotangents, steps)


@_quickly
def strength_gradients(layout: Layout, penalty: Penalty, points: Array) -> Penalty:
    """The gradient of R with respect to the penalty itself, a penalty of rows [k, ...]."""
    return jax.vmap(lambda x: jax.grad(lambda p: p(layout.tree(x)))(penalty))(points)


def _narrow(
    layout: Layout, dtype: Any, penalty: Penalty, points: Array, step: Array | None
) -> tuple[Array, Array]:
    def one(x):
        tree = layout.tree(x, dtype)
        moved = tree if step is None else penalty.prox(tree, step)
        return penalty(tree), layout.flat(moved)

    return jax.vmap(one)(points)


_narrow_fully = jax.jit(_narrow, static_argnums=(0, 1))
_narrow_quickly = quickly(_narrow, (0, 1))


def narrow(
    layout: Layout, dtype: Any, penalty: Penalty, points: ArrayLike, step: ArrayLike | None
) -> tuple[Array, Array]:
    """Value and prox (without a step, the point) of each point with leaves in `dtype`."""
    run = _narrow_fully if dtype == jnp.float32 else _narrow_quickly
    return run(layout, dtype, penalty, points, step)


@functools.partial(jax.jit, static_argnums=0)
def alone(layout: Layout, penalty: Penalty, x: Array, step: Array | None) -> tuple[Array, Array]:
    """Value and prox (or x, without a step) of one point, with no vmap around them."""
    tree = layout.tree(x)
    return penalty(tree), x if step is None else layout.flat(penalty.prox(tree, step))


@_quickly
def scanned(layout: Layout, penalty: Penalty, points: Array, step: Array | None) -> Any:
    """As `alone` for points stacked as the layers of a scan."""
    stacked = jax.vmap(layout.tree)(points)

    def layer(_, tree):
        moved = tree if step is None else penalty.prox(tree, step)
        return None, (penalty(tree), layout.flat(moved))

    return jax.lax.scan(layer, None, stacked)[1]


@_quickly
def swept(layout: Layout, penalties: Penalty, x: Array, step: Array | None) -> Any:
    """As `alone` for penalties stacked along their strengths."""
    return jax.vmap(lambda p: alone(layout, p, x, step))(penalties)


def shapes(function: Any, *args: Any) -> Any:
    """`function` evaluated on shapes alone: what it returns, or the error it refuses with."""
    return jax.eval_shape(function, *args)


def stack(penalties: list[Penalty]) -> Penalty:
    """Penalties of one structure with their strengths stacked: the argument of `swept`."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *penalties)
