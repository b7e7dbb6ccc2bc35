"""Whether the steps of a penalty are lost in the rounding of narrow parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxreg import _tree
from jaxreg._tree import PyTree
from jaxreg.coupling import is_compensated, told
from jaxreg.fit.check import trainer_at
from jaxreg.fit.trainer import MakeTrainer, TrainState, parts_of

__all__ = ["lost_steps"]


def lost_steps(
    owner: str,
    trainer: MakeTrainer,
    points: PyTree,
    shapes: TrainState,
    key: Array,
    numbers: PyTree,
) -> list[str]:
    """A warning where the first step from the start, without a gradient of the loss, changes no weight.

    Such a step is the penalty's, and it would be lost at every other step as well.

    Args:
      owner: who asks.
      trainer: the function of the point.
      points: leaves [K, ...].
      shapes: of the initial state; parameters in float32 or wider cost nothing here.
      key: of the start.
      numbers: what was prepared for one fold.
    """
    leaves = _tree.flatten(parts_of(shapes.params)[0])
    narrow = [_tree.is_narrow(x) for x in leaves.values]
    if not any(narrow) or is_compensated(shapes.opt_state):
        return []

    def lost(point: PyTree) -> list[Array]:
        made = trainer_at(owner, trainer, point, numbers)
        start, _ = parts_of(made.start(key).params)
        wide = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), start)
        kept, meant = _stepped(made.optimizer, start), _stepped(made.optimizer, wide)
        of = zip(*map(jax.tree.leaves, (start, kept, wide, meant)))
        return [_share(old == new, to != at) for old, new, at, to in of]

    shares = np.array(jax.jit(jax.vmap(lost))(points))
    found = (shares > 0.5) & np.array(narrow)[:, None]
    if not found.any():
        return []
    hit = np.asarray(found.any(1))
    dtype = next(x.dtype for x, h in zip(leaves.values, hit) if h)
    paths = [repr(path) for path, h in zip(leaves.paths, hit) if h]
    n, of_all = int(found.any(0).sum()), found.shape[1]
    least = float(jnp.finfo(dtype).eps) / 4
    return [
        f"the penalty's steps on {', '.join(paths[:4])}{', …' * (len(paths) > 4)} are lost in the rounding "
        f"of {dtype}{f' at {n} of {of_all} points' * (of_all > 1)}: what moves a weight by less than "
        f"{least:.1g} of itself leaves it as it is. Put jaxreg.compensated(...) around the optimizer, or "
        "keep the parameters in float32 and compute in the narrow dtype."
    ]


def _stepped(optimizer: optax.GradientTransformation, params: PyTree) -> PyTree:
    tx = optax.with_extra_args_support(optimizer)
    nothing, state, zero = jax.tree.map(jnp.zeros_like, params), tx.init(params), jnp.zeros(())
    given = told(tx, state, params, zero, nothing, lambda _: zero)
    updates, _ = tx.update(nothing, state, params, **given)
    return optax.apply_updates(params, updates)


def _share(same: Array, meant: Array) -> Array:
    """How many of the weights that were meant to move have not."""
    return jnp.sum(same & meant) / jnp.maximum(jnp.sum(meant), 1)
