"""Classes that a fold is judged on and not trained on.

A model that has seen no row of a class gives it an ever smaller probability the longer it is trained and
the weaker the penalty is, so the loss on such a row says nothing of λ. Folds that are made of the classes
(`jaxreg.folds` with `y`) are refused then. Of other folds it cannot be known whether integers are classes
or counts, so it is told where the last array of the data is one integer or name for each row and holds few
different ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxreg import _tree

__all__ = ["check_classes", "lacking", "missing_classes"]

_ROWS = 3  # of a class on average, or the values are many


def check_classes(owner: str, pairs: Sequence[tuple], y: np.ndarray, grouped: bool) -> None:
    """Refuse folds of which one is judged on a class that it is not trained on.

    Args:
      owner: who asks, for errors.
      pairs: of each fold the rows to train and to be judged on.
      y: [n], the class of each row.
      grouped: whether rows of a group stay together.

    Raises:
      ValueError: naming the fold and the class.
    """
    if not _may_be_classes(y):
        return
    for f, (train, valid) in enumerate(pairs):
        lacking = np.setdiff1d(y[valid], y[train])
        if lacking.size:
            name, rows = lacking[0].item(), int((y == lacking[0]).sum())
            why = "all in one group" if grouped and rows > 1 else "too few to be in both"
            raise ValueError(
                f"{owner}: fold {f} is judged on the class {name!r} of `y` and has no row of it to train "
                f"on: got {rows} row{'s' * (rows > 1)} of it, {why}. Leave them out, join the class with "
                "another, or give `y` as floating numbers where it is a quantity."
            )


def lacking(times: np.ndarray, y: np.ndarray) -> list[tuple[int, Any]]:
    """The (fold, class) where the fold is judged on the class and has no row of it to train on.

    Args:
      times: [F, n, 2], how often each row is trained on and judged on.
      y: [n], the class of each row.

    >>> times = np.array([[[1, 0], [1, 0], [0, 1]], [[1, 0], [0, 1], [1, 0]]])
    >>> lacking(times, np.array(["a", "a", "b"]))
    [(0, 'b')]
    """
    names, at = np.unique(y, return_inverse=True)
    found = []
    for f, of_fold in enumerate(times):
        # At once for all classes: there may be a third as many as rows.
        train, valid = (np.bincount(at, of_fold[:, i], len(names)) > 0 for i in (0, 1))
        found += [(f, name.item()) for name in names[valid & ~train]]
    return found


def missing_classes(times: np.ndarray, data: tuple) -> list[str]:
    """What to tell of folds that lack a class to train on that they are judged on.

    Args:
      times: [F, n, 2], how often each row is trained on and judged on.
      data: arrays of n rows, the last of which may hold classes.
    """
    y = _classes(data)
    if y is None:
        return []
    found = lacking(times, y)
    if not found:
        return []
    f, name = found[0]
    folds = len({fold for fold, _ in found})
    return [
        f"fold {f} is judged on the class {name!r} and has no row of it to train on ({folds} of "
        f"{len(times)} folds lack a class so); if the last array of `data` holds classes, their "
        "loss there says nothing of λ. Give folds=jaxreg.folds(n, k, y=y), or more rows of the class; a "
        "quantity is better given as floating numbers."
    ]


def _classes(data: tuple) -> np.ndarray | None:
    """The last array as classes, if it may hold some."""
    if len(data) < 2 or not hasattr(data[-1], "dtype") or np.ndim(data[-1]) != 1:
        return None
    y = data[-1]
    if not _tree.is_concrete(y) or np.dtype(y.dtype).kind not in "biuUSO":
        return None
    y = np.asarray(y)
    y = y.astype(str) if y.dtype == object else y
    return y if _may_be_classes(y) else None


def _may_be_classes(y: np.ndarray) -> bool:
    return y.dtype.kind in "biuUS" and len(np.unique(y)) * _ROWS <= len(y)
