"""Successive halving: the steps go where the validation loss says they may pay.

At a few rungs on the way every point is judged by its validation loss, averaged over folds and
seeds, and only the best share goes on. Always by the data's loss, never by the penalized one, which
would prefer small λ; and by whole points, so that those that are compared at the end have been
trained alike. Source: Jamieson & Talwalkar, Non-stochastic best arm identification and hyperparameter
optimization (AISTATS 2016), algorithm 1.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from jaxreg._check import count, within

__all__ = ["Halving", "Rung"]


class Rung(NamedTuple):
    """After `step` steps, `keep` points go on."""

    step: int
    keep: int


@dataclasses.dataclass(frozen=True)
class Halving:
    """Keep the best share of the points at each rung, and give the others up.

    With share q and r rungs, the i-th of them (i = 1, …, r) stands at q^(r - i + 1) of all steps, and
    ceil(q K), ceil(q ceil(q K)), … of the K points go on: each stage costs about the same.

    Args:
      keep: share that goes on at each rung, between 0 and 1 (both excluded).
      rungs: how many rungs, at least 1.

    Raises:
      ValueError: an argument is out of range.

    >>> halving = Halving(keep=0.5, rungs=3)
    >>> [tuple(rung) for rung in halving.schedule(32, 800)]
    [(100, 16), (200, 8), (400, 4)]
    >>> round(halving.share(32, 800), 4)
    0.3125
    """

    keep: float = 0.5
    rungs: int = 3

    def __post_init__(self) -> None:
        within("Halving", "keep", self.keep, 0, 1)
        count("Halving", "rungs", self.rungs)

    def schedule(self, n_points: int, steps: int) -> list[Rung]:
        """The rungs of a sweep.

        Raises:
          ValueError: the steps are too few for so many rungs.
        """
        # Rounded before the ceiling: 0.1 ** 2 * 100 is a little more than 1.
        at = [math.ceil(round(steps * self.keep ** (self.rungs - i), 6)) for i in range(self.rungs)]
        if len({*at, steps}) <= self.rungs:
            raise ValueError(
                f"sweep: {self.rungs} rungs that keep {self.keep:g} each do not fit into {steps} steps; "
                "take fewer rungs or a larger `keep`."
            )
        left, rungs = n_points, []
        for step in at:
            left = max(1, math.ceil(round(left * self.keep, 6)))
            rungs.append(Rung(step, left))
        return rungs

    def share(self, n_points: int, steps: int) -> float:
        """The share of the lane-steps of the whole sweep that is still done."""
        return sum(n * length for n, length in stages(n_points, steps, self)) / (n_points * steps)


def stages(n_points: int, steps: int, halving: Halving | None) -> list[tuple[int, int]]:
    """(points, steps) between the rungs."""
    rungs = halving.schedule(n_points, steps) if halving else []
    counts = [n_points, *(r.keep for r in rungs)]
    ends = [0, *(r.step for r in rungs), steps]
    return [(n, b - a) for n, a, b in zip(counts, ends, ends[1:])]


def survivors(score: np.ndarray, alive: np.ndarray, keep: int) -> np.ndarray:
    """Which of the `alive` points [K] go on: the `keep` lowest scores; NaN and inf never."""
    ranked = np.where(alive & np.isfinite(score), score, np.inf)
    best = np.argsort(ranked, kind="stable")[:keep]
    chosen = np.zeros(len(score), bool)
    chosen[best] = True
    return chosen & np.isfinite(ranked)
