"""The job behind `jaxreg sweep`: data, model, sweep, refit on all training data, test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxreg as jr
from jaxreg.cli import data as datasets
from jaxreg.cli import models
from jaxreg.cli.settings import Settings, parse_halving
from jaxreg.fit.check import check
from jaxreg.fit.prepare import prepared
from jaxreg.grid import Grid
from jaxreg.sweeps import Refit

__all__ = ["Job", "prepare"]

COUPLINGS = ("auto", "gradient", "decoupled", "proximal")
OPTIMIZERS = ("adam", "sgd")
_EVALS = 20  # evaluations on the way
_FEW_ROWS = 100


class Job(NamedTuple):
    """A job ready to run: everything was checked, nothing has been compiled."""

    settings: Settings
    dataset: datasets.Dataset
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    trainer: Callable[[jr.Penalty], jr.Trainer]
    grid: Grid
    init: Callable
    learnt: Callable | None  # what each fold learns of its training rows beforehand
    folds: Any

    def sweep(
        self,
        checkpoint: Path | None = None,
        callbacks: Sequence[jr.Callback] = (),
        progress: bool | None = None,
    ) -> jr.SweepResult:
        """Train every λ with cross-validation; go on from the checkpoint if there is one."""
        s = self.settings
        return jr.sweep(
            self.trainer, self.grid, self.train, folds=self.folds, seeds=s.seeds, steps=s.steps,
            batch_size=s.batch_size, evals=_EVALS, halving=parse_halving(s.halving),
            patience=s.patience, machine=jr.Machine(chunk=s.chunk), key=jax.random.key(s.seed),
            prepare=self.learnt, checkpoint=checkpoint, callbacks=callbacks, progress=progress,
        )  # fmt: skip

    def refit(
        self,
        result: jr.SweepResult,
        rules: Sequence[str],
        callbacks: Sequence[jr.Callback] = (),
        progress: bool | None = None,
    ) -> Refit:
        """Train λ = 0 and the chosen ones on all training rows, several times, and test them."""
        key = jax.random.fold_in(jax.random.key(self.settings.seed), 1)
        return jr.refit(
            self.trainer, result, self.train, rule=rules, test=self.test, seeds=self.settings.refits,
            key=key, prepare=self.learnt, keep_params=False, callbacks=callbacks, progress=progress,
        )  # fmt: skip


def prepare(settings: Settings) -> Job:
    """Load, split and standardise the data, build model, optimizer and grid; compile nothing.

    Raises:
      ValueError: an option, or the data, does not make a job; the message says what to do.
    """
    grid = settings.grid()
    halving = parse_halving(settings.halving)
    if halving is not None:
        halving.schedule(len(grid), settings.steps)
    dataset = datasets.load(
        settings.data, target=settings.target, task=settings.task, reading=settings.reading()
    )
    rows, others = datasets.split_rows(dataset, _train_rows(settings, dataset), settings.seed)
    train, test = ((dataset.X[r], dataset.y[r]) for r in (rows, others))
    model = models.build(settings.model, dataset, hidden=settings.hidden)
    trainer = _trainer(settings, model, dataset, grid[0])
    learnt = _learnt(dataset)
    ready = prepared("sweep", learnt, train, [np.arange(len(train[0]))])
    key = jax.random.key(settings.seed)
    check("sweep", trainer, grid[len(grid) - 1], ready.data, key, ready.of_fold(0))
    folds = _folds(settings, dataset, rows)
    return Job(settings, dataset, train, test, trainer, grid, model.init, learnt, folds)


def _folds(s: Settings, dataset: datasets.Dataset, rows: np.ndarray) -> Any:
    """A number of random folds, or those that groups, times or classes ask for."""
    if dataset.times is not None and (s.stratify or dataset.groups is not None):
        other = "--stratify" if s.stratify else "--groups"
        raise ValueError(f"{other} and --time contradict each other: folds in time have an order.")
    if dataset.times is not None:
        return jr.folds(len(rows), s.folds, times=dataset.times[rows])
    if dataset.groups is None and not s.stratify:
        return s.folds
    groups = None if dataset.groups is None else dataset.groups[rows]
    y = dataset.y[rows] if s.stratify else None
    return jr.folds(len(rows), s.folds, groups=groups, y=y, seed=s.seed)


def _train_rows(settings: Settings, dataset: datasets.Dataset) -> int:
    """As said; else few of a bundled set, so that a penalty pays, and three quarters of a file."""
    if settings.train_size is None:
        own = Path(settings.data).suffix.lower() in (".csv", ".npz")
        return len(dataset.X) * 3 // 4 if own else _FEW_ROWS
    return settings.train_size or len(dataset.X) * 3 // 4


def _learnt(dataset: datasets.Dataset) -> Callable | None:
    """What is learnt of training rows: the scale of features that are no pixels, that of a quantity."""

    def of_rows(x: np.ndarray, y: np.ndarray) -> Any:
        mean, scale = (0.0, 1.0) if dataset.image_shape else datasets.standardizer(x)
        quantity = dataset.task == "regression"
        level, unit = datasets.standardizer(y) if quantity else (0, 1)

        def rows(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            # In float64 until here: a time in seconds since 1970 has no more digits in float32.
            x = ((x - mean) / scale).astype(np.float32)
            return x, ((y - level) / unit).astype(np.float32) if quantity else y

        return (rows, {"unit": np.float32(unit)}) if quantity else rows

    return None if dataset.image_shape and dataset.task != "regression" else of_rows


def _trainer(
    s: Settings, model: models.Model, dataset: datasets.Dataset, penalty: jr.Penalty
) -> Callable:
    """The trainer at a penalty: how the penalty reaches the weights."""
    chain = _chain(s, penalty)
    if dataset.task != "regression":
        return lambda reg: jr.Trainer(model.init, model.loss, chain(reg), metrics=model.metrics)

    # A quantity is learnt in its own standard deviations: else the first thousand steps go into reaching
    # its mean. Its error is in its own units.
    def standard(fn: Callable, power: int = 0) -> Callable:
        return lambda params, n, x, y: n["unit"] ** power * fn(params, x, y)

    metrics = {
        "rmse": standard(model.metrics["rmse"], 1),
        "r2": standard(model.metrics["r2"]),
    }
    init, loss = lambda key, n: model.init(key), standard(model.loss)
    return lambda reg: jr.Trainer(init, loss, chain(reg), metrics=metrics)


def _chain(s: Settings, penalty: jr.Penalty) -> Callable:
    coupling = s.coupling
    if coupling == "auto":
        coupling = "gradient" if penalty.smooth else "proximal"
    whole = {"adam": optax.adam, "sgd": optax.sgd}[s.optimizer]
    direction = {"adam": optax.scale_by_adam, "sgd": optax.identity}[s.optimizer]
    if coupling == "gradient":
        return lambda reg: optax.chain(jr.add_penalty_gradient(reg), whole(s.lr))
    if coupling == "decoupled":
        return lambda reg: jr.decoupled(direction(), reg, s.lr)
    return lambda reg: jr.proximal(whole(s.lr), reg, s.lr)
