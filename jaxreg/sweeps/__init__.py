"""Whole experiments over penalties as one compiled program; public as `jaxreg.NAME`."""

from jaxreg.sweeps.callbacks import Callback, Evaluation, Setup
from jaxreg.sweeps.grid import Grid, grid, map_penalties
from jaxreg.sweeps.halving import Halving
from jaxreg.sweeps.sweep import Interrupted, sweep
from jaxreg.sweeps.trackers import MLflow, TensorBoard, WandB

__all__ = [
    "Callback",
    "Evaluation",
    "Grid",
    "Halving",
    "Interrupted",
    "MLflow",
    "Setup",
    "TensorBoard",
    "WandB",
    "grid",
    "map_penalties",
    "sweep",
]
