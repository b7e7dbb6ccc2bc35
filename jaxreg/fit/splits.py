"""Folds as arrays of fixed shape, so that one program serves them all, from whatever a user gives.

A fold is two lists of rows, padded to common lengths, and how often each row counts in both. How far the
folds are independent draws decides what their spread says of the mean:

- Folds that validate on different rows: SE = sd / sqrt(F).
- R repeats of k folds judge on the same rows R times: SE^2 is the mean over the repeats of sd_r^2 / k.
- Folds that train on different rows, whatever they are judged on, are as many draws: SE = sd / sqrt(F).
- Other overlapping folds, such as random splits: SE^2 = (1/F + m_valid / m_train) sd^2.
  Source: Nadeau & Bengio, Inference for the generalization error (2003), section 4.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxreg._quickly import quickly
from jaxreg.fit.folds import Folds

__all__ = ["FoldTable", "Splits", "make_splits"]

_WAYS = (
    "Give an int; jaxreg.folds(n, ...) for stratified, grouped, time-ordered and repeated ones; one number "
    "or name for every row; or pairs (train rows, validation rows), as list(splitter.split(X, y, groups)) "
    "has them."
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FoldTable:
    """F folds over n rows."""

    rows: Any  # int [F, m]: rows to train on, padded
    count: Any  # int [F]: how many of them are real
    valid: Any  # int [F, v]: rows to validate on, padded
    times: Any  # uint [F, n, 2]: how often each row is trained on and validated on
    kind: Any  # int [F]: which pair of sizes each has, of `Splits.sizes`


class Splits(NamedTuple):
    """Folds, and what is static about them."""

    table: FoldTable
    sizes: tuple[tuple[int, int], ...]  # the different (training, validation) sizes
    repeats: int  # of all folds, one after the other
    overlap: float  # validation over training rows, where folds overlap otherwise

    @property
    def fewest(self) -> int:
        """The smallest number of training rows of any fold."""
        return int(self.table.count.min())

    @property
    def equal(self) -> bool:
        """Whether all folds have the same number of training rows."""
        return len({train for train, _ in self.sizes}) == 1


def make_splits(folds: Any, n: int, n_valid: int, key: jax.Array) -> Splits:
    """Folds from what a user may give.

    Args:
      folds: an int (that many random folds of equal size; up to folds - 1 leftover rows are always
        trained on), a `Folds`, one number or name for each of the n rows (-1: always trained on), or
        pairs (train rows, validation rows), as numbers or as boolean masks. None: train on the first n
        rows and validate on the n_valid after them.
      n: rows of the data.
      n_valid: rows of separate validation data, which follow the n rows.
      key: for the random folds.

    Raises:
      ValueError: what is given makes no folds of these rows. TypeError: it is of no such kind.
    """
    if folds is None:
        if not n_valid:
            raise ValueError(
                "sweep: there is nothing to validate on; give `folds` (such as folds=5) or "
                "`validation`, a tuple of arrays like `data`."
            )
        return _splits([(np.arange(n), np.arange(n, n + n_valid))], n + n_valid, 1)
    if n_valid:
        raise ValueError("sweep: give either `folds` or `validation`, not both.")
    if isinstance(folds, (int, np.integer)) and not isinstance(folds, bool):
        return _splits(_random(int(folds), n, key), n, 1)
    if isinstance(folds, Folds) and folds.n != n:
        raise ValueError(f"sweep: `folds` splits {folds.n} rows, and there are {n}.")
    labels = _labels(folds, n)
    if labels is not None:
        return _splits(_by_label(labels), n, 1)
    return _splits(_pairs(folds, n), n, folds.repeats if isinstance(folds, Folds) else None)


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


# --- one number or name for each row --------------------------------------------------------------


def _labels(folds: Any, n: int) -> np.ndarray | None:
    """The array of a fold for each row, if that is what `folds` is."""
    if isinstance(folds, (Folds, dict, str, bytes)) or not hasattr(folds, "__len__"):
        return None
    if not _all_scalars(folds):
        return None
    labels = np.asarray(folds)
    if labels.dtype == object:
        missing = [i for i, x in enumerate(labels) if x is None or x != x]
        if missing:
            raise ValueError(f"sweep: `folds` has no name for row {missing[0]}; name every row.")
        labels = np.asarray([str(x) for x in labels])
    if labels.shape != (n,):
        raise ValueError(
            f"sweep: `folds` as an array must have one number or name for each of the {n} rows, got "
            f"shape {list(labels.shape)}."
        )
    if labels.dtype.kind == "b":
        raise TypeError(
            "sweep: `folds` is one boolean mask, which does not say whether it means training or "
            "validation rows; give folds=[(train, valid)], such as [(~mask, mask)]."
        )
    if labels.dtype.kind == "f" and not (labels == labels.astype(int)).all():
        raise ValueError(
            f"sweep: `folds` as an array must hold whole numbers or names, got {labels.dtype} with "
            f"{labels[labels != labels.astype(int)][0]}."
        )
    return labels.astype(int) if labels.dtype.kind == "f" else labels


def _all_scalars(folds: Any) -> bool:
    if isinstance(folds, (np.ndarray, jax.Array)):
        return folds.ndim == 1
    return all(x is None or isinstance(x, (str, int, float, np.generic)) for x in folds)


def _by_label(labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    names = np.unique(labels)
    if labels.dtype.kind in "iu":
        names = names[names >= 0]
    pairs = [(np.flatnonzero(labels != f), np.flatnonzero(labels == f)) for f in names]
    if any(not len(train) for train, _ in pairs):
        raise ValueError(
            f"sweep: `folds` names one fold, {names[0]!s}, for all {len(labels)} rows; there is nothing to "
            "train on. Name at least two."
        )
    return pairs


# --- pairs of rows ----------------------------------------------------------------------------------


def _pairs(folds: Any, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    if hasattr(folds, "split") or isinstance(folds, (dict, str, bool)) or not _iterable(folds):
        splitter = hasattr(folds, "split") and not isinstance(folds, str)
        what = f"a {type(folds).__name__}" if splitter else repr(folds)[:60]
        raise TypeError(f"sweep: `folds` must say which rows each fold has, got {what}. {_WAYS}")
    given = list(folds)
    if len(given) == 2 and isinstance(folds, tuple) and all(np.ndim(x) == 1 for x in given):
        given = [given]  # one split, and the brackets around it forgotten
    pairs = []
    for f, pair in enumerate(given):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            kind = type(pair).__name__
            raise TypeError(f"sweep: fold {f} of `folds` is no pair of rows but a {kind}. {_WAYS}")
        pairs.append(tuple(_rows(f, rows, n) for rows in pair))
    for f, (train, valid) in enumerate(pairs):
        both = np.intersect1d(train, valid)
        if both.size:
            raise ValueError(
                f"sweep: fold {f} of `folds` trains on a row it validates on, got {both.size} of its "
                f"{len(np.unique(valid))} validation rows among those to train on, the first is row "
                f"{int(both[0])}; its score would be too good. Leave them out of one of the two."
            )
    return pairs


def _iterable(x: Any) -> bool:
    return hasattr(x, "__iter__") or hasattr(x, "__getitem__")


def _rows(f: int, rows: Any, n: int) -> np.ndarray:
    """Numbers of rows; a mask of all rows means those where it is true."""
    array = np.asarray(rows)
    if array.ndim == 1 and array.dtype.kind == "b":
        if array.shape != (n,):
            raise ValueError(
                f"sweep: a mask in fold {f} of `folds` has {len(array)} entries, and there are {n} rows."
            )
        array = np.flatnonzero(array)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise TypeError(
            f"sweep: fold {f} of `folds` must hold row numbers or boolean masks, got {array.dtype} of "
            f"shape {list(array.shape)}."
        )
    if not array.size or array.min() < 0 or array.max() >= n:
        raise ValueError(
            f"sweep: fold {f} of `folds` must have at least one row to train on and one to "
            f"validate on, all between 0 and {n - 1}."
        )
    return array.astype(np.int32)


# --- as arrays --------------------------------------------------------------------------------------


def _splits(pairs: Sequence[tuple], n: int, repeats: int | None) -> Splits:
    if not pairs:
        raise ValueError("sweep: `folds` is empty; give at least one fold.")
    counts = [(len(train), len(valid)) for train, valid in pairs]
    sizes = tuple(sorted(set(counts)))
    times = np.zeros((len(pairs), n, 2), np.uint16)
    for f, pair in enumerate(pairs):
        for split, rows in enumerate(pair):
            np.add.at(times[f, :, split], rows, 1)
    table = FoldTable(
        _padded([train for train, _ in pairs]),
        np.array([train for train, _ in counts], np.int32),
        _padded([valid for _, valid in pairs]),
        times,
        np.array([sizes.index(c) for c in counts], np.int32),
    )
    found = _repeats(pairs) if repeats is None else repeats
    overlap = float(np.mean([v / t for t, v in counts])) if found is None else 0.0
    return Splits(table, sizes, found or 1, overlap)


def _padded(lists: Sequence[np.ndarray]) -> np.ndarray:
    rows = np.zeros((len(lists), max(map(len, lists))), np.int32)
    for f, some in enumerate(lists):
        rows[f, : len(some)] = some
    return rows


def _repeats(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> int | None:
    """How often the folds split the same rows anew; None where they overlap in another way.

    Folds that train on different rows and are judged on the same ones are so many draws of one fold.
    """
    valid = [rows for _, rows in pairs]
    parts = [frozenset(rows.tolist()) for part in _runs(valid) for rows in [np.concatenate(part)]]
    lengths = {len(part) for part in _runs(valid)}
    alike = len(lengths) == 1 and len(set(parts)) == 1
    if len(parts) == 1:
        return 1
    if alike and lengths != {1}:
        return len(parts)
    trained = np.concatenate([np.unique(rows) for rows, _ in pairs])
    return len(pairs) if len(np.unique(trained)) == len(trained) else None


def _runs(valid: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """The folds cut where one validates on a row that one since the last cut has validated on."""
    run: list[np.ndarray] = []
    seen: set[int] = set()
    for rows in valid:
        mine = set(rows.tolist())
        if run and seen & mine:
            yield run
            run, seen = [], set()
        run.append(rows)
        seen |= mine
    yield run
