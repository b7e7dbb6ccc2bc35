"""Lanes: every (penalty, fold, seed) of a sweep, laid out on the machine and trained in segments.

Lanes of one (fold, seed) share their initial parameters, their minibatches and one gather per batch;
they differ in the penalty alone. A segment is a compiled program of a traced number of steps, so the
same program serves every segment, every λ and every length of run.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxreg._convolution import canonical_convolutions
from jaxreg._tree import PyTree
from jaxreg.penalty import Penalty
from jaxreg.sweeps.folds import Folds
from jaxreg.sweeps.grid import Grid
from jaxreg.train import BatchStream, Trainer, TrainState, init_key, stream_key

__all__ = ["Lanes", "Layout", "Record", "plan"]


class Layout(NamedTuple):
    """How K penalties x P pairs (fold, seed) lie on the machine.

    A group is up to `chunk` penalties of one pair, vmapped; groups run one after another
    (`lax.map`) on each of `streams` threads of a CPU, or all at once (`vmap`) on an accelerator.
    """

    chunk: int
    groups: int
    streams: int
    parallel: bool

    def __str__(self) -> str:
        if self.parallel:
            return f"all {self.groups} groups of {self.chunk} lanes at once (vmap)"
        threads = f"{self.streams} thread{'s' if self.streams > 1 else ''}"
        return f"{self.groups} groups of {self.chunk} vmapped lanes, one after another on {threads}"


def plan(n_penalties: int, n_pairs: int, chunk: int | None) -> Layout:
    """The layout for this machine: everything at once on an accelerator, chunks of lanes on a CPU."""
    if chunk is not None and not 1 <= chunk <= n_penalties:
        raise ValueError(
            f"sweep: `chunk` must be between 1 and the {n_penalties} penalties, got {chunk}."
        )
    on_cpu = jax.default_backend() == "cpu"
    if chunk is None:
        # Up to eight lanes were measured fastest on CPUs; a lane more costs about 1/(c + 1) of one
        # alone, and lanes that only fill up the last chunk are wasted.
        sizes = range(1, min(8, n_penalties) + 1)
        chunk = min(sizes, key=lambda c: -(-n_penalties // c) * (c + 1)) if on_cpu else n_penalties
    groups = n_pairs * -(-n_penalties // chunk)
    streams = min(len(os.sched_getaffinity(0)), groups) if on_cpu else 1
    return Layout(chunk, groups, streams, parallel=not on_cpu)


class Record(NamedTuple):
    """What a segment returns of each lane, beside its state: [..., 2] is (train, valid)."""

    metrics: dict[str, Array]
    penalty: Array
    finite: Array


class Lanes:
    """All lanes of a sweep: where each lies, and their states between segments."""

    def __init__(self, trainer, grid: Grid, folds: Folds, seeds: int, layout: Layout, key, data):
        self.trainer, self.grid, self.layout, self.key, self.data = trainer, grid, layout, key, data
        self.folds = jax.tree.map(jnp.asarray, folds)
        self.fewest, self.n_folds, self.seeds = folds.fewest, len(folds.rows), seeds
        self.blocks = [self._block(g) for g in np.array_split(self._padded(), layout.streams)]

    def _padded(self) -> np.ndarray:
        """Group numbers, the last repeated until every thread has equally many."""
        total = -(-self.layout.groups // self.layout.streams) * self.layout.streams
        return np.minimum(np.arange(total), self.layout.groups - 1)

    def _block(self, groups: np.ndarray) -> dict[str, Any]:
        """Penalties [G, chunk, ...], fold [G] and seed [G] of some groups."""
        chunks = -(-len(self.grid) // self.layout.chunk)
        pair, part = groups // chunks, groups % chunks
        lanes = part[:, None] * self.layout.chunk + np.arange(self.layout.chunk)
        lanes = np.minimum(lanes, len(self.grid) - 1)
        return {
            "penalty": jax.tree.map(lambda x: x[lanes], self.grid.penalty),
            "fold": jnp.asarray(pair // self.seeds),
            "seed": jnp.asarray(pair % self.seeds),
        }

    def train(self, time: list[int], ahead: int, batch_size: int | None) -> Iterator[Record]:
        """Run the segments between consecutive times; yields a record after each, on the host."""
        segment = functools.partial(
            _segment, trainer=self.trainer, data=self.data, folds=self.folds, key=self.key,
            batch_size=batch_size, ahead=ahead, fewest=self.fewest, parallel=self.layout.parallel,
        )  # fmt: skip
        start = functools.partial(_start, self.trainer, key=self.key, parallel=self.layout.parallel)
        self.states = [start(block) for block in self.blocks]
        with ThreadPoolExecutor(self.layout.streams) as pool:
            for first, last in zip([0, *time[:-1]], time):
                run = functools.partial(segment, first=first, n=last - first)
                # The first call compiles; the others must find the program, not compile it again.
                mapper: Callable = map if first == last else pool.map
                out = list(mapper(run, self.states, self.blocks))
                self.states = [state for state, _ in out]
                yield self._merge([record for _, record in out])

    def _merge(self, records: list[Record]) -> Record:
        """Host copies of the threads' records as one, without the padding groups."""
        stack = lambda *xs: np.concatenate([np.asarray(x) for x in xs])[: self.layout.groups]
        return jax.tree.map(stack, *records)

    def named(self, lanes: Any) -> Any:
        """[groups, chunk, ...] -> [K, fold, seed, ...]."""
        lanes = lanes.reshape(self.n_folds, self.seeds, -1, *lanes.shape[2:])
        lanes = lanes[:, :, : len(self.grid)]
        return lanes.transpose(2, 0, 1, *range(3, lanes.ndim))

    def params(self) -> PyTree:
        """The parameters of every lane, leaves [K, fold, seed, ...]."""
        join = lambda *xs: self.named(jnp.concatenate(xs)[: self.layout.groups])
        return jax.tree.map(join, *[state.params for state in self.states])


def _over(parallel: bool) -> Callable:
    """Map a function of one group over all groups."""
    return (lambda f, xs: jax.vmap(f)(xs)) if parallel else lax.map


def _over_chunk(f: Callable) -> Callable:
    """vmap over the lanes of a chunk; a chunk of one runs bare, bitwise like a single fit."""

    def call(*lanes):
        if len(jax.tree.leaves(lanes)[0]) > 1:
            return jax.vmap(f)(*lanes)
        alone = f(*jax.tree.map(lambda x: x[0], lanes))
        return jax.tree.map(lambda x: x[None], alone)

    return call


@functools.partial(jax.jit, static_argnames=("trainer", "parallel"))
def _start(trainer: Trainer, block: dict, key: Array, parallel: bool) -> TrainState:
    def group(g):
        k = init_key(key, g["seed"])
        return _over_chunk(lambda penalty: trainer.start(penalty, k))(g["penalty"])

    return _over(parallel)(group, block)


@functools.partial(
    jax.jit,
    static_argnames=("trainer", "batch_size", "ahead", "fewest", "parallel"),
    donate_argnums=(0,),
)
def _segment(
    states, block, *, trainer, data, folds, key, first, n, batch_size, ahead, fewest, parallel
) -> tuple[TrainState, Record]:
    """Steps first, …, first + n - 1 of every lane, then its evaluation."""

    def group(arg):
        state, g = arg
        fold = jax.tree.map(lambda x: x[g["fold"]], folds)
        stream = BatchStream(
            fold.rows, fold.count, stream_key(key, g["fold"], g["seed"]), batch_size, ahead, fewest
        )
        run = lambda s, p: trainer.run(s, p, data, stream, first, n)
        state = _over_chunk(run)(state, g["penalty"])
        look = lambda s, p: _record(trainer, s, p, data, fold)
        return state, _over_chunk(look)(state, g["penalty"])

    return canonical_convolutions(lambda lanes: _over(parallel)(group, lanes))((states, block))


def _record(
    trainer: Trainer, state: TrainState, penalty: Penalty, data: tuple, fold: Folds
) -> Record:
    metrics = trainer.evaluate(state, data, fold.weights)
    value = penalty(state.params)
    parts: list[PyTree] = [metrics["loss"][..., 0], value, *jax.tree.leaves(state.params)]
    finite = jnp.stack([jnp.isfinite(x).all() for x in parts]).all()
    return Record(metrics, value, finite)
