"""The main job: train every (penalty, fold, seed) in one compiled program.

This module checks what the user asked for, builds the population, and turns where it ended into a
`SweepResult`; what happens on the way is in drive.py.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from jaxreg._stream import check_batch, check_data
from jaxreg.results import SweepResult
from jaxreg.sweeps.callbacks import Callback, Callbacks, Setup
from jaxreg.sweeps.checkpoint import CheckpointStore
from jaxreg.sweeps.drive import Agenda, Drive
from jaxreg.sweeps.experiment import fingerprint
from jaxreg.sweeps.folds import make_folds
from jaxreg.sweeps.grid import Grid
from jaxreg.sweeps.halving import Halving, stages
from jaxreg.sweeps.layout import check_mesh, default_mesh, plan
from jaxreg.sweeps.population import Population
from jaxreg.sweeps.program import Setting, Shared
from jaxreg.sweeps.progress import Progress
from jaxreg.sweeps.widest import widest
from jaxreg.train import Trainer

__all__ = ["Interrupted", "sweep"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a sweep: the lanes stopped cleanly, and `result` is what they had reached.

    Lanes that were still running have the status `Status.RUNNING`. With `checkpoint=` the same call
    goes on from there.
    """

    def __init__(self, message: str, result: SweepResult):
        super().__init__(message)
        self.result = result


def sweep(
    trainer: Trainer,
    grid: Grid,
    data: tuple,
    *,
    steps: int,
    key: Array,
    folds: int | Sequence | np.ndarray | Array | None = None,
    validation: tuple | None = None,
    seeds: int = 1,
    batch_size: int | None = None,
    evals: int = 20,
    halving: Halving | None = None,
    patience: int | None = None,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: float = 60.0,
    callbacks: Sequence[Callback] = (),
    chunk: int | None = None,
    mesh: Mesh | None = None,
    shard_params: Callable[[str, Any], PartitionSpec] | None = None,
    keep_params: bool = True,
    progress: bool | None = None,
) -> SweepResult:
    """Train every penalty of the grid on every fold with every seed, in one compiled program.

    All penalties of a (fold, seed) start from the same parameters and see the same minibatches, so
    they differ by the penalty alone. A lane that diverges is marked and leaves the others untouched.
    Strengths are arguments of the program: another grid of the same size does not compile again.

    Args:
      trainer: the `Trainer`.
      grid: K penalties, from `jaxreg.grid`.
      data: arrays with n rows each, such as (X, y). Standardise inside the trainer or beforehand on
        training rows only.
      steps: updates per lane.
      key: PRNG key of folds, initial parameters, minibatches and the loss's own noise.
      folds: an int for random folds of equal size; an integer array [n] with the fold of every row
        (-1: always trained on); or pairs (train rows, validation rows) from a scikit-learn splitter.
      validation: instead of folds, separate arrays like `data` to validate on.
      seeds: how many repetitions of each fold, with other initial parameters and batches.
      batch_size: rows per step, drawn without replacement within an epoch; None is full batch.
      evals: how many times the lanes are evaluated on the way, the end included; rungs come on top.
      halving: give penalties up at rungs, by their validation loss; see `Halving`.
      patience: end a lane after this many evaluations without a lower validation loss. Every lane
        then returns its best evaluation, and the parameters of it.
      checkpoint: a directory of this sweep alone. The state of every lane is saved there, and the
        same call goes on from it to bitwise the same result, whatever ended the first.
      checkpoint_every: seconds between checkpoints; one is always saved at the end.
      callbacks: `Callback` objects, such as `TensorBoard`; one that raises is switched off.
      chunk: penalties vmapped together; chosen by machine, grid and memory when None.
      mesh: devices to spread over, all of them when None: its axis "lanes" takes the lanes, an axis
        "data" splits each batch, others are for `shard_params`.
      shard_params: (path, array) -> PartitionSpec of a parameter over further axes of the mesh.
      keep_params: whether to return the final parameters of every lane.
      progress: whether to show a progress bar; by default in terminals and notebooks only.

    Returns:
      A `SweepResult` with the axes (lam, fold, seed, time).

    Raises:
      ValueError, TypeError: before anything compiles, naming the argument and what to do.
      Interrupted: at Ctrl-C, with the result so far.

    >>> import optax, jaxreg as jr
    >>> x = jax.random.normal(jax.random.key(1), (40, 3))
    >>> y = x @ jnp.array([1.0, 0.0, 0.0])
    >>> trainer = jr.Trainer(
    ...     init=lambda key: jnp.zeros(3),
    ...     loss=lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2),
    ...     optimizer=lambda reg: optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.3)),
    ... )
    >>> g = jr.grid(jr.l2, lam=[0.001, 0.1, 10.0])
    >>> result = jr.sweep(trainer, g, (x, y), folds=4, steps=100, key=jax.random.key(0))
    >>> round(result.best().coords["lam"], 4)
    0.001
    """
    n = check_data("sweep", data)
    n_valid = _check_validation(data, validation)
    _check_counts(steps=steps, seeds=seeds, evals=evals)
    _check_options(grid, halving, patience, checkpoint_every)
    table = make_folds(folds, n, n_valid, key)
    _check_batches(batch_size, table)
    if mesh is None:
        mesh = default_mesh()
    else:
        check_mesh(mesh, batch_size, shard_params is not None)
    calls = Callbacks(callbacks)
    # The last penalty: the first may be λ = 0, in which no coupling shows.
    start = trainer.check(grid[len(grid) - 1], key)
    agenda = _agenda(steps, evals, halving, len(grid))
    n_pairs = len(table.rows) * seeds
    together = data if validation is None else jax.tree.map(_rows_after, data, tuple(validation))
    together = jax.tree.map(jnp.asarray, tuple(together))
    lanes = widest(trainer, start, together, batch_size or table.fewest, key)
    layout = plan(stages(len(grid), steps, halving), n_pairs, chunk, mesh, lanes)

    setting = Setting(
        trainer, batch_size, _ahead(agenda, table.fewest, batch_size), table.fewest,
        patience is not None, mesh, shard_params,
    )  # fmt: skip
    shared = Shared(
        together, jax.tree.map(jnp.asarray, table), key,
        jnp.asarray(agenda.times, jnp.int32), jnp.asarray(patience or 0, jnp.int32),
    )  # fmt: skip
    store = None
    if checkpoint is not None:
        store = CheckpointStore(checkpoint, fingerprint(setting, shared, grid, agenda, seeds))
    made_by = {
        "steps": steps, "seeds": seeds, "folds": len(table.rows), "batch_size": batch_size,
        "halving": halving and repr(halving), "patience": patience,
    }  # fmt: skip
    label = f"{len(grid)} λ x {len(table.rows)} folds x {seeds} seeds"
    with Progress(label, len(grid), steps, progress) as bar:
        population = Population(setting, shared, grid, seeds, n_pairs, layout)
        setup = _setup(population, len(table.rows), steps, made_by)
        calls.start(setup)
        drive = Drive(population, agenda, calls, bar, store, checkpoint_every)
        finished = drive.run()
    result = _result(drive, keep_params, setup.settings)
    calls.finish(result)
    for text in (*drive.warnings, *calls.report()):
        warnings.warn(f"sweep: {text}", RuntimeWarning, stacklevel=2)
    if not finished:
        raise Interrupted(_interruption(population.step, steps, checkpoint), result)
    return result


def _agenda(steps: int, evals: int, halving: Halving | None, n_penalties: int) -> Agenda:
    """When to evaluate, `evals` times evenly and at each rung, and when to give up."""
    rungs = halving.schedule(n_penalties, steps) if halving else []
    ahead = -(-steps // evals)
    times = {0, *range(ahead, steps, ahead), steps, *(rung.step for rung in rungs)}
    return Agenda(steps, np.array(sorted(times)), rungs)


def _ahead(agenda: Agenda, fewest: int, batch_size: int | None) -> int:
    """Steps whose batches are drawn at once: about an epoch, so that few rows are drawn in vain."""
    longest = int(np.diff(agenda.times).max())
    return min(longest, int(np.clip(fewest // (batch_size or fewest), 64, 1024)))


def _setup(population: Population, folds: int, steps: int, made_by: dict[str, Any]) -> Setup:
    settings = {
        **made_by, "layout": str(population.layout), "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }  # fmt: skip
    coords = {name: np.asarray(v) for name, v in population.grid.coords.items()}
    metrics = ("loss", *population.setting.trainer.metrics)
    return Setup(coords, folds, population.seeds, steps, metrics, json.dumps(settings))


def _result(drive: Drive, keep_params: bool, settings: str) -> SweepResult:
    """Everything in named axes."""
    population, times = drive.population, drive.agenda.times
    named = lambda x: x.reshape(len(x), -1, population.seeds, *x.shape[2:])
    table = jax.tree.map(named, population.table)
    curves: dict[str, np.ndarray] = table.log.metrics  # [K, fold, seed, time, 2]
    params = table.train.params if table.best is None else table.best.model[0]
    return SweepResult(
        coords=population.grid.coords,
        penalties=population.grid.penalty,
        time=times,
        train={m: c[..., 0] for m, c in curves.items()},
        valid={m: c[..., 1] for m, c in curves.items()},
        penalty_value=table.log.penalty,
        params=params if keep_params else None,
        status=named(drive.status),
        settings=settings,
        stop=named(drive.counted),
    )


def _interruption(step: int, steps: int, checkpoint: Any) -> str:
    on = "Without `checkpoint=` a new call starts from the beginning."
    if checkpoint is not None:
        on = f"The same call goes on from {str(checkpoint)!r}."
    return (
        f"sweep interrupted at step {step} of {steps}; `.result` of this exception holds it. {on}"
    )


def _check_options(grid: Any, halving: Any, patience: Any, checkpoint_every: Any) -> None:
    if not isinstance(grid, Grid):
        raise TypeError(f"sweep: `grid` must come from jaxreg.grid, got {type(grid).__name__}.")
    if halving is not None and not isinstance(halving, Halving):
        raise TypeError(
            "sweep: `halving` must be a jaxreg.Halving, such as Halving(keep=0.5, rungs=3), got "
            f"{halving!r}."
        )
    if patience is not None:
        _check_counts(patience=patience)
    if not isinstance(checkpoint_every, (int, float)) or not checkpoint_every >= 0:
        raise ValueError(
            "sweep: `checkpoint_every` must be a number of seconds of at least 0, got "
            f"{checkpoint_every!r}."
        )


def _check_batches(batch_size: int | None, table: Any) -> None:
    check_batch("sweep", batch_size, table.fewest)
    if batch_size is None and len(set(table.count.tolist())) > 1:
        raise ValueError(
            "sweep: full batches (batch_size=None) need folds with the same number of training rows, "
            f"got {sorted(set(table.count.tolist()))}. Give a batch_size, or equal folds."
        )


def _rows_after(a: Any, b: Any) -> Array:
    return jnp.concatenate([jnp.asarray(a), jnp.asarray(b, jnp.asarray(a).dtype)])


def _check_validation(data: tuple, validation: tuple | None) -> int:
    if validation is None:
        return 0
    n = check_data("sweep (validation)", validation)
    shapes = [[jnp.shape(x)[1:] for x in jax.tree.leaves(tuple(t))] for t in (data, validation)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"sweep: `validation` must have arrays like those of `data`, whose rows have the shapes "
            f"{shapes[0]}, got {shapes[1]}."
        )
    return n


def _check_counts(**counts: Any) -> None:
    for name, value in counts.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise ValueError(f"sweep: `{name}` must be an integer of at least 1, got {value!r}.")
