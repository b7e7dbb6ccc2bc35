"""What is learnt of training rows before a model sees them: values that are missing, texts, and the scale.

A scaler that has seen validation or test rows makes every score look better than it is, so this is done
for each fold with its training rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Encoder", "learn", "standardizer"]


class Encoder(NamedTuple):
    """Rows as a model takes them: (filled in, a column for each value of a text, standardised).

    Attributes:
      values: of each of d columns how many values it has, 0 for a number; D is their sum, a number as one.
      fill: [d] what a missing number becomes.
      mean, scale: [D] of the training rows; the scale of what is constant there is 1.
      seen: [D] whether training rows have this value; one that they lack counts as none.
    """

    values: tuple[int, ...]
    fill: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    seen: np.ndarray

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """[n, d] float64 -> [n, D] float32.

        In float64 until the end: a time in seconds since 1970 has no more digits in float32.
        """
        wide = _widened(np.where(np.isnan(X), self.fill, X), self.values) * self.seen
        return ((wide - self.mean) / self.scale).astype(np.float32)


def learn(X: np.ndarray, values: Sequence[int], impute: str = "off") -> Encoder:
    """An encoder of training rows.

    Args:
      X: [n, d] training rows only; numbers of values in a column of text, NaN for what is missing.
      values: of each column how many values it has, 0 for a number.
      impute: "median", "mean", or "off" where nothing is missing.

    >>> X = np.array([[1.0, 0.0], [np.nan, 2.0], [3.0, 0.0]])
    >>> encoder = learn(X, (0, 3), "mean")
    >>> encoder.fill.tolist(), encoder.seen.tolist()
    ([2.0, nan], [True, True, False, True])
    """
    middle = {"median": np.median, "mean": np.mean}.get(impute, np.mean)
    # A text has no middle: NaN stays NaN, which is none of its values.
    columns = (column[~np.isnan(column)] for column in np.asarray(X, np.float64).T)
    fill = np.array(
        [np.nan if k else middle(c) if len(c) else 0.0 for c, k in zip(columns, values)]
    )
    wide = _widened(np.where(np.isnan(X), fill, X), values)
    of_text = np.repeat([k > 0 for k in values], [max(k, 1) for k in values])
    seen = ~of_text | wide.any(0)
    return Encoder(tuple(values), fill, *standardizer(wide), seen)


def _widened(X: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """A column for every value of a text."""
    if not any(values):
        return np.asarray(X, np.float64)
    parts = [X[:, j, None] == np.arange(k) if k else X[:, j, None] for j, k in enumerate(values)]
    return np.concatenate(parts, 1).astype(np.float64)


def standardizer(X_train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every column; use them as (x - mean) / scale.

    Args:
      X_train: [n, d] training rows only, or a target [n].

    Returns:
      mean and scale, [d] float64 (scalars for a target); the scale of a constant column is 1.

    >>> mean, scale = standardizer(np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> mean.tolist(), scale.tolist()
    ([2.0, 5.0], [1.0, 1.0])
    """
    rows = np.asarray(X_train, np.float64)
    varies = rows.max(0) > rows.min(0)  # the deviation of a constant need not be 0, to rounding
    return np.where(varies, rows.mean(0), rows[0]), np.where(varies, rows.std(0), 1.0)
