"""What ridge is computed of: rows, responses and strengths in float64 on the host, and folds."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from jax import Array

from jaxreg._check import count
from jaxreg.fit.folds import folds as make_folds
from jaxreg.fit.intake import as_rows
from jaxreg.fit.splits import make_splits

__all__ = ["RowFolds", "as_grid", "as_regression", "as_row_folds", "as_strengths"]


class RowFolds(NamedTuple):
    """Folds as lists of rows, and what their spread says; see `jaxreg.fit.splits`."""

    pairs: list[tuple[np.ndarray, np.ndarray]]
    times: np.ndarray  # [F, n], how often each row is trained on
    repeats: int
    overlap: float


def as_regression(owner: str, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """X [n, p] and y, [n] or [n, m], in float64.

    Raises:
      ValueError, TypeError: `data` is no such pair, or has fewer than three rows.
    """
    arrays, n = as_rows(owner, data)
    if len(arrays) != 2 or not all(isinstance(a, (np.ndarray, Array)) for a in arrays):
        raise ValueError(
            f"{owner}: `data` must be a pair of arrays, (X, y), got {len(arrays)} parts."
        )
    x, y = (np.asarray(a, np.float64) for a in arrays)
    if x.ndim != 2 or y.ndim not in (1, 2) or not x.shape[1] or not y.size:
        raise ValueError(
            f"{owner}: `data` must be (X, y) of [rows, columns] and [rows] or [rows, responses], got "
            f"{list(x.shape)} and {list(y.shape)}."
        )
    if n < 3:
        raise ValueError(f"{owner}: `data` must have at least 3 rows, got {n}.")
    return x, y


def as_row_folds(owner: str, folds: Any, n: int) -> RowFolds:
    """Folds from what a sweep takes; an int is that many random folds, always the same ones.

    Raises:
      ValueError, TypeError: what is given makes no folds of these rows.
    """
    if isinstance(folds, (int, np.integer)) and not isinstance(folds, bool):
        k = count(owner, "folds", folds, 2)
        if k > n:
            raise ValueError(f"{owner}: `folds` must be at most the {n} rows there are, got {k}.")
        folds = make_folds(n, k)
    try:
        # The key is for an int alone.
        table, sizes, repeats, overlap = make_splits(folds, n, 0, cast("Array", None))
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("sweep:", f"{owner}:", 1)) from None
    pairs = [
        (rows[:many], valid[: sizes[kind][1]])
        for rows, many, valid, kind in zip(table.rows, table.count, table.valid, table.kind)
    ]
    fewest = min(len(train) for train, _ in pairs)
    if fewest < 3:
        raise ValueError(
            f"{owner}: `folds` must leave at least 3 rows to train on in every fold, got {fewest}."
        )
    return RowFolds(pairs, table.times[:, :, 0].astype(np.float64), repeats, overlap)


def as_strengths(owner: str, lam: Any) -> np.ndarray:
    """Strengths of any shape in float64.

    Raises:
      TypeError: no numbers. ValueError: below 0, or not finite.
    """
    try:
        if isinstance(lam, (bool, str, bytes)) or lam is None:
            raise TypeError
        found = np.asarray(lam, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{owner}: `lam` must be numbers, got {lam!r:.60}.") from None
    if not np.isfinite(found).all() or (found < 0).any():
        raise ValueError(
            f"{owner}: `lam` must be strengths, finite and at least 0, got {lam!r:.60}."
        )
    return found


def as_grid(owner: str, lam: Any) -> np.ndarray:
    """Strengths [K], rising, of one or of a list.

    Raises:
      TypeError, ValueError: as `as_strengths`, or of another shape.
    """
    lams = np.sort(np.atleast_1d(as_strengths(owner, lam)), axis=None)
    if np.ndim(lam) > 1 or not lams.size:
        raise ValueError(
            f"{owner}: `lam` must be strengths, finite and at least 0, got {lam!r:.60}."
        )
    return lams
