"""Where to search: a factory of points, and a range for each of its arguments."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxreg._check import misfit
from jaxreg._tree import PyTree
from jaxreg.grid import Grid, points
from jaxreg.penalty import Penalty

__all__ = ["Space", "space"]


@dataclasses.dataclass(frozen=True, repr=False)
class Space:
    """Where to search: a factory of points, and a range for each of its arguments.

    Arguments that are `tied` to a range have its value.
    """

    make: Callable[..., PyTree]
    ranges: dict[str, tuple[float, float]]
    tied: dict[str, str] = dataclasses.field(default_factory=dict)

    def at(self, logs: Sequence[Sequence[float]]) -> Grid:
        """Points at logarithms of the coordinates, one row each."""
        columns = dict(zip(self.ranges, np.exp(np.asarray(logs, float)).T))
        columns |= {name: columns[to] for name, to in self.tied.items()}
        return points(self.make, **columns)

    def as_one(self) -> Space | None:
        """The same with all strengths of penalties equal; None where there are not several."""
        low, high = np.log(np.array(list(self.ranges.values()), float)).T
        middle = 0.5 * (low + high)
        strong = self.at([middle, *(middle + np.diag(high - middle))]).strengths
        if len(strong) < 2:
            return None
        first, *rest = strong
        span = [end for name in strong for end in self.ranges[name]]
        ranges = {n: r for n, r in self.ranges.items() if n not in rest}
        return Space(
            self.make, ranges | {first: (min(span), max(span))}, dict.fromkeys(rest, first)
        )

    def middle(self) -> PyTree:
        """The point at the geometric middle."""
        return self.at([[0.5 * (math.log(a) + math.log(b)) for a, b in self.ranges.values()]])[0]

    def __repr__(self) -> str:
        name = getattr(self.make, "__name__", type(self.make).__name__)
        spans = [f"{n}={low:g} … {high:g}" for n, (low, high) in self.ranges.items()]
        return f"Space({', '.join([name, *spans])})"


def space(make: Callable[..., PyTree], **ranges: tuple[float, float]) -> Space:
    """A space of points to search, its coordinates on a logarithmic scale.

    Args:
      make: a function of the coordinates that returns the point, as for `grid`.
      ranges: name -> (low, high), 0 < low < high: where to begin; a search goes on beyond an end that is
        best.

    Raises:
      TypeError: `make` is no function, or a range is no pair. ValueError: a range is empty or reaches 0, or
        what `points` refuses at its middle.

    >>> import jaxreg as jr
    >>> jr.space(jr.l1, lam=(1e-4, 1.0))
    Space(l1, lam=0.0001 … 1)
    """
    if not callable(make) or isinstance(make, Penalty):
        raise TypeError(f"space: `make` must be a function of the coordinates, got {make!r:.80}.")
    if not ranges:
        raise ValueError("space: give at least one range by name, such as lam=(1e-5, 1.0).")
    if why := misfit(make, **dict.fromkeys(ranges, 1.0)):
        raise TypeError(
            f"space: `make` must take the ranges {', '.join(ranges)} by name, got {make!r:.80}: {why}."
        )
    made = Space(make, {name: _range(name, value) for name, value in ranges.items()})
    made.middle()  # whose errors are those of `points`
    return made


def _range(name: str, value: Any) -> tuple[float, float]:
    example = f"a pair (low, high) with 0 < low < high, such as {name}=(1e-5, 1.0)"
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        raise TypeError(f"space: `{name}` must be {example}, got {value!r:.80}.") from None
    if not 0 < low < high < math.inf:
        raise ValueError(
            f"space: `{name}` must be {example}, got {value!r:.80}. The scale is logarithmic: compare with "
            "0 by a sweep of its own."
        )
    return low, high
