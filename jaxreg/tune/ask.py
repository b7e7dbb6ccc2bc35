"""Optuna's samplers, asked for a batch of points at a time that are trained as the lanes of one sweep.

Optuna (Akiba et al. 2019, "Optuna: A next-generation hyperparameter optimization framework") separates
asking for a trial from telling its score, so that any sampler of it, such as the tree-structured Parzen
estimator (Bergstra et al. 2011), can choose the points here. Every batch has the same width and the same
key: one program, with the same folds, batches and initial parameters for all trials.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxreg._check import check_key, count
from jaxreg.choice import Choice
from jaxreg.fit.check import trainer_at
from jaxreg.fit.judge import directions
from jaxreg.fit.trainer import MakeTrainer
from jaxreg.grid import Grid
from jaxreg.results import SweepResult
from jaxreg.results.build import first_points
from jaxreg.results.summary import lane_steps
from jaxreg.sweeps.rows import gathered
from jaxreg.sweeps.sweep import sweep
from jaxreg.tune._study import check_study, check_trials, optuna, scales
from jaxreg.tune.search import Found
from jaxreg.tune.space import Space

__all__ = ["ask_and_tell"]


def ask_and_tell(
    study: Any,
    trainer: MakeTrainer,
    space: Space,
    data: tuple,
    *,
    steps: int,
    key: Array,
    folds: Any = None,
    validation: Any = None,
    batch: int = 8,
    budget: int = 48,
    metric: str = "loss",
    **options: Any,
) -> Found:
    """Let the sampler of an Optuna study choose the points of a search; needs Optuna.

    A study that has trials goes on from them, if they were trained in the same way; to resume it, store it
    as Optuna does. A trial whose training diverged is told as pruned, from which samplers learn to stay
    away; those of a round that was interrupted fail. Points of a batch do not know of each other: take
    small batches, or a sampler with `constant_liar=True`.

    Args:
      study: from `optuna.create_study`, with one objective in the direction of the metric.
      trainer: the function point -> `Trainer` of a sweep.
      space: from `jaxreg.space`; samplers see its ranges on a logarithmic scale, and do not leave them.
      data: all training rows.
      steps: updates of each training.
      key: PRNG key of folds, parameters and batches, of all trials the same.
      folds: as for `sweep`; or instead
      validation: rows that are not trained on.
      batch: how many points are asked for and trained at a time.
      budget: how many points to train, each on all folds and seeds.
      metric: "loss", or one of the trainer's metrics that knows its direction.
      options: of `jaxreg.sweep`, such as seeds, but not `halving` or `checkpoint`.

    Returns:
      A `Found`, whose result has the points of this call.

    Raises:
      ImportError: Optuna is not installed.
      ValueError: a study of several objectives or of the other direction, whose trials were trained
        otherwise, or whose parameters have other scales; and what `sweep` refuses.
      TypeError: `study` or `space` is none.

    >>> import jax.numpy as jnp, optax, optuna, jaxreg as jr
    >>> x = jax.random.normal(jax.random.key(1), (40, 8))
    >>> y = x[:, 0] + 0.5 * jax.random.normal(jax.random.key(2), (40,))
    >>> def trainer(reg):
    ...     loss = lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2)
    ...     return jr.Trainer(lambda key: jnp.zeros(8), loss, jr.proximal(optax.trace(0.9), reg, 0.05))
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    >>> where = jr.space(jr.l1, lam=(1e-3, 1.0))
    >>> found = ask_and_tell(
    ...     study, trainer, where, (x, y), folds=4, steps=200, budget=16, key=jax.random.key(0)
    ... )
    >>> found.rounds, abs(found.choice.mean - study.best_value) < 1e-6
    ((8, 8), True)
    """
    optuna()  # which says how to install it
    if not isinstance(space, Space):
        raise TypeError(
            "ask_and_tell: `space` must come from jaxreg.space(make, lam=(low, high)), got a "
            f"{type(space).__name__}."
        )
    batch = count("ask_and_tell", "batch", batch)
    budget, steps = count("ask_and_tell", "budget", budget), count("ask_and_tell", "steps", steps)
    check_key("ask_and_tell", key)
    _check_options(options)
    wanted = "maximize" if _larger(trainer, space, metric) else "minimize"
    check_study(study, wanted, metric)
    # What a sweep refuses of the rows: before there is a trial that fails by it.
    weights, prepare = options.get("sample_weight"), options.get("prepare")
    rows = gathered(data, validation, folds, weights, prepare, key)

    scale, given = scales(space), {**options, "steps": steps, "key": key}
    told = check_trials(study, scale, rows, {**given, "metric": metric})
    given |= {"folds": folds, "validation": validation}
    asked = _Asked(study, scale, trainer, space, data, metric, min(batch, budget), given)
    while asked.left(budget):
        asked.round(asked.left(budget))
    return asked.found(told)


# --- before anything is asked ------------------------------------------------------------------------


def _check_options(options: dict[str, Any]) -> None:
    remedies = {
        "halving": "points that it gives up do not compare. Give a lower `budget` instead",
        "checkpoint": "a study is resumed by itself. Give it a storage instead",
    }
    for name, remedy in remedies.items():
        if options.get(name) is not None:
            raise ValueError(
                f"ask_and_tell: `{name}` must be left away, since {remedy}; got {options[name]!r}."
            )


def _larger(trainer: MakeTrainer, space: Space, metric: Any) -> bool:
    """Whether more of the metric is better."""
    made = trainer_at("ask_and_tell", trainer, space.middle())
    known = {"loss": "smaller", **directions(made)}
    if not isinstance(metric, str) or metric not in known:
        raise ValueError(
            f"ask_and_tell: `metric` must say whether larger is better, as {sorted(known)} do, got "
            f"{metric!r}. Take one of jaxreg.metrics, or give the function an attribute `better`, which is "
            "'larger' or 'smaller'."
        )
    return known[metric] == "larger"


# --- asking and telling ------------------------------------------------------------------------------


@dataclasses.dataclass
class _Asked:
    """A study, what its trials are trained with, and what has come of them."""

    study: Any
    scale: dict[str, Any]
    trainer: MakeTrainer
    space: Space
    data: Any
    metric: str
    width: int
    options: dict[str, Any]
    results: list[SweepResult] = dataclasses.field(default_factory=list)
    rounds: list[int] = dataclasses.field(default_factory=list)
    scores: dict[tuple, float] = dataclasses.field(default_factory=dict)  # by coordinates
    cost: int = 0

    def left(self, budget: int) -> int:
        return budget - sum(self.rounds)

    def round(self, most: int) -> None:
        """Ask for a batch, train it, tell it."""
        state = optuna().trial.TrialState
        trials = [self.study.ask(self.scale) for _ in range(min(self.width, most))]
        try:
            names = self.space.ranges
            logs = [[math.log(trial.params[name]) for name in names] for trial in trials]
            scores = self._trained(self.space.at(logs))
        except BaseException:
            for trial in trials:
                self.study.tell(trial, state=state.FAIL)
            raise
        for trial, score in zip(trials, scores):
            if np.isfinite(score):
                self.study.tell(trial, score)
            else:
                self.study.tell(trial, state=state.PRUNED)
        self.rounds.append(len(trials))

    def _trained(self, grid: Grid) -> list[float]:
        """The scores of points, of which those are trained that have not been."""
        rows = list(zip(*(np.asarray(v).tolist() for v in grid.coords.values())))
        new = [k for k, row in enumerate(rows) if row not in self.scores and row not in rows[:k]]
        if new:
            # Always as many, as another number would be another program; the last fills up.
            taken = np.pad(new, (0, self.width - len(new)), mode="edge")
            some = jax.tree.map(lambda x: np.asarray(x)[taken], grid)
            result = sweep(self.trainer, some, self.data, **self.options)
            self.cost += lane_steps(result)
            result = first_points(result, len(new))
            self.scores |= zip([rows[k] for k in new], result.mean(self.metric).tolist())
            self.results.append(result)
        return [self.scores[row] for row in rows]

    def found(self, told: list[str]) -> Found:
        """The best of what was trained here."""
        result = SweepResult.merge(self.results)
        choice = result.best("min", self.metric)
        sampler = type(self.study.sampler).__name__
        why = f"the best of {len(result.status)} points that {sampler} asked for, {self.width} at a time"
        warnings = (*choice.warnings, *told, *self._beside(choice))
        choice = dataclasses.replace(
            choice, rule=sampler, why=why, lane_steps=self.cost, warnings=warnings
        )
        return Found(choice, result, tuple(self.rounds))

    def _beside(self, choice: Choice) -> Iterator[str]:
        best, sign = self.study.best_trial, -1 if self.study.direction.name == "MAXIMIZE" else 1
        if sign * best.value < sign * choice.mean:
            n, value = best.number, best.value
            yield f"trial {n} of the study, of another call, has a better score, {value:.4g}."
        if self.space.as_one() is not None:
            yield (
                "several strengths fit the validation rows better than one does, and new rows often not. "
                "jaxreg.search compares the two."
            )
