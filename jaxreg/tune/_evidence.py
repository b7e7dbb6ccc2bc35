"""What an evidence is asked of: a sweep's lanes with their penalties, and what is refused of them."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jaxreg import _tree
from jaxreg._check import misfit, shown
from jaxreg._tree import PyTree
from jaxreg.fit.intake import as_rows
from jaxreg.fit.trainer import parts_of
from jaxreg.objective import penalties_in
from jaxreg.penalty import Penalty
from jaxreg.results import Status, SweepResult
from jaxreg.results.build import Parts, pick
from jaxreg.tune._likelihoods import LIKELIHOODS

__all__ = [
    "Stack", "check_functions", "check_noise", "check_result", "check_stack", "healthy", "no_quadratic",
    "pair", "stacks_of",
]  # fmt: skip

_MOST_BYTES = 8e9  # of the matrices whose determinant is taken


def check_functions(outputs: Any, penalty: Any) -> None:
    if not callable(outputs) or isinstance(outputs, Penalty):
        raise TypeError(
            f"evidence: `outputs` must be a function (params, x) -> outputs, got {shown(outputs)}."
        )
    if (why := misfit(outputs, None, None)) is not None:
        raise TypeError(
            f"evidence: `outputs` must be a function (params, x) -> outputs, got {outputs!r}: {why}."
        )
    if penalty is not None and (not callable(penalty) or isinstance(penalty, Penalty)):
        raise TypeError(
            "evidence: `penalty` must be a function point -> penalty, such as lambda point: "
            f"jaxreg.l2(point['lam']), got {shown(penalty)}."
        )


def check_result(result: Any) -> None:
    if not isinstance(result, SweepResult):
        raise TypeError(f"evidence: `result` must be a SweepResult, got {type(result).__name__}.")
    if result.params is None:
        raise ValueError(
            "evidence: `result` holds no parameters, got None. Make the sweep with keep_params=True."
        )
    folds = np.shape(result.status)[1]
    if folds > 1:
        raise ValueError(
            f"evidence: `result` must be of lanes that were trained on all rows, got {folds} folds. Make "
            "the sweep with rows apart as `validation`, such as test rows: it then trains on all of `data`."
        )
    if json.loads(result.made_by).get("sample_weight"):
        raise ValueError(
            "evidence: `result` is of rows with weights, whose loss is no mean negative log likelihood. "
            "Leave `sample_weight` away."
        )
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


def check_noise(likelihood: Any, noise: Any) -> float | None:
    if not isinstance(likelihood, str) or likelihood not in LIKELIHOODS:
        raise ValueError(
            f"evidence: `likelihood` must be one of {sorted(LIKELIHOODS)}, got {likelihood!r}."
        )
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


def pair(data: Any) -> tuple[PyTree, Array, int]:
    arrays, n = as_rows("evidence", data)
    if len(arrays) != 2 or not isinstance(arrays[1], (np.ndarray, Array)):
        raise ValueError(
            f"evidence: `data` must be a pair (X, y), y an array, got {len(arrays)} parts."
        )
    return *arrays, n


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
        yield Stack(first, size, points, params, penalty or _all_of)
        first += size


def _all_of(point: PyTree) -> Penalty:
    found = list(penalties_in(point).values())
    if not found:
        raise TypeError(
            "evidence: the points of `result` hold no penalty. Give `penalty`, a function of the point "
            "that returns what was added to the loss; of a file, load(path, like=(point, params))."
        )
    return functools.reduce(operator.add, found)


def check_stack(outputs: Callable, stack: Stack, x: PyTree, y: Array, likelihood: str) -> Stack:
    """The stack with its number of outputs; see `evidence` for what is refused."""
    reg = stack.penalty(pick(stack.points, 0))
    if not isinstance(reg, Penalty):
        raise TypeError(f"evidence: `penalty` must return a penalty, and it returned {shown(reg)}.")
    for term in reg.terms():
        if not term.smooth:
            raise no_quadratic(term)
    params = stack.lane(0, 0)
    shape = jax.eval_shape(lambda p: outputs(_tree.released(p), x), params)
    n = len(y)
    if not hasattr(shape, "shape") or shape.shape[:1] != (n,) or len(shape.shape) > 2:
        raise ValueError(
            f"evidence: `outputs` must return one array [{n}] or [{n}, m] for the {n} rows, it returned "
            f"{getattr(shape, 'shape', shape)}."
        )
    m = int(np.prod(shape.shape[1:]))
    rule = LIKELIHOODS[likelihood]
    if not rule.fits(np.asarray(y), m):
        raise ValueError(
            f"evidence: with {likelihood!r} and {m} outputs a row `data[1]` must hold {rule.targets}, got "
            f"{y.dtype}{list(y.shape)} from {float(y.min()):g} to {float(y.max()):g}."
        )
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
