"""Training and test rows, drawn first of all: what a model is judged on, nothing has been learnt from."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxreg.cli.data.dataset import Dataset

__all__ = ["split", "split_rows"]


def split(
    dataset: Dataset, train_size: int, seed: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(X, y) to train on and (X, y) to test on.

    At random, where classes keep their shares to one row; with groups, whole groups; with times, the first
    to train on and the others to test on.

    Args:
      dataset: what to split.
      train_size: number of training rows; the others are the test set.
      seed: equal seeds give equal splits.

    Raises:
      ValueError: `train_size` is no number of rows that leaves both sides some, or too small to have
        every class in it.

    >>> from jaxreg.cli.data import load
    >>> (X, y), test = split(load("digits"), 100, seed=0)
    >>> X.shape, np.bincount(y).tolist()
    ((100, 64), [10, 10, 10, 10, 10, 10, 10, 10, 10, 10])
    """
    train, test = split_rows(dataset, train_size, seed)
    return (dataset.X[train], dataset.y[train]), (dataset.X[test], dataset.y[test])


def split_rows(dataset: Dataset, train_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the rows to train on and to test on; see `split`."""
    n = len(dataset.X)
    if not 1 <= train_size < n:
        raise ValueError(
            f"train_size: {dataset.name} has {n} examples, so it must be between 1 and {n - 1} (the "
            f"others are the test set), got {train_size}."
        )
    if train_size < (dataset.n_classes or 0):
        raise ValueError(
            f"train_size: {dataset.name} has {dataset.n_classes} classes, and {train_size} rows cannot "
            "have one of each."
        )
    rng = np.random.default_rng(seed)
    if dataset.times is not None:
        return _cut_in_time(dataset.times, train_size)
    if dataset.groups is not None:
        return _whole_groups(dataset.groups, train_size, rng)
    order = rng.permutation(len(dataset.X))
    if dataset.task == "classification":
        order = order[np.argsort(_share(dataset.y[order]), kind="stable")]
    return rng.permutation(order[:train_size]), rng.permutation(order[train_size:])


def _cut_in_time(times: np.ndarray, train_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The earliest rows, about `train_size`, and the later ones; equal times stay together."""
    order = np.argsort(times, kind="stable")
    changes = np.flatnonzero(times[order][1:] != times[order][:-1]) + 1
    if not len(changes):
        raise ValueError("--time: all rows have the same time; there is no later one to test on.")
    cut = changes[np.abs(changes - train_size).argmin()]
    return order[:cut], order[cut:]


def _whole_groups(groups: np.ndarray, train_size: int, rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """Groups at random, until about `train_size` rows are together."""
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ValueError("--groups: all rows are of one group; there is no other one to test on.")
    order = rng.permutation(len(names))
    rows = np.cumsum(np.bincount(group)[order])
    cut = 1 + int(np.abs(rows[:-1] - train_size).argmin())
    trained = np.isin(group, order[:cut])
    return rng.permutation(np.flatnonzero(trained)), rng.permutation(np.flatnonzero(~trained))


def _share(y: np.ndarray) -> np.ndarray:
    """What share of its class comes before each row: the k-th of m has k / m, from k = 0."""
    share = np.empty(len(y))
    for c in np.unique(y):
        of_class = y == c
        share[of_class] = np.arange(of_class.sum()) / of_class.sum()
    return share
