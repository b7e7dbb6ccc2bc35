"""Where a search trains next: along a line, or by a stencil of several coordinates, in rounds.

All places are logarithms of coordinates; nothing here knows what is trained.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxreg.results import SweepResult

__all__ = ["FIRST", "Rounds", "line", "stencil"]

FIRST = 5  # points of the first round on a line
_WIDEST = 6.0  # how many times its own width a range is extended by, to either side
_STEP = 0.3  # of a stencil, in log λ: below it the curve of a net is rough
_LAST = 3  # points at the end that are placed one by one
_FINEST = 0.05  # spacing in log λ at which a line is known well enough


class Rounds:
    """What has been trained: places in log λ and their scores, lower is better."""

    def __init__(self, train: Callable[..., SweepResult], budget: int, metric: str):
        self._train, self._metric = train, metric
        self.left = budget
        self.at = np.zeros((0, 0))
        self.scores = np.zeros(0)
        self.results: list[SweepResult] = []
        self.sizes: list[int] = []

    def ask(self, logs: np.ndarray) -> np.ndarray:
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
            self.ask(np.array(new))
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


def line(rounds: Rounds, low: float, high: float) -> str:
    """Train along a line; returns why it ended."""
    column = lambda *logs: np.array(logs)[:, None]
    rounds.ask(column(*np.linspace(low, high, FIRST)))
    step, width = (high - low) / (FIRST - 1), high - low
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


def stencil(rounds: Rounds, bounds: np.ndarray) -> str:
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
