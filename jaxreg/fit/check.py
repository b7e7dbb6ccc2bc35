"""What is wrong with a function of the point is said before anything compiles.

The function is traced on shapes; its optimizer, made at one concrete point, is asked whether it applies
the penalty with the right sign; and the trace of one update tells what it does not depend on.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxreg import _tree
from jaxreg._check import misfit
from jaxreg._tree import PyTree
from jaxreg.coupling import check_coupling
from jaxreg.fit.kept import kept, recent
from jaxreg.fit.shapes import check_functions
from jaxreg.fit.trainer import MakeTrainer, Trainer, TrainState, parts_of
from jaxreg.objective import penalties_in, terms_in
from jaxreg.penalty import Penalty

__all__ = ["Checked", "check", "check_signs", "frozen", "trainer_at"]

_EXAMPLE = (
    "a function of the point that returns one, as in def trainer(reg): return jaxreg.Trainer(init, loss, "
    "optax.chain(jaxreg.add_penalty_gradient(reg), optax.adam(1e-3)))"
)


def trainer_at(owner: str, trainer: MakeTrainer, point: PyTree, numbers: PyTree = None) -> Trainer:
    """The trainer at a point, with what was prepared for it.

    Raises:
      TypeError: `trainer` is no function of a point that returns a `Trainer`.
    """
    _check_kind(owner, trainer)
    made = trainer(point)
    if not isinstance(made, Trainer):
        raise TypeError(f"{owner}: `trainer` must be {_EXAMPLE}; it returned {_kind(made)}.")
    return made.with_numbers(numbers)


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
    if (why := misfit(trainer, None)) is not None:
        raise TypeError(f"{owner}: `trainer` must be {_EXAMPLE}; got {trainer!r}: {why}.")


def _kind(x: Any) -> str:
    return "None" if x is None else f"a {type(x).__name__}"


class Checked(NamedTuple):
    """What is known of a trainer before anything compiles."""

    state: TrainState  # shapes of the initial state, as `jax.ShapeDtypeStruct`
    idle_terms: tuple[str, ...]  # terms of penalties whose strengths no update depends on
    idle_numbers: tuple[str, ...]  # paths of other numbers of the point on which nothing depends
    terms: tuple[str, ...]  # names of terms of the loss


def check(
    owner: str,
    trainer: MakeTrainer,
    point: PyTree,
    batch: tuple,
    key: Array,
    numbers: PyTree = None,
) -> Checked:
    """Raise what is wrong with the trainer at a point, before anything compiles.

    Args:
      owner: who asks, for errors.
      trainer: the function of the point.
      point: any point of the kind in use.
      batch: the rows of a step, or their shapes.
      key: any PRNG key of the kind in use.
      numbers: what was prepared, or its shapes.

    Raises:
      TypeError: `trainer` makes no trainer, a number of the point left it, or the penalty does not suit a
        parameter.
    """
    _check_kind(owner, trainer)
    return _traced(trainer, owner, *frozen((point, batch, key, numbers)))


def check_signs(owner: str, trainer: MakeTrainer, point: PyTree, checked: Checked) -> None:
    """Ask the optimizer whether it applies the penalty with the right sign.

    After `check`: what a factory keeps of its first point is then a tracer, which shows at the second.

    Raises:
      ValueError: it does not.
    """
    if not all(_tree.is_concrete(x) for x in jax.tree.leaves(point)):
        return
    # Signs do not depend on how large a strength is, so they are looked at once for all of them.
    params, _ = parts_of(checked.state.params)
    shapes = tuple((x.shape, x.dtype) for x in jax.tree.leaves(params))
    zeros = tuple(not np.any(np.asarray(x)) for x in jax.tree.leaves(point))
    asked = (jax.tree.structure((point, params)), shapes, zeros)
    right = recent(trainer, "couplings that were found right")
    if asked not in right:
        found = penalties_in(point)
        if found:
            whole = functools.reduce(operator.add, found.values())
            check_coupling(trainer_at(owner, trainer, point).optimizer, whole, params)
        right.put(asked, True)


def frozen(tree: PyTree) -> tuple[Any, tuple]:
    """The structure of a tree and the shapes of its leaves, both hashable."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves)


@kept
def _traced(trainer: MakeTrainer, owner: str, structure: Any, leaves: tuple) -> Checked:
    """What traces of start, update and evaluation tell."""
    point, batch, key, numbers = jax.tree.unflatten(structure, leaves)
    at = functools.partial(trainer_at, owner, trainer)
    update = lambda point, state, batch, key, given: at(point, given).step(state, batch, key)[0]
    evaluate = lambda point, state, batch, given: at(point, given).evaluate(state, batch)
    values = lambda point, params: [term(params) for term in terms_in(point).values()]
    try:
        named = jax.eval_shape(
            lambda point, batch, key, given: check_functions(owner, at(point, given), batch, key),
            point, batch, key, numbers,
        )  # fmt: skip
        start, state = _uses(
            lambda point, key, given: at(point, given).start(key), point, key, numbers
        )
        jax.eval_shape(values, point, parts_of(state.params)[0])
        moved, _ = _uses(update, point, state, batch, key, numbers)
        judged, _ = _uses(evaluate, point, state, batch, numbers)
    except jax.errors.UnexpectedTracerError as error:
        raise TypeError(
            f"{owner}: a number of the point left `trainer`: it was kept outside (in a global, a cache, an "
            "attribute) in one call and used in another. Make everything anew from the point in each call."
        ) from error
    paths = _tree.flatten(point).paths
    count = iter(range(len(paths)))
    indices = jax.tree.map(lambda _: next(count), point)
    terms = {name: jax.tree.leaves(term) for name, term in terms_in(indices).items()}
    in_penalties = {i for p in penalties_in(indices).values() for i in jax.tree.leaves(p)}
    idle = [n for n, mine in terms.items() if mine and not any(moved[i] for i in mine)]
    used = [any(flags) for flags in zip(start, moved, judged)]
    rest = [p for i, p in enumerate(paths) if i not in in_penalties and not used[i]]
    return Checked(state, tuple(idle), tuple(rest), _loss_terms(owner, named, terms))


def _loss_terms(owner: str, found: dict, of_penalties: dict) -> tuple[str, ...]:
    """Names of the terms of the loss, which no penalty of the point may have too.

    Raises:
      ValueError: one has.
    """
    if twice := [name for name in found if name in of_penalties]:
        raise ValueError(
            f"{owner}: `loss` returns a term {twice[0]!r}, and that is the name of a penalty of the point "
            "already. Give it another name."
        )
    return tuple(found)


def _uses(fn: Callable, point: PyTree, *args: Any) -> tuple[list[bool], Any]:
    """Which numbers of the point `fn(point, *args)` depends on, and the shapes of what it returns."""
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(point, *args)
    for x in closed.consts:
        if not _tree.is_concrete(x):
            jnp.ravel(
                x
            )  # a number of an earlier trace raises here, one of a trace around this one does not
    return _reached(closed.jaxpr)[: len(jax.tree.leaves(point))], shapes


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
