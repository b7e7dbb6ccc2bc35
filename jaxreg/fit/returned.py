"""What a loss takes, and the parts of what it returns."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from jaxreg._tree import PyTree
from jaxreg.objective import booked

__all__ = ["Left", "data_of", "takes", "takes_weights", "term_of"]


class Left(NamedTuple):
    """What a loss leaves beside the number that is trained on."""

    model_state: PyTree
    params: PyTree  # with the statistics that the call changed
    loss: Array  # the data loss alone
    terms: dict[str, Array]


class Through:
    """A part of what a loss returns, with the signature of the loss."""

    def __init__(self, loss: Callable[..., Any], part: Callable[[Any], Any]):
        self._loss, self._part = loss, part
        functools.update_wrapper(self, loss, assigned=(), updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._part(self._loss(*args, **kwargs))


def data_of(loss: Callable[..., Any]) -> Through:
    """The data loss alone."""
    return Through(loss, lambda returned: booked(returned)[0])


def term_of(loss: Callable[..., Any], name: str) -> Through:
    """One of the terms."""
    return Through(loss, lambda returned: booked(returned)[1][name])


def takes_weights(fn: Callable) -> bool:
    """Whether a loss or metric has an argument `sample_weight`."""
    return takes(fn, "sample_weight")


def takes(fn: Callable, name: str) -> bool:
    """Whether a function has an argument of this name."""
    try:
        return name in inspect.signature(fn).parameters
    except (TypeError, ValueError):  # a builtin that does not tell its arguments
        return False
