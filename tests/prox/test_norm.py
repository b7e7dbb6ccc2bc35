"""The norms under the group operators: no over- or underflow, one pass, the same under vmap and grad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg.prox._groups import Labels
from jaxreg.prox._norm import scaled_norm

pytestmark = pytest.mark.formulas

X = np.random.default_rng(0).normal(size=(3, 4, 5))


def left(x, t):
    """What soft-thresholding leaves, in float64."""
    x = np.asarray(x, np.float64)
    return np.sign(x) * np.maximum(np.abs(x) - t, 0)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_it_is_the_norm_of_what_the_threshold_leaves(axis, size):
    x = jnp.asarray(size * X, jnp.float32)
    for t in (None, 0.0, 0.7 * size, 0.7 * size * np.ones((3, 1, 1))):
        rest = left(x, 0 if t is None else t) / size
        expected = np.sqrt(np.sum(rest**2, axis))
        found = np.asarray(scaled_norm(x, axis, t), np.float64) / size
        np.testing.assert_allclose(found.squeeze(), expected.squeeze(), rtol=3e-6)


def test_labels_take_a_threshold_too():
    found = scaled_norm(jnp.asarray(X[0, 0]), Labels(np.array([0, 1, 0, 1, 1])), 0.3)
    rest = left(X[0, 0], 0.3)
    expected = [np.linalg.norm(rest[[0, 2]]), np.linalg.norm(rest[[1, 3, 4]])]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("mapped", [(0, 0), (0, None), (None, 0)])
@pytest.mark.parametrize("axis", [None, 1, -2])
def test_vmapped_it_is_the_loop(mapped, axis):
    x, t = jnp.asarray(X, jnp.float32), jnp.array([0.1, 0.5, 2.0])
    args = [a if m == 0 else a[0] for a, m in zip((x, t), mapped)]
    found = jax.vmap(lambda x, t: scaled_norm(x, axis, t), mapped)(*args)
    for i in range(3):
        one = [a[i] if m == 0 else a for a, m in zip(args, mapped)]
        np.testing.assert_allclose(found[i], scaled_norm(one[0], axis, one[1]), rtol=1e-6)


def test_its_derivatives_are_finite_differences():
    with jax.enable_x64(True):
        x, t, way = jnp.asarray(X[0]), jnp.array([[0.2], [0.4], [0.1], [0.3]]), jnp.asarray(X[1])
        norm = lambda x, t: scaled_norm(x, 1, t).sum()
        slopes = jax.grad(norm, (0, 1))(x, t)
        h = 1e-7
        np.testing.assert_allclose(
            jnp.sum(slopes[0] * way),
            (norm(x + h * way, t) - norm(x - h * way, t)) / (2 * h),
            rtol=1e-6,
        )
        np.testing.assert_allclose(
            slopes[1].sum(), (norm(x, t + h) - norm(x, t - h)) / (2 * h), rtol=1e-6
        )


def test_a_group_that_is_cut_to_nothing_has_slope_zero_and_nan_stays():
    slope = jax.grad(lambda x: scaled_norm(x, None, 9.0).reshape(()))(jnp.ones(3))
    assert slope.tolist() == [0, 0, 0]
    assert jnp.isnan(scaled_norm(jnp.array([1.0, jnp.nan]), None, 0.5)).all()
