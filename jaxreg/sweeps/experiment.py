"""What makes a sweep the same experiment: the entries a checkpoint directory is recognised by."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

from jaxreg import _tree
from jaxreg._tree import PyTree
from jaxreg.fit.trainer import TrainState
from jaxreg.grid import Grid, point_label
from jaxreg.sweeps.drive import Agenda
from jaxreg.sweeps.machine.hosts import raw
from jaxreg.sweeps.program import Common, Spec

__all__ = ["fingerprint"]


def fingerprint(
    spec: Spec, common: Common, grid: Grid, agenda: Agenda, seeds: int, start: TrainState
) -> dict:
    """Name -> number or text; equal for runs that train the same lanes to the same numbers.

    Of the user's functions only what they make is compared, the parameters' names and shapes: a
    changed loss with the same parameters is not noticed.
    """
    params = _tree.flatten(start.params)
    coords = {
        f"the grid's {n}": [float(str(x)) for x in np.asarray(v)] for n, v in grid.coords.items()
    }
    return {
        "point": point_label(grid.points),
        **coords,
        "numbers": digest(grid.points),
        "data": digest(common.data),
        "folds": digest(common.folds),
        "weights": digest(common.weights),
        "prepared": digest(common.numbers),
        "stream": digest(common.window),
        "key": digest(common.key),
        "seeds": seeds,
        "steps": agenda.steps,
        "batch_size": spec.batch_size or 0,
        "evaluations": [int(t) for t in agenda.times],
        "rungs": [list(map(int, rung)) for rung in agenda.rungs],
        "patience": int(common.patience) if spec.early_stopping else 0,
        "parameters": [
            f"{p} {x.dtype}{list(x.shape)}" for p, x in zip(params.paths, params.values)
        ],
        "optimizer": [f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(start.opt_state)],
        "metrics": sorted(name for name, _ in spec.ways if name != "loss"),
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
