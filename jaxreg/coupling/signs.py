"""Which way an optimizer points: guards against weights that grow instead of decaying.

optax's complete optimizers have put the minus sign already. A decay added after them is added with
the wrong sign, and weights grow by it, slowly and in silence. Here that is asked (`jaxreg.coupling.probe`)
before anything is compiled. A guard speaks only when it is sure: an optimizer that does not answer,
or answers with traced values, passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from jaxreg import _tree
from jaxreg._quickly import Scan, answered
from jaxreg._tree import PyTree, is_concrete
from jaxreg.coupling import probe
from jaxreg.coupling.measure import complete_optimizer
from jaxreg.coupling.stages import changes_nothing, name_of, parts, refuse_wrappers, remembers
from jaxreg.objective import penalty_gradient
from jaxreg.penalty import Penalty

__all__ = ["check_coupling", "check_direction"]

_MOST = 1_000_000  # numbers in all, up to which real shapes are tried
# How much of a drift must be decay before its sign is believed.
_SHARE = 0.05


def check_direction(
    owner: str, direction: optax.GradientTransformation, params: PyTree, touched: Sequence[bool]
) -> None:
    """Refuse a direction beside which a decay would be wrong.

    Args:
      owner: who asks, for errors.
      direction: what is asked.
      params: the parameters; only shapes and dtypes count.
      touched: which leaves decay.

    Raises:
      ValueError: a leaf moves against its gradient, as by a complete optimizer; a leaf that decays does not
        move at all; or gradients are accumulated, and the decay would not be.
    """
    refuse_wrappers(owner, direction, params)
    shapes = _tree.shapes_of(params)

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
    if not is_concrete(along):
        return
    paths, along = _tree.flatten(params).paths, np.asarray(along)
    if (along < 0).any():
        raise ValueError(complete_optimizer(owner, paths[int(np.argmax(along < 0))]))
    still = np.asarray(touched) & (along == 0)
    if still.any() and not (along == 0).all():  # what moves nothing at all is meant to decay alone
        raise ValueError(
            f"{owner}: the direction does not move the leaf {paths[int(np.argmax(still))]!r}, as where it "
            "is frozen, and the penalty would let it decay all the same. Leave it out of the penalty with "
            ".on(...), or put the coupling inside of the partition: optax.partition({'train': "
            f"jaxreg.{owner}(...), 'frozen': optax.set_to_zero()}}, labels)."
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
      ValueError: some leaf grows at both sizes, or something in the chain before or after a coupling moves
        where it rests; the message says how to write the chain.
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            "check_coupling: `optimizer` must be an optax transformation such as optax.chain("
            f"jaxreg.add_penalty_gradient(reg), optax.sgd(0.1)), got a {type(optimizer).__name__}."
        )
    if not isinstance(penalty, Penalty):
        raise TypeError(
            "check_coupling: `penalty` must be a penalty such as jaxreg.l2(0.1), got a "
            f"{type(penalty).__name__}."
        )
    _tree.check_arrays("check_coupling", "params", params)
    _check_order(optimizer, params)
    shapes = _tree.shapes_of(params)
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


def _check_order(optimizer: optax.GradientTransformation, params: PyTree) -> None:
    """Refuse what stands in the wrong place beside a coupling in a chain."""
    chain = parts(optimizer) or [optimizer]
    names = [_kinds(tx, params) for tx in chain]
    for i, inside in enumerate(names):
        if "ProximalState" in inside:
            _refuse_around(inside)
            _alone(chain, names, i, params)
        if "PenaltyGradientState" in inside and len(inside) == 1:
            for tx in chain[:i]:
                _refuse_clip_before(tx, params)


_AROUND = {
    "ScheduleFreeState": (
        "optax.contrib.schedule_free gives the prox other parameters than those that it judges",
        "For an average of the parameters take jaxreg.averaged(jaxreg.proximal(...))",
    ),
    "MechanicState": (
        "optax.contrib.mechanize scales what the prox has done, by a rate that the prox does not know",
        "Give jaxreg.proximal the learning rate, which may be a schedule",
    ),
    "ConditionallyTransformState": (
        "optax.conditionally_transform passes bare gradients on where it does not transform",
        "Take optax.conditionally_mask(jaxreg.proximal(...), ...)",
    ),
}


def _refuse_around(names: list[str]) -> None:
    """A wrapper around a prox that moves where it rests."""
    for state, (why, instead) in _AROUND.items():
        if state in names:
            raise ValueError(f"check_coupling: {why}. {instead}.")


def _kinds(tx: optax.GradientTransformation, params: PyTree) -> list[str]:
    try:
        return probe.state_names(jax.eval_shape(tx.init, params))
    except Exception:  # a guard must not stop what it does not understand
        return []


def _alone(chain: list, names: list[list[str]], i: int, params: PyTree) -> None:
    """A prox has the last word, and sees the gradient as it is or with another penalty's added."""
    for tx, inside in zip(chain[:i], names[:i]):
        if not changes_nothing(tx, params) and inside != ["PenaltyGradientState"]:
            raise ValueError(
                f"check_coupling: {_shown(tx, inside)} stands before jaxreg.proximal, which then does not "
                "know how large the gradient was, and rests elsewhere. Put it inside: jaxreg.proximal("
                "optax.chain(<it>, direction), penalty, learning_rate)."
            )
    for tx, inside in zip(chain[i + 1 :], names[i + 1 :]):
        if not changes_nothing(tx, params):
            raise ValueError(
                f"check_coupling: {_shown(tx, inside)} stands after jaxreg.proximal, whose exact zeros and "
                "rest point it undoes. Put what changes gradients inside: jaxreg.proximal(optax.chain("
                "direction, <it>), penalty, learning_rate). An average of the parameters is taken beside "
                "the training, as by `Trainer(evaluate=...)`."
            )


def _refuse_clip_before(tx: optax.GradientTransformation, params: PyTree) -> None:
    """What makes large gradients smaller than it makes small ones, and keeps none of them."""
    if remembers(tx, params):
        return

    def ask(scan: Scan) -> Array:
        asked, state = probe.bench(tx, _tree.shapes_of(params), at=1.0, most=_MOST)
        sizes = jnp.asarray([0.0, 2.0**-20, 2.0**20])
        return scan(lambda c, g: (c, asked.ask(state, g, 1.0)[0]), None, sizes)[1]

    try:
        answers = answered(ask)
    except Exception:
        return
    if not is_concrete(answers):
        return
    zero, small, large = np.abs(np.asarray(answers, float))
    # What adds something of its own, such as another penalty, is no clip.
    if ((zero == 0) & (large * 2.0**-40 < 0.5 * small)).any():
        raise ValueError(
            f"check_coupling: {_shown(tx, _kinds(tx, params))} stands before jaxreg.add_penalty_gradient "
            "and clips the gradient of the loss alone, which then weighs less against the penalty. Put it "
            "after: optax.chain(jaxreg.add_penalty_gradient(penalty), <it>, optimizer)."
        )


def _shown(tx: optax.GradientTransformation, names: list[str]) -> str:
    found = name_of(tx)
    return f"optax.{found}" if found else f"something ({', '.join(names) or 'without state'})"


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
