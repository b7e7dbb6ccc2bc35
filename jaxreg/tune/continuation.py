"""A path of strengths, each trained from where the weaker one ended: all of it costs a few trainings.

With λ_1 < λ_2 < … the lanes of all folds and seeds are trained at λ_1 from their initial parameters with
T updates, and at each λ_k from where λ_(k-1) ended with t updates, together T + (K - 1) t and not K T.
Neighbours have solutions near each other, which is why paths of convex problems are computed so (Friedman,
Hastie & Tibshirani 2010, "Regularization paths for generalized linear models via coordinate descent"; there
from the strongest on, where a lasso starts at 0). A net goes the other way: at a strong λ it collapses, and
stays collapsed when λ falls, so that the weakest comes first here.

λ is an argument of the program and the step a number in it, so the whole path is one program that is called
K times.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import Array

from jaxreg._check import check_key, count, flag
from jaxreg._quickly import moves
from jaxreg.fit.check import trainer_at
from jaxreg.fit.intake import check_batch
from jaxreg.fit.source import Stream
from jaxreg.fit.trainer import MakeTrainer
from jaxreg.grid import Grid
from jaxreg.results import SweepResult
from jaxreg.sweeps.machine.machine import Machine
from jaxreg.sweeps.rows import gathered
from jaxreg.tune._path import Options, Way

__all__ = ["continuation"]


@moves
def continuation(
    trainer: MakeTrainer,
    grid: Grid,
    data: tuple,
    *,
    steps: int,
    then: int,
    key: Array,
    folds: int | Sequence | np.ndarray | Array | None = None,
    validation: tuple | None = None,
    sample_weight: Any = None,
    prepare: Callable | None = None,
    seeds: int = 1,
    batch_size: int | None = None,
    machine: Machine | None = None,
    keep_params: bool = True,
) -> SweepResult:
    """Train the weakest strength, and each stronger one from where the one before ended.

    All folds and seeds are lanes of one program, with the folds, initial parameters and batches that
    `jaxreg.sweep` has for the same key; the first strength is what a sweep makes of it. Batches go on from
    strength to strength. So does the state of the optimizer: begun anew, Adam's first steps throw a net out
    of where it was, and its scores then chose other strengths than those of a sweep. A schedule of the
    learning rate must therefore not have ended after `steps`. With other axes in the grid, such as a
    learning rate, each combination of them is a path of its own.

    A net that comes from weaker λ is not the one that λ makes of fresh parameters: the scores choose λ, and
    `jaxreg.refit` trains the choice as a sweep does.

    Args:
      trainer: the function point -> `Trainer` of a sweep.
      grid: points with one axis that is the strength of a penalty, in any order.
      data: arrays with n rows each.
      steps: updates at the weakest strength.
      then: updates at each of the others; a fifth of `steps` chose as a sweep did in measurements.
      key: PRNG key of folds, initial parameters, minibatches and the loss's own noise.
      folds: as for `sweep`; or instead
      validation: rows that are not trained on.
      sample_weight: as for `sweep`.
      prepare: as for `sweep`.
      seeds: how many repetitions of each fold.
      batch_size: rows per step; None is full batch.
      machine: a `Machine` for what shall not be chosen.
      keep_params: whether to return the parameters of every lane.

    Returns:
      A `SweepResult` in the order of the grid, judged at the end of each strength. Its `time` counts the
      updates at that strength alone. A lane that diverges is NaN at all stronger ones too.

    Raises:
      ValueError: the grid has no such axis or several, a point occurs twice, paths differ in length, the
        trainer has `eval_params`, as an average over several strengths is of none; and what `sweep`
        refuses.
      TypeError: `grid` is none, or `data` is a stream.

    >>> import jax, jax.numpy as jnp, optax, jaxreg as jr
    >>> x = jax.random.normal(jax.random.key(1), (40, 8))
    >>> y = x[:, 0] + 0.5 * jax.random.normal(jax.random.key(2), (40,))
    >>> def trainer(reg):
    ...     loss = lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2)
    ...     return jr.Trainer(lambda key: jnp.zeros(8), loss, jr.proximal(optax.trace(0.9), reg, 0.05))
    >>> g = jr.grid(jr.l1, lam=jnp.geomspace(1e-3, 1, 16))
    >>> result = continuation(
    ...     trainer, g, (x, y), folds=4, steps=200, then=40, key=jax.random.key(0)
    ... )
    >>> round(result.best().coords["lam"], 3), result.best().lane_steps / (4 * 200)
    (0.1, 4.0)
    """
    walked, paths = _paths(grid)
    check_key("continuation", key)
    keep_params = flag("continuation", "keep_params", keep_params)
    options = Options(
        count("continuation", "steps", steps), count("continuation", "then", then), key,
        count("continuation", "seeds", seeds), None, Machine() if machine is None else machine,
    )  # fmt: skip
    if isinstance(data, Stream):
        raise TypeError(
            "continuation: `data` must be arrays, such as (X, y), got a Stream, whose batches are read "
            "once. Use jaxreg.sweep."
        )
    rows = gathered(data, validation, folds, sample_weight, prepare, key)
    options = options._replace(
        batch_size=check_batch("continuation", batch_size, rows.splits.fewest)
    )
    _check_averages(trainer, grid)
    way = Way(trainer, grid, walked, paths, rows, options)
    for text in (*rows.warnings, *way.run()):
        warnings.warn(f"continuation: {text}", RuntimeWarning, stacklevel=3)  # past `moves`
    return way.result(keep_params)


# --- before anything compiles ------------------------------------------------------------------------


def _paths(grid: Any) -> tuple[str, np.ndarray]:
    """The strength, and the points of each path [paths, length], the weakest first."""
    if not isinstance(grid, Grid):
        raise TypeError(
            "continuation: `grid` must come from jaxreg.grid or jaxreg.points, got "
            f"{type(grid).__name__}."
        )
    coords = {name: np.asarray(v, np.float64) for name, v in grid.coords.items()}
    varied = [name for name in grid.strengths if len(np.unique(coords[name])) > 1]
    walked = varied or list(grid.strengths[:1])
    if len(walked) != 1:
        got = ", ".join(walked) if walked else f"none among {', '.join(coords)}"
        raise ValueError(
            f"continuation: `grid` must have one axis that is the strength of a penalty, got {got}. Give "
            "the strength itself as the axis (lam, not 1 / lam), keep all but one at a single value, or "
            "use jaxreg.sweep, which needs no order."
        )
    strength = coords.pop(walked[0])
    others = np.stack([*coords.values(), np.zeros(len(strength))], 1)
    _, path = np.unique(others, axis=0, return_inverse=True)
    path = path.ravel()
    order = np.lexsort([strength, path])
    _check_lengths(walked[0], path, strength[order])
    return walked[0], order.reshape(path.max() + 1, -1)


def _check_lengths(name: str, path: np.ndarray, strength: np.ndarray) -> None:
    """`strength` in the order of the paths."""
    lengths = np.bincount(path)
    if len(set(lengths.tolist())) > 1:
        raise ValueError(
            f"continuation: `grid` must have as many values of {name} for each combination of the other "
            f"axes, as jaxreg.grid makes them, got {lengths.min()} to {lengths.max()}."
        )
    steps = np.diff(strength.reshape(len(lengths), -1))
    if (steps <= 0).any():
        again = strength.reshape(len(lengths), -1)[:, 1:][steps <= 0][0]
        raise ValueError(
            f"continuation: `grid` has {name} = {again:.4g} twice on one path; leave one out."
        )


def _check_averages(trainer: MakeTrainer, grid: Grid) -> None:
    if trainer_at("continuation", trainer, grid[0]).eval_params is not None:
        raise ValueError(
            "continuation: `trainer` must judge the parameters that it trains, got one with eval_params: "
            "an average reaches back to weaker strengths. Leave it away here; jaxreg.refit can have it."
        )
