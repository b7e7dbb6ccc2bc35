"""The job behind `jaxreg sweep`: data, model, sweep, refit on all training data, test."""

from __future__ import annotations

import dataclasses
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

__all__ = ["Job", "TestRow", "prepare"]

COUPLINGS = ("auto", "gradient", "decoupled", "proximal")
OPTIMIZERS = ("adam", "sgd")
_EVALS = 20  # evaluations on the way


class TestRow(NamedTuple):
    """One refitted penalty on the test set: means and standard errors over the refits.

    `steps` is how long it was trained before the test: all steps, or fewer with early stopping.
    """

    __test__ = False

    name: str
    lam: float
    steps: int
    scores: dict[str, tuple[float, float]]


class Job(NamedTuple):
    """A job ready to run: everything was checked, nothing has been compiled."""

    settings: Settings
    dataset: datasets.Dataset
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    trainer: jr.Trainer
    grid: jr.Grid

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
            patience=s.patience, chunk=s.chunk, key=jax.random.key(s.seed), checkpoint=checkpoint,
            callbacks=callbacks, progress=progress,
        )  # fmt: skip

    def refit(
        self,
        result: jr.SweepResult,
        chosen: dict[str, float],
        callbacks: Sequence[jr.Callback] = (),
        progress: bool | None = None,
    ) -> list[TestRow]:
        """Train λ = 0 and the chosen ones on all training rows, several times, and test them.

        How long is never read off the test rows. With early stopping it is the mean over the lanes of
        the sweep that had this λ, to the nearest evaluation. λ = 0 takes that of the weakest λ that
        was trained to its end.
        """
        s = self.settings
        lams = sorted({0.0, *chosen.values()})
        grid = dataclasses.replace(s, lams=",".join(map(repr, lams))).grid()
        refit = jr.sweep(
            self.trainer, grid, self.train, validation=self.test, seeds=s.refits, steps=s.steps,
            batch_size=s.batch_size, key=jax.random.fold_in(jax.random.key(s.seed), 1),
            evals=_EVALS if s.patience else 1, keep_params=False, callbacks=callbacks,
            progress=progress,
        )  # fmt: skip
        lengths = np.array([_length(result, lam) for lam in lams])
        stop = np.abs(refit.time - lengths[:, None]).argmin(1)
        refit = dataclasses.replace(
            refit, stop=np.broadcast_to(stop[:, None, None], refit.status.shape)
        )
        scores = {
            m: list(zip(refit.mean(m), refit.stderr(m))) for m in ("loss", *self.trainer.metrics)
        }
        named = {"no penalty": 0.0, **{f"chosen by {rule}": lam for rule, lam in chosen.items()}}
        return [
            TestRow(name, lam, int(refit.time[stop[k]]), {m: v[k] for m, v in scores.items()})
            for name, lam in named.items()
            for k in [lams.index(lam)]
        ]


def _length(result: jr.SweepResult, lam: float) -> float:
    """Mean step at which the lanes of `lam` were judged; of one that has none, see `Job.refit`."""
    lams = np.asarray(result.coords["lam"])
    status = np.asarray(result.status)
    ended = ((status == jr.Status.FINISHED) | (status == jr.Status.STOPPED)).all((1, 2))
    same = np.flatnonzero(ended & (lams == np.asarray(lam, lams.dtype)))
    k = [*same, *np.flatnonzero(ended)][0]
    return float(result.time[np.asarray(result.stop)[k]].mean())


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
    trainer = jr.Trainer(
        model.init, model.loss, _optimizer(settings, grid[0]), metrics=model.metrics
    )
    trainer.check(grid[len(grid) - 1], jax.random.key(settings.seed))
    return Job(settings, dataset, train, test, trainer, grid)


def _optimizer(s: Settings, penalty: jr.Penalty) -> Callable:
    """The optimizer factory: how the penalty reaches the weights."""
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
