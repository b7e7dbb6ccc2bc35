"""The choice of a point: which rule took which, for what score, and why.

Every method of choosing returns a `Choice`, and every rule for a sweep's points is one function in `RULES`,
arithmetic on `Scores` alone:

- "min": the best mean.
- "parabola": the minimum of a quadratic in log λ through the best point and its neighbours.
- "paired": walking from the best towards simpler points without a gap, the simplest whose mean difference
  from the best is within one standard error of that difference. Points share folds and seeds, so their
  differences are known far better than their levels.
- "nadeau-bengio": the same with the standard error that allows for training rows which folds share
  (Nadeau & Bengio 2003, section 4), a wider one.
- "percent": the same walk, to the simplest point within one percent of the best mean.
- "1se": the simplest point whose mean is within one standard error, that of the best, of the best mean
  (Breiman et al. 1984; Hastie, Tibshirani & Friedman 2009, section 7.10). It goes further than the folds
  can tell apart, since it takes the spread of the level for that of the differences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxreg._tree import PyTree
from jaxreg.report.table import Column, Table
from jaxreg.scores import Scores, mean, stderr

__all__ = [
    "RULES",
    "Choice",
    "Pick",
    "Place",
    "choose",
    "coordinate_text",
    "coords_text",
    "score_at",
]


@dataclasses.dataclass(frozen=True, repr=False)
class Choice:
    """A point that a method chose, the score it was chosen for, why, and what that cost.

    Attributes:
      rule: the method, such as "min".
      point: the point itself.
      coords: its coordinates.
      mean: its score.
      stderr: the standard error of the score; NaN where there is none.
      metric: what the score is, such as "valid loss".
      index: which of the points of the result it is, or lies nearest to; None where there is none.
      why: a sentence.
      lane_steps: steps of training behind the choice, over all lanes.
      warnings: what to know before relying on it.
    """

    rule: str
    point: PyTree
    coords: dict[str, Any]
    mean: float
    stderr: float
    metric: str = "valid loss"
    index: int | None = None
    why: str = ""
    lane_steps: int = 0
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        lines = [f"{self.rule}: {coords_text(self.coords)}", f"  {self.metric}: {self._score()}"]
        lines += [f"  why: {self.why}"] * bool(self.why)
        lines += [f"  cost: {self.lane_steps:,} lane-steps"] * bool(self.lane_steps)
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])

    def _repr_html_(self) -> str:
        """For a notebook: one row, and below it why."""
        texts = [x if isinstance(x, str) else f"{x:.4g}" for x in self.coords.values()]
        columns = tuple(map(Column, [*self.coords, self.metric]))
        notes = [self.why] * bool(self.why)
        notes += [f"{self.lane_steps:,} lane-steps"] * bool(self.lane_steps)
        title = f"chosen by {self.rule}: {self.point!r}"
        row = ((*texts, self._score()),)
        return Table(title, columns, (), row, tuple(notes), self.warnings)._repr_html_()

    def _score(self) -> str:
        known = np.isfinite(self.stderr)
        return f"{self.mean:.4g} ± {self.stderr:.2g}" if known else f"{self.mean:.4g}"


@dataclasses.dataclass(frozen=True)
class Place:
    """A place between points: at `position` of a coordinate, among the points `index` at `positions`.

    `weights` of these points' scores are its score.
    """

    coordinate: str
    position: float
    index: tuple[int, ...]
    positions: tuple[float, ...]
    weights: tuple[float, ...]


class Pick(NamedTuple):
    """What a rule took: a point, or a place near it, and why."""

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]
    why: str
    place: Place | None = None
    warnings: tuple[str, ...] = ()


def choose(rule: str, scores: Scores, within: float | None = None) -> Pick:
    """What a rule of `RULES` takes.

    Raises:
      ValueError: no such rule, no candidate, `within` of a rule that has none, or the rule lacks a
        standard error or an order.
    """
    if rule not in RULES:
        raise ValueError(f"best: `rule` must be one of {sorted(RULES)}, got {rule!r}.")
    if not scores.finite.any():
        raise ValueError("best: no point has a finite score.")
    if within is not None and rule in ("min", "parabola"):
        raise ValueError(
            f"best: the rule {rule!r} has no tolerance, so `within` must be left away, got {within!r}. Or "
            "take rule='paired'."
        )
    pick = RULES[rule](scores, 1.0 if within is None else _tolerance(within))
    return pick._replace(warnings=(*pick.warnings, *_ends(scores, pick.index)))


def _tolerance(within: Any) -> float:
    number = isinstance(within, (int, float, np.integer, np.floating)) and type(within) is not bool
    if not number or not 0 <= within < np.inf:
        raise (ValueError if number else TypeError)(
            f"best: `within` must be a number of standard errors or of percent, finite and at least 0, got "
            f"{within!r}."
        )
    return float(within)


def coords_text(coords: Mapping[str, Any]) -> str:
    """Coordinates in words; one that a point does not have is a dash."""
    return ", ".join(f"{name}={coordinate_text(value)}" for name, value in coords.items())


def coordinate_text(value: Any) -> str:
    """A coordinate as text; one that a point does not have is a dash."""
    return str(value) if isinstance(value, str) else "-" if np.isnan(value) else f"{value:.4g}"


def _at(scores: Scores, k: int) -> str:
    return coords_text({name: np.asarray(v)[k].item() for name, v in scores.coords.items()})


def _ends(scores: Scores, k: int) -> Iterator[str]:
    """Whether a choice lies at an end of a coordinate, where a value beyond may be better."""
    fewest = 2 if len(scores.coords) == 1 else 3  # one of two values beside others is always an end
    for name, values in scores.coords.items():
        values = np.asarray(values)
        if values.dtype.kind in "OUS" or len(np.unique(values)) < fewest:
            continue
        value, low, high = values[k], np.nanmin(values), np.nanmax(values)
        end = "largest" if value == high else "smallest" if value == low != 0 else ""
        if end:
            beyond = "larger" if end == "largest" else "smaller"
            yield f"{name}={value:.4g} is the {end} of the grid; a {beyond} one may be better."


# --- the best mean, and between the points ----------------------------------------------------------


def _min(scores: Scores, within: float) -> Pick:
    del within
    return Pick(scores.lowest, f"the best mean of {int(scores.finite.sum())} points")


def _parabola(scores: Scores, within: float) -> Pick:
    """The vertex of the quadratic through the best point and its neighbours in log λ."""
    del within
    best, name = scores.lowest, _walked("parabola", scores)
    values = np.asarray(scores.coords[name], float)
    others = [np.asarray(v) for n, v in scores.coords.items() if n != name]
    same = np.all([v == v[best] for v in others], 0) if others else np.full(len(values), True)
    line = np.flatnonzero(same & scores.finite & (values > 0) & np.isfinite(values))
    line = line[np.argsort(values[line], kind="stable")]
    where = np.flatnonzero(line == best)
    if not where.size or not 0 < where[0] < len(line) - 1:
        why = "the best mean, which has no neighbour on one side for a parabola to go through"
        return Pick(best, why)
    near = line[where[0] - 1 : where[0] + 2]
    x = np.log(values[near])
    weights = lambda at: np.array(
        [np.prod([(at - x[j]) / (x[i] - x[j]) for j in range(3) if j != i]) for i in range(3)]
    )
    vertex = _vertex(x, scores.mean[near])
    nearest = int(near[np.abs(x - vertex).argmin()])
    place = Place(name, float(np.exp(vertex)), tuple(near.tolist()), tuple(values[near].tolist()),
                  tuple(weights(vertex).tolist()))  # fmt: skip
    why = f"the minimum of a parabola in log {name} through the best point, {_at(scores, best)}, and its "
    return Pick(nearest, why + "neighbours", place)


def _vertex(x: np.ndarray, y: np.ndarray) -> float:
    """Where the quadratic through three points has its minimum; the middle where all are level."""
    left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    bend = (right - left) / (x[2] - x[0])
    return float(x[1] if bend <= 0 else 0.5 * (x[0] + x[1] - left / bend))


# --- simpler, and as good ----------------------------------------------------------------------------


def _paired(scores: Scores, within: float) -> Pick:
    return _by_differences("paired", scores, within, corrected=False)


def _nadeau_bengio(scores: Scores, within: float) -> Pick:
    if not scores.shared and not scores.overlap:
        raise ValueError(
            "best: the rule 'nadeau-bengio' allows for training rows that folds share, and there is a "
            "single fold. Sweep with folds, or take rule='paired'."
        )
    return _by_differences("nadeau-bengio", scores, within, corrected=True)


def _by_differences(rule: str, scores: Scores, within: float, corrected: bool) -> Pick:
    best = scores.lowest
    worse, error = scores.differences(best, corrected)
    if not np.isfinite(np.delete(error, best)[np.delete(scores.finite, best)]).all():
        raise _no_spread(rule)
    with np.errstate(invalid="ignore"):
        k = _walk(rule, scores, worse <= within * error)
    if k == best:
        return Pick(
            k, f"no simpler point is {_errors(within)} of the difference from the best mean"
        )
    return Pick(
        k,
        f"the simplest point on the way from the best, {_at(scores, best)}, whose difference from it, "
        f"{worse[k]:.2g} ± {error[k]:.2g}, is {_errors(within)}",
    )


def _errors(within: float) -> str:
    count = "one standard error" if within == 1 else f"{within:g} standard errors"
    return f"within {count}"


def _percent(scores: Scores, within: float) -> Pick:
    best = scores.lowest
    most = scores.mean[best] + abs(scores.mean[best]) * within / 100
    k = _walk("percent", scores, scores.mean <= most)
    why = f"within {within:g} % of the best mean, {scores.mean[best]:.4g}"
    if k == best:
        return Pick(k, f"no simpler point is {why}")
    return Pick(
        k, f"the simplest point on the way from the best, {_at(scores, best)}, that is {why}"
    )


def _one_standard_error(scores: Scores, within: float) -> Pick:
    best, order = scores.lowest, _order("1se", scores)
    if not np.isfinite(scores.stderr[best]):
        raise _no_spread("1se")
    most = scores.mean[best] + within * scores.stderr[best]
    near = np.flatnonzero(scores.finite & (scores.mean <= most))
    k = int(min(near, key=lambda k: (*-order[k], scores.mean[k])))
    why = f"the simplest point {_errors(within)} of the best mean, {scores.mean[best]:.4g} ± "
    return Pick(k, why + f"{scores.stderr[best]:.2g} at {_at(scores, best)}")


def _walk(rule: str, scores: Scores, near: np.ndarray) -> int:
    """From the best towards simpler points, as far as each step finds one that is `near`.

    A gap ends the walk: past it, where a model has collapsed, wide errors let anything through. With
    several coordinates that say what is simpler the walk is along the first, then along the next.
    """
    order, k = _order(rule, scores), scores.lowest
    among = np.flatnonzero(scores.finite)
    for column in range(order.shape[1]):
        simpler = order[:, column]
        for level in np.unique(simpler[among]):
            here = among[simpler[among] == level]
            if level <= simpler[k]:
                continue
            good = here[near[here]]
            if not good.size:
                break
            k = int(min(good, key=lambda i: scores.mean[i]))
        among = among[simpler[among] == simpler[k]]
    return k


def _order(rule: str, scores: Scores) -> np.ndarray:
    if scores.simple is None:
        raise ValueError(
            f"best: the rule {rule!r} prefers the simpler of two models, and no single axis of this grid "
            "is the strength of a penalty. Say what is simpler, as in simplest={'lam': 'largest'} or "
            "simplest={'width': 'smallest'}."
        )
    return scores.simple


def _walked(rule: str, scores: Scores) -> str:
    """The coordinate that a rule looks along."""
    if not scores.order:
        raise ValueError(
            f"best: the rule {rule!r} looks along the strength of a penalty, and no single axis of this "
            "grid is one. Name it, as in simplest={'lam': 'largest'}, or take rule='min'."
        )
    return scores.order[0]


def _no_spread(rule: str) -> ValueError:
    return ValueError(
        f"best: the rule {rule!r} needs a standard error, and a single lane for each point has none. "
        "Sweep with folds, or with seeds of at least 2."
    )


RULES: dict[str, Callable[[Scores, float], Pick]] = {
    "min": _min,
    "parabola": _parabola,
    "paired": _paired,
    "nadeau-bengio": _nadeau_bengio,
    "percent": _percent,
    "1se": _one_standard_error,
}


def score_at(scores: Scores, pick: Pick) -> tuple[float, float]:
    """Mean and standard error of what was taken: between points those of the weighted scores."""
    if pick.place is None:
        return float(scores.mean[pick.index]), float(scores.stderr[pick.index])
    lanes = np.tensordot(pick.place.weights, scores.lanes[list(pick.place.index)], 1)[None]
    return float(mean(lanes)[0]), float(stderr(lanes, scores.repeats, scores.overlap)[0])
