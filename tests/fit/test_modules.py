"""Modules and lists as users hold them, trained by `fit` and `sweep` as by a loop of one's own."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxreg as jr

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (24, 3))
Y = X[:, :1] - 0.5 * X[:, 1:2] ** 2
REG = jr.l1(0.02).on(jr.kernels)


def chain(reg):
    return jr.proximal(optax.identity(), reg, 0.1)


def mse(out, y):
    return 0.5 * jnp.mean((out - y) ** 2)


# --- equinox --------------------------------------------------------------------------------------


class Net(eqx.Module):
    layers: list
    activation: object
    drop: eqx.nn.Dropout
    name: str

    def __init__(self, key):
        a, b = jax.random.split(key)
        self.layers = [eqx.nn.Linear(3, 4, key=a), eqx.nn.Linear(4, 1, key=b)]
        self.activation, self.drop, self.name = (
            jax.nn.tanh,
            eqx.nn.Dropout(0.5, inference=True),
            "net",
        )

    def __call__(self, x):
        assert self.name == "net"
        return self.layers[1](self.drop(self.activation(self.layers[0](x))))


def eqx_loss(net, x, y):
    return mse(jax.vmap(net)(x), y)


def eqx_trainer(reg):
    return jr.Trainer(
        Net,
        eqx_loss,
        chain(reg),
        metrics={"mae": lambda m, x, y: jnp.mean(abs(jax.vmap(m)(x) - y))},
    )


def own_loop(net, steps):
    """As the docs of equinox write it."""
    tx = chain(REG)
    state = tx.init(eqx.filter(net, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(net, state):
        grads = eqx.filter_grad(eqx_loss)(net, X, Y)
        updates, state = tx.update(grads, state, eqx.filter(net, eqx.is_inexact_array))
        return eqx.apply_updates(net, updates), state

    for _ in range(steps):
        net, state = step(net, state)
    return net


def test_an_equinox_module_is_trained_as_in_a_loop_of_its_own():
    net = jr.fit(eqx_trainer, REG, (X, Y), steps=20, key=KEY).params
    assert net.activation is jax.nn.tanh
    assert (net.drop.p, net.drop.inference, net.name) == (0.5, True, "net")
    start = jr.fit(eqx_trainer, REG, (X, Y), steps=0, key=KEY).params
    want = own_loop(start, 20)
    np.testing.assert_allclose(net.layers[0].weight, want.layers[0].weight, atol=1e-6)
    np.testing.assert_allclose(net(X[0]), want(X[0]), atol=1e-6)
    assert (net.layers[0].weight != start.layers[0].weight).any()


def test_a_sweep_over_an_equinox_module_keeps_saves_and_goes_on(tmp_path):
    grid = jr.grid(lambda lam: jr.l1(lam).on(jr.kernels), lam=[0.02, 10.0])
    run = lambda **kw: jr.sweep(eqx_trainer, grid, (X, Y), folds=2, steps=10, key=KEY, **kw)
    result = run(checkpoint=tmp_path / "run")
    net = result.lane(0)
    assert net.activation is jax.nn.tanh
    assert net(X[0]).shape == (1,)
    assert not result.lane(1).layers[0].weight.any()
    again = run(checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(again.lane(0)(X[0]), net(X[0]))
    result.save(tmp_path / "result")
    read = jr.SweepResult.load(tmp_path / "result.npz", like=(grid[0], net))
    np.testing.assert_array_equal(read.lane(0)(X[0]), net(X[0]))
    stopped = run(patience=3)
    assert stopped.lane(0).activation is jax.nn.tanh


def test_averages_and_line_searches_of_a_module():
    def averaged(reg):
        tx = jr.averaged(chain(reg), decay=0.5)
        return jr.Trainer(Net, eqx_loss, tx, eval_params=jr.average_of)

    result = jr.sweep(
        averaged,
        jr.grid(lambda lam: jr.l1(lam).on(jr.kernels), lam=[0.02]),
        (X, Y),
        folds=2,
        steps=10,
        key=KEY,
    )
    assert result.lane(0).activation is jax.nn.tanh

    def searched(reg):
        return jr.Trainer(Net, eqx_loss, optax.chain(jr.add_penalty_gradient(reg), optax.lbfgs()))

    net = jr.fit(searched, jr.l2(0.02).on(jr.kernels), (X, Y), steps=60, key=KEY).params
    assert jr.stationarity(eqx_loss, net, jr.l2(0.02).on(jr.kernels), X, Y).relative < 0.1


# --- nnx ------------------------------------------------------------------------------------------


class Noisy(nnx.Module):
    def __init__(self, rngs):
        self.fc = nnx.Linear(3, 4, rngs=rngs)
        self.bn = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(nnx.tanh(self.bn(self.fc(x)))))


def nnx_loss(net, x, y):
    return mse(net(x), y)


def nnx_eval(net, x, y):
    net = nnx.merge(*nnx.split(net))
    net.eval()
    return mse(net(x), y)


def nnx_trainer(reg):
    return jr.Trainer(lambda key: Noisy(nnx.Rngs(key)), nnx_loss, chain(reg), eval_loss=nnx_eval)


def test_an_nnx_module_keeps_its_statistics_and_counters_as_in_a_loop_of_its_own():
    net = jr.fit(nnx_trainer, REG, (X, Y), steps=10, key=KEY).params
    want = jr.fit(nnx_trainer, REG, (X, Y), steps=0, key=KEY).params
    assert int(want.drop.rngs.count[...]) == 0
    optimizer = nnx.Optimizer(want, chain(REG), wrt=nnx.Param)
    for _ in range(10):
        optimizer.update(want, nnx.grad(nnx_loss)(want, X, Y))
    assert int(net.drop.rngs.count[...]) == int(want.drop.rngs.count[...]) == 10
    np.testing.assert_allclose(net.bn.mean[...], want.bn.mean[...], atol=1e-5)
    np.testing.assert_allclose(net.bn.var[...], want.bn.var[...], atol=1e-5)
    assert net.bn.mean[...].any()
    np.testing.assert_allclose(net.fc.kernel[...], want.fc.kernel[...], atol=1e-5)


def test_a_sweep_over_an_nnx_module(tmp_path):
    grid = jr.grid(lambda lam: jr.l1(lam).on(jr.kernels), lam=[0.02, 10.0])
    run = lambda **kw: jr.sweep(nnx_trainer, grid, (X, Y), folds=2, steps=6, key=KEY, **kw)
    result = run(checkpoint=tmp_path / "run")
    assert not result.lane(1).fc.kernel[...].any()
    assert result.lane(0).bn.mean[...].any()
    net = result.lane(0)
    net.eval()
    assert net(X).shape == (24, 1)
    result.save(tmp_path / "result")
    again = run(checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(again.lane(0).bn.mean[...], net.bn.mean[...])


def test_a_module_that_changes_in_the_loss_needs_a_loss_to_be_judged_by():
    trainer = lambda reg: jr.Trainer(lambda key: Noisy(nnx.Rngs(key)), nnx_loss, chain(reg))
    with pytest.raises(
        ValueError, match=r"fit: the loss changes .*'bn/mean'.* needs `eval_loss`.*eval\(\)"
    ):
        jr.fit(trainer, REG, (X, Y), steps=1, key=KEY)


# --- lists and tuples -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.* no name")
@pytest.mark.parametrize("kind", ["keras", "stax"])
def test_lists_of_variables_and_tuples_of_pairs(kind):
    shapes = [(3, 4), (4,), (4, 1), (1,)]

    def init(key):
        made = [0.5 * jax.random.normal(k, s) for k, s in zip(jax.random.split(key, 4), shapes)]
        return made if kind == "keras" else ((made[0], made[1]), (), (made[2], made[3]))

    def loss(params, x, y):
        a, b, c, d = jax.tree.leaves(params)
        return mse(jnp.tanh(x @ a + b) @ c + d, y)

    trainer = lambda reg: jr.Trainer(init, loss, chain(reg))
    params = jr.fit(trainer, jr.l1(10.0).on(jr.kernels), (X, Y), steps=10, key=KEY).params
    a, _, c, d = jax.tree.leaves(params)
    assert not a.any()
    assert not c.any()
    assert d.any()


class Pair(NamedTuple):
    w: object
    b: object


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Own:
    w: object
    b: object


@pytest.mark.parametrize("kind", [Pair, Own])
def test_a_number_in_a_tuple_or_dataclass_of_one_s_own_is_a_parameter(kind):
    def trainer(reg):
        loss = lambda p, x, y: mse(x @ p.w + p.b, y[:, 0] + 3)
        return jr.Trainer(lambda key: kind(jnp.zeros(3), 0.0), loss, chain(reg))

    params = jr.fit(trainer, jr.l1(0.0).on(jr.kernels), (X, Y), steps=50, key=KEY).params
    assert params.b > 1
    assert jr.l2(1.0)(kind(jnp.ones(3), 2.0)) == 3.5
    assert (
        jr.stationarity(lambda p: p.b**2 + p.w.sum(), kind(jnp.ones(3), 2.0), jr.Zero()).leaves["b"]
        == 4
    )
    counts = lambda key: kind(jnp.zeros(3), jnp.arange(2))
    counting = lambda reg: jr.Trainer(counts, trainer(reg).loss, chain(reg))
    with pytest.raises(TypeError, match="the parameter 'b' that `init` made is no floating array"):
        jr.fit(counting, REG, (X, Y), steps=1, key=KEY)
