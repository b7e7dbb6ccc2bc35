"""Line searches and steps by the value go by J = L + R, and rest at its optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg.coupling import told

H = jnp.array([1.0, 10.0, 100.0])
EXPECTED = np.asarray(H / (H + 10))
REG = jr.l2(10.0)
KEY = jax.random.key(0)
DATA = (jnp.ones((4, 1)),)


def loss(w, x):
    return jnp.sum(H * (w - 1.0) ** 2) / 2 + 0 * jnp.mean(x)


def fitted(optimizer, steps=60, reg=REG):
    def trainer(reg):
        return jr.Trainer(lambda key: jnp.zeros(3), loss, optimizer(reg))

    return np.asarray(jr.fit(trainer, reg, DATA, steps=steps, key=KEY).params)


OPTIMIZERS = {
    "lbfgs": (lambda reg: optax.chain(jr.add_penalty_gradient(reg), optax.lbfgs()), 60),
    "backtracking": (
        lambda reg: optax.chain(
            jr.add_penalty_gradient(reg), optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20)
        ),
        400,
    ),
    "plateau": (
        lambda reg: optax.chain(
            jr.add_penalty_gradient(reg),
            optax.adam(0.02),
            optax.contrib.reduce_on_plateau(patience=100),
        ),
        3000,
    ),
    "a penalty of a schedule": (
        lambda reg: optax.chain(jr.add_penalty_gradient(lambda count: reg), optax.lbfgs()),
        60,
    ),
    "named": (
        lambda reg: optax.named_chain(("r", jr.add_penalty_gradient(reg)), ("o", optax.lbfgs())),
        60,
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_search_behind_an_added_gradient_ends_at_the_optimum_of_the_objective(name):
    optimizer, steps = OPTIMIZERS[name]
    np.testing.assert_allclose(fitted(optimizer, steps), EXPECTED, atol=2e-4)


def test_polyak_s_step_is_told_the_objective():
    """With the least value of J given it goes straight there; with that of the loss it would not."""
    least = float(jnp.sum(H * (EXPECTED - 1) ** 2) / 2 + 5 * jnp.sum(EXPECTED**2))
    of = lambda reg: optax.chain(
        jr.add_penalty_gradient(reg), optax.polyak_sgd(max_learning_rate=0.2, f_min=least)
    )
    np.testing.assert_allclose(fitted(of, 4000), EXPECTED, atol=1e-3)


def test_a_search_is_swept():
    def trainer(reg):
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.lbfgs())
        return jr.Trainer(lambda key: jnp.zeros(3), loss, tx)

    lams = np.array([1.0, 10.0], np.float32)
    result = jr.sweep(
        trainer, jr.grid(jr.l2, lam=lams), DATA, folds=2, steps=40, batch_size=2, key=KEY,
        progress=False,
    )  # fmt: skip
    for k, lam in enumerate(lams):
        np.testing.assert_allclose(result.lane(k), np.asarray(H / (H + lam)), atol=1e-3)


def test_a_penalty_that_is_added_inside_of_a_wrapper_beside_a_search_is_refused():
    inner = lambda reg: optax.chain(jr.add_penalty_gradient(reg), optax.lbfgs())
    with pytest.raises(
        ValueError, match="inside of a wrapper beside what goes by the value.*outside"
    ):
        fitted(lambda reg: optax.masked(inner(reg), True))


def test_what_takes_no_values_is_told_none():
    value, grads, params = jnp.ones(()), jnp.ones(3), jnp.ones(3)
    of = lambda tx: told(tx, tx.init(params), params, value, grads, lambda p: jnp.sum(p))
    assert of(optax.chain(jr.add_penalty_gradient(REG), optax.adam(0.1))) == {}
    given = of(optax.chain(jr.add_penalty_gradient(REG), optax.lbfgs()))
    assert set(given) == {"value", "grad", "value_fn"}
    np.testing.assert_allclose(given["value"], 1 + 15)  # 10 / 2 * |1, 1, 1|^2
    np.testing.assert_allclose(given["grad"], 11.0)
    np.testing.assert_allclose(given["value_fn"](2 * params), 6 + 60)
