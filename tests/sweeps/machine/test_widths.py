"""How many lanes go together is read off the model: small ones many, large ones and convolutions alone."""

import itertools

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import lax

import jaxreg as jr
from jaxreg.sweeps.machine.widths import widest

KEY = jax.random.key(0)


def net(params, x, y):
    for kernel in params[:-1]:
        x = jnp.tanh(x @ kernel)
    return jnp.mean((x @ params[-1] - y[:, None]) ** 2)


def asked(trainer, batch=10):
    start = jax.eval_shape(trainer(jr.l2(1.0)).start, KEY)
    rows = (jax.ShapeDtypeStruct((batch, 64), float), jax.ShapeDtypeStruct((batch,), float))
    return widest(trainer, jr.l2(1.0), start, rows, KEY)


def of(sizes, loss=net, batch=10, **kinds):
    trainer = lambda reg: jr.Trainer(
        init=lambda key: [jnp.zeros(pair) for pair in itertools.pairwise(sizes)],
        loss=loss,
        optimizer=optax.chain(jr.add_penalty_gradient(reg), optax.adam(1e-3)),
        **kinds,
    )
    return asked(trainer, batch)


def test_small_models_go_together_and_large_ones_alone():
    assert of((64, 1)) == 32
    assert of((64, 600, 600, 1)) == 1
    assert 1 < of((64, 128, 128, 1)) < 32


def test_what_the_backward_pass_keeps_counts():
    """The same net on more rows keeps more activations, and so does a scan of more steps."""

    def recurrent(steps):
        def loss(params, x, y):
            h, _ = lax.scan(lambda h, _: (jnp.tanh(h @ params[0]), None), x, length=steps)
            return jnp.mean(h)

        return loss

    assert of((64, 128, 128, 1), batch=10) > of((64, 128, 128, 1), batch=1000)
    assert of((64, 64), recurrent(20)) > of((64, 64), recurrent(400))


def convolve(x, kernel):
    image = x.reshape(-1, 8, 8, 1)
    return lax.conv_general_dilated(
        image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("deep", [False, True])
def test_a_net_with_convolutions_trains_its_lanes_alone(deep):
    def loss(params, x, y):
        kernel = params[0].reshape(3, 3, 1, 1)
        if not deep:
            return jnp.mean(convolve(x, kernel))
        inner = jax.jit(lambda x: convolve(x, kernel).reshape(x.shape))
        return jnp.mean(lax.scan(lambda x, _: (inner(x), None), x, length=2)[0])

    assert of((9, 1), loss) == 1


def test_losses_with_state_and_noise_are_traced_as_they_are_called():
    def loss(params, seen, x, y, *, key):
        assert key.shape == ()
        assert x.shape == (10, 64)
        return net(params, x + jax.random.normal(key, x.shape), y), seen + 1

    trainer = lambda reg: jr.Trainer(
        init=lambda key: ([jnp.zeros((64, 1))], jnp.zeros((), jnp.int32)),
        loss=loss,
        eval_loss=lambda params, seen, x, y: net(params, x, y),
        optimizer=optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1)),
        stateful=True,
        stochastic=True,
    )
    assert asked(trainer) == 32


def test_a_model_is_traced_once():
    calls = []

    def loss(params, x, y):
        calls.append(1)
        return net(params, x, y)

    trainer = lambda reg: jr.Trainer(
        init=lambda key: [jnp.zeros((64, 1))],
        loss=loss,
        optimizer=optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1)),
    )
    assert {asked(trainer) for _ in range(3)} == {32}
    assert len(calls) == 1
