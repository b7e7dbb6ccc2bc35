"""Folds for data as people have them: random, stratified, grouped, in time, in blocks, and repeated.

A fold is a pair (rows to train on, rows to validate on). Rows of one group, such as the measurements of
one patient, stay together; what comes later in time is never trained on to judge what came before; a gap
keeps rows apart that know of each other. Nothing of this is in the program that trains: see splits.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxreg._check import count, flag
from jaxreg.fit.classes import check_classes

__all__ = ["Folds", "folds"]


class Folds(Sequence):
    """Pairs (train rows, validation rows), and how many times all rows were split anew.

    It is a sequence of pairs, as scikit-learn's `cv=` takes one too.

    Attributes:
      n: how many rows were split.
      repeats: R; the folds of one repeat follow each other.
      how: in words.
    """

    def __init__(
        self, n: int, pairs: Sequence[tuple[np.ndarray, np.ndarray]], repeats: int, how: str
    ):
        self._pairs = tuple(pairs)
        self.n, self.repeats, self.how = n, repeats, how

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, i: Any) -> Any:
        return self._pairs[i]

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return iter(self._pairs)

    def __repr__(self) -> str:
        k = len(self) // self.repeats
        again = f", {self.repeats} times" if self.repeats > 1 else ""
        train, valid = ([len(pair[i]) for pair in self] for i in (0, 1))
        return f"{k} folds{again}, {self.how}: {_span(train)} rows train, {_span(valid)} validate"


def folds(
    n: int,
    k: int = 5,
    *,
    y: Any = None,
    groups: Any = None,
    times: Any = None,
    blocks: bool = False,
    repeats: int = 1,
    gap: int = 0,
    seed: int = 0,
) -> Folds:
    """k folds of n rows, for the `folds` of a sweep.

    Args:
      n: how many rows there are.
      k: how many folds; each row is validated on once in a repeat, but for the first of `times`.
      y: [n] stratify: each fold gets its share of every class or, of floating numbers, of small, middle
        and large ones.
      groups: [n] names or numbers; the rows of a group stay in one fold. With `y` the classes are
        balanced as well as whole groups allow.
      times: [n] of any kind that sorts; each fold is validated on what follows its training rows, which
        grow from fold to fold. Rows of equal time stay together.
      blocks: whether folds are runs of neighbouring rows, in the order of `times` if given; training
        rows then lie on both sides.
      repeats: how many times all rows are split anew, for random, stratified and grouped folds. Scores
        then vary less by the luck of the split; their standard error is that of one split, since all
        repeats judge on the same rows.
      gap: rows left out between training and validation rows, with `times` or `blocks`.
      seed: of the random splits.

    Raises:
      ValueError: a number is out of range, lengths differ, there are fewer groups or times than folds,
        arguments contradict each other, or a fold has no row of a class of `y` to train on that it is
        judged on. TypeError: a number is none.

    Sources: Arlot & Celisse, A survey of cross-validation procedures (2010), sections 4 and 8.

    >>> folds(10, 5)
    5 folds, random: 8 rows train, 2 validate
    >>> folds(7, 2, groups=["a", "a", "a", "b", "b", "c", "c"])
    2 folds, whole groups: 3 … 4 rows train, 3 … 4 validate
    >>> [(train.tolist(), valid.tolist()) for train, valid in folds(6, 2, times=range(6), gap=1)]
    [([0], [2, 3]), ([0, 1, 2], [4, 5])]
    """
    n, k = count("folds", "n", n, 2), count("folds", "k", k, 2)
    repeats, gap = count("folds", "repeats", repeats), count("folds", "gap", gap, 0)
    seed = count("folds", "seed", seed, 0)
    flag("folds", "blocks", blocks)
    if k > n:
        raise ValueError(f"folds: `k` must be at most the {n} rows there are, got {k}.")
    columns = {"y": y, "groups": groups, "times": times}
    y, groups, times = (_column(name, values, n) for name, values in columns.items())
    in_order = blocks or times is not None
    _check_together(in_order, y, groups, repeats, gap)
    if blocks:
        return Folds(n, _blocks(_order(times, n), k, gap), 1, "in blocks")
    if times is not None:
        return Folds(n, _forward(times, k, gap), 1, "in time")
    rng, pairs = np.random.default_rng(seed), []
    for _ in range(repeats):
        number = _numbers(rng, n, k, y, groups)
        pairs += [(np.flatnonzero(number != f), np.flatnonzero(number == f)) for f in range(k)]
    if y is not None:
        check_classes("folds", pairs, y, groups is not None)
    kinds = {"stratified": y is not None, "whole groups": groups is not None}
    return Folds(n, pairs, repeats, ", ".join(w for w, on in kinds.items() if on) or "random")


def _numbers(rng: Any, n: int, k: int, y: Any, groups: Any) -> np.ndarray:
    """The fold of each row."""
    if groups is not None:
        return _grouped(rng, k, groups, y)
    shuffled = rng.permutation(n)
    order = shuffled if y is None else shuffled[np.argsort(y[shuffled], kind="stable")]
    number = np.empty(n, int)
    number[order] = _dealt(rng, n, k, y is not None and y.dtype.kind == "f")
    return number


def _dealt(rng: Any, n: int, k: int, mixed: bool) -> np.ndarray:
    """0, …, k - 1 in turn; mixed within each turn, lest fold 0 have the smallest of every turn."""
    if not mixed:
        return np.arange(n) % k
    return np.concatenate([rng.permutation(k) for _ in range(-(-n // k))])[:n]


def _grouped(rng: Any, k: int, groups: np.ndarray, y: np.ndarray | None) -> np.ndarray:
    """Greedy: the largest group first, to where classes and sizes are then most even."""
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < k:
        raise ValueError(
            f"folds: `groups` has {len(names)} group{'s' * (len(names) > 1)}, and {k} folds need at least "
            f"{k}: the rows of a group stay together. Give fewer folds, or finer groups."
        )
    label = np.zeros(len(group), int) if y is None else _classes(y)
    counts = np.zeros((len(names), label.max() + 1))
    np.add.at(counts, (group, label), 1)
    share = counts / counts.sum(0)
    first = rng.permutation(len(names))
    order = first[np.argsort(-counts[first].sum(1), kind="stable")]
    held = np.zeros((k, counts.shape[1]))
    fold = np.empty(len(names), int)
    for i, g in enumerate(order):
        # Of what would be left uneven; the last groups must not leave a fold empty.
        empty = np.flatnonzero(held.sum(1) == 0)
        among = empty if len(empty) >= len(order) - i else np.arange(k)
        uneven = [np.var(held + np.eye(k)[:, f : f + 1] * share[g], axis=0).sum() for f in among]
        fold[g] = among[int(np.argmin(uneven))]
        held[fold[g]] += share[g]
    return fold[group]


def _classes(y: np.ndarray) -> np.ndarray:
    """Classes as 0, 1, …; floating numbers by their fifths."""
    if y.dtype.kind == "f" and len(np.unique(y)) > 10:
        return np.searchsorted(np.quantile(y, [0.2, 0.4, 0.6, 0.8]), y)
    return np.unique(y, return_inverse=True)[1]


def _order(times: np.ndarray | None, n: int) -> np.ndarray:
    return np.arange(n) if times is None else np.argsort(times, kind="stable")


def _blocks(order: np.ndarray, k: int, gap: int) -> list[tuple[np.ndarray, np.ndarray]]:
    cuts = np.linspace(0, len(order), k + 1).round().astype(int)
    pairs = []
    for a, b in itertools.pairwise(cuts):
        train = np.concatenate([order[: max(a - gap, 0)], order[b + gap :]])
        pairs.append((np.sort(train), np.sort(order[a:b])))
    return _not_empty(pairs, gap)


def _forward(times: np.ndarray, k: int, gap: int) -> list[tuple[np.ndarray, np.ndarray]]:
    order, moments = np.argsort(times, kind="stable"), np.unique(times)
    if len(moments) <= k:
        raise ValueError(
            f"folds: `times` has {len(moments)} different moments, and {k} folds in time need at least "
            f"{k + 1}: one to train on first. Give fewer folds, or finer times."
        )
    # Cuts where the time changes, as near to equal parts as that allows, and each later than the last.
    changes = np.flatnonzero(times[order][1:] != times[order][:-1]) + 1
    cuts: list[int] = []
    for j in range(1, k + 1):
        left = changes[np.searchsorted(changes, cuts[-1], side="right") if cuts else 0 :]
        left = left[: len(left) - (k - j)]
        cuts.append(int(left[np.abs(left - len(order) * j / (k + 1)).argmin()]))
    ends = [*cuts[1:], len(order)]
    pairs = [(np.sort(order[: max(a - gap, 0)]), np.sort(order[a:b])) for a, b in zip(cuts, ends)]
    return _not_empty(pairs, gap)


def _not_empty(pairs: list, gap: int) -> list:
    for f, (train, _) in enumerate(pairs):
        if not len(train):
            raise ValueError(
                f"folds: a `gap` of {gap} leaves fold {f} no row to train on. Give a smaller gap or fewer "
                "folds."
            )
    return pairs


def _column(name: str, values: Any, n: int) -> np.ndarray | None:
    if values is None:
        return None
    array = np.asarray(values)
    if array.shape != (n,):
        raise ValueError(
            f"folds: `{name}` must have one value for each of the {n} rows, got shape "
            f"{list(array.shape)}."
        )
    if array.dtype == object:
        missing = [i for i, x in enumerate(array) if x is None or x != x or str(x) == "<NA>"]
        if missing:
            raise ValueError(
                f"folds: `{name}` is missing in {len(missing)} of {n} rows, the first is row "
                f"{missing[0]}. Fill them in, or leave these rows out."
            )
        array = np.asarray([str(x) for x in array])
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(
            f"folds: `{name}` has NaN in {int(np.isnan(array).sum())} of {n} rows, the first is row "
            f"{int(np.isnan(array).argmax())}. Fill them in, or leave these rows out."
        )
    return array


def _check_together(in_order: bool, y: Any, groups: Any, repeats: int, gap: int) -> None:
    if in_order:
        odd = {"y": y is not None, "groups": groups is not None, "repeats": repeats > 1}
        name = next((name for name, given in odd.items() if given), None)
        if name is not None:
            raise ValueError(
                f"folds: `{name}` is for folds in any order, `times` and `blocks` are for folds in theirs; "
                "give one of both."
            )
    elif gap:
        raise ValueError(
            f"folds: a `gap` of {gap} lies between rows in an order; give `times`, or blocks=True for the "
            "order that the rows have."
        )


def _span(sizes: list[int]) -> str:
    low, high = min(sizes), max(sizes)
    return str(low) if low == high else f"{low} … {high}"
