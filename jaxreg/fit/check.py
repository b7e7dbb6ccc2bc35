"""What is wrong with a function of the point is said before anything compiles.

The function is traced on shapes; its optimizer, made at one concrete point, is asked whether it applies
the penalty with the right sign; and the trace of one update tells what it does not depend on.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax import Array

from jaxreg import _tree
from jaxreg._tree import PyTree
from jaxreg.coupling import check_coupling
from jaxreg.fit.trainer import MakeTrainer, Trainer, TrainState
from jaxreg.objective import penalties_in, terms_in
from jaxreg.penalty import Penalty

__all__ = ["check", "frozen", "trainer_at", "unused"]

# How many functions and shapes are remembered: sweeps of the same kind come again and again.
_REMEMBERED = 128
# Functions and structures of points whose coupling was found right.
_COUPLINGS_CHECKED: set[tuple] = set()
_EXAMPLE = (
    "a function of the point that returns one, as in def trainer(reg): return jaxreg.Trainer(init, loss, "
    "optax.chain(jaxreg.add_penalty_gradient(reg), optax.adam(1e-3)))"
)


def trainer_at(owner: str, trainer: MakeTrainer, point: PyTree) -> Trainer:
    """The trainer at a point.

    Raises:
      TypeError: `trainer` is no function of a point that returns a `Trainer`.
    """
    _check_kind(owner, trainer)
    made = trainer(point)
    if not isinstance(made, Trainer):
        raise TypeError(f"{owner}: `trainer` must be {_EXAMPLE}; it returned {_kind(made)}.")
    return made


def _check_kind(owner: str, trainer: Any) -> None:
    if isinstance(trainer, (Trainer, Penalty, optax.GradientTransformation)) or not callable(
        trainer
    ):
        raise TypeError(
            f"{owner}: `trainer` must be {_EXAMPLE}; got a {type(trainer).__name__} itself."
        )
    try:
        hash(trainer)
    except TypeError as error:
        raise TypeError(
            f"{owner}: `trainer` must be hashable, since compiled programs are found by it, and a "
            f"{type(trainer).__name__} is not. Give a function."
        ) from error


def _kind(x: Any) -> str:
    return "None" if x is None else f"a {type(x).__name__}"


def check(owner: str, trainer: MakeTrainer, point: PyTree, key: Array) -> TrainState:
    """Raise what is wrong with the trainer at a point, before anything compiles.

    Returns:
      The shapes of the initial state, as `jax.ShapeDtypeStruct`.

    Raises:
      TypeError: `trainer` makes no trainer, or the penalty does not suit a parameter.
      ValueError: the optimizer applies the penalty with the wrong sign.
    """
    _check_kind(owner, trainer)
    # Traced first: what a factory keeps of its first point is then a tracer, which shows at the second.
    state = _shapes(owner, trainer, *frozen((point, key)))
    if not all(_tree.is_concrete(x) for x in jax.tree.leaves(point)):
        return state
    # Signs do not depend on how large a strength is, so they are looked at once for all of them.
    shapes = tuple((x.shape, x.dtype) for x in jax.tree.leaves(state.params))
    zeros = tuple(not np.any(np.asarray(x)) for x in jax.tree.leaves(point))
    asked = (trainer, jax.tree.structure((point, state.params)), shapes, zeros)
    if asked not in _COUPLINGS_CHECKED:
        found = penalties_in(point)
        if found:
            whole = functools.reduce(operator.add, found.values())
            optimizer = trainer_at(owner, trainer, point).optimizer
            check_coupling(optimizer, whole, state.params)
        if len(_COUPLINGS_CHECKED) >= _REMEMBERED:
            _COUPLINGS_CHECKED.clear()
        _COUPLINGS_CHECKED.add(asked)
    return state


def frozen(tree: PyTree) -> tuple[Any, tuple]:
    """The structure of a tree and the shapes of its leaves, both hashable."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves)


@functools.lru_cache(maxsize=_REMEMBERED)
def _shapes(owner: str, trainer: MakeTrainer, structure: Any, leaves: tuple) -> TrainState:
    """Shapes of the initial state; raises what is wrong with functions and penalties."""
    point, key = jax.tree.unflatten(structure, leaves)
    start = lambda point, key: trainer_at(owner, trainer, point).start(key)
    state = _traced(owner, start, point, key)
    values = lambda point, params: [term(params) for term in terms_in(point).values()]
    jax.eval_shape(values, point, state.params)
    return state


def _traced(owner: str, fn: Callable, *args: Any) -> Any:
    """`fn` on shapes, twice: a number that left the first trace is met in the second."""
    try:
        jax.eval_shape(lambda *args: fn(*args), *args)
        return jax.eval_shape(fn, *args)
    except jax.errors.UnexpectedTracerError as error:
        raise TypeError(
            f"{owner}: a number of the point left `trainer`: it was kept outside (in a global, a cache, an "
            "attribute) in one call and used in another. Make everything anew from the point in each call."
        ) from error


def unused(
    owner: str, trainer: MakeTrainer, point: PyTree, state: TrainState, data: tuple, key: Array
) -> tuple[list[str], list[str]]:
    """What of the point does nothing.

    Args:
      owner: who asks.
      trainer: the function of the point.
      point: any point.
      state: the shapes of its initial state.
      data: one batch, or its shapes.
      key: any PRNG key of the kind in use.

    Returns:
      (penalties, numbers): names of the terms whose strengths no update depends on, and paths of other
      numbers that neither the start nor an update nor an evaluation depends on.
    """
    return _unused(owner, trainer, *frozen((point, state, data, key)))


@functools.lru_cache(maxsize=_REMEMBERED)
def _unused(owner: str, trainer: MakeTrainer, structure: Any, leaves: tuple) -> tuple:
    point, state, data, key = jax.tree.unflatten(structure, leaves)

    def update(point, state, data, key):
        return trainer_at(owner, trainer, point).step(state, data, key)[0]

    def around(point, state, data, key):
        made = trainer_at(owner, trainer, point)
        return made.start(key), made.evaluate(state, data)

    paths = _tree.flatten(point).paths
    moved, elsewhere = (
        _reached(jax.make_jaxpr(fn)(point, state, data, key).jaxpr)[: len(paths)]
        for fn in (update, around)
    )
    numbered = iter(range(len(paths)))
    indices = jax.tree.map(lambda _: next(numbered), point)
    terms = {name: jax.tree.leaves(term) for name, term in terms_in(indices).items()}
    of_penalty = {i for penalty in penalties_in(indices).values() for i in jax.tree.leaves(penalty)}
    idle = [n for n, mine in terms.items() if mine and not any(moved[i] for i in mine)]
    rest = [
        path
        for i, path in enumerate(paths)
        if i not in of_penalty and not (moved[i] or elsewhere[i])
    ]
    return idle, rest


def _reached(jaxpr: Any, wanted: Sequence[bool] | None = None) -> list[bool]:
    """Which inputs the `wanted` outputs depend on.

    An equation's outputs are taken to depend on all its inputs, but for a call that can be looked into.
    """
    is_variable = lambda v: not hasattr(v, "val")
    flags = [True] * len(jaxpr.outvars) if wanted is None else wanted
    needed = {v for v, want in zip(jaxpr.outvars, flags) if want and is_variable(v)}
    for eqn in reversed(jaxpr.eqns):
        hit = [v in needed for v in eqn.outvars]
        if not any(hit):
            continue
        called = eqn.primitive.name in ("jit", "pjit")
        used = _reached(eqn.params["jaxpr"].jaxpr, hit) if called else [True] * len(eqn.invars)
        needed |= {v for v, u in zip(eqn.invars, used) if u and is_variable(v)}
    return [v in needed for v in jaxpr.invars]
