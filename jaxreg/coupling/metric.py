"""The metric an optimizer measures its steps in, read from its state.

Near a fixed point an optimizer with constant gradient g moves by -s_i g_i, entry by entry, with

    s = gain * learning_rate / (sqrt(vhat + root) + eps)

where vhat is the second moment in its state (bias-corrected; for SGD there is none, and the
denominator is 1) and gain is what momentum makes of a constant gradient: 1 for Adam, 1/(1 - m) for
heavy ball and Nesterov. A proximal step taken in this metric, theta <- prox(theta + u, s), rests
exactly where 0 is in g + dR(theta): at the penalized problem's optimum, whatever the optimizer.

The second moment is in the state; `jaxreg.coupling.measure` finds the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxreg._check import upcast
from jaxreg._tree import PyTree, is_concrete

__all__ = ["Metric", "Moment", "second_moments", "settled", "steps"]

# A count at which every bias correction has gone, and which float32 still holds exactly.
_LATE = 2**24
_ENOUGH = 2**16  # entries of a leaf that tell its mean


class Metric(NamedTuple):
    """What turns second moments into steps, one number per leaf: [L] each."""

    gain: Array
    eps: Array
    root: Array
    # One minus the decay of the second moment; 1 where no bias is corrected.
    fresh: Array


class _Fields(NamedTuple):
    """Where a state keeps its moments; it divides by the first of `second`."""

    second: tuple[str, ...]
    first: tuple[str, ...] = ()
    corrected: bool = False


_MOMENTS = {
    "ScaleByAdamState": _Fields(("nu",), ("mu",), corrected=True),
    "ScaleByAmsgradState": _Fields(("nu_max", "nu"), ("mu",)),
    "ScaleByRmsState": _Fields(("nu",)),
    "ScaleByRmsWithCountState": _Fields(("nu",), corrected=True),
    "ScaleByRssState": _Fields(("sum_of_squares",)),
}


class Moment(NamedTuple):
    """The second moment of a leaf, and how many steps it has seen if its bias is corrected."""

    value: Any
    seen: Any | None

    def denominator(self, eps: Array, root: Array, fresh: Array) -> Array:
        """sqrt(vhat + root) + eps, in the shape of the moment."""
        v = upcast(self.value)
        if self.seen is not None:
            # 1 - decay^count by expm1: 1 - 0.999 has lost its digits in float32.
            v = v / -jnp.expm1(self.seen * jnp.log1p(-fresh.astype(v.dtype)))
        return jnp.sqrt(v + root) + eps


def steps(metric: Metric, state: PyTree, params: PyTree, learning_rate: ArrayLike) -> list[Array]:
    """The step of each leaf: a scalar, or an array of its shape where it has a second moment."""
    made = []
    for gain, *rest, moment in zip(*metric, second_moments(state, params)):
        step = gain * learning_rate
        if moment is not None:
            of = lambda v, moment=moment, rest=rest: moment._replace(value=v).denominator(*rest)
            step = step / where_seen(of, moment.value)
        made.append(step)
    return made


def where_seen(of: Callable[[Array], Array], source: Array) -> Array:
    """`of(source)`, and the leaf's mean of it where the source is 0; where all of it is, 1.

    Where no gradient has been seen a denominator would be eps, and a step of lr / eps would wipe out at
    once what only has not been in a batch yet, or sits below a head that starts from 0. Where a fixed
    point is does not depend on it: without gradient the optimizer does not move.

    The mean of a large leaf is that of every so many entries, which are read before `of` is applied: a sum
    over all of them would cost more than Adam itself, and so would a denominator that is stored.
    """
    some = jnp.ravel(source)[:: max(1, -(-source.size // _ENOUGH))]
    count = jnp.sum((some != 0).astype(jnp.float32))
    mean = jnp.sum(jnp.where(some != 0, of(some), 0)) / jnp.maximum(count, 1)
    return jnp.where(source != 0, of(source), jnp.where(count > 0, mean, 1))


def second_moments(state: PyTree, params: PyTree) -> list[Moment | None]:
    """The second moment of each leaf of `params`, found anywhere in `state`, or None."""
    found: list[Moment | None] = [None] * len(jax.tree.leaves(params))
    for node in filter(_is_moments, jax.tree.leaves(state, is_leaf=_is_moments)):
        fields = _MOMENTS[type(node).__name__]
        for i, v in _pairs(getattr(node, fields.second[0]), params):
            if i is not None:
                found[i] = Moment(v, node.count if fields.corrected else None)
    return found


def settled(state: PyTree, params: PyTree, first: ArrayLike, second: ArrayLike) -> PyTree:
    """The state as a long run at a constant gradient leaves it: its moments set, [L] values."""
    shape = (len(jax.tree.leaves(params)),)
    lib = np if is_concrete(first) and is_concrete(second) else jnp
    values = {"first": lib.broadcast_to(first, shape), "second": lib.broadcast_to(second, shape)}

    def settle(node):
        if not _is_moments(node):
            return node
        fields = _MOMENTS[type(node).__name__]
        new = {
            name: _filled(getattr(node, name), params, values[kind])
            for kind in values
            for name in getattr(fields, kind)
        }
        late = {"count": node.count + _LATE} if "count" in node._fields else {}
        return node._replace(**new, **late)

    return jax.tree.map(settle, state, is_leaf=_is_moments)


def _filled(moments: PyTree, params: PyTree, values: Any) -> PyTree:
    pairs = _pairs(moments, params)
    lib = np if is_concrete(values) else jnp
    filled = [
        v if i is None else jnp.asarray(lib.full(v.shape, values[i], v.dtype)) for i, v in pairs
    ]
    treedef = jax.tree.structure(moments, is_leaf=_is_masked)
    return jax.tree.unflatten(treedef, filled) if filled else moments


def _pairs(moments: PyTree, params: PyTree) -> list[tuple[int | None, Any]]:
    """The leaves of `moments`, each with the number of its parameter; None where masked out."""
    leaves, treedef = jax.tree.flatten(moments, is_leaf=_is_masked)
    slots, wanted = jax.tree.flatten(params, is_leaf=_is_masked)
    if treedef != wanted:
        return []
    numbers = itertools.count()
    index = [None if _is_masked(slot) else next(numbers) for slot in slots]
    return [(None if _is_masked(v) else i, v) for i, v in zip(index, leaves)]


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def _is_moments(node: Any) -> bool:
    return type(node).__name__ in _MOMENTS
