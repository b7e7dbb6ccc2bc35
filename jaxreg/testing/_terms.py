"""The laws of a term: what must hold of anything that a loss adds and a sweep gives strengths to."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg import _tree
from jaxreg.terms import Term
from jaxreg.testing._case import DoesNotApply, LawViolation
from jaxreg.testing._check import Report

__all__ = ["TERM_LAWS", "check_term"]

TERM_LAWS = {
    "scale": "twice the strength is twice the value, which is the derivative by the strength times it",
    "absent": "at a strength of 0 the value is 0, and so is every derivative by what it is given",
    "batch": "the same rows twice give the same value: a mean over rows and no sum",
    "mask": "a mask of ones is none, and rows that a mask removes change nothing, NaN among them",
    "length": "steps in time that a mask removes change nothing, NaN among them",
    "key": "the same key gives the same value, and another key another one",
    "jit": "compiled it is what it is eagerly",
    "vmap": "over strengths it is a loop over them",
    "gradient": "its derivative by what it is given is a central difference, in float64",
    "narrow": "of bfloat16 it is accumulated in float32",
}


def check_term(
    term: Term,
    given: Callable[[int], tuple],
    *,
    time_axis: int | None = None,
    tolerance: float = 1e-4,
) -> Report:
    """Put a term, yours or a built-in one, through every law that a term must obey.

    Args:
      term: the term, at any strength above 0.
      given: rows -> what the term is called with for so many rows: arrays with the rows first, functions,
        PRNG keys. The same every time.
      time_axis: which axis of the first array is time; where given, and the term takes `mask`, padding
        in time is tried too.
      tolerance: relative, of values in float32.

    Returns:
      A `Report` with the laws of `TERM_LAWS` that hold and, for the others, why they do not apply.

    Raises:
      LawViolation: a law fails; it says which and how. TypeError: `term` is none, or `given` no function
        that returns a tuple.

    >>> import jax, jaxreg as jr
    >>> from jaxreg.testing import check_term
    >>> rows = lambda n: (jax.random.normal(jax.random.key(0), (n, 3)),)
    >>> "batch" in check_term(jr.terms.activity_l1(0.5), rows).passed
    True
    """
    if not isinstance(term, Term):
        raise TypeError(
            f"check_term: `term` must be a jaxreg.terms.Term, got {term!r:.80}. Give an instance, such as "
            "jaxreg.terms.activity_l1(0.5)."
        )
    args = given(_ROWS) if callable(given) else given
    if not isinstance(args, tuple):
        raise TypeError(
            "check_term: `given` must be a function rows -> tuple of arguments of the term, got "
            f"{given!r:.60}."
        )
    asked = _Asked(term, args, time_axis, tolerance)
    reasons = {name: _tried(name, law, asked) for name, law in _LAWS.items()}
    passed = tuple(name for name, reason in reasons.items() if reason is None)
    return Report(repr(term), passed, {k: v for k, v in reasons.items() if v is not None})


_ROWS = 6


class _Asked(NamedTuple):
    term: Term
    args: tuple
    time_axis: int | None
    tolerance: float

    @property
    def masked(self) -> bool:
        return "mask" in inspect.signature(self.term.value).parameters

    @property
    def keys(self) -> list[int]:
        return [i for i, x in enumerate(self.args) if _is_key(x)]

    def of_rows(self, change: Callable[[Any], Any]) -> tuple:
        """The arguments with every array of rows changed."""
        has_rows = lambda x: _tree.is_array(x) and not _is_key(x) and np.shape(x)[:1] == (_ROWS,)
        return tuple(change(x) if has_rows(x) else x for x in self.args)

    def same(self, law: str, got: Any, wanted: Any, what: str, wide: float = 1.0) -> None:
        room = wide * self.tolerance * (np.abs(np.asarray(wanted)).max() + 1e-6)
        if not np.all(np.abs(np.asarray(got, float) - np.asarray(wanted, float)) <= room):
            self.fail(law, f"{what}: {np.asarray(got)} and not {np.asarray(wanted)}")

    def fail(self, law: str, detail: str) -> None:
        raise LawViolation(law, repr(self.term), f"{detail}. The law: {TERM_LAWS[law]}.")


def _is_key(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _tried(name: str, law: Callable[[_Asked], None], asked: _Asked) -> str | None:
    try:
        law(asked)
    except DoesNotApply as reason:
        return str(reason)
    return None


def _slope(asked: _Asked, term: Term, args: tuple) -> Any:
    """The derivatives by the floating arguments."""
    moves = [i for i, x in enumerate(args) if _tree.is_floating(x)]
    if not moves:
        raise DoesNotApply("no argument is a floating array")
    put = lambda some: term(
        *(some[moves.index(i)] if i in moves else x for i, x in enumerate(args))
    )
    return jax.grad(put)([args[i] for i in moves])


def _scale(asked: _Asked) -> None:
    value = asked.term(*asked.args)
    asked.same("scale", (2.0 * asked.term)(*asked.args), 2 * value, "at twice the strength")
    by = jax.grad(lambda t: t(*asked.args), allow_int=True)(asked.term)
    asked.same("scale", by.lam * asked.term.lam, value, "the derivative by the strength, times it")


def _absent(asked: _Asked) -> None:
    off = 0.0 * asked.term
    if float(off(*asked.args)) != 0:
        asked.fail("absent", f"at a strength of 0 it is {float(off(*asked.args)):.3g}")
    if any(np.asarray(x).any() for x in jax.tree.leaves(_slope(asked, off, asked.args))):
        asked.fail("absent", "at a strength of 0 it has a derivative")


def _batch(asked: _Asked) -> None:
    if asked.keys:
        raise DoesNotApply("it is random, so rows draw apart")
    twice = asked.of_rows(lambda x: jnp.concatenate([x, x]))
    asked.same("batch", asked.term(*twice), asked.term(*asked.args), "with every row twice")


def _mask(asked: _Asked) -> None:
    if not asked.masked:
        raise DoesNotApply("it takes no `mask`")
    value = asked.term(*asked.args)
    asked.same("mask", asked.term(*asked.args, mask=jnp.ones(_ROWS)), value, "with a mask of ones")
    more = asked.of_rows(lambda x: jnp.concatenate([x, jnp.full_like(x[:2], jnp.nan)]))
    mask = jnp.arange(_ROWS + 2) < _ROWS
    asked.same("mask", asked.term(*more, mask=mask), value, "with two rows that are removed")


def _length(asked: _Asked) -> None:
    if asked.time_axis is None or not asked.masked:
        raise DoesNotApply("it takes no `mask`" if not asked.masked else "no `time_axis` was given")
    h, *rest = asked.args
    axis = asked.time_axis % h.ndim
    tail = jnp.full_like(jnp.take(h, jnp.arange(2), axis), jnp.nan)
    longer = jnp.concatenate([h, tail], axis)
    mask = jnp.arange(longer.shape[axis]) < h.shape[axis]
    mask = jnp.broadcast_to(mask.reshape(-1, *[1] * (1 - axis)), longer.shape[:2])
    value = asked.term(h, *rest)
    asked.same(
        "length", asked.term(longer, *rest, mask=mask), value, "with two steps that are removed"
    )


def _key(asked: _Asked) -> None:
    if not asked.keys:
        raise DoesNotApply("it takes no key")
    first = asked.keys[0]
    other = list(asked.args)
    other[first] = jax.random.fold_in(asked.args[first], 1)
    if asked.term(*asked.args) != asked.term(*asked.args):
        asked.fail("key", "the same key gives another value")
    if asked.term(*asked.args) == asked.term(*other):
        asked.fail(
            "key", "another key gives the same value: a key that is not used, or made inside"
        )


def _jit(asked: _Asked) -> None:
    static = [i for i, x in enumerate(asked.args) if not _tree.is_array(x)]
    compiled = jax.jit(lambda t, *args: t(*args), static_argnums=[i + 1 for i in static])
    asked.same("jit", compiled(asked.term, *asked.args), asked.term(*asked.args), "compiled")


def _vmap(asked: _Asked) -> None:
    factors = jnp.array([0.0, 0.5, 2.0])
    lanes = jax.vmap(lambda f: (f * asked.term)(*asked.args))(factors)
    loop = [(float(f) * asked.term)(*asked.args) for f in factors]
    asked.same("vmap", lanes, jnp.stack(loop), "over strengths")


def _gradient(asked: _Asked) -> None:
    with jax.enable_x64(True):
        wide = lambda x: jnp.asarray(x, jnp.float64) if _tree.is_floating(x) else x
        args, term = tuple(map(wide, asked.args)), jax.tree.map(wide, asked.term)
        moves = [i for i, x in enumerate(args) if _tree.is_floating(x)]
        slopes = _slope(asked, term, args)
        ways = [jax.random.normal(jax.random.key(i), args[i].shape, jnp.float64) for i in moves]
        at = lambda h: term(
            *(x + h * ways[moves.index(i)] if i in moves else x for i, x in enumerate(args))
        )
        difference = (at(1e-6) - at(-1e-6)) / 2e-6
        got = sum(jnp.sum(s * w) for s, w in zip(slopes, ways))
    if not np.isclose(got, difference, rtol=1e-4, atol=1e-7 * (1 + abs(float(term(*args))))):
        asked.fail("gradient", f"along a direction it is {got:.6g} and not {difference:.6g}")


def _narrow(asked: _Asked) -> None:
    some = tuple(x.astype(jnp.bfloat16) if _tree.is_floating(x) else x for x in asked.args)
    value = asked.term(*some)
    if value.dtype != jnp.float32:
        asked.fail("narrow", f"of bfloat16 it is {value.dtype}")
    back = tuple(x.astype(jnp.float32) if _tree.is_floating(x) else x for x in some)
    asked.same("narrow", value, asked.term(*back), "of bfloat16", wide=300.0)


_LAWS: dict[str, Callable[[_Asked], None]] = {
    "scale": _scale, "absent": _absent, "batch": _batch, "mask": _mask, "length": _length, "key": _key,
    "jit": _jit, "vmap": _vmap, "gradient": _gradient, "narrow": _narrow,
}  # fmt: skip
