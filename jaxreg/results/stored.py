"""A result as one file: its arrays with a hash of each, and a header that says what they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxreg._tree import PyTree
from jaxreg.grid import point_label
from jaxreg.stationarity import Stationarity
from jaxreg.storage import archive

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
    fields = {name: _rebuilt(name, tree, templates.get(name)) for name, tree in trees.items()}
    if (found := fields.get("certificate")) is not None:
        fields["certificate"] = Stationarity(**{"leaves": {}, **found})
    for field in ("coords", "terms"):
        fields[field] = {name: fields[field][name] for name in header[field]}
    fields |= {name: header[name] for name in ("directions", "made_by")}
    repeats, overlap = header["folds"]
    return fields | {
        "strengths": tuple(header["strengths"]), "repeats": repeats, "overlap": overlap,
    }  # fmt: skip


def _rebuilt(name: str, tree: archive.StoredTree | None, template: PyTree) -> PyTree:
    if tree is None:
        return None
    return tree.nested() if template is None else tree.like(template, "load", name)
