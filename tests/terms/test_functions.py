"""Terms on functions against closed forms of linear maps and small nets, and against dense Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg import terms

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
X = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)
A = jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32)


def net(x):
    return jnp.tanh(x @ A) @ jnp.array([1.0, -2.0, 0.5])


def slopes(fun):
    return np.stack([np.asarray(jax.jacfwd(fun)(x[None])[0, 0]) for x in X])


def test_gradient_penalties_are_those_of_each_row():
    norms = np.linalg.norm(slopes(net), axis=1)
    assert norms.std() > 0.1
    np.testing.assert_allclose(
        terms.gradient_penalty(2.0)(net, X), 2 * np.mean((norms - 1) ** 2), rtol=1e-5
    )
    np.testing.assert_allclose(
        terms.gradient_penalty(1.0, 0.0)(net, X), np.mean(norms**2), rtol=1e-5
    )
    np.testing.assert_allclose(terms.r1(3.0)(net, X), 1.5 * np.mean(norms**2), rtol=1e-5)
    column = lambda x: net(x)[:, None]
    np.testing.assert_allclose(terms.r1(3.0)(column, X), terms.r1(3.0)(net, X), rtol=1e-6)
    flat = jax.grad(lambda a: terms.gradient_penalty(1.0)(lambda x: x @ (0 * a), X))(jnp.ones(4))
    assert np.isfinite(flat).all(), "a slope of 0 has no derivative, and no NaN"


def test_parameters_get_the_derivative_of_a_slope():
    """Of f = w x: (|w| - 1)² has the derivative 2 (|w| - 1) w / |w|."""
    w = jnp.array([3.0, 0.0, 4.0, 0.0])
    got = jax.grad(lambda w: terms.gradient_penalty(1.0)(lambda x: x @ w, X))(w)
    np.testing.assert_allclose(got, 2 * 4 * w / 5, rtol=1e-5)


def test_the_jacobian_is_estimated_without_bias():
    whole = lambda x: jnp.tanh(x @ A)
    exact = np.mean([np.square(jax.jacfwd(lambda r: whole(r[None])[0])(x)).sum() for x in X])
    draws = jax.vmap(lambda k: terms.jacobian(1.0)(whole, X, k))(jax.random.split(KEY, 3000))
    np.testing.assert_allclose(draws.mean(), exact, rtol=0.03)
    many = terms.jacobian(2.0, probes=2000)(whole, X, KEY)
    np.testing.assert_allclose(many, 2 * exact, rtol=0.05)
    np.testing.assert_allclose(
        terms.jacobian(1.0)(net, X, KEY), np.mean(np.square(slopes(net)).sum(1)), rtol=1e-5
    )


def test_curvature_is_a_trace():
    h = np.asarray(RNG.normal(size=(6, 6)))
    h = jnp.asarray(h @ h.T, jnp.float32)
    bowl = lambda p: 0.5 * jnp.concatenate([p["a"], p["b"]]) @ h @ jnp.concatenate([p["a"], p["b"]])
    params = {"a": jnp.ones(2), "b": jnp.ones(4)}
    draws = jax.vmap(lambda k: terms.curvature(1.0)(bowl, params, k))(jax.random.split(KEY, 4000))
    np.testing.assert_allclose(draws.mean(), jnp.trace(h), rtol=0.03)
    diagonal = lambda p: 0.5 * jnp.sum(jnp.arange(1.0, 4) * p**2)
    np.testing.assert_allclose(terms.curvature(0.5)(diagonal, jnp.ones(3), KEY), 3.0, rtol=1e-6)


def test_the_adversarial_step_is_the_worst_of_its_length():
    """Two classes along one direction: the worst step is along it, to second order."""
    w = jnp.array([2.0, 0.0, 0.0, 0.0])
    logits = lambda x: jnp.stack([x @ w, 0 * x[:, 0]], 1)
    x, radius = 0.1 * X, 0.2
    found = terms.adversarial(1.0, radius, steps=3)(logits, x, KEY)

    def apart(sign):
        p, q = (jax.nn.log_softmax(logits(a), -1) for a in (x, x + sign * radius * jnp.eye(4)[0]))
        return jnp.sum(jnp.exp(p) * (p - q), -1)

    best = jnp.maximum(apart(1.0), apart(-1.0))
    np.testing.assert_allclose(found, best.mean(), rtol=0.05)
    aside = jax.random.normal(KEY, (200, *x.shape))
    aside = radius * aside / jnp.linalg.norm(aside, axis=-1, keepdims=True)
    p = jax.nn.log_softmax(logits(x), -1)
    of = lambda r: jnp.mean(jnp.sum(jnp.exp(p) * (p - jax.nn.log_softmax(logits(x + r), -1)), -1))
    assert found > jnp.quantile(jax.vmap(of)(aside), 0.99)
    # The step is held: parameters get no derivative through it, and the first prediction none.
    assert np.isfinite(
        jax.grad(lambda c: terms.adversarial(1.0, radius)(lambda x: c * logits(x), x, KEY))(1.0)
    )


def test_the_product_of_spectral_norms_and_its_derivative():
    sigmas = {"a": jnp.array(2.0), "b": {"kernel": jnp.array(3.0), "bias": None}}
    value, slope = jax.value_and_grad(terms.lipschitz(0.5))(sigmas)
    np.testing.assert_allclose(value, 3.0, rtol=1e-6)
    assert (slope["a"].item(), slope["b"]["kernel"].item()) == (1.5, 1.0)
    off = jax.grad(terms.lipschitz(1.0))({"a": jnp.array(0.0), "b": jnp.array(3.0)})
    assert (off["a"].item(), off["b"].item()) == (3.0, 0.0), "finite where a layer is 0"
    narrow = terms.lipschitz(1.0)([jnp.array(3.0, jnp.bfloat16), jnp.array([2.0, 5.0])])
    assert (narrow.dtype, narrow.item()) == (jnp.float32, 30.0)


def test_predictions():
    a, b = (jnp.asarray(RNG.normal(size=(6, 3))) for _ in range(2))
    np.testing.assert_allclose(
        terms.consistency(2.0)(a, b), 2 * np.mean(np.square(a - b).sum(1)), rtol=1e-5
    )
    to_b = jax.grad(lambda b: terms.consistency(1.0)(a, b))(b)
    assert not to_b.any(), "the target is held"
    p = np.exp(a) / np.exp(a).sum(1, keepdims=True)
    h = -(p * np.log(p)).sum(1).mean()
    np.testing.assert_allclose(terms.entropy(3.0)(a), 3 * h, rtol=1e-5)
    np.testing.assert_allclose(terms.confidence(3.0)(a), -3 * h, rtol=1e-5)


def test_points_between_lie_on_the_lines():
    real, made = X, X + jnp.arange(1.0, 5)
    t = (terms.between(real, made, KEY) - real) / (made - real)
    np.testing.assert_allclose(t, np.broadcast_to(t[:, :1], t.shape), rtol=1e-4)
    assert len(set(np.asarray(t[:, 0]).tolist())) == 5
    assert ((t >= 0) & (t <= 1)).all()


def test_more_rows_change_no_mean_and_strengths_are_swept():
    twice = jnp.concatenate([X, X])
    for term in (terms.gradient_penalty(1.0), terms.r1(1.0)):
        np.testing.assert_allclose(term(net, twice), term(net, X), rtol=1e-5)
        lanes = jax.vmap(lambda lam, term=term: (lam * term)(net, X))(jnp.array([0.0, 1.0, 2.0]))
        np.testing.assert_allclose(lanes, np.array([0, 1, 2]) * term(net, X), rtol=1e-5)


BAD = [
    (lambda: terms.r1(1.0)(3, X), TypeError, "r1: `fun` must be a function of the inputs.*got 3"),
    (lambda: terms.r1(1.0)(lambda x: x, X), ValueError, r"`fun` must give one number for each row.*\[5, 4\]"),
    (lambda: terms.r1(1.0)(lambda x: x.sum(), X), ValueError, "must give outputs for each of 5 rows"),
    (lambda: terms.jacobian(1.0)(net, X, 3), TypeError, "jacobian: `key` must be one PRNG key.*got 3"),
    (lambda: terms.jacobian(1.0, 0), ValueError, "`probes` must be an integer of at least 1, got 0"),
    (lambda: terms.curvature(1.0, 1.5), ValueError, "`probes` must be an integer of at least 1, got 1.5"),
    (lambda: terms.adversarial(1.0, 0.0), ValueError, "`radius` must be > 0"),
    (lambda: terms.adversarial(1.0, 0.1)(net, X, KEY), ValueError, r"`fun` must give logits \[rows, classes\]"),
    (lambda: terms.consistency(1.0)(X, X[:2]), ValueError, "`target` must have the shape of `predicted`"),
    (lambda: terms.entropy(1.0)(X[0]), ValueError, "`logits` must be an array"),
    (lambda: terms.lipschitz(1.0)({"a": None}), ValueError, "lipschitz: `sigmas` must be spectral norms"),
    (lambda: terms.lipschitz(1.0)("x"), TypeError, "lipschitz: `sigmas` must be an array.*got a str"),
    (lambda: terms.between(X, X[:2], KEY), ValueError, "`made` must have the shape of `real`"),
    (lambda: terms.between(X, 3, KEY), TypeError, "`real` and `made` must be arrays"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "match"), BAD)
def test_what_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
