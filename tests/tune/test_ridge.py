"""Ridge without training: every criterion against brute force, hat matrices, densities and scikit-learn."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.linear_model import BayesianRidge, RidgeCV
from support.ridge import data, fitted

import jaxreg as jr
from jaxreg import ridge_path

LAMS = [1e-3, 0.1, 1.0]
SHAPES = [(30, 5), (25, 24), (25, 25), (20, 40)]


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_leave_one_out_is_leaving_each_out(n, p, intercept):
    x, y = data(n, p)
    path = ridge_path((x, y), LAMS, intercept=intercept)
    for lam, loo, error in zip(LAMS, path.loo[:, 0], path.loo_stderr):
        rows = []
        for i in range(n):
            rest = np.arange(n) != i
            model = fitted(x[rest], y[rest], (n - 1) * lam, intercept)
            rows.append(0.5 * (model.predict(x[i : i + 1])[0] - y[i]) ** 2)
        exact = 1e-12 if n > p + 1 else 1e-8
        assert loo == pytest.approx(np.mean(rows), rel=exact)
        assert error == pytest.approx(np.std(rows, ddof=1) / np.sqrt(n), rel=10 * exact)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_criteria_are_those_of_the_hat_matrix(n, p, intercept):
    x, y = data(n, p)
    path = ridge_path((x, y), LAMS, intercept=intercept)
    for k, lam in enumerate(LAMS):
        hat = np.stack([fitted(x, e, n * lam, intercept).predict(x) for e in np.eye(n)], 1)
        dof, squares = np.trace(hat), ((y - hat @ y) ** 2).sum()
        assert path.dof[k] == pytest.approx(dof, rel=1e-9)
        assert path.gcv[k, 0] == pytest.approx(n * squares / 2 / (n - dof) ** 2, rel=1e-8)
        assert path.aic[k, 0] == pytest.approx(n * np.log(squares / n) + 2 * dof, rel=1e-8)
        assert path.bic[k, 0] == pytest.approx(n * np.log(squares / n) + np.log(n) * dof, rel=1e-8)
        w, b = path.coef(lam)
        model = fitted(x, y, n * lam, intercept)
        np.testing.assert_allclose(w[:, 0], model.coef_, rtol=1e-9)
        assert b[0] == pytest.approx(model.intercept_, rel=1e-9)


@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_the_evidence_is_the_density_of_the_targets(n, p):
    x, y = data(n, p)
    path = ridge_path((x, y), LAMS, intercept=False)
    for lam, told in zip(LAMS, path.evidence[:, 0]):
        kappa = n * lam
        of = lambda beta, kappa=kappa: multivariate_normal.logpdf(
            y, np.zeros(n), (np.eye(n) + x @ x.T / kappa) / beta
        )
        beta = n / (y @ np.linalg.solve(np.eye(n) + x @ x.T / kappa, y))
        assert told == pytest.approx(of(beta), rel=1e-10)
        assert of(beta) >= max(of(beta * 1.01), of(beta * 0.99)), "with the best noise"


def test_its_maximum_is_bayesian_ridge():
    x, y = data(60, 8)
    got = ridge_path((x, y)).best("evidence")
    model = BayesianRidge(
        alpha_1=0,
        alpha_2=0,
        lambda_1=0,
        lambda_2=0,
        tol=1e-16,
        max_iter=100_000,
        compute_score=True,
    ).fit(x, y)
    assert got.coords["lam"] == pytest.approx(model.lambda_ / model.alpha_ / 60, rel=1e-12)
    assert got.mean == pytest.approx(-model.scores_[-1] / 60, rel=1e-12)
    assert f"a noise of {model.alpha_**-0.5:.4g}" in got.why
    w, _ = ridge_path((x, y)).coef(got.coords["lam"])
    np.testing.assert_allclose(w[:, 0], model.coef_, rtol=1e-9)


def by_search(x, y):
    """The highest interior peak of the evidence over a fine grid of λ, from densities."""
    n = len(y)
    x, y = x - x.mean(0), y - y.mean()
    s, u = np.linalg.eigh(x @ x.T)
    b2 = (u.T @ y) ** 2
    lams = np.geomspace(1e-8, 1e6, 40_000)
    left = n * lams[:, None] / (np.maximum(s, 0) + n * lams[:, None])
    told = -0.5 * n * np.log(left @ b2) + 0.5 * np.log(left).sum(1)
    peak = np.flatnonzero((told[1:-1] > told[:-2]) & (told[1:-1] > told[2:])) + 1
    return lams[peak[told[peak].argmax()]]


@pytest.mark.parametrize(("n", "p"), [(30, 10), (30, 28), (30, 29), (30, 30), (30, 50), (60, 100)])
def test_where_columns_fit_without_noise_the_peak_is_found_and_the_rest_is_told(n, p):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(n, p))
    y = x @ rng.normal(size=p) / np.sqrt(p) + 0.5 * rng.normal(size=n)
    got = ridge_path((x, y)).best("evidence")
    assert got.coords["lam"] == pytest.approx(by_search(x, y), rel=2e-3)
    unbounded = [w for w in got.warnings if "rises without bound as λ goes to 0" in w]
    assert bool(unbounded) == (p >= n - 1)


def test_an_evidence_without_a_maximum_is_refused():
    x, _y = data(30, 50)
    with pytest.raises(
        ValueError, match="no maximum: it rises as λ goes to 0.*50 columns fit 30 rows"
    ):
        ridge_path((x, x @ np.ones(50))).best("evidence")
    plain = np.random.default_rng(0).normal(size=(30, 3))
    plain -= plain.mean(0)
    apart = np.linalg.svd(plain)[0][:, 10]  # orthogonal to the columns
    with pytest.raises(ValueError, match="no maximum: it rises with λ to infinity"):
        ridge_path((plain, apart)).best("evidence")


def test_it_takes_the_strength_that_ridge_cv_takes():
    x, y = data(50, 10, seed=3)
    lams = np.geomspace(1e-4, 10, 40)
    got = ridge_path((x, y), lams).best()
    other = RidgeCV(alphas=49 * lams).fit(x, y)
    assert got.coords["lam"] == pytest.approx(other.alpha_ / 49)
    assert repr(got.point) == f"l2({got.coords['lam']:g})"


def test_responses_together_are_each_alone():
    x, y = data(30, 6, responses=4)
    path = ridge_path((x, y), LAMS)
    for m in range(4):
        alone = ridge_path((x, y[:, m]), LAMS)
        for name in ("loo", "gcv", "aic", "bic", "evidence"):
            np.testing.assert_allclose(
                getattr(path, name)[:, m], getattr(alone, name)[:, 0], rtol=1e-10
            )
        np.testing.assert_allclose(path.coef(0.1)[0][:, m], alone.coef(0.1)[0][:, 0], rtol=1e-10)
    assert path.best().mean == pytest.approx(path.loo.mean(1).min())


def test_it_is_what_training_with_l2_ends_at():
    import jax
    import jax.numpy as jnp
    import optax

    x, y = (a.astype(np.float32) for a in data(30, 5))
    loss = lambda p, x, y: 0.5 * jnp.mean((x @ p["kernel"] + p["bias"] - y) ** 2)

    def trainer(reg):
        tx = optax.chain(jr.add_penalty_gradient(reg.on(jr.kernels)), optax.sgd(0.05, 0.9))
        return jr.Trainer(lambda key: {"kernel": jnp.zeros(5), "bias": jnp.zeros(())}, loss, tx)

    state = jr.fit(trainer, jr.l2(0.1), (x, y), steps=3000, key=jax.random.key(0))
    w, b = ridge_path((x, y)).coef(0.1)
    np.testing.assert_allclose(state.params["kernel"], w[:, 0], rtol=2e-3, atol=1e-4)
    assert float(state.params["bias"]) == pytest.approx(b[0], rel=2e-3)


def test_columns_that_are_constant_or_twice_there_change_nothing_but_their_share():
    x, y = data(30, 4)
    plain = ridge_path((x, y), LAMS)
    flat = ridge_path((np.hstack([x, np.full((30, 1), 7.0)]), y), LAMS)
    np.testing.assert_allclose(flat.loo, plain.loo, rtol=1e-9)
    np.testing.assert_allclose(flat.dof, plain.dof, rtol=1e-9)
    # Of two equal columns each takes half, as one of twice the square.
    twice = ridge_path((np.hstack([x, x]), y), LAMS)
    np.testing.assert_allclose(twice.loo, ridge_path((np.sqrt(2) * x, y), LAMS).loo, rtol=1e-9)


def test_without_a_penalty_it_is_least_squares():
    x, y = data(30, 4)
    path = ridge_path((x, y), [0.0, 1.0])
    ones = np.hstack([np.ones((30, 1)), x])
    hat = ones @ np.linalg.pinv(ones)
    exact = 0.5 * np.mean(((y - hat @ y) / (1 - np.diag(hat))) ** 2)
    assert path.loo[0, 0] == pytest.approx(exact, rel=1e-10)
    assert path.dof[0] == pytest.approx(5)
    assert path.evidence[0, 0] == -np.inf, "an infinitely wide prior"


def test_float32_rows_are_computed_in_float64():
    x, y = (a.astype(np.float32) for a in data(30, 5))
    both = [ridge_path((a, b), LAMS).loo for a, b in ((x, y), (x.astype(float), y.astype(float)))]
    np.testing.assert_array_equal(*both)


def test_an_end_of_the_grid_is_a_warning_and_the_repr_is_worth_reading():
    x, y = data(30, 5)
    (told,) = ridge_path((x, y), [1.0, 10.0]).best().warnings
    assert told == "lam=1 is the smallest of the grid; a smaller one may be better."
    assert ridge_path((x, y), [1.0]).best().warnings == ()
    text = repr(ridge_path((x, y), LAMS))
    assert text.startswith(
        "RidgePath: 3 λ from 0.001 to 1, 30 rows x 5 columns; leave-one-out is best at"
    )
    assert ", 2 responses;" in repr(ridge_path((x, np.stack([y, y], 1)), LAMS))


BAD = {
    "shapes": ((np.ones(5), np.ones(5)), {}, ValueError, r"`data` must be \(X, y\) of \[rows, columns\].*got \[5\]"),
    "targets": ((np.ones((5, 2)), np.ones((5, 1, 1))), {}, ValueError, r"and \[5, 1, 1\]"),
    "rows": ((np.ones((5, 2)), np.ones(4)), {}, ValueError, "ridge_path: .*rows"),
    "three": ((np.ones((5, 2)), np.ones(5), np.ones(5)), {}, ValueError, "a pair of arrays.*got 3 parts"),
    "few": ((np.ones((2, 1)), np.ones(2)), {}, ValueError, "at least 3 rows, got 2"),
    "NaN": ((np.full((5, 2), np.nan), np.ones(5)), {}, ValueError, "ridge_path: .*NaN"),
    "texts": ((np.array([["a"]] * 5), np.ones(5)), {}, TypeError, "ridge_path: "),
    "below 0": ((np.ones((5, 2)), np.ones(5)), {"lam": [-1.0]}, ValueError, r"got \[-1.0\]"),
    "none": ((np.ones((5, 2)), np.ones(5)), {"lam": []}, ValueError, r"`lam` must be strengths.*got \[\]"),
    "words": ((np.ones((5, 2)), np.ones(5)), {"lam": "many"}, TypeError, "`lam` must be numbers, got 'many'"),
    "no response": ((np.ones((5, 2)), np.ones((5, 0))), {}, ValueError, r"and \[5, 0\]"),
    "a flag as lam": ((np.ones((5, 2)), np.ones(5)), {"lam": True}, TypeError, "`lam` must be numbers, got True"),
    "a table of lam": ((np.ones((5, 2)), np.ones(5)), {"lam": [[1.0]]}, ValueError, "`lam` must be strengths"),
    "one fold": ((np.ones((5, 2)), np.ones(5)), {"folds": 1}, ValueError, "ridge_path: `folds` must be an integer of at least 2, got 1"),
    "six folds": ((np.ones((5, 2)), np.ones(5)), {"folds": 6}, ValueError, "ridge_path: `folds` must be at most the 5 rows there are, got 6"),
    "folds of text": ((np.ones((5, 2)), np.ones(5)), {"folds": "x"}, TypeError, "^ridge_path: `folds` must say which rows each fold has, got 'x'"),
    "folds of a flag": ((np.ones((5, 2)), np.ones(5)), {"folds": True}, TypeError, "^ridge_path: `folds` must say .*got True"),
    "folds overlap": ((np.ones((5, 2)), np.ones(5)), {"folds": [([0, 1, 2], [2, 3])]}, ValueError, "^ridge_path: fold 0 of `folds` trains on a row it validates on"),
    "few to train on": ((np.ones((5, 2)), np.ones(5)), {"folds": 2}, ValueError, "`folds` must leave at least 3 rows to train on in every fold, got 2"),
    "flag": ((np.ones((5, 2)), np.ones(5)), {"intercept": "no"}, TypeError, "`intercept` must be True or False"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    args, more, error, match = BAD[name]
    with pytest.raises(error, match=match):
        ridge_path(args, **more)


def test_what_cannot_be_asked_is_named():
    path = ridge_path(data(30, 5, responses=2))
    for asked in (path.best, path.per_response):
        for odd in ("nothing", None, 3, ["loo"]):
            with pytest.raises(ValueError, match=r"`by` must be one of \['aic', .*got "):
                asked(odd)
        with pytest.raises(ValueError, match="'cv' needs folds, got none. Give `folds`"):
            asked("cv")
    with pytest.raises(ValueError, match="'cv' needs folds"):
        _ = path.cv_stderr
    with pytest.raises(ValueError, match="`rule` must be 'min' but for by='cv'.*got 'paired'"):
        path.best("loo", "paired")
    with pytest.raises(ValueError, match=r"best: `rule` must be one of .*got 'no'"):
        ridge_path(data(30, 5), folds=3).best("cv", "no")
    with pytest.raises(
        ValueError, match=r"coef: `lam` must be a number, or one for each of 2 resp.*\[3\]"
    ):
        path.coef([1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="coef: `lam` must be numbers, got None"):
        path.coef(None)
