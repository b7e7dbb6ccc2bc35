"""The gradient of a validation loss by every number of a point, through all of training.

Reverse mode through `jaxreg.fit`, in segments (Maclaurin, Duvenaud & Adams 2015, "Gradient-based
hyperparameter optimization through reversible learning"). It is the exact derivative of what was computed,
and of use where that is smooth in the point: convex models, plain SGD, few steps. Adam on a net is chaotic:
trainings at neighbouring λ part within some hundred steps, and the derivative of where one of them ended is
thousands of times any change that one sees, of either sign. So it is measured, by two more trainings at the
point moved along the gradient to either side by h = 0.3 of its logarithms:

    v = dC / d log p,  d = v / |v|:    |v|  against  (C(p e^{h d}) - C(p e^{-h d})) / 2h,

and where the two disagree by more than the bend of C explains, there is no gradient worth the name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxreg import _tree
from jaxreg._check import check_key, count, flag, shown
from jaxreg._tree import PyTree
from jaxreg.fit import fit
from jaxreg.fit.check import trainer_at
from jaxreg.fit.intake import as_rows, check_batch
from jaxreg.fit.kept import kept
from jaxreg.fit.trainer import MakeTrainer

__all__ = ["Unrolled", "unrolled_hypergradient"]

_STEP = 0.3  # in logarithms: below it the validation loss of a net is rough
_APART = 0.3  # of the larger of both slopes


class Unrolled(NamedTuple):
    """A gradient through training, and what was measured of it.

    Attributes:
      gradient: dC/dp for every number of the point, shaped as the point.
      value: C itself.
      slope: |dC / d log p|, how fast C changes along the gradient.
      measured: the same by two trainings to either side; NaN where it was not measured.
      bend: how much of a difference between the two the curvature of C can explain.
    """

    gradient: PyTree
    value: Array
    slope: Array
    measured: Array
    bend: Array


def unrolled_hypergradient(
    trainer: MakeTrainer,
    point: PyTree,
    train: tuple,
    valid: tuple,
    *,
    steps: int,
    key: Array,
    batch_size: int | None = None,
    seed: int = 0,
    remat: int | None = None,
    measure: bool = True,
) -> Unrolled:
    """How the validation loss at the end of training changes with each number of the point.

    It costs about three trainings, and two that measure it. At a minimum `hypergradient` costs one linear
    solve, and where training is chaotic differences do better: `jaxreg.search`.

    Args:
      trainer: the function point -> `Trainer`.
      point: a penalty, or any pytree of floating numbers.
      train: the training rows.
      valid: the validation rows.
      steps: updates.
      key: PRNG key of parameters and batches, as for `jaxreg.fit`.
      batch_size: rows per step; None is full batch.
      seed: number of the repetition.
      remat: steps of a segment of reverse mode, as for `jaxreg.fit`.
      measure: whether to measure the gradient by two trainings more.

    Returns:
      An `Unrolled`. Inside of `jit` nothing is raised; then compare `slope` with `measured`.

    Raises:
      ValueError: training is chaotic, its derivative not what two trainings show; or it diverged.
      TypeError: a number of the point is no floating one.

    >>> import optax, jaxreg as jr
    >>> X, y = jnp.eye(4), jnp.ones(4)
    >>> def trainer(reg):
    ...     loss = lambda w, X, y: 0.5 * jnp.mean((X @ w - y) ** 2)
    ...     tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(1.0))
    ...     return jr.Trainer(lambda key: jnp.zeros(4), loss, tx)
    >>> valid = X, 0.5 * y
    >>> found = jr.unrolled_hypergradient(
    ...     trainer, jr.l2(0.1), (X, y), valid, steps=100, key=jax.random.key(0))
    >>> found.gradient  # w = 1 / (1 + 4 lam), C = (w - 1/2)^2 / 2
    l2(-0.437...)
    """
    owner = "unrolled_hypergradient"
    point = _floating(owner, point)
    trainer_at(owner, trainer, point)
    check_key(owner, key)
    steps, seed = count(owner, "steps", steps), count(owner, "seed", seed, 0)
    remat = None if remat is None else count(owner, "remat", remat)
    measure = flag(owner, "measure", measure)
    train, n = as_rows(owner, train, "train")
    valid, _ = as_rows(owner, valid, "valid")
    batch_size = check_batch(owner, batch_size, n)
    if all(_tree.is_concrete(x) for x in jax.tree.leaves((point, train, key))):
        fit(
            trainer, point, train, steps=0, key=key, batch_size=batch_size
        )  # refuses what it cannot train
    args = point, train, valid, key
    found = _program(trainer, steps, batch_size, seed, remat, measure)(*args)
    if _tree.is_concrete(found.value):
        _refuse(owner, found, steps, measure)
    return found


def _floating(owner: str, point: PyTree) -> PyTree:
    """The point with its numbers as arrays."""
    leaves = _tree.flatten(point)
    number = lambda x: isinstance(x, (int, float)) or _tree.is_floating(x)
    odd = {
        p: x for p, x in zip(leaves.paths, leaves.values) if isinstance(x, bool) or not number(x)
    }
    if odd or not leaves.paths:
        name = next(iter(odd), "")
        at = f" at {name!r}" if name else ""
        got = f"got {shown(odd[name])}{at}" if odd else f"got {point!r:.60}, which has none"
        raise TypeError(
            f"{owner}: `point` must be a pytree of floating numbers, each of which gets a derivative; "
            f"{got}. Keep counts and flags out of it, in the closure of `trainer`."
        )
    return leaves.rebuild(
        [jnp.asarray(x, None if _tree.is_array(x) else float) for x in leaves.values]
    )


@kept
def _program(
    trainer: MakeTrainer,
    steps: int,
    batch_size: int | None,
    seed: int,
    remat: int | None,
    measure: bool,
) -> Callable[..., Unrolled]:
    def score(point: PyTree, train: tuple, valid: tuple, key: Array) -> Array:
        state = fit(
            trainer,
            point,
            train,
            steps=steps,
            key=key,
            batch_size=batch_size,
            seed=seed,
            remat=remat,
        )
        made = trainer_at("unrolled_hypergradient", trainer, point)
        return made.measured(made.measures()["loss"], made.judged(state), valid)

    def run(point: PyTree, *rest: Any) -> Unrolled:
        value, gradient = jax.value_and_grad(score)(point, *rest)
        logs = jax.tree.map(lambda p, g: p * g, point, gradient)
        slope = jnp.sqrt(
            sum(jnp.sum(x.astype(_tree.accumulator(x)) ** 2) for x in jax.tree.leaves(logs))
        )
        if not measure:
            return Unrolled(gradient, value, slope, *jnp.full((2,), jnp.nan, value.dtype))
        way = jax.tree.map(lambda x: x / jnp.where(slope > 0, slope, 1), logs)
        moved = jax.tree.map(
            lambda p, d: p * jnp.exp(_STEP * jnp.stack([d, -d])).astype(p.dtype), point, way
        )
        high, low = jax.vmap(lambda p: score(p, *rest))(moved)
        bend = jnp.abs(high - 2 * value + low) / (2 * _STEP)
        return Unrolled(gradient, value, slope, (high - low) / (2 * _STEP), bend)

    return jax.jit(run)


def _refuse(owner: str, found: Unrolled, steps: int, measure: bool) -> None:
    value, slope, seen = float(found.value), float(found.slope), float(found.measured)
    if not np.isfinite(value + slope):
        raise ValueError(
            f"{owner}: after {steps} steps the validation loss is {value:.4g} and its slope {slope:.4g}: "
            "training or its derivative diverged. Lower the learning rate, train fewer `steps`, or take "
            "jaxreg.search, which needs no derivative."
        )
    if measure and not abs(slope - seen) <= _APART * max(slope, abs(seen)) + float(found.bend):
        raise ValueError(
            f"{owner}: training is chaotic. By its derivative the validation loss changes by {slope:.3g} "
            f"along the gradient, for a step of 1 in logarithms of the point; by two trainings, {_STEP} to "
            f"either side, by {seen:.3g}. Adam on a net does this after some hundred steps. Take "
            "jaxreg.search, whose stencil needs no derivative, or fewer `steps`, or plain SGD."
        )
