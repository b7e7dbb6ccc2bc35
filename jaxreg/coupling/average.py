"""Averages of the parameters on their way: for evaluation, beside a training that knows nothing of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxreg import _tree
from jaxreg._check import flag, within
from jaxreg._tree import PyTree

__all__ = ["average_of", "averaged"]


class AveragedState(NamedTuple):
    """The state of the optimizer, the weighted sum of parameters, the weights, the last parameters."""

    optimizer: optax.OptState
    total: PyTree
    weight: Array
    last: PyTree


def averaged(
    optimizer: optax.GradientTransformation, decay: float | None = 0.999
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that keeps an average of the parameters it comes through; training stays as it is.

        avg_t = sum_s decay^(t - s) theta_s / sum_s decay^(t - s)         s = 1, ..., t

    without a bias to the start. `average_of` takes it out of the state. It goes around everything else.

    Args:
      optimizer: a complete optimizer with its penalty in it.
      decay: of the weights of earlier parameters; None weighs all alike (Polyak & Juditsky 1992).

    Raises:
      TypeError: `optimizer` is none. ValueError: `decay` is not between 0 and 1.

    >>> tx = averaged(optax.sgd(1.0), decay=None)
    >>> params = jnp.zeros(1)
    >>> state = tx.init(params)
    >>> for _ in range(3):  # 1, 2, 3
    ...     updates, state = tx.update(-jnp.ones(1), state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> average_of(state).tolist()
    [2.0]
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"averaged: `optimizer` must be an optax transformation, got {optimizer!r}."
        )
    if decay is not None:
        within("averaged", "decay", decay, 0, 1, "or None, the upper end excluded")
    optimizer = optax.with_extra_args_support(optimizer)
    kept = 1.0 if decay is None else decay

    def init(params: PyTree) -> AveragedState:
        params = _tree.arrays(params)
        total = jax.tree.map(lambda p: jnp.zeros_like(_wide(p)), params)
        return AveragedState(optimizer.init(params), total, jnp.zeros(()), params)

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any):
        if params is None:
            raise ValueError(
                "averaged: an average needs the parameters. Call tx.update(grads, state, params)."
            )
        params = _tree.aligned(updates, params)
        updates, inner = optimizer.update(updates, state.optimizer, params, **extra)
        now = optax.apply_updates(params, updates)
        total = jax.tree.map(lambda t, p: kept * t + _wide(p), state.total, now)
        return updates, AveragedState(inner, total, kept * state.weight + 1, now)

    return optax.GradientTransformationExtraArgs(init, update)


def average_of(state: PyTree, *, support: bool = False) -> PyTree:
    """The average that `averaged` keeps, in the dtype of the parameters; before any step, the parameters.

    Args:
      state: the optimizer's state, or anything with it inside, such as a `TrainState`.
      support: whether what is exactly 0 in the newest parameters is 0 in the average too. An average of
        iterates that came to their zeros one after the other has none of its own.

    Raises:
      ValueError: there is no such state.
    """
    flag("average_of", "support", support)
    is_one = lambda node: isinstance(node, AveragedState)
    found = [node for node in jax.tree.leaves(state, is_leaf=is_one) if is_one(node)]
    if not found:
        raise ValueError(
            "average_of: `state` must be that of jaxreg.averaged(optimizer), or have it inside, got a "
            f"{type(state).__name__} in which no average is kept. Train with jaxreg.averaged(optimizer)."
        )
    begun = found[0].weight > 0

    def mean(total: Array, last: Array) -> Array:
        value = jnp.where(begun, total / jnp.where(begun, found[0].weight, 1), _wide(last))
        return jnp.where((last == 0) & support, 0, value).astype(last.dtype)

    return jax.tree.map(mean, found[0].total, found[0].last)


def _wide(x: Array) -> Array:
    return x.astype(_tree.accumulator(x))
