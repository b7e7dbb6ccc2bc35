"""The objective is the loss plus the penalty, and the ledger keeps them apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxreg as jr
from jaxreg.objective import penalty_gradient, split

X = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)), jnp.float32)
Y = jnp.asarray(np.random.default_rng(1).normal(size=12), jnp.float32)
W = jnp.array([1.0, -2.0, 0.5])


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_value_and_gradient_match_the_closed_form(wrap):
    objective = jr.penalized(loss)
    value, grad = wrap(jax.value_and_grad(objective))(W, jr.l2(0.3), X, Y)
    w, x, y = (np.asarray(a, np.float64) for a in (W, X, Y))
    residual = x @ w - y
    np.testing.assert_allclose(value, 0.5 * np.mean(residual**2) + 0.15 * w @ w, rtol=1e-6)
    np.testing.assert_allclose(grad, x.T @ residual / len(y) + 0.3 * w, rtol=1e-5)


def test_gradient_in_the_penalty_is_the_derivative_in_each_strength():
    reg = jr.l1(0.1) + jr.l2(0.3)
    slopes = jax.tree.leaves(jax.grad(jr.penalized(loss), argnums=1)(W, reg, X, Y))
    np.testing.assert_allclose(slopes, [3.5, 0.5 * 5.25], rtol=1e-6)


def test_many_strengths_are_one_trace():
    traces = 0

    @jax.jit
    def value(w, reg):
        nonlocal traces
        traces += 1
        return jr.penalized(loss)(w, reg, X, Y)

    values = [value(W, jr.l2(lam)) for lam in (0, 0.1, 1.0, np.float32(2), jnp.asarray(3.0))]
    assert traces == 1
    lams = jnp.array([0.0, 0.1, 1.0, 2.0, 3.0])
    swept = jax.vmap(lambda lam: value(W, jr.l2(lam)))(lams)
    np.testing.assert_allclose(swept, values, rtol=1e-6)


def test_aux_and_keywords_pass_through():
    def with_aux(w, x, *, shift):
        return jnp.mean(x @ w) + shift, {"seen": len(x)}

    value, aux = jr.penalized(with_aux, has_aux=True)(W, jr.l2(2.0), X, shift=3.0)
    assert aux == {"seen": 12}
    np.testing.assert_allclose(value, jnp.mean(X @ W) + 3 + 5.25, rtol=1e-6)
    entry = jr.ledger(with_aux, has_aux=True)(W, jr.l2(2.0), X, shift=3.0)
    assert entry.aux == {"seen": 12}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtype_is_that_of_the_loss(dtype):
    assert jr.penalized(lambda w: jnp.sum(w).astype(dtype))(W, jr.l2(0.1)).dtype == dtype
    assert jr.ledger(lambda w: jnp.sum(w).astype(dtype))(W, jr.l2(0.1)).total.dtype == dtype


def test_an_integer_loss_does_not_truncate_the_penalty():
    np.testing.assert_allclose(jr.penalized(lambda w: 0)(W, jr.l2(0.1)), 0.2625, rtol=1e-6)


def test_ledger_keeps_every_term_apart():
    reg = jr.l2(0.1).on("a") + jr.l1(0.5) + jr.l2(0.2).on("a")
    params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([-4.0])}
    books = jr.ledger(lambda p: jnp.sum(p["a"]))
    entry = books(params, reg)
    assert list(entry.terms) == ["l2.on(path('a'))", "l1", "l2.on(path('a')) #2"]
    np.testing.assert_allclose(list(entry.terms.values()), [0.25, 3.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose([entry.loss, entry.penalty, entry.total], [3, 4.25, 7.25], rtol=1e-6)
    jax.tree.map(np.testing.assert_allclose, jax.jit(books)(params, reg)._asdict(), entry._asdict())
    assert books(params, jr.Zero()).terms == {}


def test_terms_of_the_loss_are_added_and_booked_apart():
    with_terms = lambda w, x, y: (
        loss(w, x, y),
        {"size": jnp.sum(jnp.abs(w)), "mean": jnp.mean(w) ** 2},
    )
    value = jr.penalized(with_terms)(W, jr.l2(0.1), X, Y)
    by_hand = loss(W, X, Y) + jnp.sum(jnp.abs(W)) + jnp.mean(W) ** 2 + 0.05 * jnp.sum(W**2)
    np.testing.assert_allclose(value, by_hand, rtol=1e-6)
    entry = jr.ledger(lambda *given: (with_terms(*given), "seen"), has_aux=True)(
        W, jr.l2(0.1), X, Y
    )
    assert (list(entry.terms), entry.aux) == (["size", "mean", "l2"], "seen")
    np.testing.assert_allclose(entry.loss, loss(W, X, Y), rtol=1e-6)
    np.testing.assert_allclose(entry.total, by_hand, rtol=1e-6)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(lams=st.tuples(*[st.floats(0, 10, width=32, allow_subnormal=False)] * 3))
def test_split_and_ledger_add_up_to_the_whole(lams):
    reg = jr.l1(lams[0]) + 2.0 * (jr.l2(lams[1]) + jr.elastic_net(lams[2])).on(jr.select.everything)
    smooth, rest = split(reg)
    assert smooth.smooth
    assert not any(term.smooth for term in rest.terms())
    np.testing.assert_allclose(smooth(W) + rest(W), reg(W), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jr.ledger(loss)(W, reg, X, Y).penalty, reg(W), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("reg", "smooth", "rest"),
    [
        (jr.l2(1.0), "l2(1)", "Zero()"),
        (jr.l1(1.0), "Zero()", "l1(1)"),
        (jr.Zero(), "Zero()", "Zero()"),
        (jr.l1(1.0) + 2 * jr.l2(3.0), "2 * l2(3)", "l1(1)"),
        ((jr.l1(1.0) + jr.l2(3.0)).on("w"), "l2(3).on(path('w'))", "l1(1).on(path('w'))"),
    ],
)
def test_split(reg, smooth, rest):
    assert tuple(map(repr, split(reg))) == (smooth, rest)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_penalty_gradient_is_like_the_params(dtype):
    params = {"w": jnp.array([3.0, 0.0, -1.0], dtype), "b": jnp.ones(2), "n": jnp.arange(2)}
    grads = penalty_gradient((jr.l1(1.0) + jr.l2(0.5)).on("w"), params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), grads) == jax.tree.map(
        lambda x: (x.shape, x.dtype), params
    )
    assert grads["w"].tolist() == [2.5, 0.0, -1.5]
    assert not grads["b"].any()
    assert not grads["n"].any()


def test_penalty_gradient_matches_finite_differences():
    with jax.enable_x64(True):
        w = jnp.asarray(np.random.default_rng(2).normal(size=(3, 2)))
        reg = jr.group_lasso(0.3, axis=0) + jr.elastic_net(0.2)
        grad, h = penalty_gradient(reg, w), 1e-6
        for index in np.ndindex(3, 2):
            slope = (reg(w.at[index].add(h)) - reg(w.at[index].add(-h))) / (2 * h)
            np.testing.assert_allclose(grad[index], slope, rtol=1e-7)
        assert grad.dtype == jnp.float64


def test_penalty_gradient_of_nothing_is_zero():
    params = {"w": jnp.ones(2), "n": jnp.arange(3)}
    assert not any(g.any() for g in jax.tree.leaves(penalty_gradient(jr.Zero(), params)))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: jr.penalized(3.0), TypeError, "penalized: `loss` must be a function.*got 3.0"),
        (lambda: jr.ledger(jr.l2(1.0)), TypeError, "ledger: `loss` must be a function"),
        (lambda: jr.penalized(loss)(W, 0.1, X, Y), TypeError, "`penalty` must be.*got float"),
        (lambda: jr.penalized(loss)(jr.l2(0.1), W, X, Y), TypeError, "comes after the parameters"),
        (lambda: jr.penalized(lambda w: w)(W, jr.l2(1.0)), ValueError, r"scalar, got shape \(3,\)"),
        (
            lambda: jr.penalized(lambda w: (w[0], 1))(W, jr.l2(1.0)),
            TypeError,
            "has_aux=False the loss must return one scalar, or .*, got a tuple of 2",
        ),
        (
            lambda: jr.ledger(lambda w: w[0], has_aux=True)(W, jr.l2(1.0)),
            TypeError,
            "has_aux=True the loss must return a pair",
        ),
        (
            lambda: jr.ledger(lambda w: (w[0], {"l2": w[1]}))(W, jr.l2(1.0)),
            ValueError,
            "ledger: the loss returns a term 'l2', and that is the name of one of the penalty",
        ),
        (
            lambda: jr.penalized(lambda w: (w[0], {"t": w}))(W, jr.l2(1.0)),
            ValueError,
            r"penalized: the term 't' of the loss must be a scalar, got shape \(3,\)",
        ),
        (lambda: split(0.1), TypeError, "split: `penalty` must be"),
        (lambda: penalty_gradient(None, W), TypeError, "got NoneType"),
        (
            lambda: penalty_gradient(jr.l2(1.0), {"n": jnp.arange(3)}),
            TypeError,
            "'n' is of dtype int32",
        ),
    ],
)
def test_bad_input_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
