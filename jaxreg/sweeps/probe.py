"""What only running a user's functions tells of a sweep: asked once, when lanes are to be trained."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from jax import Array

from jaxreg._tree import PyTree
from jaxreg.fit import judge
from jaxreg.fit.batches import init_key
from jaxreg.fit.check import Checked, check_signs, trainer_at
from jaxreg.fit.rounding import lost_steps
from jaxreg.fit.single import notes_on
from jaxreg.fit.trainer import MakeTrainer
from jaxreg.grid import Grid
from jaxreg.sweeps.certify import Certify, certify
from jaxreg.sweeps.program import Spec
from jaxreg.sweeps.rows import Rows

__all__ = ["Probe"]


@dataclasses.dataclass(eq=False)
class Probe:
    """The questions, and the warnings that came of them.

    Args:
      trainer: the function of the point.
      grid: the points.
      rows: what the sweep is of.
      checked: what traces told.
      data: concrete rows.
      numbers: what was prepared for one fold.
      key: the sweep's.
      padded: whether full batches are filled up.
      stationarity: whether a certificate was asked for.
    """

    trainer: MakeTrainer
    grid: Grid
    rows: Rows
    checked: Checked
    data: tuple
    numbers: PyTree
    key: Array
    padded: bool
    stationarity: bool

    def __post_init__(self) -> None:
        # The last point: the first may have λ = 0, in which no coupling shows.
        self.point = self.grid[len(self.grid) - 1]
        self.warnings = notes_on(self.checked, self.point)

    def filled_in(self, spec: Spec) -> Spec:
        """The spec with the ways in which the measures are called.

        Raises:
          ValueError: the optimizer applies the penalty with the wrong sign, or a loss or metric cannot be
            judged as it is.
        """
        return dataclasses.replace(spec, **self._found)

    @functools.cached_property
    def certify(self) -> Certify:
        """How a certificate is made."""
        return certify(
            self.trainer, self.point, self.checked.state, self.rows, self.key, self.numbers
        )

    @functools.cached_property
    def _found(self) -> dict[str, Any]:
        check_signs("sweep", self.trainer, self.point, self.checked)
        splits = self.rows.splits
        ways = judge.find_ways(
            "sweep", self.trainer, self.point, self.data, self.key,
            weighted=self.rows.weights is not None, padded=self.padded, numbers=self.numbers,
        )  # fmt: skip
        judge.check_sizes(
            "sweep", trainer_at("sweep", self.trainer, self.point), ways, splits.sizes
        )
        if self.stationarity:
            _ = self.certify  # which refuses what has none
        self.warnings += lost_steps(
            "sweep", self.trainer, self.grid.points, self.checked.state, init_key(self.key, 0),
            self.numbers,
        )  # fmt: skip
        by_rows = any(way == "whole" for _, way in ways)
        return {"ways": ways, "sizes": splits.sizes if by_rows else ()}
