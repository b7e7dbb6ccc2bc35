"""Optuna's TPE beside `jaxreg.search`, both on the same folds: how near each comes to a dense grid.

TPE asks for a few points at a time, its first ten at random; the search takes five over the range and
refines. Both look at log λ, and train each point as a lane of the same sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from _common import Row, bound
from _resampled import Task, linear

import jaxreg as jr
from jaxreg.tune.ask import ask_and_tell

_TASKS = (
    ("diabetes", 150, 1e-3, 0.5),
    ("breast_cancer", 100, 1e-3, 0.3),
    ("digits", 100, 1e-4, 0.03),
)


def tpe(count: int, smoke: bool) -> tuple[list[Row], list[Row]]:
    """CV loss over that of the best of 65 λ, in percent."""
    rows, bounds = [], []
    for name, size, low, high in _TASKS[: 1 if smoke else None]:
        task = linear(name, size, np.geomspace(low, high, 2), **({"steps": 20} if smoke else {}))
        excess: dict[str, list[float]] = {}
        trials = (12,) if smoke else (12, 50)
        for r in range(2 if smoke else max(count // 4, 2)):
            data, options = _given(task, r)
            lams = np.geomspace(low, high, 9 if smoke else 65)
            dense = jr.sweep(task.trainer, jr.grid(_l1, lam=lams), data, **options).mean().min()
            where = jr.space(_l1, lam=(low, high))
            got = {"jaxreg.search, 12": jr.search(task.trainer, where, data, budget=12, **options)}
            for budget in trials:
                got[f"TPE, {budget}"] = _by_tpe(task, where, data, budget, r, options)
            for method, found in got.items():
                excess.setdefault(method, []).append(100 * (found.choice.mean / float(dense) - 1))
        rows += [
            {"task": task.name, "by, trainings": n, "over the best, %": _mean(v), "draws": len(v)}
            for n, v in excess.items()
        ]
        less = np.mean(excess["jaxreg.search, 12"]) - np.mean(excess["TPE, 12"])
        bounds.append(
            bound(f"{task.name}: search less TPE after 12 trainings, %", float(less), most=0.0)
        )
    return rows, bounds


def _l1(lam: float) -> jr.Penalty:
    return jr.l1(lam).on(jr.kernels)


def _given(task: Task, r: int) -> tuple[tuple, dict[str, Any]]:
    """Rows and options of the r-th draw."""
    rows = np.random.default_rng(r).permutation(len(task.data[0]))[: task.rows]
    options = {"folds": 5, "steps": task.steps, "evals": 1, "key": jax.random.key(r)}
    return tuple(a[rows] for a in task.data), {**options, "progress": False, "keep_params": False}


def _by_tpe(
    task: Task, where: Any, data: tuple, budget: int, r: int, options: dict[str, Any]
) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=r))
    batch = 2 if budget < 20 else 5
    return ask_and_tell(study, task.trainer, where, data, batch=batch, budget=budget, **options)


def _mean(values: Sequence[float]) -> list[float]:
    """Mean and standard error over draws."""
    array = np.asarray(values, float)
    return [float(array.mean()), float(array.std(ddof=1) / np.sqrt(len(array)))]
