"""What a term is: a strength and a scalar in the units of the loss, of whatever the loss gives it.

    term(given) = lam * value(given)

A term is made and printed like a penalty, and is a pytree whose numbers are leaves, so that strengths go
through grids and sweeps. It does not look at parameters by itself: the loss calls it with activations,
functions, samples, and returns (data loss, {name: term}).
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxreg._check import shown, strength, upcast
from jaxreg._tree import is_concrete
from jaxreg.value import Value, snake_name

__all__ = ["Term", "lam_of", "mean_over", "outputs_of", "rows_of"]


class Term(Value, abc.ABC):
    """A scalar of what the loss gives it, times a strength `lam`, the first field.

    A subclass declares its fields and `value`. Strengths that change while training are multiples,
    `factor(step) * term`, where the loss takes `step`.
    """

    lam: Any
    # numpy scalars must leave `factor * term` to us instead of making an object array.
    __array_ufunc__: ClassVar[None] = None

    @abc.abstractmethod
    def value(self, *given: Any, **more: Any) -> Array:
        """The scalar at a strength of 1, accumulated in float32 at least."""

    def __call__(self, *given: Any, **more: Any) -> Array:
        """lam * value(...)."""
        return self.lam * self.value(*given, **more)

    def __mul__(self, factor: ArrayLike) -> Term:
        if isinstance(factor, Value):
            return NotImplemented
        return dataclasses.replace(self, lam=_strength("term *", "factor", factor) * self.lam)

    __rmul__ = __mul__


def lam_of(owner: str, lam: ArrayLike) -> Array:
    """A strength: one number >= 0, as a floating array.

    Raises:
      TypeError: it is no number. ValueError: it is negative, NaN, or several.
    """
    return _strength(owner, "lam", lam)


def _strength(owner: str, name: str, value: Any) -> Array:
    if callable(value):
        raise TypeError(
            f"{owner}: `{name}` must be one number, got the function {value!r:.60}. Where a strength "
            "changes while training, the loss takes `step` and multiplies the term, schedule(step) * term."
        )
    checked = strength(owner, name, value, "For no term use 0.")
    if not isinstance(checked, Array) or checked.ndim:
        raise ValueError(
            f"{owner}: `{name}` must be one number, got {shown(value)}. Several terms have several "
            "names in the dict that the loss returns."
        )
    return checked


def rows_of(term: Term, name: str, x: Any, least: int, what: str) -> Array:
    """An array with at least so many axes, upcast.

    Raises:
      TypeError: it is none. ValueError: it has too few axes, or no entries.
    """
    owner = snake_name(type(term))
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise TypeError(f"{owner}: `{name}` must be an array {what}, got a {type(x).__name__}.")
    if jnp.ndim(x) < least or 0 in x.shape:
        raise ValueError(
            f"{owner}: `{name}` must be an array {what}, with entries, got shape {list(x.shape)}."
        )
    return upcast(x)


def mean_over(term: Term, each: Array, mask: Any) -> Array:
    """The mean of entries, or of those whose leading axes a mask of 0 and 1 keeps.

    Args:
      term: whose, for errors.
      each: the entries.
      mask: None, or an array of the first axes of `each`, such as [rows, times] of [rows, times, features].

    Raises:
      TypeError, ValueError: the mask is of another shape or kind, or it removes everything. A mask that
        is not known while tracing and removes everything makes the mean 0.
    """
    if mask is None:
        return jnp.mean(each)
    owner = snake_name(type(term))
    if not hasattr(mask, "shape") or mask.shape != each.shape[: len(mask.shape)] or not mask.shape:
        got = f"shape {list(mask.shape)}" if hasattr(mask, "shape") else f"a {type(mask).__name__}"
        raise ValueError(
            f"{owner}: `mask` must be an array of the first axes of {list(each.shape)}, got {got}."
        )
    kept = jnp.reshape(mask != 0, (*mask.shape, *[1] * (each.ndim - len(mask.shape))))
    if is_concrete(mask) and not np.asarray(mask).any():
        raise ValueError(f"{owner}: `mask` must keep something, got one that removes everything.")
    count = jnp.sum(kept) * (each.size // kept.size)
    # Where it removes, a NaN is silenced as well, hence `where` and not a plain product.
    return jnp.sum(jnp.where(kept, each, 0)) / jnp.maximum(count, 1)


def outputs_of(term: Term, fun: Any, x: Array) -> Any:
    """The shape of what a function gives for rows.

    Raises:
      TypeError: it is no function. ValueError: it gives something else than an output for each row.
    """
    if not callable(fun):
        raise TypeError(
            f"{term.label}: `fun` must be a function of the inputs, such as lambda x: model(params, x), "
            f"got {fun!r:.60}."
        )
    shape = jax.eval_shape(fun, x)
    if getattr(shape, "shape", ())[:1] != x.shape[:1]:
        raise ValueError(
            f"{term.label}: `fun` must give outputs for each of {len(x)} rows, got shape "
            f"{list(getattr(shape, 'shape', ()))}."
        )
    return shape
