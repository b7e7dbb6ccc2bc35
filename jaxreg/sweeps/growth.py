"""A sweep that goes on from one with fewer steps, seeds or points: what is there is kept.

All of it is trained as if it had been asked for at once, since no lane depends on another: what was added
catches up first. Only halving judges lanes against each other, so with halving nothing can be added.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxreg._tree import PyTree
from jaxreg.sweeps.checkpoint import differences

__all__ = ["GRID", "continues", "evaluations", "former_shapes", "grown"]

GRID = "the grid's "  # before the name of an axis in an experiment
_GROWS = ("points", "seeds", "steps", "evals", "evaluations")


def continues(here: dict[str, Any], there: dict[str, Any]) -> bool:
    """Whether experiment `here` has all of `there`, and nothing else of it is changed."""
    rest = lambda x: {
        name: v for name, v in x.items() if name not in _GROWS and not name.startswith(GRID)
    }
    if here["rungs"] or differences(rest(here), rest(there)) or not _sound(there):
        return False
    n = len(there["evaluations"])
    return (
        here["seeds"] >= there["seeds"]
        and here["steps"] >= there["steps"]
        and here["evaluations"][:n] == there["evaluations"]
        and _places(here["points"], there["points"]) is not None
    )


def evaluations(known: dict[str, Any] | None, steps: int, evals: int) -> list[int]:
    """After which steps to evaluate: `evals` times evenly, and before the end of the run that is `known`
    when that did."""
    times = sorted({0, *range(-(-steps // evals), steps, -(-steps // evals)), steps})
    if known is None or known.get("rungs") or not _sound(known):
        return times
    if known["steps"] == steps and known["evals"] == evals:
        return known["evaluations"]
    if known["steps"] < steps:
        return known["evaluations"] + [t for t in times if t > known["steps"]]
    return times


def former_shapes(table: PyTree, log: PyTree, there: dict[str, Any]) -> tuple[PyTree, PyTree]:
    """The shapes of a table [K, P, ...] and of the curves [K, P, E, ...] in it, as they were then."""
    counts = len(there["points"]), _pairs(there)
    of_lane = lambda x: jax.ShapeDtypeStruct((*counts, *x.shape[2:]), x.dtype)
    of_time = lambda x: jax.ShapeDtypeStruct(
        (*counts, len(there["evaluations"]), *x.shape[3:]), x.dtype
    )
    return jax.tree.map(of_lane, table), jax.tree.map(of_time, log)


def grown(now: PyTree, before: PyTree, here: dict[str, Any], there: dict[str, Any]) -> PyTree:
    """Tables `now` [K, P, ...] with what there was `before`; curves of fewer times fill the first."""
    points = _places(here["points"], there["points"]) or []
    fold, seed = np.divmod(np.arange(_pairs(there)), there["seeds"])
    pairs = fold * here["seeds"] + seed

    def filled(x: np.ndarray, old: np.ndarray) -> np.ndarray:
        at: tuple = np.ix_(points, pairs)
        if x.shape[2:] != old.shape[2:]:
            at = (*at, slice(old.shape[2]))
        x = np.array(x)
        x[at] = old
        return x

    return jax.tree.map(filled, now, before)


def _pairs(experiment: dict[str, Any]) -> int:
    return experiment["runs"] * experiment["seeds"]


def _sound(experiment: dict[str, Any]) -> bool:
    """Whether a directory's account of itself is one of ours, before anything in it is counted on."""
    count = lambda name: type(experiment.get(name)) is int and experiment[name] > 0
    times, points = experiment.get("evaluations"), experiment.get("points")
    if not all(map(count, ("seeds", "steps", "evals", "runs"))) or not isinstance(times, list):
        return False
    if not isinstance(points, list) or not all(isinstance(p, str) for p in points):
        return False
    rising = all(type(t) is int for t in times) and times == sorted({*times})
    return rising and times[:1] == [0] and times[-1] == experiment["steps"]


def _places(here: list[str], there: list[str]) -> list[int] | None:
    """Where each point of `there` stands in `here`; None if one is missing."""
    free: dict[str, list[int]] = {}
    for k, point in reversed(list(enumerate(here))):
        free.setdefault(point, []).append(k)
    try:
        return [free[point].pop() for point in there]
    except (KeyError, IndexError):
        return None
