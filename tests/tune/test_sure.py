"""Stein's estimate: divergences in closed form, and what it promises over draws of the noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr
from jaxreg.tune.sure import sure

KEY = jax.random.key(0)
N = 60
RNG = np.random.default_rng(0)
MEAN = jnp.asarray(np.where(np.arange(N) % 5 == 0, 2.5, 0.0), jnp.float32)
X = jnp.asarray(RNG.normal(size=(N, 20)), jnp.float32)
Y = MEAN + jnp.asarray(RNG.normal(size=N), jnp.float32)


def soft(y, lam=1.0):
    return jr.l1(lam).prox(y, 1.0)


def ridge(y, lam=10.0):
    return X @ jnp.linalg.solve(X.T @ X + lam * jnp.eye(20), X.T @ y)


def hat(lam=10.0):
    x = np.asarray(X, np.float64)
    return x @ np.linalg.solve(x.T @ x + lam * np.eye(20), x.T)


def test_of_soft_thresholding_it_is_the_closed_form():
    found = sure(soft, Y, 1.0)
    kept = np.abs(np.asarray(Y)) > 1
    assert float(found.dof) == kept.sum()
    each = np.where(kept, 1.0, np.asarray(Y, np.float64) ** 2)  # Donoho & Johnstone 1995
    assert float(found.risk) == pytest.approx((each.sum() - N + 2 * kept.sum()) / N, rel=1e-5)
    assert float(found.dof_stderr) == 0


def test_of_ridge_it_is_the_trace_of_the_hat_matrix():
    found, matrix = sure(ridge, Y, 0.8), hat()
    rest = float(((np.asarray(Y) - matrix @ np.asarray(Y)) ** 2).sum())
    assert float(found.dof) == pytest.approx(np.trace(matrix), rel=1e-5)
    assert float(found.risk) == pytest.approx(
        rest / N - 0.64 + 2 * 0.64 * np.trace(matrix) / N, rel=1e-4
    )
    square = 4 * 0.64 * rest + 4 * 0.64**2 * np.trace(matrix @ matrix) - 2 * N * 0.64**2
    assert float(found.stderr) == pytest.approx(np.sqrt(square) / N, rel=1e-4)


def rough(y):
    """Neither linear nor symmetric."""
    return soft(y, 0.7) * 0.8 + 0.1 * jnp.tanh(jnp.roll(y, 1))


@pytest.mark.parametrize("fit", [soft, ridge, rough])
def test_over_draws_it_is_unbiased_and_its_standard_error_true(fit):
    def one(key):
        found = sure(fit, (y := MEAN + jax.random.normal(key, (N,))), 1.0)
        return found.risk - jnp.mean((fit(y) - MEAN) ** 2), found.stderr

    apart, errors = (
        np.asarray(x, np.float64) for x in jax.jit(jax.vmap(one))(jax.random.split(KEY, 2000))
    )
    off = apart.std() / np.sqrt(2000)
    assert abs(apart.mean()) < 3 * off
    assert np.sqrt(np.nanmean(errors**2)) == pytest.approx(apart.std(), rel=0.07)
    assert off < 0.01, "so that it says something"


@pytest.mark.parametrize("fit", [ridge, rough])
def test_probes_are_right_within_what_they_say(fit):
    exact = sure(fit, Y, 1.0)
    with_probes = jax.jit(jax.vmap(lambda key: sure(fit, Y, 1.0, key=key, probes=12)))
    found = with_probes(jax.random.split(KEY, 200))
    apart = np.asarray(found.dof - exact.dof)
    assert abs(apart.mean()) < 3 * apart.std() / np.sqrt(200)
    said = np.sqrt((np.asarray(found.dof_stderr) ** 2).mean())
    assert said == pytest.approx(apart.std(), rel=0.2)
    assert np.median(np.asarray(found.stderr)) == pytest.approx(float(exact.stderr), rel=0.02)
    assert np.isnan(float(sure(fit, Y, 1.0, key=KEY, probes=1).dof_stderr))


def test_many_strengths_at_once_are_each_alone_and_their_best_is_near_the_best():
    lams = jnp.geomspace(0.1, 1000.0, 25)
    mean = ridge(3 * Y, 0.0)  # of the columns
    y = mean + jax.random.normal(KEY, (N,))
    curve = jax.jit(jax.vmap(lambda lam: sure(functools.partial(ridge, lam=lam), y, 1.0)))(lams)
    for i in (0, 12, 24):
        alone = sure(functools.partial(ridge, lam=lams[i]), y, 1.0)
        np.testing.assert_allclose([v[i] for v in curve], alone, rtol=1e-4, atol=1e-5)
    true = np.array([float(jnp.mean((ridge(y, lam) - mean) ** 2)) for lam in lams])
    assert true[int(jnp.argmin(curve.risk))] < 1.1 * true.min()
    assert true.max() > 3 * true.min()


def test_it_goes_through_loops_and_images():
    def lasso(y):  # proximal gradient steps, of which nobody knows how many
        rate = 1 / jnp.linalg.norm(X, 2) ** 2

        def step(state):
            w, _, i = state
            new = jr.l1(4.0).prox(w - rate * X.T @ (X @ w - y), rate)
            return new, jnp.max(jnp.abs(new - w)), i + 1

        going = lambda state: (state[1] > 1e-7) & (state[2] < 5000)
        return X @ jax.lax.while_loop(going, step, (jnp.zeros(20), jnp.inf, 0))[0], None

    w_of = lambda y: lasso(y)[0]
    dof = float(sure(w_of, Y, 1.0).dof)
    assert dof == pytest.approx(round(dof), abs=1e-3), "the size of the support"
    assert 0 < dof < 20
    image = jnp.reshape(Y, (6, 10))
    np.testing.assert_allclose(sure(soft, image, 1.0), sure(soft, Y, 1.0), rtol=1e-6)


def test_it_keeps_the_precision():
    with jax.enable_x64(True):
        y = jnp.asarray(Y, jnp.float64)
        assert {v.dtype for v in sure(soft, y, 1.0)} == {jnp.dtype("float64")}
    assert {v.dtype for v in sure(soft, np.asarray(Y, np.float64), 1.0)} == {jnp.dtype("float32")}
    assert {v.dtype for v in sure(soft, [3, 0, 1], 1.0, key=KEY, probes=2)} == {
        jnp.dtype("float32")
    }


BAD = {
    "fit": ({"fit": 3}, TypeError, "`fit` must be a function of the observations.*got 3"),
    "penalty": ({"fit": jr.l1(1.0)}, TypeError, "`fit` must be a function.*got l1"),
    "two arguments": ({"fit": lambda x, y: y}, TypeError, "`fit` must be a function"),
    "coefficients": ({"fit": lambda y: y[:3]}, ValueError, r"shape of `y`, \[60\], and it returned float32\[3\]"),
    "a pair": ({"fit": lambda y: (y, y)}, ValueError, "it returned a tuple"),
    "words": ({"y": "many"}, TypeError, "`y` must be an array of numbers, got 'many'"),
    "nothing": ({"y": None}, TypeError, "`y` must be an array of numbers, got None"),
    "NaN": ({"y": jnp.full(3, jnp.nan)}, ValueError, "`y` must be finite.*got an array with NaN"),
    "empty": ({"y": np.zeros(0)}, ValueError, "`y` must be finite.*no entry"),
    "no noise": ({"noise": 0.0}, ValueError, "`noise` must be one number above 0.*got 0"),
    "noise in words": ({"noise": "low"}, TypeError, "`noise` must be one number above 0.*got 'low'"),
    "noises": ({"noise": np.ones(3)}, ValueError, "`noise` must be one number"),
    "probes": ({"probes": 0, "key": KEY}, ValueError, "`probes` must be an integer of at least 1, got 0"),
    "no key": ({"probes": 3}, TypeError, "`key` must be one PRNG key.*got"),
    "key": ({"key": 3}, TypeError, "`key` must be one PRNG key.*got 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    more, error, match = BAD[name]
    with pytest.raises(error, match="sure: .*" + match):
        sure(**({"fit": soft, "y": Y, "noise": 1.0} | more))
