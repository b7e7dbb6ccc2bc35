"""The gradient of a validation loss by the strengths of a penalty, at trained parameters.

At θ(λ), where grad L + dR_λ = 0, no entry that R holds at a kink moves, and on the others (A, the active
ones) both functions are smooth. Differentiating the optimality condition there gives, for a validation
loss C,

    dC/dλ = -(d² R / dλ dθ_A)' u,    (H + δ I) u = grad_A C,    H = d²(L + R) / dθ_A²

(Bengio 2000; for sparse penalties Bertrand et al. 2020, "Implicit differentiation of Lasso-type models for
hyperparameter optimization", proposition 2). u comes from conjugate gradients with Hessian-vector
products, so that one solve serves any number of strengths: one for each coordinate costs what one for all
does.

It is the derivative of a minimum. Where training stopped short of it, or where H is not positive, there is
no such derivative, and none is given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxreg import _tree
from jaxreg._check import count, shown
from jaxreg._tree import PyTree
from jaxreg.fit.kept import kept
from jaxreg.penalty import Penalty

__all__ = ["Hypergradient", "hypergradient"]

_NUDGE = 1e-3  # of the mean size of the entries, to see on which side of a kink a gradient is
_NEARER = 16.0


class Hypergradient(NamedTuple):
    """A gradient by the strengths, and how far to trust it.

    Attributes:
      gradient: dC/dλ and the derivative by every other number of the penalty, shaped as the penalty.
      value: C itself.
      residual: |grad L + grad R| over |grad L| on the active entries: how far from a minimum.
      solved: |(H + δ) u - grad C| over |grad C|: how well the linear system was solved.
      curvature: the least curvature that conjugate gradients met.
      active: how many entries are free to move.
      damping: δ.
    """

    gradient: Penalty
    value: Array
    residual: Array
    solved: Array
    curvature: Array
    active: Array
    damping: float


def hypergradient(
    loss: Callable[..., Array],
    params: PyTree,
    penalty: Penalty,
    train: tuple,
    valid: tuple,
    *,
    valid_loss: Callable[..., Array] | None = None,
    damping: float = 0.0,
    tol: float = 1e-3,
    steps: int = 1000,
) -> Hypergradient:
    """How a validation loss changes with each strength of a penalty, at the minimum of L + R.

    Args:
      loss: (params, *batch) -> scalar, the mean data loss, as it was trained on.
      params: where training came to rest, such as `result.lane(k)`, or `fit(...).params`.
      penalty: R, whose every number gets its derivative.
      train: the training rows.
      valid: the validation rows.
      valid_loss: the loss of these, by default `loss`.
      damping: δ >= 0, added to the curvature; it biases the gradient, by a few percent at 1e-4 of a net.
      tol: the largest residual of the inner problem and of the solve. A relative residual of 1e-3 makes the
        gradient wrong by some percent, 1e-5 by less than a thousandth.
      steps: the most steps of conjugate gradients.

    Returns:
      A `Hypergradient`. Inside of `jit` nothing is raised; then look at its residuals.

    Raises:
      ValueError: the parameters are no minimum, the curvature is negative, the system was not solved, or
        the penalty has kinks that are not at 0 (as fused_lasso). TypeError: an argument of the wrong kind.

    >>> import jaxreg as jr
    >>> loss = lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2)
    >>> train, valid = (jnp.eye(2), jnp.array([2.0, 4.0])), (jnp.eye(2), jnp.array([1.0, 3.0]))
    >>> w = train[1] * 0.5 / (0.5 + 0.1)  # ridge in closed form
    >>> found = hypergradient(loss, w, jr.l2(0.1), train, valid)
    >>> found.gradient, round(float(found.residual), 6)
    (l2(-1.85185), 0.0)
    """
    _check(loss, penalty, damping, tol)
    steps = count("hypergradient", "steps", steps)
    _tree.check_arrays("hypergradient", "params", params)
    if valid_loss is not None and not callable(valid_loss):
        raise TypeError(f"hypergradient: `valid_loss` must be a function, got {shown(valid_loss)}.")
    for name, rows in (("train", train), ("valid", valid)):
        if not isinstance(rows, tuple):
            raise TypeError(
                f"hypergradient: `{name}` must be a tuple of arrays, such as (X, y), got a "
                f"{type(rows).__name__}."
            )
    run = _program if _arrays((params, train, valid)) else _bound
    found = run(loss, valid_loss or loss, steps)(params, penalty, train, valid, damping)
    found = found._replace(damping=damping)
    if _tree.is_concrete(found.residual):
        _refuse(found, tol)
    return found


def _check(loss: Any, penalty: Any, damping: Any, tol: Any) -> None:
    if not callable(loss) or isinstance(loss, Penalty):
        raise TypeError(
            "hypergradient: `loss` must be a function (params, *batch) -> mean loss, got a "
            f"{type(loss).__name__}."
        )
    if not isinstance(penalty, Penalty):
        raise TypeError(
            "hypergradient: `penalty` must be a penalty such as jaxreg.l1(1e-3), got a "
            f"{type(penalty).__name__}."
        )
    for name, value in (("damping", damping), ("tol", tol)):
        number = isinstance(value, (int, float, np.floating)) and type(value) is not bool
        if not number or not 0 <= value < np.inf:
            raise (ValueError if number else TypeError)(
                f"hypergradient: `{name}` must be a finite number of at least 0, got {shown(value)}."
            )


def _arrays(tree: PyTree) -> bool:
    """Whether there is nothing but arrays in it, so that it can go into a compiled program."""
    return all(isinstance(x, (Array, np.ndarray)) for x in jax.tree.leaves(tree))


def _bound(loss: Callable, valid_loss: Callable, steps: int) -> Callable[..., Hypergradient]:
    return functools.partial(_hypergradient, loss, valid_loss, steps)


@kept
def _program(loss: Callable, valid_loss: Callable, steps: int) -> Callable[..., Hypergradient]:
    """The same compiled: another λ, or other parameters of these shapes, compile nothing."""
    return jax.jit(_bound(loss, valid_loss, steps))


def _hypergradient(
    loss: Callable,
    valid_loss: Callable,
    steps: int,
    params: PyTree,
    penalty: Penalty,
    train: tuple,
    valid: tuple,
    damping: float,
) -> Hypergradient:
    mask = _tree.trained(params)
    whole = lambda part: _tree.combine(part, params, mask)
    part = _tree.partition(params, mask)
    slope_of_r = jax.grad(lambda part, reg: reg(whole(part)))
    slope_of_l = jax.grad(lambda part: loss(whole(part), *train))
    free = _free(lambda part: slope_of_r(part, penalty), part)
    only = lambda tree: jax.tree.map(lambda x, a: jnp.where(a, x, 0), tree, free)
    slope = lambda part: jax.tree.map(jnp.add, slope_of_l(part), slope_of_r(part, penalty))
    curved = lambda v: only(jax.jvp(slope, (part,), (only(v),))[1])
    value, wanted = jax.value_and_grad(lambda part: valid_loss(whole(part), *valid))(part)
    wanted = only(wanted)
    u, curvature = _conjugate(lambda v: _axpy(damping, v, curved(v)), wanted, steps)
    pull = lambda reg: _dot(u, only(slope_of_r(part, reg)))
    gradient = jax.tree.map(jnp.negative, jax.grad(pull)(penalty))
    rest = _axpy(-1.0, wanted, _axpy(damping, u, curved(u)))
    size = _norm(slope_of_l(part))
    return Hypergradient(
        gradient,
        value,
        _norm(only(slope(part))) / jnp.where(size > 0, size, 1),
        _norm(rest) / jnp.maximum(_norm(wanted), jnp.finfo(value.dtype).tiny),
        curvature,
        sum((jnp.sum(a) for a in jax.tree.leaves(free)), jnp.zeros((), int)),
        damping,
    )


def _free(slope: Callable[[PyTree], PyTree], part: PyTree) -> PyTree:
    """Which entries are not held at a kink: those that are not 0, or where R is smooth at 0.

    To either side of 0 the gradients of a kink stay apart, however near; those of a smooth function do not.
    """
    sizes = [jnp.sum(jnp.abs(x)) / max(x.size, 1) for x in jax.tree.leaves(part)]
    nudge = _NUDGE * jnp.maximum(sum(sizes) / max(len(sizes), 1), 1e-6)

    def apart(by: Array) -> PyTree:
        aside = lambda sign: jax.tree.map(
            lambda x: jnp.where(x == 0, jnp.asarray(sign * by, x.dtype), x), part
        )
        return jax.tree.map(lambda a, b: jnp.abs(a - b), slope(aside(1)), slope(aside(-1)))

    far, near = apart(nudge), apart(nudge / _NEARER)
    return jax.tree.map(lambda x, f, n: (x != 0) | ~(n > f / 4) | (f == 0), part, far, near)


def _conjugate(
    product: Callable[[PyTree], PyTree], wanted: PyTree, steps: int
) -> tuple[PyTree, Array]:
    """Conjugate gradients from 0; the solution, and the least curvature v'Av / v'v on the way."""
    squares = _dot(wanted, wanted)
    least = jnp.finfo(squares.dtype).eps ** 2 * squares

    def going(state: tuple) -> Array:
        _, _, _, left, curvature, i = state
        return (left > least) & (i < steps) & (curvature > 0)

    def step(state: tuple) -> tuple:
        u, rest, way, left, curvature, i = state
        along = product(way)
        bend, size = _dot(way, along), _dot(way, way)
        # Rounding may make a flat direction bend by a little below 0.
        flat = jnp.abs(bend) <= 10 * jnp.finfo(bend.dtype).eps * jnp.sqrt(size * _dot(along, along))
        ok = (bend > 0) & ~flat
        length = jnp.where(ok, left / jnp.where(ok, bend, 1), 0)
        u, rest = _axpy(length, way, u), _axpy(-length, along, rest)
        now = _dot(rest, rest)
        way = _axpy(now / left, way, rest)
        seen = jnp.where(flat, curvature, jnp.minimum(curvature, bend / size))
        return u, rest, way, jnp.where(ok, now, left), seen, jnp.where(ok, i + 1, steps)

    zero = jax.tree.map(jnp.zeros_like, wanted)
    start = (zero, wanted, wanted, squares, jnp.asarray(jnp.inf, squares.dtype), 0)
    u, _, _, _, curvature, _ = lax.while_loop(going, step, start)
    return u, curvature


def _refuse(found: Hypergradient, tol: float) -> None:
    residual, solved = float(found.residual), float(found.solved)
    if not residual <= tol:
        raise ValueError(
            "hypergradient: `params` are no minimum of L + R: on entries that are free to move its "
            f"gradient is {residual:.2g} of that of L, and `tol` is {tol:g}. Train longer, with a smaller "
            "step or in float64. Where jaxreg.stationarity is small nevertheless, the penalty has kinks "
            "that are not at 0, which this gradient does not know."
        )
    if float(found.curvature) <= 0:
        raise ValueError(
            "hypergradient: the Hessian of L + R at `params` has a direction of curvature "
            f"{float(found.curvature):.2g}, so this is no minimum and has no gradient by λ. Train on, or "
            "give `damping` above its size, which biases the gradient."
        )
    if not solved <= tol:
        raise ValueError(
            f"hypergradient: conjugate gradients left {solved:.2g} of the right-hand side, and `tol` is "
            f"{tol:g}. Give more `steps`, float64, or `damping`, which biases the gradient."
        )


def _axpy(a: Any, x: PyTree, y: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: (a * x + y).astype(y.dtype), x, y)


def _dot(x: PyTree, y: PyTree) -> Array:
    wide = lambda a: a.astype(_tree.accumulator(a))
    parts = jax.tree.map(lambda a, b: jnp.sum(wide(a) * wide(b)), x, y)
    return sum(jax.tree.leaves(parts), jnp.zeros(()))


def _norm(x: PyTree) -> Array:
    return jnp.sqrt(_dot(x, x))
