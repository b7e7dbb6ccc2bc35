"""Ridge on folds: the held-out loss of every strength and response, by one eigendecomposition a fold.

What a fold is trained on are moments, and those of K folds are sums over K blocks of rows: each block is
read once. Blocks are centred on their own means, so that sums lose no digits (Chan, Golub & LeVeque 1979):

    X'X = sum_b [ X_b'X_b + n_b (mean_b - mean)(mean_b - mean)' ]

With the eigenvectors V of X'X, the predictions at κ of held-out rows are X_v V diag(1 / (s + κ)) V'X'y. At
all strengths they are combinations of those at a few (`jaxreg.tune._eigen.compressed`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxreg.tune._eigen import Solved, compressed, negligible
from jaxreg.tune._ridge_rows import RowFolds

__all__ = ["held_out"]

_NUMBERS = 4_000_000  # residuals at a time


class _Moments(NamedTuple):
    """Of some rows, about their means."""

    n: float
    x: np.ndarray  # [p], the mean
    y: np.ndarray  # [m]
    xx: np.ndarray  # [p, p]
    xy: np.ndarray  # [p, m]


class _Fold(NamedTuple):
    """The predictions of held-out rows at κ are y + a diag(√s / (s + κ)) b."""

    n: float  # of rows to train on
    y: np.ndarray  # [m]
    a: np.ndarray  # [v, r]
    s: np.ndarray  # [r]
    b: np.ndarray  # [r, m]


def held_out(
    x: np.ndarray, y: np.ndarray, lams: np.ndarray, folds: RowFolds, intercept: bool
) -> np.ndarray:
    """Half the mean square of the held-out residuals, [K, F, m], of training at λ on each fold's rows."""
    solve = _by_moments if x.shape[1] < min(len(train) for train, _ in folds.pairs) else _by_rows
    losses = [
        _losses(fold, y[valid], lams)
        for fold, (_, valid) in zip(solve(x, y, folds, intercept), folds.pairs)
    ]
    return np.stack(losses, 1)


def _losses(fold: _Fold, y: np.ndarray, lams: np.ndarray) -> np.ndarray:
    """[K, m]."""
    root = np.sqrt(fold.s)
    left, right = compressed(root / (fold.s + fold.n * lams[:, None]))
    left = np.hstack([np.ones((len(left), 1)), -left])
    found = np.empty((len(lams), y.shape[1]))
    some = max(1, _NUMBERS // (len(lams) * len(y)))
    for i in range(0, y.shape[1], some):
        at = slice(i, i + some)
        few = np.empty((left.shape[1], *y[:, at].shape))  # [1 + k, v, some]
        few[0] = y[:, at] - fold.y[at]
        np.matmul(fold.a, right[:, :, None] * fold.b[:, at], out=few[1:])
        rest = (left @ few.reshape(len(few), -1)).reshape(len(lams), *few.shape[1:])
        found[:, at] = 0.5 * np.square(rest, out=rest).mean(1)
    return found


# --- fewer columns than rows: moments -----------------------------------------------------------------


def _by_moments(x: np.ndarray, y: np.ndarray, folds: RowFolds, intercept: bool) -> Iterator[_Fold]:
    for run in _runs(folds):
        times, block = np.unique(folds.times[run], axis=1, return_inverse=True)  # [F', B], [n]
        blocks = [_moments(x[block == i], y[block == i], intercept) for i in range(times.shape[1])]
        for f, often in zip(run, times):
            joined = _joined(blocks, often)
            s, v = np.linalg.eigh(joined.xx)
            kept = s > negligible(s, int(joined.n), len(s))
            s, v = s[kept], v[:, kept]
            a = (x[folds.pairs[f][1]] - joined.x) @ v
            yield _Fold(joined.n, joined.y, a, s, (v.T @ joined.xy) / np.sqrt(s)[:, None])


def _runs(folds: RowFolds) -> list[list[int]]:
    """Folds whose training rows are unions of few blocks, together; else each alone."""
    each = len(folds.pairs) // folds.repeats
    runs = [list(range(i, i + each)) for i in range(0, len(folds.pairs), each)]
    few = lambda run: len(np.unique(folds.times[run], axis=1).T) <= each + 1
    return runs if all(map(few, runs)) else [[f] for f in range(len(folds.pairs))]


def _moments(x: np.ndarray, y: np.ndarray, intercept: bool) -> _Moments:
    middle = (x.mean(0), y.mean(0)) if intercept else (np.zeros(x.shape[1]), np.zeros(y.shape[1]))
    x, y = x - middle[0], y - middle[1]
    return _Moments(len(x), *middle, x.T @ x, x.T @ y)


def _joined(blocks: Sequence[_Moments], often: np.ndarray) -> _Moments:
    """Of all rows of some blocks, each counted as often as that."""
    some = [(b, times) for b, times in zip(blocks, often) if times]
    sizes = np.array([b.n * times for b, times in some])
    x, y = (np.stack([b[i] for b, _ in some]) for i in (1, 2))
    middle_x, middle_y = (sizes @ means / sizes.sum() for means in (x, y))
    apart = sizes[:, None] * (x - middle_x)
    xx = sum(times * b.xx for b, times in some) + apart.T @ (x - middle_x)
    xy = sum(times * b.xy for b, times in some) + apart.T @ (y - middle_y)
    return _Moments(sizes.sum(), middle_x, middle_y, xx, xy)


# --- as many columns as rows or more -------------------------------------------------------------------


def _by_rows(x: np.ndarray, y: np.ndarray, folds: RowFolds, intercept: bool) -> Iterator[_Fold]:
    for train, valid in folds.pairs:
        solved = Solved.of(x[train], y[train], intercept)
        kept = solved.s > negligible(solved.s, solved.n, solved.p)
        s, u = solved.s[kept], solved.u[:, kept]
        a = (x[valid] - solved.middle[0]) @ (solved.x.T @ (u / np.sqrt(s)))
        yield _Fold(solved.n, solved.middle[1], a, s, solved.b[kept])
