"""The main job: train every (penalty, fold, seed) in one compiled program.

Training goes in compiled segments; between them the host shows progress and collects the learning
curves, which costs nothing measurable.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxreg.results import Status, SweepResult
from jaxreg.sweeps.folds import make_folds
from jaxreg.sweeps.grid import Grid
from jaxreg.sweeps.lanes import Lanes, Record, plan
from jaxreg.sweeps.progress import show_progress
from jaxreg.train import Trainer, check_batch, check_data

__all__ = ["sweep"]


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
    chunk: int | None = None,
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
      evals: how many times the lanes are evaluated on the way, the end included.
      chunk: penalties vmapped together; chosen by the machine and the grid when None.
      keep_params: whether to return the final parameters of every lane.
      progress: whether to show a progress bar; by default in terminals and notebooks only.

    Returns:
      A `SweepResult` with the axes (lam, fold, seed, time).

    Raises:
      ValueError, TypeError: before anything compiles, naming the argument and what to do.

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
    if not isinstance(grid, Grid):
        raise TypeError(f"sweep: `grid` must come from jaxreg.grid, got {type(grid).__name__}.")
    table = make_folds(folds, n, n_valid, key)
    check_batch("sweep", batch_size, table.fewest)
    if batch_size is None and len(set(table.count.tolist())) > 1:
        raise ValueError(
            "sweep: full batches (batch_size=None) need folds with the same number of training rows, "
            f"got {sorted(set(table.count.tolist()))}. Give a batch_size, or equal folds."
        )
    layout = plan(len(grid), len(table.rows) * seeds, chunk)
    # The last penalty: the first may be λ = 0, in which no coupling shows.
    trainer.check(grid[len(grid) - 1], key)

    together = data if validation is None else jax.tree.map(_rows_after, data, tuple(validation))
    lanes = Lanes(trainer, grid, table, seeds, layout, key, jax.tree.map(jnp.asarray, together))
    ahead = -(-steps // evals)
    time = [0, *range(ahead, steps, ahead), steps]
    label = f"{len(grid)} λ x {len(table.rows)} folds x {seeds} seeds"
    records: list[Record] = []
    with show_progress(label, steps, progress) as show:
        for done, record in zip(time, lanes.train(time, ahead, batch_size)):
            records.append(record)
            show(done, _best(lanes.named(record.metrics["loss"])))
    settings = {
        "steps": steps, "seeds": seeds, "folds": len(table.rows), "batch_size": batch_size,
        "layout": str(layout), "jax": jax.__version__, "device": jax.devices()[0].device_kind,
    }  # fmt: skip
    return _result(lanes, records, time, keep_params, json.dumps(settings))


def _best(loss: np.ndarray) -> float:
    """Lowest validation loss [K, fold, seed, 2] of any penalty, averaged over its lanes."""
    mean = loss[..., 1].mean((1, 2))
    return float(np.min(mean, where=np.isfinite(mean), initial=np.inf))


def _result(
    lanes: Lanes, records: list[Record], time: list[int], keep_params: bool, settings: str
) -> SweepResult:
    """Everything in named axes."""
    joined = jax.tree.map(lambda *xs: np.stack([lanes.named(x) for x in xs], -1), *records)
    curves: dict[str, np.ndarray] = joined.metrics  # [K, fold, seed, 2, time]
    finite = joined.finite.all(-1)
    return SweepResult(
        coords=lanes.grid.coords,
        penalties=lanes.grid.penalty,
        time=np.asarray(time),
        train={m: c[:, :, :, 0] for m, c in curves.items()},
        valid={m: c[:, :, :, 1] for m, c in curves.items()},
        penalty_value=joined.penalty,
        params=lanes.params() if keep_params else None,
        status=np.where(finite, int(Status.FINISHED), int(Status.DIVERGED)),
        settings=settings,
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
