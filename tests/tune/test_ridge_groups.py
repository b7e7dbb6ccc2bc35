"""One λ for each group: what is chosen is never worse than one λ, what new rows gain, and what is told."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import ARDRegression
from support.ridge import grouped
from support.ridge import in_groups as data

import jaxreg as jr
from jaxreg.tune.ridge_groups import ridge_groups

# --- the choice -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["loo", "evidence"])
@pytest.mark.parametrize(("n", "p"), [(40, 9), (25, 24), (30, 45)])
def test_it_is_the_least_that_another_search_finds_and_never_above_the_best_single_one(n, p, by):
    for seed in range(3):
        x, y, group = data(n, p, seed, sizes=(1, 0.5, 0.2), noise=2.0)
        got = ridge_groups((x, y), group, by=by, folds=None)
        problem = grouped(x, y, group, by)
        assert got.choice.mean <= got.single.mean
        lam = np.array(list(got.lam.values()))
        assert got.choice.mean == pytest.approx(problem.at(np.log(lam)).score, rel=1e-12)
        low, high = np.log(1e-8 * problem.size), np.log(1e4 * problem.size)
        for start in (np.log(lam), np.random.default_rng(seed).uniform(-6, 2, 3)):
            near = minimize(lambda t, of=problem: of.at(t).score, start, method="Nelder-Mead",
                            options={"xatol": 1e-6, "fatol": 1e-10}, bounds=list(zip(low, high)))  # fmt: skip
            assert got.choice.mean <= near.fun + 2e-6 * abs(near.fun), "of all minima the least"


@pytest.mark.parametrize("by", ["loo", "evidence"])
def test_the_single_one_is_that_of_the_path(by):
    for seed in range(3):
        x, y, group = data(40, 12, seed)
        got = ridge_groups((x, y), group, by=by, folds=None)
        lams = np.geomspace(1e-6, 1e2, 4000)
        path = jr.ridge_path((x, y), lams).best(by)
        assert got.single.coords["lam"] == pytest.approx(path.coords["lam"], rel=1e-2)
        assert got.single.mean == pytest.approx(path.mean, rel=1e-5)
        assert got.single.mean <= path.mean * (1 + 1e-9)
        if by == "loo":
            assert got.single.stderr == pytest.approx(path.stderr, rel=1e-2)


def test_by_column_the_evidence_is_that_of_automatic_relevance():
    """At ARDRegression's strengths, whose noise is its own, the maximum is at least as high."""
    x, y, _ = data(60, 6)
    model = ARDRegression(
        alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, tol=1e-10, max_iter=3000
    ).fit(x, y)
    got = ridge_groups((x, y), np.arange(6), by="evidence", folds=None)
    problem = grouped(x, y, np.arange(6), "evidence")
    theirs = problem.at(np.log(np.clip(model.lambda_ / model.alpha_ / 60, 1e-8, 1e4))).score
    assert got.choice.mean <= theirs + 1e-6
    kept = model.lambda_ < 1e4
    lam = np.array(list(got.lam.values()))
    np.testing.assert_allclose(lam[kept], (model.lambda_ / model.alpha_ / 60)[kept], rtol=0.02)


def test_groups_that_differ_get_strengths_that_do_and_new_rows_gain():
    x, y, group = data(1080, 60, sizes=(1.0, 0.1, 0.0))
    train, test = (x[:80], y[:80]), (x[80:], y[80:])
    for by in ("loo", "evidence"):
        got = ridge_groups(train, np.array(["strong", "weak", "none"])[group], by=by)
        assert got.lam["strong"] < got.lam["weak"] < got.lam["none"]
        assert list(got.columns.values()) == [20, 20, 20]
        w, b = got.coef()
        one = jr.ridge_path(train, [0.1]).coef(got.single.coords["lam"])
        loss = lambda w, b: 0.5 * np.mean((test[0] @ w[:, 0] + b[0] - test[1]) ** 2)
        assert loss(w, b) < 0.8 * loss(*one)
        assert got.real
        assert "a real gain" in got.choice.why
        assert got.gain[0] == pytest.approx(got.held_out[1] - got.held_out[0])
        assert not any("held-out rows do not" in text for text in got.warnings)


def test_names_order_and_scale_of_the_columns_change_nothing():
    x, y, group = data(40, 9)
    plain = ridge_groups((x, y), group, folds=None)
    order = np.random.default_rng(1).permutation(9)
    moved = ridge_groups((x[:, order], y), group[order], folds=None)
    np.testing.assert_allclose(list(moved.lam.values()), list(plain.lam.values()), rtol=1e-3)
    # A group whose columns are all ten times as large has a λ a hundred times as large.
    large = np.where(group == 1, 10.0, 1.0)
    scaled = ridge_groups((x * large, y), group, folds=None)
    assert scaled.choice.mean == pytest.approx(plain.choice.mean, rel=1e-5)
    assert scaled.lam[1] == pytest.approx(100 * plain.lam[1], rel=1e-2)


@pytest.mark.parametrize("responses", [None, 2])
def test_the_point_is_a_penalty_at_whose_minimum_the_weights_are(responses):
    x, y, group = data(40, 9, responses=responses)
    got = ridge_groups((x, y), group, folds=None)
    w, b = got.coef()
    flat = (lambda a: a) if responses else (lambda a: a[..., 0])
    params = {"kernel": jnp.asarray(flat(w)), "bias": jnp.asarray(flat(b))}
    y2 = y.reshape(40, -1)
    lam = np.array(list(got.lam.values()))[group]
    assert got.choice.point.lam.shape == ((9, 1) if responses else (9,))
    n, slope = 40, jax.grad(got.choice.point.on("kernel"))(params)["kernel"]
    np.testing.assert_allclose(slope, flat(lam[:, None] * w), rtol=1e-5)
    rest = y2 - x @ w - b
    np.testing.assert_allclose(flat(x.T @ rest) / n, slope, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(rest.mean(0), 0, atol=1e-10)


# --- whether it is real, and what is told ------------------------------------------------------------------


def test_the_gain_is_that_of_choosing_again_on_each_fold():
    x, y, group = data(40, 9)
    folds = jr.folds(40, 4, seed=3)
    got = ridge_groups((x, y), group, folds=folds)
    less = np.zeros(40)
    for train, valid in folds:
        inner = ridge_groups((x[train], y[train]), group, folds=None)
        one = jr.ridge_path((x[train], y[train]), [1.0]).coef(inner.single.coords["lam"])
        loss = lambda w, b, v=valid: 0.5 * (x[v] @ w[:, 0] + b[0] - y[v]) ** 2
        less[valid] = loss(*one) - loss(*inner.coef())
    assert got.gain[0] == pytest.approx(less.mean(), rel=1e-6)
    assert got.gain[1] == pytest.approx(less.std(ddof=1) / np.sqrt(40), rel=1e-6)


def test_where_groups_do_not_differ_it_says_so():
    told = 0
    for seed in range(8):
        x, y, group = data(60, 12, seed, sizes=(0.5, 0.5, 0.5))
        got = ridge_groups((x, y), group)
        told += got.real
        if not got.real:
            assert "no gain that can be told from noise" in got.choice.why
            assert any(
                "held-out rows do not show" in text and "Take `single`" in text
                for text in got.warnings
            )
    assert told <= 1


def test_a_strength_for_each_column_is_fitted_to_the_rows_and_it_says_so():
    x, y, _ = data(80, 60, sizes=(1.0, 0.1, 0.0))
    got = ridge_groups((x, y), np.arange(60))
    text = "\n".join(got.warnings)
    assert "there is a λ for each of 60 columns" in text
    assert "60 λ are many for 80 rows" in text
    assert "the leave-one-out loss" in text
    assert "is fitted to the rows" in text
    assert got.held_out[0] > 2 * got.choice.mean
    pairs = ridge_groups((x, y), np.arange(60) // 2, folds=None)
    assert "30 groups have fewer than 3 columns" in "\n".join(pairs.warnings)
    assert np.isnan(pairs.gain[0])
    assert not pairs.real
    assert "was not judged" in pairs.choice.why


def test_a_strength_that_ran_to_an_end_is_told_and_finite():
    x, y, group = data(60, 9, sizes=(3.0, 1.0, 0.0), seed=0)
    got = ridge_groups((x, y), group, folds=None)
    infinite, none = got.warnings
    assert infinite.startswith("λ of 2 went to infinity and stands at the end of the range")
    assert (
        none
        == "λ of 0 went to 0 and stands at the end of the range: the columns are not shrunk at all."
    )
    size = np.linalg.norm((x - x.mean(0))[:, group == 2], 2) ** 2 / 60
    assert got.lam[2] == pytest.approx(1e4 * size)
    assert got.dof[2] < 1e-3
    assert got.dof[0] == pytest.approx(3, abs=1e-6)


@pytest.mark.parametrize(("n", "p", "seed"), [(30, 30, 2), (30, 50, 2), (30, 50, 5)])
def test_an_evidence_that_has_a_peak_beside_an_unbounded_end_stays_on_it(n, p, seed):
    x, y, group = data(n, p, seed=seed, noise=4.0)
    got = ridge_groups((x, y), group, by="evidence", folds=None)
    assert any("rises without bound as λ goes to 0" in text for text in got.warnings)
    assert sum(got.dof.values()) < 0.95 * (n - 1)
    assert got.choice.mean <= got.single.mean


def test_an_evidence_without_a_maximum_is_refused():
    x, _, group = data(30, 50)
    with pytest.raises(
        ValueError, match="ridge_groups: the evidence has no maximum: it rises as λ goes to 0"
    ):
        ridge_groups((x, x @ np.ones(50)), group, by="evidence")


def test_columns_that_tell_nothing_are_dropped_together():
    plain = np.random.default_rng(0).normal(size=(30, 6))
    plain -= plain.mean(0)
    apart = np.linalg.svd(plain)[0][:, 10]
    got = ridge_groups((plain, apart), [0, 0, 0, 1, 1, 1], by="evidence", folds=None)
    assert "λ of 0, 1 went to infinity" in "\n".join(got.warnings)


def test_columns_that_are_constant_cost_nothing():
    x, y, group = data(40, 9)
    flat = np.hstack([x, np.full((40, 2), 7.0)])
    for more in (group[:2], [3, 3]):  # within groups, and as one of their own
        got = ridge_groups((flat, y), np.r_[group, more], folds=None)
        assert got.choice.mean == pytest.approx(
            ridge_groups((x, y), group, folds=None).choice.mean, rel=1e-5
        )


def test_a_response_that_never_varies_is_no_gain():
    """A criterion of 0 has no size by which a descent could be judged."""
    x, _, group = data(40, 9)
    got = ridge_groups((x, np.zeros(40)), group)
    assert got.gain == (0, 0)
    assert not got.real
    assert got.choice.mean == 0


def test_it_prints_what_was_chosen_and_what_one_λ_gives():
    x, y, group = data(80, 30)
    got = ridge_groups((x, y), np.array(["a", "b", "c"])[group])
    text = " ".join(str(got).split())
    assert text.startswith(
        "ridge, one λ for each of 3 groups, by leave-one-out loss group columns λ dof"
    )
    assert re.search(rf"a 10 {got.lam['a']:.4g} {got.dof['a']:.1f}", text)
    assert (
        f"{got.choice.mean:.4g}; with one λ, {got.single.coords['lam']:.4g}, {got.single.mean:.4g}"
        in text
    )
    assert "<table" in got._repr_html_()
    assert list(got.choice.coords) == ["lam[a]", "lam[b]", "lam[c]"]
    assert repr(got.choice).startswith("loo: lam[a]=")


# --- bad input ----------------------------------------------------------------------------------------------

GOOD = (np.random.default_rng(0).normal(size=(12, 4)), np.arange(12.0))
BAD = {
    "groups none": ({"groups": None}, TypeError, "`groups` must be labels of the columns.*got None"),
    "groups text": ({"groups": "abcd"}, TypeError, "`groups` must be labels.*got 'abcd'"),
    "groups number": ({"groups": 3}, TypeError, "`groups` must be labels.*got 3"),
    "groups floats": ({"groups": [0.0, 1, 1, 0]}, TypeError, "`groups` must be labels"),
    "groups NaN": ({"groups": [np.nan] * 4}, TypeError, "`groups` must be labels"),
    "groups ragged": ({"groups": [[0], [1, 2]]}, TypeError, "`groups` must be labels"),
    "groups table": ({"groups": [[0, 1, 1, 0]]}, TypeError, "`groups` must be labels"),
    "groups few": ({"groups": [0, 1]}, ValueError, "`groups` must have 4 labels, got 2"),
    "groups empty": ({"groups": ()}, TypeError, "`groups` must be labels"),
    "one group": ({"groups": [1] * 4}, ValueError, "at least two groups, got 1 alone. For one λ take"),
    "by": ({"by": "gcv"}, ValueError, r"`by` must be one of \['evidence', 'loo'\], got 'gcv'"),
    "by none": ({"by": None}, ValueError, "`by` must be one of .*got None"),
    "by list": ({"by": ["loo"]}, ValueError, "`by` must be one of"),
    "intercept": ({"intercept": 1}, TypeError, "`intercept` must be True or False, got 1"),
    "folds": ({"folds": 1}, ValueError, "`folds` must be an integer of at least 2, got 1"),
    "folds many": ({"folds": 13}, ValueError, "`folds` must be at most the 12 rows there are, got 13"),
    "folds text": ({"folds": "x"}, TypeError, "`folds` must say which rows"),
    "data": ({"data": 3}, TypeError, "`data` must be a tuple"),
    "data shape": ({"data": (np.ones(12), np.ones(12))}, ValueError, r"`data` must be \(X, y\)"),
    "data NaN": ({"data": (GOOD[0] * np.nan, GOOD[1])}, ValueError, "`data.*NaN"),
    "constant": ({"data": (np.ones((12, 4)), GOOD[1])}, ValueError, "a column that varies, got 4 constant"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    more, error, match = BAD[name]
    with pytest.raises(error, match="^ridge_groups: .*" + match):
        ridge_groups(**{"data": GOOD, "groups": [0, 0, 1, 1], **more})
