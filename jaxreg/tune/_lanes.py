"""What methods that train lanes of their own share: draws from a key, and lanes that came to no end."""

from __future__ import annotations

import jax
import numpy as np
from jax import Array

from jaxreg.results import Status, SweepResult

__all__ = ["numpy_rng", "refuse_diverged"]


def numpy_rng(key: Array) -> np.random.Generator:
    """numpy's generator, for draws on the host, from a key of jax."""
    return np.random.default_rng(np.asarray(jax.random.bits(key, (2,))).tolist())


def refuse_diverged(owner: str, result: SweepResult, point: int | slice = slice(None)) -> None:
    """Refuse trainings that diverged, of a point or of all, of which a mean would be taken.

    Raises:
      ValueError: there is one.
    """
    status = np.asarray(result.status)[point]
    bad = int((status == Status.DIVERGED).sum())
    if bad:
        raise ValueError(
            f"{owner}: {bad} of {status.size} trainings diverged. Lower the learning rate."
        )
