"""The data of the command: four bundled sets, and your own .csv or .npz."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxreg.cli.data.cells import number
from jaxreg.cli.data.files import (
    AS_FOUND,
    Reading,
    Table,
    comma_hint,
    read_csv,
    read_csv_like,
    read_npz,
)
from jaxreg.cli.data.problems import did_you_mean, some

__all__ = ["Dataset", "Rows", "load", "read_like"]

# A target of whole numbers with more distinct values than this may be a quantity.
_MOST_CLASSES = 20


class Dataset(NamedTuple):
    """Rows to learn from, as arrays.

    Attributes:
      name: of the bundled set, or the file's name without its ending.
      X: [n, d] float64, or float32 for what has been scaled; images are kept as flat rows, see
        `image_shape`. A column of text holds numbers of its values, see `categories`; NaN is missing.
      y: [n], int32 class numbers or float64 targets.
      task: "classification" or "regression".
      n_classes: number of classes; None for regression.
      feature_names: of the d columns.
      class_names: what the class numbers stand for; empty for regression.
      target: what y is called.
      categories: of the columns of text, their values.
      image_shape: (height, width, channels) that a row reshapes to; None if it is no image.
      in_bytes: whether images were bytes, which became shares of 255.
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
    target: str = "target"
    categories: Mapping[str, tuple[str, ...]] = {}
    image_shape: tuple[int, int, int] | None = None
    in_bytes: bool = False
    groups: np.ndarray | None = None
    times: np.ndarray | None = None

    @property
    def n_outputs(self) -> int:
        """How many numbers a model gives for a row: one per class, or one."""
        return self.n_classes or 1

    @property
    def values(self) -> tuple[int, ...]:
        """Of each column how many values it has if it is text, 0 for a number."""
        return tuple(len(self.categories.get(name, ())) for name in self.feature_names)

    @property
    def n_inputs(self) -> int:
        """How many numbers a model is given for a row: one per value of a text, one for a number."""
        return sum(max(k, 1) for k in self.values)


def load(
    name_or_path: str, target: str | None = None, task: str = "auto", reading: Reading = AS_FOUND
) -> Dataset:
    """A bundled data set by its name, or your own file.

    A .csv has a header row; every column but the target must be numeric, or be read as text by
    `reading.one_hot`. A .npz has arrays X ([n, d], or [n, height, width] or [n, height, width, channels]
    for images; bytes are scaled to 0..1) and y [n]. A target of text, or of whole numbers with at most 20
    distinct values that come twice on average, is a class; whole numbers with more values that come twice
    may be both, and are asked about; any other is a quantity to regress on.

    Args:
      name_or_path: digits, breast_cancer, diabetes, wine, or a path that ends in .csv or .npz.
      target: the target's column in a .csv; by default 'target' if there is one, else the last.
      task: "classification", "regression", or "auto" for what the target looks like.
      reading: how a .csv is to be read.

    Raises:
      ValueError: the name is unknown, or the file is missing, empty, malformed, or holds text or NaN
        where numbers are needed; the message says where, of everything that is wrong with it.
        ImportError: scikit-learn or pandas is needed.

    >>> digits = load("digits")
    >>> digits.X.shape, digits.task, digits.n_classes, digits.image_shape
    ((1797, 64), 'classification', 10, (8, 8, 1))
    """
    path = Path(name_or_path)
    if path.suffix.lower() == ".csv":
        return _from_table(path, read_csv(path, target, reading), task)
    if target is not None:
        raise ValueError(f"`target` names a column of a .csv file, and {name_or_path!r} is none.")
    _refuse_reading(name_or_path, reading)
    if path.suffix.lower() == ".npz":
        return _from_table(path, read_npz(path), task)
    if name_or_path not in _BUNDLED:
        raise ValueError(_unknown(name_or_path, path))
    if task != "auto":
        raise ValueError(f"--task is about a file of yours; {name_or_path!r} is what it is.")
    return _BUNDLED[name_or_path](name_or_path)


def _refuse_reading(name: str, reading: Reading) -> None:
    said = [n for n, a, b in zip(Reading._fields, reading, AS_FOUND) if a != b]
    if said:
        option = said[0].replace("_", "-")
        raise ValueError(f"--{option} is about a .csv file, and {name!r} is none.")


def _unknown(name: str, path: Path) -> str:
    if path.is_file():
        return f"{name!r} is a file of unknown type {path.suffix!r}; give a .csv or an .npz."
    hint, known = did_you_mean(name.lower(), _BUNDLED), ", ".join(sorted(_BUNDLED))
    return f"unknown data set {name!r}{hint} There are {known}; or give the path of a .csv or .npz."


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
    return made._replace(X=(made.X / 16).astype(np.float32), image_shape=(8, 8, 1))


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
    y, problems = table.y, table.problems
    assert y is not None
    text = y.dtype.kind in "SU"
    if not text and not np.isfinite(y.astype(np.float32)).all():
        problems.stop()
    kinds, codes = np.unique(y.astype(str) if text else y.astype(float), return_inverse=True)
    if len(kinds) < 2:
        problems.add(f"the target is {kinds[0]!s} in every row; nothing can be learnt.")
    few = len(kinds) <= min(_MOST_CLASSES, len(y) // 2)
    whole = not text and bool((kinds == np.round(kinds)).all())
    if text:
        problems.add(_no_classes(table, kinds.tolist(), task))
    elif task == "auto" and whole and not few and len(kinds) <= len(y) // 2:
        problems.add(
            f"the target {table.target!r} holds whole numbers of {len(kinds)} different values, which can "
            "be classes or a quantity. Give --task classification or --task regression."
        )
    problems.stop()
    made = Dataset(path.stem, table.X, y, "regression", None, table.feature_names)
    made = made._replace(**{name: getattr(table, name) for name in _AS_READ})
    if task == "classification" or (task == "auto" and (text or (whole and few))):
        names = tuple(kinds.tolist() if text else map(_label, kinds))
        return made._replace(
            y=codes.astype(np.int32),
            task="classification",
            n_classes=len(kinds),
            class_names=names,
        )
    return made._replace(y=y.astype(np.float64))


_AS_READ = ("target", "categories", "image_shape", "in_bytes", "groups", "times")


def _label(number: float) -> str:
    return str(int(number)) if number == round(number) else repr(float(number))


def _no_classes(table: Table, kinds: list[str], task: str) -> str | None:
    """Why text is no class: too many values of it, or numbers but for some slips."""
    y = table.y
    assert y is not None
    slips = [k for k in kinds if np.isnan(number(k))]
    n_numbers = sum(not np.isnan(number(k, ",")) for k in kinds)
    if slips and task != "classification" and (n_numbers > _MOST_CLASSES or task == "regression"):
        where = np.flatnonzero(np.isin(y, slips)).tolist()
        texts = [f"{table.unit} {table.where[i]}" for i in where]
        return (
            f"the target has {n_numbers} distinct numbers, which is a quantity, but {some(texts, 3)} holds "
            f"text: {str(y[where[0]])!r}. Correct or remove it{comma_hint(slips)}; if these are classes "
            "after all, give --task classification."
        )
    if len(kinds) > max(_MOST_CLASSES, len(y) // 2):
        return (
            f"the target is text with {len(kinds)} distinct values in {len(y)} rows, which cannot be "
            "classes. Name another column as the target."
        )
    return None


# --- other files with the same columns --------------------------------------------------------------


class Rows(NamedTuple):
    """Rows of another file; y is None if it has no targets."""

    X: np.ndarray
    y: np.ndarray | None
    unit: str
    where: tuple[int, ...]
    unseen: dict[str, int]  # columns of text: in how many rows is a value that was not learnt from


def read_like(name: str, like: Dataset, reading: Reading, targets: bool) -> Rows:
    """The rows of another file of the same kind as the one that was learnt from.

    Args:
      name: the path of a .csv or .npz.
      like: what was learnt from; its rows do not matter.
      reading: how a .csv is to be read.
      targets: whether there must be some.

    Raises:
      ValueError: the file is no such file; columns or targets are missing, or there are other classes.
    """
    path = Path(name)
    if path.suffix.lower() == ".csv":
        table = read_csv_like(path, like.feature_names, like.categories, like.target, reading)
    elif path.suffix.lower() == ".npz":
        table = read_npz(path, targets)
        _check_arrays(path, table, like)
    else:
        raise ValueError(f"{name!r}: give a .csv or an .npz.")
    problems, y = table.problems, table.y
    if targets and y is None:
        problems.add(f"there is no target column {like.target!r}.")
    elif y is not None:
        y = _as_learnt(table, like, reading.decimal)
    problems.stop()
    hot = [(j, c) for j, c in enumerate(like.feature_names) if c in like.categories]
    unseen = {c: int(np.isnan(table.X[:, j]).sum()) for j, c in hot}
    found = {c: k for c, k in unseen.items() if k}
    return Rows(table.X, y, table.unit, tuple(table.where), found)


def _check_arrays(path: Path, table: Table, like: Dataset) -> None:
    """An array has no names of columns, but it has a shape, and bytes are not shares of 255."""
    shape = table.image_shape or table.X.shape[1]
    learnt = like.image_shape or len(like.feature_names)
    if shape != learnt:
        raise ValueError(f"{path}: a row of X has the shape {shape}, and {learnt} was learnt from.")
    if table.in_bytes != like.in_bytes:
        have, need = ("bytes", "other numbers")[:: 1 if table.in_bytes else -1]
        raise ValueError(f"{path}: X holds {have}, and the model learnt from {need}.")


def _as_learnt(table: Table, like: Dataset, decimal: str) -> np.ndarray:
    """The targets as numbers of classes, or as quantities."""
    y, problems = table.y, table.problems
    assert y is not None
    if like.task == "regression":
        text = y.dtype.kind in "SU"
        numbers = np.array([number(v, decimal) if text else v for v in y.tolist()], np.float64)
        bad = np.flatnonzero(~np.isfinite(numbers)).tolist()
        if bad:
            problems.add(
                f"the target must be a number, and is {str(y[bad[0]])!r} in {table.unit} "
                f"{some([table.where[i] for i in bad], 3)}."
            )
        return numbers
    codes = {name: i for i, name in enumerate(like.class_names)}
    names = [_name(v, codes) for v in y.tolist()]
    others = sorted({n for n in names if n not in codes})
    if others:
        problems.add(
            f"the target has the classes {some(others)}, and those that were learnt are "
            f"{some(like.class_names)}."
        )
    return np.array([codes.get(n, 0) for n in names], np.int32)


def _name(value: Any, known: Mapping[str, int]) -> str:
    """What a class is called that may be written as text or as a number."""
    if isinstance(value, str):
        return value if value in known or np.isnan(number(value)) else _label(number(value))
    return _label(float(value))
