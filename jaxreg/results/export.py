"""Results for other programs: tidy CSV, self-describing JSON, parameters.

`SweepResult.save` keeps everything; these keep what another language or tool can read. Each refuses to
replace what is there unless told, and appears whole or not at all.

Numbers are written as the shortest decimals that give back the same bits in their own dtype, so 0.1
in float32 is 0.1 and not 0.10000000149.
"""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxreg import _tree
from jaxreg._tree import PyTree
from jaxreg.results import summary
from jaxreg.results.status import Status
from jaxreg.storage.archive import archive_path, read_archive, write_archive
from jaxreg.storage.atomic import new_file

if TYPE_CHECKING:
    from jaxreg.results.result import SweepResult

__all__ = ["load_params", "save_params", "to_csv", "to_json"]

_PARAMS_KIND = "jaxreg.params"
_VERSION = 1


def to_csv(result: SweepResult, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """All curves in tidy long form, one number a row, as `SweepResult.to_pandas` has them.

    The columns are the coordinates, fold, seed, time, split ("train" or "valid"), metric and value.
    What is no number is written NaN, Inf and -Inf, which pandas, R, Julia and numpy all read.

    Args:
      result: the result.
      path: the file; missing folders are made.
      overwrite: whether a file that is there may be replaced.

    Returns:
      The path written.

    Raises:
      ValueError: the file is there already.

    >>> import tempfile, jaxreg as jr
    >>> curve = {"loss": np.array([0.5, 0.25], np.float32).reshape(2, 1, 1, 1)}
    >>> zeros = np.zeros((2, 1, 1, 1))
    >>> lams = {"lam": np.array([0.1, 1.0])}
    >>> result = jr.SweepResult(lams, None, np.array([9]), curve, curve, {}, None, zeros[..., 0])
    >>> print(to_csv(result, tempfile.mkdtemp() + "/a.csv").read_text())
    lam,fold,seed,time,split,metric,value
    0.1,0,0,9,train,loss,0.5
    1.0,0,0,9,train,loss,0.25
    0.1,0,0,9,valid,loss,0.5
    1.0,0,0,9,valid,loss,0.25
    """
    lanes = zip(*(_texts(values) for values in result.coords.values()))
    points = [(*lane, f, s) for lane in lanes for f, s in np.ndindex(*np.shape(result.status)[1:])]
    times = _texts(result.time)
    with new_file("to_csv", path, overwrite) as unfinished, open(unfinished, "w", newline="") as f:
        rows = csv.writer(f, lineterminator="\n")
        rows.writerow([*result.coords, "fold", "seed", "time", "split", "metric", "value"])
        for split in ("train", "valid"):
            for metric in result.metrics:
                where = [(*point, time, split, metric) for point in points for time in times]
                values = _texts(getattr(result, split)[metric])
                rows.writerows((*w, value) for w, value in zip(where, values))
    return Path(path).expanduser()


def to_json(result: SweepResult, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Everything but the parameters as one JSON document that explains itself.

    The keys are "format", "version", "point" (its name), "made_by", "statuses" (what the numbers of
    "status" mean), and the arrays "coords", "time", "train", "valid", "terms", "status" and
    "stop" (null where the last time counts for every lane). An array is an object with "dtype", "axes"
    (a name for each dimension) and "values" (nested lists). Strict JSON has no word for what is no
    number: those are the texts "NaN", "Infinity" and "-Infinity", of which Python's `float` and
    JavaScript's `Number` make the number.

    Args:
      result: the result.
      path: the file; missing folders are made.
      overwrite: whether a file that is there may be replaced.

    Returns:
      The path written.

    Raises:
      ValueError: the file is there already.

    >>> import tempfile, jaxreg as jr
    >>> curve = {"loss": np.array([0.5, np.nan], np.float32).reshape(2, 1, 1, 1)}
    >>> zeros = np.zeros((2, 1, 1, 1))
    >>> lams = {"lam": np.array([0.1, 1.0])}
    >>> result = jr.SweepResult(lams, None, np.array([9]), curve, curve, {}, None, zeros[..., 0])
    >>> json.loads(to_json(result, tempfile.mkdtemp() + "/a.json").read_text())["valid"]["loss"]
    {'dtype': 'float32', 'axes': ['point', 'fold', 'seed', 'time'], 'values': [[[[0.5]]], [[['NaN']]]]}
    """
    curve = lambda values: _described(values, result.axes)
    lane = result.axes[:3]
    document = {
        "format": "jaxreg.SweepResult",
        "version": _VERSION,
        "point": summary.label(result.points),
        "made_by": _strict(json.loads(result.made_by)),
        "statuses": {str(int(status)): status.message for status in Status},
        "coords": {name: _described(v, ("point",)) for name, v in result.coords.items()},
        "time": _described(result.time, ("time",)),
        "train": {name: curve(result.train[name]) for name in result.metrics},
        "valid": {name: curve(result.valid[name]) for name in result.metrics},
        "terms": {name: curve(v) for name, v in result.terms.items()},
        "status": _described(result.status, lane),
        "stop": None if result.stop is None else _described(result.stop, lane),
    }
    with new_file("to_json", path, overwrite) as unfinished:
        unfinished.write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")
    return Path(path).expanduser()


def save_params(result: SweepResult, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Write the final parameters of every lane to one file, bit for bit, with a hash of each leaf.

    It is an archive of arrays [K, F, S, ...], which `numpy.load` opens; its header.json has the
    coordinates. On several processes the first one writes; the others return at once. A checkpoint library
    takes the parameters themselves, as in
    `orbax.checkpoint.StandardCheckpointer().save(directory, result.params)`.

    Args:
      result: a result with parameters.
      path: where; ".npz" is added if there is no ending, and missing folders are made.
      overwrite: whether a file that is there may be replaced.

    Returns:
      The path written.

    Raises:
      ValueError: no parameters were kept, the file is there already, or two leaves have one path.
      TypeError: a leaf is no array of numbers.

    >>> import tempfile, jaxreg as jr
    >>> zeros = np.zeros((2, 1, 1, 1))
    >>> params = {"w": np.arange(4.0).reshape(2, 1, 1, 2)}
    >>> lams = {"lam": np.array([0.1, 1.0])}
    >>> result = jr.SweepResult(lams, None, np.array([9]), {}, {}, {}, params, zeros[..., 0])
    >>> load_params(save_params(result, tempfile.mkdtemp() + "/params"))["w"].tolist()
    [[[[0.0, 1.0]]], [[[2.0, 3.0]]]]
    """
    if result.params is None:
        raise ValueError(
            "save_params: no parameters were kept. Run the sweep with keep_params=True."
        )
    path = archive_path("save_params", path)
    if jax.process_index() == 0:
        coords = {name: _described(v, ("point",)) for name, v in result.coords.items()}
        header = {"format": _PARAMS_KIND, "axes": result.axes[:3], "coords": coords}
        write_archive(path, header, {"params": result.params}, overwrite, owner="save_params")
    return path


def load_params(path: str | os.PathLike, like: PyTree = None) -> PyTree:
    """Read what `save_params` wrote, as numpy arrays [K, F, S, ...] of the same bits and dtypes.

    Args:
      path: the file.
      like: parameters of the structure to restore; the numbers in them do not matter. Without it
        they are nested dicts, with the integers of lists as keys.

    Raises:
      FileNotFoundError: there is no such file. ValueError: it holds something else or is damaged, or
        `like` has another structure.

    >>> import tempfile
    >>> load_params(tempfile.mkdtemp() + "/params")
    Traceback (most recent call last):
    FileNotFoundError: load_params: there is no file '...params.npz'.
    """
    _, trees = read_archive(archive_path("load_params", path), _PARAMS_KIND, owner="load_params")
    tree = trees.get("params")
    if tree is None:
        raise ValueError(f"load_params: {str(path)!r} has no parameters in it.")
    return tree.nested() if like is None else tree.like(_tree.held(like), "load_params", "params")


# --- numbers --------------------------------------------------------------------------------------

_WORDS = {"nan": "NaN", "inf": "Inf", "-inf": "-Inf"}


def _texts(values: Any) -> list[str]:
    # str of a numpy scalar is the shortest decimal of its own dtype.
    return [_WORDS.get(text, text) for text in map(str, np.asarray(values).ravel())]


def _described(values: Any, axes: tuple[str, ...]) -> dict[str, Any]:
    values = np.asarray(values)
    if values.dtype.kind in "iubU":
        numbers = values
    else:
        numbers = np.empty(values.size, object)
        numbers[:] = [_strict(float(text)) for text in map(str, values.ravel())]
    nested = numbers.reshape(values.shape).tolist()
    return {"dtype": values.dtype.name, "axes": list(axes), "values": nested}


def _strict(value: Any) -> Any:
    """The same without the NaN and infinities that JSON does not know."""
    if isinstance(value, dict):
        return {name: _strict(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_strict(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
