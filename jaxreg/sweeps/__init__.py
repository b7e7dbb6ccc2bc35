"""Whole experiments over penalties as one compiled program; public as `jaxreg.NAME`."""

from jaxreg.sweeps.grid import Grid, grid, map_penalties
from jaxreg.sweeps.sweep import sweep

__all__ = ["Grid", "grid", "map_penalties", "sweep"]
