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
from jaxreg.choice import Place
from jaxreg.grid import Grid
from jaxreg.results.status import Status

__all__ = [
    "DATA_FIELDS", "Parts", "between", "first_points", "joined_fields", "loop_fields", "merged_fields",
    "pick",
]  # fmt: skip


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Parts:
    """Trees of different structure, stacked part by part: the points or parameters of joined sweeps."""

    trees: tuple[PyTree, ...]
    sizes: tuple[int, ...] = dataclasses.field(metadata={"static": True})


# Of a result, what holds arrays; those of K points but for the time.
DATA_FIELDS = (
    "coords", "points", "time", "train", "valid", "terms", "params", "status", "stop", "certificate",
)  # fmt: skip


def pick(tree: PyTree, k: int, *rest: int) -> PyTree:
    """The k-th of stacked trees, or of the part that it lies in."""
    if isinstance(tree, Parts):
        for part, size in zip(tree.trees, tree.sizes):
            if k < size:
                return pick(part, k, *rest)
            k -= size
    return jax.tree.map(lambda x: x[(k, *rest)], tree)


def first_points(result: Any, n: int) -> Any:
    """A result of the first n points."""
    cut = lambda tree: jax.tree.map(lambda x: np.asarray(x)[:n], tree)
    fields = (name for name in DATA_FIELDS if name != "time")
    return dataclasses.replace(result, **{name: cut(getattr(result, name)) for name in fields})


def between(points: PyTree, place: Place) -> PyTree:
    """The point at a place between three others, whose numbers are powers of the coordinate there.

    Raises:
      ValueError: they are of different structure, or a number is none.
    """
    trees = [pick(points, k) for k in place.index]
    x, at = np.log(place.positions), np.log(place.position)
    slope = (x[1] - x[0]) / (x[2] - x[0]), (at - x[0]) / (x[2] - x[0])

    def leaf(a: Any, b: Any, c: Any) -> Any:
        low, middle, high = (np.asarray(v, np.float64) for v in (a, b, c))
        if (low == high).all() and (low == middle).all():
            return a
        with np.errstate(all="ignore"):
            powers = [low * (high / low) ** share for share in slope]
        if not np.allclose(powers[0], middle, rtol=1e-4, atol=0):  # also where it is NaN
            raise ValueError(
                f"best: between the points at {place.coordinate} = {place.positions} a number, "
                f"{low.tolist()!s:.40}, {middle.tolist()!s:.40}, {high.tolist()!s:.40}, is no power of "
                f"{place.coordinate}, so no point is known there. Take rule='min', and refine the grid."
            )
        return jnp.asarray(powers[1], jnp.result_type(a))

    if len({jax.tree.structure(tree) for tree in trees}) > 1:
        raise ValueError(
            "best: the best point and its neighbours are of different structure, and there is none between "
            "them. Take rule='min'."
        )
    return jax.tree.map(leaf, *trees)


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
    trained = {} if train is None else _curves(grid, "train", train)
    of_terms = {} if terms is None else _curves(grid, "terms", terms)
    shape = curves["loss"].shape
    _check_alike(shape, {"valid": curves, "train": trained, "terms": of_terms})
    time = np.arange(1, shape[-1] + 1) if time is None else np.asarray(time)
    if time.shape != shape[-1:] or time.dtype.kind not in "iuf" or (np.diff(time) <= 0).any():
        raise ValueError(
            f"SweepResult.of: `time` must be {shape[-1]} rising steps, one for each evaluation, got "
            f"{time.tolist()}."
        )
    finite = np.isfinite(curves["loss"]).all(-1)
    return {
        "coords": grid.coords, "points": grid.points, "time": time, "valid": curves,
        "train": {name: np.full_like(x, np.nan) for name, x in curves.items()} | trained,
        "terms": of_terms, "params": _params(params, shape), "strengths": grid.strengths,
        "status": np.where(finite, Status.FINISHED, Status.DIVERGED),
        "made_by": json.dumps({"folds": shape[1], "seeds": shape[2], "steps": int(time[-1])}),
    }  # fmt: skip


def _check_alike(shape: tuple[int, ...], given: Mapping[str, Mapping[str, Any]]) -> None:
    for argument, curves in given.items():
        odd = {n: c.shape for n, c in curves.items() if c.shape != shape}
        if odd:
            raise ValueError(
                f"SweepResult.of: all curves must have the shape of valid['loss'], {shape}, got {odd} in "
                f"`{argument}`."
            )
    unknown = sorted(set(given["train"]) - set(given["valid"]))
    if unknown:
        raise ValueError(
            f"SweepResult.of: `train` has {unknown}, which `valid` has not; give a metric on both."
        )


def _curves(grid: Grid, name: str, given: Any) -> dict[str, np.ndarray]:
    """Metric -> [K, F, S, T] from arrays that may end after any axis."""
    curves = given if isinstance(given, Mapping) else {"loss": given}
    made = {}
    for metric, values in curves.items():
        array = np.asarray(values)
        fits = 1 <= array.ndim <= 4 and len(array) == len(grid) and array.size
        if not fits or not (array.dtype.kind in "iu" or jnp.issubdtype(array.dtype, jnp.floating)):
            raise ValueError(
                f"SweepResult.of: `{name}` of {metric!r} must be numbers with one row for each of the "
                f"{len(grid)} points: [K], [K, folds], [K, folds, seeds] or [K, folds, seeds, times], got "
                f"{array.dtype}{list(array.shape)}."
            )
        made[metric] = _floats(array).reshape(array.shape + (1,) * (4 - array.ndim))
    return made


def _floats(values: Any) -> np.ndarray:
    """In their own dtype, of which the shortest decimals are written to files; integers in float64."""
    array = np.asarray(values)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def _params(params: PyTree, shape: tuple[int, ...]) -> PyTree:
    for x in jax.tree.leaves(params):
        if np.shape(x)[:3] != shape[:3]:
            raise ValueError(
                f"SweepResult.of: every leaf of `params` must lead with [K, folds, seeds] = "
                f"{list(shape[:3])}, got {list(np.shape(x))}."
            )
    return params


# --- of several sweeps ----------------------------------------------------------------------------


def joined_fields(kind: type, results: Any, columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """See `SweepResult.join`; `kind` is SweepResult."""
    if isinstance(results, Mapping):
        columns = dict(sweep=list(results), **columns)
    parts = list(results.values()) if isinstance(results, Mapping) else results
    _check_parts(kind, parts, "join")
    _check_columns(parts, columns)
    sizes = tuple(len(r.status) for r in parts)
    coords = _coords(parts, columns, sizes)
    _check_apart(coords, sizes)
    time = np.unique(np.concatenate([np.asarray(r.time) for r in parts]))
    at = [np.searchsorted(time, np.asarray(r.time)) for r in parts]
    spread = lambda values: np.concatenate([_spread(v, i, len(time)) for v, i in zip(values, at)])
    nothing = [np.zeros_like(r.valid["loss"]) for r in parts]
    names = dict.fromkeys(name for r in parts for name in r.terms)
    return {
        "coords": coords,
        "points": Parts(tuple(r.points for r in parts), sizes),
        "time": time,
        "train": {m: spread([r.train[m] for r in parts]) for m in parts[0].metrics},
        "valid": {m: spread([r.valid[m] for r in parts]) for m in parts[0].metrics},
        "terms": {n: spread([r.terms.get(n, z) for r, z in zip(parts, nothing)]) for n in names},
        "params": None
        if any(r.params is None for r in parts)
        else Parts(tuple(r.params for r in parts), sizes),
        "status": np.concatenate([np.asarray(r.status) for r in parts]),
        "stop": np.concatenate([_stop(r, i) for r, i in zip(parts, at)]),
        "strengths": _strengths(parts),
        "directions": {m: d for r in parts for m, d in r.directions.items()},
        "repeats": parts[0].repeats,
        "overlap": max(r.overlap for r in parts),
        "made_by": json.dumps({"joined": [json.loads(r.made_by) for r in parts]}),
        "certificate": _certificate([r.certificate for r in parts]),
    }


def merged_fields(kind: type, results: Any) -> dict[str, Any]:
    """See `SweepResult.merge`; `kind` is SweepResult."""
    parts = list(results) if isinstance(results, Sequence) else results
    _check_parts(kind, parts, "merge")
    trees = [jax.tree.structure((r.points, r.params)) for r in parts]
    alike = [(list(r.coords), np.asarray(r.time).tolist(), t) for r, t in zip(parts, trees)]
    if any(a != alike[0] for a in alike):
        raise ValueError(
            "SweepResult.merge: the results must be of one trainer and differ in their points alone, got "
            "other coordinates, evaluations or structures. SweepResult.join takes such."
        )
    joined = lambda *leaves: np.concatenate([np.asarray(x) for x in leaves])
    last = lambda r: np.full(np.shape(r.status), np.size(r.time) - 1)
    coords = {n: joined(*(r.coords[n] for r in parts)) for n in parts[0].coords}
    rows = list(zip(*(v.tolist() for v in coords.values())))
    if len(set(rows)) < len(rows):
        twice = next(row for row in rows if rows.count(row) > 1)
        raise ValueError(f"SweepResult.merge: the point {dict(zip(coords, twice))} occurs twice.")
    order = np.lexsort(list(coords.values())[::-1])
    whole = jax.tree.map(
        lambda *leaves: joined(*leaves)[order],
        *[
            {
                "points": r.points, "train": dict(r.train), "valid": dict(r.valid), "terms": dict(r.terms),
                "params": r.params, "status": r.status, "stop": last(r) if r.stop is None else r.stop,
                "certificate": None if any(p.certificate is None for p in parts) else r.certificate,
            }
            for r in parts
        ],
    )  # fmt: skip
    first = parts[0]
    whole["terms"] = {name: whole["terms"][name] for name in first.terms}  # in their own order
    return whole | {
        "coords": {n: v[order] for n, v in coords.items()}, "time": first.time,
        "strengths": first.strengths, "directions": first.directions, "repeats": first.repeats,
        "overlap": first.overlap, "made_by": first.made_by,
    }  # fmt: skip


def _certificate(parts: Sequence[Any]) -> Any:
    """That of all; None where one has none or has it of other leaves."""
    if None in parts or len({jax.tree.structure(c) for c in parts}) > 1:
        return None
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _strengths(parts: Sequence[Any]) -> tuple[str, ...]:
    """Those of all: between penalties of another structure, no λ says which is the simpler model."""
    alike = {jax.tree.structure(r.points) for r in parts}
    shared = parts[0].strengths if len(alike) == 1 else ()
    return tuple(n for n in shared if all(n in r.strengths for r in parts))


def _check_parts(kind: type, parts: Any, owner: str) -> None:
    listed = isinstance(parts, Sequence) and len(parts) > 0
    if not listed or not all(isinstance(r, kind) for r in parts):
        got = (
            [type(r).__name__ for r in parts]
            if isinstance(parts, Sequence)
            else type(parts).__name__
        )
        raise TypeError(
            f"SweepResult.{owner}: give results in a list{', or in a dict by name' * (owner == 'join')}, "
            f"got {got}."
        )
    kinds = [(np.shape(r.status)[1:], r.metrics, r.repeats) for r in parts]
    odd = [other for other in kinds if other != kinds[0]]
    if odd:
        raise ValueError(
            f"SweepResult.{owner}: scores are compared fold by fold and seed by seed, so the results must "
            "have the same numbers of both, the same metrics and repeats of the folds; got "
            "((folds, seeds), "
            f"metrics, repeats) {kinds[0]} and {odd[0]}."
        )


def _check_columns(parts: Sequence[Any], columns: Mapping[str, Sequence[Any]]) -> None:
    for name, values in columns.items():
        if np.shape(values) != (len(parts),) or np.asarray(values).dtype.kind not in "biufU":
            raise ValueError(
                f"SweepResult.join: `{name}` must have one value, a number or text, for each of the "
                f"{len(parts)} results, got {values!r}."
            )
        if any(name in r.coords for r in parts):
            raise ValueError(f"SweepResult.join: a result has a coordinate {name!r} already.")


def _check_apart(coords: Mapping[str, np.ndarray], sizes: tuple[int, ...]) -> None:
    """Points of two results must differ in a coordinate: else no table says which is which."""
    rows = list(zip(*(map(str, v) for v in coords.values())))
    part = np.repeat(np.arange(len(sizes)), sizes)
    first: dict[tuple[str, ...], int] = {}
    for row, i in zip(rows, part.tolist()):
        if first.setdefault(row, i) != i:
            raise ValueError(
                f"SweepResult.join: two results have a point {dict(zip(coords, row))}. Say what tells "
                "them apart: names, in a dict, or a coordinate such as width=[64, 128]."
            )


def _coords(
    parts: Sequence[Any], columns: Mapping[str, Sequence[Any]], sizes: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Every coordinate of any; NaN where one does not have it, or "-" for a text."""
    made = {n: np.repeat(np.asarray(v), sizes) for n, v in columns.items()}
    for name in dict.fromkeys(n for r in parts for n in r.coords):
        known = np.concatenate([np.asarray(r.coords[name]) for r in parts if name in r.coords])
        text = known.dtype.kind == "U"
        missing = np.full(1, "-") if text else np.full(1, np.nan, _floats(known).dtype)
        made[name] = np.concatenate(
            [np.asarray(r.coords[name]) if name in r.coords else missing.repeat(size)
             for r, size in zip(parts, sizes)]
        )  # fmt: skip
    return made


def _spread(curve: Any, at: np.ndarray, n: int) -> np.ndarray:
    """A curve [K, F, S, t] at the places `at` of n times, NaN at the others."""
    curve = _floats(curve)
    wide = np.full((*curve.shape[:3], n), np.nan, curve.dtype)
    wide[..., at] = curve
    return wide


def _stop(result: Any, at: np.ndarray) -> np.ndarray:
    last = np.full(np.shape(result.status), len(at) - 1)
    return at[last if result.stop is None else np.asarray(result.stop)]
