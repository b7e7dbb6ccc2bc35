"""What a run is trained on step by step: its keys, and the stream of its minibatches.

The stream is one of row numbers that depend on the key, the fold and the seed only: runs that differ in
the penalty alone start alike and see the same batches (common random numbers), so their difference is
the penalty's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Sharding
from jax.typing import ArrayLike

from jaxreg.fit.shuffle import shuffled

__all__ = ["BatchStream", "WindowStream", "init_key", "normalized", "stream_key"]


def init_key(key: Array, seed: ArrayLike) -> Array:
    """Key of the initial parameters: shared by all penalties and folds of a seed."""
    return jax.random.fold_in(jax.random.fold_in(key, 0), seed)


def stream_key(key: Array, fold: ArrayLike, seed: ArrayLike) -> Array:
    """Key of the minibatches and the noise: shared by all penalties of a fold and seed."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, 1), fold), seed)


def normalized(weights: Array | None, rows: Array, count: int | Array) -> Array | None:
    """Weights of all rows, such that they are 1 on average over the first `count` of `rows`."""
    if weights is None:
        return None
    mine = jnp.where(jnp.arange(len(rows)) < count, weights[rows], 0)
    return weights * (jnp.asarray(count, mine.dtype) / jnp.sum(mine))


@dataclasses.dataclass(frozen=True)
class BatchStream:
    """The endless stream of minibatches of one (fold, seed): a function of the step alone.

    Each epoch is a fresh permutation of the fold's training rows, cut into whole batches; what does
    not fill a batch waits for another epoch. `rows` is padded to a common length across folds,
    `count` says how many of them are real, `fewest` is the smallest count of any fold, and `ahead`
    is how many steps are drawn at once. A `batch_size` of None is the full batch, unshuffled.
    `sharding` says how the rows of a batch lie over devices. `weights` are those of all rows of the data,
    1 on average over the fold's training rows; `padded` says whether some fold has fewer rows than others,
    so that a full batch needs weights too.
    """

    rows: Array
    count: int | Array
    key: Array
    batch_size: int | None
    ahead: int
    fewest: int
    sharding: Sharding | None = None
    weights: Array | None = None
    padded: bool = False

    def batches(
        self, data: tuple, first: int | Array
    ) -> Callable[[Any], tuple[tuple, Array | None]]:
        """A function i -> the batch of step first + i and its weights, if any, for 0 <= i < ahead."""
        if self.batch_size is None:
            whole = self._of(data, self.rows), self._full_weights()
            return lambda i: whole
        order = self._order(first)

        def batch(i):
            weights = None if self.weights is None else self.weights[order[i]]
            return self._of(data, order[i]), weights

        return batch

    def _full_weights(self) -> Array | None:
        """The weights of the full batch: 1 on average, and 0 for the rows that fill up."""
        if not self.padded:
            return None if self.weights is None else self.weights[self.rows]
        real = jnp.arange(len(self.rows)) < self.count
        given = jnp.ones(len(self.rows)) if self.weights is None else self.weights[self.rows]
        return jnp.where(real, given, 0) * (len(self.rows) / self.count)

    def _of(self, data: tuple, rows: Array) -> tuple:
        batch = jax.tree.map(lambda a: a[rows], data)
        if self.sharding is None:
            return batch
        return jax.tree.map(lambda a: lax.with_sharding_constraint(a, self.sharding), batch)

    def _order(self, first: int | Array) -> Array:
        """Row numbers [ahead, batch_size] of the steps first, first + 1, …"""
        size = self.batch_size or 1
        # By lax.div and lax.rem: what `//` and `%` do for negative numbers would have to compile too.
        first = jnp.asarray(first)
        per_epoch = lax.div(jnp.asarray(self.count, first.dtype), jnp.asarray(size, first.dtype))
        steps = first + jnp.arange(self.ahead, dtype=first.dtype)
        epoch = lax.div(steps, jnp.broadcast_to(per_epoch, steps.shape))
        # One key for each epoch that these steps may touch: far fewer than steps.
        base = lax.div(first, per_epoch)
        epochs = base + jnp.arange(self.ahead // (self.fewest // size) + 2, dtype=first.dtype)
        of_epoch = jax.vmap(lambda e: jax.random.key_data(jax.random.fold_in(self.key, 2 * e)))
        key = of_epoch(epochs)[epoch - base]
        place = (steps - epoch * per_epoch)[:, None] * size
        place = place + jnp.arange(size, dtype=first.dtype)[None]
        return self.rows[shuffled(place, jnp.moveaxis(key, -1, 0)[..., None], self.count)]

    def noise_key(self, step: int | Array) -> Array:
        """The key a stochastic loss gets at this step."""
        return jax.random.fold_in(self.key, 2 * step + 1)


@dataclasses.dataclass(frozen=True)
class WindowStream:
    """Batches that were read from outside: those of W steps, of which the first is a multiple of W.

    `window` has leaves [W, rows, ...]; `key` is that of the noise of one (fold, seed).
    """

    window: tuple
    key: Array
    width: int
    sharding: Sharding | None = None

    def at(self, step: int | Array) -> tuple:
        """The batch of a step."""
        step = jnp.asarray(step)
        place = lax.rem(step, jnp.asarray(self.width, step.dtype))
        batch = jax.tree.map(
            lambda a: lax.dynamic_index_in_dim(a, place, keepdims=False), self.window
        )
        if self.sharding is None:
            return batch
        return jax.tree.map(lambda a: lax.with_sharding_constraint(a, self.sharding), batch)

    def batches(self, data: tuple, first: int | Array) -> Callable[[Any], tuple[tuple, None]]:
        """A function i -> the batch of step first + i, and no weights."""
        del data
        return lambda i: (self.at(first + i), None)

    def noise_key(self, step: int | Array) -> Array:
        """The key a stochastic loss gets at this step."""
        return jax.random.fold_in(self.key, 2 * step + 1)
