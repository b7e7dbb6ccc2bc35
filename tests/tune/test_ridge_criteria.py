"""The criteria of one λ for each group: brute force, densities, differences."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from support.ridge import fitted as of_one
from support.ridge import grouped
from support.ridge import in_groups as data

import jaxreg as jr

SHAPES = [(30, 9), (20, 18), (20, 19), (15, 30)]


def fitted(x, y, kappa, intercept):
    """scikit-learn's, on columns scaled so that one strength is several."""
    scale = 1 / np.sqrt(kappa)
    model = of_one(x * scale, y, 1.0, intercept)
    return lambda new: model.predict(new * scale)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_leave_one_out_is_leaving_each_out(n, p, intercept):
    x, y, group = data(n, p, responses=2)
    lam = np.array([0.05, 0.4, 2.0])
    got = grouped(x, y, group, "loo", intercept).at(np.log(lam))
    rows = []
    for i in range(n):
        rest = np.arange(n) != i
        predict = fitted(x[rest], y[rest], (n - 1) * lam[group], intercept)
        rows.append(0.5 * np.mean((predict(x[i : i + 1])[0] - y[i]) ** 2))
    assert got.score == pytest.approx(np.mean(rows), rel=1e-9)
    assert got.stderr == pytest.approx(np.std(rows, ddof=1) / np.sqrt(n), rel=1e-8)


@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_the_evidence_is_the_density_of_the_targets(n, p):
    x, y, group = data(n, p, responses=2)
    lam = np.array([0.05, 0.4, 2.0])
    told = grouped(x, y, group, "evidence", False).at(np.log(lam)).score
    spread = np.eye(n) + (x / (n * lam[group])) @ x.T
    densities = []
    for target in y.T:
        noise = target @ np.linalg.solve(spread, target) / n  # the best one
        densities.append(multivariate_normal.logpdf(target, np.zeros(n), noise * spread))
    assert told == pytest.approx(-sum(densities) / n, rel=1e-10)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("by", ["loo", "evidence"])
@pytest.mark.parametrize(("n", "p"), SHAPES)
def test_the_gradient_is_that_of_differences_and_dof_that_of_the_hat_matrix(n, p, by, intercept):
    x, y, group = data(n, p, responses=2)
    problem = grouped(x, y, group, by, intercept)
    theta = np.array([-2.0, -0.5, 1.0])
    got = problem.at(theta)
    step = 1e-5
    slopes = [
        (problem.at(theta + step * e).score - problem.at(theta - step * e).score) / (2 * step)
        for e in np.eye(3)
    ]
    np.testing.assert_allclose(got.gradient, slopes, rtol=1e-6, atol=1e-8)
    kappa = (n - (by == "loo")) * np.exp(theta)[group]
    middle = x.mean(0) if intercept else 0
    s = (x - middle).T @ (x - middle)
    each = np.diag(np.linalg.solve(s + np.diag(kappa), s))
    np.testing.assert_allclose(got.dof, np.bincount(group, each), rtol=1e-7)
    predict = fitted(x, y, kappa, intercept)
    np.testing.assert_allclose(x @ got.w + got.b, predict(x), rtol=1e-7)


def test_with_one_strength_they_are_those_of_the_path():
    x, y, group = data(30, 9)
    path = jr.ridge_path((x, y), [0.3])
    for by, told in (("loo", path.loo[0, 0]), ("evidence", -path.evidence[0, 0] / 30)):
        assert grouped(x, y, group, by).at(np.log([0.3] * 3)).score == pytest.approx(
            told, rel=1e-10
        )
