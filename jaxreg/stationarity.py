"""The certificate after training: how far parameters are from a stationary point of L + R."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxreg import _tree
from jaxreg._tree import PyTree
from jaxreg.penalty import Penalty

__all__ = ["Stationarity", "of_gradient", "stationarity"]


class Stationarity(NamedTuple):
    """How far parameters are from where 0 is in grad L + dR.

    Attributes:
      distance: the norm of the least element of grad L + dR, in the units of the gradient; 0 at a
        stationary point and nowhere else.
      relative: the distance over the norm of grad L. At an optimum with a penalty grad L is not 0, and
        this says how much of it the penalty does not balance; without a penalty it is 1 anywhere.
      leaves: path -> the part of the distance that is the leaf's; their squares add up to its square.
    """

    distance: Array
    relative: Array
    leaves: dict[str, Array]


def stationarity(
    loss: Callable[..., Array], params: PyTree, penalty: Penalty, *batch: Any
) -> Stationarity:
    """The check to run after any training: whether it has come to rest at the optimum of L + R.

        min over s in dR(params) of |grad L(params) + s|

    A coupling in the wrong order, a clip, a step that is too long, too few steps: all of them show here.
    `decoupled` is not made to pass it. One gradient of the loss over all rows; under `vmap` one for each
    lane.

    Args:
      loss: (params, *batch) -> scalar, the mean data loss, as it was trained on.
      params: where to look, such as `result.lane(k)`.
      penalty: R, such as `result.best().point`.
      batch: the training rows.

    Raises:
      TypeError: `penalty` is none, or the loss is no scalar. ValueError: the subdifferential of the penalty
        has no closed form.

    >>> import jaxreg as jr
    >>> loss = lambda w: jnp.sum((w - jnp.array([3.0, 0.2])) ** 2) / 2
    >>> stationarity(loss, jnp.array([2.5, 0.0]), jr.l1(0.5)).distance.item()  # the optimum
    0.0
    >>> found = stationarity(loss, jnp.array([2.0, 0.1]), jr.l1(0.5))
    >>> f"{found.distance:.4f}, {found.relative:.4f}"
    '0.6403, 0.6371'
    """
    if not isinstance(penalty, Penalty):
        raise TypeError(
            f"stationarity: `penalty` must be a penalty such as jaxreg.l1(1e-3), got a "
            f"{type(penalty).__name__}. It comes "
            "after the parameters: stationarity(loss, params, penalty, *batch)."
        )
    if not callable(loss) or isinstance(loss, Penalty):
        raise TypeError(
            "stationarity: `loss` must be a function (params, *batch) -> mean loss, got "
            f"{type(loss).__name__}."
        )
    _tree.check_arrays("stationarity", "params", params)
    mask = _tree.trained(params)
    value = lambda part: loss(_tree.combine(part, params, mask), *batch)
    grads = jax.grad(value)(_tree.partition(params, mask))
    return of_gradient(params, penalty, grads)


def of_gradient(params: PyTree, penalty: Penalty, grads: PyTree) -> Stationarity:
    """The same from the gradient of the loss, which is None at leaves that are not trained."""
    least = penalty.min_norm_subgradient(_tree.aligned(grads, params), grads)
    found = _tree.flatten(least)
    sizes = {path: _norm([x]) for path, x in zip(found.paths, found.values)}
    distance, slope = _norm(found.values), _norm(jax.tree.leaves(grads))
    share = distance / jnp.where(slope > 0, slope, 1)
    relative = jnp.where(slope > 0, share, jnp.where(distance > 0, jnp.inf, 0))
    return Stationarity(distance, relative, sizes)


def _norm(parts: list[Array]) -> Array:
    squares = [jnp.sum(jnp.square(x.astype(_tree.accumulator(x)))) for x in parts]
    return jnp.sqrt(sum(squares, jnp.zeros(())))
