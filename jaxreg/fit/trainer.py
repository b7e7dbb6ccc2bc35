"""A trainer is four pure functions made from your loss: start, step, run, evaluate.

Your loss is the mean over a batch and knows nothing of penalties; how a penalty reaches the weights is
decided in the optimizer chain (`add_penalty_gradient`, `decoupled`, `proximal`). What is swept, whether a
penalty, a learning rate or a dropout rate, comes from outside: `jaxreg.fit` and `jaxreg.sweep` take a
*function of the point* that returns a trainer. Since the point is an argument and never a constant, one
compiled step serves every point, and `vmap` over points trains a whole grid.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._check import flag
from jaxreg._tree import PyTree
from jaxreg.coupling import told
from jaxreg.fit.batches import BatchStream, WindowStream
from jaxreg.fit.returned import Left, data_of, takes, takes_weights, term_of
from jaxreg.objective import booked, total

__all__ = ["MakeTrainer", "TrainState", "Trainer", "parts_of"]


class TrainState(NamedTuple):
    """What training carries from step to step; a pytree."""

    params: PyTree
    opt_state: PyTree
    model_state: PyTree = None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Trainer:
    """How one point is trained and judged, as pure functions.

    Args:
      init: key -> params, or key -> (params, model_state) when `stateful`.
      loss: (params, *batch) -> scalar, the **mean** loss over the rows of the batch. When `stateful`,
        (params, model_state, *batch) -> (scalar, new model_state), as with batch norm. When
        `stochastic`, it also takes `key=`, as with dropout. One that takes `sample_weight=` gets the
        weights of the rows, [rows], 1 on average; it needs them only where it is no mean over rows.
        In place of the scalar it may return (data loss, {name: term}): their sum is trained on, and all
        are recorded apart. One that takes `step=` gets the number of the update, for strengths that
        change while training.
      optimizer: an optax transformation with the penalty in it, such as
        `optax.chain(jaxreg.add_penalty_gradient(reg), optax.adam(1e-3))`.
      metrics: name -> (params, *batch) -> scalar, of any kind: it is called with the rows to be judged;
        (params, model_state, *batch) when `stateful`. `jaxreg.metrics` has those in common use.
      eval_loss: the loss as it is evaluated, with the signature of a metric: dropout off, running
        averages; with the terms of the loss, if it has any. Required when `stochastic` or `stateful`, or
        when the loss takes `step`; else it is `loss`.
      eval_params: the parameters that are judged and kept, a function of the `TrainState`, such as
        `jaxreg.average_of` where the optimizer is `jaxreg.averaged(...)`; else those that are trained.
      value_and_grad: how the gradient of what is trained on is taken, with the signature of
        `jax.value_and_grad`; such as functools.partial(jaxreg.sam, rho=0.05).
      stateful: whether the loss carries mutable state.
      stochastic: whether the loss takes a PRNG key.

    Where numbers were prepared for each fold (`prepare=` of a sweep), init, losses and metrics take them
    after everything else of the model: init(key, numbers), loss(params, [model_state,] numbers, *batch).
    `params` may be any pytree of floating arrays, such as a dict or flax variables, and a module as it is
    held: of an equinox module floating arrays are trained, of an nnx module its `Param`s. Functions and
    settings reach the loss as they were, and statistics and counters as the loss left them.

    Raises:
      TypeError: an argument is of the wrong kind. ValueError: `eval_loss` is missing, or a metric is
        called "loss".

    >>> import jaxreg as jr
    >>> def loss(w, x, y):
    ...     return 0.5 * jnp.mean((x @ w - y) ** 2)
    >>> def trainer(reg):
    ...     tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.5))
    ...     return jr.Trainer(lambda key: jnp.zeros(2), loss, tx)
    >>> trainer(jr.l2(0.5))
    Trainer(init=trainer.<lambda>, loss=loss, optimizer=GradientTransformationExtraArgs)
    >>> data = (jnp.eye(2), jnp.array([3.0, 0.0]))
    >>> state = jr.fit(trainer, jr.l2(0.5), data, steps=100, key=jax.random.key(0))
    >>> state.params.round(4).tolist()  # ridge: 3 * 0.5 / (0.5 + 0.5)
    [1.5, 0.0]
    """

    init: Callable[..., Any]
    loss: Callable[..., Any]
    optimizer: optax.GradientTransformation
    metrics: Mapping[str, Callable[..., Array]] = dataclasses.field(default_factory=dict)
    eval_loss: Callable[..., Array] | None = None
    eval_params: Callable[[TrainState], PyTree] | None = None
    value_and_grad: Callable[..., Any] = jax.value_and_grad
    stateful: bool = False
    stochastic: bool = False
    _numbers = ()  # numbers that were prepared

    def __post_init__(self) -> None:
        for name in ("init", "loss", "eval_loss", "eval_params", "value_and_grad"):
            given = getattr(self, name)
            if not callable(given) and (given is not None or not name.startswith("eval")):
                raise TypeError(f"Trainer: `{name}` must be a function, got {given!r}.")
        flag("Trainer", "stateful", self.stateful)
        flag("Trainer", "stochastic", self.stochastic)
        self._check_metrics()
        if not isinstance(self.optimizer, optax.GradientTransformation):
            raise TypeError(
                "Trainer: `optimizer` must be an optax transformation such as "
                "optax.chain(jaxreg.add_penalty_gradient(reg), optax.adam(1e-3)), got "
                f"a {type(self.optimizer).__name__}. The penalty comes from outside: "
                "def trainer(reg): return jaxreg.Trainer(init, loss, <the chain with reg in it>)."
            )
        by_step = takes(self.loss, "step")
        if self.eval_loss is None and (self.stateful or self.stochastic or by_step):
            what = "takes `step`" if by_step else "is stateful or stochastic"
            raise ValueError(
                f"Trainer: `eval_loss` is required when the loss {what}: a function (params, "
                "[model_state,] *batch) -> mean loss with dropout off and running averages."
            )

    def _check_metrics(self) -> None:
        given = self.metrics
        if not isinstance(given, Mapping):
            raise TypeError(
                "Trainer: `metrics` must be a dict name -> function, such as "
                f"{{'accuracy': jaxreg.metrics.accuracy(predict)}}, got {given!r}."
            )
        odd = [
            (name, fn) for name, fn in given.items() if not (isinstance(name, str) and callable(fn))
        ]
        if odd:
            raise TypeError(
                f"Trainer: `metrics` must map names to functions, got {odd[0][0]!r}: {odd[0][1]!r}."
            )
        if "loss" in given:
            raise ValueError("Trainer: `metrics` must not contain 'loss'; it is always recorded.")

    def __repr__(self) -> str:
        given = [f"{name}={_name(getattr(self, name))}" for name in ("init", "loss", "optimizer")]
        given += [f"metrics=[{', '.join(self.metrics)}]"] if self.metrics else []
        given += [f"eval_loss={_name(self.eval_loss)}"] if self.eval_loss else []
        given += [f"eval_params={_name(self.eval_params)}"] if self.eval_params else []
        if self.value_and_grad is not jax.value_and_grad:
            given.append(f"value_and_grad={_name(self.value_and_grad)}")
        given += [f"{name}=True" for name in ("stateful", "stochastic") if getattr(self, name)]
        return f"Trainer({', '.join(given)})"

    def with_numbers(self, numbers: PyTree) -> Trainer:
        """The same trainer with what was prepared for its fold."""
        made = copy.copy(self)
        object.__setattr__(made, "_numbers", () if numbers is None else (numbers,))
        return made

    def start(self, key: Array) -> TrainState:
        """Initial state: fresh parameters from `key`, and the optimizer's state for them.

        Raises:
          TypeError: a parameter is not a floating array.
        """
        made = self.init(key, *self._numbers)
        params, model_state = made if self.stateful else (made, None)
        params = _tree.held(params)
        trained = _tree.trained(params)
        with_paths, _ = jax.tree_util.tree_flatten_with_path(params)
        for (keys, x), path, moves in zip(with_paths, _tree.flatten(params).paths, trained):
            if not (moves or _tree.in_module(params, keys)):
                raise TypeError(
                    f"Trainer: the parameter {path!r} that `init` made is no floating array "
                    f"({getattr(x, 'dtype', type(x).__name__)}). Keep what is not trained out of the "
                    "parameters: in the closure of the loss, or in the model state (stateful=True)."
                )
        opt_state = self.optimizer.init(_tree.partition(params, trained))
        return TrainState(params, opt_state, model_state)

    def step(
        self,
        state: TrainState,
        batch: tuple,
        key: Array | None = None,
        weights: Array | None = None,
        number: int | Array = 0,
    ) -> tuple[TrainState, Array]:
        """One update, the `number`-th; returns the new state and the data loss before it, without terms."""
        loss = self.loss_of(state, batch, key, weights, number)
        params, whole = parts_of(state.params)
        of = lambda params: loss(whole(params))
        (value, after), grads = self.value_and_grad(of, has_aux=True)(params)
        tx = optax.with_extra_args_support(self.optimizer)
        given = told(tx, state.opt_state, params, value, grads, lambda params: of(params)[0])
        updates, opt_state = tx.update(grads, state.opt_state, params, **given)
        params = optax.apply_updates(params, updates)
        return TrainState(
            parts_of(after.params)[1](params), opt_state, after.model_state
        ), after.loss

    def loss_of(
        self,
        state: TrainState,
        batch: tuple,
        key: Array | None = None,
        weights: Array | None = None,
        number: int | Array = 0,
    ) -> Callable[[PyTree], tuple[Array, Left]]:
        """What is trained on of a batch: params -> (the data loss and its terms together, `Left`).

        With `weights` [rows], 1 on average, a loss that does not take them must be a mean over rows, and
        is their weighted mean.
        """
        extra: dict[str, Any] = {"key": key} if self.stochastic else {}
        if takes(self.loss, "step"):
            extra["step"] = jnp.asarray(number, jnp.int32)
        if takes_weights(self.loss):
            n = len(jax.tree.leaves(batch)[0])
            extra["sample_weight"] = jnp.ones(n) if weights is None else weights
        elif weights is not None:
            return lambda params: self._weighted(params, batch, weights, extra)

        def loss(params):
            module = _tree.released(params)
            before = (state.model_state,) if self.stateful else ()
            returned = self.loss(module, *before, *self._numbers, *batch, **extra)
            value, model_state = self._pair(returned) if self.stateful else (returned, None)
            data, terms = booked(value)
            return total(data, terms), Left(model_state, _left(params, module), data, terms)

        return loss

    def _pair(self, returned: Any) -> tuple:
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise TypeError(
                "Trainer: a stateful loss must return a pair, (mean loss, new model state), got "
                f"{f'a tuple of {len(returned)}' if isinstance(returned, tuple) else 'no tuple'}."
            )
        return returned

    def _weighted(
        self, params: PyTree, batch: tuple, weights: Array, extra: dict[str, Any]
    ) -> tuple[Array, Left]:
        def one(row: PyTree) -> tuple[Array, dict[str, Array]]:
            returned = self.loss(
                _tree.released(params),
                *self._numbers,
                *jax.tree.map(lambda a: a[None], row),
                **extra,
            )
            return booked(returned)

        # A weight of zero must silence a NaN as well, hence `where` and not a plain product.
        mean = lambda rows: jnp.sum(jnp.where(weights > 0, weights * rows, 0)) / len(weights)
        data, terms = jax.tree.map(mean, jax.vmap(one)(batch))
        return total(data, terms), Left(None, params, data, terms)

    def judged(self, state: TrainState) -> TrainState:
        """The state with the parameters that are judged in place of those that are trained."""
        if self.eval_params is None:
            return state
        params, whole = parts_of(state.params)
        return state._replace(params=whole(self.eval_params(state._replace(params=params))))

    def evaluate(
        self, state: TrainState, data: tuple, sample_weight: ArrayLike | None = None
    ) -> dict[str, Array]:
        """The evaluation loss and every metric of all rows of `data`.

        Args:
          state: where to evaluate.
          data: arrays with the rows first.
          sample_weight: [n] >= 0, for functions that take it; the others are called without.

        Returns:
          {"loss": scalar, name: scalar, ...}.
        """
        judged = self.judged(state)
        returned = self.measured(self._eval_loss, judged, data, sample_weight)
        loss, terms = booked(returned)
        metrics = {
            name: self.measured(fn, judged, data, sample_weight)
            for name, fn in self.metrics.items()
        }
        return {"loss": loss, **terms, **metrics}

    def measured(
        self,
        measure: Callable,
        state: TrainState,
        data: tuple,
        sample_weight: ArrayLike | None = None,
    ) -> Any:
        """What a function of the model gives of all rows, at the parameters that are judged."""
        model = self.model(state)
        if not takes_weights(measure):
            return measure(*model, *data)
        n = len(jax.tree.leaves(data)[0])
        weights = jnp.ones(n) if sample_weight is None else jnp.asarray(sample_weight, float)
        return measure(*model, *data, sample_weight=weights * (n / jnp.sum(weights)))

    @property
    def _eval_loss(self) -> Callable[..., Any]:
        return self.eval_loss or self.loss

    def measures(self, terms: Sequence[str] = ()) -> dict[str, Callable[..., Array]]:
        """What is evaluated: the data loss, these terms of the loss, and the metrics."""
        loss = self._eval_loss
        return {"loss": data_of(loss), **{n: term_of(loss, n) for n in terms}, **self.metrics}

    def terms(self, state: TrainState, data: tuple) -> dict[str, Array]:
        """The terms of the loss, of all rows of `data`."""
        return booked(self.measured(self._eval_loss, self.judged(state), data))[1]

    def model(self, state: TrainState) -> tuple:
        """What measures are called with, before the data."""
        params = _tree.released(state.params)
        model = (params, state.model_state) if self.stateful else (params,)
        return (*model, *self._numbers)

    def run(
        self,
        state: TrainState,
        data: tuple,
        stream: BatchStream | WindowStream,
        first: int | Array,
        n: int | Array,
    ) -> TrainState:
        """The steps first, …, first + n - 1 on the batches of `stream`; both may be traced.

        `n` is at most `stream.ahead`, if it has one; reverse mode needs a Python integer. Under `vmap`
        over states and points the batches are gathered once for all of them.
        """
        batch_at = stream.batches(data, first)

        def body(i, state):
            batch, weights = batch_at(i)
            number = first + i
            return self.step(state, batch, stream.noise_key(number), weights, number)[0]

        return lax.fori_loop(0, n, body, state)


MakeTrainer: TypeAlias = Callable[[PyTree], Trainer]


def parts_of(params: PyTree) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """What is trained of parameters, None elsewhere, and what puts such a part into its place again."""
    mask = _tree.trained(params)
    return _tree.partition(params, mask), lambda part: _tree.combine(part, params, mask)


def _left(params: PyTree, module: PyTree) -> PyTree:
    """`params` with the statistics and counters that a call has changed in the module that it was given."""
    leaves, after = _tree.flatten(params), _tree.flatten(module)
    values = dict(zip(after.paths, after.values))
    moves = _tree.trained(params)
    kept = [
        x if trained else values.get(path, x)
        for path, x, trained in zip(leaves.paths, leaves.values, moves)
    ]
    return leaves.rebuild(kept)


def _name(f: Any) -> str:
    """A function by its name, without its address and where its definition stands in."""
    if isinstance(f, optax.GradientTransformation):
        return type(f).__name__
    inner = getattr(f, "func", f)  # of a functools.partial
    name = getattr(inner, "__qualname__", type(inner).__name__)
    return name.replace(".<locals>", "")
