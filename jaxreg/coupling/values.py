"""What line searches and steps by the value are told: the objective that the chain minimises.

`optax.lbfgs`, `polyak_sgd` and `reduce_on_plateau` want the value of the objective, its gradient, or the
function itself. Behind `add_penalty_gradient` the objective is J = L + R; the loss alone has another value,
and a search along its values would stop where the gradient of J does not vanish.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxreg._tree import PyTree
from jaxreg.coupling import probe
from jaxreg.coupling.stages import parts, unwrapped
from jaxreg.coupling.transform import AddPenaltyGradient
from jaxreg.penalty import Penalty

__all__ = ["told"]

_ASKED = {"value", "grad", "value_fn"}
_BY_VALUE = (
    "ReduceLROnPlateauState",
    "ScaleByBacktrackingLinesearchState",
    "ScaleByZoomLinesearchState",
)


def told(
    optimizer: optax.GradientTransformation,
    state: PyTree,
    params: PyTree,
    value: Array,
    grads: PyTree,
    loss: Callable[[PyTree], Array],
) -> dict[str, Any]:
    """`value`, `grad` and `value_fn` of the objective, if anything in the chain takes them.

    Args:
      optimizer: the whole chain.
      state: its state, whose steps tell a scheduled penalty where it is.
      params: the parameters.
      value, grads: of the data loss there.
      loss: params -> the data loss of the same batch.

    Raises:
      ValueError: the penalty is added inside of a wrapper, where it cannot be found.
    """
    if not any(map(_takes_values, _stages(optimizer))):
        return {}
    added = list(_added(optimizer, state))
    penalty = lambda p: sum((reg(p) for reg in added), jnp.zeros((), value.dtype))
    extra, slope = jax.value_and_grad(penalty)(params)
    return {
        "value": value + extra,
        "grad": jax.tree.map(jnp.add, grads, slope) if added else grads,
        "value_fn": lambda p: loss(p) + penalty(p),
    }


def _stages(tx: optax.GradientTransformation) -> Iterator[optax.GradientTransformation]:
    inner = parts(tx)
    if inner is None:
        yield unwrapped(tx)
        return
    for part in inner:
        yield from _stages(part)


def _takes_values(tx: optax.GradientTransformation) -> bool:
    """Whether it takes one of them, or hands on whatever it is given."""
    if isinstance(tx.update, AddPenaltyGradient):
        return False
    arguments = inspect.signature(tx.update).parameters
    return bool(_ASKED & set(arguments)) or any(
        a.kind is inspect.Parameter.VAR_KEYWORD for a in arguments.values()
    )


def _added(tx: optax.GradientTransformation, state: PyTree) -> Iterator[Penalty]:
    """The penalties whose gradients are added, each at its step."""
    inner, own = parts(tx), unwrapped(tx)
    if inner is not None:
        for part, one in zip(inner, state.values() if isinstance(state, dict) else state):
            yield from _added(part, one)
    elif isinstance(own.update, AddPenaltyGradient):
        yield own.update.at(state.step)
    elif "PenaltyGradientState" in (names := probe.state_names(state)) and set(names) & set(
        _BY_VALUE
    ):
        raise ValueError(
            "Trainer: jaxreg.add_penalty_gradient stands inside of a wrapper beside what goes by the value "
            "of the objective, which is not known there. Put it outside: optax.chain("
            "jaxreg.add_penalty_gradient(penalty), <the wrapper>)."
        )
