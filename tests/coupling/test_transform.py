"""The couplings: where they are one algorithm, where they differ, and what each converges to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet, Lasso

import jaxreg as jr
from jaxreg.objective import split

RNG = np.random.default_rng(0)
N, D = 60, 8
X = RNG.normal(size=(N, D)) + 0.5 * RNG.normal(size=(N, 1))
Y = X @ np.array([2, -1.5, 0, 0, 1, 0, 0, -0.3]) + 0.3 * RNG.normal(size=N)
X32, Y32 = jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32)
PARAMS = {"kernel": jnp.linspace(-1, 1, D), "bias": jnp.array([0.5])}
WARMUP = optax.warmup_cosine_decay_schedule(0.0, 0.05, 20, 200)


def loss(params):
    return 0.5 * jnp.mean((X32 @ params["kernel"] + params["bias"] - Y32) ** 2)


def linear_loss(w):
    return 0.5 * jnp.mean((X32 @ w - Y32) ** 2)


def run(tx, params, steps=200, loss=loss, every=False):
    """Train in one program; the last parameters, or those after every step."""

    def body(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params if every else None

    @jax.jit
    def fit(params):
        (last, _), path = jax.lax.scan(body, (params, tx.init(params)), None, length=steps)
        return path if every else last

    return fit(params)


def assert_close(a, b, **tolerance):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), a, b)


def assert_same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Where the couplings agree.


def test_under_plain_sgd_all_couplings_of_l2_are_one():
    lr, lam = 0.1, 0.3
    paths = {
        "added": optax.chain(jr.add_penalty_gradient(jr.l2(lam)), optax.sgd(lr)),
        "decoupled": jr.decoupled(optax.identity(), jr.l2(lam), lr),
        "eta lam": jr.decoupled(optax.identity(), jr.l2(lr * lam), lr, scale_by_lr=False),
        "optax": optax.chain(optax.add_decayed_weights(lam), optax.sgd(lr)),
    }
    paths = {name: run(tx, PARAMS, every=True) for name, tx in paths.items()}
    objective = jr.penalized(loss)
    explicit = run(optax.sgd(lr), PARAMS, loss=lambda p: objective(p, jr.l2(lam)), every=True)
    for path in paths.values():
        assert_close(path, explicit, rtol=1e-4, atol=1e-6)
    assert_close(paths["added"], paths["optax"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("optimizer", [optax.adam(0.05), optax.sgd(0.05, 0.9), optax.lion(1e-3)])
def test_added_gradient_is_the_optimizer_on_the_objective(optimizer):
    reg = jr.elastic_net(0.3).on(jr.kernels)
    added = run(optax.chain(jr.add_penalty_gradient(reg), optimizer), PARAMS, every=True)
    explicit = run(optimizer, PARAMS, loss=lambda p: jr.penalized(loss)(p, reg), every=True)
    assert_close(added, explicit, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("lr", [0.05, WARMUP], ids=["number", "schedule"])
def test_decoupled_l2_over_adam_is_adamw(lr):
    ours = run(jr.decoupled(optax.scale_by_adam(), jr.l2(0.3), lr), PARAMS, every=True)
    theirs = run(optax.adamw(lr, weight_decay=0.3), PARAMS, every=True)
    assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_l2_selected_is_optax_with_a_mask():
    mask = {"kernel": True, "bias": False}
    ours = optax.chain(jr.add_penalty_gradient(jr.l2(0.3).on(jr.kernels)), optax.adam(0.05))
    theirs = optax.chain(optax.add_decayed_weights(0.3, mask), optax.adam(0.05))
    masked = optax.chain(optax.masked(jr.add_penalty_gradient(jr.l2(0.3)), mask), optax.adam(0.05))
    expected = run(theirs, PARAMS)
    assert_close(run(ours, PARAMS), expected, rtol=1e-5, atol=1e-6)
    assert_close(run(masked, PARAMS), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lam", [0.3, 1e-4, 7.0])
def test_one_update_of_l2_is_optax_s_to_the_bit(lam):
    """Outside of jit, where XLA fuses nothing differently."""
    params, grads = {"w": X32, "b": Y32}, {"w": X32[::-1], "b": jnp.square(Y32)}
    pairs = [
        (jr.add_penalty_gradient(jr.l2(lam)), optax.add_decayed_weights(lam)),
        (
            jr.decoupled(optax.scale_by_adam(), jr.l2(lam), 1e-3),
            optax.adamw(1e-3, weight_decay=lam),
        ),
    ]
    for ours, theirs in pairs:
        a, b = (tx.update(grads, tx.init(params), params)[0] for tx in (ours, theirs))
        assert_same_bits(a, b)


SGD_STATE = jr.proximal(optax.identity(), jr.l1(1.0), 0.25).init(jnp.zeros(4))


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    x=st.lists(st.floats(-9, 9, width=32, allow_subnormal=False), min_size=4, max_size=4),
    g=st.lists(st.floats(-9, 9, width=32, allow_subnormal=False), min_size=4, max_size=4),
    lam=st.floats(0, 3, width=32, allow_subnormal=False),
)
def test_proximal_sgd_is_the_prox_of_the_step(x, g, lam):
    x, g = jnp.array(x, jnp.float32), jnp.array(g, jnp.float32)
    updates, _ = jr.proximal(optax.identity(), jr.l1(lam), 0.25).update(g, SGD_STATE, x)
    moved = np.asarray(x, float) - 0.25 * np.asarray(g, float)
    expected = np.sign(moved) * np.maximum(np.abs(moved) - 0.25 * lam, 0)
    np.testing.assert_allclose(optax.apply_updates(x, updates), expected, rtol=1e-5, atol=2e-6)


# Where they differ.


def test_under_adam_the_couplings_differ():
    reg, lr = jr.l2(0.3), 0.05
    coupled = run(optax.chain(jr.add_penalty_gradient(reg), optax.adam(lr)), PARAMS, 2000)
    prox = run(jr.proximal(optax.scale_by_adam(), reg, lr), PARAMS, 2000)
    adamw = run(jr.decoupled(optax.scale_by_adam(), reg, lr), PARAMS, 2000)
    assert_close(coupled, prox, atol=1e-4)  # both at the optimum of L + R
    assert np.abs(coupled["kernel"] - adamw["kernel"]).max() > 0.1  # AdamW is not


def test_decay_without_the_learning_rate_is_the_paper_s():
    one = jr.decoupled(optax.scale_by_adam(), jr.l2(0.01), 0.5, scale_by_lr=False)
    updates, _ = one.update(jnp.zeros(2), one.init(jnp.ones(2)), jnp.ones(2))
    np.testing.assert_allclose(updates, -0.01, rtol=1e-6)


# What proximal converges to.

OPTIMIZERS = {
    "sgd": (optax.identity(), 0.1),
    "momentum": (optax.trace(0.9), 0.02),
    "nesterov": (optax.trace(0.9, nesterov=True), 0.02),
    "adam": (optax.scale_by_adam(), 0.01),
    "nadam": (optax.scale_by_adam(nesterov=True), 0.01),
    "amsgrad": (optax.scale_by_amsgrad(), 0.03),
    "rmsprop": (optax.scale_by_rms(eps=1e-8), 0.002),
    "rmsprop momentum": (optax.chain(optax.scale_by_rms(eps=1e-8), optax.trace(0.9)), 0.0002),
    "adagrad": (optax.scale_by_rss(), 0.3),
}


@functools.cache
def lasso():
    return Lasso(0.3, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X, Y).coef_


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_proximal_l1_ends_at_the_lasso(name):
    optimizer, lr = OPTIMIZERS[name]
    w = run(jr.proximal(optimizer, jr.l1(0.3), lr), jnp.zeros(D), 8000, linear_loss)
    np.testing.assert_allclose(w, lasso(), atol=5e-5)
    np.testing.assert_array_equal(w == 0, lasso() == 0)
    assert 0 < (lasso() == 0).sum() < D


@pytest.mark.parametrize("name", ["adam", "momentum", "adagrad"])
def test_proximal_elastic_net_ends_at_scikit_learn_s(name):
    optimizer, lr = OPTIMIZERS[name]
    w = run(jr.proximal(optimizer, jr.elastic_net(0.4, 0.7), lr), jnp.zeros(D), 8000, linear_loss)
    net = ElasticNet(0.4, l1_ratio=0.7, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X, Y)
    np.testing.assert_allclose(w, net.coef_, atol=5e-5)
    np.testing.assert_array_equal(w == 0, net.coef_ == 0)


def test_l2_in_the_chain_and_l1_in_the_prox_is_the_elastic_net():
    smooth, rest = split(jr.l1(0.28) + jr.l2(0.12))
    chain = optax.chain(jr.add_penalty_gradient(smooth), optax.scale_by_adam())
    w = run(jr.proximal(chain, rest, 0.01), jnp.zeros(D), 8000, linear_loss)
    net = ElasticNet(0.4, l1_ratio=0.7, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X, Y)
    np.testing.assert_allclose(w, net.coef_, atol=5e-5)


@pytest.mark.parametrize("name", ["adam", "adagrad", "nesterov"])
def test_proximal_group_lasso_ends_where_plain_proximal_gradient_does(name):
    targets = np.stack([Y, Y - X[:, 3], 0.2 * X[:, 1]], 1)
    w, step = np.zeros((D, 3)), 1 / np.linalg.eigvalsh(X.T @ X / N).max()
    for _ in range(3000):
        moved = w - step * X.T @ (X @ w - targets) / N
        norm = np.linalg.norm(moved, axis=1, keepdims=True)
        w = moved * np.maximum(1 - step * 0.5 / np.maximum(norm, 1e-300), 0)
    goal = jnp.asarray(targets, jnp.float32)
    optimizer, lr = OPTIMIZERS[name]
    ours = run(
        jr.proximal(optimizer, jr.group_lasso(0.5, axis=0, sqrt_size=False), lr),
        jnp.zeros((D, 3)),
        8000,
        lambda w: 0.5 * jnp.sum((X32 @ w - goal) ** 2) / N,
    )
    np.testing.assert_allclose(ours, w, atol=1e-4)
    np.testing.assert_array_equal(np.all(ours == 0, 1), np.all(w == 0, 1))
    assert 0 < np.all(w == 0, 1).sum() < D


def test_soft_thresholding_by_lr_lam_after_adam_ends_elsewhere():
    """The folklore step, with the figures in the docstring of `proximal`."""
    lr = 0.01

    def naive(penalty):
        adam = optax.adam(lr)

        def update(grads, state, params):
            updates, state = adam.update(grads, state, params)
            return penalty.prox(params + updates, lr) - params, state

        return optax.GradientTransformation(adam.init, update)

    w = run(naive(jr.l1(0.3)), jnp.zeros(D), 8000, linear_loss)
    np.testing.assert_allclose(np.abs(w - lasso()).max(), 0.45, atol=0.01)
    assert not (w == 0).any()


def test_an_intercept_left_out_of_the_penalty_is_fitted_freely():
    shifted = Y + 3.0
    model = Lasso(0.3, tol=1e-14, max_iter=100_000).fit(X, shifted)
    goal = jnp.asarray(shifted, jnp.float32)
    params = run(
        jr.proximal(optax.scale_by_adam(), jr.l1(0.3).on(jr.kernels), 0.02),
        PARAMS,
        8000,
        lambda p: 0.5 * jnp.mean((X32 @ p["kernel"] + p["bias"] - goal) ** 2),
    )
    np.testing.assert_allclose(params["kernel"], model.coef_, atol=5e-5)
    np.testing.assert_allclose(params["bias"], [model.intercept_], atol=5e-5)


@pytest.mark.parametrize("lr", [WARMUP, optax.cosine_decay_schedule(0.05, 3000)])
def test_learning_rate_schedules_move_the_threshold_along(lr):
    schedule = lambda count: lr(count) + 0.002
    tx = jr.proximal(optax.scale_by_adam(), jr.l1(0.3), schedule)
    w = run(tx, jnp.zeros(D), 8000, linear_loss)
    np.testing.assert_allclose(w, lasso(), atol=5e-5)
    np.testing.assert_array_equal(w == 0, lasso() == 0)


def test_what_has_had_no_gradient_shrinks_with_its_leaf_and_is_not_wiped_out():
    tx = jr.proximal(optax.scale_by_adam(), jr.l1(0.1), 0.01)
    params = {"unseen": jnp.ones(3), "mixed": jnp.array([1.0, 1.0, 1.0])}
    grads = {"unseen": jnp.zeros(3), "mixed": jnp.array([0.5, 0.25, 0.0])}
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["unseen"], -0.01 * 0.1, rtol=1e-4)
    expected = -0.01 * np.array([1 + 0.1 / 0.5, 1 + 0.1 / 0.25, 0.1 / 0.375])
    np.testing.assert_allclose(updates["mixed"], expected, rtol=1e-4)
    dead = X32.at[:, 2].set(0.0)  # a feature that never varies still ends at exactly 0
    w = run(tx, jnp.ones(D), 3000, lambda w: 0.5 * jnp.mean((dead @ w - Y32) ** 2))
    assert w[2] == 0


# Leaves, partitions, dtypes.


def test_untouched_leaves_get_the_plain_optimizer_s_bits():
    params = {"kernel": jnp.ones(3), "bias": jnp.array([1e3])}
    grads = jax.tree.map(jnp.ones_like, params)
    plain, tx = (
        optax.adam(0.05),
        jr.proximal(optax.scale_by_adam(), jr.l1(1e3).on(jr.kernels), 0.05),
    )
    updates, _ = tx.update(grads, tx.init(params), params)
    assert_same_bits(updates["bias"], plain.update(grads, plain.init(params))[0]["bias"])
    assert not optax.apply_updates(params, updates)["kernel"].any()


def test_inside_partition_and_around_it():
    labels = {"kernel": "a", "bias": "b"}
    reg, params = jr.l1(0.3), {"kernel": jnp.zeros(D), "bias": jnp.zeros(1)}
    inside = optax.partition(
        {"a": jr.proximal(optax.scale_by_adam(), reg, 0.02), "b": optax.sgd(0.1)}, labels
    )
    around = jr.proximal(
        optax.partition({"a": optax.scale_by_adam(), "b": optax.identity()}, labels),
        reg.on("kernel"),
        0.02,
    )
    model = Lasso(0.3, tol=1e-14, max_iter=100_000).fit(X, Y)
    for tx in (inside, around):
        fitted = run(tx, params, 6000)
        np.testing.assert_allclose(fitted["kernel"], model.coef_, atol=1e-4)
        np.testing.assert_allclose(fitted["bias"], [model.intercept_], atol=1e-4)


def test_frozen_leaves_stay_though_penalized():
    labels = {"kernel": "a", "bias": "frozen"}
    inner = optax.partition({"a": optax.scale_by_adam(), "frozen": optax.set_to_zero()}, labels)
    fitted = run(jr.proximal(inner, jr.l1(0.3), 0.02), PARAMS, 50)
    assert fitted["bias"] == 0.5


def test_half_precision_keeps_its_dtype_and_exact_zeros():
    dtype = jnp.bfloat16
    params = jax.tree.map(lambda x: x.astype(dtype), PARAMS)
    grads = jax.tree.map(jnp.ones_like, params)
    for tx in (
        optax.chain(jr.add_penalty_gradient(jr.l1(0.3)), optax.adam(0.05)),
        jr.decoupled(optax.scale_by_adam(), jr.l1(0.3), jnp.float32(0.05)),
        jr.proximal(optax.scale_by_adam(), jr.l1(1e3), 0.05),
    ):
        updates, _ = tx.update(grads, tx.init(params), params)
        assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
        moved = optax.apply_updates(params, updates)
    assert not any(p.any() for p in jax.tree.leaves(moved))


def test_double_precision_ends_at_the_lasso_to_rounding():
    with jax.enable_x64(True):
        x, y = jnp.asarray(X), jnp.asarray(Y)
        tx = jr.proximal(optax.scale_by_adam(), jr.l1(0.3), 0.01)
        w = run(tx, jnp.zeros(D), 10_000, lambda w: 0.5 * jnp.mean((x @ w - y) ** 2))
        assert w.dtype == jnp.float64
        np.testing.assert_allclose(w, lasso(), atol=1e-10)


# Strengths and rates as values.


def test_a_schedule_of_the_strength_is_the_penalty_at_each_count():
    strength = optax.linear_schedule(0.5, 0.0, 30)
    schedule = lambda count: jr.l2(strength(count)).on(jr.kernels)
    tx = optax.chain(jr.add_penalty_gradient(schedule), optax.sgd(0.1))
    params = expected = PARAMS
    state = tx.init(params)
    for count in range(5):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        grads = jax.grad(loss)(expected)
        decay = {"kernel": 0.5 * (1 - count / 30) * expected["kernel"], "bias": 0.0}
        expected = jax.tree.map(lambda p, g, d: p - 0.1 * (g + d), expected, grads, decay)
    assert_close(params, expected, rtol=1e-5)


@pytest.mark.parametrize("make", [jr.decoupled, jr.proximal])
def test_a_constant_schedule_is_the_penalty(make):
    inner = optax.scale_by_adam()
    constant = run(make(inner, lambda count: jr.l1(0.3), 0.05), PARAMS, 50)
    assert_close(constant, run(make(inner, jr.l1(0.3), 0.05), PARAMS, 50), rtol=1e-6, atol=1e-7)


COUPLINGS = {
    "added": lambda reg, lr: optax.chain(jr.add_penalty_gradient(reg), optax.adam(lr)),
    "decoupled": lambda reg, lr: jr.decoupled(optax.scale_by_adam(), reg, lr),
    "proximal": lambda reg, lr: jr.proximal(optax.scale_by_adam(), reg, lr),
}


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_strength_and_rate_are_arguments_of_one_program(coupling):
    traces = 0

    @jax.jit
    def fit(lam, lr):
        nonlocal traces
        traces += 1
        return run(COUPLINGS[coupling](jr.l1(lam), lr), PARAMS, 60)["kernel"]

    lams, lrs = jnp.array([0.0, 0.1, 1.0]), jnp.array([0.05, 0.02, 0.01])
    single = [fit(lam, lr) for lam, lr in zip(lams, lrs)]
    assert traces == 1
    np.testing.assert_allclose(jax.vmap(fit)(lams, lrs), single, rtol=1e-3, atol=1e-4)
    fixed = run(COUPLINGS[coupling](jr.l1(0.1), 0.02), PARAMS, 60)["kernel"]
    np.testing.assert_allclose(single[1], fixed, rtol=1e-3, atol=1e-4)


def test_a_lane_with_rate_zero_stays_where_it_is():
    fit = lambda lr: run(jr.proximal(optax.scale_by_adam(), jr.l1(0.1), lr), PARAMS, 5)["kernel"]
    lanes = jax.vmap(fit)(jnp.array([0.0, 0.01]))
    assert_same_bits(lanes[0], PARAMS["kernel"])
    assert np.isfinite(lanes).all()


def test_without_a_penalty_any_optimizer_is_itself():
    for direction in (optax.scale_by_lion(), optax.scale_by_adam()):
        ours = run(jr.proximal(direction, jr.Zero(), 0.05), PARAMS, 20)
        plain = optax.chain(direction, optax.scale_by_learning_rate(0.05))
        assert_close(ours, run(plain, PARAMS, 20), rtol=1e-6)


# Bad input.


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: jr.add_penalty_gradient(1e-4), TypeError, "must be a penalty.*got 0.0001"),
        (
            lambda: jr.decoupled(jr.l2(0.1), optax.adam(1e-3), 1e-3),
            TypeError,
            "`direction` must be",
        ),
        (lambda: jr.proximal(None, jr.l2(0.1), 1e-3), TypeError, "`direction` must be.*got None"),
        (lambda: jr.proximal(optax.identity(), jr.l2(1.0), -1.0), ValueError, ">= 0.*got -1.0"),
        (
            lambda: jr.decoupled(optax.identity(), jr.l2(1.0), float("nan")),
            ValueError,
            "`learning_rate` must be >= 0 and not NaN",
        ),
        (
            lambda: jr.decoupled(optax.identity(), jr.l2(1.0), None),
            TypeError,
            "a schedule, got None",
        ),
        (
            lambda: run(
                optax.chain(jr.add_penalty_gradient(lambda c: 0.1), optax.sgd(1.0)), PARAMS
            ),
            TypeError,
            "must return a penalty.*returned float",
        ),
    ],
)
def test_bad_arguments_are_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_an_update_without_params_is_refused(coupling):
    tx = COUPLINGS[coupling](jr.l2(0.1), 0.1)
    with pytest.raises(ValueError, match=r"tx.update\(grads, state, params\)"):
        tx.update(PARAMS, tx.init(PARAMS))
