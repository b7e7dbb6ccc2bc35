"""Steps that rounding would lose happen, and parameters stay in the dtype they have."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr

HALF = jnp.bfloat16
PARAMS = {"kernel": jnp.ones(3, HALF), "bias": jnp.ones(2)}
ZERO = jax.tree.map(jnp.zeros_like, PARAMS)
CASES = {
    "decoupled l2": (jr.decoupled(optax.scale_by_adam(), jr.l2(0.1), 1e-2), 0.999**1000),
    "added l2": (optax.chain(jr.add_penalty_gradient(jr.l2(0.1)), optax.sgd(1e-2)), 0.999**1000),
    "proximal l1": (jr.proximal(optax.identity(), jr.l1(0.1), 1e-2), 0.0),
}


def after(tx, steps, params=PARAMS, grads=ZERO):
    def step(carry, _):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), None, steps)[0]


@pytest.mark.parametrize("name", CASES)
def test_a_thousand_steps_of_a_tenth_of_a_percent(name):
    tx, expected = CASES[name]
    assert after(tx, 1000)[0]["kernel"][0] == 1, "as it is without"
    params, _ = after(jr.compensated(tx), 1000 if expected else 1010)
    assert params["kernel"].dtype == HALF
    np.testing.assert_allclose(np.asarray(params["kernel"], float), expected, rtol=4e-3)
    np.testing.assert_allclose(params["bias"], expected, rtol=1e-3, atol=1e-5)
    if expected == 0:
        assert not params["kernel"].any()


def test_it_goes_the_way_of_float32_parameters():
    rng = np.random.default_rng(0)
    start = {"kernel": jnp.asarray(rng.normal(size=50), HALF), "bias": jnp.ones(2)}
    grads = jax.tree.map(lambda x: 0.01 * jnp.ones_like(x), start)
    tx = optax.chain(jr.add_penalty_gradient(jr.l2(0.1)), optax.adam(1e-4))
    params, state = after(jr.compensated(tx), 500, start, grads)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), start)
    exact, _ = after(tx, 500, wide, jax.tree.map(lambda x: x.astype(jnp.float32), grads))
    whole = np.asarray(params["kernel"], float) + np.asarray(state.lost["kernel"], float)
    np.testing.assert_allclose(whole, exact["kernel"], rtol=1e-3, atol=1e-4)
    alone = np.asarray(after(tx, 500, start, grads)[0]["kernel"], float)
    assert np.abs(alone - exact["kernel"]).max() > 0.04
    np.testing.assert_array_equal(params["bias"], exact["bias"])
    half_a_unit = np.abs(np.asarray(params["kernel"], float)) * 2.0**-8 + 1e-9
    assert (np.abs(np.asarray(state.lost["kernel"], float)) <= half_a_unit).all()


def test_float32_parameters_get_the_optimizer_s_own_bits():
    params = {"w": jnp.linspace(-1, 1, 7)}
    grads = {"w": jnp.linspace(1, 2, 7)}
    tx = optax.adam(0.01)
    a, b = after(tx, 9, params, grads)[0], after(jr.compensated(tx), 9, params, grads)[0]
    np.testing.assert_array_equal(a["w"], b["w"])


def test_bad_input_is_refused():
    with pytest.raises(
        TypeError, match="compensated: `optimizer` must be an optax transformation, got 3"
    ):
        jr.compensated(3)
    with pytest.raises(ValueError, match=r"Call tx.update\(grads, state, params\)"):
        jr.compensated(optax.sgd(0.1)).update(ZERO, None)
