"""Folds as arrays of fixed shape, so that one program serves them all.

A fold is a list of rows to train on (padded to a common length) and two weightings of all rows, one
for the training and one for the validation mean.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxreg._quickly import quickly

__all__ = ["Folds", "make_folds"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Folds:
    """F folds over n rows."""

    rows: Any  # int [F, m]: rows to train on, padded
    count: Any  # int [F]: how many of them are real
    weights: Any  # float [F, n, 2]: training and validation rows

    @property
    def fewest(self) -> int:
        """The smallest number of training rows of any fold."""
        return int(self.count.min())


def make_folds(
    folds: int | Sequence | np.ndarray | jax.Array | None, n: int, n_valid: int, key: jax.Array
) -> Folds:
    """Folds from what a user may give.

    Args:
      folds: an int (that many random folds of equal size; up to folds - 1 leftover rows are always
        trained on), an int array [n] of fold numbers (-1: always trained on), or a sequence of
        (train rows, validation rows), as scikit-learn's splitters give. None: train on the first n
        rows and validate on the n_valid after them.
      n: rows of the data.
      n_valid: rows of separate validation data, which follow the n rows.
      key: for the random folds.

    Raises:
      ValueError: what is given makes no folds of these rows.
    """
    if folds is None:
        if not n_valid:
            raise ValueError(
                "sweep: there is nothing to validate on; give `folds` (such as folds=5) or "
                "`validation`, a tuple of arrays like `data`."
            )
        return _table([(np.arange(n), np.arange(n, n + n_valid))], n + n_valid)
    if n_valid:
        raise ValueError("sweep: give either `folds` or `validation`, not both.")
    if isinstance(folds, (int, np.integer)) and not isinstance(folds, bool):
        return _table(_random(int(folds), n, key), n)
    return _table(_pairs(folds, n), n)


def _random(folds: int, n: int, key: jax.Array) -> list[tuple[np.ndarray, np.ndarray]]:
    if not 2 <= folds <= n:
        raise ValueError(
            f"sweep: `folds` must be between 2 and the {n} examples there are, got {folds}. For a "
            "single split give `validation`, a tuple of arrays like `data`."
        )
    order = np.asarray(_permutation(key, n))
    parts = order[: n - n % folds].reshape(folds, -1)
    return [(np.setdiff1d(order, part), np.sort(part)) for part in parts]


@functools.partial(quickly, static=(1,))
def _permutation(key: jax.Array, n: int) -> jax.Array:
    return jax.random.permutation(jax.random.fold_in(key, 2), n)


def _pairs(folds: Any, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    if isinstance(folds, (np.ndarray, jax.Array)) and folds.ndim == 1:
        number = np.asarray(folds)
        if number.shape != (n,) or not np.issubdtype(number.dtype, np.integer):
            raise ValueError(
                f"sweep: `folds` as an array must hold one integer for each of the {n} examples, got "
                f"shape {number.shape} and dtype {number.dtype}."
            )
        names = np.unique(number[number >= 0])
        return [(np.flatnonzero(number != f), np.flatnonzero(number == f)) for f in names]
    try:
        pairs = [(np.asarray(a, int), np.asarray(b, int)) for a, b in folds]
    except (TypeError, ValueError) as error:
        raise ValueError(
            "sweep: `folds` must be an int, an integer array with the fold of every example, or "
            f"pairs (train rows, validation rows), got {folds!r}."
        ) from error
    for f, (train, valid) in enumerate(pairs):
        rows = np.concatenate([train, valid])
        if not len(train) or not len(valid) or rows.min() < 0 or rows.max() >= n:
            raise ValueError(
                f"sweep: fold {f} of `folds` must have at least one row to train on and one to "
                f"validate on, all between 0 and {n - 1}."
            )
        if np.intersect1d(train, valid).size:
            raise ValueError(
                f"sweep: fold {f} of `folds` trains on a row it validates on "
                f"({int(np.intersect1d(train, valid)[0])}); its score would not be honest."
            )
    return pairs


def _table(pairs: list[tuple[np.ndarray, np.ndarray]], n: int) -> Folds:
    if not pairs:
        raise ValueError("sweep: `folds` is empty; give at least one fold.")
    longest = max(len(train) for train, _ in pairs)
    rows = np.zeros((len(pairs), longest), np.int32)
    weights = np.zeros((len(pairs), n, 2), np.float32)
    for f, (train, valid) in enumerate(pairs):
        rows[f, : len(train)] = train
        weights[f, train, 0] = 1
        weights[f, valid, 1] = 1
    return Folds(rows, np.array([len(t) for t, _ in pairs], np.int32), weights)
