"""Whether a penalty is a quadratic with one curvature for each parameter, and which.

R = ½ sum λ (θ - c)² has the gradient λ (θ - c): λ is what it rises by from 0 to 1, and at any other place
it must be what that says.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxreg import _tree
from jaxreg._tree import PyTree
from jaxreg.fit.trainer import parts_of
from jaxreg.penalty import Penalty

__all__ = ["Prior", "prior"]


class Prior(NamedTuple):
    """R as ½ sum λ (θ - c)², by the trained leaves.

    Attributes:
      lam: its curvature λ, of the shape of each leaf.
      slope: its gradient at 0, -λ c.
      odd: of each term, whether it is no such quadratic.
    """

    lam: list[Array]
    slope: list[Array]
    odd: Array


@jax.jit
def prior(terms: tuple[Penalty, ...], params: PyTree) -> Prior:
    """The curvature of a sum of terms, from gradients at 0 and 1, and whether others agree with it."""
    part, _ = parts_of(params)
    leaves = _tree.flatten(part)
    near = [jnp.asarray(x, _tree.accumulator(x)) for x in leaves.values]
    at = lambda value: [jnp.full(x.shape, value, x.dtype) for x in near]
    draws = [jax.random.normal(jax.random.key(i), x.shape, x.dtype) for i, x in enumerate(near)]
    found = []
    for term in terms:
        slope = jax.grad(lambda values, term=term: term(leaves.rebuild(values)))
        zero = slope(at(0.0))
        lam = jax.tree.map(jnp.subtract, slope(at(1.0)), zero)
        odd = functools.partial(_odd, slope, zero, lam)
        away = [odd([size * d for d in draws]) for size in (1.0, -30.0)]
        found.append((lam, zero, functools.reduce(operator.or_, away)))
    lams, slopes, odds = zip(*found)
    total = lambda trees: functools.reduce(lambda a, b: list(map(jnp.add, a, b)), trees)
    return Prior(total(lams), total(slopes), jnp.stack(odds))


def _odd(slope: Callable, zero: list[Array], lam: list[Array], at: list[Array]) -> Array:
    """Whether a gradient is not zero + λ at, or λ below 0."""
    found = []
    for s, z, a, x in zip(slope(at), zero, lam, at):
        room = 1e-3 * (jnp.abs(a * x) + jnp.abs(z)) + 1e-6 * jnp.max(jnp.abs(s), initial=0)
        found.append(jnp.any(~(jnp.abs(s - z - a * x) <= room) | (a < 0)))
    return functools.reduce(operator.or_, found)
