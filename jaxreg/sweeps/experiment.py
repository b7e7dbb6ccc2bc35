"""What makes a sweep the same experiment: the entries a checkpoint directory is recognised by."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxreg import _tree
from jaxreg._tree import PyTree
from jaxreg.fit.check import trainer_at
from jaxreg.fit.trainer import TrainState
from jaxreg.grid import Grid, point_label
from jaxreg.sweeps.drive import Agenda
from jaxreg.sweeps.growth import GRID
from jaxreg.sweeps.machine.hosts import raw
from jaxreg.sweeps.program import Common, Spec

__all__ = ["fingerprint"]


def fingerprint(
    spec: Spec,
    common: Common,
    grid: Grid,
    agenda: Agenda,
    seeds: int,
    evals: int,
    start: TrainState,
) -> dict:
    """Name -> number or text; equal for runs that train the same lanes to the same numbers.

    The user's functions are compared by what they trace to, the start, the update and the evaluation, as
    far as the same version of jax reads it: with another the texts differ, and are not compared.
    """
    params = _tree.flatten(start.params)
    coords = {f"{GRID}{n}": [float(str(x)) for x in np.asarray(v)] for n, v in grid.coords.items()}
    return {
        "point": point_label(grid.points),
        **coords,
        "points": _digests(grid.points),
        "data": digest(common.data),
        "folds": digest(common.folds),
        "weights": digest(common.weights),
        "prepared": digest(common.numbers),
        "stream": digest(common.window),
        "key": digest(common.key),
        "random numbers": str(jax.random.key_impl(common.key)),
        "dtypes": sorted({str(x.dtype) for x in jax.tree.leaves((grid.points, start.params))}),
        "runs": len(common.folds.count),
        "seeds": seeds,
        "steps": agenda.steps,
        "evals": evals,
        "batch_size": spec.batch_size or 0,
        "evaluations": [int(t) for t in agenda.times],
        "rungs": [list(map(int, rung)) for rung in agenda.rungs],
        "patience": int(common.patience) if spec.early_stopping else 0,
        "parameters": [
            f"{p} {x.dtype}{list(x.shape)}" for p, x in zip(params.paths, params.values)
        ],
        "optimizer": [f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(start.opt_state)],
        "metrics": sorted(name for name, _ in spec.ways if name != "loss"),
        **_traces(spec, common, grid[0], start),
    }


def _traces(spec: Spec, common: Common, point: PyTree, start: TrainState) -> dict[str, str]:
    """What the user's functions compute, each by a hash of its trace and the arrays that are in it."""
    numbers = jax.tree.map(lambda x: x[0], common.numbers)
    batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((2, *a.shape[1:]), a.dtype), common.data)
    at = lambda point, numbers: trainer_at("sweep", spec.trainer, point, numbers)
    asked = {
        "init": (lambda p, n, key: at(p, n).start(key), (common.key,)),
        "loss and optimizer": (
            lambda p, n, state, batch, key: at(p, n).step(state, batch, key)[0],
            (start, batch, common.key),
        ),
        "evaluation": (lambda p, n, state, batch: at(p, n).evaluate(state, batch), (start, batch)),
    }
    return {
        f"{name} of jax {jax.__version__}": _trace(fn, point, numbers, *args)
        for name, (fn, args) in asked.items()
    }


def _trace(fn: Callable, *args: Any) -> str:
    closed = jax.make_jaxpr(fn)(*args)
    text = re.sub(r"0x[0-9a-f]+", "", str(closed.jaxpr))  # addresses, which are of the process
    found = hashlib.blake2b(text.encode(), digest_size=8)
    found.update(digest(closed.consts).encode())
    return found.hexdigest()


def _digests(points: PyTree) -> list[str]:
    """A hash of the numbers of each point."""
    leaves = [np.asarray(_array(x)) for x in jax.tree.leaves(points)]
    kind = "".join(f"{x.dtype}{x.shape[1:]}" for x in leaves).encode()
    bits = [np.ascontiguousarray(x).reshape(len(x), -1).view(np.uint8) for x in leaves if x.size]
    rows = np.concatenate(bits, 1)
    return [hashlib.blake2b(kind + row.tobytes(), digest_size=8).hexdigest() for row in rows]


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
