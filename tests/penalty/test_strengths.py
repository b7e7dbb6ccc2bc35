"""Strengths in all their forms, a penalty as a value of jax, kinks and dtypes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.trees import FACTORIES, HEAD, KERNEL, PARAMS, assert_trees_close, close, each

import jaxreg as jr

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


# --- given for the whole tree, used on a part -----------------------------------------------------


@pytest.mark.parametrize(
    "lam",
    [
        {"dense": {"kernel": 0.1}},
        {"dense": 0.1},
        {"dense": 0.1, "head": 0.2},
        {"dense": {"kernel": jnp.full((3, 2), 0.1), "bias": 7.0}, "head": {"kernel": 0.3}},
    ],
)
def test_strengths_of_the_whole_tree_serve_under_a_selection(lam):
    close(jr.l2(lam).on("dense/kernel")(PARAMS), 0.05 * (KERNEL**2).sum(), rtol=1e-6)
    weighted = jr.l1(0.5, weights=lam).on("dense/kernel")
    close(weighted(PARAMS), 0.05 * np.abs(KERNEL).sum(), rtol=1e-6)


def test_a_centre_is_matched_by_path():
    center = {"dense": {"kernel": jnp.full((3, 2), 0.5), "bias": 0.0}}
    want = 0.5 * ((KERNEL - 0.5) ** 2).sum()
    for reg in (
        jr.l2(1.0).around(center).on("dense/kernel"),
        jr.l2(1.0).on("dense/kernel").around(center),
        jr.l2(1.0).around(center | {"head": 9.0}).on("dense/kernel"),
    ):
        close(reg(PARAMS), want, rtol=1e-6)
        close(reg.prox(PARAMS, 1e9)["dense"]["kernel"], np.full((3, 2), 0.5), rtol=1e-5)
        np.testing.assert_array_equal(
            reg.prox(PARAMS, 1.0)["head"]["kernel"], PARAMS["head"]["kernel"]
        )
    with pytest.raises(
        ValueError, match="around: `center` has no leaf for 'head/kernel', which the"
    ):
        jr.l2(1.0).around(center)(PARAMS)
    with pytest.raises(
        ValueError, match=r"around: `center` has the leaf 'dens', which .* \['dense/"
    ):
        jr.l2(1.0).around({"dens": 1.0}).on("dense/*")(PARAMS)
