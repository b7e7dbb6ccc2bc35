"""Rows to judge by that are rows to train on: counted, and weighed against how often rows repeat anyway.

Two rows are equal where all their arrays are, targets too, in the precision that they are trained in. Where
rows hold few distinct values some meet by chance, and the data say how many: a row that is left out of them
has an equal one among the others with the share t. Of validation rows from the same source as many do. Were
a share c of them copied, c + (1 - c) t would, so of the share s that is seen

    c = (s - t) / (1 - t)

were copied. More than half are refused, fewer are told. Rows are compared by a hash of 64 bits and, where
that is equal, number by number: a linear hash with random odd factors (Dietzfelbinger et al. 1997), one
multiplication a number.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Known", "Met", "Overlap", "known", "overlap", "refuse_overlap"]

_WORDS = 1 << 22  # of 32 bits that are multiplied at once
_CERTAIN = 4.0  # standard deviations beyond what chance allows
_MUCH = 0.1  # share of rows from which on those that meet by chance are told too


class Known(tuple):
    """Rows to judge by that have been compared with those to train on, or are these and said to be."""


def known(rows: Any) -> Any:
    """`rows` as `Known`; what is no tuple is left to who refuses it."""
    return Known(rows) if isinstance(rows, (tuple, list)) else rows


class Overlap(NamedTuple):
    """How many of n rows to judge by are trained on."""

    shared: int
    n: int
    chance: float  # t, the share that would be without any copies
    first: tuple[int, int] = (0, 0)  # a row to judge by, and the row to train on that it equals

    @property
    def copied(self) -> float:
        """c, the share of rows that were copied; 0 where chance explains all."""
        expected = self.n * self.chance
        noise = np.sqrt(expected * (1 - self.chance))
        if self.shared <= expected + _CERTAIN * noise:
            return 0.0
        return (self.shared / self.n - self.chance) / (1 - self.chance)

    @property
    def too_many(self) -> bool:
        """Whether more than half were copied, of rows most of which are distinct."""
        return self.copied > 0.5 and self.chance < 0.5


def overlap(data: tuple, others: tuple) -> Overlap:
    """Of the rows of `others` those that are rows of `data`, arrays of equal structure.

    >>> x = np.arange(12.0).reshape(6, 2)
    >>> overlap((x, x[:, 0]), (x[[5, 0]] + [[0.0], [1.0]], x[[5, 0], 0]))
    Overlap(shared=1, n=2, chance=0.0, first=(0, 5))
    """
    mine, theirs = _on_host(data), _on_host(others)
    known, asked = _hashed(mine), _hashed(theirs)
    order = np.argsort(known, kind="stable")
    at = np.searchsorted(known[order], asked).clip(max=len(known) - 1)
    rows = order[at]
    likely = np.flatnonzero(known[rows] == asked)
    same = np.full(len(likely), True)
    for a, b in zip(mine, theirs):
        same &= (_words(a[rows[likely]]) == _words(b[likely])).all(1)
    equal = likely[same]
    _, times = np.unique(known, return_counts=True)
    chance = float(times[times > 1].sum() / len(known))
    first = (int(equal[0]), int(rows[equal[0]])) if equal.size else (0, 0)
    return Overlap(len(equal), len(asked), chance, first)


def refuse_overlap(
    owner: str, name: str, found: Overlap, of: str = "`data`", instead: str = ""
) -> list[str]:
    """What to tell of rows that are judged by and trained on.

    Args:
      owner: who asks, for errors.
      name: what holds the rows to judge by.
      found: what `overlap` counted.
      of: what holds the rows to train on.
      instead: what else to do, for the error.

    Raises:
      ValueError: more than half of the rows were copied, so that the score is that of training.
    """
    if not found.shared:
        return []
    many = f"{found.shared} of the {found.n} rows of {name} are rows of {of} too"
    where = f"the first is row {found.first[0]}, equal to row {found.first[1]}"
    remedy = "Leave them out of one of the two"
    if found.too_many:
        raise ValueError(
            f"{owner}: {name} must be rows that are not trained on, got {many}, {where}; the score would "
            f"be that of training. {remedy}{instead}."
        )
    if found.copied:
        return [f"{many}, {where}; their scores are too good. {remedy}."]
    if found.shared <= _MUCH * found.n:
        return []
    return [
        f"{many}, {where}, and {found.chance:.0%} of the rows of {of} equal another one there. Where rows "
        "hold few distinct values that is chance; where they were copied before they were split, scores "
        "are too good. Split first, and copy then."
    ]


class Met:
    """Rows to judge by, and which of them have come in batches to train on so far."""

    def __init__(self, rows: tuple):
        self._hashes = np.unique(hashes := _hashed(_on_host(rows)))
        self._times = np.bincount(np.searchsorted(self._hashes, hashes))
        self._met = np.zeros(len(self._hashes), bool)

    def look(self, batch: tuple) -> None:
        """Note the rows of a batch."""
        hashes = _hashed(_on_host(batch))
        at = np.searchsorted(self._hashes, hashes).clip(max=len(self._hashes) - 1)
        self._met[at[self._hashes[at] == hashes]] = True

    def warnings(self) -> list[str]:
        """How many have come, in words; rows that repeat among themselves may do so by chance."""
        n = int(self._times.sum())
        shared = int(self._times[self._met].sum())
        found = Overlap(shared, n, float(self._times[self._times > 1].sum() / n))
        if not shared or (not found.copied and shared <= _MUCH * n):
            return []
        return [
            f"{shared} of the {n} rows of `validation` came in the batches of the stream too; unless rows "
            "hold few distinct values, their scores are too good. Leave them out of one of the two."
        ]


# --- rows as numbers ----------------------------------------------------------------------------------


def _on_host(rows: tuple) -> list[np.ndarray]:
    keys = lambda x: jnp.issubdtype(getattr(x, "dtype", np.float32), jax.dtypes.prng_key)
    return [np.asarray(jax.random.key_data(x) if keys(x) else x) for x in jax.tree.leaves(rows)]


def _hashed(leaves: list[np.ndarray]) -> np.ndarray:
    """[n], of all arrays together, some rows at once, lest large data be held twice."""
    total = np.zeros(len(leaves[0]), np.uint64)
    rng = np.random.default_rng(0)
    for x in leaves:
        width = _words(x[:1]).shape[1]
        factors = rng.integers(2**64, size=width, dtype=np.uint64) | np.uint64(1)
        rows = max(_WORDS // max(width, 1), 1)
        for part in (slice(i, i + rows) for i in range(0, len(x), rows)):
            total[part] += _words(x[part]).astype(np.uint64) @ factors
    return total


def _words(x: np.ndarray) -> np.ndarray:
    """[n, words], unsigned integers of 32 bits that are equal where the numbers are."""
    plain = _plain(x)
    width = math.prod(plain.shape[1:])
    return np.ascontiguousarray(plain.reshape(len(x), width)).view(np.uint32)


def _plain(x: np.ndarray) -> np.ndarray:
    """In one dtype for each kind of number, the one that it is trained in."""
    if x.dtype.kind in "OUSM":  # text and dates, for `prepare`
        return np.array([hash(str(value)) for value in x.ravel()], np.int64).reshape(x.shape)
    if x.dtype.kind in "biu":
        return x.astype(np.int64)
    if x.dtype.kind == "c":
        return np.stack([_plain(np.real(x)), _plain(np.imag(x))], -1)
    wide = jnp.promote_types(jax.dtypes.canonicalize_dtype(x.dtype), np.float32)
    with np.errstate(over="ignore"):
        return x.astype(wide) + np.array(0, wide)  # -0 becomes 0
