"""How a penalty reaches the weights: optax transformations for every coupling.

With g = grad L and an optimizer that turns gradients into directions d(g), five couplings are in
use, and they are different algorithms under one name, "regularization":

    explicit, coupled   theta <- theta - lr d(g + grad R)     `add_penalty_gradient`, first in a chain
    decoupled           theta <- theta - lr (d(g) + grad R)   `decoupled`; for l2 this is AdamW
    proximal            theta <- prox_{s R}(theta - lr d(g))  `proximal`; exact zeros
    projected           the same, R the indicator of a set

Under plain SGD the first three are one algorithm. Under Adam they are not: coupled and proximal
steps come to rest where grad L + dR = 0, at the optimum of L + R; decoupled ones where
d(g) + grad R = 0, which is another point, since Adam's d has no size. Soft-thresholding by lr * lam
after Adam, as it is often written, rests at neither: the threshold must be in Adam's own metric,
s = lr / (sqrt(vhat) + eps) entry by entry, which `proximal` reads from the optimizer's state.

Everywhere `penalty` may also be a schedule, a function count -> penalty, as in
`lambda count: jaxreg.l2(schedule(count))`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._check import flag, upcast
from jaxreg._tree import PyTree
from jaxreg.coupling.signs import check_direction
from jaxreg.coupling.stages import Direction
from jaxreg.objective import penalty_gradient
from jaxreg.penalty import Penalty

__all__ = ["AddPenaltyGradient", "add_penalty_gradient", "decoupled", "proximal"]

Rate: TypeAlias = ArrayLike | Callable[[Any], ArrayLike]
PenaltyOrSchedule: TypeAlias = Penalty | Callable[[Array], Penalty]


class PenaltyGradientState(NamedTuple):
    """Steps so far."""

    step: Array


def add_penalty_gradient(penalty: PenaltyOrSchedule) -> optax.GradientTransformation:
    """Add grad R(params) to the gradient: the coupled decay. It goes **first** in a chain.

    Followed by any optimizer it is that optimizer on J = L + R, the same as differentiating
    `penalized(loss)`. For `l2(lam)` it is exactly `optax.add_decayed_weights(lam)`.

    Args:
      penalty: a penalty, or a schedule count -> penalty.

    Returns:
      An optax transformation; updates keep their dtype, and those of untouched leaves their bits.

    Raises:
      TypeError: `penalty` is neither. ValueError: `update` is called without params.

    >>> import jaxreg as jr
    >>> tx = optax.chain(add_penalty_gradient(jr.l2(0.5)), optax.sgd(0.1))
    >>> params = jnp.array([1.0, -2.0])
    >>> updates, state = tx.update(jnp.zeros(2), tx.init(params), params)
    >>> updates.tolist()  # -0.1 * 0.5 * params
    [-0.05..., 0.1...]
    """
    _check_penalty("add_penalty_gradient", penalty)

    def init(params: PyTree) -> PenaltyGradientState:
        _first("add_penalty_gradient", penalty, params)
        return PenaltyGradientState(jnp.zeros((), jnp.int32))

    return optax.GradientTransformation(init, AddPenaltyGradient(penalty))


@dataclasses.dataclass(frozen=True, eq=False)
class AddPenaltyGradient:
    """The update of `add_penalty_gradient`, which whoever looks into a chain can ask for its penalty."""

    penalty: PenaltyOrSchedule

    def at(self, step: Array) -> Penalty:
        """The penalty at a step."""
        return _at("add_penalty_gradient", self.penalty, step)

    def __call__(self, updates: PyTree, state: Any, params: PyTree = None):
        params = _params("add_penalty_gradient", updates, params)
        now = self.at(state.step)
        updates = _map_touched(now, params, _plus, updates, penalty_gradient(now, params))
        return updates, PenaltyGradientState(_next(state.step))


class DecoupledState(NamedTuple):
    """The state of the direction, and the steps so far."""

    direction: optax.OptState
    step: Array


def decoupled(
    direction: optax.GradientTransformation,
    penalty: PenaltyOrSchedule,
    learning_rate: Rate,
    *,
    scale_by_lr: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """AdamW for any penalty: theta <- theta - lr * (direction + grad R).

    The penalty's gradient goes past the preconditioner, so strong and weak gradients decay alike.
    It does not minimise L + R (see the module); for `l2(lam)` over `optax.scale_by_adam()` it is
    exactly `optax.adamw(lr, weight_decay=lam)`.

    Args:
      direction: an optax direction before learning rate and minus sign, such as
        `optax.scale_by_adam()`, `optax.trace(0.9)` or `optax.scale_by_lion()`.
      penalty: a penalty, or a schedule count -> penalty.
      learning_rate: a number (may be traced) or an optax schedule.
      scale_by_lr: whether the decay is multiplied by the learning rate, as in AdamW as implemented
        everywhere. If not, theta <- theta - lr * direction - grad R, as in the paper: then lam is
        the fraction lost a step, smaller by the factor lr.

    Raises:
      TypeError: an argument is of the wrong kind. ValueError: `learning_rate` is negative; at
        `init`, `direction` already has the minus sign of a complete optimizer, accumulates gradients
        (`optax.MultiSteps` goes outside), or does not move a leaf that would decay.

    Source: Loshchilov & Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2.
    >>> import jaxreg as jr
    >>> tx = decoupled(optax.scale_by_adam(), jr.l1(0.1).on(jr.kernels), learning_rate=1e-3)
    >>> params = {"w": jnp.array([2.0, -3.0]), "b": jnp.array([1.0])}
    >>> grads = jax.tree.map(jnp.zeros_like, params)
    >>> updates, state = tx.update(grads, tx.init(params), params)
    >>> [f"{u:.0e}" for u in updates["w"]]  # -1e-3 * 0.1 * sign(w)
    ['-1e-04', '1e-04']
    """
    _check_direction("decoupled", direction)
    _check_penalty("decoupled", penalty)
    flag("decoupled", "scale_by_lr", scale_by_lr)
    _check_rate("decoupled", learning_rate)
    direction = optax.with_extra_args_support(direction)

    def init(params: PyTree) -> DecoupledState:
        params = _tree.arrays(params)
        touched = _first("decoupled", penalty, params)
        if touched is not None:
            check_direction("decoupled", direction, params, touched)
        return DecoupledState(direction.init(params), jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any):
        params = _params("decoupled", updates, params)
        now, rate = _at("decoupled", penalty, state.step), _rate_at(learning_rate, state.step)
        updates, inner = direction.update(updates, state.direction, params, **extra)
        decay = penalty_gradient(now, params)
        if scale_by_lr:
            updates = _scaled(_map_touched(now, params, _plus, updates, decay), -rate)
        else:
            scaled = _scaled(updates, -rate)
            updates = _map_touched(now, params, _minus, scaled, decay)
        return updates, DecoupledState(inner, _next(state.step))

    return optax.GradientTransformationExtraArgs(init, update)


class ProximalState(NamedTuple):
    """The state of the direction, and the steps so far."""

    direction: optax.OptState
    step: Array


def proximal(
    direction: optax.GradientTransformation, penalty: PenaltyOrSchedule, learning_rate: Rate
) -> optax.GradientTransformationExtraArgs:
    """A step of the direction, then the prox in its metric: theta <- prox_{s R}(theta - lr d, s).

    It comes to rest at the optimum of L + R, with exact zeros where R makes them, and
    `optax.apply_updates` keeps them (p + (0 - p) is 0). The step s is the one that is taken:

        s = c * gain * lr / (sqrt(vhat + root) + eps)  after Adam, AMSGrad, RMSprop, Adagrad
        s = c * gain * lr                              after SGD

    entry by entry, with vhat out of the direction's new state, gain 1/(1 - m) under momentum m, and c what
    clips made of the gradient: a clip moves the optimum unless the prox is as much smaller.
    An entry that has had no gradient yet takes the mean denominator of its leaf, not 1/eps.
    What is in no state is found out by asking the direction. Soft-thresholding
    by lr * lam alone after Adam ends somewhere else: on a lasso of 8 coefficients, 4 of them zero
    (tests/coupling/test_transform.py), 0.45 away from it without one zero, at any learning rate; this one
    ends 3e-7 away with exactly the 4. A direction that trembles at a constant rate, as RMSprop
    does, trembles here too: let the rate decay.

    Args:
      direction: an optax direction before learning rate and minus sign, such as `optax.identity()` for
        SGD, `optax.trace(0.9)`, `optax.scale_by_adam()`, or a chain, as in
        `optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())`; partitions, masks and injected
        hyperparameters too.
      penalty: a penalty with a prox, or a schedule count -> penalty; every penalty that acts entry
        by entry, and group_lasso, is exact in a diagonal metric.
      learning_rate: a number (may be traced) or an optax schedule.

    Raises:
      TypeError: an argument is of the wrong kind. ValueError: `learning_rate` is negative; at
        `init`, the direction's metric is unknown (lion, adamax, lamb, muon, ...), or it has the minus sign
        of a complete optimizer; the penalty has no exact prox.

    Source: Duchi, Hazan & Singer, Adaptive Subgradient Methods (2011), for composite steps in a
    diagonal metric.
    >>> import jaxreg as jr
    >>> tx = proximal(optax.scale_by_adam(), jr.l1(0.5), learning_rate=0.1)
    >>> params = jnp.array([2.0, 0.5])
    >>> state = tx.init(params)
    >>> for _ in range(500):  # minimise (params - [3, 0.2])^2 / 2 + 0.5 |params|
    ...     updates, state = tx.update(params - jnp.array([3.0, 0.2]), state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> params.round(4).tolist()
    [2.5, 0.0]
    """
    _check_direction("proximal", direction)
    _check_penalty("proximal", penalty)
    _check_rate("proximal", learning_rate)
    asked = Direction("proximal", direction)

    def init(params: PyTree) -> ProximalState:
        params = _tree.arrays(params)
        touched = _first("proximal", penalty, params)
        if touched is not None:
            asked.known(params, touched)
        return ProximalState(asked.tx.init(params), jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any):
        params = _params("proximal", updates, params)
        now, rate = _at("proximal", penalty, state.step), _rate_at(learning_rate, state.step)
        touched = now.support(params)
        updates, inner, steps = asked.update(updates, state.direction, params, touched, **extra)
        updates = _scaled(updates, -rate)
        updates = _prox_update(now, params, updates, [rate * step for step in steps])
        return updates, ProximalState(inner, _next(state.step))

    return optax.GradientTransformationExtraArgs(init, update)


def _prox_update(penalty: Penalty, params: PyTree, updates: PyTree, steps: list[Array]) -> PyTree:
    """prox(params + updates) - params, on the touched leaves."""
    moved = jax.tree.map(
        lambda p, u: upcast(p) + u.astype(_tree.accumulator(p)) if _tree.is_floating(p) else p,
        params,
        updates,
    )
    target = penalty.prox(moved, _tree.flatten(params).rebuild(steps))

    def difference(_, z, p):
        # In the dtype of the parameters, so that z = 0 gives -p, and p + (-p) is exactly 0.
        return z.astype(p.dtype) - p

    return _map_touched(penalty, params, difference, updates, target, params)


def _map_touched(
    penalty: Penalty, params: PyTree, fn: Callable[..., Array], updates: PyTree, *trees: PyTree
) -> PyTree:
    """`fn` on the leaves that the penalty touches; the other updates stay as they are."""
    leaves, others = _tree.flatten(updates), [jax.tree.leaves(tree) for tree in trees]
    new = [
        fn(u, *rest) if hit else u
        for hit, u, *rest in zip(penalty.support(params), leaves.values, *others)
    ]
    return leaves.rebuild(new)


def _plus(update: Array, gradient: Array) -> Array:
    return update + gradient.astype(update.dtype)


def _minus(update: Array, gradient: Array) -> Array:
    return update - gradient.astype(update.dtype)


def _scaled(updates: PyTree, factor: Array) -> PyTree:
    return jax.tree.map(lambda u: factor.astype(u.dtype) * u, updates)


def _next(step: Array) -> Array:
    return jnp.asarray(optax.safe_increment(step))


def _first(owner: str, penalty: PenaltyOrSchedule, params: PyTree) -> list[bool] | None:
    """Which leaves the penalty touches, once it has said that it suits them; None for stand-ins."""
    leaves = jax.tree.leaves(params)
    if not leaves or not all(map(_tree.is_array, leaves)):
        return None
    now = _at(owner, penalty, jnp.zeros((), jnp.int32))
    jax.eval_shape(now, params)
    return now.support(params)


def _at(owner: str, penalty: PenaltyOrSchedule, count: Array) -> Penalty:
    """The penalty at a step."""
    if isinstance(penalty, Penalty):
        return penalty
    now = penalty(count)
    if not isinstance(now, Penalty):
        raise TypeError(
            f"{owner}: the schedule of the penalty must return a penalty, as in "
            f"lambda count: jaxreg.l2(schedule(count)); it returned {type(now).__name__}."
        )
    return now


def _check_penalty(owner: str, penalty: Any) -> None:
    if not callable(penalty):
        raise TypeError(
            f"{owner}: `penalty` must be a penalty such as jaxreg.l2(1e-4), or a function "
            f"count -> penalty, got {penalty!r}."
        )
    if getattr(penalty, "__module__", "").startswith("jaxreg.") and not isinstance(
        penalty, Penalty
    ):
        # Else l2 itself would pass for the schedule lam = count.
        raise TypeError(f"{owner}: `penalty` is the function {penalty!r}; call it with a strength.")


def _check_direction(owner: str, direction: Any) -> None:
    if not isinstance(direction, optax.GradientTransformation):
        raise TypeError(
            f"{owner}: `direction` must be an optax transformation such as optax.scale_by_adam(), got "
            f"{direction!r}."
        )


def _rate_at(learning_rate: Rate, count: ArrayLike) -> Array:
    """The learning rate at a step, from a number or a schedule."""
    return jnp.asarray(learning_rate(count) if callable(learning_rate) else learning_rate, float)


def _check_rate(owner: str, learning_rate: Any) -> None:
    if callable(learning_rate) or not _tree.is_concrete(learning_rate):
        return
    number = hasattr(learning_rate, "dtype") or isinstance(learning_rate, (int, float))
    if isinstance(learning_rate, bool) or not number:
        raise TypeError(
            f"{owner}: `learning_rate` must be a number or a schedule, got {learning_rate!r}."
        )
    if not np.all(np.asarray(learning_rate) >= 0):
        raise ValueError(
            f"{owner}: `learning_rate` must be >= 0 and not NaN, got {learning_rate}. The minus sign "
            "is put by the transformation."
        )


def _params(owner: str, updates: PyTree, params: Any) -> PyTree:
    """The parameters that have updates."""
    if params is None:
        raise ValueError(
            f"{owner}: a penalty needs the parameters. Call tx.update(grads, state, params)."
        )
    return _tree.aligned(updates, params)
