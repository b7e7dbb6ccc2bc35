"""The job behind `jaxreg sweep`: data, model, sweep, refit on all training data, test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax

import jaxreg as jr
from jaxreg.cli import data as datasets
from jaxreg.cli import models
from jaxreg.cli.settings import Settings, parse_halving
from jaxreg.fit.check import check
from jaxreg.grid import Grid
from jaxreg.sweeps import Refit

__all__ = ["Job", "prepare"]

COUPLINGS = ("auto", "gradient", "decoupled", "proximal")
OPTIMIZERS = ("adam", "sgd")
_EVALS = 20  # evaluations on the way


class Job(NamedTuple):
    """A job ready to run: everything was checked, nothing has been compiled."""

    settings: Settings
    dataset: datasets.Dataset
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    trainer: Callable[[jr.Penalty], jr.Trainer]
    grid: Grid
    init: Callable

    def sweep(
        self,
        checkpoint: Path | None = None,
        callbacks: Sequence[jr.Callback] = (),
        progress: bool | None = None,
    ) -> jr.SweepResult:
        """Train every λ with cross-validation; go on from the checkpoint if there is one."""
        s = self.settings
        return jr.sweep(
            self.trainer, self.grid, self.train, folds=s.folds, seeds=s.seeds, steps=s.steps,
            batch_size=s.batch_size, evals=_EVALS, halving=parse_halving(s.halving),
            patience=s.patience, machine=jr.Machine(chunk=s.chunk), key=jax.random.key(s.seed),
            checkpoint=checkpoint, callbacks=callbacks, progress=progress,
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
            key=key, keep_params=False, callbacks=callbacks, progress=progress,
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
    dataset = datasets.load(settings.data, target=settings.target)
    rows = len(dataset.X) * 3 // 4 if settings.train_size is None else settings.train_size
    train, test = datasets.split(dataset, rows, settings.seed)
    if not dataset.image_shape:
        mean, scale = datasets.standardizer(train[0])
        train, test = ((train[0] - mean) / scale, train[1]), ((test[0] - mean) / scale, test[1])
    if dataset.task == "regression":
        # In its own standard deviations: else the first thousand steps go into reaching its mean.
        mean, scale = datasets.standardizer(train[1])
        train, test = ((x, (y - mean) / scale) for x, y in (train, test))
    model = models.build(settings.model, dataset, hidden=settings.hidden)
    trainer = _trainer(settings, model, grid[0])
    check("sweep", trainer, grid[len(grid) - 1], train, jax.random.key(settings.seed))
    return Job(settings, dataset, train, test, trainer, grid, model.init)


def _trainer(s: Settings, model: models.Model, penalty: jr.Penalty) -> Callable:
    """The trainer at a penalty: how the penalty reaches the weights."""
    chain = _chain(s, penalty)
    return lambda reg: jr.Trainer(model.init, model.loss, chain(reg), metrics=model.metrics)


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
