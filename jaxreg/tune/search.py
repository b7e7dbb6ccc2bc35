"""A search for strengths, in rounds of points that are trained together.

All rounds share folds, seeds, batches and initial parameters, so their scores compare lane by lane. One
strength is looked for on a line: five points over the range, further ones beyond an end that is best, then
points halfway to the neighbours of the best, and the last at the lowest place of a parabola. Several are
looked for by a stencil: the centre and a point to either side of it along each, whose differences give a
slope and a bend, and a step that a trust region bounds. Both need no derivative of anything.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jaxreg._check import check_key, count
from jaxreg.choice import Choice
from jaxreg.fit.check import trainer_at
from jaxreg.fit.intake import as_rows
from jaxreg.fit.judge import directions
from jaxreg.fit.source import Stream
from jaxreg.fit.trainer import MakeTrainer
from jaxreg.grid import points
from jaxreg.results import SweepResult
from jaxreg.results.summary import lane_steps
from jaxreg.scores import Scores
from jaxreg.sweeps.checkpoint import local
from jaxreg.sweeps.sweep import sweep
from jaxreg.tune._lanes import numpy_rng
from jaxreg.tune._rounds import FIRST, Rounds, line, stencil
from jaxreg.tune.space import Space

__all__ = ["Found", "Gain", "search"]

_NESTED = 0x6E65  # draws the folds of the comparison
_LINE = 12  # points that are enough on a line


class Gain(NamedTuple):
    """What several strengths gain over one for all of them, on F folds that neither search saw.

    Attributes:
      mean: score of the several less that of the one, lower is better.
      stderr: its standard error, in pairs, corrected for training rows that folds share.
      several, one: the scores [F].
      metric: of what.
      lane_steps: steps of training that it took.
    """

    mean: float
    stderr: float
    several: np.ndarray
    one: np.ndarray
    metric: str
    lane_steps: int

    @classmethod
    def of(cls, lanes: np.ndarray, lane_steps: int, metric: str) -> Gain:
        """Of the scores [2, F] of both."""
        apart, error = Scores(lanes[:, :, None]).differences(1, corrected=True)
        return cls(float(apart[0]), float(error[0]), lanes[0], lanes[1], metric, lane_steps)

    @property
    def real(self) -> bool:
        """Whether it is more than two standard errors."""
        return bool(self.mean < -2 * self.stderr)

    def __repr__(self) -> str:
        return (
            f"on {len(self.one)} folds that neither search saw, several strengths less one for all: "
            f"{self.mean:+.2g} ± {self.stderr:.2g} of {self.metric}, lower is better"
        )


@dataclasses.dataclass(frozen=True, repr=False)
class Found:
    """What a search found.

    Attributes:
      choice: the point, its score, why, the cost of all rounds, and warnings.
      result: every point that was trained, as the result of one sweep.
      rounds: how many points each round trained.
      gain: where several strengths were searched, what that gains over one for all, on rows that neither
        search saw; None where it was not asked.
    """

    choice: Choice
    result: SweepResult
    rounds: tuple[int, ...]
    gain: Gain | None = None

    def __repr__(self) -> str:
        trained = " + ".join(map(str, self.rounds))
        return f"{self.choice}\n  rounds: {trained} points"


def search(
    trainer: MakeTrainer,
    space: Space,
    data: tuple,
    *,
    steps: int,
    key: Array,
    folds: Any = None,
    validation: Any = None,
    budget: int = 12,
    metric: str = "loss",
    checkpoint: Any = None,
    nested: int = 5,
    **options: Any,
) -> Found:
    """Look for the point of the best validation score, with at most `budget` points trained.

    On a line 12 points come within a thousandth of the best of a dense grid where the curve is smooth.
    Where it is rough, as of a net, refining ends once there are two minima side by side. Several
    coordinates take 2 d + 1 points a round. Several strengths fit the validation rows better than one for
    all of them does, and new rows often not: so both are searched without each of `nested` folds and
    compared on it, and the choice says whether the gain is real.

    Args:
      trainer: the function point -> `Trainer` of a sweep.
      space: from `jaxreg.space`.
      data: all training rows.
      steps: updates of each training.
      key: PRNG key of folds, parameters and batches.
      folds: as for `sweep`; or instead
      validation: rows that are not trained on.
      budget: the most points to train, each on all folds and seeds; at least 5, or two rounds.
      metric: "loss", or one of the trainer's metrics that knows its direction.
      checkpoint: a directory; the same call goes on from it.
      nested: folds of the comparison with a single strength; 0 leaves it away, with a warning. It searches
        twice for each of them.
      options: of `jaxreg.sweep`, such as seeds, but not `halving`, whose points that were given up do not
        compare.

    Returns:
      A `Found`.

    Raises:
      ValueError: too small a budget, `halving`, every point of a round diverged, or what `sweep` refuses.
      TypeError: `space` is none.

    >>> import jax, jax.numpy as jnp, optax, jaxreg as jr
    >>> x = jax.random.normal(jax.random.key(1), (40, 8))
    >>> y = x[:, 0] + 0.5 * jax.random.normal(jax.random.key(2), (40,))
    >>> def trainer(reg):
    ...     loss = lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2)
    ...     return jr.Trainer(lambda key: jnp.zeros(8), loss, jr.proximal(optax.trace(0.9), reg, 0.05))
    >>> where = jr.space(jr.l1, lam=(1e-3, 1.0))
    >>> found = jr.search(trainer, where, (x, y), folds=4, steps=200, key=jax.random.key(0))
    >>> found.rounds, round(found.choice.coords["lam"], 3)
    ((5, 2, 2, 1, 1, 1), 0.1...)
    """
    if not isinstance(space, Space):
        raise TypeError(
            "search: `space` must come from jaxreg.space(make, lam=(low, high)), got a "
            f"{type(space).__name__}."
        )
    least = FIRST if len(space.ranges) == 1 else 2 * (2 * len(space.ranges) + 1)
    budget = count("search", "budget", budget, least)
    if options.get("halving") is not None:
        raise ValueError(
            "search: `halving` gives points up, whose scores then do not compare; leave it away and lower "
            f"`budget`, got {options['halving']!r}."
        )
    check_key("search", key)
    nested = _nested(nested, data, folds, options)
    _check_metric(trainer, space, metric)
    if (folds is None) == (validation is None):
        raise ValueError(
            "search: give `folds` or `validation`, one of them; by the rows that it trains on, no penalty "
            f"would be best. It got {'neither' if folds is None else f'folds and {validation!r:.60}'}."
        )
    if checkpoint is not None:
        checkpoint = local("search", "checkpoint", checkpoint)

    options |= {"steps": steps, "key": key}
    asked = _Asked(trainer, data, metric, {**options, "folds": folds, "validation": validation})
    found = asked.found(space, budget, checkpoint)
    one = space.as_one()
    if one is None:
        return found
    if why := _why_not_nested(nested, folds, data):
        return _warned(found, why)
    gain = asked.gain(space, one, budget, nested, checkpoint)
    steps_ = found.choice.lane_steps + gain.lane_steps
    choice = dataclasses.replace(found.choice, why=f"{found.choice.why}; {gain}", lane_steps=steps_)
    found = dataclasses.replace(found, choice=choice, gain=gain)
    return found if gain.real else _warned(found, _NO_GAIN)


_NO_GAIN = (
    "on new rows several strengths are not shown to be better than one for all, which is simpler."
)


def _nested(nested: Any, data: Any, folds: Any, options: dict[str, Any]) -> int:
    """The number of folds of the comparison, for which there must be rows enough: nothing is lost then."""
    nested = count("search", "nested", nested, 0)
    if nested == 1:
        raise ValueError("search: `nested` must be 0, or at least 2 folds, got 1.")
    if (
        not nested
        or isinstance(data, Stream)
        or not isinstance(folds, (int, np.integer, type(None)))
    ):
        return nested
    n = as_rows("search", data, ready=options.get("prepare") is None)[1]
    fewest = n - -(-n // nested)
    fewest -= -(-fewest // max(int(folds or 1), 1)) if folds else 0
    if fewest < max(int(folds or 0), options.get("batch_size") or 1):
        raise ValueError(
            f"search: `nested` = {nested} folds leave {max(fewest, 0)} of {n} rows to train on, too few "
            "for the folds or batches that were asked for. Give nested=0, smaller batches, or more rows."
        )
    return nested


def _why_not_nested(nested: int, folds: Any, data: Any) -> str:
    """Why several strengths are not compared with one; empty where they are."""
    why = "they are streamed" if isinstance(data, Stream) else "`nested` is 0" if not nested else ""
    if not why and folds is not None and not isinstance(folds, (int, np.integer)):
        why = "`folds` is no number, so that others cannot be made in the same way"
    return why and (
        "several strengths fit the validation rows better than one does, and new rows often not. Whether "
        f"these do was not asked, since {why}."
    )


def _warned(found: Found, text: str) -> Found:
    choice = dataclasses.replace(found.choice, warnings=(*found.choice.warnings, text))
    return dataclasses.replace(found, choice=choice)


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What every search of one call shares."""

    trainer: MakeTrainer
    data: Any
    metric: str
    options: dict[str, Any]

    def found(self, space: Space, budget: int, checkpoint: Path | None) -> Found:
        def train(logs: Sequence[Sequence[float]], number: int) -> SweepResult:
            kept = None if checkpoint is None else checkpoint / f"round-{number}"
            return sweep(self.trainer, space.at(logs), self.data, checkpoint=kept, **self.options)

        rounds = Rounds(train, budget, self.metric)
        bounds = [tuple(map(math.log, pair)) for pair in space.ranges.values()]
        why = line(rounds, *bounds[0]) if len(bounds) == 1 else stencil(rounds, np.array(bounds))
        result = SweepResult.merge(rounds.results)
        choice = result.best("min", self.metric)
        why += "".join(_outside(space, choice))
        return Found(
            dataclasses.replace(choice, rule="search", why=why), result, tuple(rounds.sizes)
        )

    def gain(
        self, space: Space, one: Space, budget: int, folds: int, checkpoint: Path | None
    ) -> Gain:
        """Both searches without each fold, and what they chose on it."""
        rows, n = as_rows("search", self.data, ready=self.options.get("prepare") is None)
        order = numpy_rng(jax.random.fold_in(self.options["key"], _NESTED)).permutation(n)
        parts = np.split(
            order[: n // folds * folds], folds
        )  # the same number of rows to train on each time
        lanes, cost = [], 0
        for f, part in enumerate(parts):
            rest = np.sort(np.setdiff1d(order, part))
            without = self._of(rows, rest)
            chosen = []
            for name, where in (("several", space), ("one", one)):
                kept = None if checkpoint is None else checkpoint / f"without-{f}-{name}"
                some = budget if len(where.ranges) > 1 else min(budget, _LINE)
                chosen.append(without.found(where, some, kept).choice)
            options = {**self.options, "folds": [(rest, part)], "validation": None}
            last = None if checkpoint is None else checkpoint / f"without-{f}"
            made = points([choice.point for choice in chosen])
            judged = sweep(self.trainer, made, rows, checkpoint=last, **options)
            larger = judged.directions.get(self.metric) == "larger"
            lanes.append((-1 if larger else 1) * judged.scores(self.metric).mean(2)[:, 0])
            cost += sum(choice.lane_steps for choice in chosen) + lane_steps(judged)
        return Gain.of(np.array(lanes).T, cost, self.metric)

    def _of(self, rows: tuple, some: np.ndarray) -> _Asked:
        """The same with some of the rows."""
        options = dict(self.options)
        if options.get("sample_weight") is not None:
            options["sample_weight"] = np.asarray(options["sample_weight"])[some]
        return dataclasses.replace(
            self, data=jax.tree.map(lambda a: a[some], rows), options=options
        )


def _outside(space: Space, choice: Choice) -> Iterator[str]:
    """Whether the best lies beyond the range that was given, which was extended then."""
    for name, (low, high) in space.ranges.items():
        if not low * (1 - 1e-6) <= choice.coords[name] <= high * (1 + 1e-6):
            yield f"; the range of {name}, {low:g} … {high:g}, was extended to it"


def _check_metric(trainer: MakeTrainer, space: Space, metric: Any) -> None:
    """Refuse a metric that is none, or does not know which way is better, before anything is trained."""
    made = trainer_at("search", trainer, space.middle())
    if not isinstance(metric, str) or metric not in ("loss", *made.metrics):
        raise ValueError(
            f"search: `metric` must be one of {sorted(['loss', *made.metrics])}, got {metric!r}."
        )
    if metric != "loss" and metric not in directions(made):
        raise ValueError(
            f"search: `metric` = {metric!r} does not say whether larger is better. Take one of "
            "jaxreg.metrics, or give the function an attribute `better`, which is 'larger' or 'smaller'."
        )
