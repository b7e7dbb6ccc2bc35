"""Penalties as values: algebra, forms of strength, transformations, dtypes, and refusals."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg.penalty import Around, On, Scaled, Sum

close = np.testing.assert_allclose
RNG = np.random.default_rng(0)
PARAMS = {
    "dense": {
        "kernel": jnp.asarray(RNG.normal(size=(3, 2)), jnp.float32),
        "bias": jnp.asarray(RNG.normal(size=2), jnp.float32),
    },
    "head": {"kernel": jnp.asarray(RNG.normal(size=(2, 1)), jnp.float32)},
}
KERNEL, BIAS, HEAD = (np.asarray(x, np.float64) for x in (
    PARAMS["dense"]["kernel"], PARAMS["dense"]["bias"], PARAMS["head"]["kernel"]
))  # fmt: skip
FACTORIES = {
    "l1": jr.l1,
    "l2": jr.l2,
    "elastic_net": lambda lam: jr.elastic_net(lam, 0.3),
    "group_lasso": lambda lam: jr.group_lasso(lam, axis=0),
}
each = pytest.mark.parametrize("make", FACTORIES.values(), ids=FACTORIES)


def leaves(tree):
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]


def assert_trees_close(a, b, **kwargs):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(leaves(a), leaves(b)):
        close(x, y, **kwargs)


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
    assert repr(jr.group_lasso(1, axis=0)) == "group_lasso(1, axis=0, sqrt_size=True)"
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
    with pytest.raises(ValueError, match=re.escape(expected)):
        reg.prox(PARAMS, 1.0)
    assert np.isfinite(reg(PARAMS))  # the value is fine


def test_the_prox_of_a_sum_sees_leaves_in_their_own_dtype():
    def low(path, leaf):
        return leaf.dtype == jnp.bfloat16

    params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2)}
    reg = jr.l1(0.5).on(jr.where(low)) + jr.l2(1.0).on("b")
    moved = reg.prox(params, 1.0)
    assert (moved["a"].tolist(), moved["b"].tolist()) == ([0.5, 0.5], [0.5, 0.5])
    assert (moved["a"].dtype, moved["b"].dtype) == (jnp.bfloat16, jnp.float32)


# --- forms of strength ------------------------------------------------------------------------------


@each
def test_strengths_per_layer_are_prefix_pytrees(make):
    reg = make({"dense": 0.3, "head": {"kernel": 0.7}})
    expected = make(0.3)(PARAMS["dense"]) + make(0.7)(PARAMS["head"])
    close(reg(PARAMS), expected, rtol=1e-6)
    moved = reg.prox(PARAMS, 0.5)
    assert_trees_close(moved["dense"], make(0.3).prox(PARAMS["dense"], 0.5), atol=1e-7)
    assert_trees_close(moved["head"], make(0.7).prox(PARAMS["head"], 0.5), atol=1e-7)


def test_a_prefix_goes_with_a_selection():
    reg = jr.l1({"dense": 0.3, "head": 0.7}).on("dense/*")
    close(reg(PARAMS), jr.l1(0.3)(PARAMS["dense"]), rtol=1e-6)


@pytest.mark.parametrize("name", ["l1", "l2", "elastic_net"])
def test_strengths_per_coordinate_are_arrays_at_the_rank_of_the_leaf(name):
    make, lam = FACTORIES[name], np.array([[0.1, 0.9], [0.4, 0.0], [0.2, 0.3]])
    x = jnp.asarray(KERNEL, jnp.float32)
    entries = [[make(lam[i, j])(x[i, j]) for j in range(2)] for i in range(3)]
    close(make(lam)(x), np.sum(entries), rtol=1e-6)
    alone = [[make(lam[i, j]).prox(x[i, j], 0.8) for j in range(2)] for i in range(3)]
    close(make(lam).prox(x, 0.8), np.array(alone), rtol=1e-6)
    column = np.array([[0.1], [0.4], [0.0]])
    close(make(column)(x), make(np.broadcast_to(column, (3, 2)))(x), rtol=1e-6)


def test_group_lasso_takes_one_strength_per_group():
    x, lam = jnp.asarray(KERNEL, jnp.float32), np.array([[0.1], [0.9], [0.0]])
    reg = jr.group_lasso(lam, axis=0)
    norms = np.sqrt(2) * np.linalg.norm(KERNEL, axis=1)
    close(reg(x), (lam[:, 0] * norms).sum(), rtol=1e-6)
    alone = [jr.group_lasso(lam[i, 0]).prox(x[i], 0.8) for i in range(3)]
    close(reg.prox(x, 0.8), np.stack(alone), atol=1e-6)


def test_weights_multiply_lam_in_every_form():
    weights = {"dense": {"kernel": np.abs(KERNEL), "bias": 0.0}, "head": 2.0}
    expected = 0.3 * (np.sum(np.abs(KERNEL) ** 2) + 2 * np.abs(HEAD).sum())
    reg = jr.l1(0.3, weights=weights)
    close(reg(PARAMS), expected, rtol=1e-6)
    moved = reg.prox(PARAMS, 1.0)
    assert_trees_close(moved["dense"]["bias"], PARAMS["dense"]["bias"], rtol=0)
    threshold = 0.3 * np.abs(KERNEL)
    soft = np.sign(KERNEL) * np.maximum(np.abs(KERNEL) - threshold, 0)
    close(moved["dense"]["kernel"], soft, atol=1e-6)


def test_weights_and_centre_together_are_a_diagonal_gaussian_prior():
    mean, precision = KERNEL + 1, np.array([[1.0, 2.0], [0.0, 3.0], [4.0, 0.5]])
    reg = jr.l2(0.5, weights=precision, center=mean)
    close(reg(jnp.asarray(KERNEL, jnp.float32)), 0.25 * precision.sum(), rtol=1e-5)


@each
def test_steps_may_be_a_prefix_or_one_per_coordinate(make):
    reg, steps = make(0.3), {"dense": 0.5, "head": 2.0}
    moved = reg.prox(PARAMS, steps)
    assert_trees_close(moved["dense"], reg.prox(PARAMS["dense"], 0.5), atol=1e-7)
    assert_trees_close(moved["head"], reg.prox(PARAMS["head"], 2.0), atol=1e-7)
    full = jax.tree.map(lambda x: jnp.full(x.shape, 0.5), PARAMS)
    assert_trees_close(reg.prox(PARAMS, full), reg.prox(PARAMS, 0.5), atol=1e-6)


@each
def test_a_strength_of_zero_or_a_step_of_zero_is_the_identity(make):
    for moved in (make(0.0).prox(PARAMS, 3.0), make(0.5).prox(PARAMS, 0.0)):
        assert_trees_close(moved, PARAMS, rtol=0)
    still = jax.tree.map(jnp.zeros_like, PARAMS)
    assert_trees_close(make(0.5).prox(PARAMS, still), PARAMS, rtol=0)
    assert make(0.0)(PARAMS) == 0
    zero_group = jnp.zeros((2, 2))
    assert (make(0.0).prox(zero_group, 1.0) == 0).all()


# --- a penalty is a value ---------------------------------------------------------------------------


@each
def test_one_trace_serves_every_strength(make):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(reg, params):
        return reg(params), reg.prox(params, 0.5)

    for lam in (0, 1, 0.5, np.float64(0.1), np.float32(0.2), jnp.float32(0.3), np.array(2)):
        value, _ = run((3 * make(lam)).on(jr.kernels) + jr.l2(lam), PARAMS)
        assert np.isfinite(value)


def test_jit_does_not_take_one_penalty_for_another():
    value = jax.jit(lambda reg, x: reg(x))
    x = jnp.array([3.0])
    assert (value(jr.l1(1.0), x), value(jr.l2(1.0), x)) == (3.0, 4.5)
    structures = [jax.tree.structure(make(1.0)) for make in FACTORIES.values()]
    assert len(set(structures)) == 4
    assert jax.tree.structure(jr.l1(1.0)) != jax.tree.structure(jr.l2(1.0))
    assert jax.tree.structure(jr.l1(1.0).on("a")) != jax.tree.structure(jr.l1(1.0).on("b"))


@each
def test_vmap_over_a_penalty_is_a_loop(make):
    lams = np.array([0.0, 0.1, 1.0])
    many = jax.tree.map(lambda *xs: jnp.stack(xs), *[make(lam) + jr.l2(lam) for lam in lams])
    values = jax.vmap(lambda reg: reg(PARAMS))(many)
    moved = jax.vmap(lambda reg: reg.prox(PARAMS, 0.5))(many)
    for k, lam in enumerate(lams):
        one = make(lam) + jr.l2(lam)
        close(values[k], one(PARAMS), rtol=1e-6)
        expected = one.prox(PARAMS, 0.5)
        assert_trees_close(jax.tree.map(lambda x, k=k: x[k], moved), expected, atol=1e-6)


def test_a_gradient_is_a_penalty_of_derivatives():
    reg = 2 * jr.l1(0.3).on(jr.kernels) + jr.elastic_net({"dense": 0.5, "head": 0.1}, 0.4)
    grad = jax.grad(lambda reg: reg(PARAMS))(reg)
    assert jax.tree.structure(grad) == jax.tree.structure(reg)
    close(grad.parts[0].factor, 0.3 * (np.abs(KERNEL).sum() + np.abs(HEAD).sum()), rtol=1e-5)
    mixed = 0.4 * np.abs(HEAD) + 0.3 * HEAD**2
    close(grad.parts[1].lam["head"], mixed.sum(), rtol=1e-5)


@pytest.mark.parametrize("metric", [False, True])
def test_value_and_prox_are_differentiable_in_the_strengths(metric):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), PARAMS)
        steps = jax.tree.map(lambda x: 0.1 + x**2, params) if metric else 0.5
        reg = jr.elastic_net(0.3, 0.4).on("*bias") + jr.l2(0.2, center=0.1)
        reg = reg + 2 * jr.group_lasso(0.25, axis=0).on(jr.kernels)
        flat, rebuild = jax.flatten_util.ravel_pytree(reg)

        def scores(flat):
            moved = rebuild(flat).prox(params, steps)
            return jnp.stack([rebuild(flat)(params), *map(jnp.sum, jax.tree.leaves(moved))])

        shifts = 1e-6 * jnp.eye(len(flat))
        run = jax.jit(jax.vmap(scores))
        slopes = (run(flat + shifts) - run(flat - shifts)) / 2e-6
        close(jax.jit(jax.jacrev(scores))(flat), slopes.T, atol=1e-8)


# --- kinks and dtypes -------------------------------------------------------------------------------


def test_the_derivative_of_l1_at_zero_is_zero():
    x = jnp.array([0.0, -2.0, 3.0])
    assert jax.grad(jr.l1(0.5))(x).tolist() == [0.0, -0.5, 0.5]
    assert jax.grad(jr.elastic_net(0.5, 1.0))(x).tolist() == [0.0, -0.5, 0.5]


@each
def test_gradients_are_finite_at_zero(make):
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    assert all((g == 0).all() for g in jax.tree.leaves(jax.grad(make(0.5))(zeros)))
    slopes = jax.jacrev(lambda x: make(0.5).prox(x, 1.0))(zeros["dense"]["kernel"])
    assert np.isfinite(slopes).all()


@each
@pytest.mark.parametrize(("dtype", "x64"), [("bfloat16", 0), ("float16", 0), ("float32", 1)])
def test_dtypes_are_kept_and_sums_are_wide(make, dtype, x64):
    with jax.enable_x64(bool(x64)):
        params = jax.tree.map(lambda x: jnp.asarray(x, dtype), PARAMS["dense"])
        reg = 2 * make(0.3) + jr.l2(0.1, center=0.2)
        assert make(0.3)(params).dtype == reg(params).dtype == jnp.float32
        for step in (0.5, jnp.float32(0.5), {"kernel": jnp.ones((3, 2)), "bias": 1}):
            moved = reg.prox(params, step)
            assert {x.dtype for x in jax.tree.leaves(moved)} == {jnp.dtype(dtype)}
        assert jax.grad(reg)(params)["bias"].dtype == dtype


@each
def test_low_precision_loses_only_the_rounding_of_the_result(make):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    close(make(0.3)(half), make(0.3)(exact), rtol=1e-6)
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), make(0.3).prox(exact, 0.5))
    assert_trees_close(make(0.3).prox(half, 0.5), rounded, rtol=0)


def test_a_long_low_precision_leaf_is_summed_exactly():
    ones = jnp.ones(4096, jnp.bfloat16)  # a bfloat16 sum stops at 256
    assert jr.l1(1.0)(ones) == 4096
    assert jr.l2(1.0)(ones) == 2048


@each
def test_double_precision_is_used_where_it_is_on(make):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), PARAMS)
        assert make(0.1)(params).dtype == jnp.float64
        moved = (make(0.1) + jr.l2(0.1)).prox(params, 0.5)
        assert {x.dtype for x in jax.tree.leaves(moved)} == {jnp.dtype("float64")}
        close(make(0.1)(params), make(0.1)(PARAMS), rtol=1e-6)


def test_numpy_and_python_numbers_are_leaves_too(recwarn):
    reg = jr.l1(np.float64(0.5)) + jr.l2(np.linspace(0, 1, 2))
    moved = reg.prox({"w": np.array([2.0, 2.0])}, 1.0)
    assert moved["w"].tolist() == [1.5, 0.75]
    assert jr.l1(0.5).prox({"w": 2.0}, 1.0)["w"] == 1.5
    assert jr.l1(0.5, center=1).prox({"w": 2.0}, 1.0)["w"] == 1.5
    assert not recwarn.list  # such as "float64 is not available"


@each
def test_absent_leaves_stay_absent(make):
    params = {"a": None, "b": jnp.array([[1.0, -2.0]]), "c": (None,)}
    reg = make(0.3) + jr.l2(0.5, center=0.1)
    close(reg(params), reg(params["b"]), rtol=1e-6)
    moved = reg.prox(params, 0.5)
    assert moved["a"] is None
    assert jax.tree.structure(moved) == jax.tree.structure(params)
    centred = jr.l2(1.0, center={"a": None, "b": 0.5, "c": (None,)})
    close(centred(params), 0.5 * (0.25 + 6.25), rtol=1e-6)


# --- refusals ---------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("bad", [-1, -0.5, np.nan, np.array([1.0, -1.0]), {"a": 1.0, "b": -2.0}])
def test_negative_and_nan_strengths_are_refused(make, bad):
    with pytest.raises(
        ValueError, match=r"`lam` must be >= 0 and not NaN, got .*For no penalty use Zero"
    ):
        make(bad)


@each
@pytest.mark.parametrize("bad", ["0.1", None, True, 1j, {"a": None}])
def test_strengths_that_are_no_numbers_are_refused(make, bad):
    with pytest.raises(
        TypeError, match=r"`lam` must be a number, an array or a pytree of them, got "
    ):
        make(bad)


def test_error_texts_name_function_argument_and_value():
    with pytest.raises(ValueError, match=r"l1: `lam` must be >= 0 and not NaN, got -0\.5\."):
        jr.l1(-0.5)
    with pytest.raises(
        ValueError, match=r"l2: `weights` must be >= 0 and not NaN, got float32\[2\]\."
    ):
        jr.l2(1.0, weights=jnp.array([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"elastic_net: `l1_ratio` is a share.*got 1\.5"):
        jr.elastic_net(1.0, 1.5)
    with pytest.raises(ValueError, match=r"elastic_net: `l1_ratio` must be >= 0.*got -0\.5"):
        jr.elastic_net(1.0, -0.5)
    with pytest.raises(ValueError, match=r"around: `center` must not be NaN, got nan"):
        jr.l2(1.0, center=float("nan"))
    with pytest.raises(TypeError, match=r"around: `center` must be a number.*got 'a'"):
        jr.l2(1.0).around("a")


def test_factors_are_one_nonnegative_number():
    with pytest.raises(
        ValueError, match=r"penalty \*: `factor` must be >= 0 and not NaN, got -2\."
    ):
        -2 * jr.l1(1.0)
    for bad in (np.ones(2), {"a": 1.0}):
        with pytest.raises(ValueError, match=r"penalty \*: `factor` must be one number, got "):
            bad * jr.l1(1.0)
    for wrong in (lambda: jr.l1(1.0) * jr.l2(1.0), lambda: jr.l1(1.0) + 1, lambda: 1 + jr.l1(1.0)):
        with pytest.raises(TypeError, match="unsupported operand"):
            wrong()


@each
@pytest.mark.parametrize("bad", [-1.0, np.nan, jnp.float32(-1), {"dense": 1.0, "head": -1.0}])
def test_negative_steps_are_refused(make, bad):
    for reg in (make(1.0), 2 * make(1.0), make(1.0) + jr.l2(1.0), make(1.0).on(jr.kernels)):
        with pytest.raises(ValueError, match="`step` must be >= 0 and not NaN, got "):
            reg.prox(PARAMS, bad)


@each
def test_integer_and_complex_leaves_are_refused_by_path(make):
    for x, kind in [
        (jnp.arange(3), "int32"),
        (jnp.ones(3, jnp.complex64), "complex64"),
        (3, "a int"),
    ]:
        params = {"w": jnp.ones(3), "net": {"n": x}}
        for call in (lambda p: make(1.0)(p), lambda p: make(1.0).prox(p, 1.0)):
            with pytest.raises(TypeError, match=rf"leaf 'net/n' is .*{kind}.*~path\('net/n'\)"):
                call(params)
        assert np.isfinite(make(1.0).on(~jr.path("net/n"))(params))


def test_strengths_that_fit_no_leaf_are_refused_with_the_path():
    where = r"on the leaf 'dense/kernel' of shape \(3, 2\)"
    with pytest.raises(ValueError, match=r"l1: `lam` has shape \(2,\) " + where):
        jr.l1(np.ones(2)).on("dense/kernel")(PARAMS)
    with pytest.raises(
        ValueError, match=r"l1: `lam` is a pytree that does not match the parameters"
    ):
        jr.l1({"dense": 1.0})(PARAMS)
    with pytest.raises(ValueError, match=r"prox: `step` has shape \(2,\) on the leaf"):
        (jr.l2(1.0) + jr.l2(1.0)).prox(PARAMS["dense"]["kernel"], np.ones(2))
    with pytest.raises(ValueError, match=r"l2: `step` has shape \(2,\) on the leaf"):
        jr.l2(1.0).prox(PARAMS["dense"]["kernel"], np.ones(2))
    with pytest.raises(ValueError, match=r"around: `center` has shape \(4,\) on the leaf"):
        jr.l2(1.0, center=np.ones(4))(PARAMS["dense"]["bias"])


def test_a_group_axis_out_of_range_names_the_leaf():
    where = r"the leaf 'dense/bias' of shape \(2,\)\. Take an axis from -1 to 0, None"
    with pytest.raises(ValueError, match="`axis` 1 is out of range for " + where):
        jr.group_lasso(1.0, axis=1)(PARAMS)
    with pytest.raises(ValueError, match=r"`axis` -3 is out of range for the leaf 'dense/kernel'"):
        jr.group_lasso(1.0, axis=-3).on(jr.kernels).prox(PARAMS, 1.0)
    with pytest.raises(
        ValueError, match=r"the leaf '' of shape \(\)\. Take None for the whole leaf"
    ):
        jr.group_lasso(1.0, axis=0)(jnp.ones(()))


@pytest.mark.parametrize("axis", [1.5, "a", [0], True, (0, "a"), (0, True)])
def test_a_group_axis_is_an_integer(axis):
    with pytest.raises(
        TypeError, match="group_lasso: `axis` must be an integer, a tuple of them or None"
    ):
        jr.group_lasso(1.0, axis=axis)


def test_a_strength_that_varies_inside_a_group_is_refused():
    with pytest.raises(ValueError, match=r"`lam` has shape \(3, 2\) and differs inside a group"):
        jr.group_lasso(np.ones((3, 2)), axis=0)(PARAMS["dense"]["kernel"])


def test_what_has_no_closed_form_says_so():
    class Rough(jr.Elementwise):
        smooth, convex = False, True

        def rho(self, x):
            return jnp.abs(x) ** 1.5

        def prox_rho(self, x, threshold):
            raise ValueError("rough: no prox.")

    reg, x = Rough(1.0), jnp.ones(2)
    assert reg(x) == 2
    for call in (reg.prox, reg.min_norm_subgradient):
        with pytest.raises(ValueError, match=r"rough: (no prox|`kink` is not defined)"):
            call(x, x)
    with pytest.raises(ValueError, match="rough: the conjugate has no closed form"):
        reg.conjugate(x)
    with pytest.raises(ValueError, match=r"l1 \+ l2: lambda_max has no closed form"):
        (jr.l1(1.0) + jr.l2(1.0)).lambda_max(x)


def test_a_smooth_penalty_of_ones_own_needs_not_be_even():
    class Upwards(jr.Elementwise):
        smooth, convex = True, True

        def rho(self, x):
            return jnp.exp(x)

        def prox_rho(self, x, threshold):
            raise ValueError("no prox.")

    x, grad = jnp.array([0.0, 1.0]), jnp.array([-0.5, 0.0])
    close(Upwards(0.5).min_norm_subgradient(x, grad), [0.0, 0.5 * np.e], rtol=1e-6)
