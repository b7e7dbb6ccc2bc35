"""The certificate is 0 at the optimum, and shows every way of missing it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Lasso
from support.mutants import Kinked

import jaxreg as jr

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 8))
Y = X @ np.array([2, -1.5, 0, 0, 1, 0, 0, -0.3]) + 0.3 * RNG.normal(size=60)
X32, Y32 = jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32)
REG = jr.l1(0.3)
CLIP, ADAM = optax.clip_by_global_norm(0.2), optax.scale_by_adam()


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def trained(tx, steps=6000):
    def step(carry, _):
        w, state = carry
        updates, state = tx.update(jax.grad(loss)(w, X32, Y32), state, w)
        return (optax.apply_updates(w, updates), state), None

    return jax.lax.scan(step, (jnp.zeros(8), tx.init(jnp.zeros(8))), None, steps)[0][0]


def test_it_is_zero_at_scikit_learn_s_lasso():
    w = jnp.asarray(Lasso(0.3, fit_intercept=False, tol=1e-14).fit(X, Y).coef_, jnp.float32)
    found = jr.stationarity(loss, w, REG, X32, Y32)
    assert found.relative < 1e-5
    assert jr.stationarity(loss, w, jr.l1(0.1), X32, Y32).relative > 0.1


def test_it_is_the_least_element_by_brute_force():
    w = jnp.array([0.5, 0.0, -0.2, 0.0, 0.0, 1.0, 0.0, 0.0])
    grad = np.asarray(jax.grad(loss)(w, X32, Y32), float)
    grid = np.linspace(-0.3, 0.3, 2001)
    least = [
        np.abs(g + 0.3 * np.sign(v)) if v != 0 else np.abs(g + grid).min() for g, v in zip(grad, w)
    ]
    found = jr.stationarity(loss, w, REG, X32, Y32)
    np.testing.assert_allclose(found.distance, np.linalg.norm(least), rtol=1e-3)
    np.testing.assert_allclose(
        found.relative, np.linalg.norm(least) / np.linalg.norm(grad), rtol=1e-3
    )


@pytest.mark.parametrize("norm", [0.05, 0.2, 5.0])
def test_a_lasso_under_every_clip_that_moves_at_all_ends_at_one_in_a_million(norm):
    direction = optax.chain(optax.clip_by_global_norm(norm), ADAM)
    rate = lambda count: 0.02 * 0.999 ** jnp.maximum(count - 4000, 0)
    w = trained(jr.proximal(direction, REG, rate), 9000)
    assert jr.stationarity(loss, w, REG, X32, Y32).relative < 2e-6


def test_in_double_precision_the_certificate_of_a_clipped_lasso_is_zero_but_for_rounding():
    with jax.enable_x64(True):
        x, y = jnp.asarray(X), jnp.asarray(Y)
        direction = optax.chain(optax.clip_by_global_norm(0.2), optax.scale_by_adam())
        rate = lambda count: 0.02 * 0.999 ** jnp.maximum(count - 4000, 0)
        tx = jr.proximal(direction, jr.l1(0.3), rate)

        def step(carry, _):
            w, state = carry
            updates, state = tx.update(jax.grad(loss)(w, x, y), state, w)
            return (optax.apply_updates(w, updates), state), None

        w = jax.lax.scan(step, (jnp.zeros(8), tx.init(jnp.zeros(8))), None, 9000)[0][0]
        assert jr.stationarity(loss, w, jr.l1(0.3), x, y).relative < 1e-10


WRONG = {
    "a clip before the prox": (optax.chain(CLIP, jr.proximal(ADAM, REG, 0.02)), 6000),
    "a clip before the added gradient": (
        optax.chain(CLIP, jr.add_penalty_gradient(REG), optax.adam(0.02)),
        6000,
    ),
    "too few steps": (jr.proximal(ADAM, REG, 0.02), 20),
    "decoupled": (jr.decoupled(ADAM, REG, 0.02), 6000),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_rests_elsewhere_shows(name):
    assert jr.stationarity(loss, trained(*WRONG[name]), REG, X32, Y32).relative > 0.05


def test_the_parts_of_leaves_add_up_and_lanes_are_one_program():
    params = {"w": jnp.ones((3, 8)), "b": jnp.zeros(3), "step": jnp.zeros((), jnp.int32)}
    reg = jr.l1(0.1).on("w")
    of = lambda p, x: jnp.mean((x @ p["w"].T + p["b"] - 1) ** 2)
    found = jr.stationarity(of, params, reg, X32)
    assert set(found.leaves) == {"w", "b"}
    np.testing.assert_allclose(
        sum(v**2 for v in found.leaves.values()), found.distance**2, rtol=1e-5
    )
    many = jax.vmap(lambda w, lam: jr.stationarity(loss, w, jr.l1(lam), X32, Y32))
    ws, lams = jnp.asarray(RNG.normal(size=(5, 8)), jnp.float32), jnp.linspace(0.1, 1, 5)
    single = [jr.stationarity(loss, w, jr.l1(lam), X32, Y32).distance for w, lam in zip(ws, lams)]
    np.testing.assert_allclose(jax.jit(many)(ws, lams).distance, single, rtol=1e-5)


def test_a_module_with_functions():
    net = eqx.nn.MLP(8, 1, 4, 1, key=jax.random.key(0))
    of = lambda net, x: jnp.mean(jax.vmap(net)(x) ** 2)
    found = jr.stationarity(of, net, jr.l2(0.1).on(jr.kernels), X32)
    assert found.distance > 0
    assert "layers/0/weight" in found.leaves
    # A rate is a number that a module holds, and no parameter.
    module = eqx.nn.Sequential([net.layers[0], eqx.nn.Dropout(0.5, inference=True)])
    of = lambda net, x: jnp.mean(jax.vmap(net)(x) ** 2)
    assert set(jr.stationarity(of, module, jr.l2(0.1).on(jr.kernels), X32).leaves) == {
        "layers/0/weight", "layers/0/bias",
    }  # fmt: skip
    assert jr.l2(1.0).on(~jr.biases)(module) == jr.l2(1.0).on(jr.kernels)(module)
    with pytest.raises(TypeError, match="l2: the leaf 'layers/1/p' is"):
        jr.l2(1.0)(module)
    assert jr.l2(1.0).on(jr.kernels)(module) == jr.l2(1.0)(net.layers[0].weight)


@pytest.mark.parametrize(
    ("penalty", "error", "match"),
    [
        (X32, TypeError, r"`penalty` must be.*stationarity\(loss, params, penalty, \*batch\)"),
        (Kinked(0.1), ValueError, "`kink` is not defined, so its subdifferential is unknown"),
    ],
)
def test_bad_input_is_refused(penalty, error, match):
    with pytest.raises(error, match=match):
        jr.stationarity(loss, jnp.ones(8), penalty, X32, Y32)
