"""The choice of a point: which rule took which, for what score.

Every method of choosing returns a `Choice`, and every rule is one function in `RULES`, arithmetic on
`Scores` alone: a mean and a standard error for each point, the scores of its lanes, and an order of which
point is the simpler model. "min" takes the best mean; "1se" the simplest point whose mean is within one
standard error, that of the best, of the best mean (Breiman et al. 1984; Hastie, Tibshirani & Friedman
2009, section 7.10).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxreg._tree import PyTree
from jaxreg.report.table import Column, Table

__all__ = ["RULES", "Choice", "Scores", "choose", "simplicity"]

_DIRECTIONS = {"largest": 1.0, "smallest": -1.0}


class Choice(NamedTuple):
    """A point that a rule chose, and the score it was chosen for.

    `index` counts along the points, `coords` are its coordinates, `point` is the point itself; `mean` and
    `stderr` are of the validation metric.
    """

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]
    coords: dict[str, Any]
    point: PyTree
    mean: float
    stderr: float
    rule: str

    def _repr_html_(self) -> str:
        """For a notebook: one row."""
        score = (
            f"{self.mean:.4g} ± {self.stderr:.2g}"
            if np.isfinite(self.stderr)
            else f"{self.mean:.4g}"
        )
        texts = [x if isinstance(x, str) else f"{x:.4g}" for x in self.coords.values()]
        heads = ["point", *self.coords, "score"]
        title = f"chosen by {self.rule}: {self.point!r}"
        columns = tuple(map(Column, heads))
        return Table(title, columns, (), ((str(self.index), *texts, score),))._repr_html_()


def simplicity(
    coords: Mapping[str, Any], strengths: Sequence[str], simplest: Mapping[str, str] | None
) -> np.ndarray | None:
    """How simple the model of each point is, [K, n]: rows compare from the first column on.

    Args:
      coords: name -> [K].
      strengths: the names of the coordinates that are strengths of penalties.
      simplest: coordinate -> "largest" or "smallest", the most telling first; by default the largest
        strength, if there is one such coordinate.

    Returns:
      None where nothing says what is simpler.

    Raises:
      ValueError: no such coordinate, or another word. TypeError: `simplest` is no mapping.
    """
    if simplest is None:
        if len(strengths) != 1:
            return None
        simplest = {strengths[0]: "largest"}
    example = "such as simplest={'lam': 'largest'}"
    if not isinstance(simplest, Mapping) or not simplest:
        raise TypeError(
            f"best: `simplest` must say of a coordinate which end is the simpler model, {example}, got "
            f"{simplest!r}."
        )
    odd = [name for name, way in simplest.items() if name not in coords or way not in _DIRECTIONS]
    if odd:
        raise ValueError(
            f"best: `simplest` must map coordinates ({', '.join(coords)}) to 'largest' or 'smallest', "
            f"{example}, got {odd[0]!r}: {simplest[odd[0]]!r}."
        )
    texts = [n for n in simplest if np.asarray(coords[n]).dtype.kind in "OUS"]
    if texts:
        raise ValueError(f"best: `simplest` must order by numbers, and {texts[0]!r} is text.")
    return np.stack([_DIRECTIONS[way] * np.asarray(coords[n]) for n, way in simplest.items()], 1)


class Scores(NamedTuple):
    """What a rule may look at: K points, lower is better, and what is not finite is no candidate.

    `mean` and `stderr` are [K], `lanes` [K, F, S] the same score of each fold and seed, and `simple` is
    from `simplicity`.
    """

    mean: np.ndarray
    stderr: np.ndarray
    lanes: np.ndarray
    simple: np.ndarray | None


def choose(rule: str, scores: Scores) -> int:
    """The index that a rule of `RULES` chooses.

    Raises:
      ValueError: no such rule, no candidate, or the rule lacks a standard error or an order.
    """
    if rule not in RULES:
        raise ValueError(f"best: `rule` must be one of {sorted(RULES)}, got {rule!r}.")
    if not np.isfinite(scores.mean).any():
        raise ValueError("best: no point has a finite score.")
    return RULES[rule](scores)


def _lowest(scores: Scores) -> int:
    return int(np.argmin(np.where(np.isfinite(scores.mean), scores.mean, np.inf)))


def _simplest_within_an_error(scores: Scores) -> int:
    lowest = _lowest(scores)
    if not np.isfinite(scores.stderr[lowest]):
        raise ValueError(
            "best: the rule '1se' needs a standard error, and a single lane for each point has none. "
            "Sweep with folds, or with seeds of at least 2."
        )
    near = scores.mean <= scores.mean[lowest] + scores.stderr[lowest]
    return _simplest("1se", scores, np.flatnonzero(near & np.isfinite(scores.mean)))


def _simplest(rule: str, scores: Scores, among: np.ndarray) -> int:
    """The simplest of the points `among`, and of several that are equally simple the best."""
    if scores.simple is None:
        raise ValueError(
            f"best: the rule {rule!r} prefers the simpler of two models, and no single axis of this grid "
            "is the strength of a penalty. Say what is simpler, as in simplest={'lam': 'largest'} or "
            "simplest={'width': 'smallest'}."
        )
    order = np.where(np.isnan(scores.simple), -np.inf, scores.simple)
    return int(min(among, key=lambda k: (*-order[k], scores.mean[k])))


RULES: dict[str, Callable[[Scores], int]] = {"min": _lowest, "1se": _simplest_within_an_error}
