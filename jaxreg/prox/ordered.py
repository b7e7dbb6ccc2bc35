"""Operators that sort: isotonic regression, and with it the prox of SLOPE.

    slope(z) = sum_i w_i |z|_(i)      |z|_(1) >= |z|_(2) >= ...,  w_1 >= w_2 >= ... >= 0

Its prox sorts |x|, subtracts the weights, makes the result decrease again by pooling neighbours that
do not (isotonic regression), and cuts at 0. Pooling keeps a stack of blocks, each entry enters and
leaves it once, so the cost is the sort's n log n.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg.prox._common import floating, wide
from jaxreg.prox._lanes import along, one_line, pooled

__all__ = ["isotonic", "slope", "slope_residual"]


def isotonic(
    x: ArrayLike, weights: ArrayLike | None = None, axis: int = -1, *, decreasing: bool = False
) -> Array:
    """The nearest increasing sequence: argmin sum weights * (z - x)^2 with z_1 <= z_2 <= ...

    The prox of the indicator of the monotone cone; with `weights` = 1 / step in a diagonal metric.

    Args:
      x: floating; every line along `axis` is a sequence of its own.
      weights: > 0, broadcastable to `x`; 1 by default.
      axis: the axis that runs along the sequences.
      decreasing: whether z_1 >= z_2 >= ... instead.

    Returns:
      Array of the shape and dtype of `x`, constant on blocks; an entry that is in order with its
      neighbours is kept to the last bit. Linear in the number of entries.

    Raises:
      TypeError: `x` is not floating.

    Source: Barlow et al. (1972), pool adjacent violators; Best & Chakravarti (1990).
    >>> isotonic(jnp.array([1.0, 3.0, 2.0])).tolist()
    [1.0, 2.5, 2.5]
    """
    x = floating("isotonic", x)
    y = -wide(x) if decreasing else wide(x)
    if x.size == 0:
        return x
    w = jnp.ones((), y.dtype) if weights is None else wide(weights)
    w = jnp.broadcast_to(w, x.shape)
    z = along(_isotonic_line, axis % x.ndim, y, w, jnp.zeros(x.shape, bool))
    return (-z if decreasing else z).astype(x.dtype)


def slope(x: ArrayLike, thresholds: ArrayLike) -> Array:
    """The prox of sum_i thresholds_i * |x|_(i), the sorted l1 norm: SLOPE, OWL and OSCAR.

    Args:
      x: any shape, floating; all of it is one vector of n entries.
      thresholds: [n], decreasing, >= 0 (step * lam * weights): the first goes to the largest |x|.

    Returns:
      Array of the shape and dtype of `x`. Entries that are pooled come out equal in size, exactly.

    Raises:
      TypeError: `x` is not floating.

    Source: Bogdan et al., SLOPE (2015), section 2; Zeng & Figueiredo, OWL (2014).
    >>> slope(jnp.array([3.0, -3.0, 1.0]), jnp.array([2.0, 1.0, 0.5])).tolist()
    [1.5, -1.5, 0.5]
    """
    x = floating("slope", x)
    if x.size == 0:
        return x
    y = wide(x).ravel()
    order = jnp.argsort(-jnp.abs(y))
    left = jnp.abs(y)[order] - wide(thresholds)
    near = isotonic(left, decreasing=True)
    size = jnp.zeros_like(y).at[order].set(jnp.where(near > 0, near, 0), unique_indices=True)
    return jnp.where(size > 0, jnp.sign(y) * size, 0 * jnp.abs(y)).reshape(x.shape).astype(x.dtype)


def slope_residual(x: Array, grad: Array, weights: Array) -> Array:
    """The least-norm element of grad + d(sum_i weights_i |x|_(i)), for arrays of one shape.

    Entries of equal size share their weights in any order, so each such cluster is projected onto
    the hull of the orders by itself: isotonic regression that pools only inside a cluster.

    Source: Lim & Wright, Efficient Bregman projections onto the permutahedron (2016).
    """
    y, g = x.ravel(), grad.ravel()
    size = jnp.abs(y)
    # What is wanted of a nonzero entry is along its sign; at 0 either sign will do.
    push = jnp.where(size > 0, -jnp.sign(y) * g, jnp.abs(g))
    order = jnp.lexsort((-push, -size))
    size, push = size[order], push[order]
    ends = jnp.concatenate([jnp.ones(1, bool), size[1:] != size[:-1]])
    rest = -_isotonic_line(weights - push, jnp.ones_like(push), ends)
    rest = jnp.where(size > 0, rest, jnp.maximum(rest, 0))
    rest = jnp.zeros_like(rest).at[order].set(rest, unique_indices=True)
    return jnp.where(y != 0, -jnp.sign(y) * rest, jnp.sign(g) * rest).reshape(x.shape)


def _isotonic_line(x: Array, weights: Array, walls: Array) -> Array:
    """Isotonic regression of x [n]; no block reaches across the left side of an entry in `walls`."""
    blocks, first = _pool(x, weights, walls)
    return pooled(first, x, weights, blocks)


@one_line
def _pool(x: Array, weights: Array, walls: Array) -> tuple[Array, Array]:
    """Block means [n] of the isotonic regression, and where the blocks begin [n]."""
    n = x.shape[0]

    def push(stack, entry):
        means, masses, starts, top = stack

        def out_of_order(block):
            below, mean, _, start = block
            return (below >= 0) & (means[below] > mean) & ~walls[start]

        def merge(block):
            below, mean, mass, _ = block
            share = masses[below] / (mass + masses[below])
            moved = mean + (means[below] - mean) * share
            return below - 1, moved, mass + masses[below], starts[below]

        below, mean, mass, start = lax.while_loop(out_of_order, merge, (top, *entry))
        top = below + 1
        stack = means.at[top].set(mean), masses.at[top].set(mass), starts.at[top].set(start), top
        return stack, None

    empty = jnp.zeros_like(x), jnp.zeros_like(x), jnp.full(n, n), jnp.array(-1)
    (means, _, starts, top), _ = lax.scan(push, empty, (x, weights, jnp.arange(n)))
    used = jnp.where(jnp.arange(n) <= top, starts, n)
    first = jnp.zeros(n, int).at[used].set(1, mode="drop")
    return means[jnp.cumsum(first) - 1], first
