"""What makes a sweep the same experiment: the entries a checkpoint directory is recognised by."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

from jaxreg import _tree
from jaxreg._tree import PyTree
from jaxreg.sweeps.drive import Agenda
from jaxreg.sweeps.grid import Grid
from jaxreg.sweeps.hosts import raw
from jaxreg.sweeps.program import Setting, Shared

__all__ = ["fingerprint"]


def fingerprint(setting: Setting, shared: Shared, grid: Grid, agenda: Agenda, seeds: int) -> dict:
    """Name -> number or text; equal for runs that train the same lanes to the same numbers.

    Of the user's functions only what they make is compared, the parameters' names and shapes: a
    changed loss with the same parameters is not noticed.
    """
    start = jax.eval_shape(lambda: setting.trainer.start(grid[0], shared.key))
    params = _tree.flatten(start.params)
    coords = {f"the grid's {n}": [float(str(x)) for x in v] for n, v in grid.coords.items()}
    return {
        "penalty": grid.penalty.label,
        **coords,
        "strengths": digest(grid.penalty),
        "data": digest(shared.data),
        "folds": digest(shared.folds),
        "key": digest(shared.key),
        "seeds": seeds,
        "steps": agenda.steps,
        "batch_size": setting.batch_size or 0,
        "evaluations": [int(t) for t in agenda.times],
        "rungs": [list(map(int, rung)) for rung in agenda.rungs],
        "patience": int(shared.patience) if setting.early_stopping else 0,
        "parameters": [
            f"{p} {x.dtype}{list(x.shape)}" for p, x in zip(params.paths, params.values)
        ],
        "optimizer": [f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(start.opt_state)],
        "metrics": sorted(setting.trainer.metrics),
    }


def digest(tree: PyTree) -> str:
    """A hash of every bit, shape and dtype in a pytree of arrays."""
    total = hashlib.blake2b(digest_size=16)
    for x in jax.tree.leaves(raw(jax.tree.map(_array, tree))):
        array = np.ascontiguousarray(np.asarray(x))
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return total.hexdigest()


def _array(x: Any) -> Any:
    return x if hasattr(x, "dtype") else np.asarray(x)
