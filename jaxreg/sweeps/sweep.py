"""The main job: train every (point, fold, seed) in one compiled program.

This module checks what the user asked for, builds the population, and turns where it ended into a
`SweepResult`; what happens on the way is in drive.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jaxreg import _tree
from jaxreg._check import check_key, count, flag
from jaxreg._quickly import moves
from jaxreg._tree import PyTree
from jaxreg.fit import judge
from jaxreg.fit.check import Checked, check, trainer_at
from jaxreg.fit.intake import check_batch
from jaxreg.fit.source import Stream
from jaxreg.fit.splits import Splits
from jaxreg.fit.trainer import MakeTrainer
from jaxreg.grid import Grid
from jaxreg.objective import terms_in
from jaxreg.results import SweepResult
from jaxreg.stationarity import Stationarity
from jaxreg.sweeps.certify import certificates
from jaxreg.sweeps.checkpoint import CheckpointStore, differences, exclusive, experiment_in, local
from jaxreg.sweeps.drive import Agenda, Drive
from jaxreg.sweeps.experiment import fingerprint
from jaxreg.sweeps.growth import continues, evaluations
from jaxreg.sweeps.halving import Halving, stages
from jaxreg.sweeps.machine.hosts import leads
from jaxreg.sweeps.machine.layout import plan
from jaxreg.sweeps.machine.machine import Machine, check_machine, default_mesh
from jaxreg.sweeps.machine.widths import widest
from jaxreg.sweeps.population import Population
from jaxreg.sweeps.probe import Probe
from jaxreg.sweeps.program import Common, Spec
from jaxreg.sweeps.reader import Reader
from jaxreg.sweeps.rows import Rows, gathered
from jaxreg.sweeps.watch.callbacks import Callback, Callbacks, Outline
from jaxreg.sweeps.watch.progress import Progress

__all__ = ["Interrupted", "sweep"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a sweep: the lanes stopped cleanly, and `result` is what they had reached.

    Lanes that were still running have the status `Status.RUNNING`. With `checkpoint=` the same call
    goes on from there.
    """

    def __init__(self, message: str, result: SweepResult):
        super().__init__(message)
        self.result = result


class _Options(NamedTuple):
    """What a user may say beside the trainer, the grid and the data."""

    steps: int
    key: Array
    seeds: int
    batch_size: int | None
    evals: int
    halving: Halving | None
    patience: int | None
    machine: Machine
    stationarity: bool


class _Job(NamedTuple):
    """A sweep that has been traced and planned, and of which nothing has been compiled."""

    population: Population
    outline: Callable[[str], Outline]
    agenda: Agenda
    experiment: Callable[[], dict[str, Any]]
    probe: Callable[[], Any]  # refuses what only running the user's functions tells
    conclude: dict[str, Callable[[], PyTree]]
    directions: dict[str, str]
    warnings: list[str]


@moves
def sweep(
    trainer: MakeTrainer,
    grid: Grid,
    data: tuple | Stream,
    *,
    steps: int,
    key: Array,
    folds: int | Sequence | np.ndarray | Array | None = None,
    validation: tuple | Stream | None = None,
    sample_weight: Any = None,
    prepare: Callable | None = None,
    seeds: int = 1,
    batch_size: int | None = None,
    evals: int = 20,
    halving: Halving | None = None,
    patience: int | None = None,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: float = 60.0,
    callbacks: Sequence[Callback] = (),
    machine: Machine | None = None,
    keep_params: bool = True,
    stationarity: bool = False,
    progress: bool | None = None,
) -> SweepResult:
    """Train every point of the grid on every fold with every seed, in one compiled program.

    All points of a (fold, seed) start from the same key and see the same minibatches, so they differ by
    the point alone. A lane that diverges is marked and leaves the others untouched. Points are arguments
    of the program: another grid of the same size does not compile again.

    Args:
      trainer: a function point -> `Trainer`; loss, metrics, start and optimizer may all depend on the
        point. Define it once: compiled programs are found by it.
      grid: K points, from `jaxreg.grid` or `jaxreg.points`.
      data: arrays with n rows each, such as (X, y); also frames, series and tensors of numbers. Or a
        `jaxreg.stream` of batches, which is read once for all lanes; it needs `validation`, and its
        "train" scores are those of the last batch.
      steps: updates per lane.
      key: PRNG key of folds, initial parameters, minibatches and the loss's own noise.
      folds: an int for random folds of equal size; `jaxreg.folds(n, ...)` for stratified, grouped,
        time-ordered, blocked and repeated ones; one number or name for every row (-1: always trained
        on); or pairs (train rows, validation rows), as a scikit-learn splitter gives.
      validation: instead of folds, separate arrays like `data` to validate on.
      sample_weight: [n] >= 0, the weight of every row: losses and metrics are then weighted means,
        sum(w l) / sum(w), in training (over minibatches in expectation) and in evaluation. A pair of
        them where there are separate validation rows.
      prepare: what each fold learns of its training rows beforehand, such as a scaler: (*rows) -> a
        function (*rows) -> rows, which is applied to all rows of the fold's run, a pytree of numbers,
        which init, losses and metrics take (see `Trainer`), or a pair of both.
      seeds: how many repetitions of each fold, with other initial parameters and batches.
      batch_size: rows per step, drawn without replacement within an epoch; None is full batch.
      evals: how many times the lanes are evaluated on the way, the end included; rungs come on top.
      halving: give points up at rungs, by their validation loss; see `Halving`.
      patience: end a lane after this many evaluations without a lower validation loss. Every lane
        then returns its best evaluation, and the parameters of it.
      checkpoint: a directory of this sweep alone. The state of every lane is saved there, and the
        same call goes on from it to bitwise the same result, whatever ended the first.
      checkpoint_every: seconds between checkpoints; one is always saved at the end.
      callbacks: `Callback` objects, such as `TensorBoard`; one that raises is switched off.
      machine: a `Machine` for what shall not be chosen: the chunk of lanes, the mesh of devices.
      keep_params: whether to return the final parameters of every lane.
      stationarity: whether to say of every lane how far it ended from a stationary point of the loss on
        its training rows and the penalties of its point: `result.stationarity()`, and a column of the
        table. It costs a gradient over the training rows for each lane.
      progress: whether to show a progress bar; by default in terminals and notebooks only.

    Returns:
      A `SweepResult` with the axes (point, fold, seed, time).

    Raises:
      ValueError, TypeError: before anything compiles, naming the argument and what to do.
      Interrupted: at Ctrl-C, with the result so far.

    >>> import jax.numpy as jnp, optax, jaxreg as jr
    >>> x = jax.random.normal(jax.random.key(1), (40, 3))
    >>> y = x @ jnp.array([1.0, 0.0, 0.0])
    >>> def trainer(p):
    ...     loss = lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2)
    ...     tx = optax.chain(jr.add_penalty_gradient(p["reg"]), optax.sgd(p["lr"]))
    ...     return jr.Trainer(lambda key: jnp.zeros(3), loss, tx)
    >>> g = jr.grid(
    ...     lambda lam, lr: {"reg": jr.l2(lam), "lr": lr}, lam=[0.001, 0.1, 10.0], lr=[0.03, 0.3]
    ... )
    >>> result = jr.sweep(trainer, g, (x, y), folds=4, steps=100, key=jax.random.key(0))
    >>> result.best().coords
    {'lam': 0.001, 'lr': 0.3}
    """
    _check_options(grid, halving, checkpoint, checkpoint_every)
    _check_flags(keep_params=keep_params, stationarity=stationarity, progress=progress)
    check_key("sweep", key)
    rows = gathered(data, validation, folds, sample_weight, prepare, key)
    for text in rows.warnings:  # at once, as they are a reason not to wait for the end
        warnings.warn(f"sweep: {text}", RuntimeWarning, stacklevel=3)  # past the wrapper of `moves`
    options = _Options(
        count("sweep", "steps", steps), key, count("sweep", "seeds", seeds),
        _batch_size(batch_size, rows), count("sweep", "evals", evals), halving,
        None if patience is None else count("sweep", "patience", patience), machine or Machine(),
        bool(stationarity),
    )  # fmt: skip
    calls = Callbacks(callbacks)
    check_machine(options.machine, options.batch_size or rows.stream_rows, len(grid))
    label = f"{len(grid)} points x {len(rows.splits.table.count)} folds x {seeds} seeds"
    known = None if checkpoint is None else experiment_in(checkpoint)
    with _reading(rows, options, len(grid) * options.seeds) as reader:
        job = _job(trainer, grid, rows, options, reader, known)
        with _store(checkpoint, job, known) as store:
            with Progress(label, len(grid), steps, progress) as bar:
                conclude = lambda: {name: ask() for name, ask in job.conclude.items()}
                drive = Drive(
                    job.population, job.agenda, job.outline, calls, bar, conclude, store,
                    checkpoint_every,
                )  # fmt: skip
                finished = drive.run()
            concluded = _concluded(drive, job.conclude, finished)
    result = _result(drive, rows.splits, job.directions, keep_params, concluded)
    calls.finish(result)
    left_out = [] if reader is None else reader.warnings()
    for text in (*job.warnings, *drive.warnings, *left_out, *calls.report()):
        warnings.warn(f"sweep: {text}", RuntimeWarning, stacklevel=3)  # past the wrapper of `moves`
    if not finished:
        raise Interrupted(_interruption(job.population.step, steps, checkpoint), result)
    return result


@contextlib.contextmanager
def _store(
    checkpoint: str | os.PathLike | None, job: _Job, known: dict[str, Any] | None
) -> Iterator[CheckpointStore | None]:
    """The store of a sweep, which no other run can open meanwhile; of several processes one writes.

    A directory is claimed after all that can be refused has been; one that is `known` to be this sweep's
    has been through that.
    """
    experiment = {} if checkpoint is None else job.experiment()
    if known is None or differences(experiment, known):
        job.probe()
    if checkpoint is None:
        yield None
        return
    with exclusive(checkpoint) if leads() else contextlib.nullcontext():
        yield CheckpointStore(checkpoint, experiment, continues=continues)


def _reading(rows: Rows, options: _Options, lanes: int) -> Any:
    """The reader of a stream while the sweep runs."""
    if rows.stream is None:
        return contextlib.nullcontext()
    alone = (options.machine.mesh or default_mesh(lanes)) is None
    return contextlib.closing(Reader(rows.stream, options.steps, alone, rows.met))


def _job(
    trainer: MakeTrainer,
    grid: Grid,
    rows: Rows,
    options: _Options,
    reader: Reader | None,
    known: dict[str, Any] | None,
) -> _Job:
    """Everything that traces tell is refused here; `known` is the experiment that goes on."""
    o, splits = options, rows.splits
    n_folds = len(splits.table.count)
    n_pairs = n_folds * o.seeds
    mesh = o.machine.mesh or default_mesh(len(grid) * n_pairs)
    padded = o.batch_size is None and not splits.equal
    # The last point: the first may have λ = 0, in which no coupling shows.
    point = grid[len(grid) - 1]
    size = o.batch_size or rows.stream_rows or splits.fewest
    data = rows.prepared.data if reader is None else reader.first
    batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype), data)
    numbers = rows.prepared.of_fold(0)
    checked = check("sweep", trainer, point, batch, o.key, numbers)
    _refuse_idle(checked, grid)
    agenda = _agenda(o, len(grid), known)
    lanes = widest(trainer, point, checked.state, batch, o.key, numbers)
    layout = plan(stages(len(grid), o.steps, o.halving), n_pairs, o.machine.chunk, mesh, lanes)
    made = trainer_at("sweep", trainer, point)
    probe = Probe(trainer, grid, rows, checked, data, numbers, o.key, padded, o.stationarity)
    spec = Spec(
        trainer, tuple((name, "unknown") for name in made.measures(checked.terms)), (),
        (*terms_in(point), *checked.terms),
        o.batch_size,
        _ahead(agenda, splits.fewest, o.batch_size) if reader is None else reader.width,
        splits.fewest, padded, rows.prepared.apart,
        o.patience is not None, mesh, o.machine.shard_params,
    )  # fmt: skip
    common = Common(
        rows.prepared.data, reader and reader.window(0).batches, rows.prepared.numbers,
        jax.tree.map(_tree.placed, splits.table), rows.weights, o.key,
        _tree.placed(np.int32(agenda.times)), _tree.placed(np.int32(o.patience or 0)),
    )  # fmt: skip
    population = Population(spec, common, grid, o.seeds, n_pairs, layout, probe.filled_in, reader)
    conclude: dict[str, Callable[[], PyTree]] = {}
    if made.eval_params is not None and o.patience is None:
        conclude["params"] = lambda: _judged(population)
    if o.stationarity:
        conclude["stationarity"] = lambda: certificates(population, probe.certify)
    return _Job(
        population,
        lambda layout: _outline(population, n_folds, o, rows, layout),
        agenda,
        lambda: fingerprint(spec, common, grid, agenda, o.seeds, o.evals, checked.state),
        lambda: probe.filled_in(spec),
        conclude,
        judge.directions(made),
        probe.warnings,
    )


def _refuse_idle(checked: Checked, grid: Grid) -> None:
    """Refuse numbers of the point that nothing uses: the result would name what made no difference."""
    if checked.idle_numbers:
        raise ValueError(
            "sweep: neither the start nor an update nor an evaluation depends on "
            f"{checked.idle_numbers[0]!r} of the point (axes {', '.join(grid.names)}). Use it in "
            "`trainer`, or leave it out of the grid."
        )


def _agenda(options: _Options, n_points: int, known: dict[str, Any] | None) -> Agenda:
    """When to evaluate, `evals` times evenly and at each rung, and when to give up."""
    steps, halving = options.steps, options.halving
    rungs = halving.schedule(n_points, steps) if halving else []
    times = {*evaluations(None if rungs else known, steps, options.evals)}
    return Agenda(steps, np.array(sorted(times | {rung.step for rung in rungs})), rungs)


def _ahead(agenda: Agenda, fewest: int, batch_size: int | None) -> int:
    """Steps whose batches are drawn at once: about an epoch, so that few rows are drawn in vain."""
    longest = int(np.diff(agenda.times).max())
    return min(longest, int(np.clip(fewest // (batch_size or fewest), 64, 1024)))


def _outline(
    population: Population, folds: int, options: _Options, rows: Rows, layout: str
) -> Outline:
    made_by = {
        "steps": options.steps, "seeds": options.seeds, "folds": folds,
        "batch_size": options.batch_size, "halving": options.halving and repr(options.halving),
        "patience": options.patience, "layout": layout, "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "prepare": rows.prepared.apart or rows.prepared.numbers is not None,
        "sample_weight": rows.weights is not None,
    }  # fmt: skip
    coords = {name: np.asarray(v) for name, v in population.grid.coords.items()}
    spec = population.spec
    return Outline(
        coords, folds, options.seeds, options.steps, tuple(name for name, _ in spec.ways), spec.terms,
        json.dumps(made_by),
    )  # fmt: skip


def _result(
    drive: Drive,
    splits: Splits,
    directions: dict[str, str],
    keep_params: bool,
    concluded: dict[str, PyTree],
) -> SweepResult:
    """Everything in named axes."""
    population, times = drive.population, drive.agenda.times
    pairs = (drive.status.shape[1] // population.seeds, population.seeds)
    named = lambda x: x.reshape(len(x), *pairs, *x.shape[2:])
    table = jax.tree.map(named, population.table)
    curves: dict[str, np.ndarray] = table.log.metrics  # [K, fold, seed, time, 2]
    params = table.train.params if table.best is None else table.best.model[0]
    if "params" in concluded:
        params = jax.tree.map(named, concluded["params"])
    return SweepResult(
        coords=population.grid.coords,
        points=population.grid.points,
        time=times,
        train={m: c[..., 0] for m, c in curves.items()},
        valid={m: c[..., 1] for m, c in curves.items()},
        terms={name: table.log.terms[name] for name in population.spec.terms},
        params=params if keep_params else None,
        status=named(drive.status),
        stop=named(drive.counted),
        strengths=population.grid.strengths,
        directions=directions,
        repeats=splits.repeats,
        overlap=splits.overlap,
        made_by=drive.outlined.made_by,
        certificate=jax.tree.map(named, concluded.get("stationarity")),
    )


def _judged(population: Population) -> PyTree:
    """The parameters that are judged, of every lane, [K, P, ...]."""
    trainer, points = population.spec.trainer, population.grid.points
    lane = lambda point: lambda state: trainer_at("sweep", trainer, point).judged(state).params
    lanes = lambda point, states: jax.vmap(lane(point))(states)
    judged = jax.jit(jax.vmap(lanes))(points, population.table.train)
    return jax.tree.map(np.asarray, judged)


def _concluded(
    drive: Drive, asked: Mapping[str, Callable[[], PyTree]], finished: bool
) -> dict[str, PyTree]:
    """What is asked of all lanes at the end, where the run that ended has not asked it already."""

    def found(name: str, ask: Callable[[], PyTree]) -> PyTree:
        if name in drive.conclusions:
            return drive.conclusions[name]
        stored = drive.concluded.get(name)
        if stored is None:
            return ask()
        if name == "stationarity":
            return Stationarity(**stored.nested())
        return stored.like(drive.population.table.train.params, "sweep", name)

    return {name: found(name, ask) for name, ask in asked.items() if finished or name == "params"}


def _interruption(step: int, steps: int, checkpoint: Any) -> str:
    on = "Without `checkpoint=` a new call starts from the beginning."
    if checkpoint is not None:
        on = f"The same call goes on from {str(checkpoint)!r}."
    return (
        f"sweep interrupted at step {step} of {steps}; `.result` of this exception holds it. {on}"
    )


def _batch_size(batch_size: Any, rows: Rows) -> int | None:
    if rows.stream is not None and batch_size is not None:
        raise ValueError(
            f"sweep: the batches of the stream have {rows.stream.rows} rows; leave `batch_size` out."
        )
    return check_batch("sweep", batch_size, rows.splits.fewest)


def _check_flags(progress: Any, **flags: Any) -> None:
    for name, value in (
        flags.items() if progress is None else (flags | {"progress": progress}).items()
    ):
        flag("sweep", name, value)


def _check_options(grid: Any, halving: Any, checkpoint: Any, checkpoint_every: Any) -> None:
    if not isinstance(grid, Grid):
        raise TypeError(
            f"sweep: `grid` must come from jaxreg.grid or jaxreg.points, got {type(grid).__name__}."
        )
    if halving is not None and not isinstance(halving, Halving):
        raise TypeError(
            "sweep: `halving` must be a jaxreg.Halving, such as Halving(keep=0.5, rungs=3), got "
            f"{halving!r}."
        )
    if checkpoint is not None:
        local("sweep", "checkpoint", checkpoint)
    number = isinstance(checkpoint_every, (int, float)) and not isinstance(checkpoint_every, bool)
    if not number or not checkpoint_every >= 0:
        raise ValueError(
            "sweep: `checkpoint_every` must be a number of seconds of at least 0, got "
            f"{checkpoint_every!r}."
        )
