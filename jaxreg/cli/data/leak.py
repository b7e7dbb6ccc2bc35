"""Columns that number the rows and know the target: a file that was sorted, and kept its index."""

from __future__ import annotations

import numpy as np

from jaxreg.cli.data.dataset import Dataset

__all__ = ["leaks"]

_LEAST_ROWS = 20
_SHUFFLES = 100
_DEVIATIONS = 6.0


def leaks(dataset: Dataset) -> list[str]:
    """A warning for each column of distinct whole numbers, as ids are, in whose order targets are alike.

    That rows beside each other have like targets is compared with 100 shuffles: six of their standard
    deviations are no accident.

    >>> X = np.arange(40.0)[:, None]
    >>> y = np.repeat([0, 1], 20).astype(np.int32)
    >>> of = Dataset("a", X, y, "classification", 2, ("id",))
    >>> [text.split(",")[0] for text in leaks(of)]
    ["the column 'id' numbers the rows and tells the target: in its order"]
    >>> leaks(of._replace(y=np.tile([0, 1], 20)))
    []
    """
    n = len(dataset.X)
    if n < _LEAST_ROWS or dataset.image_shape or dataset.times is not None:
        return []
    rng = np.random.default_rng(0)
    found = []
    for name, column in zip(dataset.feature_names, dataset.X.T):
        if name in dataset.categories or not _numbers_rows(column):
            continue
        y = dataset.y[np.argsort(column)]
        shuffled = [_alike(rng.permutation(y), dataset.task) for _ in range(_SHUFFLES)]
        if _alike(y, dataset.task) > np.mean(shuffled) + _DEVIATIONS * np.std(shuffled):
            found.append(
                f"the column {name!r} numbers the rows and tells the target: in its order, rows beside "
                f"each other are alike. If it is an index or an id, all scores are too good: give --drop "
                f"{name!r}. If it is a time, give --time {name!r}."
            )
    return found


def _numbers_rows(column: np.ndarray) -> bool:
    """Distinct whole numbers without many gaps."""
    whole = np.isfinite(column).all() and (column == np.round(column)).all()
    return bool(
        whole and np.ptp(column) < 2 * len(column) and len(np.unique(column)) == len(column)
    )


def _alike(y: np.ndarray, task: str) -> float:
    """How alike the targets of rows beside each other are; larger is more alike."""
    if task == "classification":
        return float(np.mean(y[1:] == y[:-1]))
    return -float(np.mean((y[1:] - y[:-1]) ** 2))
