"""Ridge beyond one λ: folds of many responses beside himalaya's, and one λ for each group of columns.

`groups` compares the loss on test rows of λ chosen in six ways, on the same draws: one λ by leave-one-out
and by the evidence, one for each group of columns by both, one for each column by both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from _common import Row, bound, figures, first_calls, refuse, timed_rounds

import jaxreg as jr
from jaxreg.tune.ridge_groups import RidgeGroups, ridge_groups

__all__ = ["groups", "kfold"]


# --- folds of many responses --------------------------------------------------------------------------


def kfold(count: int, smoke: bool) -> tuple[list[Row], list[Row]]:
    """λ and weights of each response by 5 folds: time over that of ours, the answers checked."""
    n, p, m = (100, 10, 7) if smoke else (2_000, 500, 1_000)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, p))
    y = x @ rng.normal(size=(p, m)) * 0.05 + rng.normal(size=(n, m)) * rng.uniform(0.5, 4, m)
    lams = np.geomspace(1e-3, 1e2, 30)
    candidates = {"jaxreg.ridge_path": lambda: _ours(x, y, lams)}
    candidates |= dict(_himalaya(x, y, lams))
    first, answers = first_calls(candidates)
    lam, loss, w = answers["jaxreg.ridge_path"]
    for name, (other_lam, other_loss, other_w) in answers.items():
        alike = np.isclose(other_lam, lam) & np.isclose(other_loss, loss, rtol=1e-8)
        if not alike.all() or not np.allclose(other_w, w, rtol=1e-6, atol=1e-9):
            refuse(f"{name} chose other λ or weights for {int((~alike).sum())} of {m} responses.")
    slow = 2 * min(first[name] for name in candidates if name != "jaxreg.ridge_path")
    times = timed_rounds(candidates, first, 1 if smoke else max(count // 7, 3), slow=slow)
    ours = times["jaxreg.ridge_path"]
    rows = [{"candidate": name, **figures(t, ours)} for name, t in times.items()]
    best = min(float(row["ratio"]) for row in rows[1:])
    what = f"himalaya's fastest over ridge_path, 5 folds, {n} x {p}, {m} responses, {len(lams)} λ"
    return rows, [bound(what, best, least=4)]


def _parts(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The folds of scikit-learn's KFold(5), which himalaya takes."""
    parts = np.array_split(np.arange(n), 5)
    return [(np.setdiff1d(np.arange(n), part), part) for part in parts]


def _ours(x: np.ndarray, y: np.ndarray, lams: np.ndarray) -> tuple[np.ndarray, ...]:
    folds = _parts(len(x))
    path = jr.ridge_path((x, y), lams, folds=folds)
    lam = path.per_response("cv")
    same = lam * len(folds[0][0]) / len(x)  # himalaya's κ is that of the folds again for all rows
    return lam, path.cv.min(0), path.coef(same)[0]


def _himalaya(
    x: np.ndarray, y: np.ndarray, lams: np.ndarray
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Its solvers on numpy, each with all responses at once and in batches, by which it may gain.

    Its α is κ, n_train λ on the folds, which are all equally large.
    """
    try:
        from himalaya.kernel_ridge import KernelRidgeCV
        from himalaya.ridge import RidgeCV
    except ImportError:
        refuse("himalaya is not installed; pip install himalaya.")
    train = len(_parts(len(x))[0][0])

    def run(make: Callable[..., Any], **options: Any) -> tuple[np.ndarray, ...]:
        model = make(alphas=train * lams, fit_intercept=True, cv=5, **options).fit(x, y)
        lam = model.best_alphas_ / train
        w = x.T @ model.dual_coef_ if hasattr(model, "dual_coef_") else model.coef_
        return lam, -0.5 * model.cv_scores_, w

    batches = {"targets": {"n_targets_batch": 200}, "alphas": {"n_alphas_batch": 5}}
    yield "himalaya RidgeCV, svd", lambda: run(RidgeCV)
    for name, params in batches.items():
        yield (
            f"himalaya RidgeCV, svd, batches of {name}",
            lambda params=params: run(RidgeCV, solver_params=params),
        )
    kernel = {"kernel": "linear", "warn": False}
    yield "himalaya KernelRidgeCV, eigenvalues", lambda: run(KernelRidgeCV, **kernel)


# --- groups of columns ----------------------------------------------------------------------------------


class Draw(NamedTuple):
    """Rows to choose and train on, others to test on, and the group of each column."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    group: np.ndarray


def groups(count: int, smoke: bool) -> tuple[list[Row], list[Row]]:
    """Mean loss on test rows, half the mean square, and its differences from one λ by leave-one-out."""
    rows, bounds = [], []
    for name, draw in (("simulated", _simulated), ("diabetes with products", _diabetes)):
        found = [_losses(draw(r)) for r in range(count)]
        plain = np.array([one["one, loo"][0] for one in found])
        for way in found[0]:
            loss, told, real = np.array([one[way] for one in found]).T
            less = loss - plain
            error = less.std(ddof=1) / np.sqrt(count)
            rows.append({
                "data": name, "λ": way, "test loss": _pair(loss), "less one λ": _pair(less),
                "criterion": float(told.mean()), "called real": float(real.mean()),
            })  # fmt: skip
            if way in ("by group, loo", "by group, evidence"):
                sure = -less.mean() / max(error, 1e-300)
                bounds.append(bound(f"{name}, {way}: gain in standard errors", sure, least=5))
    return rows, bounds


def _pair(values: np.ndarray) -> list[float]:
    return [float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))]


def _losses(draw: Draw) -> dict[str, tuple[float, float, float]]:
    """Way -> test loss, the criterion it was chosen by, and whether it was called a real gain."""
    (x, y), found = draw.test, {}

    def tell(name: str, way: RidgeGroups, coef: tuple[np.ndarray, np.ndarray], told: float) -> None:
        rest = y - x @ coef[0][:, 0] - coef[1][0]
        found[name] = 0.5 * float(np.mean(rest**2)), told, float(way.real)

    for by in ("loo", "evidence"):
        some = ridge_groups(draw.train, draw.group, by=by)
        each = ridge_groups(draw.train, np.arange(x.shape[1]), by=by, folds=None)
        one = jr.ridge_path(draw.train, [some.single.coords["lam"]]).coef(some.single.coords["lam"])
        tell(f"one, {by}", each, one, some.single.mean)
        tell(f"by group, {by}", some, some.coef(), some.choice.mean)
        tell(f"by column, {by}", each, each.coef(), each.choice.mean)
    return found


def _simulated(seed: int) -> Draw:
    """Three groups of twenty columns, with coefficients of standard deviations 1, 0.1 and 0."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(3), 20)
    w = rng.normal(size=60) * np.array([1.0, 0.1, 0.0])[group]
    x = rng.normal(size=(1_080, 60))
    y = x @ w + rng.normal(size=1_080)
    return Draw((x[:80], y[:80]), (x[80:], y[80:]), group)


def _diabetes(seed: int) -> Draw:
    """Ten columns, their squares and their products; 100 rows to train on, the other 342 to test on."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    first, second = np.triu_indices(10, 1)
    x = np.hstack([x, x**2, x[:, first] * x[:, second]])
    group = np.repeat(np.arange(3), (10, 10, 45))
    rows = np.random.default_rng(seed).permutation(len(x))
    train, test = rows[:100], rows[100:]
    middle, spread = x[train].mean(0), x[train].std(0)
    x = (x - middle) / np.where(spread > 1e-8, spread, 1)
    return Draw((x[train], y[train]), (x[test], y[test]), group)
