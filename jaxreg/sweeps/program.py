"""The compiled programs of a sweep: start a block of lanes, and train it from one step to another.

A block is R rows of c lanes. The lanes of a row belong to one (fold, seed): they share their initial
parameters, their minibatches and one gather per batch, and differ in the penalty alone. Rows are
vmapped as well, and spread over the devices of a mesh. First and last step are traced, so one program
serves every segment, every λ and every length of run; where it is cut changes no number.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._convolution import canonical_convolutions
from jaxreg._stream import BatchStream, init_key, stream_key
from jaxreg._tree import PyTree
from jaxreg.penalty import Penalty
from jaxreg.sweeps.folds import Folds
from jaxreg.train import Trainer, TrainState

__all__ = ["Best", "LaneState", "Log", "Rows", "Setting", "Shared", "programs"]


class Log(NamedTuple):
    """What a lane remembers of its evaluations at E times; [E, 2] is (train, valid)."""

    metrics: dict[str, Array]  # [E, 2], NaN until the time has come
    penalty: Array  # [E]
    finite: Array  # bool: nothing has diverged so far
    stopped: Array  # int: the evaluation at which patience ended, -1 before


class Best(NamedTuple):
    """The best evaluation of a lane so far, kept for early stopping."""

    model: PyTree  # (params, model state)
    loss: Array
    at: Array  # int: which evaluation


class LaneState(NamedTuple):
    """All that one lane carries from step to step."""

    train: TrainState
    best: Best | None
    log: Log


class Rows(NamedTuple):
    """What R rows of c lanes train: penalties [R, c, ...], fold [R], seed [R]."""

    penalty: Penalty
    fold: ArrayLike
    seed: ArrayLike


class Shared(NamedTuple):
    """What all lanes have in common; resident once on every device."""

    data: tuple
    folds: Folds
    key: Array
    times: Array  # int [E], rising: the steps after which to evaluate
    patience: Array  # int: evaluations without a better validation loss; unused without Best


@dataclasses.dataclass(frozen=True)
class Setting:
    """The static part: what a program is compiled for."""

    trainer: Trainer
    batch_size: int | None
    ahead: int  # steps whose batches are drawn at once
    fewest: int  # training rows of the smallest fold
    early_stopping: bool
    mesh: Mesh | None
    shard_params: Callable[[str, Any], PartitionSpec] | None


class Executable(NamedTuple):
    """A compiled program, and what was asked of it once: the answers take as long as a short sweep."""

    call: Callable
    shapes: Any  # of its results, with their placement
    scratch: int  # bytes it takes beside its arguments and results
    seconds: float  # that compiling it took


class Program:
    """A jitted function, compiled ahead for every shape of its arguments.

    Ahead, because the memory a program takes is asked before it runs, and because several threads
    share it.
    """

    def __init__(self, fn: Any):
        self._fn = fn
        self._compiled: dict[Any, Executable] = {}

    def compiled(self, *args: Any) -> Executable:
        """The program for arguments like these: arrays, or `jax.ShapeDtypeStruct`."""
        leaves, treedef = jax.tree.flatten(args)
        key = treedef, tuple((x.shape, x.dtype, _placement(x)) for x in leaves)
        if key not in self._compiled:
            self._compiled[key] = self._compile(args)
        return self._compiled[key]

    def _compile(self, args: tuple) -> Executable:
        began = time.perf_counter()
        program = self._fn.lower(*args).compile()
        seconds = time.perf_counter() - began
        placed = lambda x, place: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=place if isinstance(place, NamedSharding) else None
        )
        shapes = jax.tree.map(placed, jax.eval_shape(self._fn, *args), program.output_shardings)
        memory = program.memory_analysis()
        return Executable(program, shapes, memory.temp_size_in_bytes if memory else 0, seconds)

    def __call__(self, *args: Any) -> Any:
        return self.compiled(*args).call(*args)


def _placement(x: Any) -> Any:
    sharding = getattr(x, "sharding", None)
    return _parts(sharding, x.shape) if isinstance(sharding, NamedSharding) else None


@functools.lru_cache(maxsize=4096)
def _parts(sharding: NamedSharding, shape: tuple[int, ...]) -> Any:
    """Which part each device has: the same for every spelling of a sharding."""
    parts = sharding.devices_indices_map(shape)
    return tuple((d.id, str(part)) for d, part in parts.items())


class Programs(NamedTuple):
    """`start(rows, shared)` -> states, and `advance(states, rows, shared, first, last)` -> states."""

    start: Program
    advance: Program


@functools.lru_cache(maxsize=32)
def programs(setting: Setting) -> Programs:
    """The programs of a setting; the same ones, compiled already, when it comes again."""
    start, advance = (functools.partial(f, setting=setting) for f in (_start, _advance))
    if setting.mesh is not None:
        lanes, every = PartitionSpec("lanes"), PartitionSpec()
        over = functools.partial(
            jax.shard_map, mesh=setting.mesh, axis_names={"lanes"}, check_vma=False, out_specs=lanes
        )
        start = over(start, in_specs=(lanes, every))
        advance = over(advance, in_specs=(lanes, lanes, every, every, every))
    return Programs(
        Program(jax.jit(start)),
        Program(jax.jit(canonical_convolutions(advance), donate_argnums=(0,))),
    )


def _over_rows(f: Callable) -> Callable:
    """Map over the rows of a block; a lone row, and a lone lane below, runs bare, as a single fit does."""

    def call(*rows):
        if len(jax.tree.leaves(rows)[0]) > 1:
            return jax.vmap(f)(*rows)
        return jax.tree.map(lambda x: x[None], f(*jax.tree.map(lambda x: x[0], rows)))

    return call


_over_lanes = _over_rows


def _start(rows: Rows, shared: Shared, *, setting: Setting) -> LaneState:
    def lane(penalty, key):
        state = setting.trainer.start(penalty, key)
        return LaneState(
            _sharded(state, setting), _no_best(state, setting), _no_log(shared, setting)
        )

    def row(row: Rows):
        key = init_key(shared.key, row.seed)
        return _over_lanes(lambda penalty: lane(penalty, key))(row.penalty)

    return _over_rows(row)(rows)


def _no_log(shared: Shared, setting: Setting) -> Log:
    times = len(shared.times)
    names = ("loss", *setting.trainer.metrics)
    return Log(
        {name: jnp.full((times, 2), jnp.nan) for name in names},
        jnp.full(times, jnp.nan),
        jnp.asarray(True),
        jnp.asarray(-1, jnp.int32),
    )


def _no_best(state: TrainState, setting: Setting) -> Best | None:
    if not setting.early_stopping:
        return None
    return Best((state.params, state.model_state), jnp.asarray(jnp.inf), jnp.asarray(0, jnp.int32))


def _sharded(state: TrainState, setting: Setting) -> TrainState:
    """The parameters laid over the mesh as `shard_params` says; the optimizer's state follows them."""
    if setting.shard_params is None or setting.mesh is None:
        return state
    leaves = _tree.flatten(state.params)
    laid = [
        lax.with_sharding_constraint(x, NamedSharding(setting.mesh, setting.shard_params(path, x)))
        for path, x in zip(leaves.paths, leaves.values)
    ]
    return state._replace(params=leaves.rebuild(laid))


def _advance(
    states: LaneState, rows: Rows, shared: Shared, first: Array, last: Array, *, setting: Setting
) -> LaneState:
    """Steps first, …, last - 1 of every lane, evaluating at the times on the way and at `last`.

    With first = last = 0 it evaluates the start.
    """

    def visit(carry):
        t, states, _ = carry
        later = jnp.searchsorted(shared.times, t, side="right")
        due = shared.times[jnp.minimum(later, len(shared.times) - 1)]
        n = jnp.maximum(jnp.minimum(jnp.minimum(last, due) - t, setting.ahead), 0)
        states = _over_rows(functools.partial(_run_row, shared, setting, t, n))(states, rows)
        t = t + n
        at = jnp.searchsorted(shared.times, t)
        # Only what an evaluation changes goes through the branch: a branch copies what it is given.
        look = _over_rows(functools.partial(_look_row, shared, setting, at))
        best, log = lax.cond(
            shared.times[jnp.minimum(at, len(shared.times) - 1)] == t,
            lambda: look(states, rows),
            lambda: (states.best, states.log),
        )
        return t, LaneState(states.train, best, log), jnp.asarray(False)

    begun = (first, states, jnp.asarray(True))
    return lax.while_loop(lambda c: c[2] | (c[0] < last), visit, begun)[1]


def _run_row(
    shared: Shared, setting: Setting, t: Array, n: Array, states: LaneState, row: Rows
) -> LaneState:
    fold = jax.tree.map(lambda x: x[row.fold], shared.folds)
    key = stream_key(shared.key, row.fold, row.seed)
    stream = BatchStream(
        fold.rows,
        fold.count,
        key,
        setting.batch_size,
        setting.ahead,
        setting.fewest,
        _batch(setting),
    )
    run = lambda state, penalty: setting.trainer.run(state, penalty, shared.data, stream, t, n)
    return states._replace(train=_over_lanes(run)(states.train, row.penalty))


def _batch(setting: Setting) -> Any:
    """Where the rows of a minibatch lie: spread over the mesh's axis `data`, if it has one."""
    if setting.mesh is None or "data" not in setting.mesh.axis_names:
        return None
    return NamedSharding(setting.mesh, PartitionSpec("data"))


def _look_row(
    shared: Shared, setting: Setting, at: Array, states: LaneState, row: Rows
) -> tuple[Best | None, Log]:
    weights = shared.folds.weights[row.fold]

    def lane(state, penalty):
        metrics = setting.trainer.evaluate(state.train, shared.data, weights)
        return _noted(state, metrics, penalty(state.train.params), at, shared.patience)

    return _over_lanes(lane)(states, row.penalty)


def _noted(
    state: LaneState, metrics: dict[str, Array], value: Array, at: Array, patience: Array
) -> tuple[Best | None, Log]:
    """The best and the log after an evaluation; a lane that has stopped takes no more notes."""
    log, running = state.log, state.log.stopped < 0
    parts: list[PyTree] = [metrics["loss"][0], value, *jax.tree.leaves(state.train.params)]
    finite = jnp.stack([jnp.isfinite(x).all() for x in parts]).all()
    note = lambda curve, x: jnp.where(running, curve.at[at].set(x), curve)
    log = log._replace(
        metrics={name: note(curve, metrics[name]) for name, curve in log.metrics.items()},
        penalty=note(log.penalty, value),
        finite=log.finite & (finite | ~running),
    )
    if state.best is None:
        return None, log
    loss = metrics["loss"][1]
    better = running & (loss < state.best.loss)
    model = (state.train.params, state.train.model_state)
    fresh = Best(model, loss.astype(state.best.loss.dtype), at.astype(jnp.int32))
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), fresh, state.best)
    ended = running & (at - best.at >= patience)
    return best, log._replace(stopped=jnp.where(ended, at, log.stopped).astype(jnp.int32))
