"""The error to expect of a chosen model, by nested cross-validation in one program.

The folds of cross-validation share training rows, so their spread says too little of how far the mean is
off. Nested cross-validation measures it: the rows of all folds but k are cross-validated among themselves,
and how far their mean e_in is from the mean loss e_out on fold k, beyond what the rows of fold k scatter by
themselves, is the error of an estimate (Bates, Hastie & Tibshirani 2021, "Cross-validation: what does it
estimate and how well does it do it?", algorithm 1 and section 4.3):

    MSE  = mean_k (e_in,k - e_out,k)^2 - mean_k var(losses of the rows of fold k) / n_k
    SE   = sqrt((K-1)/K MSE), but not below the usual SE and not above sqrt(K) times it
    mean = e_ncv - (1 + (K-2)/K) (e_ncv - e_cv)

with e_ncv the mean of all e_in, and e_cv that of all e_out. Everything is averaged over repeats with other
folds.

Having chosen λ by the same rows flatters them. Where it is asked for, each outer fold chooses anew by the
inner ones, which have not seen it (Varma & Simon 2006), and what that costs on the fold,

    optimism = mean_k (e_out,k of the λ that is chosen without fold k - e_out,k of the λ at hand),

is added to the mean, and its standard error over folds to the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxreg._check import check_key, count, flag
from jaxreg.choice import RULES, Choice, choose
from jaxreg.expected import ExpectedError
from jaxreg.fit.check import trainer_at
from jaxreg.fit.intake import as_rows
from jaxreg.fit.trainer import MakeTrainer, Trainer
from jaxreg.grid import Grid, points
from jaxreg.results import SweepResult
from jaxreg.scores import Scores, simplicity
from jaxreg.sweeps.refit import choices_of, options_of
from jaxreg.sweeps.sweep import sweep
from jaxreg.tune._lanes import numpy_rng, refuse_diverged

__all__ = ["Losses", "estimate", "expected_error"]

_MOST = 1_000_000  # trainings of one call; more are a slip
_SQUARE, _ROWS = "the square of a row's loss", "the loss of a row"


class Losses(NamedTuple):
    """What nested cross-validation measures, over R repeats of K folds."""

    inner: np.ndarray  # [R, K, K-1]: of fold j, trained on all but the folds j and k
    outer: np.ndarray  # [R, K]: of fold k, trained on all but it
    variance: np.ndarray  # [R, K]: of the losses of the rows of fold k
    sizes: np.ndarray  # [R, K]: rows of fold k


def estimate(losses: Losses) -> tuple[float, float, float]:
    """Mean, standard error, and the standard error that the rows alone give; see the module.

    >>> ones = np.ones((1, 4))
    >>> estimate(Losses(np.ones((1, 4, 3)), ones, 0 * ones, 25 * ones))
    (1.0, 0.0, 0.0)
    """
    inner, outer, variance, sizes = (np.asarray(x, np.float64) for x in losses)
    k = outer.shape[1]
    nested, plain = inner.mean(), outer.mean()
    mean = nested - (1 + (k - 2) / k) * (nested - plain)
    mse = ((inner.mean(2) - outer) ** 2).mean() - (variance / sizes).mean()
    # The variance over all rows: that inside of the folds, and that of their means.
    rows = (variance * (sizes - 1) + sizes * (outer - outer.mean(1, keepdims=True)) ** 2).sum(1)
    n = sizes.sum(1)
    usual = float(np.sqrt((rows / (n - 1) / n).mean()))
    error = np.sqrt(max(mse, 0.0) * (k - 1) / k)
    return float(mean), float(np.clip(error, usual, np.sqrt(k) * usual)), usual


def expected_error(
    trainer: MakeTrainer,
    result: SweepResult,
    data: tuple,
    *,
    key: Array,
    rule: str | Choice = "min",
    folds: int = 10,
    repeats: int = 5,
    seeds: int = 1,
    choosing: bool = False,
    **options: Any,
) -> ExpectedError:
    """The loss to expect on new rows of what a sweep chose, by nested cross-validation.

    It trains repeats x folds^2 x seeds lanes, in one program. λ is taken as chosen: by how much having
    chosen it by the same rows flatters the estimate is in it with `choosing` alone, and is little where the
    λ of the grid are few or the curve is flat. Rows must be drawn independently of each other: no groups,
    no time.

    Args:
      trainer: the function point -> `Trainer` of the sweep, whose loss is a mean over rows.
      result: what `jaxreg.sweep` returned.
      data: all training rows.
      key: PRNG key of folds, parameters and batches.
      rule: a rule of `SweepResult.best`, or what it returned.
      folds: K, at least 3; 10 as in the paper, since the model of a fold should be nearly that of all rows.
      repeats: with other folds; the standard error of few of them is noisy.
      seeds: trainings of each, of which the mean is taken.
      choosing: whether each fold chooses anew among all points of the result, by the same rule, so that
        what choosing flatters is counted; as many times the lanes as there are points.
      options: for `jaxreg.sweep`. `steps` and `batch_size` are those of the sweep by default; a batch that
        is larger than the rows of two folds less becomes these, and a warning says so.

    Returns:
      An `ExpectedError`, whose `interval()` keeps what it says; see `jaxreg.tune.nested` for the formulas.

    Raises:
      ValueError: the loss is no mean over rows, rows have weights, there are too few rows, or a training
        diverged.

    >>> import optax, jaxreg as jr
    >>> x = jax.random.normal(jax.random.key(1), (60, 3))
    >>> y = x[:, 0] + 0.5 * jax.random.normal(jax.random.key(2), (60,))
    >>> def trainer(reg):
    ...     loss = lambda w, x, y: jnp.mean((x @ w - y) ** 2)
    ...     tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.3))
    ...     return jr.Trainer(lambda key: jnp.zeros(3), loss, tx)
    >>> g = jr.grid(jr.l2, lam=[0.01, 1.0])
    >>> result = jr.sweep(trainer, g, (x, y), folds=4, steps=50, key=jax.random.key(0))
    >>> jr.expected_error(trainer, result, (x, y), folds=5, repeats=4, key=jax.random.key(1))
    expected loss of min (lam=0.01): 0.305 ± 0.096, 90 % interval 0.148 … 0.463
      by nested cross-validation, 4 x 5 folds of 5 (Bates, Hastie & Tibshirani 2021)
      cross-validation alone would say ± 0.059
      cost: 5,000 lane-steps
    """
    choice = _choice(result, rule)
    trainer_at("expected_error", trainer, choice.point)
    check_key("expected_error", key)
    folds = count("expected_error", "folds", folds, 3)
    repeats = count("expected_error", "repeats", repeats)
    seeds = count("expected_error", "seeds", seeds)
    choosing = flag("expected_error", "choosing", choosing)
    grid = _grid(result, choice, choosing)
    lanes = len(grid) * repeats * folds**2 * seeds
    if lanes > _MOST:
        times = f" x {len(grid)} points" * choosing
        raise ValueError(
            f"expected_error: `repeats` x `folds`^2 x `seeds` must be at most {_MOST:,} trainings, got "
            f"{repeats} x {folds}^2 x {seeds}{times}. Ten folds and five repeats are usual."
        )
    given = options_of("expected_error", result, options)
    if given.get("sample_weight") is not None:
        raise ValueError(
            "expected_error: rows with weights are no draws of equal right, and the standard error here is "
            "that of a mean over rows. Take result.expected_error(), or leave `sample_weight` away."
        )
    n = as_rows("expected_error", data, ready=given.get("prepare") is None)[1]
    if n < 2 * folds:
        raise ValueError(
            f"expected_error: {folds} folds need at least {2 * folds} rows, got {n}. Give fewer `folds`."
        )
    told = _fit_batches(given, options, n - 2 * -(-n // folds))
    split, train = jax.random.split(key)
    parts = _parts(numpy_rng(split), n, folds, repeats)
    found = sweep(
        _with_rows(trainer, len(data)),
        grid,
        data,
        folds=[pair for folds_ in parts for pair in _pairs(folds_)],
        seeds=seeds,
        key=train,
        **({"evals": 1, "keep_params": False} | given),
    )
    mean, error, usual = estimate(_losses(found, parts))
    optimism, flattered = _optimism(found, result, choice, parts) if choosing else (np.nan, 0.0)
    if choosing:
        mean, error = mean + optimism, float(np.hypot(error, flattered))
    how = f"nested cross-validation, {repeats} x {folds} folds of {folds} (Bates, Hastie & Tibshirani 2021)"
    cost = lanes * int(found.time[-1])
    return ExpectedError(mean, error, choice, how, "loss", usual, cost, told, optimism)


def _choice(result: Any, rule: Any) -> Choice:
    if not isinstance(rule, (str, Choice)):
        raise TypeError(
            f"expected_error: `rule` must be the name of a rule, such as 'min', or a Choice, got {rule!r}."
        )
    return choices_of("expected_error", result, rule)[0]


def _grid(result: SweepResult, choice: Choice, choosing: bool) -> Grid:
    """The point that was chosen, and with `choosing` behind it those it was chosen from."""
    if not choosing:
        return points([choice.point])
    if choice.rule not in RULES or choice.metric != "valid loss":
        raise ValueError(
            "expected_error: `choosing` = True chooses anew by a rule of SweepResult.best and the valid "
            f"loss, got a choice by {choice.rule!r} and {choice.metric}. Name the rule, as in rule='min'."
        )
    every = jax.tree.map(lambda one, all_: jnp.concatenate([jnp.asarray(one)[None], all_]),
                         choice.point, result.points)  # fmt: skip
    coords = {n: jnp.append(choice.coords[n], jnp.asarray(v)) for n, v in result.coords.items()}
    return Grid(every, tuple(coords.values()), tuple(coords), result.strengths)


def _optimism(
    found: SweepResult, result: SweepResult, choice: Choice, parts: list[list[np.ndarray]]
) -> tuple[float, float]:
    """What choosing flatters, and its standard error over the folds of each repeat."""
    repeats, folds = len(parts), len(parts[0])
    losses = found.scores("loss").reshape(-1, repeats, folds, folds, found.status.shape[2])
    outer = losses[:, :, :, 0].mean(-1)
    order, simple = simplicity(result.coords, result.strengths, None)
    apart = np.empty((repeats, folds))
    for at in np.ndindex(apart.shape):
        inner = losses[(slice(1, None), *at, slice(1, None))]
        taken = choose(choice.rule, Scores(inner, result.coords, order, simple)).index
        apart[at] = outer[(1 + taken, *at)] - outer[(0, *at)]
    if not np.isfinite(apart).all():
        raise ValueError(
            "expected_error: a point that a fold chooses diverged when it was trained on all rows but "
            "that fold. Lower the learning rate, or leave weak penalties out of the grid."
        )
    return float(apart.mean()), float(apart.mean(0).std(ddof=1) / np.sqrt(folds))


def _fit_batches(given: dict[str, Any], options: dict[str, Any], fewest: int) -> tuple[str, ...]:
    """Batches that the fewest rows to train on allow, where none were asked for; what to tell of it."""
    size = given.get("batch_size")
    if size is None or size <= fewest or "batch_size" in options:
        return ()
    given["batch_size"] = fewest
    return (
        f"without two folds there are {fewest} rows to train on, so batches have these and not {size}.",
    )


def _parts(rng: np.random.Generator, n: int, folds: int, repeats: int) -> list[list[np.ndarray]]:
    return [np.array_split(rng.permutation(n), folds) for _ in range(repeats)]


def _pairs(parts: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each fold k: trained without it and judged on it, and without it and each other, on that one."""
    without = lambda *out: np.concatenate([p for i, p in enumerate(parts) if i not in out])
    count = range(len(parts))
    return [
        pair
        for k in count
        for pair in [(without(k), parts[k])] + [(without(j, k), parts[j]) for j in count if j != k]
    ]


def _losses(found: SweepResult, parts: list[list[np.ndarray]]) -> Losses:
    refuse_diverged("expected_error", found, 0)
    shape = len(parts), len(parts[0]), len(parts[0])
    loss, square, rows = (
        found.scores(name)[0].reshape(*shape, -1) for name in ("loss", _SQUARE, _ROWS)
    )
    if not np.allclose(loss, rows, rtol=1e-3, atol=1e-6):
        raise ValueError(
            "expected_error: the loss is no mean over rows, and its standard error is that of a mean. "
            f"Of the rows of a fold it is {loss.flat[0]:.4g}, and the mean of its rows {rows.flat[0]:.4g}."
        )
    sizes = np.array([[len(p) for p in of] for of in parts])
    spread = np.maximum(square[:, :, 0] - rows[:, :, 0] ** 2, 0).mean(-1) * sizes / (sizes - 1)
    return Losses(loss[:, :, 1:].mean(-1), loss[:, :, 0].mean(-1), spread, sizes)


@dataclasses.dataclass(frozen=True)
class _OfRows:
    """The mean over rows of a power of the loss of each."""

    measure: Callable
    arrays: int  # of a batch, the last arguments
    power: int

    def __call__(self, *args: Any) -> Array:
        model, batch = args[: -self.arrays], args[-self.arrays :]
        one = lambda row: self.measure(*model, *jax.tree.map(lambda a: a[None], row))
        return jnp.mean(jax.vmap(one)(batch) ** self.power)


def _with_rows(trainer: MakeTrainer, arrays: int) -> MakeTrainer:
    """The same trainings, of which the losses of single rows are measured too."""

    def made(point: Any) -> Trainer:
        made = trainer(point)
        measure = made.measures()["loss"]
        of_rows = {name: _OfRows(measure, arrays, p) for name, p in ((_SQUARE, 2), (_ROWS, 1))}
        return dataclasses.replace(made, metrics=of_rows)

    return made
