"""Every metric against scikit-learn: random data, ties, weights, and folds in which it is undefined."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import metrics as sk

import jaxreg as jr
from jaxreg import metrics
from jaxreg.fit.returned import takes_weights

RNG = np.random.default_rng(0)
N, C = 60, 4
SCORES = RNG.normal(size=N).round(1)  # with ties
LOGITS = RNG.normal(size=(N, C)).round(1) + np.arange(C) * 1e-3
BINARY = (RNG.random(N) < 0.35).astype(int)
CLASSES = RNG.integers(0, C - 1, N)  # the last class never occurs
NUMBERS = RNG.normal(size=N)
SIGMOID = 1 / (1 + np.exp(-SCORES))
SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
TOLD = LOGITS.argmax(1)
LABELS = np.arange(C)


def rmse(y, p, sample_weight):
    return sk.mean_squared_error(y, p, sample_weight=sample_weight) ** 0.5


def perplexity(y, p, sample_weight):
    return np.exp(sk.log_loss(y, p, labels=LABELS, sample_weight=sample_weight))


def brier(y, p, sample_weight):
    return np.average(((p - np.eye(C)[y]) ** 2).sum(1), weights=sample_weight)


def macro_f1(y, p, sample_weight):
    return sk.f1_score(y, p, average="macro", sample_weight=sample_weight)


def calibration(y, p, sample_weight):
    """Guo et al., On calibration of modern neural networks (2017), equation 3."""
    sure, right, w = p.max(1), p.argmax(1) == y, sample_weight / sample_weight.sum()
    total = 0.0
    for low in np.arange(15) / 15:
        mine = (sure > low) & (sure <= low + 1 / 15)
        if w[mine].sum():
            total += w[mine].sum() * abs(
                np.average(right[mine], weights=w[mine]) - np.average(sure[mine], weights=w[mine])
            )
    return total


# name -> (metric, labels, predictions, reference, what the reference takes)
CASES = {
    "accuracy": (metrics.accuracy, CLASSES, LOGITS, sk.accuracy_score, TOLD),
    "error rate": (metrics.error_rate, CLASSES, LOGITS, sk.zero_one_loss, TOLD),
    "accuracy of two": (metrics.accuracy, BINARY, SCORES, sk.accuracy_score, SCORES > 0),
    "balanced": (metrics.balanced_accuracy, CLASSES, LOGITS, sk.balanced_accuracy_score, TOLD),
    "f1": (metrics.f1, BINARY, SCORES, sk.f1_score, SCORES > 0),
    "f1 macro": (metrics.f1, CLASSES, LOGITS, macro_f1, TOLD),
    "roc auc": (metrics.roc_auc, BINARY, SCORES, sk.roc_auc_score, SCORES),
    "precision": (metrics.average_precision, BINARY, SCORES, sk.average_precision_score, SCORES),
    "log loss": (
        metrics.log_loss,
        CLASSES,
        LOGITS,
        lambda y, p, sample_weight: sk.log_loss(y, p, labels=LABELS, sample_weight=sample_weight),
        SOFTMAX,
    ),
    "log loss of two": (metrics.log_loss, BINARY, SCORES, sk.log_loss, SIGMOID),
    "perplexity": (metrics.perplexity, CLASSES, LOGITS, perplexity, SOFTMAX),
    "brier": (metrics.brier, CLASSES, LOGITS, brier, SOFTMAX),
    "brier of two": (metrics.brier, BINARY, SCORES, sk.brier_score_loss, SIGMOID),
    "calibration": (metrics.calibration_error, CLASSES, LOGITS, calibration, SOFTMAX),
    "mse": (metrics.mse, NUMBERS, SCORES, sk.mean_squared_error, SCORES),
    "rmse": (metrics.rmse, NUMBERS, SCORES, rmse, SCORES),
    "mae": (metrics.mae, NUMBERS, SCORES, sk.mean_absolute_error, SCORES),
    "r2": (metrics.r2, NUMBERS, SCORES, sk.r2_score, SCORES),
}
WEIGHTS = {
    "equal": np.ones(N),
    "drawn": RNG.random(N),
    "some are 0": (np.arange(N) % 3).astype(float),
}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", CASES)
def test_a_metric_is_scikit_learns(name, weights):
    metric, y, predicted, reference, told = CASES[name]
    w = WEIGHTS[weights]
    want = reference(y, told, sample_weight=w)
    np.testing.assert_allclose(metric(y, predicted, w), want, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(metric)(y, predicted, 7 * w), want, rtol=1e-5)
    better = sk.get_scorer_names()  # errors and losses are negated there
    assert metric.better in ("larger", "smaller"), better


@pytest.mark.parametrize("name", CASES)
def test_rows_of_weight_zero_do_not_count_whatever_they_hold(name):
    metric, y, predicted, *_ = CASES[name]
    w = np.ones(N)
    w[:5] = 0
    spoiled = np.array(predicted)
    spoiled[:5] = np.nan
    np.testing.assert_allclose(metric(y, spoiled, w), metric(y[5:], predicted[5:]), rtol=1e-5)


@pytest.mark.parametrize("metric", [metrics.roc_auc, metrics.average_precision, metrics.f1])
def test_without_positives_there_is_no_score(metric):
    assert np.isnan(metric(np.zeros(5, int), -np.ones(5)))


def test_what_is_undefined_is_nan():
    assert np.isnan(metrics.roc_auc(np.ones(5, int), np.arange(5.0)))
    assert np.isnan(metrics.r2(np.ones(4), np.arange(4.0)))


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c[1] is not NUMBERS])
def test_a_label_that_is_no_class_makes_no_score(name):
    """Inside jit, where values are not known: -1 would be the last class."""
    metric, y, predicted, *_ = CASES[name]
    assert np.isnan(jax.jit(metric)(np.where(np.arange(N) == 3, -1, y), predicted))
    w = (np.arange(N) != 3).astype(float)
    assert np.isfinite(jax.jit(metric)(np.where(np.arange(N) == 3, -1, y), predicted, w))


def test_a_bound_metric_finds_its_labels():
    w, x = jnp.ones(3), RNG.normal(size=(N, 3))
    bound = metrics.r2.of(lambda w, x: x @ w)
    np.testing.assert_allclose(bound(w, x, NUMBERS), sk.r2_score(NUMBERS, x.sum(1)), rtol=1e-5)
    first = metrics.r2.of(lambda w, x, z: x @ w + z, labels=-2)
    want = sk.r2_score(NUMBERS, x.sum(1) + SCORES)
    np.testing.assert_allclose(first(w, x, NUMBERS, SCORES), want, rtol=1e-5)
    assert bound.better == "larger"
    assert repr(metrics.f1.of(jnp.dot)) == "metrics.f1.of(dot)"


def test_rows_that_hold_several_labels_are_averaged():
    """A sentence is a row, its words are labels."""
    y, z = RNG.integers(0, C, (5, 7)), RNG.normal(size=(5, 7, C))
    w = RNG.random(5)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    each = -np.log(np.take_along_axis(p, y[..., None], -1)[..., 0]).mean(1)
    np.testing.assert_allclose(
        metrics.perplexity(y, z, w), np.exp(np.average(each, weights=w)), rtol=1e-5
    )
    hit = (z.argmax(-1) == y).mean(1)
    np.testing.assert_allclose(metrics.accuracy(y, z, w), np.average(hit, weights=w), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (
            lambda: metrics.r2(NUMBERS, SCORES[:, None]),
            ValueError,
            r"metrics.r2: `predicted` must have the shape of the labels `y`, \[60\], got \[60, 1\]",
        ),
        (lambda: metrics.f1(BINARY, SCORES[:5]), ValueError, "one axis more for the classes, got"),
        (
            lambda: metrics.mse(NUMBERS, SCORES, np.ones(3)),
            ValueError,
            r"must have the shape \[60\]",
        ),
        (
            lambda: metrics.roc_auc(CLASSES, LOGITS),
            ValueError,
            "roc_auc: it ranks two classes, and there are logits of 4",
        ),
        (
            lambda: metrics.log_loss(2 * BINARY - 1, SCORES),
            ValueError,
            "labels must be the classes 0, …, 1, got -1",
        ),
        (lambda: metrics.accuracy(BINARY + 0.5, SCORES), ValueError, "got 0.5"),
        (lambda: metrics.mse.of(3), TypeError, "`predict` must be a function, got 3"),
        (lambda: metrics.mse.of(jnp.dot, labels=1), ValueError, "counts from the end of a batch"),
    ],
)
def test_what_makes_no_score_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_every_metric_is_listed_and_tested():
    public = {n for n in metrics.__all__ if n not in ("Metric", "directed")}
    assert {m.name for m, *_ in CASES.values()} == public
    assert all(getattr(jr.metrics, n).name == n for n in public)


# --- your own ----------------------------------------------------------------------------------------


def test_a_function_of_your_own_may_know_its_direction():
    worst = jr.metrics.directed(
        lambda w, x, y, sample_weight=None: jnp.max(jnp.abs(x @ w - y)), "smaller"
    )
    assert (worst.better, takes_weights(worst)) == ("smaller", True)
    x, y = np.eye(2, dtype="f"), np.array([1.0, -3.0], "f")
    assert worst(np.zeros(2), x, y) == 3
    assert repr(worst).startswith("directed(test_a_function_of_your_own")
    assert worst == jr.metrics.directed(worst.fn, "smaller")
    loss = lambda w, x, y: jnp.mean((x @ w - y) ** 2)
    made = lambda lr: jr.Trainer(lambda key: jnp.zeros(2), loss, optax.sgd(lr), {"worst": worst})
    data = (np.tile(x, (4, 1)), np.tile(y, 4))
    grid = jr.grid(lambda lr: lr, lr=[0.5, 0.1])
    result = jr.sweep(made, grid, data, folds=2, steps=2, key=jax.random.key(0), progress=False)
    assert result.directions == {"worst": "smaller"}
    assert result.best(metric="worst").index == 0


@pytest.mark.parametrize(
    ("fn", "better", "error", "match"),
    [
        (3, "larger", TypeError, "metrics.directed: `fn` must be a function, got 3"),
        (abs, "higher", ValueError, "`better` must be 'larger' or 'smaller', got 'higher'"),
    ],
)
def test_a_direction_is_one_of_two(fn, better, error, match):
    with pytest.raises(error, match=match):
        jr.metrics.directed(fn, better)
