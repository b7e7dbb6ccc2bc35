"""The first proximal operators against closed forms, brute force in float64, and their edges."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxreg import prox

F32 = np.float32
EPS = np.finfo(F32).eps
finite = st.floats(-1e3, 1e3, width=32, allow_subnormal=False)
vectors = arrays(F32, 6, elements=finite)
thresholds = st.sampled_from([0.0, 1e-3, 0.5, 1.0, 7.0, 1e4])


def metric_brute_force(x, step, lam):
    """argmin lam |z| + sum (z - x)^2 / (2 step) by bisection on |z|, in float64."""
    x, step = np.asarray(x, np.float64), np.asarray(step, np.float64)
    held = (step == 0) & (x != 0)
    scaled = x[step > 0] / step[step > 0]
    if not held.any() and np.linalg.norm(scaled) <= lam:
        return np.zeros_like(x)
    low, high = 0.0, np.linalg.norm(x)
    for _ in range(400):
        nu = (low + high) / 2
        with np.errstate(divide="ignore", over="ignore"):
            too_low = np.sum(np.where(x == 0, 0, x / (nu + step * lam)) ** 2) > 1
        low, high = (nu, high) if too_low else (low, nu)
    return np.where(x == 0, 0, x * high / np.where(x == 0, 1, high + step * lam))


# --- soft threshold, shrink, elastic net ------------------------------------------------------------


@given(x=vectors, threshold=thresholds)
def test_soft_threshold_is_its_closed_form_with_exact_zeros(x, threshold):
    z = np.asarray(prox.soft_threshold(x, threshold))
    expected = np.sign(x) * np.maximum(np.abs(x) - F32(threshold), 0)
    np.testing.assert_array_equal(z, expected)
    assert ((np.abs(x) <= threshold) <= (z == 0)).all()
    assert not np.signbit(z[z == 0]).any()


@given(x=vectors, threshold=thresholds)
def test_shrink_solves_its_stationarity_equation(x, threshold):
    z = np.asarray(prox.shrink(x, threshold), np.float64)
    np.testing.assert_allclose(z - x + F32(threshold) * z, 0, atol=4 * EPS * np.abs(x).max())


@given(x=vectors, a=thresholds, b=thresholds)
def test_elastic_net_is_the_better_of_zero_and_the_stationary_point(x, a, b):
    z = np.asarray(prox.elastic_net(x, a, b), np.float64)
    stationary = (x - np.sign(x) * F32(a)) / (1 + F32(b))
    expected = np.where(np.abs(x) > a, stationary, 0)
    np.testing.assert_allclose(z, expected, rtol=4 * EPS, atol=4 * EPS * np.abs(x).max())


def test_thresholds_broadcast():
    x = jnp.array([[3.0, -3.0], [1.0, -0.5]])
    assert prox.soft_threshold(x, jnp.array([1.0, 2.0])).tolist() == [[2.0, -1.0], [0.0, 0.0]]
    assert prox.shrink(x, jnp.array([[0.0], [1.0]])).tolist() == [[3.0, -3.0], [0.5, -0.25]]
    assert prox.group_soft_threshold(
        x, jnp.array([[0.0], [9.0]]), axis=1
    ).tolist() == [[3.0, -3.0], [0.0, 0.0]]  # fmt: skip


def test_an_infinite_threshold_gives_zero():
    x = jnp.array([1.0, -2.0])
    for z in (prox.soft_threshold(x, jnp.inf), prox.shrink(x, jnp.inf)):
        assert z.tolist() == [0.0, 0.0]
    assert prox.group_soft_threshold(x, jnp.inf).tolist() == [0.0, 0.0]
    assert prox.group_soft_threshold_metric(x, jnp.array([1.0, 2.0]), jnp.inf).tolist() == [0, 0]


# --- groups -----------------------------------------------------------------------------------------


@given(x=arrays(F32, (3, 4), elements=finite), threshold=thresholds)
def test_group_soft_threshold_shrinks_each_norm(x, threshold):
    z = np.asarray(prox.group_soft_threshold(x, threshold, axis=1), np.float64)
    norm = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    expected = x * np.maximum(1 - threshold / np.where(norm > 0, norm, 1), 0)
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=8 * EPS * (norm.max() + 1e-30))
    assert (z[norm[:, 0] < threshold * (1 - 1e-6)] == 0).all()


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 1), None])
def test_the_axes_are_those_a_group_extends_over(axis):
    x = np.arange(1.0, 7.0, dtype=F32).reshape(2, 3)
    norm = np.sqrt(np.sum(x**2, axis=axis, keepdims=True))
    np.testing.assert_allclose(
        prox.group_soft_threshold(x, 2.0, axis), x * (1 - 2 / norm).clip(0), rtol=1e-6
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_group_operators_scale_with_the_parameters(scale):
    x, step = np.array([3.0, -4.0, 0.0, 12.0]), np.array([1e-3, 1.0, 2.0, 1e3])
    z = prox.group_soft_threshold((x * scale).astype(F32), F32(6.5 * scale))
    np.testing.assert_allclose(np.asarray(z, np.float64) / scale, x / 2, rtol=1e-6)
    z = prox.group_soft_threshold_metric((x * scale).astype(F32), step, F32(0.5 * scale))
    expected = metric_brute_force(x, step.astype(F32), 0.5)
    np.testing.assert_allclose(np.asarray(z, np.float64) / scale, expected, rtol=3e-6, atol=1e-6)


def test_with_equal_steps_the_metric_does_not_matter():
    x = np.array([3.0, -4.0, 1.0], F32)
    for lam in (0.0, 0.3, 3.0, 100.0):
        equal = prox.group_soft_threshold_metric(x, jnp.full(3, 0.7), lam)
        np.testing.assert_allclose(equal, prox.group_soft_threshold(x, 0.7 * lam), atol=1e-6)


@given(
    x=arrays(F32, 6, elements=finite),
    spread=arrays(F32, 6, elements=st.floats(-6, 6, width=32)),
    lam=st.sampled_from([1e-4, 1e-2, 1.0, 100.0]),
    held=st.sampled_from([(), (0,), (0, 3)]),
)
def test_the_metric_prox_equals_brute_force(x, spread, lam, held):
    step = (F32(10) ** spread).astype(F32)
    step[list(held)] = 0
    x = np.where(np.abs(x) < 1e-6, 0, x).astype(F32)
    z = prox.group_soft_threshold_metric(x, step, F32(lam))
    expected = metric_brute_force(x, step, F32(lam))
    np.testing.assert_allclose(z, expected, rtol=0, atol=1e-6 * (np.abs(x).max() + 1e-30))
    np.testing.assert_array_equal(np.asarray(z)[list(held)], x[list(held)])


def test_the_metric_prox_converges_on_hundreds_of_coordinates_over_sixteen_decades():
    rng = np.random.default_rng(0)
    run = jax.jit(prox.group_soft_threshold_metric)
    for power in (0.0, 0.5, 1.0):
        step = (10 ** rng.uniform(-8, 8, 300)).astype(F32)
        x = (rng.normal(size=300) * step**power).astype(F32)
        for share in (1e-4, 0.1, 0.9, 0.9999):  # of the lam at which the group dies
            lam = F32(share * np.linalg.norm(x.astype(np.float64) / step))
            expected = metric_brute_force(x, step, lam)
            error = np.abs(np.asarray(run(x, step, lam)) - expected).max() / np.abs(x).max()
            assert error < 2e-6, (power, share)


def test_the_metric_prox_converges_where_newton_is_slowest():
    step = np.logspace(-8, 8, 17, dtype=F32)
    x = 2 * step / F32(np.sqrt(17))  # every scale matters equally, at twice the threshold
    z = prox.group_soft_threshold_metric(x, step, 1.0)
    np.testing.assert_allclose(z, metric_brute_force(x, step, 1.0), atol=1e-6 * x.max())


def test_the_metric_prox_is_zero_exactly_when_the_dual_norm_is_at_most_lam():
    x, step = jnp.array([0.3, 0.08]), jnp.array([0.1, 0.02])  # x / step = (3, 4)
    assert (prox.group_soft_threshold_metric(x, step, 5.001) == 0).all()
    assert (prox.group_soft_threshold_metric(x, step, 4.99) != 0).all()


def test_groups_in_one_call_do_not_mix():
    rng = np.random.default_rng(1)
    x, step = rng.normal(size=(3, 5)).astype(F32), rng.uniform(0.01, 3, (3, 5)).astype(F32)
    lam = np.array([[0.0], [0.5], [30.0]], F32)
    z = np.asarray(prox.group_soft_threshold_metric(x, step, lam, axis=1))
    for k in range(3):
        np.testing.assert_allclose(
            z[k], metric_brute_force(x[k], step[k], lam[k, 0]), atol=1e-6
        )  # fmt: skip
    assert (z[0] == x[0]).all()
    assert (z[2] == 0).all()


# --- edges ------------------------------------------------------------------------------------------

STEPS = np.array([0.5, 2.0, 1.0], F32)
OPERATORS = {
    "soft_threshold": prox.soft_threshold,
    "shrink": prox.shrink,
    "elastic_net": lambda x, t: prox.elastic_net(x, t, t),
    "group_soft_threshold": prox.group_soft_threshold,
    "group_soft_threshold_metric": lambda x, t: prox.group_soft_threshold_metric(x, STEPS, t),
}
each = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


@each
def test_integers_are_refused_by_name(operator):
    with pytest.raises(TypeError, match="`x` must be a floating array, got dtype int32"):
        operator(jnp.arange(3), 1.0)


@each
@pytest.mark.parametrize("x", [[0.0, 0.0, 0.0], [1.0, -2.0, 0.0]])
def test_a_threshold_of_zero_is_the_identity(operator, x):
    assert operator(jnp.array(x), 0.0).tolist() == x


@each
@pytest.mark.parametrize("jac", [jax.jacrev, jax.jacfwd])
def test_derivatives_are_finite_everywhere(operator, jac):
    points = [[0.0, 0.0, 0.0], [1.0, -2.0, 0.0], [1e-30, 0.0, 1e-30]]
    both = jax.vmap(jax.vmap(jac(operator, argnums=(0, 1)), (None, 0)), (0, None))
    for d in jax.jit(both)(jnp.array(points), jnp.array([0.0, 0.5, 2.0])):
        assert np.isfinite(d).all()


@each
def test_derivatives_equal_finite_differences(operator):
    x, t, h = jnp.array([1.0, -2.0, 0.7]), jnp.float32(0.4), 1e-2
    dx, dt = jax.jacrev(operator, argnums=(0, 1))(x, t)
    for i in range(3):
        e = h * np.eye(3, dtype=F32)[i]
        np.testing.assert_allclose(
            dx[:, i], (operator(x + e, t) - operator(x - e, t)) / (2 * h), atol=2e-4
        )
    np.testing.assert_allclose(dt, (operator(x, t + h) - operator(x, t - h)) / (2 * h), atol=2e-4)


def test_the_metric_prox_is_differentiable_in_its_metric():
    x, lam, h = jnp.array([1.0, -2.0, 0.7]), 0.4, 1e-2
    ds = jax.jacrev(prox.group_soft_threshold_metric, argnums=1)(x, jnp.asarray(STEPS), lam)
    for i in range(3):
        e = h * np.eye(3, dtype=F32)[i]
        above = prox.group_soft_threshold_metric(x, STEPS + e, lam)
        below = prox.group_soft_threshold_metric(x, STEPS - e, lam)
        np.testing.assert_allclose(ds[:, i], (above - below) / (2 * h), atol=2e-4)


@each
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_the_dtype_of_x_is_kept_beside_strong_float32_thresholds(operator, dtype):
    x = jnp.array([1.0, -2.0, 0.5], dtype)
    z = operator(x, jnp.float32(0.3))
    assert z.dtype == dtype
    wide = operator(x.astype(jnp.float32), jnp.float32(0.3))
    np.testing.assert_allclose(z.astype(jnp.float32), wide, atol=2e-2)


@each
def test_double_precision_is_used_where_it_is_on(operator):
    with jax.enable_x64(True):
        x = jnp.array([1.0, -2.0, 0.7], jnp.float64)
        z = operator(x, 0.4)
        assert z.dtype == jnp.float64
        narrow = operator(x.astype(jnp.float32), jnp.float64(0.4))
        assert narrow.dtype == jnp.float32
        np.testing.assert_allclose(narrow, z, rtol=1e-5)


@each
def test_empty_arrays_pass(operator):
    if operator is not OPERATORS["group_soft_threshold_metric"]:  # its steps are three
        assert operator(jnp.zeros((0,)), 1.0).shape == (0,)
    assert prox.group_soft_threshold_metric(jnp.zeros((0,)), 1.0, 1.0).shape == (0,)


@each
def test_one_trace_serves_every_threshold_and_vmap_is_a_loop(operator):
    x, ts = jnp.array([1.0, -2.0, 0.7]), jnp.array([0.0, 0.1, 1.0, 5.0])
    once = jax.jit(chex.assert_max_traces(operator, n=1))
    loop = jnp.stack([once(x, t) for t in ts])
    np.testing.assert_allclose(jax.vmap(operator, (None, 0))(x, ts), loop, rtol=1e-6, atol=1e-7)
