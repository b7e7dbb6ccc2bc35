"""The error to expect: nested cross-validation against loops over closed forms, and what it covers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg.tune import nested
from jaxreg.tune.nested import Losses, estimate

RNG = np.random.default_rng(0)
X = RNG.normal(size=(41, 3)).astype(np.float32)
Y = (X[:, 0] - 0.5 * X[:, 1] + 0.7 * RNG.normal(size=41)).astype(np.float32)
KEY = jax.random.key(0)


def loss(w, x, y):
    return jnp.mean((x @ w - y) ** 2)


def trainer(reg):
    tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.2))
    return jr.Trainer(lambda key: jnp.zeros(3), loss, tx)


@pytest.fixture(scope="module")
def result():
    grid = jr.grid(jr.l2, lam=[0.1, 1.0])
    return jr.sweep(trainer, grid, (X, Y), folds=4, steps=150, key=KEY, evals=1)


def ridge(x, y, lam):
    """The minimum of mean (x w - y)^2 + lam/2 |w|^2."""
    return np.linalg.solve(2 * x.T @ x / len(x) + lam * np.eye(x.shape[1]), 2 * x.T @ y / len(x))


def losses(x, y, train, held, lam, scale=False):
    """Of each row of `held`, by the model of the rows `train`, which are scaled first if asked."""
    if scale:
        x = (x - x[train].mean(0)) / x[train].std(0)
    return (x[held] @ ridge(x[train], y[train], lam) - y[held]) ** 2


def by_hand(x, y, parts, lam, scale=False):
    """The algorithm of the paper in its own words, row by row: mean and SE."""
    inner_all, a, b, rows_out = [], [], [], []
    folds = len(parts[0])
    usual = []
    for of in parts:
        out_rows = []
        for k, held in enumerate(of):
            rest = [p for j, p in enumerate(of) if j != k]
            inner = []
            for j, part in enumerate(rest):
                train = np.concatenate([p for i, p in enumerate(rest) if i != j])
                inner.append(losses(x, y, train, part, lam, scale).mean())
            train = np.concatenate(rest)
            out = losses(x, y, train, held, lam, scale)
            a.append((np.mean(inner) - out.mean()) ** 2)
            b.append(out.var(ddof=1) / len(out))
            inner_all.append(np.mean(inner))
            rows_out.append(out.mean())
            out_rows.append(out)
        every = np.concatenate(out_rows)
        usual.append(every.var(ddof=1) / len(every))
    mse, usual = np.mean(a) - np.mean(b), np.sqrt(np.mean(usual))
    ncv, cv = np.mean(inner_all), np.mean(rows_out)
    mean = ncv - (1 + (folds - 2) / folds) * (ncv - cv)
    error = np.sqrt(max(mse, 0) * (folds - 1) / folds)
    return mean, min(max(error, usual), np.sqrt(folds) * usual), usual


@pytest.fixture
def seen(monkeypatch):
    """The folds that were drawn."""
    found, parts_of = [], nested._parts
    monkeypatch.setattr(nested, "_parts", lambda *a: found.append(parts_of(*a)) or found[0])
    return found


def test_it_is_the_algorithm_of_the_paper(result, seen):
    got = jr.expected_error(trainer, result, (X, Y), key=KEY, folds=4, repeats=3)
    mean, error, usual = by_hand(X.astype(float), Y.astype(float), seen[0], 0.1)
    assert (got.mean, got.stderr, got.usual) == pytest.approx((mean, error, usual), rel=1e-3)
    assert got.lane_steps == 3 * 4 * 4 * 150
    rows = [np.sort(np.concatenate(of)).tolist() for of in seen[0]]
    assert rows == [list(range(41))] * 3, "every fold has every row once"


def test_the_arithmetic_alone_has_the_bounds_of_the_paper():
    rng = np.random.default_rng(1)
    outer, sizes = 1 + rng.normal(size=(2, 5)), np.full((2, 5), 20)
    inner = outer[:, :, None] + np.zeros((2, 5, 4))
    _, none, usual = estimate(Losses(inner, outer, np.ones((2, 5)), sizes))
    assert none == usual, "the losses of rows scatter anyway"
    _, most, usual = estimate(Losses(inner + 100, outer, np.ones((2, 5)), sizes))
    assert most == pytest.approx(np.sqrt(5) * usual)


def test_intervals_cover_what_they_say():
    """Ridge on 40 rows of 12 columns, 150 data sets: the loss of the model of all rows, on fresh rows."""
    rng, inside, usual_inside = np.random.default_rng(3), [], []
    truth = rng.normal(size=12) / 3
    for _ in range(150):
        x = rng.normal(size=(40, 12))
        y = x @ truth + rng.normal(size=40)
        parts = nested._parts(rng, 40, 5, 4)
        mean, error, usual = by_hand(x, y, parts, 0.05)
        w = ridge(x, y, 0.05)
        true = 1 + ((w - truth) ** 2).sum()
        inside.append(abs(true - mean) <= 1.645 * error)
        usual_inside.append(abs(true - mean) <= 1.645 * usual)
    assert 0.83 <= np.mean(inside) <= 0.97
    assert np.mean(usual_inside) < np.mean(inside) - 0.05


def test_it_is_worth_reading_and_says_what_it_costs(result):
    got = jr.expected_error(
        trainer, result, (X, Y), key=KEY, folds=3, repeats=2, rule="min", seeds=2
    )
    first, *others = repr(got).splitlines()
    assert first.startswith("expected loss of min (lam=0.1): ")
    low, high = got.interval()
    assert (high - low) / got.stderr == pytest.approx(2 * 1.6449, rel=1e-3)
    assert np.diff(got.interval(0.5)) < np.diff(got.interval(0.9))
    assert (
        others[0]
        == "  by nested cross-validation, 2 x 3 folds of 3 (Bates, Hastie & Tibshirani 2021)"
    )
    assert others[-1] == f"  cost: {2 * 9 * 2 * 150:,} lane-steps"


def test_the_free_one_says_that_it_is_too_short(result):
    free = result.expected_error("min")
    assert (free.mean, free.stderr) == (result.best().mean, result.best().stderr)
    assert free.method == "cross-validation"
    assert "37 to 84 % were covered" in repr(free)
    assert "jaxreg.expected_error trains" in repr(free)


def test_what_each_fold_learns_beforehand_is_learnt_again(result, seen):
    def scaled(x, y):
        middle, spread = x.mean(0), x.std(0)
        return lambda x, y: ((x - middle) / spread, y)

    shifted = (5 + 3 * X, Y)
    more = {"key": KEY, "folds": 3, "repeats": 1, "prepare": scaled}
    got = jr.expected_error(trainer, result, shifted, **more)
    mean, error, _ = by_hand(shifted[0].astype(float), Y.astype(float), seen[0], 0.1, scale=True)
    assert (got.mean, got.stderr) == pytest.approx((mean, error), rel=1e-3)


# --- what choosing flatters ---------------------------------------------------------------------------

LAMS = (0.01, 0.1, 0.4, 1.0)


@pytest.fixture(scope="module")
def swept():
    return jr.sweep(trainer, jr.grid(jr.l2, lam=LAMS), (X, Y), folds=4, steps=150, key=KEY, evals=1)


def optimism_by_hand(parts, lam):
    """Of each fold the loss of the λ that the others choose, less that of the λ at hand."""
    apart = []
    for of in parts:
        for k, held in enumerate(of):
            rest = [p for j, p in enumerate(of) if j != k]
            others = lambda j, rest=rest: np.concatenate([p for i, p in enumerate(rest) if i != j])
            inner = [
                np.mean([losses(X, Y, others(j), p, at).mean() for j, p in enumerate(rest)])
                for at in LAMS
            ]
            out = lambda at, rest=rest, held=held: losses(
                X, Y, np.concatenate(rest), held, at
            ).mean()
            apart.append(out(LAMS[int(np.argmin(inner))]) - out(lam))
    apart = np.reshape(apart, (len(parts), -1)).mean(0)
    return apart.mean(), apart.std(ddof=1) / np.sqrt(len(apart))


def test_choosing_anew_in_each_fold_counts_what_choosing_flatters(swept, seen):
    more = {"key": KEY, "folds": 4, "repeats": 3}
    got = jr.expected_error(trainer, swept, (X, Y), **more, choosing=True)
    lam = float(got.choice.coords["lam"])
    optimism, error = optimism_by_hand(seen[0], lam)
    assert abs(optimism) > 1e-4, "or the test tells nothing"
    assert got.optimism == pytest.approx(optimism, rel=1e-2)
    mean, plain, _ = by_hand(X.astype(float), Y.astype(float), seen[0], lam)
    assert got.mean == pytest.approx(mean + optimism, rel=1e-3)
    assert got.stderr == pytest.approx(np.hypot(plain, error), rel=1e-3)
    assert got.lane_steps == 5 * 3 * 16 * 150
    assert "having chosen by these rows flatters by" in repr(got)
    without = jr.expected_error(trainer, swept, (X, Y), **more)
    assert np.isnan(without.optimism)
    assert "flatters" not in repr(without)


def test_it_chooses_by_the_rule_that_chose(swept):
    """Between points it is the place at hand, from which others in the folds differ; of one point nothing."""
    more = {"key": KEY, "folds": 4, "repeats": 1, "choosing": True}
    place = dataclasses.replace(
        swept.best(), rule="parabola", point=jr.l2(0.05), coords={"lam": 0.05}
    )
    between = jr.expected_error(trainer, swept, (X, Y), rule=place, **more)
    assert between.choice.coords == {"lam": 0.05}
    assert abs(between.optimism) > 1e-4
    single = jr.sweep(
        trainer, jr.grid(jr.l2, lam=[0.1]), (X, Y), folds=4, steps=150, key=KEY, evals=1
    )
    assert jr.expected_error(trainer, single, (X, Y), **more).optimism == 0
    searched = dataclasses.replace(swept.best(), rule="search")
    by_accuracy = dataclasses.replace(swept.best(), metric="valid accuracy")
    for odd in (searched, by_accuracy):
        with pytest.raises(
            ValueError, match="`choosing` = True chooses anew by a rule.*got a choice by"
        ):
            jr.expected_error(trainer, swept, (X, Y), rule=odd, **more)


BAD = {
    "many": (
        {"repeats": 10**6},
        ValueError,
        r"at most 1,000,000 trainings, got 1000000 x 10\^2 x 1",
    ),
    "folds": ({"folds": 2}, ValueError, "`folds` must be an integer of at least 3, got 2"),
    "repeats": ({"repeats": 0}, ValueError, "`repeats` must be an integer of at least 1"),
    "choosing": ({"choosing": 1}, TypeError, "`choosing` must be True or False"),
    "many points": (
        {"repeats": 10**4, "choosing": True},
        ValueError,
        r"got 10000 x 10\^2 x 1 x 3 points",
    ),
    "seeds": ({"seeds": True}, ValueError, "`seeds` must be an integer of at least 1"),
    "rows": ({"folds": 30}, ValueError, "30 folds need at least 60 rows, got 41"),
    "rule": ({"rule": "best"}, ValueError, "`rule` must be one of"),
    "rules": ({"rule": 3}, TypeError, "expected_error: `rule` must be the name of a rule"),
    "weights": ({"sample_weight": np.ones(41)}, ValueError, "rows with weights are no draws"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name, result):
    more, error, match = BAD[name]
    with pytest.raises(error, match=match):
        jr.expected_error(trainer, result, (X, Y), key=KEY, **more)


def test_batches_that_are_larger_than_what_is_left_are_told(result):
    batched = jr.sweep(
        trainer,
        jr.grid(jr.l2, lam=[0.1]),
        (X, Y),
        folds=4,
        steps=20,
        key=KEY,
        evals=1,
        batch_size=30,
    )
    got = jr.expected_error(trainer, batched, (X, Y), key=KEY, folds=4, repeats=1)
    (told,) = got.warnings
    assert (
        told == "without two folds there are 19 rows to train on, so batches have these and not 30."
    )
    assert f"warning: {told}" in repr(got)
    with pytest.raises(ValueError, match="`batch_size` must be"):
        jr.expected_error(trainer, batched, (X, Y), key=KEY, folds=4, repeats=1, batch_size=30)


def test_a_loss_that_is_no_mean_over_rows_is_refused(result):
    def rooted(reg):
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1))
        return jr.Trainer(lambda key: jnp.zeros(3), lambda w, x, y: jnp.sqrt(loss(w, x, y)), tx)

    with pytest.raises(ValueError, match="the loss is no mean over rows"):
        jr.expected_error(rooted, result, (X, Y), key=KEY, folds=3, repeats=1)


def test_a_training_that_diverges_is_told(result):
    def wild(reg):
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(50.0))
        return jr.Trainer(lambda key: jnp.zeros(3), loss, tx)

    with pytest.raises(ValueError, match="trainings diverged. Lower the learning rate"):
        jr.expected_error(wild, result, (X, Y), key=KEY, folds=3, repeats=1)


@pytest.mark.parametrize("level", [0, 1, 90, True, "0.9"])
def test_a_level_is_a_share(level, result):
    with pytest.raises(ValueError, match="`level` must be a share above 0 and below 1"):
        result.expected_error().interval(level)
