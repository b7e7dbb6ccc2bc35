"""What a loss takes and returns: a scalar, or the data loss with its terms by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxreg._tree import PyTree

__all__ = ["Left", "booked", "data_of", "takes", "takes_weights", "term_of", "total"]


class Left(NamedTuple):
    """What a loss leaves beside the number that is trained on."""

    model_state: PyTree
    params: PyTree  # with the statistics that the call changed
    loss: Array  # the data loss alone
    terms: dict[str, Array]


def booked(returned: Any) -> tuple[Any, dict[str, Any]]:
    """The data loss and the terms that a loss returned, of which there may be none."""
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping):
        return returned[0], dict(returned[1])
    return returned, {}


def total(data: Any, terms: Mapping[str, Any]) -> Any:
    """What is trained on, in the dtype of the data loss."""
    for value in terms.values():
        data = data + jnp.asarray(value).astype(jnp.result_type(data))
    return data


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
