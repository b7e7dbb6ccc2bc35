"""Scores in common use, with weights, inside jit, that know which direction is better.

A metric is called with labels and predictions, `jr.metrics.r2(y, predicted)`; for a `Trainer` it is bound
to the function that predicts, `metrics={"r2": jr.metrics.r2.of(net.apply)}`. Rows have weights, 1 by
default; a row of weight 0 does not count, whatever stands in it. Predictions of classes are logits: [n] for
two classes, positive where the label 1 is the likelier, or [n, C] for the labels 0, …, C - 1. Where a score
is undefined, such as an AUC with one class only, it is NaN.

Formulas are those of scikit-learn's functions of the same names, with which the tests compare.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree

__all__ = [
    "Metric",
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "brier",
    "calibration_error",
    "directed",
    "error_rate",
    "f1",
    "log_loss",
    "mae",
    "mse",
    "perplexity",
    "r2",
    "rmse",
    "roc_auc",
]

_BINS = 15


@dataclasses.dataclass(frozen=True)
class Bound:
    """A metric of a model's predictions, as a `Trainer` takes it: (params, *batch, sample_weight=)."""

    metric: Metric
    predict: Callable[..., Array]
    labels: int

    @property
    def better(self) -> str:
        """Whether "larger" or "smaller" is better."""
        return self.metric.better

    def __call__(self, *args: Any, sample_weight: ArrayLike | None = None) -> Array:
        y = args[self.labels]
        at = len(args) + self.labels
        return self.metric(y, self.predict(*args[:at], *args[at + 1 :]), sample_weight)

    def __repr__(self) -> str:
        return f"{self.metric!r}.of({getattr(self.predict, '__qualname__', self.predict)!s})"


@dataclasses.dataclass(frozen=True)
class Directed:
    """A function of your own that knows which direction is better."""

    fn: Callable[..., Any]
    better: str

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """Whose signature it has."""
        return self.fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"directed({getattr(self.fn, '__qualname__', self.fn)!s}, {self.better!r})"


def directed(fn: Callable[..., Any], better: str) -> Directed:
    """A metric of your own that knows which direction is better, so that rules, tables and plots do.

    Args:
      fn: as a `Trainer` takes it: (params, *batch) -> scalar.
      better: "larger" or "smaller".

    Raises:
      TypeError: `fn` is no function. ValueError: another word.

    >>> directed(lambda w, x, y: jnp.max(jnp.abs(x @ w - y)), "smaller").better
    'smaller'
    """
    if not callable(fn):
        raise TypeError(f"metrics.directed: `fn` must be a function, got {fn!r}.")
    if better not in ("larger", "smaller"):
        raise ValueError(
            f"metrics.directed: `better` must be 'larger' or 'smaller', got {better!r}."
        )
    return Directed(fn, better)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score of labels and predictions.

    Args:
      name: for its repr and errors.
      better: "larger" or "smaller".
      formula: (y, predictions, weights [n]) -> scalar; the weights sum to 1.

    >>> import jaxreg as jr
    >>> round(jr.metrics.rmse(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])).item(), 4)
    1.4142
    >>> jr.metrics.rmse.of(lambda w, x: x @ w)
    metrics.rmse.of(<lambda>)
    """

    name: str
    better: str
    formula: Callable[[Array, Array, Array], Array]

    def __call__(
        self, y: ArrayLike, predicted: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Array:
        """The score.

        Args:
          y: labels [n, ...]: classes as integers or booleans, or numbers.
          predicted: [n, ...], or logits [n, ..., C] of C classes.
          sample_weight: [n] >= 0, equal by default; only their ratios count.

        Returns:
          A scalar, NaN where the score is undefined or, inside jit, a label is no class.

        Raises:
          ValueError: shapes that do not fit, or a label that is no class.
        """
        y, predicted = self._numbers("y", y), self._numbers("predicted", predicted)
        fits = y.ndim > 0 and predicted.shape[: y.ndim] == y.shape
        if not fits or predicted.ndim > y.ndim + (self.name in _OF_CLASSES):
            raise ValueError(
                f"metrics.{self.name}: `predicted` must have the shape of the labels `y`, {list(y.shape)}"
                f"{', or one axis more for the classes' if self.name in _OF_CLASSES else ''}, got "
                f"{list(predicted.shape)}."
            )
        n = len(y)
        weights = jnp.ones(n) if sample_weight is None else self._weights(sample_weight, n)
        weights = weights / jnp.sum(weights)
        score = self.formula(y, predicted, weights)
        if self.name not in _OF_CLASSES:
            return score
        return jnp.where(self._any_other(y, predicted, weights), jnp.nan, score)

    def _numbers(self, name: str, values: Any) -> Array:
        if hasattr(values, "dtype") and isinstance(values, Array):
            return values
        array = np.asarray(values)
        if array.dtype.kind not in "biufc" and not jnp.issubdtype(array.dtype, jnp.number):
            raise TypeError(f"metrics.{self.name}: `{name}` must hold numbers, got {array.dtype}.")
        return _tree.placed(array)

    def _weights(self, given: Any, n: int) -> Array:
        weights = self._numbers("sample_weight", given)
        if weights.shape != (n,):
            raise ValueError(
                f"metrics.{self.name}: `sample_weight` must have the shape [{n}], got "
                f"{list(weights.shape)}."
            )
        if _tree.is_concrete(weights):
            w = np.asarray(weights)
            if not (w >= 0).all() or not 0 < w.sum() < np.inf:
                raise ValueError(
                    f"metrics.{self.name}: `sample_weight` must be >= 0, finite and not all 0, got "
                    f"{w.min()} … {w.max()}."
                )
        return weights.astype(float)

    def _any_other(self, y: Array, predicted: Array, weights: Array) -> Array:
        """Whether a label that counts is no class: it would be taken for another one."""
        n_classes = predicted.shape[-1] if predicted.ndim > y.ndim else 2
        if self.name in _OF_TWO and n_classes != 2:
            raise ValueError(
                f"metrics.{self.name}: it ranks two classes, and there are logits of {n_classes}. Give the "
                "scores [n] of one class against the others, with labels 0 and 1."
            )
        odd = (y != jnp.floor(y.astype(float))) | (y < 0) | (y >= n_classes)
        counts = odd & (_like(weights, y) > 0)
        if _tree.is_concrete(counts) and counts.any():
            raise ValueError(
                f"metrics.{self.name}: labels must be the classes 0, …, {n_classes - 1}, got "
                f"{y[counts][0]}."
            )
        return jnp.any(counts)

    def of(self, predict: Callable[..., Array], labels: int = -1) -> Bound:
        """This metric of what a model predicts.

        Args:
          predict: (params, *inputs) -> predictions, with model state after `params` where the loss is
            `stateful`.
          labels: where the labels stand in a batch, from its end; the others are the inputs. For (X, y)
            it is -1, for (X, y, z) with labels y it is -2.

        Raises:
          TypeError: `predict` is no function. ValueError: `labels` is not negative.
        """
        if not callable(predict):
            raise TypeError(f"metrics.{self.name}: `predict` must be a function, got {predict!r}.")
        if not isinstance(labels, int) or labels >= 0:
            raise ValueError(
                f"metrics.{self.name}: `labels` counts from the end of a batch, -1 is its last array, got "
                f"{labels!r}."
            )
        return Bound(self, predict, labels)

    def __repr__(self) -> str:
        return f"metrics.{self.name}"


# --- of numbers -------------------------------------------------------------------------------------


def _mean(values: Array, w: Array) -> Array:
    """The weighted mean over rows, and the plain one over what a row holds; weight 0 silences NaN."""
    rows = values.reshape(len(w), -1).astype(float).mean(1)
    return jnp.sum(jnp.where(w > 0, w * rows, 0))


def _mse(y: Array, p: Array, w: Array) -> Array:
    return _mean((p - y) ** 2, w)


def _r2(y: Array, p: Array, w: Array) -> Array:
    level = jnp.sum(jnp.where(_like(w, y) > 0, _like(w, y) * y, 0), 0)
    spread, size = _mean((y - level) ** 2, w), _mean(y.astype(float) ** 2, w)
    return jnp.where(spread > 1e-12 * size, 1 - _mse(y, p, w) / spread, jnp.nan)


def _like(w: Array, y: Array) -> Array:
    return w.reshape(-1, *(1,) * (y.ndim - 1))


mse = Metric("mse", "smaller", _mse)
rmse = Metric("rmse", "smaller", lambda y, p, w: jnp.sqrt(_mse(y, p, w)))
mae = Metric("mae", "smaller", lambda y, p, w: _mean(jnp.abs(p - y), w))
r2 = Metric("r2", "larger", _r2)


# --- of classes -------------------------------------------------------------------------------------


def _classes(y: Array, z: Array) -> Array:
    """Logits with an axis for the classes."""
    return z if z.ndim > y.ndim else jnp.stack([jnp.zeros_like(z), z], -1)


def _hits(y: Array, z: Array, w: Array) -> tuple[Array, Array, Array]:
    """Weights [C] of the true, the predicted, and the rightly predicted rows of each class."""
    logits = _classes(y, z)
    n_classes, y = logits.shape[-1], y.astype(int)
    told = jnp.argmax(logits, -1)
    share = jnp.broadcast_to(_like(w, y), y.shape) / (y.size / len(y))
    of = lambda labels, v: jnp.zeros(n_classes).at[labels.ravel()].add(v.ravel())
    return of(y, share), of(told, share), of(y, jnp.where(told == y, share, 0))


def _accuracy(y: Array, z: Array, w: Array) -> Array:
    return _mean(jnp.argmax(_classes(y, z), -1) == y.astype(int), w)


def _balanced(y: Array, z: Array, w: Array) -> Array:
    true, _, hit = _hits(y, z, w)
    there = true > 0
    return jnp.sum(jnp.where(there, hit / jnp.where(there, true, 1), 0)) / jnp.sum(there)


def _f1(y: Array, z: Array, w: Array) -> Array:
    true, told, hit = _hits(y, z, w)
    there = true + told > 0
    each = 2 * hit / jnp.where(there, true + told, 1)
    if z.ndim == y.ndim:
        return jnp.where(there[1], each[1], jnp.nan)
    return jnp.sum(jnp.where(there, each, 0)) / jnp.sum(there)


def _log_losses(y: Array, z: Array) -> Array:
    logs = jax.nn.log_softmax(_classes(y, z).astype(jnp.promote_types(z.dtype, jnp.float32)))
    return -jnp.take_along_axis(logs, y.astype(int)[..., None], -1)[..., 0]


def _brier(y: Array, z: Array, w: Array) -> Array:
    if z.ndim == y.ndim:
        return _mean((jax.nn.sigmoid(z) - y) ** 2, w)
    hot = jax.nn.one_hot(y.astype(int), z.shape[-1])
    return _mean(((jax.nn.softmax(z) - hot) ** 2).sum(-1), w)


def _calibration(y: Array, z: Array, w: Array) -> Array:
    if z.ndim == y.ndim:
        sure, right = jax.nn.sigmoid(z), y.astype(float)
    else:
        sure, right = jnp.max(jax.nn.softmax(z), -1), (jnp.argmax(z, -1) == y).astype(float)
    share = (jnp.broadcast_to(_like(w, y), y.shape) / (y.size / len(y))).ravel()
    bins = jnp.clip(jnp.ceil(sure.ravel() * _BINS).astype(int) - 1, 0, _BINS - 1)
    gap = jnp.where(share > 0, share * (right - sure).ravel(), 0)
    return jnp.sum(jnp.abs(jnp.zeros(_BINS).at[bins].add(gap)))


accuracy = Metric("accuracy", "larger", _accuracy)
error_rate = Metric("error_rate", "smaller", lambda y, z, w: 1 - _accuracy(y, z, w))
balanced_accuracy = Metric("balanced_accuracy", "larger", _balanced)
f1 = Metric("f1", "larger", _f1)
log_loss = Metric("log_loss", "smaller", lambda y, z, w: _mean(_log_losses(y, z), w))
perplexity = Metric("perplexity", "smaller", lambda y, z, w: jnp.exp(_mean(_log_losses(y, z), w)))
brier = Metric("brier", "smaller", _brier)
calibration_error = Metric("calibration_error", "smaller", _calibration)


# --- of ranks ---------------------------------------------------------------------------------------


def _ranked(y: Array, z: Array, w: Array) -> tuple[Array, Array, Array, Array]:
    """Positive and all weights, each with what lies below, and with what lies at or below, its score."""
    score = z[..., 1] - z[..., 0] if z.ndim > y.ndim else z
    # A row of weight 0 may hold NaN, which would be sorted behind everything.
    score = jnp.where(w > 0, score, 0)
    order = jnp.argsort(score)
    score, w, positive = score[order], w[order], (y[order] > 0) * w[order]
    below = jnp.searchsorted(score, score, side="left")
    through = jnp.searchsorted(score, score, side="right")
    summed = lambda v: jnp.concatenate([jnp.zeros(1), jnp.cumsum(v)])
    negative = summed(w - positive)
    level = (negative[below] + negative[through]) / 2
    total, hits = summed(w), summed(positive)
    precision = (hits[-1] - hits[below]) / jnp.where(w > 0, total[-1] - total[below], 1)
    return positive, level, precision, negative[-1]


def _roc_auc(y: Array, z: Array, w: Array) -> Array:
    positive, level, _, negatives = _ranked(y, z, w)
    return jnp.sum(positive * level) / (jnp.sum(positive) * negatives)


def _average_precision(y: Array, z: Array, w: Array) -> Array:
    positive, _, precision, _ = _ranked(y, z, w)
    return jnp.sum(positive * precision) / jnp.sum(positive)


roc_auc = Metric("roc_auc", "larger", _roc_auc)
average_precision = Metric("average_precision", "larger", _average_precision)

_OF_TWO = {m.name for m in (roc_auc, average_precision)}
_OF_CLASSES = _OF_TWO | {
    m.name
    for m in (
        accuracy,
        balanced_accuracy,
        brier,
        calibration_error,
        error_rate,
        f1,
        log_loss,
        perplexity,
    )
}
