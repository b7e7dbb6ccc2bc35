"""What is wrong with a file, all of it at once: nobody wants to hear of one thing after the other."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

__all__ = ["Problems", "did_you_mean", "not_finite", "some", "unknown"]


class Problems:
    """Collected while a file is read.

    >>> problems = Problems(Path("a.csv"))
    >>> problems.add("line 3 has 1 cell of 2.")
    >>> problems.stop()
    Traceback (most recent call last):
    ...
    ValueError: a.csv: line 3 has 1 cell of 2.
    """

    def __init__(self, path: Path):
        self.path = path
        self.found: list[str] = []

    def add(self, text: str | None) -> None:
        """Note a problem; None is none."""
        if text:
            self.found.append(text)

    def stop(self) -> None:
        """Raise a ValueError that lists what was found, if anything was."""
        if len(self.found) == 1:
            raise ValueError(f"{self.path}: {self.found[0]}")
        if self.found:
            lines = "".join(f"\n- {text}" for text in self.found)
            raise ValueError(f"{self.path}: there are {len(self.found)} problems.{lines}")


def not_finite(
    X: np.ndarray, names: Sequence[str], unit: str, where: Sequence[int], remedy: str
) -> str | None:
    """Which columns of X [n, d] hold what is no number of float32, and where."""
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(X.astype(np.float32))
    if not bad.any():
        return None
    found = [
        f"{names[j]} ({unit} {some([where[int(i)] for i in np.flatnonzero(bad[:, j])], 3)})"
        for j in map(int, np.flatnonzero(bad.any(0)))
    ]
    return f"there are missing, NaN or infinite values in {some(found)}. {remedy}"


def unknown(name: str, known: Sequence[str], what: str) -> str:
    """That there is no such column, and which one may be meant."""
    return f"there is no {what} {name!r}{did_you_mean(name, known)} The columns are {some(known)}."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that says that there is no such name: the nearest one, if any is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else "."


def some(items: Sequence, most: int = 6) -> str:
    """The first few items as text, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more
