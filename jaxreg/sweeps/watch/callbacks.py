"""Callbacks: your own code beside a running sweep, which cannot harm it.

A sweep calls each callback once at its start, at every evaluation and at its end. What it hands out
are numpy arrays in named axes (point, fold, seed), read-only, on the first process only. A callback
that raises is switched off and the sweep goes on; what happened is told at the end.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxreg.results import SweepResult

__all__ = ["Callback", "Callbacks", "Evaluation", "Outline"]


class Outline(NamedTuple):
    """What a sweep is about to do.

    `coords` maps a name to the coordinate of each point, [K]; there are K x `folds` x `seeds`
    lanes of `steps` updates each. `metrics` names what is measured, the loss first, `terms` the terms of
    the penalties; `made_by` is the JSON text of everything that makes the sweep.

    >>> Outline({"lam": np.array([0.1, 1.0])}, 5, 3, 1000, ("loss",), ("l2",), "{}").coords["lam"].tolist()
    [0.1, 1.0]
    """

    coords: dict[str, np.ndarray]
    folds: int
    seeds: int
    steps: int
    metrics: tuple[str, ...]
    terms: tuple[str, ...]
    made_by: str


class Evaluation(NamedTuple):
    """What the lanes were measured at after `step` updates.

    `train` and `valid` map a metric to [K, F, S] on the training and the validation rows; "loss" is
    the data loss, never with a penalty in it. `terms` maps each term of the penalties to its value
    [K, F, S], `alive` [K, F, S] says which lanes still run; those that do not have NaN.

    >>> ones = np.ones((2, 1, 1))
    >>> Evaluation(10, {"loss": ones}, {"loss": ones}, {}, ones > 0).valid["loss"].shape
    (2, 1, 1)
    """

    step: int
    train: dict[str, np.ndarray]
    valid: dict[str, np.ndarray]
    terms: dict[str, np.ndarray]
    alive: np.ndarray

    @property
    def penalty(self) -> np.ndarray:
        """R(params) [K, F, S]: the sum of the terms."""
        return sum(self.terms.values(), start=np.zeros(self.alive.shape, np.float32))


class Callback:
    """The base class: override the methods you need; the others do nothing.

    >>> class Print(Callback):
    ...     def evaluated(self, evaluation):
    ...         print(evaluation.step, evaluation.valid["loss"].mean())
    >>> ones = np.ones((2, 1, 1))
    >>> Callbacks([Print()]).evaluated(Evaluation(10, {}, {"loss": ones}, {}, ones > 0))
    10 1.0
    """

    def start(self, outline: Outline) -> None:
        """Called once, before the first step."""

    def evaluated(self, evaluation: Evaluation) -> None:
        """Called at every evaluation, in the order of the steps.

        Where lanes were added to a sweep, theirs come first, from step 0; `alive` says which they are.
        """

    def finish(self, result: SweepResult) -> None:
        """Called once with what the sweep returns."""


class Callbacks:
    """Calls several callbacks in their order and switches off those that raise.

    Args:
      callbacks: instances of `Callback`.

    Raises:
      TypeError: one of them is none.

    >>> class Broken(Callback):
    ...     def evaluated(self, evaluation):
    ...         raise OSError("disk full")
    >>> calls, ones = Callbacks([Broken()]), np.ones((2, 1, 1))
    >>> calls.evaluated(Evaluation(10, {}, {}, {}, ones > 0))
    >>> calls.report()
    ['callbacks[0] (Broken) raised in `evaluated` at step 10 and was switched off: OSError: disk full ...']
    """

    def __init__(self, callbacks: Sequence[Callback] = ()):
        if not isinstance(callbacks, Sequence):
            raise TypeError(
                f"sweep: `callbacks` must be a list of Callback objects, got {callbacks!r}. "
                "Write callbacks=[...] around a single one."
            )
        for i, callback in enumerate(callbacks):
            if not isinstance(callback, Callback):
                raise TypeError(
                    f"sweep: `callbacks[{i}]` must be an object of a subclass of jaxreg.Callback, "
                    f"got {callback!r}."
                )
        self._running = dict(enumerate(callbacks))
        self._report: list[str] = []
        self._step = 0

    def start(self, outline: Outline) -> None:
        """Pass on the start of the sweep."""
        self._call("start", outline._replace(coords=_read_only(outline.coords)))

    def evaluated(self, evaluation: Evaluation) -> None:
        """Pass on an evaluation."""
        self._step = int(evaluation.step)
        self._call("evaluated", Evaluation(self._step, *map(_read_only, evaluation[1:])))

    def finish(self, result: SweepResult) -> None:
        """Pass on the result."""
        self._call("finish", result)

    def report(self) -> list[str]:
        """One text for each callback that was switched off: which, where, when and why."""
        return list(self._report)

    def _call(self, method: str, argument: Any) -> None:
        if jax.process_index() != 0:
            return
        for i, callback in list(self._running.items()):
            try:
                getattr(callback, method)(argument)
            except Exception as error:
                # Only texts are kept: a traceback would hold on to the arrays of its frames.
                del self._running[i]
                where = f"callbacks[{i}] ({type(callback).__name__})"
                when = "" if method == "start" else f" at step {self._step}"
                self._report.append(
                    f"{where} raised in `{method}`{when} and was switched off: {_told(error)}"
                )


def _told(error: Exception) -> str:
    """The error and the last line of its traceback."""
    text = traceback.format_exception_only(error)[-1].strip()
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{text} ({last.filename}:{last.lineno}, in {last.name}: {last.line})"


def _read_only(value: Any) -> Any:
    """Views that a callback cannot write through, since all share the arrays of the sweep."""
    if isinstance(value, dict):
        return {name: _read_only(v) for name, v in value.items()}
    view = np.asarray(value).view()
    view.flags.writeable = False
    return view
