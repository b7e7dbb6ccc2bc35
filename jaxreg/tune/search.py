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
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jax import Array

from jaxreg._check import misfit
from jaxreg._tree import PyTree
from jaxreg.choice import Choice
from jaxreg.fit.check import trainer_at
from jaxreg.fit.intake import check_key, count
from jaxreg.fit.judge import directions
from jaxreg.fit.trainer import MakeTrainer
from jaxreg.grid import Grid, points
from jaxreg.penalty import Penalty
from jaxreg.results import SweepResult
from jaxreg.sweeps.checkpoint import local
from jaxreg.sweeps.sweep import sweep

__all__ = ["Found", "Space", "search", "space"]

_FIRST = 5  # points of the first round on a line
_WIDEST = 6.0  # how many times its own width a range is extended by, to either side
_STEP = 0.3  # of a stencil, in log λ: below it the curve of a net is rough
_LAST = 3  # points at the end that are placed one by one
_FINEST = 0.05  # spacing in log λ at which a line is known well enough


@dataclasses.dataclass(frozen=True, repr=False)
class Space:
    """Where to search: a factory of points, and a range for each of its arguments."""

    make: Callable[..., PyTree]
    ranges: dict[str, tuple[float, float]]

    def at(self, logs: Sequence[Sequence[float]]) -> Grid:
        """Points at logarithms of the coordinates, one row each."""
        columns = np.exp(np.asarray(logs, float)).T
        return points(self.make, **dict(zip(self.ranges, columns)))

    def middle(self) -> PyTree:
        """The point at the geometric middle."""
        return self.at([[0.5 * (math.log(a) + math.log(b)) for a, b in self.ranges.values()]])[0]

    def __repr__(self) -> str:
        name = getattr(self.make, "__name__", type(self.make).__name__)
        spans = [f"{n}={low:g} … {high:g}" for n, (low, high) in self.ranges.items()]
        return f"Space({', '.join([name, *spans])})"


def space(make: Callable[..., PyTree], **ranges: tuple[float, float]) -> Space:
    """A space of points to search, its coordinates on a logarithmic scale.

    Args:
      make: a function of the coordinates that returns the point, as for `grid`.
      ranges: name -> (low, high), 0 < low < high: where to begin; a search goes on beyond an end that is
        best.

    Raises:
      TypeError: `make` is no function, or a range is no pair. ValueError: a range is empty or reaches 0, or
        what `points` refuses at its middle.

    >>> import jaxreg as jr
    >>> jr.space(jr.l1, lam=(1e-4, 1.0))
    Space(l1, lam=0.0001 … 1)
    """
    if not callable(make) or isinstance(make, Penalty):
        raise TypeError(f"space: `make` must be a function of the coordinates, got {make!r:.80}.")
    if not ranges:
        raise ValueError("space: give at least one range by name, such as lam=(1e-5, 1.0).")
    if why := misfit(make, **dict.fromkeys(ranges, 1.0)):
        raise TypeError(
            f"space: `make` must take the ranges {', '.join(ranges)} by name, got {make!r:.80}: {why}."
        )
    made = Space(make, {name: _range(name, value) for name, value in ranges.items()})
    made.middle()  # whose errors are those of `points`
    return made


def _range(name: str, value: Any) -> tuple[float, float]:
    example = f"a pair (low, high) with 0 < low < high, such as {name}=(1e-5, 1.0)"
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        raise TypeError(f"space: `{name}` must be {example}, got {value!r:.80}.") from None
    if not 0 < low < high < math.inf:
        raise ValueError(
            f"space: `{name}` must be {example}, got {value!r:.80}. The scale is logarithmic: compare with "
            "0 by a sweep of its own."
        )
    return low, high


@dataclasses.dataclass(frozen=True, repr=False)
class Found:
    """What a search found.

    Attributes:
      choice: the point, its score, why, the cost of all rounds, and warnings.
      result: every point that was trained, as the result of one sweep.
      rounds: how many points each round trained.
    """

    choice: Choice
    result: SweepResult
    rounds: tuple[int, ...]

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
    **options: Any,
) -> Found:
    """Look for the point of the best validation score, with at most `budget` points trained.

    On a line 12 points come within a thousandth of the best of a dense grid where the curve is smooth.
    Where it is rough, as of a net, refining ends once there are two minima side by side. Several
    strengths take 2 d + 1 points a round; they fit the validation rows better than one strength does, and
    the test rows often not: compare with a search of one by `jaxreg.expected_error`.

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
    least = _FIRST if len(space.ranges) == 1 else 2 * (2 * len(space.ranges) + 1)
    budget = count("search", "budget", budget, least)
    if options.get("halving") is not None:
        raise ValueError(
            "search: `halving` gives points up, whose scores then do not compare; leave it away and lower "
            f"`budget`, got {options['halving']!r}."
        )
    check_key("search", key)
    _check_metric(trainer, space, metric)
    if (folds is None) == (validation is None):
        raise ValueError(
            "search: give `folds` or `validation`, one of them; by the rows that it trains on, no penalty "
            f"would be best. It got {'neither' if folds is None else f'folds and {validation!r:.60}'}."
        )
    if checkpoint is not None:
        checkpoint = local("search", "checkpoint", checkpoint)

    def train(logs: Sequence[Sequence[float]], number: int) -> SweepResult:
        kept = None if checkpoint is None else checkpoint / f"round-{number}"
        return sweep(
            trainer, space.at(logs), data, steps=steps, key=key, folds=folds, validation=validation,
            checkpoint=kept, **options,
        )  # fmt: skip

    rounds = _Rounds(train, budget, metric)
    bounds = [tuple(map(math.log, pair)) for pair in space.ranges.values()]
    why = _line(rounds, *bounds[0]) if len(bounds) == 1 else _stencil(rounds, np.array(bounds))
    result = SweepResult.merge(rounds.results)
    choice = result.best("min", metric)
    why += "".join(_outside(space, choice))
    chosen = dataclasses.replace(choice, rule="search", why=why)
    return Found(chosen, result, tuple(rounds.sizes))


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


class _Rounds:
    """What has been trained: places in log λ and their scores, lower is better."""

    def __init__(self, train: Callable[..., SweepResult], budget: int, metric: str):
        self._train, self._metric = train, metric
        self.left = budget
        self.at = np.zeros((0, 0))
        self.scores = np.zeros(0)
        self.results: list[SweepResult] = []
        self.sizes: list[int] = []

    def ask(self, logs: Any) -> np.ndarray:
        """The scores of further places, as many as the budget allows."""
        logs = np.asarray(logs, float)[: self.left]
        result = self._train(logs, len(self.results))
        if not self.results:
            result.best("min", self._metric)  # which says what to do where none has a score
        sign = -1.0 if result.directions.get(self._metric) == "larger" else 1.0
        scores = sign * result.mean(self._metric)
        scores = np.where(np.isfinite(scores), scores, np.inf)
        self.results.append(result)
        self.sizes.append(len(logs))
        self.left -= len(logs)
        self.at = np.concatenate([self.at.reshape(-1, logs.shape[1]), logs])
        self.scores = np.concatenate([self.scores, scores])
        return scores

    def around(
        self, centre: np.ndarray, step: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray] | None:
        """The scores at a centre and to either side of it; None where the budget did not allow all."""
        d = len(centre)
        wanted = np.stack(
            [centre, *(centre + s * np.diag(step)[i] for i in range(d) for s in (-1, 1))]
        )
        new = [row for row in wanted if self._known(row) is None]
        if new:
            self.ask(new)
        places = [self._known(row) for row in wanted]
        if None in places:
            return None
        found = self.scores[np.array(places, int)]
        return float(found[0]), found[1::2], found[2::2]

    def _known(self, row: np.ndarray) -> int | None:
        if not len(self.scores):
            return None
        near = np.abs(self.at - row).max(1)
        k = int(np.argmin(near))
        return k if near[k] < 1e-6 else None

    def line(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Places and scores along the first coordinate, rising, and the number of the best."""
        order = np.argsort(self.at[:, 0], kind="stable")
        scores = self.scores[order]
        return self.at[order, 0], scores, int(np.argmin(scores))


# --- one strength ------------------------------------------------------------------------------------


def _line(rounds: _Rounds, low: float, high: float) -> str:
    """Train along a line; returns why it ended."""
    column = lambda *logs: np.array(logs)[:, None]
    rounds.ask(column(*np.linspace(low, high, _FIRST)))
    step, width = (high - low) / (_FIRST - 1), high - low
    while rounds.left:
        x, y, k = rounds.line()
        if k in (0, len(x) - 1):
            way = -1 if k == 0 else 1
            if abs(x[k] - (low if k == 0 else high)) > _WIDEST * width:
                return f"the best of {len(x)} points; it still improves {_WIDEST:g} ranges beyond the range"
            rounds.ask(column(x[k] + way * step, x[k] + 2 * way * step))
            continue
        sides = x[k - 1 : k + 2]
        if sides[2] - sides[0] < 2 * _FINEST:
            return f"the best of {len(x)} points, {np.exp(sides[1] - sides[0]):.3g} times apart"
        if bump := _bump(y[max(k - 2, 0) : k + 3]):
            return (
                f"the best of {len(x)} points; refining ended where the curve is rough, by "
                f"{bump / max(abs(y[k]), 1e-300):.1%} between neighbours {np.exp(sides[1] - sides[0]):.3g} "
                "times apart"
            )
        if rounds.left <= _LAST:
            near = slice(max(k - 2, 0), k + 3)
            rounds.ask(column(_lowest(x[near], y[near], sides)))
            continue
        rounds.ask(column(*(0.5 * (sides[:-1] + sides[1:]))))
    return f"the best of {len(rounds.scores)} points, on a line that was refined around the best"


def _bump(scores: np.ndarray) -> float:
    """How high the curve rises between two of its minima; 0 where it has a single one."""
    down, best = scores[: np.argmin(scores) + 1], scores[np.argmin(scores) :]
    rise = lambda falling: float(np.nanmax(falling - np.minimum.accumulate(falling), initial=0.0))
    with np.errstate(invalid="ignore"):  # infinity less infinity
        return max(rise(down), rise(best[::-1]))


def _lowest(x: np.ndarray, y: np.ndarray, sides: np.ndarray) -> float:
    """Where the polynomial through the points is lowest between the neighbours of the best.

    Halfway to the better neighbour where that is next to what is known already.
    """
    known = np.isfinite(y)
    at = np.linspace(sides[0], sides[2], 401)[1:-1]
    place = at[int(np.argmin(_through(x[known], y[known], at)))] if known.sum() >= 3 else sides[1]
    if np.abs(x - place).min() >= 0.5 * _FINEST:
        return float(place)
    left, right = (float(np.interp(side, x, y)) for side in sides[[0, 2]])
    return float(0.5 * (sides[1] + (sides[0] if left < right else sides[2])))


def _through(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The polynomial through points, by Neville's scheme, at other places."""
    table = [np.full_like(at, value) for value in y]
    for width in range(1, len(x)):
        table = [
            ((at - x[i + width]) * table[i] + (x[i] - at) * table[i + 1]) / (x[i] - x[i + width])
            for i in range(len(x) - width)
        ]
    return table[0]


# --- several ------------------------------------------------------------------------------------------


def _stencil(rounds: _Rounds, bounds: np.ndarray) -> str:
    """Train by central differences in a trust region; returns why it ended."""
    centre, step = bounds.mean(1), np.maximum((bounds[:, 1] - bounds[:, 0]) / 4, _STEP)
    while rounds.left:
        told = rounds.around(centre, step)
        if told is None:  # the budget ended within this round
            break
        value, low, high = told
        best = rounds.at[int(np.argmin(rounds.scores))]
        smallest = bool((step <= _STEP).all())
        move = _newton(value, low, high, step)
        if value > rounds.scores.min() and rounds.scores.min() < min(low.min(), high.min()):
            centre, step = best, np.maximum(0.5 * step, _STEP)  # the last move led away
            if smallest:
                return f"the best of {len(rounds.scores)} points; no step of {_STEP:g} in log λ is better"
            continue
        if (np.abs(move) < 0.25 * step).all():
            if smallest:
                return f"the best of {len(rounds.scores)} points; it is level at {_STEP:g} in log λ"
            step = np.maximum(0.5 * step, _STEP)
        centre = centre + move
    return f"the best of {len(rounds.scores)} points, by a stencil of {2 * len(bounds) + 1}"


def _newton(value: float, low: np.ndarray, high: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Of each coordinate the step to the minimum that central differences tell, at most two of theirs.

    Where they bend the other way, or a side diverged, it is one step to the better side.
    """
    with np.errstate(invalid="ignore"):
        slope, bend = (high - low) / (2 * step), (high - 2 * value + low) / step**2
        move = -slope / np.where(bend > 0, bend, np.nan)
    downhill = np.where(low < high, -step, step)
    return np.clip(np.where(np.isfinite(move), move, downhill), -2 * step, 2 * step)
