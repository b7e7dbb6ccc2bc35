"""The compiled programs of a sweep: start a block of lanes, and train it from one step to another.

A block is B bundles of c lanes. The lanes of a bundle belong to one (fold, seed): they share their
minibatches, one gather per batch and the key of their initial parameters, and differ in the point alone.
Bundles are vmapped as well, and spread over the devices of a mesh. First and last step are traced, so one
program serves every segment, every point and every length of run; where it is cut changes no number.
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

from jaxreg import _tree
from jaxreg._convolution import canonical_convolutions
from jaxreg._tree import PyTree
from jaxreg.fit import judge
from jaxreg.fit.batches import BatchStream, WindowStream, normalized
from jaxreg.fit.check import trainer_at
from jaxreg.fit.kept import Recent, kept
from jaxreg.fit.splits import FoldTable
from jaxreg.fit.trainer import MakeTrainer, Trainer, TrainState, parts_of
from jaxreg.objective import terms_in

__all__ = [
    "Best",
    "Bundles",
    "Common",
    "LaneState",
    "Log",
    "Program",
    "Spec",
    "data_of",
    "lane_shapes",
    "over_lanes",
    "over_mesh",
    "programs",
    "stream_of",
    "trainer_of",
]


class Log(NamedTuple):
    """What a lane remembers of its evaluations at E times; [E, 2] is (train, valid)."""

    metrics: dict[str, Array]  # [E, 2], NaN until the time has come
    terms: dict[str, Array]  # [E], the value of each term of each penalty, and of the loss
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


class Bundles(NamedTuple):
    """What B bundles of c lanes train: points [B, c, ...], fold [B], and the keys of their pair [B]."""

    points: PyTree
    fold: Any
    start_key: Any
    stream_key: Any


class Common(NamedTuple):
    """What all lanes have in common; resident once on every device."""

    data: tuple  # n rows, or F x n where the rows of each fold are prepared apart
    window: (
        tuple | None
    )  # batches [W, rows, ...] that were read from a stream; then data only judge
    numbers: PyTree  # leaves [F, ...] that were prepared for each fold, or None
    folds: FoldTable
    weights: Array | None  # [n], of the rows
    key: Array
    times: Array  # int [E], rising: the steps after which to evaluate
    patience: Array  # int: evaluations without a better validation loss; unused without Best


@dataclasses.dataclass(frozen=True)
class Spec:
    """The static part: what a program is compiled for."""

    trainer: MakeTrainer
    ways: judge.Ways  # how the loss and each metric are judged
    sizes: tuple[tuple[int, int], ...]  # of the folds, where something is called with their rows
    terms: tuple[str, ...]  # of the penalties in a point, and of the loss
    batch_size: int | None
    ahead: int  # steps whose batches are drawn, or read, at once
    fewest: int  # training rows of the smallest fold
    padded: bool  # whether full batches are filled up
    apart: bool  # whether the rows of each fold are prepared apart
    early_stopping: bool
    mesh: Mesh | None
    shard_params: Callable[[str, Any], PartitionSpec] | None


_MOST = 16  # shapes and structures for which a program is kept


class Executable(NamedTuple):
    """A compiled program, and what was asked of it once: the answers take as long as a short sweep."""

    call: Callable
    shapes: Any  # of its results, with their placement
    scratch: int  # bytes it takes beside its arguments and results
    seconds: float  # that compiling it took


class Program:
    """A function that is jitted and compiled ahead for every shape of its arguments.

    Ahead, because the memory a program takes is asked before it runs, and because several threads
    share it. What was compiled longest ago is let go, and with it all that jax remembers of it.
    """

    def __init__(self, name: str, fn: Callable, donated: tuple[int, ...] = ()):
        self._name, self._fn, self._donated = name, fn, donated
        self._compiled = Recent(_MOST)

    def compiled(self, *args: Any) -> Executable:
        """The program for arguments like these: arrays, or `jax.ShapeDtypeStruct`."""
        leaves, treedef = jax.tree.flatten(args)
        key = treedef, tuple((x.shape, x.dtype, _placement(x)) for x in leaves)
        found = self._compiled.get(key)
        if found is None:
            # A sweep is one program, also where others are looked into.
            with jax.disable_jit(False):
                found = self._compiled.put(key, self._compile(args))
        return found

    def _compile(self, args: tuple) -> Executable:
        began = time.perf_counter()
        # A function of its own for each, by which jax finds its traces; profiles show its name.
        call = lambda *args: self._fn(*args)
        call.__name__ = self._name
        fn = jax.jit(call, donate_argnums=self._donated)
        program = fn.lower(*args).compile()
        seconds = time.perf_counter() - began
        placed = lambda x, place: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=place if isinstance(place, NamedSharding) else None
        )
        shapes = jax.tree.map(placed, jax.eval_shape(fn, *args), program.output_shardings)
        memory = program.memory_analysis()
        return Executable(program, shapes, memory.temp_size_in_bytes if memory else 0, seconds)

    def __call__(self, *args: Any) -> Any:
        # A lane that diverges, and a curve where nothing has been evaluated yet, are NaN on purpose.
        with jax.debug_nans(False), jax.debug_infs(False), jax.disable_jit(False):
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
    """`start(bundles, common)` -> states, and `advance(states, bundles, common, first, last)`."""

    start: Program
    advance: Program


def programs(spec: Spec) -> Programs:
    """The programs of a spec; the same ones, compiled already, when it comes again."""
    return _programs(spec.trainer, spec)


@kept
def _programs(trainer: MakeTrainer, spec: Spec) -> Programs:
    del trainer  # it is in the spec, and keeps what is made
    # No functools.partial: jax keeps the signature of what it compiles, and the spec would stand in it.
    start = over_mesh(lambda *args: _start(*args, spec=spec), spec, 1, 1)
    advance = over_mesh(lambda *args: _advance(*args, spec=spec), spec, 2, 3)
    return Programs(
        Program("sweep_start", start),
        Program("sweep_advance", canonical_convolutions(advance), donated=(0,)),
    )


def over_mesh(fn: Callable, spec: Spec, of_lanes: int, of_all: int) -> Callable:
    """`fn` on every device of the mesh for the lanes that it has.

    The first `of_lanes` arguments and the results lead with lanes, the other `of_all` every device has
    whole.
    """
    if spec.mesh is None:
        return fn
    lanes, every = PartitionSpec("lanes"), PartitionSpec()
    return jax.shard_map(
        fn, mesh=spec.mesh, axis_names={"lanes"}, check_vma=False, out_specs=lanes,
        in_specs=(*[lanes] * of_lanes, *[every] * of_all),
    )  # fmt: skip


def over_lanes(f: Callable) -> Callable:
    """Map over the bundles of a block, or the lanes of a bundle; a lone one runs bare, as a fit does."""

    def call(*trees):
        if len(jax.tree.leaves(trees)[0]) > 1:
            return jax.vmap(f)(*trees)
        return jax.tree.map(lambda x: x[None], f(*jax.tree.map(lambda x: x[0], trees)))

    return call


def trainer_of(common: Common, spec: Spec, bundle: Bundles) -> Callable[[PyTree], Trainer]:
    """Point -> trainer, with what was prepared for the fold of the bundle."""
    numbers = jax.tree.map(lambda x: x[bundle.fold], common.numbers)
    return lambda point: trainer_at("sweep", spec.trainer, point, numbers)


def data_of(common: Common, spec: Spec, bundle: Bundles) -> tuple:
    """All rows as the fold of the bundle has them."""
    if not spec.apart:
        return common.data
    n = common.folds.times.shape[1]
    of_fold = lambda a: lax.dynamic_slice_in_dim(a, bundle.fold * n, n)
    return jax.tree.map(of_fold, common.data)


def _start(bundles: Bundles, common: Common, *, spec: Spec) -> LaneState:
    def bundle(bundle: Bundles):
        at = trainer_of(common, spec, bundle)

        def lane(point):
            state = at(point).start(bundle.start_key)
            return LaneState(_sharded(state, spec), _no_best(state, spec), _no_log(common, spec))

        return over_lanes(lane)(bundle.points)

    return over_lanes(bundle)(bundles)


def lane_shapes(bundles: Bundles, common: Common, spec: Spec) -> LaneState:
    """The shapes of the states of lanes, for which nothing is compiled."""
    anywhere = dataclasses.replace(spec, mesh=None, shard_params=None)
    return jax.eval_shape(functools.partial(_start, spec=anywhere), bundles, common)


def _no_log(common: Common, spec: Spec) -> Log:
    times = len(common.times)
    return Log(
        {name: jnp.full((times, 2), jnp.nan) for name, _ in spec.ways},
        {name: jnp.full(times, jnp.nan) for name in spec.terms},
        jnp.asarray(True),
        jnp.asarray(-1, jnp.int32),
    )


def _no_best(state: TrainState, spec: Spec) -> Best | None:
    if not spec.early_stopping:
        return None
    return Best((state.params, state.model_state), jnp.asarray(jnp.inf), jnp.asarray(0, jnp.int32))


def _sharded(state: TrainState, spec: Spec) -> TrainState:
    """The parameters laid over the mesh as `shard_params` says; the optimizer's state follows them."""
    if spec.shard_params is None or spec.mesh is None:
        return state
    leaves = _tree.flatten(state.params)
    laid = [
        lax.with_sharding_constraint(x, NamedSharding(spec.mesh, spec.shard_params(path, x)))
        for path, x in zip(leaves.paths, leaves.values)
    ]
    return state._replace(params=leaves.rebuild(laid))


def _advance(
    states: LaneState, bundles: Bundles, common: Common, first: Array, last: Array, *, spec: Spec
) -> LaneState:
    """Steps first, …, last - 1 of every lane, evaluating at the times on the way and at `last`.

    With first = last = 0 it evaluates the start.
    """

    def visit(carry):
        t, states, _ = carry
        # A sum and no search: the search is a loop of its own, which takes longer to compile.
        due = common.times[jnp.minimum(jnp.sum(common.times <= t), len(common.times) - 1)]
        n = jnp.maximum(jnp.minimum(jnp.minimum(last, due) - t, spec.ahead), 0)
        states = over_lanes(functools.partial(_run, common, spec, t, n))(states, bundles)
        t = t + n
        at = jnp.sum(common.times < t)
        # Only what an evaluation changes goes through the branch: a branch copies what it is given.
        look = over_lanes(functools.partial(_look, common, spec, at))
        best, log = lax.cond(
            common.times[jnp.minimum(at, len(common.times) - 1)] == t,
            lambda: look(states, bundles),
            lambda: (states.best, states.log),
        )
        return t, LaneState(states.train, best, log), jnp.asarray(False)

    begun = (first, states, jnp.asarray(True))
    return lax.while_loop(lambda c: c[2] | (c[0] < last), visit, begun)[1]


def _run(
    common: Common, spec: Spec, t: Array, n: Array, states: LaneState, bundle: Bundles
) -> LaneState:
    at, data = trainer_of(common, spec, bundle), data_of(common, spec, bundle)
    stream = stream_of(common, spec, bundle)
    run = lambda state, point: at(point).run(state, data, stream, t, n)
    return states._replace(train=over_lanes(run)(states.train, bundle.points))


def stream_of(common: Common, spec: Spec, bundle: Bundles) -> BatchStream | WindowStream:
    """What the lanes of the bundle are trained on step by step."""
    if common.window is not None:
        return WindowStream(common.window, bundle.stream_key, spec.ahead, _batch(spec))
    rows, count = common.folds.rows[bundle.fold], common.folds.count[bundle.fold]
    return BatchStream(
        rows,
        count,
        bundle.stream_key,
        spec.batch_size,
        spec.ahead,
        spec.fewest,
        _batch(spec),
        normalized(common.weights, rows, count),
        spec.padded,
    )


def _batch(spec: Spec) -> Any:
    """Where the rows of a minibatch lie: spread over the mesh's axis `data`, if it has one."""
    if spec.mesh is None or "data" not in spec.mesh.axis_names:
        return None
    return NamedSharding(spec.mesh, PartitionSpec("data"))


def _look(
    common: Common, spec: Spec, at: Array, states: LaneState, bundle: Bundles
) -> tuple[Best | None, Log]:
    made = trainer_of(common, spec, bundle)
    states = over_lanes(lambda s, point: s._replace(train=made(point).judged(s.train)))(
        states, bundle.points
    )
    judged, whole = _judge(common, spec, at, states, bundle, made)

    def lane(state, point, whole):
        return _noted(state, point, judged(made(point), state.train) | whole, at, common.patience)

    return over_lanes(lane)(states, bundle.points, whole)


def _judge(
    common: Common,
    spec: Spec,
    at: Array,
    states: LaneState,
    bundle: Bundles,
    made: Callable[[PyTree], Trainer],
) -> tuple[Callable[[Trainer, TrainState], dict[str, Array]], dict[str, Array]]:
    """What judges a lane, and what has been judged of all lanes of the bundle: name -> [2]."""
    if common.window is not None:
        # The training rows are those of the last batch.
        stream = WindowStream(common.window, bundle.stream_key, spec.ahead)
        parts = stream.at(jnp.maximum(common.times[at] - 1, 0)), common.data
        return lambda trainer, state: judge.of_parts(trainer, state, parts, spec.ways), {}
    data = data_of(common, spec, bundle)
    weights = common.folds.times[bundle.fold].astype(float)
    if common.weights is not None:
        weights = weights * common.weights[:, None]
    by_weights = lambda trainer, state: judge.by_weights(trainer, state, data, weights, spec.ways)
    return by_weights, _of_rows(common, spec, made, data, states, bundle)


def _of_rows(
    common: Common,
    spec: Spec,
    made: Callable[[PyTree], Trainer],
    data: tuple,
    states: LaneState,
    bundle: Bundles,
) -> dict[str, Array]:
    """What is called with the rows of the fold, which have one shape for each of their sizes."""
    if not spec.sizes:
        return {}
    fold = jax.tree.map(lambda x: x[bundle.fold], common.folds)

    def sized(train: int, valid: int) -> dict[str, Array]:
        of = lambda rows: jax.tree.map(lambda a: a[rows], data)
        parts = of(fold.rows[:train]), of(fold.valid[:valid])
        judged = lambda state, point: judge.of_rows(made(point), state.train, parts, spec.ways)
        return over_lanes(judged)(states, bundle.points)

    branches = [functools.partial(sized, *size) for size in spec.sizes]
    return branches[0]() if len(branches) == 1 else lax.switch(fold.kind, branches)


def _noted(
    state: LaneState,
    point: PyTree,
    metrics: dict[str, Array],
    at: Array,
    patience: Array,
) -> tuple[Best | None, Log]:
    """The best and the log after an evaluation; a lane that has stopped takes no more notes."""
    params, _ = parts_of(state.train.params)
    terms = {name: term(params) for name, term in terms_in(point).items()}
    terms |= {name: metrics[name][0] for name in state.log.terms if name not in terms}
    log, running = state.log, state.log.stopped < 0
    parts: list[PyTree] = [metrics["loss"][0], *terms.values()]
    parts += jax.tree.leaves(params)
    finite = jnp.stack([jnp.isfinite(x).all() for x in parts]).all()
    note = lambda curve, x: jnp.where(running, curve.at[at].set(x), curve)
    log = log._replace(
        metrics={name: note(curve, metrics[name]) for name, curve in log.metrics.items()},
        terms={name: note(curve, terms[name]) for name, curve in log.terms.items()},
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
