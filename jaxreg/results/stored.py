"""A result as one file: its arrays with a hash of each, and a header that says what they are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxreg._tree import PyTree
from jaxreg.grid import point_label
from jaxreg.results.status import Status
from jaxreg.stationarity import Stationarity
from jaxreg.storage import archive
from jaxreg.storage.sealed import Damaged, readable

__all__ = ["read", "write"]

_KIND = "jaxreg.SweepResult"
_HEADER = ("made_by", "coords", "terms", "strengths", "directions", "folds", "point")


def write(
    path: str | os.PathLike, result: Any, trees: Mapping[str, PyTree], label: str, overwrite: bool
) -> Path:
    """See `SweepResult.save`; `trees` are its fields of arrays, `label` the name of its points."""
    path = archive.archive_path("save", path)
    header = {
        "format": _KIND,
        "made_by": result.made_by,
        "coords": list(result.coords),
        "terms": list(result.terms),
        "strengths": list(result.strengths),
        "directions": dict(result.directions),
        "folds": [result.repeats, result.overlap],
        "point": label,
    }
    archive.write_archive(path, header, trees, overwrite)
    return path


def read(path: str | os.PathLike, point: PyTree, params: PyTree) -> dict[str, Any]:
    """The fields of a `SweepResult`; see its `load`. `point` and `params` give structures, or are None."""
    header, trees = archive.read_archive(archive.archive_path("load", path), _KIND)
    missing = [name for name in _HEADER if name not in header]
    if missing:
        raise ValueError(
            f"load: {str(path)!r} was written by another version, its header has no {missing[0]!r}. Read "
            "it with that version, or run the sweep again."
        )
    if point is not None and point_label(point) != header["point"]:
        raise ValueError(
            f"load: the file holds {header['point']!r}, but the point of `like` is "
            f"{point_label(point)!r}."
        )
    templates = {"points": point, "params": params}
    fields = {name: _rebuilt(name, tree, templates.get(name), path) for name, tree in trees.items()}
    try:
        with readable("what it holds"):
            return _consistent(_named(fields, header))
    except Damaged as damage:
        raise ValueError(f"load: {str(path)!r} is damaged: {damage}.") from damage


def _named(fields: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    if (found := fields.get("certificate")) is not None:
        fields["certificate"] = Stationarity(**{"leaves": {}, **found})
    for field in ("coords", "terms"):
        fields[field] = {name: fields[field][name] for name in header[field]}
    fields |= {name: header[name] for name in ("directions", "made_by")}
    repeats, overlap = header["folds"]
    return fields | {
        "strengths": tuple(header["strengths"]), "repeats": repeats, "overlap": overlap,
    }  # fmt: skip


def _consistent(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, if they can be those of one result: hashes tell what was changed, not what is a lie.

    Raises:
      Damaged: naming what does not fit.
    """
    lanes, times = np.shape(fields["status"]), np.shape(fields["time"])
    curves = {**fields["train"], **fields["valid"], **fields["terms"]}
    k = lanes[:1]
    leading = [
        *((n, x, (*lanes, *times)) for n, x in curves.items()),
        *((n, x, k) for n, x in fields["coords"].items()),
        *(("points", x, k) for x in jax.tree.leaves(fields["points"])),
        *(("params", x, lanes) for x in jax.tree.leaves(fields["params"])),
        *(("stop", x, lanes) for x in jax.tree.leaves(fields["stop"])),
    ]
    odd = [n for n, x, shape in leading if np.shape(x)[: len(shape)] != shape]
    right = {
        "status": len(lanes) == 3 and np.isin(fields["status"], [int(s) for s in Status]).all(),
        "time": len(times) == 1,
        "metrics": {*fields["train"]} == {*fields["valid"]} and "loss" in fields["train"],
        "directions": {*fields["directions"].values()} <= {"larger", "smaller"},
        "strengths": {*fields["strengths"]} <= {*fields["coords"]},
        "made_by": isinstance(json.loads(fields["made_by"] or "{}"), dict),
        "folds": type(fields["repeats"]) is int and fields["repeats"] >= 1
        and type(fields["overlap"]) in (int, float) and 0 <= fields["overlap"] < np.inf,
    }  # fmt: skip
    odd += [name for name, fits in right.items() if not fits]
    if odd:
        raise Damaged(f"its {odd[0]!r:.80} do not fit the rest")
    return fields


def _rebuilt(name: str, tree: archive.StoredTree | None, template: PyTree, path: Any) -> PyTree:
    if tree is None:
        return None
    return tree.nested() if template is None else tree.like(template, "load", name, str(path))
