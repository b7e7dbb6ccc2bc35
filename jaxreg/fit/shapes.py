"""What a trainer's functions return, seen on shapes alone and judged before anything compiles."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxreg import _tree
from jaxreg._tree import PyTree
from jaxreg.coupling import told
from jaxreg.fit.trainer import Trainer, TrainState, parts_of
from jaxreg.objective import booked

__all__ = ["check_functions"]


def check_functions(owner: str, made: Trainer, batch: tuple, key: Array) -> dict[str, Array]:
    """Refuse what a trainer's functions cannot be called with, or must not return; to be traced.

    Args:
      owner: who asks, for errors.
      made: the trainer at a point.
      batch: the rows of a step.
      key: a PRNG key.

    Returns:
      The terms of the loss, by name.

    Raises:
      TypeError: naming the function, what it was given or returned, and what to do.
      ValueError: a loss or metric is no scalar, or the loss changes a module that `eval_loss` must know.
    """
    started = lambda: made.init(key, *made._numbers)
    returned = _called(owner, "init", started, "a PRNG key" + _also(made))
    _check_start(owner, made, returned)
    of_start = lambda: made.start(key)
    state = _called(owner, "optimizer", of_start, f"the parameters, {_shown(returned)}")
    with_key = ", with key=" if made.stochastic else ""
    given = f"{_of_model(state, made)} and a batch of {_shown(batch)}{with_key}"
    _, left = _called(owner, "loss", lambda: made.loss_of(state, batch, key)(state.params), given)
    _check_loss(owner, "loss", "the loss", left.loss, left.terms)
    _check_same(owner, "loss", "the model state", state.model_state, left.model_state)
    _refuse_changed(owner, made, state.params, left.params)
    _check_update(owner, made, state, batch, key)
    _check_judged(owner, made, state)
    judged = lambda fn: lambda: made.measured(fn, made.judged(state), batch)
    argument = "eval_loss" if made.eval_loss else "loss"
    data, terms = booked(
        _called(owner, argument, judged(made.eval_loss or made.loss), given, "the loss")
    )
    _check_loss(owner, argument, "the loss", data, terms)
    _check_names(owner, made, left.terms, terms)
    if left.terms:
        _refuse_unmoved(owner, made, state, batch, key, list(left.terms))
    for name, fn in made.metrics.items():
        what = f"the metric {name!r}"
        _check_scalar(owner, "metrics", what, _called(owner, "metrics", judged(fn), given, what))
    return terms


def _called(
    owner: str, argument: str, call: Callable[[], Any], given: str, what: str | None = None
) -> Any:
    """What a function of the user's returns; what it raises is told with what it was given."""
    try:
        return call()
    except (jax.errors.UnexpectedTracerError, RecursionError):
        raise
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
    ) as error:
        raise TypeError(
            f"{owner}: `{argument}` looks at a value that is not known yet, since it is compiled for all "
            "values. Use jnp in place of np, jnp.where in place of if, and no float() or int(). "
            f"Got {_first_line(error)}"
        ) from error
    except Exception as error:
        if _is_ours(error):
            raise
        which = f" ({what})" if argument == "metrics" else ""
        raise TypeError(
            f"{owner}: `{argument}`{which} must take {given}; called so, got {type(error).__name__}: "
            f"{_first_line(error)}"
        ) from error


def _is_ours(error: Exception) -> bool:
    """Whether it was raised by a line of this package, in whose words it is already; a call of the user's
    function that does not suit it is such a line, too."""
    if re.search(r"positional argument|keyword argument|required argument", str(error)):
        return False
    frames = list(traceback.walk_tb(error.__traceback__))
    return frames[-1][0].f_globals.get("__name__", "").partition(".")[0] == "jaxreg"


def _check_start(owner: str, made: Trainer, returned: Any) -> None:
    pair = isinstance(returned, tuple) and len(returned) == 2
    if made.stateful and not pair:
        raise TypeError(
            f"{owner}: `init` must return a pair, (params, model state), as the trainer is stateful, got "
            f"{_shown(returned)}."
        )
    params = returned[0] if made.stateful else returned
    if not jax.tree.leaves(_tree.held(params)):
        raise TypeError(
            f"{owner}: `init` must return parameters, a pytree of floating arrays, got {params!r}, which "
            "has none."
        )


def _check_loss(owner: str, argument: str, what: str, data: Any, terms: dict[str, Any]) -> None:
    _check_scalar(owner, argument, what, data)
    for name, value in terms.items():
        if not isinstance(name, str):
            raise TypeError(
                f"{owner}: `{argument}` must return (data loss, {{name: term}}) with names of text, got "
                f"{name!r}."
            )
        _check_scalar(owner, argument, f"the term {name!r} of the loss", value)


def _check_names(owner: str, made: Trainer, trained: dict, judged: dict) -> None:
    """Terms are recorded by name: each once, and those that are trained on."""
    twice = [name for name in judged if name == "loss" or name in made.metrics]
    if twice:
        raise ValueError(
            f"{owner}: `loss` returns a term {twice[0]!r}, and that is the name of "
            f"{'the data loss' if twice[0] == 'loss' else 'a metric'} already. Give it another name."
        )
    if set(trained) != set(judged):
        of = lambda terms: ", ".join(sorted(terms)) or "none"
        raise ValueError(
            f"{owner}: `eval_loss` must return the terms that `loss` does, as (data loss, {{name: term}}), "
            f"so that they are recorded; got {of(judged)}, and of the loss {of(trained)}."
        )


def _refuse_unmoved(
    owner: str, made: Trainer, state: TrainState, batch: tuple, key: Array, names: list[str]
) -> None:
    """A term without a derivative by the parameters, such as an accuracy, is none: it trains nothing."""
    part, whole = parts_of(state.params)
    moved: set[str] = set()

    def values(part: PyTree) -> list[Array]:
        _, left = made.loss_of(state, batch, key)(whole(part))
        return [_noted(n, moved)(jnp.asarray(v, float)) for n, v in left.terms.items()]

    jax.vjp(values, part)  # backward, as not all functions have a forward rule
    unmoved = [name for name in names if name not in moved]
    if unmoved:
        raise ValueError(
            f"{owner}: the term {unmoved[0]!r} of the loss has no derivative by the parameters, so that "
            "nothing is trained by it. What is only to be watched goes into `metrics` of the trainer; a "
            "term that is switched off is left out."
        )


def _noted(name: str, moved: set[str]) -> Callable[[Array], Array]:
    """The identity, which notes a name where a derivative comes that is not zero without being computed."""
    same = jax.custom_jvp(lambda x: x)

    def rule(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
        if isinstance(tangents[0], jax.custom_derivatives.SymbolicZero):
            return primals[0], jnp.zeros_like(primals[0])
        moved.add(name)
        return primals[0], tangents[0]

    same.defjvp(rule, symbolic_zeros=True)
    return same


def _check_scalar(owner: str, argument: str, what: str, value: Any) -> None:
    if isinstance(value, (tuple, list, dict)):
        raise TypeError(
            f"{owner}: {what} must return a scalar, got a {type(value).__name__} of {len(value)}. Terms of "
            "the loss go beside it, as (data loss, {name: term}); what else is worth knowing goes into "
            "`metrics`; state that changes needs stateful=True."
        )
    if not isinstance(value, (int, float, complex)) and not hasattr(value, "dtype"):
        raise TypeError(f"{owner}: `{argument}` must return a scalar for {what}, got {value!r}.")
    if jnp.shape(value) != ():
        raise ValueError(
            f"{owner}: {what} must return a scalar, got shape {list(jnp.shape(value))}. Take the mean "
            "over the rows."
        )
    dtype = jnp.result_type(value)
    real = (jnp.floating,) if argument == "loss" else (jnp.floating, jnp.integer, jnp.bool_)
    if not any(jnp.issubdtype(dtype, kind) for kind in real):
        raise TypeError(
            f"{owner}: `{argument}` must return a real number for {what}, got {dtype}. Take its real part, "
            "its absolute value, or the mean of floating numbers."
        )


def _refuse_changed(owner: str, made: Trainer, before: PyTree, after: PyTree) -> None:
    """A loss that changes statistics or counters of a module is not what is to be evaluated."""
    leaves = _tree.flatten(before)
    changed = [
        p for p, a, b in zip(leaves.paths, leaves.values, jax.tree.leaves(after)) if a is not b
    ]
    if changed and made.eval_loss is None:
        raise ValueError(
            f"{owner}: the loss changes {', '.join(map(repr, changed[:3]))} of the module, as batch "
            "norm and dropout do, so the trainer needs `eval_loss`: a function (params, *batch) -> mean "
            "loss with dropout off and running averages; `module.eval()` does that in nnx."
        )


def _check_update(owner: str, made: Trainer, state: TrainState, batch: tuple, key: Array) -> None:
    """Whether an update leaves parameters and the optimizer's state of the kind that they were."""
    params, whole = parts_of(state.params)
    loss = made.loss_of(state, batch, key)
    of = lambda part: loss(whole(part))[0]
    value, grads = _value_and_grad(owner, made, lambda part: loss(whole(part)), params)
    tx = optax.with_extra_args_support(made.optimizer)
    more = told(tx, state.opt_state, params, value, grads, of)
    call = lambda: tx.update(grads, state.opt_state, params, **more)
    returned = _called(owner, "optimizer", call, f"updates like the parameters, {_shown(params)}")
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(
            f"{owner}: `optimizer` must return a pair, (updates, new state), got a "
            f"{type(returned).__name__}."
        )
    updates, opt_state = returned
    same_shapes = lambda tree: [jnp.shape(x) for x in jax.tree.leaves(tree)]
    same = jax.tree.structure(updates) == jax.tree.structure(params)
    real = all(
        not jnp.issubdtype(jnp.result_type(x), jnp.complexfloating)
        for x in jax.tree.leaves(updates)
    )
    if not same or not real or same_shapes(updates) != same_shapes(params):
        raise TypeError(
            f"{owner}: `optimizer` must return updates like the parameters, {_shown(params)}, got "
            f"{_shown(updates)}."
        )
    _check_same(owner, "optimizer", "its state", state.opt_state, opt_state)


def _value_and_grad(
    owner: str, made: Trainer, of: Callable, params: PyTree
) -> tuple[Array, PyTree]:
    """The loss and its gradient, as the trainer takes it."""
    call = lambda: made.value_and_grad(of, has_aux=True)(params)
    returned = _called(
        owner, "value_and_grad", call, "what jax.value_and_grad takes: a function, and has_aux=True"
    )
    if not _like_gradient(returned, params):
        raise TypeError(
            f"{owner}: `value_and_grad` must return ((loss, aux), gradient), the gradient like the "
            f"parameters, {_shown(params)}, got {_shown(returned)}. Take one with the signature of "
            "jax.value_and_grad."
        )
    (value, _), grads = returned
    return value, grads


def _like_gradient(returned: Any, params: PyTree) -> bool:
    """Whether it is ((loss, aux), gradient)."""
    pairs = [returned, returned[0]] if isinstance(returned, tuple) and returned else [returned]
    if len(pairs) < 2 or not all(isinstance(p, tuple) and len(p) == 2 for p in pairs):
        return False
    like = lambda tree: (jax.tree.structure(tree), [jnp.shape(x) for x in jax.tree.leaves(tree)])
    return like(returned[1]) == like(params)


def _check_judged(owner: str, made: Trainer, state: TrainState) -> None:
    if made.eval_params is None:
        return
    part, _ = parts_of(state.params)
    call = lambda: made.eval_params(state._replace(params=part))  # pyright: ignore[reportOptionalCall]
    found = _called(owner, "eval_params", call, "the TrainState")
    like = lambda tree: (jax.tree.structure(tree), [jnp.shape(x) for x in jax.tree.leaves(tree)])
    if like(found) != like(part):
        raise TypeError(
            f"{owner}: `eval_params` must return parameters like those that are trained, {_shown(part)}, "
            f"got {_shown(found)}."
        )


def _check_same(owner: str, argument: str, what: str, before: PyTree, after: PyTree) -> None:
    """State that is carried from step to step must stay of one kind."""
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise TypeError(
            f"{owner}: `{argument}` must return {what} in the structure that it got, {_shown(before)}, got "
            f"{_shown(after)}."
        )
    leaves = _tree.flatten(before)
    for path, a, b in zip(leaves.paths, leaves.values, jax.tree.leaves(after)):
        a, b = (jax.typeof(jnp.asarray(x)) for x in (a, b))
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise TypeError(
                f"{owner}: `{argument}` must return {what} with the shapes and dtypes that it got; "
                f"{path!r} was {_kind(a)}, got {_kind(b)}. Convert it, as by .astype."
            )


# --- words ----------------------------------------------------------------------------------------


def _also(made: Trainer) -> str:
    return " and what was prepared" if made._numbers else ""


def _of_model(state: TrainState, made: Trainer) -> str:
    parts = [f"params {_shown(state.params)}"]
    parts += [f"model state {_shown(state.model_state)}"] if made.stateful else []
    parts += [f"what was prepared, {_shown(made._numbers[0])},"] if made._numbers else []
    return ", ".join(parts)


def _shown(tree: PyTree) -> str:
    """A tree by its leaves: dtype and shape of each, the first few."""
    leaves = _tree.flatten(tree)
    if not leaves.values:
        return repr(tree)[:80]
    kinds = [
        f"{path}: {_kind(x)}" if path else _kind(x) for path, x in zip(leaves.paths, leaves.values)
    ]
    return "{" + ", ".join(kinds[:6]) + (", …" if len(kinds) > 6 else "") + "}"


def _kind(x: Any) -> str:
    if not hasattr(x, "dtype"):
        return type(x).__name__
    return f"{x.dtype}{list(x.shape)}"


def _first_line(error: BaseException) -> str:
    text = str(error).split("\n")[0].strip()[:300]
    return text if text.endswith(".") else f"{text}."
