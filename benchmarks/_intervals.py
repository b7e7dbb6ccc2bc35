"""Ridge on simulated data, where the loss of a model on new rows is known: what intervals cover."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxreg.tune.nested import Losses, estimate

FOLDS, Z90 = 10, 1.6449


class Case(NamedTuple):
    """Rows, columns, λ of mean (x w - y)^2 / 2 + λ/2 |w|^2."""

    n: int
    p: int
    lam: float


CASES = (Case(100, 20, 0.001), Case(100, 50, 0.001), Case(100, 50, 0.3), Case(60, 50, 0.1))


class Covered(NamedTuple):
    """Of one data set: whether each interval holds the truth, and the width of nested over usual."""

    nested: bool
    rows: bool
    folds: bool
    width: float


def data_set(case: Case, seed: int, repeats: int) -> Covered:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=case.p) / np.sqrt(case.p)
    x = rng.normal(size=(case.n, case.p))
    y = x @ truth + rng.normal(size=case.n)
    losses, first = _losses(rng, x, y, case.lam, repeats)
    mean, error, usual = estimate(losses)
    w = np.linalg.solve(x.T @ x / case.n + case.lam * np.eye(case.p), x.T @ y / case.n)
    true = 1 + ((w - truth) ** 2).sum()
    plain, by_folds = first.mean(), first.std(ddof=1) / np.sqrt(FOLDS)
    return Covered(
        abs(true - mean) <= Z90 * error, abs(true - plain) <= Z90 * usual,
        abs(true - plain) <= Z90 * by_folds, error / usual,
    )  # fmt: skip


def _losses(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, lam: float, repeats: int
) -> tuple[Losses, np.ndarray]:
    """Squared errors of all trainings that nested cross-validation asks for, by their normal equations."""
    n, p = x.shape
    size, others = n // FOLDS, ~np.eye(FOLDS, dtype=bool)
    inner, outer, variance = [], [], []
    for _ in range(repeats):
        rows = rng.permutation(n).reshape(FOLDS, size)
        xs, ys = x[rows], y[rows]
        gram, moment = np.einsum("fni,fnj->fij", xs, xs), np.einsum("fni,fn->fi", xs, ys)
        count = n - size * (
            1 + others
        )  # rows that a model is trained on, without the folds j and k
        without = lambda a, other=others: (
            a.sum(0) - a[:, None] - a[None] * other.reshape(FOLDS, FOLDS, *[1] * (a.ndim - 1))
        )
        scaled = count[..., None, None] * lam * np.eye(p)
        w = np.linalg.solve(without(gram) + scaled, without(moment)[..., None])[..., 0]
        squares = (
            np.einsum("fni,fki->fkn", xs, w) - ys[:, None]
        ) ** 2  # of fold f, without f and k
        alone = squares[np.arange(FOLDS), np.arange(FOLDS)]
        outer.append(alone.mean(-1))
        variance.append(alone.var(-1, ddof=1))
        inner.append(squares.mean(-1).T[others].reshape(FOLDS, FOLDS - 1))
    sizes = np.full((repeats, FOLDS), size)
    return Losses(np.array(inner), np.array(outer), np.array(variance), sizes), outer[0]
