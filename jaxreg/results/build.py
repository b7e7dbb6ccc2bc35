"""Results made of others: of anyone's own loop, and of several sweeps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg._tree import PyTree
from jaxreg.grid import Grid
from jaxreg.results.status import Status

__all__ = ["Parts", "joined_fields", "loop_fields", "pick"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Parts:
    """Trees of different structure, stacked part by part: the points or parameters of joined sweeps."""

    trees: tuple[PyTree, ...]
    sizes: tuple[int, ...] = dataclasses.field(metadata={"static": True})


def pick(tree: PyTree, k: int, *rest: int) -> PyTree:
    """The k-th of stacked trees, or of the part that it lies in."""
    if isinstance(tree, Parts):
        for part, size in zip(tree.trees, tree.sizes):
            if k < size:
                return pick(part, k, *rest)
            k -= size
    return jax.tree.map(lambda x: x[(k, *rest)], tree)


# --- of a loop ------------------------------------------------------------------------------------


def loop_fields(
    grid: Grid, valid: Any, train: Any, params: PyTree, time: Any, terms: Mapping[str, Any] | None
) -> dict[str, Any]:
    """See `SweepResult.of`."""
    if not isinstance(grid, Grid):
        raise TypeError(f"SweepResult.of: `grid` must be a Grid, got {type(grid).__name__}.")
    curves = _curves(grid, "valid", valid)
    if "loss" not in curves:
        raise ValueError(f"SweepResult.of: `valid` must have 'loss', got {sorted(curves)}.")
    shape = curves["loss"].shape
    nothing = {name: np.full(shape, np.nan) for name in curves}
    trained = nothing if train is None else nothing | _curves(grid, "train", train)
    of_terms = {} if terms is None else _curves(grid, "terms", terms)
    for name, given in {"valid": curves, "train": trained, "terms": of_terms}.items():
        odd = {n: c.shape for n, c in given.items() if c.shape != shape}
        if odd:
            raise ValueError(
                f"SweepResult.of: all curves must have the shape of valid['loss'], {shape}, got {odd} in "
                f"`{name}`."
            )
    time = np.arange(1, shape[-1] + 1) if time is None else np.asarray(time)
    if time.shape != shape[-1:] or (np.diff(time) <= 0).any():
        raise ValueError(
            f"SweepResult.of: `time` must be {shape[-1]} rising steps, one for each evaluation, got "
            f"{time.tolist()}."
        )
    finite = np.isfinite(curves["loss"]).all(-1)
    return {
        "coords": grid.coords, "points": grid.points, "time": time, "train": trained, "valid": curves,
        "terms": of_terms, "params": _params(params, shape), "strengths": grid.strengths,
        "status": np.where(finite, Status.FINISHED, Status.DIVERGED),
        "made_by": json.dumps({"folds": shape[1], "seeds": shape[2], "steps": int(time[-1])}),
    }  # fmt: skip


def _curves(grid: Grid, name: str, given: Any) -> dict[str, np.ndarray]:
    """Metric -> [K, F, S, T] from arrays that may end after any axis."""
    curves = given if isinstance(given, Mapping) else {"loss": given}
    made = {}
    for metric, values in curves.items():
        array = np.asarray(values)
        fits = 1 <= array.ndim <= 4 and len(array) == len(grid) and array.size
        if not fits or not jnp.issubdtype(array.dtype, np.number):
            raise ValueError(
                f"SweepResult.of: `{name}` of {metric!r} must be numbers with one row for each of the "
                f"{len(grid)} points: [K], [K, folds], [K, folds, seeds] or [K, folds, seeds, times], got "
                f"{array.dtype}{list(array.shape)}."
            )
        made[metric] = _floats(array).reshape(array.shape + (1,) * (4 - array.ndim))
    return made


def _params(params: PyTree, shape: tuple[int, ...]) -> PyTree:
    for x in jax.tree.leaves(params):
        if np.shape(x)[:3] != shape[:3]:
            raise ValueError(
                f"SweepResult.of: every leaf of `params` must lead with [K, folds, seeds] = "
                f"{list(shape[:3])}, got {list(np.shape(x))}."
            )
    return params


# --- of several sweeps ----------------------------------------------------------------------------


def joined_fields(results: Any, columns: Mapping[str, Sequence]) -> dict[str, Any]:
    """See `SweepResult.join`."""
    if isinstance(results, Mapping):
        columns = {"sweep": list(results), **columns}
        results = list(results.values())
    results = list(results)
    _check_parts(results, columns)
    sizes = tuple(len(r.status) for r in results)
    time = np.unique(np.concatenate([np.asarray(r.time) for r in results]))
    at = [np.searchsorted(time, np.asarray(r.time)) for r in results]
    names = dict.fromkeys(name for r in results for name in r.terms)
    missing = lambda r: {n: np.zeros_like(r.valid["loss"]) for n in names if n not in r.terms}
    given = [{**r.terms, **missing(r)} for r in results]
    spread = lambda values: np.concatenate([_spread(v, i, len(time)) for v, i in zip(values, at)])
    metrics = results[0].metrics
    return {
        "coords": _coords(results, columns, sizes),
        "points": Parts(tuple(r.points for r in results), sizes),
        "time": time,
        "train": {m: spread([r.train[m] for r in results]) for m in metrics},
        "valid": {m: spread([r.valid[m] for r in results]) for m in metrics},
        "terms": {n: spread([terms[n] for terms in given]) for n in names},
        "params": _joined_params(results, sizes),
        "status": np.concatenate([np.asarray(r.status) for r in results]),
        "stop": np.concatenate([_stop(r, i) for r, i in zip(results, at)]),
        "strengths": _strengths(results),
        "made_by": json.dumps({"joined": [json.loads(r.made_by) for r in results]}),
    }


def _strengths(results: list[Any]) -> tuple[str, ...]:
    """Those of all: between penalties of another structure, no λ says which is the simpler model."""
    alike = {jax.tree.structure(r.points) for r in results}
    shared = results[0].strengths if len(alike) == 1 else ()
    return tuple(n for n in shared if all(n in r.strengths for r in results))


def _check_parts(results: list[Any], columns: Mapping[str, Sequence]) -> None:
    if not results or not all(type(r).__name__ == "SweepResult" for r in results):
        raise TypeError(
            "SweepResult.join: give results in a list, or in a dict by name, got "
            f"{[type(r).__name__ for r in results]}."
        )
    for name, values in columns.items():
        if len(values) != len(results):
            raise ValueError(
                f"SweepResult.join: `{name}` must have one value for each of the {len(results)} results, "
                f"got {len(values)}."
            )
        if any(name in r.coords for r in results):
            raise ValueError(f"SweepResult.join: a result has a coordinate {name!r} already.")
    kinds = [(np.shape(r.status)[1:], r.metrics) for r in results]
    odd = [kind for kind in kinds if kind != kinds[0]]
    if odd:
        raise ValueError(
            "SweepResult.join: scores are compared fold by fold and seed by seed, so the results must have "
            f"the same numbers of both and the same metrics; got (folds, seeds), metrics {kinds[0]} and "
            f"{odd[0]}."
        )


def _coords(
    results: list[Any], columns: Mapping[str, Sequence], sizes: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Every coordinate of any; NaN where one does not have it."""
    made = {n: np.repeat(np.asarray(v), sizes) for n, v in columns.items()}
    for name in dict.fromkeys(n for r in results for n in r.coords):
        parts = [
            np.asarray(r.coords[name]) if name in r.coords else np.full(size, np.nan)
            for r, size in zip(results, sizes)
        ]
        made[name] = np.concatenate(parts)
    return made


def _spread(curve: Any, at: np.ndarray, n: int) -> np.ndarray:
    """A curve [K, F, S, t] at the places `at` of n times, NaN at the others."""
    curve = np.asarray(curve, float)
    wide = np.full((*curve.shape[:3], n), np.nan)
    wide[..., at] = curve
    return wide


def _stop(result: Any, at: np.ndarray) -> np.ndarray:
    last = np.full(np.shape(result.status), len(at) - 1)
    return at[last if result.stop is None else np.asarray(result.stop)]


def _joined_params(results: list[Any], sizes: tuple[int, ...]) -> PyTree:
    if any(r.params is None for r in results):
        return None
    return Parts(tuple(r.params for r in results), sizes)
