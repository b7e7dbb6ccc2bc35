"""A trainer is three pure functions made from your loss: start, step, evaluate.

Your loss is the mean over a batch and knows nothing of penalties; the optimizer factory takes the
penalty and decides how it reaches the weights (`add_penalty_gradient`, `decoupled`, `proximal`).
Since a penalty is an argument and never a constant, one compiled step serves every strength, and
`vmap` over the penalty trains a whole grid.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._stream import BatchStream, check_batch, check_data, init_key, stream_key
from jaxreg._tree import PyTree
from jaxreg.coupling import check_coupling
from jaxreg.penalty import Penalty

__all__ = ["TrainState", "Trainer"]

# Evaluation runs over the data in slices of this many rows, so its memory does not grow with n.
_EVAL_ROWS = 4096
# Trainers and structures of penalties whose coupling was found right; it takes a few eager steps.
_COUPLINGS_CHECKED: set[tuple] = set()
# How many of them are remembered, and how many shapes: sweeps of the same kind come again and again.
_REMEMBERED = 128
# Steps whose batches are drawn at once in a single fit.
_BLOCK = 1024


class TrainState(NamedTuple):
    """What training carries from step to step; a pytree."""

    params: PyTree
    opt_state: PyTree
    model_state: PyTree = None


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Pure start / step / evaluate functions for L(params) + R(params).

    Args:
      init: key -> params, or key -> (params, model_state) when `stateful`.
      loss: (params, *batch) -> scalar, the **mean** loss over the rows of the batch. When `stateful`,
        (params, model_state, *batch) -> (scalar, new model_state), as with batch norm. When
        `stochastic`, it also takes `key=`, as with dropout.
      optimizer: penalty -> optax transformation, such as
        `lambda reg: optax.chain(jaxreg.add_penalty_gradient(reg), optax.adam(1e-3))`.
      metrics: name -> (params, *batch) -> scalar mean over the rows; (params, model_state, *batch)
        when `stateful`.
      eval_loss: the loss as it is evaluated, with the signature of a metric: dropout off, running
        averages. Required when `stochastic` or `stateful`; else it is `loss`.
      stateful: whether the loss carries mutable state.
      stochastic: whether the loss takes a PRNG key.

    `params` may be any pytree of floating arrays: dicts, flax variables or nnx state, equinox
    modules. Define the functions once: a trainer is part of what jit caches on.

    >>> import jaxreg as jr
    >>> def loss(w, x, y):
    ...     return 0.5 * jnp.mean((x @ w - y) ** 2)
    >>> trainer = jr.Trainer(
    ...     init=lambda key: jnp.zeros(2),
    ...     loss=loss,
    ...     optimizer=lambda reg: optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.5)),
    ... )
    >>> data = (jnp.eye(2), jnp.array([3.0, 0.0]))
    >>> state = trainer.fit(jr.l2(0.5), data, steps=100, key=jax.random.key(0))
    >>> state.params.round(4).tolist()  # ridge: 3 * 0.5 / (0.5 + 0.5)
    [1.5, 0.0]
    """

    init: Callable[[Array], Any]
    loss: Callable[..., Any]
    optimizer: Callable[[Penalty], optax.GradientTransformation]
    metrics: Mapping[str, Callable[..., Array]] = dataclasses.field(default_factory=dict)
    eval_loss: Callable[..., Array] | None = None
    stateful: bool = False
    stochastic: bool = False

    def __post_init__(self) -> None:
        if self.eval_loss is None and (self.stateful or self.stochastic):
            raise ValueError(
                "Trainer: `eval_loss` is required when the loss is stateful or stochastic: a function "
                "(params, [model_state,] *batch) -> mean loss with dropout off and running averages."
            )
        if "loss" in self.metrics:
            raise ValueError("Trainer: `metrics` must not contain 'loss'; it is always recorded.")

    def __hash__(self) -> int:
        return hash((self.init, self.loss, self.optimizer, tuple(self.metrics.items())))

    def start(self, penalty: Penalty, key: Array) -> TrainState:
        """Initial state: fresh parameters from `key`, and the optimizer's state for them.

        Raises:
          TypeError: a parameter is not a floating array.
        """
        made = self.init(key)
        params, model_state = made if self.stateful else (made, None)
        leaves = _tree.flatten(params)
        for path, x in zip(leaves.paths, leaves.values):
            if not _tree.is_floating(x):
                raise TypeError(
                    f"Trainer: the parameter {path!r} that `init` made is no floating array "
                    f"({getattr(x, 'dtype', type(x).__name__)}). Keep what is not trained out of the "
                    "parameters: in the closure of the loss, or in the model state (stateful=True)."
                )
        return TrainState(params, self.optimizer(penalty).init(params), model_state)

    def step(
        self, state: TrainState, penalty: Penalty, batch: tuple, key: Array | None = None
    ) -> tuple[TrainState, Array]:
        """One update; returns the new state and the data loss before it (never the penalised one)."""
        loss = self.loss_of(state, batch, key)
        (value, model_state), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = self.optimizer(penalty).update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, opt_state, model_state), value

    def loss_of(self, state: TrainState, batch: tuple, key: Array | None = None) -> Callable:
        """The data loss of a batch as params -> (loss, new model state), whatever kind of loss it is."""
        extra = {"key": key} if self.stochastic else {}

        def loss(params):
            if self.stateful:
                return self.loss(params, state.model_state, *batch, **extra)
            return self.loss(params, *batch, **extra), None

        return loss

    def evaluate(self, state: TrainState, data: tuple, weights: ArrayLike | None = None) -> dict:
        """Weighted means over the rows of `data` of the evaluation loss and every metric.

        Args:
          state: where to evaluate.
          data: arrays with the rows first.
          weights: [n] or [n, m] >= 0: one weighting of the rows, or m of them in one pass (training
            and validation rows, say); equal weights by default.

        Returns:
          {"loss": mean, name: mean, ...}, each a scalar or [m].
        """
        n = len(jax.tree.leaves(data)[0])
        weights = jnp.ones(n) if weights is None else jnp.asarray(weights, float)
        # A weight of zero must silence a NaN as well, hence `where` and not a plain product.
        w = weights / jnp.sum(weights, 0)

        def mean(values):
            values = values.reshape((n,) + (1,) * (w.ndim - 1))
            return jnp.sum(jnp.where(w > 0, w * values, 0), 0)

        return {name: mean(v) for name, v in self._row_values(state, data).items()}

    def _row_values(self, state: TrainState, data: tuple) -> dict[str, Array]:
        model = (state.params, state.model_state) if self.stateful else (state.params,)
        measures = {"loss": self.eval_loss or self.loss, **self.metrics}

        def row(row):
            one = jax.tree.map(lambda a: a[None], row)
            return {name: fn(*model, *one) for name, fn in measures.items()}

        n = len(jax.tree.leaves(data)[0])
        return jax.vmap(row)(data) if n <= _EVAL_ROWS else lax.map(row, data, batch_size=_EVAL_ROWS)

    def run(
        self,
        state: TrainState,
        penalty: Penalty,
        data: tuple,
        stream: BatchStream,
        first: int | Array,
        n: int | Array,
    ) -> TrainState:
        """The steps first, …, first + n - 1 on the batches of `stream`; both may be traced.

        `n` is at most `stream.ahead`. Under `vmap` over states and penalties the batches are gathered
        once for all of them.
        """
        batch_at = stream.batches(data, first)

        def body(i, state):
            return self.step(state, penalty, batch_at(i), stream.noise_key(first + i))[0]

        return lax.fori_loop(0, n, body, state)

    def fit(
        self,
        penalty: Penalty,
        data: tuple,
        *,
        steps: int,
        key: Array,
        batch_size: int | None = None,
        rows: Array | None = None,
        fold: int = 0,
        seed: int = 0,
    ) -> TrainState:
        """Train once, from `start` for `steps` steps; compiled, and pure in everything.

        It is what one lane of `jaxreg.sweep` does: the same key, fold, seed and rows give the same
        initial parameters and batches.

        Args:
          penalty: the penalty, whose strengths never recompile.
          data: arrays with n rows each.
          steps: number of updates.
          key: PRNG key; initial parameters depend on (key, seed), batches on (key, fold, seed).
          batch_size: rows per step, drawn without replacement within an epoch; None is full batch.
          rows: the rows to train on, all by default.
          fold: number of the fold, which only chooses the stream of batches.
          seed: number of the repetition.

        Raises:
          ValueError: the batch is larger than the data, lengths differ, or the optimizer applies the
            penalty with the wrong sign.
        """
        n = check_data("fit", data)
        rows = jnp.arange(n) if rows is None else jnp.asarray(rows)
        check_batch("fit", batch_size, len(rows))
        self.check(penalty, key)
        return _fit(self, penalty, data, rows, key, fold, seed, steps, batch_size)

    def check(self, penalty: Penalty, key: Array) -> TrainState:
        """Raise what is wrong with loss, optimizer and penalty, before anything compiles.

        Returns:
          The shapes of the initial state, as `jax.ShapeDtypeStruct`.
        """
        like = lambda tree: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
        strengths, structure = jax.tree.flatten(like(penalty))
        state = _shapes(self, structure, tuple(strengths), like(key))
        if not all(_tree.is_concrete(x) for x in jax.tree.leaves(penalty)):
            return state
        # Signs do not depend on how large a strength is, so they are looked at once for all of them.
        shapes = tuple((x.shape, x.dtype) for x in jax.tree.leaves(state.params))
        zeros = tuple(bool(jnp.all(x == 0)) for x in jax.tree.leaves(penalty))
        asked = (self, jax.tree.structure((penalty, state.params)), shapes, zeros)
        if asked not in _COUPLINGS_CHECKED:
            check_coupling(self.optimizer(penalty), penalty, state.params)
            if len(_COUPLINGS_CHECKED) >= _REMEMBERED:
                _COUPLINGS_CHECKED.clear()
            _COUPLINGS_CHECKED.add(asked)
        return state


@functools.lru_cache(maxsize=_REMEMBERED)
def _shapes(trainer: Trainer, structure: Any, strengths: tuple, key: Any) -> TrainState:
    """Shapes of the initial state; raises what is wrong with functions and penalty."""
    penalty = jax.tree.unflatten(structure, strengths)
    state = jax.eval_shape(trainer.start, penalty, key)
    jax.eval_shape(lambda penalty, params: penalty(params), penalty, state.params)
    return state


@functools.partial(jax.jit, static_argnames=("trainer", "steps", "batch_size"))
def _fit(trainer, penalty, data, rows, key, fold, seed, steps, batch_size):
    state = trainer.start(penalty, init_key(key, seed))
    # Batches are drawn a block of steps at a time, so memory does not grow with the run's length.
    ahead = min(steps, _BLOCK)
    stream = BatchStream(
        rows, len(rows), stream_key(key, fold, seed), batch_size, max(ahead, 1), len(rows)
    )

    def block(b, state):
        first = b * ahead
        return trainer.run(state, penalty, data, stream, first, jnp.minimum(ahead, steps - first))

    return lax.fori_loop(0, -(-steps // max(ahead, 1)), block, state)
