"""Penalties by hand, their algebra, and the prox of a sum."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.trees import BIAS, HEAD, KERNEL, PARAMS, RNG, assert_trees_close, close, each

import jaxreg as jr
from jaxreg.penalty import Around, On, Scaled, Sum

# --- values, by hand --------------------------------------------------------------------------------


def test_the_conventions_of_the_catalogue():
    everything = np.concatenate([KERNEL.ravel(), BIAS, HEAD.ravel()])
    close(jr.l1(0.3)(PARAMS), 0.3 * np.abs(everything).sum(), rtol=1e-6)
    close(jr.l2(0.3)(PARAMS), 0.15 * np.square(everything).sum(), rtol=1e-6)
    mixed = 0.4 * np.abs(everything) + 0.3 * everything**2
    close(jr.elastic_net(2.0, 0.4)(PARAMS), 2 * mixed.sum(), rtol=1e-6)
    rows = np.sqrt(2) * np.linalg.norm(KERNEL, axis=1).sum()
    close(jr.group_lasso(0.3, axis=0).on("dense/kernel")(PARAMS), 0.3 * rows, rtol=1e-6)
    columns = np.linalg.norm(KERNEL, axis=0).sum()
    by_unit = jr.group_lasso(0.3, axis=-1, sqrt_size=False).on("dense/kernel")
    close(by_unit(PARAMS), 0.3 * columns, rtol=1e-6)
    whole = np.sqrt(6) * np.linalg.norm(KERNEL)
    close(jr.group_lasso(0.3).on("dense/kernel")(PARAMS), 0.3 * whole, rtol=1e-6)


def test_group_axes_may_be_several():
    x = jnp.asarray(RNG.normal(size=(2, 3, 4)), jnp.float32)
    expected = 2 * np.linalg.norm(x, axis=2).sum()
    close(jr.group_lasso(1.0, axis=(0, -2))(x), expected, rtol=1e-6)
    close(jr.group_lasso(1.0, axis=(0, 1, 2))(x), jr.l1(1.0)(x), rtol=1e-6)


def test_the_gradient_of_l2_is_optax_weight_decay():
    decayed, _ = optax.add_decayed_weights(0.3).update(
        jax.tree.map(jnp.zeros_like, PARAMS), optax.EmptyState(), PARAMS
    )
    assert_trees_close(jax.grad(jr.l2(0.3))(PARAMS), decayed, rtol=1e-6)


# --- algebra ----------------------------------------------------------------------------------------


def test_a_sum_adds_values_and_flattens():
    a, b, c = jr.l1(0.1), jr.l2(0.2), jr.group_lasso(0.3, axis=0)
    total = a + b + (c + jr.Zero())
    assert isinstance(total, Sum)
    assert total.parts == (a, b, c) == total.terms()
    close(total(PARAMS), a(PARAMS) + b(PARAMS) + c(PARAMS), rtol=1e-6)


def test_the_builtin_sum_works():
    terms = [jr.l1(0.1), jr.l2(0.2), jr.l2(0.3)]
    assert sum(terms).parts == tuple(terms)
    assert sum([terms[0]]) is terms[0]


def test_zero_is_neutral():
    a = jr.l1(0.1)
    assert (a + jr.Zero()) is a
    assert (jr.Zero() + a) is a
    assert isinstance(jr.Zero() + jr.Zero(), jr.Zero)
    assert jr.Zero()(PARAMS) == 0
    assert_trees_close(jr.Zero().prox(PARAMS, 3.0), PARAMS, rtol=0)
    assert_trees_close((2 * jr.Zero() + a).prox(PARAMS, 0.5), a.prox(PARAMS, 0.5), rtol=0)
    assert jr.Zero().terms() == ()


@each
def test_a_factor_scales_value_and_prox(make):
    scaled = 3 * make(0.2)
    assert isinstance(scaled, Scaled)
    close(scaled(PARAMS), make(0.6)(PARAMS), rtol=1e-6)
    assert_trees_close(scaled.prox(PARAMS, 0.5), make(0.6).prox(PARAMS, 0.5), atol=1e-6)


@pytest.mark.parametrize(
    "factor", [3, 3.0, np.float64(3), np.float32(3), np.int64(3), jnp.float32(3), np.array(3.0)]
)
def test_a_factor_may_be_any_scalar_on_either_side(factor):
    x = jnp.array([1.0, -2.0])
    assert (factor * jr.l1(0.5))(x) == (jr.l1(0.5) * factor)(x) == 4.5


def test_scaling_a_sum_scales_every_term():
    total = 2 * (jr.l1(0.1) + jr.l2(0.2))
    close(total(PARAMS), jr.l1(0.2)(PARAMS) + jr.l2(0.4)(PARAMS), rtol=1e-6)
    expected = (jr.l1(0.2) + jr.l2(0.4)).prox(PARAMS, 0.7)
    assert_trees_close(total.prox(PARAMS, 0.7), expected, atol=1e-6)
    assert [repr(t) for t in total.terms()] == ["2 * l1(0.1)", "2 * l2(0.2)"]
    assert [t.label for t in total.terms()] == ["l1", "l2"]


def test_on_touches_the_selected_leaves_only():
    reg = jr.l1(0.3).on(jr.kernels)
    assert isinstance(reg, On)
    close(reg(PARAMS), 0.3 * (np.abs(KERNEL).sum() + np.abs(HEAD).sum()), rtol=1e-6)
    moved = reg.prox(PARAMS, 1.0)
    assert moved["dense"]["bias"] is PARAMS["dense"]["bias"]
    assert_trees_close(
        moved["dense"]["kernel"], jr.l1(0.3).prox(PARAMS["dense"]["kernel"], 1.0), rtol=0
    )
    assert reg.support(PARAMS) == [False, True, True]  # dense/bias, dense/kernel, head/kernel
    assert (jax.grad(reg)(PARAMS)["dense"]["bias"] == 0).all()


def test_on_of_on_intersects():
    reg = jr.l1(0.3).on("dense/*").on(jr.kernels)
    assert reg.support(PARAMS) == [False, True, False]
    close(reg(PARAMS), 0.3 * np.abs(KERNEL).sum(), rtol=1e-6)


def test_around_moves_the_centre():
    center = jax.tree.map(lambda x: x + 0.1, PARAMS)
    close(jr.l2(2.0, center=center)(PARAMS), 0.01 * 10, rtol=1e-4)
    reg = jr.l1(1.0).around(center)
    assert isinstance(reg, Around)
    # Every distance is 0.1: a threshold of 0.2 brings all of them exactly to the centre.
    assert_trees_close(reg.prox(PARAMS, 0.2), center, rtol=0)
    half = reg.prox(PARAMS, 0.05)
    assert_trees_close(half, jax.tree.map(lambda x: x + 0.05, PARAMS), atol=1e-6)


def test_a_centre_may_be_a_scalar_or_a_prefix():
    close(jr.l2(2.0, center=0.5)(PARAMS["dense"]["bias"]), np.square(BIAS - 0.5).sum(), rtol=1e-6)
    center = {"dense": 0.5, "head": {"kernel": HEAD}}
    expected = np.square(KERNEL - 0.5).sum() + np.square(BIAS - 0.5).sum()
    close(jr.l2(2.0, center=center)(PARAMS), expected, rtol=1e-6)


def test_around_leaves_everything_else_bitwise_alone():
    params = {"w": jnp.ones(2), "b": jnp.float32(1e-9), "count": jnp.int32(2**24 + 1)}
    moved = jr.l2(1.0).on("w").around(0.1).prox(params, 1.0)
    assert moved["b"] == params["b"]
    assert (moved["count"], moved["count"].dtype) == (2**24 + 1, jnp.int32)
    close(moved["w"], 0.55, rtol=1e-6)


def test_smooth_and_convex_follow_the_parts():
    assert (jr.l2(1.0) + jr.l2(2.0)).smooth
    assert not (jr.l2(1.0) + jr.l1(2.0)).smooth
    assert not (2 * jr.l1(1.0).on("*").around(1.0)).smooth
    assert (jr.l2(1.0) + jr.l1(2.0)).convex


def test_terms_carry_their_wrappers():
    reg = (jr.l1(0.1) + jr.l2(0.2)).on(jr.kernels) + jr.l2(0.3)
    assert [t.label for t in reg.terms()] == ["l1.on(kernels)", "l2.on(kernels)", "l2"]
    close(sum(t(PARAMS) for t in reg.terms()), reg(PARAMS), rtol=1e-6)


def test_reprs_read_like_the_code_that_made_them():
    reg = 2 * jr.l1(1e-3).on(jr.kernels) + jr.l2(0.5).on(~jr.biases)
    assert repr(reg) == "2 * l1(0.001).on(kernels) + l2(0.5).on(~biases)"
    assert repr((2 * jr.l1(1)).on("*/k")) == "(2 * l1(1)).on(path('*/k'))"
    assert repr((jr.l1(1) + jr.l2(2)).around(0.5)) == "(l1(1) + l2(2)).around(0.5)"
    assert repr(2 * (jr.l1(1) + jr.l2(2))) == "2 * (l1(1) + l2(2))"
    assert repr(jr.elastic_net(1, 0.25)) == "elastic_net(1, l1_ratio=0.25)"
    assert repr(jr.group_lasso(1, axis=0)) == "group_lasso(1, axis=0)"
    assert repr(jr.l2(np.ones(3), weights=2.0)) == "l2(float32[3], weights=2)"
    assert repr(jr.l1({"a": 0.5, "b": np.ones(3)})) == "l1({'a': 0.5, 'b': float32[3]})"
    assert repr(jr.Zero()) == "Zero()"
    jax.jit(lambda p: repr(p) and 0.0)(jr.l1(1))  # tracers can be printed


# --- the prox of a sum ------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0.3, 2.0])
@pytest.mark.parametrize("x", [-1.3, -0.2, 0.0, 0.4, 1.7])
def test_any_number_of_l2_terms_and_one_other_on_a_grid(x, step):
    reg = jr.l2(0.7, center=0.5) + jr.l1(0.4) + jr.l2(0.2) + 3 * jr.l2(0.1, center=-1.0)
    z = np.linspace(-3, 3, 600_001)
    value = 0.35 * (z - 0.5) ** 2 + 0.4 * np.abs(z) + 0.1 * z**2 + 0.15 * (z + 1) ** 2
    best = z[np.argmin(value + (z - x) ** 2 / (2 * step))]
    close(reg.prox(jnp.array([x]), step), [best], atol=2e-5)


def test_l2_terms_alone_need_no_other():
    reg = jr.l2(0.7, center=1.0) + jr.l2(0.3)
    close(reg.prox(jnp.array([2.0]), 0.5), [(2 + 0.5 * 0.7) / (1 + 0.5)], rtol=1e-6)
    zero = jr.l2(0.0, center=1.0) + jr.l2(0.0)
    assert zero.prox(jnp.array([2.0]), 0.5).tolist() == [2.0]


@pytest.mark.parametrize("weights", [None, jnp.array([[0.5, 3.0], [1.0, 0.0]])])
def test_l2_beside_a_group_lasso_on_a_grid(weights):
    """With unequal weights the inner prox is one in a diagonal metric."""
    reg = jr.l2(0.8, weights=weights) + jr.group_lasso(0.5, axis=0, sqrt_size=False)
    x = np.array([[1.5, -0.8], [0.1, 0.2]])
    found = np.asarray(reg.prox(jnp.asarray(x, jnp.float32), 0.7), np.float64)
    w = np.ones((2, 2)) if weights is None else np.asarray(weights)
    a, b = np.meshgrid(*[np.linspace(-0.05, 0.05, 201)] * 2, indexing="ij")
    for row in range(2):
        u, v = found[row, 0] + a, found[row, 1] + b
        moreau = (
            0.4 * (w[row, 0] * u**2 + w[row, 1] * v**2)
            + 0.5 * np.hypot(u, v)
            + ((u - x[row, 0]) ** 2 + (v - x[row, 1]) ** 2) / 1.4
        )
        assert moreau[100, 100] <= moreau.min() + 1e-7


def test_disjoint_leaves_go_their_own_ways():
    reg = jr.l1(0.3).on("dense/kernel") + jr.group_lasso(0.4, axis=0).on("head/*") + jr.l2(0.5)
    moved = reg.prox(PARAMS, 0.6)
    alone = (jr.l1(0.3) + jr.l2(0.5)).prox(PARAMS["dense"]["kernel"], 0.6)
    close(moved["dense"]["kernel"], alone, atol=1e-6)
    close(moved["dense"]["bias"], BIAS / 1.3, rtol=1e-6)
    alone = (jr.group_lasso(0.4, axis=0) + jr.l2(0.5)).prox(PARAMS["head"]["kernel"], 0.6)
    close(moved["head"]["kernel"], alone, atol=1e-6)


def test_a_sum_without_a_closed_form_names_both_terms_the_leaf_and_the_remedy():
    reg = jr.l2(0.1) + jr.l1(0.3).on(jr.kernels) + jr.group_lasso(0.4, axis=0).on("dense/*")
    expected = (
        "prox of a sum: l1.on(kernels) and group_lasso.on(path('dense/*')) both act on the leaf "
        "'dense/kernel', and the prox of such a sum has no closed form. Give them disjoint leaves"
    )
    with pytest.raises(ValueError, match=re.escape(expected)) as refused:
        reg.prox(PARAMS, 1.0)
    remedy = "jaxreg.prox_of_sum(penalty, params, step, method='dykstra'), which iterates."
    assert str(refused.value).endswith(remedy)
    assert jr.prox_of_sum(reg, PARAMS, 1.0, method="dykstra").converged
    assert np.isfinite(reg(PARAMS))  # the value is fine


def test_the_prox_of_a_sum_sees_leaves_in_their_own_dtype():
    def low(path, leaf):
        return leaf.dtype == jnp.bfloat16

    params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2)}
    reg = jr.l1(0.5).on(jr.select.where(low)) + jr.l2(1.0).on("b")
    moved = reg.prox(params, 1.0)
    assert (moved["a"].tolist(), moved["b"].tolist()) == ([0.5, 0.5], [0.5, 0.5])
    assert (moved["a"].dtype, moved["b"].dtype) == (jnp.bfloat16, jnp.float32)


# --- beside the constraint params >= 0 --------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda nonneg: jr.l1(0.3, **nonneg),
        lambda nonneg: jr.elastic_net(0.3, 0.5, **nonneg),
        lambda nonneg: jr.mcp(0.3, **nonneg),
        lambda nonneg: jr.l0(0.3, **nonneg),
        lambda nonneg: 0.5 * jr.huber(0.3, 0.2, **nonneg),
    ],
    ids=["l1", "elastic_net", "mcp", "l0", "scaled huber"],
)
def test_a_sum_with_nonneg_is_the_one_sided_penalty(make):
    both, alone = make({}) + jr.nonneg(), make({"nonneg": True})
    x = jnp.linspace(-2, 2, 33)
    metric = jnp.linspace(0.1, 2.5, 33)
    for step in (0.7, metric):
        close(both.prox(x, step), alone.prox(x, step), rtol=1e-6)
    at, grad = jnp.maximum(x, 0), jnp.roll(x, 7)
    close(both.min_norm_subgradient(at, grad), alone.min_norm_subgradient(at, grad), rtol=1e-6)
    assert both(x) == np.inf
    close(both(at), alone(at), rtol=1e-6)


def test_quadratics_and_nonneg_and_a_kink_have_one_prox():
    """By brute force: each coordinate's objective on a fine grid."""
    reg = jr.l2(0.8, center=-0.5) + jr.l1(0.2) + jr.nonneg() + jr.l2(0.3, center=2.0)
    z = np.linspace(0, 4, 400_001)
    for x in (-3.0, -0.1, 0.4, 2.5):
        goal = 0.4 * (z + 0.5) ** 2 + 0.2 * z + 0.15 * (z - 2) ** 2 + (z - x) ** 2 / (2 * 0.7)
        close(reg.prox(jnp.array([x]), 0.7), z[np.argmin(goal)], atol=2e-5)
    only = jr.l2(0.8, center=-0.5) + jr.nonneg()
    close(only.prox(jnp.array([-3.0, 2.0]), 1.0), [0.0, (2 - 0.4) / 1.8], rtol=1e-6)


def test_nonneg_beside_what_is_not_even_is_refused():
    match = "nonneg and group_lasso both act on the leaf"
    for reg in (jr.group_lasso(0.1) + jr.nonneg(), jr.nonneg() + jr.group_lasso(0.1)):
        with pytest.raises(ValueError, match=match):
            reg.prox(jnp.ones(3), 1.0)
    with pytest.raises(ValueError, match="nonneg and l1.around"):
        (jr.l1(0.1, center=1.0) + jr.nonneg()).prox(jnp.ones(3), 1.0)
    apart = jr.group_lasso(0.1).on("a") + jr.nonneg().on("b")
    moved = apart.prox({"a": -jnp.ones(3), "b": -jnp.ones(2)}, 1.0)
    assert (moved["a"] < 0).all()
    assert (moved["b"] == 0).all()
