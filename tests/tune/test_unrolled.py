"""Gradients through training: central differences where it is smooth, a refusal where it is chaotic."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import jaxreg as jr
from jaxreg.tune import unrolled

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (24, 5))
Y = X[:, 0] - 0.5 * X[:, 1] + 0.3 * jax.random.normal(jax.random.key(2), (24,))
TRAIN, VALID = (X[:16], Y[:16]), (X[16:], Y[16:])


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def ridge(reg):
    tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1))
    return jr.Trainer(lambda key: jnp.zeros(5), loss, tx)


def rated(p):
    tx = optax.chain(jr.add_penalty_gradient(p["reg"]), optax.sgd(p["lr"]))
    return jr.Trainer(
        lambda key: jnp.zeros(5), loss, tx, eval_loss=lambda w, x, y: 3 * loss(w, x, y)
    )


def gradient(trainer, point, **options):
    options = {"steps": 40, "key": KEY} | options
    return jr.unrolled_hypergradient(trainer, point, TRAIN, VALID, **options)


def closed_form(lam, steps=40, rate=0.1):
    """The validation loss after so many steps of gradient descent on ridge, in numpy."""
    w = np.zeros(5)
    x, y = (np.asarray(a, float) for a in TRAIN)
    for _ in range(steps):
        w = w - rate * (x.T @ (x @ w - y) / len(x) + lam * w)
    x, y = (np.asarray(a, float) for a in VALID)
    return 0.5 * np.mean((x @ w - y) ** 2)


def test_each_strength_has_the_central_difference_of_a_loop_in_numpy():
    at, h = np.array([0.05, 0.1, 0.2, 0.4, 0.8]), 1e-5
    with jax.enable_x64(True):
        found = gradient(ridge, jr.l2(jnp.asarray(at)))
    differences = [(closed_form(at + h * e) - closed_form(at - h * e)) / (2 * h) for e in np.eye(5)]
    np.testing.assert_allclose(found.gradient.lam, differences, rtol=1e-6)
    np.testing.assert_allclose(found.value, closed_form(at), rtol=1e-10)


def test_the_slope_is_what_two_trainings_to_either_side_show():
    found = gradient(ridge, jr.l2(0.3))
    h = 0.3
    seen = (closed_form(0.3 * np.exp(h)) - closed_form(0.3 * np.exp(-h))) / (2 * h)
    # Along the gradient the loss rises, whichever way that is.
    np.testing.assert_allclose(found.measured, abs(seen), rtol=1e-4)
    np.testing.assert_allclose(found.slope, 0.3 * abs(found.gradient.lam), rtol=1e-5)
    np.testing.assert_allclose(found.slope, abs(seen), rtol=0.1)


def test_any_number_of_the_point_and_the_evaluation_loss():
    point = {"reg": jr.l2(0.3), "lr": 0.1}
    found, plain = gradient(rated, point), gradient(ridge, jr.l2(0.3))
    np.testing.assert_allclose(found.gradient["reg"].lam, 3 * plain.gradient.lam, rtol=1e-5)
    h = 1e-5
    by_rate = (closed_form(0.3, rate=0.1 + h) - closed_form(0.3, rate=0.1 - h)) / (2 * h)
    np.testing.assert_allclose(found.gradient["lr"], 3 * by_rate, rtol=1e-3)


def test_minibatches_segments_and_seeds_are_those_of_fit():
    options = {"batch_size": 4, "seed": 3, "steps": 30}
    found = gradient(ridge, jr.l2(0.3), **options, remat=7)
    state = jr.fit(ridge, jr.l2(0.3), TRAIN, key=KEY, **options)
    np.testing.assert_allclose(found.value, loss(state.params, *VALID), rtol=1e-6)
    score = lambda reg: loss(jr.fit(ridge, reg, TRAIN, key=KEY, **options).params, *VALID)
    np.testing.assert_allclose(found.gradient.lam, jax.grad(score)(jr.l2(0.3)).lam, rtol=1e-5)


def net(rule):
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    data = (images[:60], labels[:60]), (images[60:160], labels[60:160])
    widths = (64, 32, 10)

    def init(key):
        keys = jax.random.split(key, 2)
        pairs = zip(keys, widths[:-1], widths[1:])
        return [
            {"kernel": jax.random.normal(k, (a, b)) * (2 / a) ** 0.5, "bias": jnp.zeros(b)}
            for k, a, b in pairs
        ]

    def nll(params, x, y):
        x = jax.nn.relu(x @ params[0]["kernel"] + params[0]["bias"])
        logits = x @ params[1]["kernel"] + params[1]["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def trainer(reg):
        return jr.Trainer(init, nll, optax.chain(jr.add_penalty_gradient(reg), rule))

    return trainer, *data


def test_adam_on_a_net_is_chaotic_and_refused_where_sgd_is_not():
    reg = jr.l2(1e-3).on(jr.kernels)
    sgd = net(optax.sgd(0.1))
    found = jr.unrolled_hypergradient(*sgd[:1], reg, *sgd[1:], steps=150, key=KEY)
    assert abs(found.slope - found.measured) < 0.3 * abs(found.measured)
    adam = net(optax.adam(3e-2))
    with pytest.raises(
        ValueError, match=r"(?s)chaotic.*by two trainings, 0.3 to either side.*search"
    ):
        jr.unrolled_hypergradient(*adam[:1], reg, *adam[1:], steps=800, batch_size=16, key=KEY)


def test_another_strength_compiles_nothing_and_inside_of_jit_nothing_is_raised():
    traces = []

    def trainer(reg):
        traces.append(1)
        return ridge(reg)

    gradient(trainer, jr.l2(0.3))
    before = len(traces)
    gradient(trainer, jr.l2(0.4))
    assert unrolled._program(trainer, 40, None, 0, None, True)._cache_size() == 1
    assert len(traces) - before <= 3, "looked at, not traced through training again"
    inside = jax.jit(lambda reg: gradient(ridge, reg))(jr.l2(0.3))
    np.testing.assert_allclose(
        inside.gradient.lam, gradient(ridge, jr.l2(0.3)).gradient.lam, rtol=1e-5
    )


def test_unmeasured_it_says_so():
    assert np.isnan(gradient(ridge, jr.l2(0.3), measure=False).measured)


def lenient(point):
    """Trains at any point, so that only the point itself can be refused."""
    return ridge(point if isinstance(point, jr.Penalty) else jr.l2(0.1))


@pytest.mark.parametrize(
    ("point", "options", "error", "text"),
    [
        (
            {"n": jnp.arange(2)},
            {},
            TypeError,
            "`point` must be a pytree of floating numbers.*got int32.2. at 'n'",
        ),
        ((), {}, TypeError, "`point` must be a pytree of floating numbers.*got .., which has none"),
        (jr.l2(1e3), {}, ValueError, "after 40 steps.*diverged. Lower the learning rate"),
        (jr.l2(0.1), {"steps": 0}, ValueError, "`steps` must be an integer of at least 1, got 0"),
        (jr.l2(0.1), {"measure": 1}, TypeError, "`measure` must be True or False"),
    ],
)
def test_what_it_refuses(point, options, error, text):
    with pytest.raises(error, match=f"unrolled_hypergradient: .*{text}"):
        gradient(lenient, point, **options)
