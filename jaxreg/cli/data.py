"""The data of the command: four bundled sets, your own .csv or .npz, and honest splits.

What is learnt from data is learnt from training rows: a split is drawn first, by class, and
`standardizer` sees the training rows only. Else the test rows would leak into the fit, and every
score would look better than it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxreg.cli.files import (
    AS_FOUND,
    Reading,
    Table,
    comma_hint,
    float32,
    number,
    read_csv,
    read_npz,
    refuse_nan,
)

__all__ = ["Dataset", "load", "split", "split_rows", "standardizer"]

# A target of whole numbers with more distinct values than this counts as a quantity.
_MOST_CLASSES = 20


class Dataset(NamedTuple):
    """Rows to learn from, as arrays.

    Attributes:
      name: of the bundled set, or the file's name without its ending.
      X: [n, d] float64, or float32 for what has been scaled; images are kept as flat rows, see
        `image_shape`.
      y: [n], int32 class numbers or float64 targets.
      task: "classification" or "regression".
      n_classes: number of classes; None for regression.
      feature_names: of the d columns.
      class_names: what the class numbers stand for; empty for regression.
      image_shape: (height, width, channels) that a row reshapes to; None if it is no image.
      groups: [n] what rows belong to, which must stay together; or None.
      times: [n] when rows were, which must not be learnt from before; or None.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    task: str
    n_classes: int | None
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    groups: np.ndarray | None = None
    times: np.ndarray | None = None

    @property
    def n_outputs(self) -> int:
        """How many numbers a model gives for a row: one per class, or one."""
        return self.n_classes or 1


def load(
    name_or_path: str, target: str | None = None, task: str = "auto", reading: Reading = AS_FOUND
) -> Dataset:
    """A bundled data set by its name, or your own file.

    A .csv has a header row; every column but the target must be numeric. A .npz has arrays X
    ([n, d], or [n, height, width] or [n, height, width, channels] for images; bytes are scaled to
    0..1) and y [n]. A target of text, or of whole numbers with at most 20 distinct values that come
    twice on average, is a class; any other is a quantity to regress on.

    Args:
      name_or_path: digits, breast_cancer, diabetes, wine, or a path that ends in .csv or .npz.
      target: the target's column in a .csv; by default 'target' if there is one, else the last.
      task: "classification", "regression", or "auto" for what the target looks like.
      reading: how a .csv is to be read.

    Raises:
      ValueError: the name is unknown, or the file is missing, empty, malformed, or holds text or NaN
        where numbers are needed; the message says where. ImportError: scikit-learn or pandas is needed.

    >>> digits = load("digits")
    >>> digits.X.shape, digits.task, digits.n_classes, digits.image_shape
    ((1797, 64), 'classification', 10, (8, 8, 1))
    """
    path = Path(name_or_path)
    if path.suffix.lower() == ".csv":
        return _from_table(path, read_csv(path, target, reading), task)
    if target is not None:
        raise ValueError(f"`target` names a column of a .csv file, and {name_or_path!r} is none.")
    said = [n for n, a, b in zip(Reading._fields, reading, AS_FOUND) if a != b]
    if said:
        raise ValueError(f"--{said[0]} is about a .csv file, and {name_or_path!r} is none.")
    if path.suffix.lower() == ".npz":
        return _from_table(path, read_npz(path), task)
    if name_or_path not in _BUNDLED:
        raise ValueError(_unknown(name_or_path, path))
    if task != "auto":
        raise ValueError(f"--task is about a file of yours; {name_or_path!r} is what it is.")
    return _BUNDLED[name_or_path](name_or_path)


def _unknown(name: str, path: Path) -> str:
    if path.is_file():
        return f"{name!r} is a file of unknown type {path.suffix!r}; give a .csv or an .npz."
    near = difflib.get_close_matches(name.lower(), _BUNDLED, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return (
        f"unknown data set {name!r}{hint} There are {', '.join(sorted(_BUNDLED))}; or give the path "
        "of a .csv or .npz."
    )


# --- bundled with scikit-learn -------------------------------------------------------------------


def _sklearn(name: str, **options):
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            f"the data set {name!r} comes with scikit-learn, which is not installed: "
            "pip install 'jaxreg[data]'"
        ) from error
    return getattr(datasets, f"load_{name}")(**options)


def _classes(name: str) -> Dataset:
    bunch = _sklearn(name)
    X, y = bunch.data.astype(np.float64), bunch.target.astype(np.int32)
    classes = tuple(map(str, bunch.target_names))
    features = tuple(map(str, bunch.feature_names))
    return Dataset(name, X, y, "classification", len(classes), features, classes)


def _digits(name: str) -> Dataset:
    made = _classes(name)
    return made._replace(X=float32(made.X / 16), image_shape=(8, 8, 1))


def _diabetes(name: str) -> Dataset:
    # Raw, since the scaled version was standardised with the rows that become the test set.
    bunch = _sklearn(name, scaled=False)
    X, y = bunch.data.astype(np.float64), bunch.target.astype(np.float64)
    return Dataset(name, X, y, "regression", None, tuple(map(str, bunch.feature_names)))


_BUNDLED: dict[str, Callable[[str], Dataset]] = {
    "breast_cancer": _classes,
    "diabetes": _diabetes,
    "digits": _digits,
    "wine": _classes,
}


# --- your own files ------------------------------------------------------------------------------


def _from_table(path: Path, table: Table, task: str) -> Dataset:
    """The data set, once it is known whether the target is a class or a quantity."""
    y, n = table.y, len(table.y)
    if y.dtype.kind not in "SUbuif":
        raise ValueError(f"{path}: the target must be numbers or text, got dtype {y.dtype}.")
    text = y.dtype.kind in "SU"
    if not text:
        refuse_nan(str(path), float32(y)[:, None], ["the target"], table.unit, table.where)
    kinds, codes = np.unique(y.astype(str) if text else y.astype(float), return_inverse=True)
    if len(kinds) < 2:
        raise ValueError(f"{path}: the target is {kinds[0]!s} in every row; nothing can be learnt.")
    if text:
        _refuse_quantity(path, table, kinds.tolist(), task)
    made = Dataset(path.stem, table.X, y, "regression", None, table.feature_names)
    made = made._replace(image_shape=table.image_shape, groups=table.groups, times=table.times)
    whole = not text and bool((kinds == np.round(kinds)).all())
    few = whole and len(kinds) <= min(_MOST_CLASSES, n // 2)
    if task == "classification" or (task == "auto" and (text or few)):
        names = tuple(str(k) if text else f"{k:g}" for k in kinds)
        return made._replace(
            y=codes.astype(np.int32),
            task="classification",
            n_classes=len(kinds),
            class_names=names,
        )
    return made._replace(y=y.astype(np.float64))


def _refuse_quantity(path: Path, table: Table, kinds: list[str], task: str) -> None:
    """Raise where text is no class: too many values of it, or numbers but for some slips."""
    slips = [k for k in kinds if np.isnan(number(k))]
    n_numbers = sum(not np.isnan(number(k, ",")) for k in kinds)
    if slips and task != "classification" and (n_numbers > _MOST_CLASSES or task == "regression"):
        where = np.flatnonzero(np.isin(table.y, slips)).tolist()
        others = f" and {len(where) - 1} more" if len(where) > 1 else ""
        raise ValueError(
            f"{path}: the target has {n_numbers} distinct numbers, which is a quantity, but {table.unit} "
            f"{table.where[where[0]]}{others} holds text: {str(table.y[where[0]])!r}. Correct or remove it"
            f"{comma_hint(slips)}; if these are classes after all, give --task classification."
        )
    if len(kinds) > max(_MOST_CLASSES, len(table.y) // 2):
        raise ValueError(
            f"{path}: the target is text with {len(kinds)} distinct values in {len(table.y)} rows, which "
            "cannot be classes. Name another column as the target."
        )


# --- what is learnt from training rows -----------------------------------------------------------


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
