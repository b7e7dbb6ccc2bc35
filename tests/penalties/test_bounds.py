"""Bounds on every entry: box, nonneg, and one sign for the other separable penalties."""

import jax
import jax.numpy as jnp
import pytest

import jaxreg as jr


class TestBox:
    """Bounds as leaves, in the dtype of the parameters."""

    def test_projected_entries_are_feasible_in_every_dtype(self):
        bounds = jr.box(-0.1, 0.1)
        for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
            x = jnp.linspace(-1, 1, 9).astype(dtype)
            z = bounds.prox(x, 1.0)
            assert z.dtype == dtype
            assert bounds(z) == 0
            assert bounds(x) == jnp.inf

    def test_bounds_may_differ_by_layer_and_coordinate(self):
        bounds = jr.box({"a": -1.0, "b": jnp.array([0.0, -2.0])}, {"a": jnp.inf, "b": 1.0})
        params = {"a": jnp.array([-5.0, 5.0]), "b": jnp.array([-5.0, -5.0])}
        z = bounds.prox(params, 1.0)
        assert z["a"].tolist() == [-1, 5]
        assert z["b"].tolist() == [0, -2]

    def test_subgradient_is_held_by_the_bound_it_pushes_against(self):
        x, grad = jnp.array([-1.0, -1.0, 0.5, 2.0, 2.0]), jnp.array([3.0, -3.0, 3.0, 3.0, -3.0])
        found = jr.box(-1.0, 2.0).min_norm_subgradient(x, grad)
        assert found.tolist() == [0, -3, 3, 3, 0]
        assert jr.box(0.0, 1.0).subdiff_distance(x, grad) == jnp.inf
        assert jr.box(0.0, 0.0).subdiff_distance(jnp.zeros(5), grad) == 0

    def test_refusals(self):
        with pytest.raises(ValueError, match=r"box: `low` must not exceed `high`, got 2 and 1\."):
            jr.box(2.0, 1.0)
        with pytest.raises(ValueError, match="`low` must not exceed"):
            jr.box({"a": 0.0, "b": 3.0}, 1.0)
        with pytest.raises(ValueError, match="box: `high` must not be NaN"):
            jr.box(0.0, float("nan"))
        with pytest.raises(TypeError, match="box: `low` must be a number"):
            jr.box(None, 1.0)


class TestNonneg:
    """One sign only."""

    def test_subgradient_at_the_edge(self):
        x, grad = jnp.array([0.0, 0.0, 0.0, 1.0]), jnp.array([0.9, -0.3, -0.9, 0.2])
        found = jr.l1(0.5, nonneg=True).min_norm_subgradient(x, grad)
        assert found.tolist() == pytest.approx([0.0, 0.0, -0.4, 0.7])
        outside = jr.l1(0.5, nonneg=True).subdiff_distance(-x, grad)
        assert outside == jnp.inf

    def test_value_is_inf_outside_and_the_gradient_finite(self):
        reg = jr.l2(1.0, nonneg=True)
        assert reg(jnp.array([1.0, -1e-6])) == jnp.inf
        assert jax.grad(lambda x: reg(x))(jnp.array([1.0, 0.0])).tolist() == [1, 0]

    def test_composes_with_selectors_sums_and_multiples(self):
        params = {"kernel": jnp.array([2.0, -2.0]), "bias": jnp.array([-2.0])}
        reg = 2 * jr.l1(0.5, nonneg=True).on("kernel") + jr.l2(1.0)
        z = reg.prox(params, 1.0)
        assert z["kernel"].tolist() == [0.5, 0]
        assert z["bias"].tolist() == [-1]

    def test_repr_and_label(self):
        assert repr(jr.l1(0.5, nonneg=True)) == "l1(0.5, nonneg=True)"
        assert jr.mcp(0.5, nonneg=True).label == "mcp(nonneg)"
        assert repr(jr.nonneg()) == "nonneg()"
        assert repr(jr.box(0.0, 1.0)) == "box(0, 1)"

    def test_refusals(self):
        with pytest.raises(
            ValueError, match=r"`nonneg` and `center` together .* l1\(\.\.\., nonneg=True\)"
        ):
            jr.l1(1.0, nonneg=True, center=1.0)
        with pytest.raises(TypeError, match="`nonneg` must be True or False, got 1"):
            jr.l1(1.0, nonneg=1)
