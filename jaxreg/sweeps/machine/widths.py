"""How many lanes of a model a CPU trains fastest together, read from a trace of its loss.

Vmapped lanes share what an operation costs beside its arithmetic, until the lanes no longer fit into
a core's cache. A lane is what it carries from step to step and what its forward pass keeps for the
backward one: half a megabyte for a dense net of 26,000 weights, which is fastest by fours to eights;
2.6 megabytes for a GRU of 54,000, and 2.4 for a dense net of 200,000, which are fastest alone. So is
every net with convolutions: vmapped over its kernels a convolution becomes a grouped one, which was
measured up to 1.7 times slower.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import Array

from jaxreg._convolution import has_convolution
from jaxreg._tree import PyTree
from jaxreg.fit.check import frozen, trainer_at
from jaxreg.fit.kept import kept
from jaxreg.fit.trainer import MakeTrainer, TrainState, parts_of

__all__ = ["widest"]

_MOST, _CACHE = 32, 9 * 2**19  # lanes; bytes


def widest(
    trainer: MakeTrainer,
    point: PyTree,
    start: TrainState,
    batch: tuple,
    key: Array,
    numbers: PyTree = None,
) -> int:
    """The most lanes that a block on a CPU should have.

    Args:
      trainer: whose loss is traced, once for each kind of point, state and batch.
      point: any point.
      start: the state of a lane, or its shapes.
      batch: the rows of a step, or their shapes.
      key: any PRNG key of the kind that the sweep uses.
      numbers: what was prepared, or its shapes.
    """
    return _widest(trainer, *frozen((point, start, batch, key, numbers)))


@kept
def _widest(trainer: MakeTrainer, structure: Any, leaves: tuple) -> int:
    point, state, batch, key, numbers = jax.tree.unflatten(structure, leaves)

    def kept(point, state, batch, key, numbers):
        """What the pullback of the loss holds: the activations that the backward pass needs."""
        loss = trainer_at("sweep", trainer, point, numbers).loss_of(state, batch, key)
        params, whole = parts_of(state.params)
        return jax.vjp(lambda params: loss(whole(params)), params, has_aux=True)[1]

    trace = jax.make_jaxpr(kept)(point, state, batch, key, numbers)
    if has_convolution(trace.jaxpr):
        return 1
    carried = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    lane = carried + sum(x.size * x.dtype.itemsize for x in trace.out_avals)
    return max(1, min(_MOST, _CACHE // max(lane, 1)))
