"""Training once: what one lane of a sweep does, pure and compiled, and differentiable both ways."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxreg import _tree
from jaxreg._check import check_key, count
from jaxreg._quickly import moves
from jaxreg._tree import PyTree
from jaxreg.fit.batches import BatchStream, init_key, normalized, stream_key
from jaxreg.fit.check import Checked, check, check_signs, frozen, trainer_at
from jaxreg.fit.intake import as_rows, check_batch, check_weights, row_numbers
from jaxreg.fit.judge import find_ways
from jaxreg.fit.kept import kept, recent
from jaxreg.fit.prepare import prepared
from jaxreg.fit.rounding import lost_steps
from jaxreg.fit.source import Stream
from jaxreg.fit.trainer import MakeTrainer, TrainState, parts_of
from jaxreg.objective import penalties_in
from jaxreg.report import stack_warnings

__all__ = ["fit", "notes_on"]


@moves
def fit(
    trainer: MakeTrainer,
    point: PyTree,
    data: tuple,
    *,
    steps: int,
    key: Array,
    batch_size: int | None = None,
    rows: Array | None = None,
    sample_weight: Any = None,
    prepare: Callable | None = None,
    fold: int = 0,
    seed: int = 0,
    remat: int | None = None,
) -> TrainState:
    """Train once at a point, from the trainer's start for `steps` steps.

    It is what one lane of `jaxreg.sweep` does: the same key, fold, seed and rows give the same initial
    parameters and batches. It is pure in everything: `jax.grad` of a validation loss of the result with
    respect to `point` is the derivative through all of training, in reverse mode as well as (`jax.jvp`)
    in forward mode. Mind that this derivative says little for a long training of a net by Adam, which is
    chaotic; it is exact and useful for convex models, and for short runs.

    Args:
      trainer: a function point -> `Trainer`. Define it once: compiled programs are found by it.
      point: a penalty, or any pytree of numbers, which never recompile.
      data: arrays with n rows each.
      steps: number of updates.
      key: PRNG key; initial parameters depend on (key, seed), batches on (key, fold, seed).
      batch_size: rows per step, drawn without replacement within an epoch; None is full batch.
      rows: the rows to train on, all by default.
      sample_weight: [n] >= 0, the weight of every row: the loss is sum(w l) / sum(w), over minibatches
        in expectation.
      prepare: what is learnt of the training rows beforehand, as in `jaxreg.sweep`.
      fold: number of the fold, which only chooses the stream of batches.
      seed: number of the repetition.
      remat: in reverse mode, the steps of a segment: states between segments are kept, those inside
        computed once more, so that memory grows with steps / remat + remat. About sqrt(steps) by default;
        `steps` keeps everything and computes nothing twice. It changes no number.

    Returns:
      The `TrainState` at the end.

    Raises:
      ValueError: the batch is larger than the data, lengths differ, `remat` or `steps` is out of range,
        the optimizer applies the penalty with the wrong sign, the loss is a sum over rows, or it cannot be
        weighted.
      TypeError: `trainer` is no function of the point, or a number of the point left it.

    >>> import optax, jaxreg as jr
    >>> X, y = jnp.eye(4), jnp.ones(4)
    >>> def trainer(reg):
    ...     loss = lambda w, X, y: 0.5 * jnp.mean((X @ w - y) ** 2)
    ...     tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(1.0))
    ...     return jr.Trainer(lambda key: jnp.zeros(4), loss, tx)
    >>> def valid(reg):
    ...     w = jr.fit(trainer, reg, (X, y), steps=100, key=jax.random.key(0)).params
    ...     return 0.5 * jnp.mean((w - 0.5) ** 2)
    >>> jax.grad(valid)(jr.l2(0.25))  # w = 1 / (1 + 4 lam) = 1/2: lam = 1/4 is the best there is
    l2(...e-0...)
    """
    if isinstance(data, Stream):
        raise TypeError(
            "fit: a stream is for jaxreg.sweep; give it one point, as in jaxreg.points([point])."
        )
    data, n = as_rows("fit", data, ready=prepare is None)
    rows = row_numbers("fit", rows, n)
    check_key("fit", key)
    batch_size = check_batch("fit", batch_size, len(rows))
    steps = count("fit", "steps", steps, 0)
    fold, seed = (
        count("fit", name, x, 0) if _tree.is_concrete(x) else x
        for name, x in {"fold": fold, "seed": seed}.items()
    )
    if point is None:
        raise TypeError("fit: `point` must be a penalty or a pytree of numbers, got None.")
    segment = _segment(steps, None if remat is None else count("fit", "remat", remat))
    point = jax.tree.map(_number, point)
    ready = prepared("fit", prepare, data, [np.asarray(rows)] if prepare else ())
    data, numbers = ready.data, ready.of_fold(0)
    batch = jax.tree.map(lambda a: _batch_shape(a, batch_size or len(rows)), tuple(data))
    checked = check("fit", trainer, point, batch, key, numbers)
    check_signs("fit", trainer, point, checked)
    notes = notes_on(checked, point)
    if all(_tree.is_concrete(x) for x in jax.tree.leaves((point, key, numbers))):
        alone = jax.tree.map(lambda x: jnp.asarray(x)[None], point)
        notes += lost_steps("fit", trainer, alone, checked.state, init_key(key, seed), numbers)
    for text in notes:
        warnings.warn(f"fit: {text}", RuntimeWarning, stacklevel=3)  # past the wrapper of `moves`
    weights = None if sample_weight is None else check_weights("fit", sample_weight, n)
    if all(_tree.is_concrete(x) for x in jax.tree.leaves((point, data, rows, key))):
        _probe_once(trainer, point, data, rows, key, numbers, weights is not None)
    args = (point, data, rows, weights, numbers, key, fold, seed)
    state = _program(trainer, steps, batch_size, segment, jax.tree.structure(args))(*args)
    return state._replace(params=_tree.released(state.params))


def _probe_once(
    trainer: MakeTrainer,
    point: PyTree,
    data: tuple,
    rows: Array,
    key: Array,
    numbers: PyTree,
    weighted: bool,
) -> None:
    """Refuse a loss that is no mean; what was found right once is not asked again."""
    asked = weighted, frozen((point, data, numbers))
    means = recent(trainer, "losses that were found to be means")
    if asked in means:
        return
    mine = jax.tree.map(lambda a: np.asarray(a)[np.asarray(rows)], tuple(data))
    find_ways("fit", trainer, point, mine, key, weighted=weighted, metrics=False, numbers=numbers)
    means.put(asked, True)


def notes_on(checked: Checked, point: PyTree) -> list[str]:
    """What to warn of: terms whose strengths no update depends on, and groups across stacked layers."""
    idle = [
        f"no update depends on the penalty {name}: it is in the point, and `trainer` makes an optimizer "
        "and a loss without it. Put it into the chain, as in optax.chain("
        "jaxreg.add_penalty_gradient(reg), optax.adam(1e-3))."
        for name in checked.idle_terms
    ]
    params, _ = parts_of(checked.state.params)
    return idle + [t for p in penalties_in(point).values() for t in stack_warnings(p, params)]


def _number(x: Any) -> Any:
    """A leaf of a point as an array: a Python number would be another program than an array."""
    if isinstance(x, (int, float)) and not isinstance(x, bool):
        return jnp.asarray(x, float)
    if _tree.is_concrete(x) and not isinstance(x, (Array, np.ndarray, np.generic)):
        raise TypeError(
            f"fit: `point` must be a penalty or a pytree of numbers, got {x!r} in it. Keep functions, "
            "texts and flags out of the point."
        )
    return x


def _batch_shape(a: Any, rows: int) -> jax.ShapeDtypeStruct:
    made = jax.eval_shape(jnp.asarray, a)
    return jax.ShapeDtypeStruct((rows, *made.shape[1:]), made.dtype)


def _segment(steps: int, remat: int | None) -> int:
    return min(max(steps, 1), remat or math.isqrt(max(steps - 1, 0)) + 1)


@kept
def _program(
    trainer: MakeTrainer, steps: int, batch_size: int | None, segment: int, _structure: Any
) -> Callable[..., TrainState]:
    """What trains, for arguments of one structure."""

    def run(point, data, rows, weights, numbers, key, fold, seed):
        made = trainer_at("fit", trainer, point, numbers)
        state = made.start(init_key(key, seed))
        # Batches are drawn a segment at a time, so memory does not grow with the run's length.
        stream = BatchStream(
            rows, len(rows), stream_key(key, fold, seed), batch_size, segment, len(rows),
            weights=normalized(weights, rows, len(rows)),
        )  # fmt: skip
        part = lambda n: jax.checkpoint(
            lambda state, first: made.run(state, data, stream, first, n)
        )
        whole, rest = divmod(steps, segment)
        state = lax.fori_loop(0, whole, lambda b, s: part(segment)(s, b * segment), state)
        return part(rest)(state, whole * segment) if rest else state

    return jax.jit(run)
