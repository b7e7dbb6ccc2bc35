"""Which way an optimizer points: guards against weights that grow instead of decaying.

optax's complete optimizers have put the minus sign already. A decay added after them is added with
the wrong sign, and weights grow by it, slowly and in silence. Here that is asked (`jaxreg.coupling.probe`)
before anything is compiled. A guard speaks only when it is sure: an optimizer that does not answer,
or answers with traced values, passes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from jaxreg import _tree
from jaxreg._quickly import Scan, answered
from jaxreg._tree import PyTree, is_concrete
from jaxreg.coupling import probe
from jaxreg.objective import penalty_gradient
from jaxreg.penalty import Penalty

__all__ = ["check_coupling", "check_direction"]

_MOST = 1_000_000  # numbers in all, up to which real shapes are tried
# How much of a drift must be decay before its sign is believed.
_SHARE = 0.05


def check_direction(owner: str, direction: optax.GradientTransformation, params: PyTree) -> None:
    """Refuse a complete optimizer where a direction is wanted.

    Raises:
      ValueError: a leaf moves against its gradient.
    """
    shapes = jax.eval_shape(lambda tree: tree, params)

    def ask(scan: Scan) -> Array:
        asked, state = probe.bench(direction, shapes, most=_MOST)
        # The difference of two opposite answers is free of noise and decay.
        gradients = jnp.asarray([2.0**-10, -(2.0**-10)])
        forth, back = _drifts(scan, asked, state, gradients, jnp.zeros(2))
        return forth - back

    try:
        along = answered(ask)
    except Exception:  # whatever it is, the optimizer itself will say it better
        return
    if is_concrete(along) and (np.asarray(along) < 0).any():
        path = _tree.flatten(params).paths[int(np.argmax(np.asarray(along) < 0))]
        raise ValueError(
            f"{owner}: `direction` must not have the minus sign yet, but its update of the leaf "
            f"{path!r} points against the gradient: it is a complete optimizer. Give the direction "
            "alone, such as optax.scale_by_adam() for optax.adam(lr) or optax.trace(0.9) for "
            "optax.sgd(lr, momentum=0.9); the learning rate goes to `learning_rate`."
        )


def check_coupling(
    optimizer: optax.GradientTransformation, penalty: Penalty, params: PyTree
) -> None:
    """Refuse an optimizer that makes weights grow where it should let them decay.

    With gradients of 0 all that is left is the decay. It is read at +p and -p, for a small and a
    large p: half the difference must point down the penalty, or, where the penalty does not look,
    towards 0. Noise, momentum and pulls to a centre cancel in the difference; where they outweigh
    it by far, nothing is said.

    Args:
      optimizer: the whole chain.
      penalty: the penalty in it.
      params: the parameters, arrays or shapes.

    Raises:
      ValueError: some leaf grows at both sizes; the message says how to write the chain.
    """
    shapes = jax.eval_shape(lambda tree: tree, params)
    try:
        grows = answered(lambda scan: _grows(optimizer, penalty, shapes, scan))
    except Exception:  # a guard must not stop what it does not understand
        return
    if is_concrete(grows) and np.asarray(grows).any():
        path = _tree.flatten(params).paths[int(np.argmax(np.asarray(grows)))]
        raise ValueError(
            f"check_coupling: the decay of the leaf {path!r} has the wrong sign, and its weights "
            "would grow: it comes after an optimizer that has already put the minus sign, as in "
            "optax.chain(optax.adam(lr), add_decay). Write optax.chain(jaxreg.add_penalty_gradient("
            "penalty), optax.adam(lr)) for the coupled decay, jaxreg.decoupled("
            "optax.scale_by_adam(), penalty, lr) for the decoupled one (AdamW)."
        )


def _grows(
    optimizer: optax.GradientTransformation, penalty: Penalty, params: PyTree, scan: Scan
) -> Array:
    """Which leaves grow at both sizes, [L]."""
    asked, state = probe.bench(optimizer, params, at=0.5, most=_MOST)
    signs = jnp.asarray([1.0 - 2.0 * (i % 2) for i in range(len(jax.tree.leaves(params)))])
    at = jnp.asarray([0.5, -0.5, 8.0, -8.0])[:, None] * signs
    drift = _drifts(scan, asked, state, jnp.zeros(4), at)
    slope = lax.map(lambda p: probe.vector(penalty_gradient(penalty, asked.tree(p))), at)
    grows = [_grows_at(drift[i : i + 2], slope[i : i + 2], at[i]) for i in (0, 2)]
    return grows[0] & grows[1]


def _grows_at(drift: Array, slopes: Array, at: Array) -> Array:
    slope = slopes[0] - slopes[1]
    up = jnp.where(slope == 0, at, slope)
    along = (drift[0] - drift[1]) * up
    return along > _SHARE * (jnp.abs(drift[0]) + jnp.abs(drift[1])) * jnp.abs(up)


def _drifts(scan: Scan, asked: probe.Bench, state: PyTree, gradients: Array, at: Array) -> Array:
    """For each gradient [q] and place [q] or [q, L] the sum of a few updates, [q, L].

    The first update alone may be 0 under a warm-up. Looped over, so that the program holds the optimizer
    once, and it need not be one that can be mapped.
    """

    def drift(_: None, question: tuple[Array, Array]) -> tuple[None, Array]:
        gradient, place = question

        def step(state: PyTree, gradient: Array) -> tuple[PyTree, Array]:
            update, state = asked.ask(state, gradient, place)
            return state, update

        return None, scan(step, state, jnp.full(3, gradient))[1].sum(0)

    return scan(drift, None, (gradients, at))[1]
