"""The bootstrap against normal equations and scikit-learn's lasso on the same draws, and what it says."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
import pytest
from sklearn.linear_model import Lasso

import jaxreg as jr
from jaxreg.tune.bootstrap import bootstrap

mpl.use("Agg")
import matplotlib.pyplot as plt

module = importlib.import_module("jaxreg.tune.bootstrap")  # and not the function of that name
N, P = 60, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, P)).astype(np.float32)
Y = (2 * X[:, 3] - X[:, 7] + 0.5 * RNG.normal(size=N)).astype(np.float32)
KEY = jax.random.key(0)
LAMS = [0.1, 0.3]


def loss(p, x, y):
    return 0.5 * jnp.mean((x @ p["kernel"] - y) ** 2)


def init(key):
    del key
    return {"kernel": jnp.zeros(P)}


def lasso(reg):
    return jr.Trainer(init, loss, jr.proximal(optax.trace(0.9), reg, 0.05))


def ridge(reg):
    tx = optax.chain(jr.add_penalty_gradient(reg), optax.trace(0.9), optax.scale(-0.05))
    return jr.Trainer(init, loss, tx)


def folds_of(result_of):
    """What a call draws, and what it returns."""
    seen = []
    drawn = module._drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_drawn", lambda *a: seen.extend(drawn(*a)) or seen)
        return seen, result_of()


@pytest.fixture(scope="module")
def found():
    grid = jr.grid(jr.l1, lam=LAMS)
    return folds_of(lambda: bootstrap(lasso, grid, (X, Y), steps=300, draws=20, key=KEY))


def test_a_draw_of_rows_is_n_with_repeats_judged_by_those_that_stayed_out(found):
    drawn, _ = found
    assert len(drawn) == 20
    for rows, out in drawn:
        assert len(rows) == N
        assert sorted({*rows, *out}) == list(range(N))
        assert not {*rows} & {*out}
    assert 0.3 < np.mean([len(out) for _, out in drawn]) / N < 0.43, "1/e of them"
    few = module._drawn(np.random.default_rng(0), 4, 200)
    assert all(len(out) for _, out in few), "of four rows a draw may take all, which is drawn again"


def test_of_ridge_it_is_the_normal_equations_of_the_repeated_rows():
    drawn, got = folds_of(
        lambda: bootstrap(ridge, jr.l2(0.2), (X, Y), steps=600, draws=40, key=KEY)
    )
    x, y = X.astype(float), Y.astype(float)
    gram = lambda r: x[r].T @ x[r] / N + 0.2 * np.eye(P)
    want = np.array([np.linalg.solve(gram(r), x[r].T @ y[r] / N) for r, _ in drawn])
    np.testing.assert_allclose(got.draws["kernel"][0], want, atol=2e-5)
    errors = [0.5 * np.mean((x[o] @ w - y[o]) ** 2) for (_, o), w in zip(drawn, want)]
    np.testing.assert_allclose(got.errors[0], errors, rtol=1e-4)
    mean, spread = got.error()
    np.testing.assert_allclose([mean[0], spread[0]], [np.mean(errors), np.std(errors, ddof=1)], rtol=1e-4)  # fmt: skip
    for level in (0.5, 0.9):
        low, high = got.interval(level)["kernel"]
        ends = np.quantile(want, [0.5 - level / 2, 0.5 + level / 2], 0)
        np.testing.assert_allclose([low[0], high[0]], ends, atol=2e-5)
    assert (got.frequency()["kernel"] == 1).all()


def test_of_a_lasso_share_and_sign_are_those_of_scikit_learns(found):
    drawn, got = found
    for k, lam in enumerate(LAMS):
        model = lambda r, lam=lam: Lasso(alpha=lam, fit_intercept=False, tol=1e-6).fit(X[r], Y[r])
        want = np.array([model(r).coef_ for r, _ in drawn])
        np.testing.assert_allclose(got.draws["kernel"][k], want, atol=1e-4)
        share = (want != 0).mean(0)
        np.testing.assert_allclose(got.frequency()["kernel"][k], share, atol=0.051)
        sign = np.maximum((want > 0).mean(0), (want < 0).mean(0))
        some = share > 0.2
        want = sign[some] / share[some]
        np.testing.assert_allclose(got.sign()["kernel"][k][some], want, atol=0.15)
    assert np.isnan(got.sign()["kernel"][got.frequency()["kernel"] == 0]).all()
    np.testing.assert_array_equal(got.sign()["kernel"][:, [3, 7]], 1)


@pytest.mark.parametrize("batch_size", [None, 16])
def test_training_on_repeated_rows_is_training_on_the_repeated_data(batch_size):
    options = {"steps": 30, "batch_size": batch_size}
    one = jr.Machine(chunk=1)  # a lane alone, whose sums have one order
    drawn, got = folds_of(
        lambda: bootstrap(lasso, jr.l1(0.1), (X, Y), draws=10, key=KEY, machine=one, **options)
    )
    train = jax.random.split(KEY)[1]
    for f in (0, 7):
        rows = drawn[f][0]
        alone = jr.fit(lasso, jr.l1(0.1), (X[rows], Y[rows]), key=train, fold=f, **options)
        np.testing.assert_array_equal(got.draws["kernel"][0, f], alone.params["kernel"])


def test_its_spread_is_the_standard_error_of_least_squares():
    """Without a penalty, where the bootstrap is consistent, and to what 300 draws tell."""
    got = bootstrap(ridge, jr.l2(0.0), (X, Y), steps=300, draws=300, key=KEY)
    w, *_ = np.linalg.lstsq(X, Y, rcond=None)
    s2 = ((Y - X @ w) ** 2).sum() / (N - P)
    usual = np.sqrt(s2 * np.diag(np.linalg.inv(X.T @ X)))
    ratio = got.draws["kernel"][0].std(0) / usual
    assert ratio.min() > 0.75
    assert ratio.max() < 1.35
    assert ratio.mean() == pytest.approx(1, abs=0.15)


def test_an_interval_of_a_lasso_lies_about_the_shrunken_coefficient(found):
    """So it misses the truth, 2 and -1, as the docs say."""
    low, high = (end[1] for end in found[1].interval(0.9)["kernel"])
    assert high[3] < 2
    assert low[7] > -1


def test_it_is_a_table_and_a_picture(found):
    _, got = found
    lines = repr(got).splitlines()
    best = int(got.error()[0].argmin())
    many = int((got.frequency()["kernel"][best] >= 0.5).sum())
    assert lines[0] == (
        f"{many} of 8 coefficients in at least half of 20 bootstrap draws at lam={LAMS[best]:g}"
    )
    assert lines[1].split() == ["leaf", "variable", "share", "sign", "median", "0.05", "0.95"]
    low, high = got.interval(0.9)["kernel"]
    first = got.table().rows[0]
    assert (first["variable"], first["share"], first["sign"]) == ("3", 1.0, 1.0)
    assert (first["low"], first["high"]) == (low[best, 3], high[best, 3])
    assert "no confidence intervals of the truth" in lines[-1]
    assert f"out-of-bag loss {got.error()[0][best]:.4g}" in lines[-2]
    assert "at lam=0.3" in str(got.table(1, 0.5)).splitlines()[0]
    ax = got.plot(k=1, level=0.5)
    ends = np.concatenate([s for c in ax.collections for s in c.get_segments()])
    low, high = got.interval(0.5)["kernel"]
    np.testing.assert_allclose(sorted(ends[:, 1]), sorted([*low[1], *high[1]]), atol=1e-6)
    assert len(ax.collections[0].get_segments()) == (got.frequency()["kernel"][1] >= 0.5).sum()
    plt.close("all")


def test_a_lone_point_is_named(found):
    del found
    got = bootstrap(lasso, jr.l1(0.25), (X, Y), steps=5, draws=10, key=KEY, seeds=2)
    assert got.draws["kernel"].shape == (1, 20, P), "each seed is a draw of its own"
    assert "bootstrap draws at l1(0.25)" in repr(got).splitlines()[0]


GOOD = {"steps": 5, "draws": 10, "key": KEY}


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"point": None}, TypeError, "`point` must be a grid or a point, .* got None"),
        ({"point": "x"}, TypeError, "`point` must be a grid or a point, .* got 'x'"),
        ({"draws": 9}, ValueError, "`draws` must be an integer of at least 10, got 9"),
        ({"draws": True}, ValueError, "`draws` must be an integer of at least 10, got True"),
        ({"key": 0}, TypeError, "`key` must be one PRNG key"),
        ({"trainer": lasso(jr.l1(0.1))}, TypeError, "`trainer` must be a function of the point"),
        ({"data": (X[:3], Y[:3])}, ValueError, "at least 4 rows, so that some stay out, got 3"),
        ({"where": "nothing"}, ValueError, r"selector path\('nothing'\) matches none"),
        ({"where": 3}, TypeError, "bootstrap: `where`"),
        ({"folds": 5}, ValueError, "`folds` must be left away, since the rows .* got int"),
        ({"validation": (X, Y)}, ValueError, "`validation` must be left away, .* got tuple"),
        ({"halving": jr.Halving()}, ValueError, "`halving` gives points up, .* leave it away"),
    ],
)
def test_what_makes_no_bootstrap_is_refused(given, error, match):
    call: dict[str, Any] = {"trainer": lasso, "point": jr.l1(0.1), "data": (X, Y)} | GOOD | given
    with pytest.raises(error, match=match):
        bootstrap(**call)


def test_draws_that_diverge_are_refused():
    wild = lambda reg: jr.Trainer(init, loss, jr.proximal(optax.identity(), reg, 1e8))
    with pytest.raises(ValueError, match="bootstrap: .* trainings diverged. Lower the learning"):
        bootstrap(wild, jr.l1(0.1), (X, Y), **(GOOD | {"steps": 60}))


@pytest.mark.parametrize(
    ("level", "error", "match"),
    [
        (1.0, ValueError, "`level` must be between 0 and 1"),
        (0.0, ValueError, "`level` must be between 0 and 1"),
        (float("nan"), ValueError, "`level` must not be NaN"),
        (None, TypeError, "`level` must be a number"),
        (0.95, ValueError, "leave a draw on either side of the 20 .* at most 0.9, got 0.95. Give more"),
    ],
)  # fmt: skip
def test_an_interval_needs_draws_beyond_its_ends(level, error, match, found):
    with pytest.raises(error, match=match):
        found[1].interval(level)
    with pytest.raises(error, match=match):
        found[1].table(0, level)


@pytest.mark.parametrize("k", [2, -1, True, 0.5, "x"])
def test_a_point_has_a_number(k, found):
    with pytest.raises(ValueError, match="`k` must be"):
        found[1].table(k)
