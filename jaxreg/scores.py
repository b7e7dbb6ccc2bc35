"""What a validation score is worth: means over lanes, their standard errors, differences in pairs.

A lane is one (point, fold, seed), K x F x S of them. All points share folds, seeds, batches and initial
parameters, so how much two points differ is known far better than how good either is: the level of a
score moves with the fold, and the difference of two points in the same fold hardly does.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["Scores", "mean", "simplicity", "stderr"]

_DIRECTIONS = {"largest": 1.0, "smallest": -1.0}


def mean(lanes: np.ndarray) -> np.ndarray:
    """[K, F, S] -> [K]: over seeds, then over folds."""
    with np.errstate(all="ignore"):
        return lanes.mean(2).mean(1)


def stderr(lanes: np.ndarray, repeats: int = 1, overlap: float = 0.0) -> np.ndarray:
    """[K, F, S] -> [K]: over the folds' means, over the seeds of a lone fold, or NaN.

    Over F folds it is sd sqrt(1/F + overlap); of R repeats of k folds, which judge on the same rows, its
    square is the mean over the repeats of sd_r^2 (1/k + overlap).
    """
    with np.errstate(all="ignore"):
        draws = lanes.mean(2) if lanes.shape[1] > 1 else lanes[:, 0]
        n = draws.shape[1]
        if n < 2:
            return np.full(len(lanes), np.nan)
        split = draws.reshape(len(draws), repeats if n > repeats else 1, -1)
        return np.sqrt((split.var(axis=2, ddof=1) * (1 / split.shape[2] + overlap)).mean(1))


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """What a rule of choice may look at: K points, lower is better, what is not finite is no candidate.

    Attributes:
      lanes: [K, F, S], the score of each point on each fold with each seed.
      coords: name -> [K], the coordinates of the points.
      order: the coordinates that say which of two models is the simpler, the most telling first; () where
        nothing does.
      simple: [K, len(order)], larger is simpler; None where nothing says what is simpler.
      repeats: how often the folds split the same rows anew.
      overlap: validation over training rows, where folds overlap in another way; else 0.
    """

    lanes: np.ndarray
    coords: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    order: tuple[str, ...] = ()
    simple: np.ndarray | None = None
    repeats: int = 1
    overlap: float = 0.0

    @functools.cached_property
    def mean(self) -> np.ndarray:
        """[K]."""
        return mean(self.lanes)

    @functools.cached_property
    def stderr(self) -> np.ndarray:
        """[K], of the means."""
        return stderr(self.lanes, self.repeats, self.overlap)

    @functools.cached_property
    def finite(self) -> np.ndarray:
        """Which points [K] are candidates."""
        return np.isfinite(self.mean)

    @functools.cached_property
    def lowest(self) -> int:
        """The candidate of the best mean, of several the first."""
        return int(np.argmin(np.where(self.finite, self.mean, np.inf)))

    @property
    def shared(self) -> bool:
        """Whether there are folds, whose training rows are shared."""
        return self.lanes.shape[1] // self.repeats > 1

    def differences(self, k: int, corrected: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """How much worse each point is than point k, [K], and the standard error of that, [K].

        Differences are taken lane by lane, d_kf of the means over seeds on fold f, and their standard
        error over folds is as that of a mean. `corrected` adds what comes of training rows that k folds
        share (Nadeau & Bengio 2003, section 4): sd sqrt(1/k + 1/(k-1)); a lone fold shares none.

        """
        with np.errstate(invalid="ignore"):  # infinity less infinity
            apart = self.lanes - self.lanes[k : k + 1]
        overlap = self.overlap
        if corrected and not overlap and self.shared:
            overlap = 1 / (self.lanes.shape[1] // self.repeats - 1)
        return mean(apart), stderr(apart, self.repeats, overlap)


def simplicity(
    coords: Mapping[str, Any], strengths: Sequence[str], simplest: Mapping[str, str] | None
) -> tuple[tuple[str, ...], np.ndarray | None]:
    """How simple the model of each point is: coordinates, and [K, n] whose rows compare from the first on.

    Args:
      coords: name -> [K].
      strengths: the names of the coordinates that are strengths of penalties.
      simplest: coordinate -> "largest" or "smallest", the most telling first; by default the largest
        strength, if there is one such coordinate.

    Returns:
      The coordinates and the array; () and None where nothing says what is simpler.

    Raises:
      ValueError: no such coordinate, or another word. TypeError: `simplest` is no mapping.
    """
    if simplest is None:
        if len(strengths) != 1:
            return (), None
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
    columns = [_DIRECTIONS[way] * np.asarray(coords[n], float) for n, way in simplest.items()]
    # A point that has not the coordinate is the least simple.
    return tuple(simplest), np.nan_to_num(np.stack(columns, 1), nan=-np.inf, posinf=np.inf)
