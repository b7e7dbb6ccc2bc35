"""Couplings take modules as their frameworks hold them: functions, counters and statistics among the leaves."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxreg as jr

REG = jr.l1(0.1).on(jr.kernels)
COUPLINGS = {
    "added": lambda reg: optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.5)),
    "decoupled": lambda reg: jr.decoupled(optax.identity(), reg, 0.5),
    "proximal": lambda reg: jr.proximal(optax.identity(), reg, 0.5),
    "averaged": lambda reg: jr.averaged(jr.proximal(optax.identity(), reg, 0.5)),
}
MLP = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
GRADS = jax.tree.map(lambda x: 0.0 * x, eqx.filter(MLP, eqx.is_inexact_array))


def expected(w):
    return np.sign(w) * np.maximum(np.abs(w) - 0.05, 0)


@pytest.mark.parametrize("given", ["filtered", "the module itself"])
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_an_equinox_module_with_its_functions(coupling, given):
    tx = COUPLINGS[coupling](REG)
    state = tx.init(eqx.filter(MLP, eqx.is_inexact_array))
    params = MLP if given == "the module itself" else eqx.filter(MLP, eqx.is_inexact_array)
    updates, _ = eqx.filter_jit(tx.update)(GRADS, state, params)
    moved = eqx.apply_updates(MLP, updates)
    assert moved.activation is MLP.activation
    for old, new in zip(MLP.layers, moved.layers):
        np.testing.assert_array_equal(new.bias, old.bias)
        shrunk = old.weight - 0.05 * jnp.sign(old.weight)
        right = expected(old.weight) if coupling in ("proximal", "averaged") else shrunk
        np.testing.assert_allclose(new.weight, right, atol=1e-6)


@pytest.mark.parametrize("coupling", ["decoupled", "proximal", "averaged"])
def test_a_state_is_made_of_the_module_itself_too(coupling):
    tx = COUPLINGS[coupling](REG)
    updates, _ = tx.update(GRADS, tx.init(MLP), MLP)
    assert updates.layers[0].weight.any()
    assert updates.activation is None


class Net(nnx.Module):
    def __init__(self, rngs):
        self.fc = nnx.Linear(3, 2, rngs=rngs)
        self.bn = nnx.BatchNorm(2, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.drop(self.bn(self.fc(x)))


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_an_nnx_module_with_statistics_and_counters(coupling):
    net = Net(nnx.Rngs(0))
    kernel, scale = np.asarray(net.fc.kernel[...]), np.asarray(net.bn.scale[...])
    optimizer = nnx.Optimizer(net, COUPLINGS[coupling](REG), wrt=nnx.Param)
    grads = nnx.grad(lambda net: 0 * jnp.mean(net(jnp.ones((4, 3))) ** 2))(net)
    optimizer.update(net, grads)
    prox = coupling in ("proximal", "averaged")
    right = expected(kernel) if prox else kernel - 0.05 * np.sign(kernel)
    np.testing.assert_allclose(net.fc.kernel[...], right, atol=1e-6)
    np.testing.assert_array_equal(net.bn.scale[...], scale)
    assert int(net.drop.rngs.count[...]) > 0


def test_tables_ledgers_and_gradients_of_modules():
    text = str(jr.tabulate(REG, MLP))
    assert "layers/0/weight" in text
    books = jr.ledger(lambda m: jnp.sum(m(jnp.ones(3))))(MLP, REG)
    size = sum(float(jnp.abs(layer.weight).sum()) for layer in MLP.layers)
    np.testing.assert_allclose(books.terms["l1.on(kernels)"], 0.1 * size, rtol=1e-6)
    grads = eqx.filter_grad(lambda m: jr.penalized(lambda m: 0.0 * m(jnp.ones(3)).sum())(m, REG))(
        MLP
    )
    np.testing.assert_allclose(
        grads.layers[0].weight, 0.1 * jnp.sign(MLP.layers[0].weight), rtol=1e-6
    )


# --- gradients and leaves that are not as usual -----------------------------------------------------

EVERY = {
    **COUPLINGS,
    "compensated": lambda reg: jr.compensated(optax.sgd(0.1)),
}


@pytest.mark.parametrize("coupling", EVERY)
def test_gradients_that_lack_a_leaf_do_not_shift_to_the_next(coupling):
    params = {"b": jnp.full(3, 100.0), "w": jnp.ones((4, 3))}
    tx = EVERY[coupling](jr.l1(0.1))
    state = tx.init(params)
    for grads in ({"w": jnp.zeros((4, 3))}, {"b": jnp.zeros(3), "v": jnp.zeros((4, 3))}):
        with pytest.raises(ValueError, match=r"'[bw]' is missing in the gradients.*optax.masked"):
            tx.update(grads, state, params)
    with pytest.raises(ValueError, match=r"'x' is missing in the parameters"):
        tx.update(params | {"x": jnp.zeros(1)}, state, params)


@pytest.mark.parametrize("coupling", EVERY)
@pytest.mark.parametrize(
    "direction",
    [optax.identity(), optax.scale_by_adam(), optax.scale_by_sign()],
    ids=["sgd", "adam", "sign"],
)
def test_a_leaf_without_entries_is_carried_along(coupling, direction):
    make = {
        "added": lambda reg: optax.chain(jr.add_penalty_gradient(reg), direction),
        "decoupled": lambda reg: jr.decoupled(direction, reg, 0.5),
        "proximal": lambda reg: jr.proximal(direction, reg, 0.5),
        "averaged": lambda reg: jr.averaged(jr.proximal(direction, reg, 0.5)),
        "compensated": lambda reg: jr.compensated(jr.decoupled(direction, reg, 0.5)),
    }[coupling]
    params = {"w": jnp.ones(3), "e": jnp.zeros((0, 4))}
    alone = {"w": params["w"]}
    tx, one = make(jr.l1(0.1)), make(jr.l1(0.1))
    state, state_alone = tx.init(params), one.init(alone)
    for _ in range(2):
        grads = jax.tree.map(lambda x: 0.5 * jnp.ones_like(x), params)
        updates, state = tx.update(grads, state, params)
        want, state_alone = one.update({"w": grads["w"]}, state_alone, alone)
        np.testing.assert_allclose(updates["w"], want["w"], rtol=1e-6)
        assert updates["e"].shape == (0, 4)
