"""λ of a net by continuation, beside a sweep that trains every λ from fresh parameters.

A draw is 100 digits; both validate on the same five folds of it, with the same initial parameters. What
they chose is trained anew on all rows of the draw, and tested on the digits that were left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from _common import Row, bound
from _resampled import FOLDS, Task, draws, net

from jaxreg.scores import Scores
from jaxreg.tune.continuation import continuation as continued


def continuation(count: int, smoke: bool) -> tuple[list[Row], list[Row]]:
    """How far apart the choices are, what that costs in test loss, and how many trainings a path took."""
    lams = np.geomspace(1e-5, 0.1, 4 if smoke else 16)
    task = net("digits", 100, lams, **({"hidden": 16, "steps": 20} if smoke else {}))
    cold = draws(task, count, seeds=1)
    rows, apart, trainings = [], {}, 0.0
    for share in (10, 5):
        then = task.steps // share
        warm, trainings = _warm(task, count, then)
        picks = [(d.scores.lowest, w.lowest) for d, w in zip(cold, warm)]
        apart[share] = [abs(c - w) for c, w in picks]
        worse = [d.test[w] - d.test[c] for d, (c, w) in zip(cold, picks)]
        rows.append({
            "updates of each λ": then, "grid steps apart": _mean(apart[share]),
            "too strong by": _mean([w - c for c, w in picks]),
            "test loss - that of the sweep": _mean(worse),
            "trainings": trainings, "of the sweep": len(lams), "draws": count,
        })  # fmt: skip
    mean, most = float(np.mean(apart[5])), float(trainings)
    return rows, [
        bound("digits, MLP L2: grid steps between continuation and sweep", mean, most=1.0),
        bound("digits, MLP L2: trainings of a continuation of 16 λ", most, most=4.0),
    ]


def _warm(task: Task, count: int, then: int) -> tuple[list[Scores], float]:
    """Scores of every draw by continuation, and how many trainings one fold took."""
    n, pairs = len(task.data[0]), []
    for r in range(count):  # as in `draws`
        rows = np.random.default_rng(r).permutation(n)[: task.rows]
        pairs += [(np.setdiff1d(rows, part), part) for part in np.array_split(rows, FOLDS)]
    result = continued(
        task.trainer, task.grid, task.data, folds=pairs, steps=task.steps, then=then,
        key=jax.random.key(0), keep_params=False,
    )  # fmt: skip
    loss, coords = result.scores(), {"lam": np.asarray(result.coords["lam"])}
    every = np.split(np.arange(len(pairs)), count)
    return [Scores(loss[:, at], coords) for at in every], result.best().lane_steps / (
        len(pairs) * task.steps
    )


def _mean(values: Sequence[float]) -> list[float]:
    """Mean and standard error over draws."""
    array = np.asarray(values, float)
    return [float(array.mean()), float(array.std(ddof=1) / np.sqrt(len(array)))]
