"""The trainer: any framework's params, noise and state in the loss, and honest errors."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxreg as jr
from jaxreg.fit.batches import BatchStream, init_key, stream_key

N, D, H = 24, 5, 7
KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)
DATA = (X, Y)


def cross_entropy(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def gradient_adam(reg):
    return optax.chain(jr.add_penalty_gradient(reg), optax.adam(1e-2))


def trainer_of(init, loss, optimizer=gradient_adam, **kwargs):
    """A function of the penalty."""
    return lambda reg: jr.Trainer(init, loss, optimizer(reg), **kwargs)


def weights(key):
    k1, k2 = jax.random.split(key)
    return jax.random.normal(k1, (D, H)) / 2, jax.random.normal(k2, (H, 2)) / 2


# --- the same net in five frameworks --------------------------------------------------------------


def dict_net():
    def init(key):
        w1, w2 = weights(key)
        return {
            "a": {"kernel": w1, "bias": jnp.zeros(H)},
            "b": {"kernel": w2, "bias": jnp.zeros(2)},
        }

    def apply(p, x):
        x = jax.nn.relu(x @ p["a"]["kernel"] + p["a"]["bias"])
        return x @ p["b"]["kernel"] + p["b"]["bias"]

    return init, apply


def linen_net(partitioned=False):
    def given(w):
        fn = lambda key, shape, dtype=jnp.float32: w
        return nn.with_partitioning(fn, ("in", "out")) if partitioned else fn

    def net(key):
        w1, w2 = weights(key)
        first, last = nn.Dense(H, kernel_init=given(w1)), nn.Dense(2, kernel_init=given(w2))
        return nn.Sequential([first, nn.relu, last])

    def init(key):
        return net(key).init(key, jnp.ones((1, D)))

    def apply(p, x):
        return net(jax.random.key(9)).apply(p, x)

    return init, apply


def nnx_net():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.a, self.b = nnx.Linear(D, H, rngs=rngs), nnx.Linear(H, 2, rngs=rngs)

        def __call__(self, x):
            return self.b(jax.nn.relu(self.a(x)))

    graph, _ = nnx.split(Net(nnx.Rngs(0)))

    def init(key):
        net = Net(nnx.Rngs(0))
        for layer, w in zip((net.a, net.b), weights(key)):
            layer.kernel.set_value(w)
        return nnx.split(net, nnx.Param)[1]

    return init, lambda p, x: nnx.merge(graph, p)(x)


def equinox_net():
    def init(key):
        net = eqx.nn.MLP(D, 2, H, 1, key=key)
        for i, w in enumerate(weights(key)):
            where = lambda n, i=i: (n.layers[i].weight, n.layers[i].bias)
            net = eqx.tree_at(where, net, (w.T, jnp.zeros(w.shape[1])))
        return eqx.filter(net, eqx.is_inexact_array)

    static = eqx.filter(
        eqx.nn.MLP(D, 2, H, 1, key=jax.random.key(0)), eqx.is_inexact_array, inverse=True
    )
    return init, lambda p, x: jax.vmap(eqx.combine(p, static))(x)


NETS = {
    "linen": linen_net,
    "linen-partitioned": lambda: linen_net(partitioned=True),
    "nnx": nnx_net,
    "equinox": equinox_net,
}


def train(net):
    init, apply = net()
    trainer = trainer_of(init, lambda p, x, y: cross_entropy(apply(p, x), y))
    reg = jr.l2(0.05).on(jr.kernels)
    state = jr.fit(trainer, reg, DATA, steps=30, batch_size=8, key=KEY)
    return float(trainer(reg).evaluate(state, DATA)["loss"]), float(reg(state.params))


@pytest.mark.parametrize("name", NETS)
def test_the_same_net_in_every_framework_gets_the_same_numbers(name):
    np.testing.assert_allclose(train(NETS[name]), train(dict_net), rtol=2e-5)


def test_nnx_with_batch_norm_and_dropout_carries_state_and_noise():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.a, self.bn = nnx.Linear(D, H, rngs=rngs), nnx.BatchNorm(H, rngs=rngs)
            self.drop, self.b = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(H, 2, rngs=rngs)

        def __call__(self, x):
            return self.b(self.drop(jax.nn.relu(self.bn(self.a(x)))))

    graph, _, _ = nnx.split(Net(nnx.Rngs(0)), nnx.Param, ...)

    def init(key):
        return nnx.split(Net(nnx.Rngs(key)), nnx.Param, ...)[1:]

    def loss(params, rest, x, y, key):
        net = nnx.merge(graph, params, rest, copy=True)
        nnx.reseed(net, default=key)
        net.train()
        value = cross_entropy(net(x), y)
        return value, nnx.split(net, nnx.Param, ...)[2]

    def evaluated(params, rest, x, y):
        net = nnx.merge(graph, params, rest, copy=True)
        net.eval()
        return cross_entropy(net(x), y)

    trainer = trainer_of(
        init, loss, gradient_adam, eval_loss=evaluated, stateful=True, stochastic=True
    )
    grid = jr.grid(lambda lam: jr.l2(lam).on(jr.kernels & ~jr.path("drop*")), lam=[1e-3, 1e-1])
    result = jr.sweep(trainer, grid, DATA, folds=2, steps=40, batch_size=6, key=KEY, evals=2)
    assert (result.status == 0).all()
    assert result.train["loss"][0, 0, 0, -1] < result.train["loss"][0, 0, 0, 0]


def test_dropout_changes_with_the_step_and_repeats_with_the_key():
    def loss(w, x, y, key):
        keep = jax.random.bernoulli(key, 0.5, w.shape)
        return jnp.mean((x @ (w * keep) - y) ** 2)

    trainer = trainer_of(
        lambda key: jnp.ones(D), loss, gradient_adam,
        eval_loss=lambda w, x, y: jnp.mean((x @ w - y) ** 2), stochastic=True,
    )  # fmt: skip
    a, b = (jr.fit(trainer, jr.Zero(), DATA, steps=5, key=KEY).params for _ in range(2))
    c = jr.fit(trainer, jr.Zero(), DATA, steps=5, key=jax.random.key(1)).params
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


def linear_trainer(optimizer=gradient_adam, **kwargs):
    return trainer_of(
        lambda key: {"w": jnp.zeros(D)},
        lambda p, x, y: 0.5 * jnp.mean((x @ p["w"] - y) ** 2),
        optimizer,
        **kwargs,
    )


def test_full_batch_fit_reaches_the_ridge_solution():
    lam, y = 0.3, X[:, 0] - 2 * X[:, 1]
    sgd = linear_trainer(lambda reg: optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.2)))
    got = jr.fit(sgd, jr.l2(lam), (X, y), steps=400, key=KEY).params["w"]
    closed = np.linalg.solve(X.T @ X / N + lam * np.eye(D), X.T @ y / N)
    np.testing.assert_allclose(got, closed, atol=1e-5)


def test_fit_is_the_step_by_step_loop():
    trainer = linear_trainer()
    reg = jr.l2(0.1)
    rows = jnp.arange(N)
    stream = BatchStream(rows, N, stream_key(KEY, 0, 0), 8, 12, N)
    batch_at = stream.batches(jax.tree.map(jnp.asarray, DATA), 0)
    state = trainer(reg).start(init_key(KEY, 0))
    for i in range(12):
        state, _ = trainer(reg).step(state, batch_at(i)[0])
    fitted = jr.fit(trainer, reg, DATA, steps=12, batch_size=8, key=KEY)
    np.testing.assert_allclose(fitted.params["w"], state.params["w"], rtol=1e-6)


def test_step_returns_the_data_loss_and_not_the_penalized_one():
    trainer = linear_trainer()
    reg = jr.l2(100.0)
    state = trainer(reg).start(KEY)._replace(params={"w": jnp.ones(D)})
    _, loss = trainer(reg).step(state, DATA)
    np.testing.assert_allclose(loss, 0.5 * np.mean((X.sum(1) - Y) ** 2), rtol=1e-6)


@pytest.mark.parametrize(("count", "size"), [(10, 3), (7, 7), (9, 2)])
def test_an_epoch_of_batches_holds_every_row_at_most_once_and_no_padding(count, size):
    rows = jnp.concatenate([100 + jnp.arange(count), jnp.zeros(3, int)])
    per_epoch = count // size
    stream = BatchStream(rows, count, KEY, size, 4 * per_epoch, count)
    batch_at = stream.batches((jnp.arange(200),), 0)
    seen = np.stack([batch_at(i)[0][0] for i in range(4 * per_epoch)]).reshape(4, -1)
    for epoch in seen:
        assert len(set(epoch)) == per_epoch * size
        assert set(epoch) <= set(range(100, 100 + count))
    assert not np.array_equal(seen[0], seen[1])


def test_the_stream_is_a_function_of_the_step_alone():
    make = lambda ahead: BatchStream(jnp.arange(10), 10, KEY, 3, ahead, 10)
    data = (jnp.arange(10),)
    whole = [make(20).batches(data, 0)(i)[0][0] for i in range(20)]
    parts = [make(5).batches(data, first)(i)[0][0] for first in (0, 5, 10, 15) for i in range(5)]
    np.testing.assert_array_equal(np.stack(whole), np.stack(parts))


def test_lam_never_recompiles():
    traces = []

    def loss(w, x, y):
        traces.append(1)
        return jnp.mean((x @ w - y) ** 2)

    trainer = trainer_of(lambda key: jnp.zeros(D), loss, gradient_adam)
    jr.fit(trainer, jr.l2(0.1), DATA, steps=2, key=KEY)
    first = len(traces)
    for lam in (0.2, 1, jnp.float32(3), np.float64(0.5)):
        jr.fit(trainer, jr.l2(lam), DATA, steps=2, key=KEY)
    assert len(traces) == first


def test_bfloat16_parameters_stay_bfloat16():
    trainer = trainer_of(
        lambda key: jnp.ones(D, jnp.bfloat16),
        lambda w, x, y: jnp.mean((x @ w.astype(jnp.float32) - y) ** 2),
        gradient_adam,
    )
    assert jr.fit(trainer, jr.l2(0.1), DATA, steps=2, key=KEY).params.dtype == jnp.bfloat16


# --- bad input ------------------------------------------------------------------------------------


def test_noise_or_state_needs_an_eval_loss():
    with pytest.raises(ValueError, match="`eval_loss` is required"):
        linear_trainer(stochastic=True)(jr.Zero())


def test_loss_is_no_metric_name():
    with pytest.raises(ValueError, match="must not contain 'loss'"):
        linear_trainer(metrics={"loss": lambda *a: 0.0})(jr.Zero())


def test_integer_parameters_are_refused_by_name():
    trainer = trainer_of(
        lambda key: {"w": jnp.zeros(D), "count": jnp.zeros((), int)},
        lambda p, x, y: jnp.mean(x @ p["w"]),
        gradient_adam,
    )
    with pytest.raises(TypeError, match="'count'.*int32.*model state"):
        jr.fit(trainer, jr.l2(0.1), DATA, steps=1, key=KEY)


def test_decay_after_adam_is_caught_before_training():
    wrong = lambda reg: optax.chain(optax.adam(1e-3), jr.add_penalty_gradient(reg))
    with pytest.raises(ValueError, match="grow"):
        jr.fit(linear_trainer(wrong), jr.l2(0.1), DATA, steps=1, key=KEY)


def test_a_lam_of_zero_does_not_hide_a_wrong_order():
    wrong = lambda reg: optax.chain(optax.adam(1e-3), jr.add_penalty_gradient(reg))
    trainer = linear_trainer(wrong)
    jr.fit(trainer, jr.l2(0.0), DATA, steps=1, key=KEY)  # no decay, so nothing grows
    with pytest.raises(ValueError, match="grow"):
        jr.fit(trainer, jr.l2(0.1), DATA, steps=1, key=KEY)
    grid = jr.grid(jr.l2, lam=[0.0, 0.1])
    with pytest.raises(ValueError, match="grow"):
        jr.sweep(trainer, grid, DATA, folds=2, steps=1, key=KEY)


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        (X, TypeError, "tuple of arrays"),
        ((X, Y[:-1]), ValueError, r"same number of rows.*data\[1\]': 23"),
        ((X[:0], Y[:0]), ValueError, "at least 1"),
        (
            (np.where(X[3, 1] == X, np.nan, X), Y),
            ValueError,
            r"`data\[0\]` has NaN in 1 of 24 .* row 3",
        ),
    ],
)
def test_bad_data(data, error, match):
    with pytest.raises(error, match=match):
        jr.fit(linear_trainer(), jr.l2(0.1), data, steps=1, key=KEY)


@pytest.mark.parametrize("size", [0, 25, -1])
def test_a_batch_must_fit_the_data(size):
    with pytest.raises(ValueError, match=f"between 1 and the 24 rows.*got {size}"):
        jr.fit(linear_trainer(), jr.l2(0.1), DATA, steps=1, batch_size=size, key=KEY)


def test_a_selector_without_leaves_is_refused_with_near_paths():
    with pytest.raises(ValueError, match=r"matches none of the 1 leaves.*\['w'\]"):
        jr.fit(linear_trainer(), jr.l2(0.1).on("*/kernel"), DATA, steps=1, key=KEY)
