"""Terms of variational autoencoders against scipy's entropies, sampling, and dense formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize, special, stats

from jaxreg import terms

RNG = np.random.default_rng(0)
MEAN, LOG_VAR = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 3))


@pytest.mark.parametrize(("m", "v", "m0", "v0"), [(0.3, 0.5, 0.0, 1.0), (-1.0, 2.0, 0.4, 0.7)])
def test_normal_is_the_integral(m, v, m0, v0):
    p, q = stats.norm(m, np.sqrt(v)), stats.norm(m0, np.sqrt(v0))
    integral, _ = integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -30, 30)
    np.testing.assert_allclose(terms.kl_normal(m, np.log(v), m0, np.log(v0)), integral, rtol=1e-5)


def test_categorical_and_bernoulli_are_scipys_relative_entropy():
    a, b = RNG.normal(size=(2, 4, 5))
    p, q = special.softmax(a, -1), special.softmax(b, -1)
    np.testing.assert_allclose(
        terms.kl_categorical(a, b), special.rel_entr(p, q).sum(-1), rtol=1e-5
    )
    uniform = special.rel_entr(p, np.full(5, 0.2)).sum(-1)
    np.testing.assert_allclose(terms.kl_categorical(a), uniform, rtol=1e-5)
    s = special.expit(a)
    expected = special.rel_entr(s, 0.3) + special.rel_entr(1 - s, 0.7)
    np.testing.assert_allclose(terms.kl_bernoulli(a, 0.3), expected, rtol=1e-5)


EACH = 0.5 * (np.exp(LOG_VAR) + MEAN**2 - 1 - LOG_VAR)


def test_rates_are_means_over_rows_of_sums_over_latents():
    given = jnp.asarray(MEAN), jnp.asarray(LOG_VAR)
    rate = EACH.sum(1).mean()
    np.testing.assert_allclose(terms.kl(2.0)(*given), 2 * rate, rtol=1e-6)
    twice = tuple(jnp.concatenate([x, x]) for x in given)
    np.testing.assert_allclose(terms.kl(2.0)(*twice), 2 * rate, rtol=1e-6)
    bits = np.median(EACH.mean(0))
    free = np.maximum(EACH.mean(0), bits).sum()
    assert free > rate + 1e-3
    np.testing.assert_allclose(terms.free_bits(1.0, bits)(*given), free, rtol=1e-6)
    np.testing.assert_allclose(terms.free_bits(1.0, 0.0)(*given), rate, rtol=1e-6)
    for target in (0.5 * rate, 2 * rate):
        got = terms.capacity(3.0, target)(*given)
        np.testing.assert_allclose(got, 3 * abs(rate - target), rtol=1e-5)


def test_latents_with_free_bits_left_have_no_gradient():
    slope = jax.grad(lambda m: terms.free_bits(1.0, 100.0)(m, jnp.asarray(LOG_VAR)))(
        jnp.asarray(MEAN)
    )
    assert not slope.any()


def test_total_correlation_is_that_of_gaussians():
    """Codes around correlated means: -1/2 log det of their correlations, and the batch's log M above it."""
    rng, n, rho = np.random.default_rng(3), 1500, 0.8
    means = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=n)
    noise = 0.3
    z = means + noise * rng.normal(size=means.shape)
    given = (jnp.asarray(x) for x in (z, means, np.full_like(means, 2 * np.log(noise))))
    got = terms.total_correlation(1.0, rows=n)(*given)
    cov = np.array([[1 + noise**2, rho], [rho, 1 + noise**2]])
    exact = -0.5 * np.log(np.linalg.det(cov) / np.prod(np.diag(cov)))
    assert float(got) - np.log(n) == pytest.approx(exact, abs=0.05)


def dense_kl(mean, variance, alpha):
    """KL of N(mean, diag(variance)) from the Gaussian of covariance alpha^|i - j|."""
    t = len(mean)
    cov = alpha ** np.abs(np.subtract.outer(np.arange(t), np.arange(t))) if alpha else np.eye(t)
    inverse = np.linalg.inv(cov)
    log_dets = np.linalg.slogdet(cov)[1] - np.log(variance).sum()
    return 0.5 * ((np.diag(inverse) * variance).sum() + mean @ inverse @ mean - t + log_dets)


def sequences(times):
    rng = np.random.default_rng(times)
    return rng.normal(size=(4, times, 2)), rng.normal(size=(4, times, 2))


@pytest.mark.parametrize("alpha", [0.0, 0.5, -0.9, 0.99])
@pytest.mark.parametrize("times", [1, 2, 6])
def test_the_rate_of_a_sequence_is_that_of_its_dense_covariance(alpha, times):
    mean, log_var = sequences(times)
    each = [
        [dense_kl(mean[i, :, j], np.exp(log_var[i, :, j]), alpha) for j in (0, 1)] for i in range(4)
    ]
    term = terms.kl_ar(2.0, alpha)
    given = jnp.asarray(mean), jnp.asarray(log_var)
    rate = 2 * np.sum(each, 1).mean()
    np.testing.assert_allclose(term(*given), rate, rtol=2e-5)
    np.testing.assert_allclose(jax.jit(lambda t, *given: t(*given))(term, *given), rate, rtol=2e-5)


def test_latents_may_have_correlations_of_their_own_and_they_are_swept():
    mean, log_var = sequences(6)
    given = jnp.asarray(mean), jnp.asarray(log_var)
    alphas = (0.3, -0.8)
    rate = np.mean(
        [
            sum(dense_kl(mean[i, :, j], np.exp(log_var[i, :, j]), alphas[j]) for j in (0, 1))
            for i in range(4)
        ]
    )
    np.testing.assert_allclose(terms.kl_ar(1.0, jnp.array(alphas))(*given), rate, rtol=2e-5)
    lanes = jax.vmap(lambda a: terms.kl_ar(1.0, a)(*given))(jnp.array(alphas))
    np.testing.assert_allclose(lanes, [terms.kl_ar(1.0, a)(*given) for a in alphas], rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.4, -0.9])
@pytest.mark.parametrize("times", [1, 2, 3, 7])
def test_the_committed_rate_is_the_least_there_is(alpha, times):
    def rate(x):
        return dense_kl(x[:times], np.exp(x[times:]), alpha)

    start = np.random.default_rng(times).normal(size=2 * times)
    least = optimize.minimize(rate, start, method="BFGS", options={"gtol": 1e-8}).fun
    np.testing.assert_allclose(terms.committed_rate(alpha, times), least, rtol=1e-5, atol=1e-6)


def test_the_least_rate_is_reached_and_correlations_are_swept():
    ends, between = 1 - 0.6**2, (1 - 0.6**2) / (1 + 0.6**2)
    log_var = jnp.log(jnp.array([ends, between, between, ends]))[None, :, None]
    reached = terms.kl_ar(1.0, 0.6)(jnp.zeros((1, 4, 1)), log_var)
    np.testing.assert_allclose(reached, terms.committed_rate(0.6, 4), rtol=1e-5)
    many = jnp.array([0.0, 0.6, -0.6])
    each = [terms.committed_rate(a, 4) for a in many]
    np.testing.assert_allclose(
        jax.vmap(lambda a: terms.committed_rate(a, 4))(many), each, rtol=1e-6
    )
    np.testing.assert_allclose(terms.committed_rate(many, 4), each, rtol=1e-6)


def test_mmd_is_its_sum_over_pairs_and_tells_distributions_apart():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(6, 2)), rng.normal(size=(6, 2)) + 1
    total = 0.0
    for factor in (0.1, 0.2, 0.5, 1, 2, 5, 10):
        c = 2 * 2 * factor
        k = lambda x, y, c=c: c / (c + ((x - y) ** 2).sum())
        same = sum(k(x[i], x[j]) for x in (a, b) for i in range(6) for j in range(6) if i != j) / 30
        total += same - 2 * np.mean([[k(x, y) for y in b] for x in a])
    np.testing.assert_allclose(terms.mmd(1.0)(jnp.asarray(a), jnp.asarray(b)), total, rtol=1e-4)
    draws = lambda shift: jnp.asarray(rng.normal(size=(400, 2)) + shift)
    alike, apart = (float(terms.mmd(1.0)(draws(0.0), draws(s))) for s in (0.0, 1.0))
    assert abs(alike) < 0.05 < 0.5 < apart


def test_a_mean_over_pixels_multiplies_beta():
    """The minimiser of mean-over-pixels + β KL is that of the sum over pixels + β D KL."""
    assert float(terms.effective_beta(0.5, 64)) == 32


BAD = [
    (
        lambda: terms.kl()(jnp.ones((2, 3)), jnp.ones((2, 2))),
        "`mean` and `log_var` must be .rows, latents.",
    ),
    (
        lambda: terms.kl()(jnp.ones((2, 3, 1)), jnp.ones((2, 3, 1))),
        "must be .rows, latents., all of one shape",
    ),
    (
        lambda: terms.kl_ar(1.0, 1.0),
        "kl_ar: `alpha` must be between -1 and 1, both excluded, got 1",
    ),
    (lambda: terms.committed_rate(-2.0, 3), "committed_rate: `alpha` must be between.*got -2"),
    (lambda: terms.committed_rate(0.5, 0), "`times` must be an integer of at least 1, got 0"),
    (
        lambda: terms.kl_ar(1.0, 0.5)(jnp.ones((2, 3)), jnp.ones((2, 3))),
        r"kl_ar: `mean` must be an array .rows, times, latents..*got shape \[2, 3\]",
    ),
    (
        lambda: terms.kl_ar(1.0, 0.5)(jnp.ones((2, 3, 1)), jnp.ones((2, 3, 2))),
        r"of one shape, got mean \[2, 3, 1\], log_var \[2, 3, 2\]",
    ),
    (
        lambda: terms.kl_ar(1.0, jnp.zeros(3))(jnp.ones((2, 3, 2)), jnp.ones((2, 3, 2))),
        r"`alpha` must be one number, or one for each of 2 latents, got shape \[3\]",
    ),
    (lambda: terms.free_bits(1.0, -1.0), "`bits` must be >= 0"),
    (lambda: terms.capacity(1.0, -1.0), "`target` must be >= 0"),
    (lambda: terms.total_correlation(1.0, 0), "`rows` must be > 0"),
    (lambda: terms.mmd(1.0, 0.0), "`scale` must be > 0"),
    (lambda: terms.effective_beta(1.0, 0), "`pixels` must be the number of pixels of a row"),
]


@pytest.mark.parametrize(("call", "match"), BAD)
def test_what_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
