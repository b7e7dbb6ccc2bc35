"""Small steps in half precision: what rounding would lose is kept, and added at the next step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxreg import _tree
from jaxreg._tree import PyTree

__all__ = ["compensated", "is_compensated"]


class CompensatedState(NamedTuple):
    """The state of the optimizer, and what rounding has taken from each parameter, in its dtype."""

    optimizer: optax.OptState
    lost: PyTree


def compensated(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose steps are not lost in the rounding of narrow parameters.

    bfloat16 has 8 bits: a step of less than 1/512 of a weight does not change it, so a decay of 0.1 % a
    step never happens, however many steps there are. Here the optimizer sees float32 parameters, theta + e,
    where e is what rounding has taken so far (Kahan's compensation), and e is kept in the dtype of the
    parameters: together 16 bits, in as much memory as float32 parameters, while the model computes in
    bfloat16. Leaves in float32 or wider are left as they are. It goes around everything else.

    Args:
      optimizer: a complete optimizer with its penalty in it. Its state is that of float32 parameters.

    Raises:
      TypeError: `optimizer` is none. ValueError: `update` is called without params.

    Source: Kahan, Further remarks on reducing truncation errors (1965); for bfloat16 Zamirai et al.,
    Revisiting BFloat16 Training (2020), algorithm 3.
    >>> import jaxreg as jr
    >>> decay = jr.decoupled(optax.identity(), jr.l2(0.1), 1e-2)
    >>> for tx in (decay, compensated(decay)):
    ...     params = jnp.ones(1, jnp.bfloat16)
    ...     state = tx.init(params)
    ...     for _ in range(20):
    ...         updates, state = tx.update(jnp.zeros(1, jnp.bfloat16), state, params)
    ...         params = optax.apply_updates(params, updates)
    ...     print(params.dtype, round(float(params[0]), 2))
    bfloat16 1.0
    bfloat16 0.98
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"compensated: `optimizer` must be an optax transformation, got {optimizer!r}."
        )
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: PyTree) -> CompensatedState:
        params = _tree.arrays(params)
        lost = jax.tree.map(lambda p: jnp.zeros_like(p) if _tree.is_narrow(p) else None, params)
        return CompensatedState(optimizer.init(jax.tree.map(_wide, params)), lost)

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any):
        if params is None:
            raise ValueError(
                "compensated: the parameters are needed. Call tx.update(grads, state, params)."
            )
        params = _tree.aligned(updates, params)
        leaves, slots = _tree.flatten(params), iter(jax.tree.leaves(state.lost))
        lost = [next(slots) if _tree.is_narrow(p) else None for p in leaves.values]
        whole = [p if e is None else _wide(p) + _wide(e) for p, e in zip(leaves.values, lost)]
        moves, inner = optimizer.update(
            jax.tree.map(_wide, updates), state.optimizer, leaves.rebuild(whole), **extra
        )
        made = [_rounded(*x) for x in zip(leaves.values, whole, lost, jax.tree.leaves(moves))]
        lost = leaves.rebuild([e for _, e in made])
        return leaves.rebuild([u for u, _ in made]), CompensatedState(inner, lost)

    return optax.GradientTransformationExtraArgs(init, update)


def is_compensated(state: optax.OptState) -> bool:
    """Whether a state, or the shapes of one, is that of a `compensated` optimizer, wrapped or not."""
    found = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, CompensatedState))
    return any(isinstance(x, CompensatedState) for x in found)


def _rounded(p: Array, whole: Array, lost: Array | None, move: Array) -> tuple[Array, Array | None]:
    """The update in float32, which `apply_updates` adds exactly, and what it loses."""
    if lost is None:
        return move, None
    new = whole + move
    near = new.astype(p.dtype)
    return _wide(near) - _wide(p), (new - _wide(near)).astype(p.dtype)


def _wide(x: Array) -> Array:
    return x.astype(jnp.float32) if _tree.is_narrow(x) else x
