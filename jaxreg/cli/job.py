"""The job behind `jaxreg sweep`: data, model, sweep, choice, refit on all training data, test."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax

import jaxreg as jr
from jaxreg.cli import data as datasets
from jaxreg.cli import models
from jaxreg.cli.settings import Settings

__all__ = ["Job", "Outcome", "TestRow", "prepare"]

COUPLINGS = ("auto", "gradient", "decoupled", "proximal")
OPTIMIZERS = ("adam", "sgd")


class TestRow(NamedTuple):
    """One refitted penalty on the test set: means and standard errors over the refits."""

    __test__ = False

    name: str
    lam: float
    scores: dict[str, tuple[float, float]]


class Outcome(NamedTuple):
    """What a finished job found."""

    result: jr.SweepResult
    chosen: dict[str, float]
    test: list[TestRow]


class Job(NamedTuple):
    """A job ready to run: everything was checked, nothing has been compiled."""

    settings: Settings
    dataset: datasets.Dataset
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    trainer: jr.Trainer
    grid: jr.Grid

    def run(self, progress: bool | None = None) -> Outcome:
        """Sweep with cross-validation, choose by both rules, refit and test."""
        s = self.settings
        key = jax.random.key(s.seed)
        result = jr.sweep(
            self.trainer, self.grid, self.train, folds=s.folds, seeds=s.seeds, steps=s.steps,
            batch_size=s.batch_size, key=key, progress=progress,
        )  # fmt: skip
        chosen = {rule: result.best(rule=rule).coords["lam"] for rule in ("min", "1se")}
        return Outcome(result, chosen, self._test(chosen, jax.random.fold_in(key, 1), progress))

    def _test(
        self, chosen: dict[str, float], key: jax.Array, progress: bool | None
    ) -> list[TestRow]:
        """Train λ = 0 and the chosen ones on all training rows, several times, and test them."""
        s = self.settings
        lams = sorted({0.0, *chosen.values()})
        grid = Settings(**{**s.__dict__, "lams": ",".join(map(repr, lams))}).grid()
        refit = jr.sweep(
            self.trainer, grid, self.train, validation=self.test, seeds=s.refits, steps=s.steps,
            batch_size=s.batch_size, key=key, evals=1, keep_params=False, progress=progress,
        )  # fmt: skip
        scores = {
            m: list(zip(refit.mean(m), refit.stderr(m))) for m in ("loss", *self.trainer.metrics)
        }
        named = {"no penalty": 0.0, **{f"chosen by {rule}": lam for rule, lam in chosen.items()}}
        return [
            TestRow(name, lam, {m: v[lams.index(lam)] for m, v in scores.items()})
            for name, lam in named.items()
        ]


def prepare(settings: Settings) -> Job:
    """Load, split and standardise the data, build model, optimizer and grid; compile nothing.

    Raises:
      ValueError: an option, or the data, does not make a job; the message says what to do.
    """
    grid = settings.grid()
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
