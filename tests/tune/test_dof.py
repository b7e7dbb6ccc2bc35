"""Degrees of freedom against refits to moved targets, supports, closed forms and Hessians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats
from scipy.special import expit, log_softmax
from support.minima import (
    LABELS,
    LOSSES,
    PENALTIES,
    N,
    P,
    X,
    Y,
    half_square,
    linear,
    on,
    solved,
    solver,
)  # fmt: skip

import jaxreg as jr
from jaxreg.tune.criteria import criteria
from jaxreg.tune.leave_one_out import leave_one_out


@pytest.mark.parametrize("name", PENALTIES)
def test_degrees_of_freedom_are_the_divergence_of_refits(name):
    """Each target is moved to either side and the model fitted again: the definition itself."""
    make, lam, by = PENALTIES[name], 0.15, 1e-5
    found = criteria(linear, solved(half_square, make, [lam]), (X, Y))
    with jax.enable_x64(True):
        moved = np.concatenate([Y + by * np.eye(N), Y - by * np.eye(N)])
        fits = np.asarray(
            jax.vmap(linear, (0, None))(solver(half_square, make)[1](lam, X, moved), X)
        )
    divergence = np.diagonal(fits[:N] - fits[N:]).sum() / (2 * by)
    assert found.dof[0, 0] == pytest.approx(divergence, abs=1e-4)
    assert 1.5 < divergence < P + 1


def test_of_the_lasso_they_are_the_support_and_of_fused_ones_the_stretches():
    lams = [0.05, 0.15, 0.4]
    lasso = solved(half_square, PENALTIES["l1"], lams)
    support = 1 + (lasso.params["kernel"][:, 0, 0] != 0).sum(1)
    np.testing.assert_allclose(criteria(linear, lasso, (X, Y)).dof[:, 0], support, rtol=1e-10)
    assert len(set(support)) == 3
    fused = solved(half_square, PENALTIES["fused lasso"], lams)
    w = fused.params["kernel"][:, 0, 0]
    stretches = 1 + ((w != 0) & (np.diff(w, prepend=np.nan) != 0)).sum(1)
    np.testing.assert_allclose(criteria(linear, fused, (X, Y)).dof[:, 0], stretches, rtol=1e-10)


def test_where_nothing_is_free_there_are_none():
    """Beyond the largest λ that leaves anything, without an intercept."""
    loss = lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2)
    told, start = [float(loss(np.zeros(P), X, Y))], np.zeros((1, 1, 1, P))
    result = jr.SweepResult.of(jr.grid(jr.l1, lam=[10.0]), told, train=told, params=start)
    found = criteria(lambda w, x: x @ w, result, (X, Y))
    assert found.dof[0, 0] == 0
    assert found.bic[0, 0] == pytest.approx(N * np.log((Y**2).mean()))
    left = leave_one_out(lambda w, x: x @ w, result, (X, Y))
    np.testing.assert_allclose(left.rows[0, 0], 0.5 * Y**2)


def test_columns_that_are_twice_there_count_once():
    lams = [0.05, 0.15]
    once = solved(half_square, PENALTIES["l1"], lams)
    twice = solved(half_square, PENALTIES["l1"], lams, np.hstack([X, X]))
    both = (twice.params["kernel"][:, 0, 0] != 0).sum(1)
    found = [criteria(linear, r, (x, Y)).dof for r, x in ((once, X), (twice, np.hstack([X, X])))]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-8)
    assert (both > found[1][:, 0]).all(), "so that it says something"


def test_of_ridge_everything_is_that_of_its_closed_form():
    lams = [0.01, 0.1, 1.0]
    found = criteria(linear, solved(half_square, PENALTIES["l2"], lams), (X, Y))
    path = jr.ridge_path((X, Y), lams)
    np.testing.assert_allclose(found.dof[:, 0], path.dof, rtol=1e-6)
    np.testing.assert_allclose(found.aic, path.aic, rtol=1e-6)
    np.testing.assert_allclose(found.bic, path.bic, rtol=1e-6)
    np.testing.assert_allclose(found.ebic, found.bic, rtol=1e-12, err_msg="it selects nothing")


def hessian(loss, params, y):
    """On the entries that are not 0, which of them the penalty holds, and their numbers."""
    with jax.enable_x64(True):
        flat, back = ravel_pytree(jax.tree.map(jnp.asarray, params))
        held = {"kernel": jnp.ones_like(params["kernel"]), "bias": jnp.zeros_like(params["bias"])}
        kept = np.flatnonzero(np.asarray(flat) != 0)
        bend = np.asarray(jax.hessian(lambda t: loss(back(t), X, y))(flat))
        return bend[np.ix_(kept, kept)], np.asarray(ravel_pytree(held)[0])[kept], kept


def log_likelihood(name, f, y):
    if name == "categorical":
        return log_softmax(f, 1)[np.arange(len(y)), y]
    return (
        stats.bernoulli.logpmf(y, expit(f))
        if name == "bernoulli"
        else stats.poisson.logpmf(y, np.exp(f))
    )


@pytest.mark.parametrize("name", LABELS)
def test_of_other_likelihoods_they_are_of_the_hessians(name):
    y, m = LABELS[name], 3 if name == "categorical" else None
    make = on(lambda lam: jr.elastic_net(lam, 0.5))
    result = solved(LOSSES[name], make, [0.03, 0.3], y=y, m=m, rate=0.05)
    found = criteria(linear, result, (X, y), likelihood=name)
    for k, lam in enumerate([0.03, 0.3]):
        params = result.lane(k)
        bend, held, kept = hessian(LOSSES[name], params, y)
        whole = np.linalg.pinv(bend + 0.5 * lam * np.diag(held), rcond=1e-10)
        assert found.dof[k, 0] == pytest.approx(np.trace(bend @ whole), rel=1e-6)
        f = X @ params["kernel"] + params["bias"]
        deviance = -2 * log_likelihood(name, f, y).sum()
        assert found.deviance[k, 0] == pytest.approx(deviance, rel=1e-6)
        assert found.aic[k, 0] == pytest.approx(deviance + 2 * found.dof[k, 0], rel=1e-6)
        assert found.bic[k, 0] == pytest.approx(deviance + np.log(N) * found.dof[k, 0], rel=1e-6)
    assert np.isnan(found.cp).all()
    assert kept.size < P * (m or 1) + (m or 1), "some are 0"
