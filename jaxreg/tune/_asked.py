"""What all shortcuts without folds are asked of: a sweep over all rows, these rows, and a likelihood."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxreg import _tree
from jaxreg._check import misfit, shown
from jaxreg._tree import PyTree
from jaxreg.fit.intake import as_rows
from jaxreg.objective import penalties_in
from jaxreg.penalty import Penalty
from jaxreg.results import SweepResult
from jaxreg.tune._likelihoods import LIKELIHOODS

__all__ = [
    "check_functions",
    "check_result",
    "check_targets",
    "outputs_of",
    "pair",
    "penalty_of",
    "scale_of",
]

_SAME = 1e-3  # of a loss, computed twice in float32


def check_functions(owner: str, outputs: Any, likelihood: Any, penalty: Any) -> None:
    """Refuse other kinds of arguments than those that all shortcuts take."""
    wanted = f"{owner}: `outputs` must be a function (params, X) -> the outputs that the likelihood takes"
    if not callable(outputs) or isinstance(outputs, Penalty):
        raise TypeError(f"{wanted}, got {shown(outputs)}.")
    if (why := misfit(outputs, None, None)) is not None:
        raise TypeError(f"{wanted}, got {outputs!r}: {why}.")
    if not isinstance(likelihood, str) or likelihood not in LIKELIHOODS:
        raise ValueError(
            f"{owner}: `likelihood` must be one of {sorted(LIKELIHOODS)}, got {shown(likelihood)}."
        )
    if penalty is not None and (isinstance(penalty, Penalty) or not callable(penalty)):
        raise TypeError(
            f"{owner}: `penalty` must be a function point -> penalty, such as lambda p: p['reg'], got "
            f"{shown(penalty)}."
        )


def check_result(owner: str, result: Any, penalty: Any) -> None:
    """Refuse what is no sweep over all rows, with its parameters and the penalties of its points."""
    if not isinstance(result, SweepResult):
        raise TypeError(
            f"{owner}: `result` must be a SweepResult, as jaxreg.sweep(..., validation=..., "
            f"keep_params=True) returns, got {type(result).__name__}."
        )
    if result.params is None:
        raise ValueError(
            f"{owner}: `result` must hold parameters, got none. Sweep with keep_params=True."
        )
    folds = np.shape(result.status)[1]
    if folds != 1:
        raise ValueError(
            f"{owner}: `result` must be trained on all rows of `data`, and got {folds} folds. Sweep with "
            "`validation`, other rows, instead of folds."
        )
    if json.loads(result.made_by).get("sample_weight"):
        raise ValueError(
            f"{owner}: `result` must be of rows that count alike, got one with weights, whose loss is no "
            "mean negative log likelihood. Leave `sample_weight` away."
        )
    if penalty is None and result.terms and not penalties_in(result.points):
        raise TypeError(
            f"{owner}: the points of `result` must be those of the sweep, got dicts of numbers, as read "
            "from a file. Read it with their structure: SweepResult.load(path, like=(point, params))."
        )


def pair(owner: str, data: Any) -> tuple[PyTree, np.ndarray]:
    """X and y."""
    arrays, n = as_rows(owner, data)
    if len(arrays) != 2 or not hasattr(arrays[1], "dtype"):
        raise ValueError(
            f"{owner}: `data` must be a pair, (X, y), such as was trained on, got {len(arrays)} parts."
        )
    if n < 3:
        raise ValueError(f"{owner}: `data` must have at least 3 rows, got {n}.")
    return arrays[0], np.asarray(arrays[1])


def outputs_of(owner: str, outputs: Callable, params: PyTree, x: PyTree, n: int) -> int:
    """How many outputs a row has."""
    held = _tree.held(params)
    made = jax.eval_shape(lambda p, x: outputs(_tree.released(p), x), held, x)
    shape = getattr(made, "shape", None)
    if shape is None or len(shape) not in (1, 2) or shape[0] != n or not _tree.is_floating(made):
        what = f"{made.dtype}{list(shape)}" if shape is not None else f"a {type(made).__name__}"
        raise ValueError(
            f"{owner}: `outputs` must return one number or one row of numbers for each of the {n} rows, "
            f"got {what}."
        )
    return shape[1] if len(shape) == 2 else 1


def check_targets(owner: str, name: str, y: np.ndarray, m: int) -> None:
    """Refuse targets that the likelihood of m outputs a row does not take."""
    if not LIKELIHOODS[name].fits(y, m):
        raise ValueError(
            f"{owner}: with the likelihood {name!r} and {m} outputs a row, the targets in `data` must be "
            f"{LIKELIHOODS[name].targets}, got {y.dtype}{list(y.shape)} from {y.min():g} to {y.max():g}."
        )


def penalty_of(owner: str, penalty: Any, point: PyTree) -> Penalty:
    """The penalty of a point: what the user's function makes of it, or the sum of those in it."""
    if penalty is not None:
        made = penalty(point)
        if not isinstance(made, Penalty):
            raise TypeError(
                f"{owner}: `penalty` must return a penalty of a point, got {type(made).__name__}."
            )
        return made
    found = list(penalties_in(point).values())
    if not found:
        raise ValueError(
            f"{owner}: `penalty` must say which penalty was trained with, as the points hold none, got "
            "None. Give a function, such as lambda point: jaxreg.l2(point['lam'])."
        )
    return functools.reduce(operator.add, found)


def scale_of(
    owner: str, likelihood: str, trained: np.ndarray, mean: np.ndarray, rest: float, m: int,
    *, noise: float | None = None,
) -> float:  # fmt: skip
    """What the loss that was trained is of the mean negative log likelihood, beside a constant.

    Args:
      owner: who asks, for errors.
      likelihood: its name.
      trained: the training losses of lanes.
      mean: what the outputs of the same lanes give.
      rest: what `mean` leaves out.
      m: outputs of a row, which a loss may be a mean over.
      noise: of a Gaussian, with which the loss may have been made.

    Raises:
      ValueError: it is no such multiple that is known.
    """
    scales = [1.0, 2.0] if likelihood == "gaussian" else [1.0]
    scales += [s / m for s in scales] if likelihood != "categorical" else []
    forms = [(s, s * more) for s in scales for more in (0.0, rest)]
    if noise is not None:
        forms += [(noise**-2, more) for more in (0.0, 0.5 * m * np.log(2 * np.pi * noise**2))]
    room = _SAME * np.abs(trained) + 1e-3 * _SAME * max(1.0, np.abs(mean).max())
    miss = lambda form: float((np.abs(form[0] * mean + form[1] - trained) / room).max())
    best = min(forms, key=miss)
    if not miss(best) <= 1:
        raise ValueError(
            f"{owner}: `outputs` and `likelihood` must give the loss that was trained, as a mean negative "
            f"log likelihood of {likelihood!r}: of the first lane it is {mean[0]:.6g}, and its training "
            f"loss, got from `result`, is {trained[0]:.6g}. Give the rows that it was trained on, all of "
            "them, as `prepare` made them, and `outputs` as they are in the loss."
        )
    return best[0]
