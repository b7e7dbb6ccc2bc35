"""Pytrees: names of leaves, prefixes, partition and combine, and safe derivatives at kinks."""

import dataclasses

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxreg import _tree

NESTED = {
    "layers": [{"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, {"kernel": jnp.ones((2, 1))}],
    "scale": jnp.ones(()),
}
PATHS = ("layers/0/bias", "layers/0/kernel", "layers/1/kernel", "scale")


# --- names ------------------------------------------------------------------------------------------


def test_paths_are_keys_joined_by_slashes_in_the_order_of_leaves():
    leaves = _tree.flatten(NESTED)
    assert leaves.paths == PATHS
    assert all(a is b for a, b in zip(leaves.values, jax.tree.leaves(NESTED)))
    assert jax.tree.structure(leaves.rebuild(leaves.values)) == jax.tree.structure(NESTED)


def test_a_bare_array_has_the_empty_path():
    assert _tree.flatten(jnp.ones(2)).paths == ("",)


def test_none_is_no_leaf():
    assert _tree.flatten({"a": None, "b": 1.0}).paths == ("b",)


def test_boxes_of_flax_do_not_show_in_the_path():
    state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    assert sorted(_tree.flatten(state).paths) == ["bias", "kernel"]
    boxed = nn.Dense(3, kernel_init=nn.with_partitioning(nn.initializers.ones, ("a", "b")))
    params = boxed.init(jax.random.key(0), jnp.ones((1, 2)))
    assert sorted(_tree.flatten(params).paths) == ["params/bias", "params/kernel"]


def test_a_value_of_ones_own_keeps_its_name():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Net:
        value: jax.Array

    assert _tree.flatten(Net(jnp.ones(2))).paths == ("value",)
    assert _tree.flatten({"value": jnp.ones(2), "a": {"value": 1.0}}).paths == ("a/value", "value")


def test_an_equinox_module_has_attribute_paths():
    net = eqx.filter(eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0)), eqx.is_inexact_array)
    assert "layers/0/weight" in _tree.flatten(net).paths


# --- prefixes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [0.5, np.float32(2), jnp.ones(2), "text"])
def test_a_leaf_is_a_prefix_of_everything(prefix):
    found = _tree.prefix_leaves(prefix, NESTED, "l1", "lam")
    assert len(found) == 4
    assert all(p is prefix for p in found)


def test_a_prefix_may_stop_at_any_depth():
    prefix = {"layers": [1.0, {"kernel": 2.0}], "scale": 3.0}
    assert _tree.prefix_leaves(prefix, NESTED, "l1", "lam") == [1.0, 1.0, 2.0, 3.0]
    assert _tree.prefix_leaves({"layers": 1.0, "scale": 3.0}, NESTED, "l1", "lam") == [1, 1, 1, 3.0]


def test_a_prefix_skips_absent_leaves():
    tree = {"a": None, "b": jnp.ones(2)}
    assert _tree.prefix_leaves({"a": 1.0, "b": 2.0}, tree, "l1", "lam") == [2.0]


@pytest.mark.parametrize("prefix", [{}, (), {"layers": 1.0}, {"layers": [1.0, {"kernel": 1.0}]}])
def test_what_is_no_prefix_is_refused_with_both_lists(prefix):
    with pytest.raises(
        ValueError, match=r"l1: `lam` is a pytree that does not match.*\['layers/0/bias'"
    ):
        _tree.prefix_leaves(prefix, NESTED, "l1", "lam")


@pytest.mark.parametrize(
    ("prefix", "leaf"), [({"layers": 1.0, "scale": 1.0, "z": 1.0}, "z"), ([1.0, 2.0], "0")]
)
def test_a_leaf_that_is_nowhere_is_refused_with_the_nearest(prefix, leaf):
    match = f"l1: `lam` has the leaf '{leaf}', which the parameters lack; the nearest are \\["
    with pytest.raises(ValueError, match=match):
        _tree.prefix_leaves(prefix, NESTED, "l1", "lam")


def test_what_is_given_for_the_whole_tree_serves_a_selection_of_it():
    """The leaves that a selection leaves out are None: their values are known, and not used."""
    selected = {"layers": [{"bias": None, "kernel": 1}, None], "scale": None}
    prefix = {"layers": [{"bias": 1.0, "kernel": 2.0}, 3.0], "scale": 4.0}
    assert _tree.prefix_leaves(prefix, selected, "l1", "lam") == [2.0]
    assert _tree.prefix_leaves({"layers": 5.0}, selected, "l1", "lam") == [5.0]


def test_long_lists_of_leaves_are_cut():
    with pytest.raises(ValueError, match=r"'f', … 14 more\]"):
        _tree.prefix_leaves({"a": 1.0}, {chr(97 + i): 1.0 for i in range(20)}, "l1", "lam")


# --- partition and combine --------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [[True] * 4, [False] * 4, [True, False, True, False]])
def test_combine_undoes_partition(mask):
    selected = _tree.partition(NESTED, mask)
    assert _tree.flatten(selected).paths == tuple(p for p, keep in zip(PATHS, mask) if keep)
    doubled = jax.tree.map(lambda x: 2 * x, selected)
    back = _tree.combine(doubled, NESTED, mask)
    assert jax.tree.structure(back) == jax.tree.structure(NESTED)
    for x, y, keep in zip(jax.tree.leaves(NESTED), jax.tree.leaves(back), mask):
        assert (y == 2 * x).all() if keep else y is x


# --- dtypes -----------------------------------------------------------------------------------------


def test_floating_leaves_are_known_by_dtype():
    floating = [1.0, np.float64(1), np.ones(2), jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.float16)]
    others = [1, True, 1j, "a", np.ones(2, int), jnp.ones(2, jnp.complex64), jax.random.key(0)]
    assert all(map(_tree.is_floating, floating))
    assert not any(map(_tree.is_floating, others))


@pytest.mark.parametrize(
    ("dtype", "expected"), [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32")]
)
def test_sums_are_taken_in_float32_at_least(dtype, expected):
    assert _tree.accumulator(jnp.ones(2, dtype)) == expected
    with jax.enable_x64(True):
        assert _tree.accumulator(jnp.ones(2, dtype)) == expected
        assert _tree.accumulator(jnp.ones(2, jnp.float64)) == "float64"


# --- kinks ------------------------------------------------------------------------------------------


def test_the_derivative_of_safe_abs_at_zero_is_zero():
    x = jnp.array([-2.0, 0.0, -0.0, 3.0])
    assert _tree.safe_abs(x).tolist() == [2.0, 0.0, 0.0, 3.0]
    for grad in (jax.jacrev, jax.jacfwd):
        assert jnp.diagonal(grad(_tree.safe_abs)(x)).tolist() == [-1.0, 0.0, 0.0, 1.0]
    assert jax.grad(jnp.abs)(0.0) == 1.0  # what it is for


@pytest.mark.parametrize("axis", [None, 0, (0, 1), ()])
def test_safe_norm_is_the_norm_with_a_finite_gradient(axis):
    x = jnp.array([[3.0, 0.0], [-4.0, 0.0]])
    norm = np.sqrt(np.sum(np.square(x), axis=axis))
    np.testing.assert_allclose(_tree.safe_norm(x, axis), norm, rtol=1e-6)
    grad = jax.grad(lambda x: jnp.sum(_tree.safe_norm(x, axis)))
    assert np.isfinite(grad(x)).all()
    assert (grad(jnp.zeros((2, 2))) == 0).all()


def test_the_gradient_of_safe_norm_is_the_unit_vector():
    np.testing.assert_allclose(jax.grad(_tree.safe_norm)(jnp.array([3.0, 4.0])), [0.6, 0.8])
