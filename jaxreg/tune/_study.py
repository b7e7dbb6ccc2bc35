"""What a study of Optuna must be for its trials to be lanes of sweeps whose scores compare."""

from __future__ import annotations

import hashlib
import importlib
from typing import Any

import jax
import numpy as np

from jaxreg.sweeps.rows import Rows
from jaxreg.tune.space import Space

__all__ = ["check_study", "check_trials", "optuna", "scales"]

_NOTE = "jaxreg"  # the attribute of a study that says what its trials are


def optuna() -> Any:
    """The package, which a user may have.

    Raises:
      ImportError: it is not installed.
    """
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise ImportError(
            "ask_and_tell needs Optuna, which is not installed: pip install optuna. jaxreg.search does not."
        ) from error


def scales(space: Space) -> dict[str, Any]:
    """The ranges of a space as Optuna's distributions, on a logarithmic scale."""
    make = optuna().distributions.FloatDistribution
    return {name: make(low, high, log=True) for name, (low, high) in space.ranges.items()}


def check_study(study: Any, wanted: str, metric: str) -> None:
    """Refuse what is no study of one objective in the direction that is `wanted`.

    Raises:
      TypeError: it is no study. ValueError: it has several objectives, or goes the other way.
    """
    make = f"optuna.create_study(direction={wanted!r})"
    if not isinstance(study, optuna().study.Study):
        raise TypeError(
            f"ask_and_tell: `study` must be a study of Optuna, such as {make}, got {study!r:.80}."
        )
    if len(study.directions) != 1:
        raise ValueError(
            f"ask_and_tell: `study` must have one objective, got {len(study.directions)}. Give {make}, and "
            "look at other metrics in the result."
        )
    way = study.direction.name.lower()
    if way != wanted:
        raise ValueError(
            f"ask_and_tell: `study` must {wanted} {metric!r}, got one that would {way} it. Give {make}."
        )


def check_trials(study: Any, scale: dict[str, Any], rows: Rows, given: dict[str, Any]) -> list[str]:
    """Refuse a study whose trials do not compare with those that are `given`, and note what these are.

    Returns:
      What to warn of where that is not known.

    Raises:
      ValueError: they were trained otherwise, or a parameter has another scale.
    """
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        for name in scale.keys() & trial.distributions.keys():
            _check_scale(trial, name, scale[name])
    note, known = _note(rows, given), study.user_attrs.get(_NOTE)
    if known is None:
        study.set_user_attr(_NOTE, note)
        n = sum(trial.state.is_finished() for trial in trials)
        return [
            f"the study had {n} trials of another making, whose scores may not compare."
        ] * bool(n)
    odd = [name for name in note if known.get(name) != note[name]]
    if odd:
        raise ValueError(
            f"ask_and_tell: `study` must have trials that were trained alike, got {odd[0]} = "
            f"{known.get(odd[0])!r} there and {note[odd[0]]!r} here. Give a new study."
        )
    return []


def _check_scale(trial: Any, name: str, scale: Any) -> None:
    try:
        optuna().distributions.check_distribution_compatibility(trial.distributions[name], scale)
    except ValueError as error:
        raise ValueError(
            f"ask_and_tell: `study` must have {name!r} on a logarithmic scale, and trial {trial.number} "
            f"has {trial.distributions[name]}. Give a new study."
        ) from error


def _note(rows: Rows, given: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for scores to compare, as JSON has it."""
    made = {name: given.get(name) for name in ("metric", "steps", "batch_size")}
    digest = hashlib.sha256()
    for x in jax.tree.leaves((rows.prepared, rows.weights, rows.splits.table)):
        array = np.ascontiguousarray(x)
        digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    made |= {"seeds": given.get("seeds", 1), "key": str(given["key"])}
    return {**made, "rows and folds": digest.hexdigest()[:16]}
