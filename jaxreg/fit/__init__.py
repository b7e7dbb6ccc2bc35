"""One training: the trainer, its stream of batches, folds, and `fit`; public as `jaxreg.NAME`."""

from jaxreg.fit.folds import folds
from jaxreg.fit.single import fit
from jaxreg.fit.source import stream
from jaxreg.fit.trainer import Trainer, TrainState

__all__ = ["TrainState", "Trainer", "fit", "folds", "stream"]
