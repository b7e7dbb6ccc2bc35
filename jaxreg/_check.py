"""Checks at the door, and how strengths print.

Only concrete values are checked: traced strengths pass, so that `vmap`, `grad` and `jit` over a
penalty work, and a gradient, which is itself a penalty with negative strengths, can be built.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._tree import PyTree

_ENDLESS = 1e30
_NOT_NEGATIVE = (lambda a: a >= 0), "be >= 0 and not NaN"


def strength(
    owner: str, name: str, value: ArrayLike | PyTree, absent: str = "For no penalty use Zero()."
) -> PyTree:
    """`value` as float arrays, leaf by leaf; refuses negative and NaN ones; `absent` says what is none.

    What is above 1e30 becomes that, far beyond every limit in float32: 0 * inf is NaN, and a penalty
    of any strength is 0 at 0, with a gradient of 0.

    Raises:
      TypeError: a leaf is no number. ValueError: it is negative or NaN.
    """
    remedy = f" {absent}" if name in ("lam", "factor") else ""
    return jax.tree.map(_finite, _checked(owner, name, value, *_NOT_NEGATIVE, remedy))


def size(owner: str, name: str, value: ArrayLike | PyTree) -> PyTree:
    """`value` as float arrays, leaf by leaf; refuses negative and NaN ones, and inf is without a bound."""
    return _checked(owner, name, value, *_NOT_NEGATIVE, "")


def _finite(x: Array) -> Array:
    if _tree.is_concrete(x) and not (np.asarray(x) > _ENDLESS).any():
        return x
    return jnp.minimum(x, _ENDLESS)


def above(
    owner: str, name: str, value: ArrayLike | PyTree, bound: float, remedy: str = ""
) -> PyTree:
    """`value` as float arrays, leaf by leaf; refuses those that are not > `bound`."""
    return _checked(owner, name, value, lambda a: a > bound, f"be > {bound:g}", remedy)


def number(owner: str, name: str, value: ArrayLike | PyTree) -> PyTree:
    """`value` as float arrays of either sign, leaf by leaf; refuses NaN."""
    return _checked(owner, name, value, lambda a: ~np.isnan(a), "not be NaN", "")


def within(
    owner: str, name: str, value: Any, low: float, high: float, ends: str = "both excluded"
) -> None:
    """Refuse what is no number between two others; without the ends, or with the lower one.

    Raises:
      TypeError: it is no number. ValueError: it is outside.
    """
    number(owner, name, value)
    if not _tree.is_concrete(value):
        return
    inside = low < value < high or (ends != "both excluded" and value == low)
    if not inside:
        raise ValueError(
            f"{owner}: `{name}` must be between {low:g} and {high:g}, {ends}, got {value!r}."
        )


def _checked(
    owner: str,
    name: str,
    value: ArrayLike | PyTree,
    holds: Callable[[np.ndarray], Any],
    must: str,
    remedy: str,
) -> PyTree:
    def check(x):
        if isinstance(x, (bool, str, bytes)) or x is None:
            raise TypeError(
                f"{owner}: `{name}` must be a number, an array or a pytree of them, got {x!r}."
            )
        try:
            array = _as_array(x, at_least_float(x))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{owner}: `{name}` must be a number, an array or a pytree of them, got {x!r}."
            ) from error
        if _tree.is_concrete(array) and not np.all(holds(np.asarray(array))):
            raise ValueError(f"{owner}: `{name}` must {must}, got {shown(x)}.{remedy}")
        return array

    return jax.tree.map(check, value, is_leaf=lambda x: x is None)


def flag(owner: str, name: str, value: Any) -> bool:
    """True or False, also numpy's; a text such as "no" would count as True.

    Raises:
      TypeError: it is neither.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{owner}: `{name}` must be True or False, got {shown(value)}.")
    return bool(value)


def misfit(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str | None:
    """Why a function cannot be called so; None if it can, or is a builtin that does not tell."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    except ValueError:
        return None
    return None


def _as_array(x: Any, dtype: Any) -> Array:
    """An array of jax; what is none yet is moved to the device on purpose, and nothing is compiled."""
    if isinstance(x, Array):
        return jnp.asarray(x, dtype)  # a value stays one where nothing is to do
    array = np.asarray(x)
    if array.dtype.kind == "c":
        raise TypeError("complex numbers have no order")
    return _tree.placed(array.astype(dtype))


def count(owner: str, name: str, value: Any, least: int = 1) -> int:
    """A number of things as int, also if it is one of numpy's.

    Raises:
      ValueError: it is no integer, below `least`, or more than 32 bits hold.
    """
    number = integer(value)
    if number is None or number < least:
        raise ValueError(
            f"{owner}: `{name}` must be an integer of at least {least}, got {value!r}."
        )
    if number >= 2**31:
        raise ValueError(
            f"{owner}: `{name}` must be below 2**31, as programs count in 32 bits, got {number}."
            + " Train in several calls, each from where the last one ended." * (name == "steps")
        )
    return number


def integer(value: Any) -> int | None:
    """`value` as int, also if it is one of numpy's; None if it is no integer."""
    try:
        return None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        return None


def check_key(owner: str, key: Any, remedy: str = "") -> None:
    """Refuse what is no PRNG key.

    Raises:
      TypeError: with what is one.
    """
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    raw = dtype == np.uint32 and shape is not None and len(shape) == 1
    if not typed and not raw:
        raise TypeError(
            f"{owner}: `key` must be one PRNG key, such as jax.random.key(0), got {thing(key)}.{remedy}"
        )


def thing(x: Any) -> str:
    """What an argument is, in words: plain values as they are, others by type and shape."""
    if isinstance(x, (bool, int, float, str)):
        return repr(x)[:60]
    shape = getattr(x, "shape", None)
    return f"a {type(x).__name__}" + (f" of shape {list(shape)}" if shape is not None else "")


def check_step(owner: str, step: ArrayLike | PyTree) -> PyTree:
    """`step` itself; refuses a negative or NaN number."""
    for s in jax.tree.leaves(step):
        if isinstance(s, bool) or not (hasattr(s, "dtype") or isinstance(s, (int, float))):
            raise TypeError(f"{owner}: `step` must be a number or a pytree of them, got {s!r}.")
        if _tree.is_concrete(s) and not np.all(np.asarray(s) >= 0):
            raise ValueError(f"{owner}: `step` must be >= 0 and not NaN, got {shown(s)}.")
    return step


def fitted(value: Any, x: Any, owner: str, name: str, path: str) -> Array:
    """`value` in the accumulator dtype of the leaf `x`: a scalar, or broadcastable at its rank.

    Raises:
      ValueError: the shapes do not fit; a vector of strengths must not be taken for columns.
    """
    value = jnp.asarray(value, _tree.accumulator(x))
    shape = jnp.shape(x)
    fits = value.ndim == len(shape) and all(a in (1, b) for a, b in zip(value.shape, shape))
    if value.ndim and not fits:
        ones = "".join([", None"] * (len(shape) - 1))
        stack = value.ndim == 1 < len(shape) and value.shape[0] == shape[0]
        layers = f" One for each layer of a stack is {name}[:{ones}]." if stack else ""
        raise ValueError(
            f"{owner}: `{name}` has shape {value.shape} on the leaf {path!r} of shape {shape}. "
            "Give a scalar, or an array of the leaf's rank that broadcasts to it; for a sweep over "
            f"many strengths vmap over the penalty, or use jaxreg.grid.{layers}"
        )
    return value


def at_least_float(x: Any) -> Any:
    """float32 or, for wider input and under x64, the wider one."""
    dtype = getattr(x, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return jnp.result_type(float)
    # Without x64, a float64 of numpy's counts as float32; asking for it would warn.
    return jnp.promote_types(jax.dtypes.canonicalize_dtype(dtype), jnp.float32)


def upcast(x: Any) -> Array:
    return jnp.asarray(x, _tree.accumulator(x))


def kind(x: Any) -> str:
    dtype = getattr(x, "dtype", None)
    return f"of dtype {dtype}" if dtype is not None else f"a {type(x).__name__}"


def shown(value: Any) -> str:
    """A strength as text: numbers short, arrays by dtype and shape, pytrees by their keys."""
    leaves = jax.tree.leaves(value)
    if len(leaves) != 1 or leaves[0] is not value:
        return str(jax.tree.map(lambda x: _Text(shown(x)), value))
    if isinstance(value, (str, int, tuple)) or not hasattr(value, "dtype"):
        return f"{value:g}" if isinstance(value, float) else repr(value)
    if np.ndim(value) == 0 and _tree.is_concrete(value):
        return f"{float(value):g}"
    return f"{value.dtype}{list(np.shape(value))}"


class _Text(str):
    def __repr__(self):
        return str(self)
