"""Ridge on folds: every score against training on each fold, one λ for each response, and every rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.ridge import data, fitted

import jaxreg as jr
from jaxreg import ridge_path

LAMS = [1e-3, 0.1, 1.0]


def by_hand(x, y, lams, pairs, intercept=True):
    """[K, F, m], by training at λ on the rows of each fold."""
    losses = [
        [
            0.5 * ((fitted(x[a], y[a], len(a) * lam, intercept).predict(x[b]) - y[b]) ** 2).mean(0)
            for a, b in pairs
        ]
        for lam in lams
    ]
    return np.array(losses).reshape(len(lams), len(pairs), -1)


GAPS = [(np.arange(9), np.arange(12, 20)), (np.arange(11, 30), np.arange(8))]
WAYS = {
    "a number": 5,
    "labels": np.arange(30) % 4,
    "some always trained on": np.arange(30) % 4 - 1,
    "repeats": jr.folds(30, 3, repeats=3, seed=1),
    "blocks": jr.folds(30, 4, blocks=True, gap=2),
    "time": jr.folds(30, 3, times=np.arange(30)),
    "pairs": GAPS,
    "rows twice": [(np.r_[np.arange(12), np.arange(6)], np.arange(20, 30)), GAPS[1]],
    "one split": [GAPS[0]],
}


@pytest.mark.parametrize("p", [4, 15, 40])
@pytest.mark.parametrize("way", WAYS)
def test_folds_are_training_on_each(way, p):
    x, y = data(30, p, responses=3)
    pairs = {"a number": jr.folds(30, 5), "labels": jr.folds(30, 4)}.get(way, WAYS[way])
    if "labels" in way or "always" in way:
        pairs = [(np.flatnonzero(WAYS[way] != f), np.flatnonzero(WAYS[way] == f)) for f in range(4)]
        pairs = pairs[: 3 if "always" in way else 4]
    path = ridge_path((x, y), LAMS, folds=WAYS[way])
    np.testing.assert_allclose(path.by_fold, by_hand(x, y, LAMS, pairs), rtol=1e-9)
    np.testing.assert_allclose(path.cv, path.by_fold.mean(1))


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("p", [4, 15, 24, 40])
def test_folds_are_exact(p, intercept):
    x, y = data(30, p, responses=2)
    path = ridge_path((x, y), LAMS, folds=5, intercept=intercept)
    exact = by_hand(x, y, LAMS, jr.folds(30, 5), intercept)
    np.testing.assert_allclose(path.by_fold, exact, rtol=1e-10)


def test_rows_that_are_far_out_cost_no_digits_where_they_are_left_out():
    x, y = data(30, 4)
    rows = np.arange(30) % 3
    x[rows == 1] += 1e6
    pairs = [(np.flatnonzero(rows != f), np.flatnonzero(rows == f)) for f in range(3)]
    path = ridge_path((x, y), LAMS, folds=rows)
    np.testing.assert_allclose(path.by_fold[:, 1], by_hand(x, y, LAMS, pairs)[:, 1], rtol=1e-9)


def test_many_strengths_are_each_alone():
    x, y = data(40, 12, responses=2)
    lams = np.geomspace(1e-8, 1e4, 60)
    path = ridge_path((x, y), lams, folds=4)
    alone = [ridge_path((x, y), [lam], folds=4) for lam in lams]
    np.testing.assert_allclose(path.by_fold, np.concatenate([a.by_fold for a in alone]), rtol=1e-10)
    np.testing.assert_allclose(path.loo, np.concatenate([a.loo for a in alone]), rtol=1e-10)


def test_strengths_and_errors_are_those_of_a_sweep_and_every_rule_applies():
    x, y = data(60, 8, responses=2)
    lams = np.geomspace(1e-3, 10, 12)
    path = ridge_path((x, y), lams, folds=jr.folds(60, 4, repeats=2))
    swept = jr.SweepResult.of(jr.grid(jr.l2, lam=lams), valid=path.by_fold.mean(2)[:, :, None])
    low = path.best("cv")
    assert low.mean == pytest.approx(path.cv.mean(1).min())
    assert low.stderr == pytest.approx(path.cv_stderr[low.index])
    by_repeat = path.by_fold.mean(2).reshape(12, 2, 4).std(2, ddof=1)
    np.testing.assert_allclose(path.cv_stderr, np.sqrt((by_repeat**2).mean(1) / 4))
    for rule in ("min", "1se", "percent", "parabola"):
        ours, theirs = path.best("cv", rule), swept.best(rule)
        assert ours.rule == rule
        if rule != "1se":  # whose error knows of the repeats here
            assert ours.coords["lam"] == pytest.approx(float(theirs.coords["lam"]), rel=1e-4)
    assert path.best("cv", "paired").coords["lam"] >= low.coords["lam"]
    assert "cross-validation on 8 folds is best at" in repr(path)


@pytest.mark.parametrize("by", ["loo", "gcv", "aic", "bic", "evidence", "cv"])
def test_each_response_may_have_its_own_strength(by):
    x, y = data(40, 6, responses=3)
    y[:, 1] = np.random.default_rng(9).normal(size=40)
    lams = np.geomspace(1e-3, 10, 25)
    path = ridge_path((x, y), lams, folds=5)
    got = path.per_response(by)
    w, b = path.coef(got)
    for m in range(3):
        alone = ridge_path((x, y[:, m]), lams, folds=5)
        assert got[m] == alone.per_response(by)[0]
        if by != "evidence":
            assert got[m] == pytest.approx(alone.best(by).coords["lam"])
        np.testing.assert_allclose(w[:, m], alone.coef(got[m])[0][:, 0], rtol=1e-9)
        assert b[m] == pytest.approx(alone.coef(got[m])[1][0])
    assert got[1] > 10 * got[0], "noise is shrunk"


def test_a_kernel_takes_the_strength_of_each_response():
    x, y = data(30, 4, responses=3)
    path = ridge_path((x, y), [0.01, 0.1, 1.0], folds=3)
    lam = path.per_response("cv") * [1, 3, 10]
    w, b = path.coef(lam)
    params = {"kernel": jnp.asarray(w), "bias": jnp.asarray(b)}
    loss = lambda p: 0.5 * ((x @ p["kernel"] + p["bias"] - y) ** 2).sum(1).mean()
    objective = lambda p: loss(p) + jr.l2(lam[None]).on("kernel")(p)
    for slope in jax.tree.leaves(jax.grad(objective)(params)):
        np.testing.assert_allclose(slope, 0, atol=1e-4)
