"""The rewrite of convolutions changes their layout and nothing else, wherever they hide."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxreg as jr
from jaxreg import _convolution
from jaxreg._convolution import canonical_convolutions

KEYS = jax.random.split(jax.random.key(0), 2)


@pytest.fixture(autouse=True)
def rewriting(monkeypatch):
    """The rewrite is on in every test, whatever this backend needs."""
    monkeypatch.setattr(_convolution, "needs_rewrite", lambda: True)


def conv(x, w):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def loss(w, x):
    return jnp.sum(jnp.tanh(conv(jax.nn.relu(conv(x, w["a"])), w["b"])) ** 2)


X = jax.random.normal(KEYS[0], (3, 5, 5, 2))
W = {
    "a": jax.random.normal(KEYS[1], (3, 3, 2, 4)) / 3,
    "b": jax.random.normal(KEYS[0], (3, 3, 4, 2)) / 3,
}


def descend(w, x):
    step = lambda w, _: (jax.tree.map(lambda a, g: a - 1e-2 * g, w, jax.grad(loss)(w, x)), None)
    return lax.scan(step, w, length=3)[0]


PROGRAMS = {
    "grad": jax.grad(loss),
    "scan": descend,
    "nested jit": jax.jit(jax.jit(descend)),
    "fori": lambda w, x: lax.fori_loop(0, 3, lambda i, w: descend(w, x), w),
    "traced length": lambda w, x: lax.fori_loop(0, jnp.argmax(x) * 0 + 2, lambda i, w: descend(w, x), w),
    "remat": lambda w, x: jax.grad(lambda w: jax.checkpoint(loss)(w, x))(w),
    "cond": lambda w, x: lax.cond(x.sum() > 0, lambda: loss(w, x), lambda: loss(w, 2 * x)),
    "vmap over kernels": lambda w, x: jax.vmap(lambda s: descend(jax.tree.map(lambda a: s * a, w), x))(
        jnp.array([0.5, 1.0])
    ),
    "map in vmap": lambda w, x: jax.vmap(lambda x: lax.map(lambda s: loss(W, s * x), jnp.ones(2)))(
        jnp.stack([x, 2 * x])
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_values_are_equal(name):
    want = PROGRAMS[name](W, X)
    got = jax.jit(canonical_convolutions(PROGRAMS[name]))(W, X)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        # Sums of terms as large as the largest entry are rounded, whatever is left of them.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(b).max())


def test_custom_derivatives_survive():
    @jax.custom_vjp
    def f(w, x):
        return loss(w, x)

    f.defvjp(
        lambda w, x: (f(w, x), (w, x)),
        lambda res, g: (jax.tree.map(lambda a: 7 * g * a, res[0]), None),
    )
    got = canonical_convolutions(jax.grad(f))(W, X)
    np.testing.assert_allclose(got["a"], 7 * W["a"], rtol=1e-6)


@pytest.mark.parametrize(
    "spec", [("NCHW", "OIHW", "NCHW"), ("CNHW", "IHWO", "HWNC"), ("HWNC", "HWOI", "CHWN")]
)
@pytest.mark.parametrize(
    "options", [{}, {"rhs_dilation": (2, 1)}, {"lhs_dilation": (1, 2)}, {"window_strides": (2, 1)}]
)
def test_every_layout_and_option(spec, options):
    sizes = {"N": 4, "C": 6, "H": 7, "W": 8}
    x = jax.random.normal(KEYS[0], [sizes[c] for c in spec[0]])
    w = jax.random.normal(KEYS[1], [{"O": 4, "I": 3, "H": 2, "W": 3}[c] for c in spec[1]])
    f = lambda x, w: lax.conv_general_dilated(
        x, w, **{"window_strides": (1, 1), "padding": ((1, 0), (0, 2)), **options},
        dimension_numbers=spec, feature_group_count=2,
    )  # fmt: skip
    np.testing.assert_allclose(canonical_convolutions(f)(x, w), f(x, w), rtol=1e-5, atol=1e-5)


def test_the_compiled_loop_has_only_the_fast_layout():
    text = jax.jit(canonical_convolutions(descend)).lower(W, X).compile().as_text()
    labels = set(re.findall(r"dim_labels=(\S+?)[,}\s]", text))
    assert labels <= {"b01f_01io->b01f"}, labels


def test_without_need_the_program_is_untouched(monkeypatch):
    monkeypatch.setattr(_convolution, "needs_rewrite", lambda: False)
    transposes = lambda: str(jax.make_jaxpr(canonical_convolutions(descend))(W, X)).count(
        "transpose["
    )
    plain = str(jax.make_jaxpr(descend)(W, X)).count("transpose[")
    assert transposes() == plain
    monkeypatch.setattr(_convolution, "needs_rewrite", lambda: True)
    assert transposes() > plain


def test_map_grid_rewrites_by_itself():
    fit = lambda reg: reg.prox(jax.grad(loss)(W, X), 1.0)
    got = jr.map_grid(fit, jr.grid(jr.l2, lam=[0.0, 1.0]))
    want = jax.grad(loss)(W, X)["a"]
    np.testing.assert_allclose(got["a"], np.stack([want, want / 2]), rtol=1e-5, atol=1e-5)
