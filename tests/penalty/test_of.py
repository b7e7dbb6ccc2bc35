"""Penalties of a function of the parameters: merged factors, products, tied and reparametrised weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg.objective import penalty_gradient

A, B = jnp.array([[1.0, -1.0], [2.0, 0.5]]), jnp.array([[3.0, 0.0], [0.0, -2.0]])
PARAMS = {"a": A, "b": B, "step": jnp.zeros((), jnp.int32)}


def merged(p):
    return {"kernel": p["a"] @ p["b"]}


def test_value_and_gradient_are_those_of_the_whole():
    for reg in (jr.l2(0.3), jr.l1(0.3), jr.group_lasso(0.3, axis=0), jr.l2(0.1) + jr.l1(0.2)):
        whole = A @ B
        of = reg.of(merged)
        np.testing.assert_allclose(of(PARAMS), reg({"kernel": whole}), rtol=1e-6)
        g = penalty_gradient(reg, {"kernel": whole})["kernel"]
        found = penalty_gradient(of, PARAMS)
        np.testing.assert_allclose(found["a"], g @ B.T, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["b"], A.T @ g, rtol=1e-5, atol=1e-6)
        assert found["step"].dtype == jnp.int32


def test_selectors_before_and_after():
    reg = jr.l2(2.0).on("kernel").of(merged)
    np.testing.assert_allclose(reg(PARAMS), jnp.sum((A @ B) ** 2), rtol=1e-6)
    tied = jr.l2(2.0).of(lambda p: p["a"] - p["b"].T)
    np.testing.assert_allclose(tied(PARAMS), jnp.sum((A - B.T) ** 2), rtol=1e-6)


def test_names_terms_and_strengths():
    reg = (jr.l1(0.1) + jr.l2(0.2)).of(merged)
    assert repr(reg) == "(l1(0.1) + l2(0.2)).of(merged)"
    assert [t.label for t in reg.terms()] == ["l1.of(merged)", "l2.of(merged)"]
    np.testing.assert_allclose(jr.l1(0.1).of(merged).strengths()["lam"], 0.1)
    table = jr.tabulate(jr.l2(0.1).of(merged), PARAMS)
    assert {row["leaf"] for row in table.rows if row["term"]} == {"a", "b"}
    assert all(row["value"] is None for row in table.rows)


def test_it_is_swept_and_trained_where_it_says():
    """Of a product u v the nuclear norm is the least (|u|^2 + |v|^2) / 2: both have one optimum in u v."""
    x = jax.random.normal(jax.random.key(0), (50, 1))
    y = 2.0 * x[:, 0]

    def product(p):
        return p["u"] * p["v"]

    def loss(p, x, y):
        return 0.5 * jnp.mean((x[:, 0] * product(p)[0] - y) ** 2)

    def trainer(reg):
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1))
        return jr.Trainer(lambda key: {"u": jnp.ones(1), "v": jnp.ones(1)}, loss, tx)

    grid = jr.grid(lambda lam: jr.l2(lam).of(product), lam=[0.1, 1.0])
    result = jr.sweep(
        trainer,
        grid,
        (x, y),
        validation=(x + 1, y),
        steps=400,
        key=jax.random.key(1),
        progress=False,
    )
    second = float(jnp.mean(x**2))
    for k, lam in enumerate((0.1, 1.0)):
        w = np.asarray(product(result.lane(k)))[0]
        np.testing.assert_allclose(w, 2 * second / (second + lam), rtol=1e-4)
    found = jr.stationarity(loss, result.lane(0), jr.l2(0.1).of(product), x, y)
    assert found.relative < 1e-3


def test_there_is_no_prox_and_it_says_why():
    reg = jr.l1(0.1).of(merged)
    with pytest.raises(
        ValueError, match=r"l1.of\(merged\): there is no prox of a penalty of a function"
    ):
        reg.prox(PARAMS, 0.1)
    floating = {"a": A, "b": B}
    tx = jr.proximal(optax.scale_by_adam(), reg, 0.1)
    with pytest.raises(
        ValueError, match=r"Couple it by jaxreg.add_penalty_gradient or jaxreg.decoupled"
    ):
        tx.update(floating, tx.init(floating), floating)
    for bad in (3, jr.l2(0.1)):
        with pytest.raises(TypeError, match="of: `function` must be a function of the parameters"):
            jr.l2(0.1).of(bad)
