"""One-dimensional algorithms along an axis of an array, with derivatives and without slow batching.

A sequential algorithm costs 20 to 50 ns an element on a CPU when it runs on one line at a time, and ten
times as much when XLA batches it; on an accelerator it is the other way round. `one_line` picks.
Its outputs carry no derivative: they say which entries belong together, and `pooled` turns that into
values by a formula that has one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

__all__ = ["along", "one_line", "pooled"]


def one_line(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of 1-D arrays whose vmap loops over the lines on a CPU and batches elsewhere."""
    # Under jit, as each call outside of it would compile the loop anew.
    batched = custom_vmap(jax.jit(function))

    @jax.jit
    def lines(*full: Array) -> Any:
        loop = lambda *a: lax.map(lambda row: batched(*row), a)
        return lax.platform_dependent(*full, cpu=loop, default=jax.vmap(function))

    @batched.def_vmap
    def rule(size: int, in_batched: list[bool], *args: Array) -> tuple[Any, Any]:
        full = [a if b else jnp.broadcast_to(a, (size, *a.shape)) for a, b in zip(args, in_batched)]
        out = lines(*full)
        return out, jax.tree.map(lambda _: True, out)

    # Without the barrier XLA moves an argument that is constant into the loop, and makes it anew,
    # all of it, for every element.
    return lambda *args: batched(*lax.optimization_barrier(lax.stop_gradient(args)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def along(function: Callable[..., Array], axis: int, x: Array, *others: Array) -> Array:
    """`function` of each line of `x` along `axis`, with the same line of every other array.

    The others broadcast against `x`, save along `axis`, where they keep their own length.
    """
    lines = []
    for a in (x, *others):
        a = a.reshape((1,) * (x.ndim - a.ndim) + a.shape)
        shape = list(x.shape)
        shape[axis] = a.shape[axis]
        moved = jnp.moveaxis(jnp.broadcast_to(a, shape), axis, -1)
        lines.append(moved.reshape(-1, moved.shape[-1]))
    shape = jnp.moveaxis(x, axis, -1).shape
    single = lines[0].shape[0] == 1
    found = function(*(a[0] for a in lines)) if single else jax.vmap(function)(*lines)
    return jnp.moveaxis(found.reshape(shape), -1, axis)


def pooled(first: Array, x: Array, weights: Array, about: Array) -> Array:
    """The weighted mean of `x` [n] over runs of entries; `first` [n] marks where a run begins.

    Taken `about` a value that is constant on each run and near its mean, so that runs of equal
    entries keep them to the last bit.
    """
    runs = jnp.cumsum(first) - 1
    sums = lambda v: jax.ops.segment_sum(v, runs, x.shape[0], indices_are_sorted=True)
    weight = sums(weights)
    shift = sums(weights * (x - about)) / jnp.where(weight > 0, weight, 1)
    return about + shift[runs]
