"""What an evidence is asked of: a sweep's lanes with their penalties, and what is refused of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxreg._check import shown
from jaxreg._tree import PyTree
from jaxreg.fit.trainer import parts_of
from jaxreg.penalty import Penalty
from jaxreg.results import Status, SweepResult
from jaxreg.results.build import Parts, pick
from jaxreg.tune._asked import check_targets, outputs_of, penalty_of

__all__ = [
    "Stack", "check_lanes", "check_noise", "check_stack", "healthy", "no_quadratic", "stacks_of",
]  # fmt: skip

_MOST_BYTES = 8e9  # of the matrices whose determinant is taken


def check_lanes(result: SweepResult) -> None:
    """Refuse a result without a lane that has ended, or without the losses that lanes were trained to."""
    if not healthy(result).any():
        raise ValueError(
            "evidence: `result` holds no lane that was trained to its end. Make the sweep with a lower "
            "learning rate."
        )
    if (
        "loss" not in result.train
        or not np.isfinite(result.scores("loss", "train")[healthy(result)]).all()
    ):
        raise ValueError(
            "evidence: `result` has no training loss to compare the likelihood with. Give "
            "SweepResult.of(..., train=...) that of the rows in `data`."
        )


def healthy(result: SweepResult) -> np.ndarray:
    """[K, 1, S]."""
    return ~np.isin(np.asarray(result.status), (Status.DIVERGED, Status.GIVEN_UP))


def check_noise(likelihood: str, noise: Any) -> float | None:
    if noise is None:
        return None
    number = isinstance(noise, (int, float, np.integer, np.floating)) and type(noise) is not bool
    if not number or not 0 < noise < np.inf:
        raise (ValueError if number else TypeError)(
            f"evidence: `noise` must be a standard deviation above 0, got {shown(noise)}. Leave it away to "
            "have it learnt."
        )
    if likelihood != "gaussian":
        raise ValueError(
            f"evidence: `noise` is of the likelihood 'gaussian', got {shown(noise)} with {likelihood!r}. "
            "Leave it away."
        )
    return float(noise)


class Stack(NamedTuple):
    """Points of one structure with their parameters."""

    first: int  # of the points
    size: int
    points: PyTree
    params: PyTree
    penalty: Callable[[PyTree], Penalty]
    m: int = 1  # outputs of a row

    def terms(self, k: int) -> tuple[Penalty, ...]:
        return self.penalty(pick(self.points, k)).terms()

    def lane(self, k: int, s: int) -> PyTree:
        return pick(self.params, k, 0, s)

    def lanes(self, alive: np.ndarray) -> Iterator[tuple[int, int]]:
        """Point of the stack and seed of every lane of `alive` [K, S]."""
        here = np.argwhere(alive[self.first : self.first + self.size])
        yield from ((int(k), int(s)) for k, s in here)

    def sizes(self, among: Iterable[int]) -> dict[int, int]:
        """How many entries each of these trained leaves has."""
        leaves = jax.tree.leaves(parts_of(self.lane(0, 0))[0])
        return {i: leaves[i].size for i in among}


def stacks_of(result: SweepResult, penalty: Callable | None) -> Iterator[Stack]:
    """One, or of a joined result one of each part."""
    parts = [(result.points, result.params, len(result.status))]
    if isinstance(result.points, Parts):
        parts = zip(result.points.trees, result.params.trees, result.points.sizes)
    first = 0
    for points, params, size in parts:
        yield Stack(first, size, points, params, functools.partial(penalty_of, "evidence", penalty))
        first += size


def check_stack(
    outputs: Callable, stack: Stack, x: PyTree, y: np.ndarray, likelihood: str
) -> Stack:
    """The stack with its number of outputs; see `evidence` for what is refused."""
    reg = stack.penalty(pick(stack.points, 0))
    for term in reg.terms():
        if not term.smooth:
            raise no_quadratic(term)
    params, n = stack.lane(0, 0), len(y)
    m = outputs_of("evidence", outputs, params, x, n)
    check_targets("evidence", likelihood, y, m)
    part, _ = parts_of(params)
    sizes = [v.size for v, hit in zip(jax.tree.leaves(part), reg.support(part)) if hit]
    side, wide = min(n * m, sum(sizes)), n * m <= sum(sizes)
    needed = 8.0 * side**2 * (len(sizes) + 2 if wide else 3)
    if needed > _MOST_BYTES:
        raise ValueError(
            f"evidence: the determinant of {n * m:,} outputs of all rows by {sum(sizes):,} parameters "
            f"needs matrices of {needed / 1e9:.0f} GB, and {_MOST_BYTES / 1e9:.0f} are the most. Take "
            "fewer rows in sweep and `data`, or choose by cross-validation."
        )
    return stack._replace(m=m)


def no_quadratic(term: Penalty) -> ValueError:
    return ValueError(
        f"evidence: the penalty {term!r} is no quadratic with one curvature for each parameter, so "
        "exp(-n R) is no Gaussian prior of independent parameters. Take l2 or l2_sp, or choose by "
        "cross-validation."
    )
