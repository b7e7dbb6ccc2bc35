"""How far every lane has ended from a stationary point: one gradient over its training rows each."""

from __future__ import annotations

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxreg import _tree
from jaxreg._convolution import canonical_convolutions
from jaxreg._tree import PyTree
from jaxreg.fit import judge
from jaxreg.fit.check import trainer_at
from jaxreg.fit.kept import kept
from jaxreg.fit.trainer import MakeTrainer, Trainer, TrainState, parts_of
from jaxreg.objective import penalties_in
from jaxreg.penalty import Penalty, Zero
from jaxreg.stationarity import Stationarity, of_gradient
from jaxreg.sweeps.population import Population
from jaxreg.sweeps.program import (
    Bundles,
    Common,
    LaneState,
    Program,
    Spec,
    data_of,
    over_lanes,
    over_mesh,
    stream_of,
    trainer_of,
)
from jaxreg.sweeps.rows import Rows

__all__ = ["Certify", "certificates", "certify"]

_SLICE = 4096  # rows of a gradient at once, where the loss is a mean over rows


@dataclasses.dataclass(frozen=True)
class _Training:
    """A function of the point whose trainers are judged by the loss that they train on."""

    trainer: MakeTrainer

    def __call__(self, point: PyTree) -> Trainer:
        made = trainer_at("sweep", self.trainer, point)
        return dataclasses.replace(made, eval_loss=None, metrics={})


@dataclasses.dataclass(frozen=True)
class Certify:
    """How the gradient over all training rows is taken."""

    sliced: bool  # the loss is a mean over rows
    padded: bool  # folds have different numbers of training rows


def certify(
    trainer: MakeTrainer, point: PyTree, state: TrainState, rows: Rows, key: Array, numbers: PyTree
) -> Certify:
    """What is asked before anything compiles.

    Args:
      trainer: the function of the point.
      point: any concrete point.
      state: the shapes of an initial state.
      rows: what the sweep is of.
      key: any PRNG key.
      numbers: what was prepared for one fold.

    Raises:
      ValueError: what was trained on has no one gradient over the training rows, or a penalty no closed
        form of its subdifferential.
    """
    if rows.stream is not None:
        _refuse("the rows of a stream are read once and not kept")
    made, data = trainer_at("sweep", trainer, point, numbers), rows.prepared.data
    if made.stateful or made.stochastic:
        kind = "stateful" if made.stateful else "stochastic"
        _refuse(f"the loss is {kind}, so what was trained on is a mean over minibatches or noise")
    some = jax.tree.map(lambda a: jax.ShapeDtypeStruct((2, *a.shape[1:]), a.dtype), data)
    params = state.params

    def changed(params, batch):
        _, left = made.loss_of(state, batch)(params)
        if any(a is not b for a, b in zip(*map(jax.tree.leaves, (params, left.params)))):
            _refuse(
                "the loss changes statistics of the module, so its value depends on the minibatch"
            )

    jax.eval_shape(changed, params, some)
    # The penalty says by itself what it cannot do.
    part, _ = parts_of(params)
    jax.eval_shape(lambda p: _penalty(point).min_norm_subgradient(p, p), part)
    ways = judge.find_ways(
        "sweep", _Training(trainer), point, data, key,
        weighted=rows.weights is not None, numbers=numbers,
    )  # fmt: skip
    found = {way for _, way in ways}  # of the loss and of each of its terms
    if "whole" in found and not rows.splits.equal:
        _refuse(
            "the loss is no mean over rows and takes no `sample_weight`, and the folds have different sizes"
        )
    return Certify(found == {"rows"}, not rows.splits.equal)


def _refuse(why: str) -> None:
    raise ValueError(
        f"sweep: stationarity=True is not possible: {why}. Say what loss is meant, and on which rows: "
        "jaxreg.stationarity(loss, result.lane(k), penalty, *rows)."
    )


def certificates(population: Population, asked: Certify) -> Stationarity:
    """The stationarity of every lane where it ended, leaves [K, P]."""
    return population.each(_program(population.spec.trainer, population.spec, asked))


@kept
def _program(trainer: MakeTrainer, spec: Spec, asked: Certify) -> Program:
    del trainer  # it is in the spec, and keeps what is made
    found = over_mesh(lambda *args: _certify(*args, spec=spec, asked=asked), spec, 2, 1)
    return Program("sweep_certify", canonical_convolutions(found))


def _certify(
    states: LaneState, bundles: Bundles, common: Common, *, spec: Spec, asked: Certify
) -> Stationarity:
    def bundle(states: LaneState, bundle: Bundles) -> Stationarity:
        at, data = trainer_of(common, spec, bundle), data_of(common, spec, bundle)
        full = dataclasses.replace(
            stream_of(common, spec, bundle), batch_size=None, padded=asked.padded
        )
        batch, weights = full.batches(data, 0)(0)

        def lane(state: LaneState, point: PyTree) -> Stationarity:
            made = at(point)
            ended = made.judged(state.train) if state.best is None else _best(state)
            grads = _gradient(made, ended, batch, weights, asked.sliced)
            return of_gradient(parts_of(ended.params)[0], _penalty(point), grads)

        return over_lanes(lane)(states, bundle.points)

    return over_lanes(bundle)(states, bundles)


def _best(state: LaneState) -> TrainState:
    assert state.best is not None
    params, model_state = state.best.model
    return state.train._replace(params=params, model_state=model_state)


def _penalty(point: PyTree) -> Penalty:
    return functools.reduce(operator.add, penalties_in(point).values(), Zero())


def _gradient(
    trainer: Trainer, state: TrainState, batch: tuple, weights: Array | None, sliced: bool
) -> PyTree:
    """The gradient of the training loss over all rows, in slices where that is the same."""
    params, whole = parts_of(state.params)

    def slope(rows: tuple, weights: Array | None) -> PyTree:
        loss = trainer.loss_of(state, rows, None, weights)
        return jax.grad(lambda part: loss(whole(part))[0])(params)

    given, n = (batch, weights), len(jax.tree.leaves(batch)[0])
    if not sliced or n <= _SLICE:
        return slope(*given)
    many, rest = divmod(n, _SLICE)
    cut = jax.tree.map(lambda a: a[: many * _SLICE].reshape(many, _SLICE, *a.shape[1:]), given)
    share = lambda total, grads, rows: jax.tree.map(lambda t, g: t + g * (rows / n), total, grads)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, _tree.accumulator(x)), params)
    total, _ = lax.scan(lambda t, part: (share(t, slope(*part), _SLICE), None), zeros, cut)
    if not rest:
        return total
    return share(total, slope(*jax.tree.map(lambda a: a[many * _SLICE :], given)), rest)
