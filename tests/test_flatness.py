"""Sharpness-aware gradients against their papers' formulas, by hand, and what they are composed with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr

RNG = np.random.default_rng(0)
A = RNG.normal(size=(6, 6))
A = A @ A.T
W = RNG.normal(size=6)


def quadratic(params):
    w = jnp.concatenate([params["a"], params["b"]])
    return 0.5 * w @ jnp.asarray(A) @ w


PARAMS = {"a": jnp.asarray(W[:2]), "b": jnp.asarray(W[2:])}


def joined(tree):
    return np.concatenate([tree["a"], tree["b"]])


@pytest.mark.parametrize("adaptive", [False, True])
def test_it_is_the_gradient_at_the_worst_place_over_all_parameters(adaptive):
    g = A @ W
    t = np.abs(W) + 0.01 if adaptive else np.ones(6)
    worst = W + 0.3 * t**2 * g / np.linalg.norm(t * g)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), PARAMS)
        value, grad = jr.sam(quadratic, 0.3, adaptive=adaptive)(params)
    np.testing.assert_allclose(joined(grad), A @ worst, rtol=1e-6)
    np.testing.assert_allclose(
        value, 0.5 * W @ A @ W, rtol=1e-6, err_msg="the value is the clean one"
    )


def test_the_adaptive_kind_does_not_see_how_layers_are_scaled():
    """f(a, b) = g(a b): scaled by c and 1/c, ε is scaled alike, up to η."""
    f = lambda p: jnp.sum((p["a"] * p["b"] - 1.0) ** 2)
    p = {"a": jnp.array([2.0, -30.0]), "b": jnp.array([10.0, 40.0])}
    q = {"a": 10 * p["a"], "b": p["b"] / 10}
    grads = [jr.sam(f, 0.1, adaptive=True)(x)[1] for x in (p, q)]
    np.testing.assert_allclose(grads[0]["a"], 10 * grads[1]["a"], rtol=1e-2)
    plain = [jr.sam(f, 0.1)(x)[1] for x in (p, q)]
    assert np.abs(plain[0]["a"] / (10 * plain[1]["a"]) - 1).max() > 0.02


def test_it_is_plain_at_zero_finite_without_a_gradient_and_swept():
    plain = jax.grad(quadratic)(PARAMS)
    lanes = jax.jit(jax.vmap(lambda rho: jr.sam(quadratic, rho)(PARAMS)[1]))(jnp.array([0.0, 0.3]))
    np.testing.assert_allclose(
        joined(jax.tree.map(lambda x: x[0], lanes)), joined(plain), rtol=1e-6
    )
    np.testing.assert_allclose(
        joined(jax.tree.map(lambda x: x[1], lanes)),
        joined(jr.sam(quadratic, 0.3)(PARAMS)[1]),
        rtol=1e-5,
    )
    nothing = jax.tree.map(jnp.zeros_like, PARAMS)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jr.sam(quadratic, 0.3)(nothing)[1]))
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    loose = lambda p: quadratic(jax.tree.map(lambda x: x.astype(jnp.float32), p))
    assert {x.dtype for x in jax.tree.leaves(jr.sam(loose, 0.3)(narrow)[1])} == {
        jnp.dtype(jnp.bfloat16)
    }


X = RNG.normal(size=(24, 4)).astype(np.float32)
Y = (X[:, 0] + 0.5 * RNG.normal(size=24)).astype(np.float32)


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def trainer(point):
    tx = optax.chain(jr.add_penalty_gradient(point["reg"]), optax.sgd(0.1))
    gradient = functools.partial(jr.sam, rho=point["rho"])
    return jr.Trainer(lambda key: jnp.ones(4), loss, tx, value_and_grad=gradient)


def by_hand(rho, lam, steps):
    w, x, y = np.ones(4), X.astype(float), Y.astype(float)
    slope = lambda w: x.T @ (x @ w - y) / len(x)
    for _ in range(steps):
        g = slope(w)
        w = w - 0.1 * (slope(w + rho * g / np.linalg.norm(g)) + lam * w)
    return w


def test_a_sweep_over_rho_is_a_loop_in_numpy_and_penalties_stay_where_they_are():
    grid = jr.grid(lambda rho, lam: {"rho": rho, "reg": jr.l2(lam)}, rho=[0.0, 0.2], lam=[0.0, 0.5])
    swept = jr.sweep(trainer, grid, (X, Y), folds=np.full(24, -1) + (np.arange(24) < 2), steps=20,
                     key=jax.random.key(0))  # fmt: skip
    rows = np.arange(24) >= 2
    kept = X[rows], Y[rows]
    for k, point in enumerate(zip(*(np.asarray(v) for v in swept.coords.values()))):
        state = jr.fit(trainer, grid[k], kept, steps=20, key=jax.random.key(0))
        np.testing.assert_allclose(swept.params[k, 0, 0], state.params, rtol=1e-4, atol=1e-6)
        whole = jr.fit(trainer, grid[k], (X, Y), steps=20, key=jax.random.key(0))
        np.testing.assert_allclose(whole.params, by_hand(*point, 20), rtol=1e-4, atol=1e-6)


def test_gradients_are_accumulated_each_at_the_worst_place_of_its_own_batch():
    """m-sharpness: the mean of the gradients of two batches, each climbed by itself, and a penalty once."""
    rho, lr, lam = 0.2, 0.1, 0.5
    x = RNG.normal(size=(2, 5, 3)).astype("f")
    y = RNG.normal(size=(2, 5)).astype("f")
    w = RNG.normal(size=3).astype("f")
    loss = lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2)
    inner = optax.chain(jr.add_penalty_gradient(jr.l2(lam)), optax.sgd(lr))
    trainer = jr.Trainer(
        lambda key: jnp.asarray(w), loss, optax.MultiSteps(inner, 2).gradient_transformation(),
        value_and_grad=functools.partial(jr.sam, rho=rho),
    )  # fmt: skip
    state = trainer.start(jax.random.key(0))
    for i in range(2):
        state, _ = trainer.step(state, (x[i], y[i]), number=i)
    slope = lambda w, x, y: x.T @ (x @ w - y) / len(y)
    climbed = [w + rho * g / np.linalg.norm(g) for g in (slope(w, *b) for b in zip(x, y))]
    mean = np.mean([slope(v, *b) for v, b in zip(climbed, zip(x, y))], 0)
    np.testing.assert_allclose(state.params, w - lr * (mean + lam * w), rtol=1e-5)


def test_statistics_are_those_of_the_clean_pass():
    def stateful(point):
        def counted(w, state, x, y):
            return loss(w, x, y), {"w": w, "calls": state["calls"] + 1}

        init = lambda key: (jnp.ones(4), {"w": jnp.zeros(4), "calls": jnp.zeros(())})
        judged = lambda w, state, x, y: loss(w, x, y)
        gradient = functools.partial(jr.sam, rho=point["rho"])
        return jr.Trainer(init, counted, optax.sgd(0.1), eval_loss=judged, stateful=True,
                          value_and_grad=gradient)  # fmt: skip

    state = jr.fit(stateful, {"rho": 0.3}, (X, Y), steps=1, key=jax.random.key(0))
    np.testing.assert_array_equal(state.model_state["w"], np.ones(4))
    assert state.model_state["calls"] == 1


BAD = [
    (lambda: jr.sam(3, 0.1), TypeError, "sam: `fun` must be a function.*got 3"),
    (lambda: jr.sam(loss, -0.1), ValueError, "sam: `rho` must be >= 0"),
    (lambda: jr.sam(loss, jnp.ones(2)), ValueError, "sam: `rho` must be one number"),
    (lambda: jr.sam(loss, 0.1, adaptive=1), TypeError, "sam: `adaptive` must be True or False"),
]


@pytest.mark.parametrize(("call", "error", "match"), BAD)
def test_what_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_a_gradient_of_another_kind_is_refused_before_anything_compiles():
    def made(gradient):
        tx = optax.sgd(0.1)
        return lambda point: jr.Trainer(lambda key: jnp.ones(4), loss, tx, value_and_grad=gradient)

    fit = lambda gradient: jr.fit(
        made(gradient), {"a": 0.1}, (X, Y), steps=1, key=jax.random.key(0)
    )
    with pytest.raises(
        TypeError, match=r"`value_and_grad` must return \(\(loss, aux\), gradient\)"
    ):
        fit(lambda fun, has_aux: lambda params: fun(params))
    with pytest.raises(TypeError, match="`value_and_grad` must take what jax.value_and_grad takes"):
        fit(lambda fun: jax.value_and_grad(fun))
    with pytest.raises(TypeError, match="Trainer: `value_and_grad` must be a function, got 3"):
        fit(3)
