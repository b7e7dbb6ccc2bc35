"""Strengths from 1e-30 to infinity: a prox reaches its limit and stays there, for every penalty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)

# The strength at which it has come to its limit on X, for steps of 1/2.
PENALTIES = {
    "l1": jr.l1,
    "l2": jr.l2,
    "l0": jr.l0,
    "l_half": jr.l_half,
    "l_two_thirds": jr.l_two_thirds,
    "elastic_net": jr.elastic_net,
    "huber": lambda lam: jr.huber(lam, 0.5),
    "mcp": jr.mcp,
    "scad": jr.scad,
    "log_sum": jr.log_sum,
    "l1_minus_l2": jr.l1_minus_l2,
    "l1_minus_half_l2": lambda lam: jr.l1_minus_l2(lam, 0.5),
    "linf": jr.linf,
    "group_lasso": lambda lam: jr.group_lasso(lam, axis=0),
    "sparse_group_lasso": lambda lam: jr.sparse_group_lasso(lam, axis=0),
    "exclusive_lasso": jr.exclusive_lasso,
    "exclusive rows": lambda lam: jr.exclusive_lasso(lam, axis=0),
    "l1_linf": lambda lam: jr.l1_linf(lam, axis=0),
    "slope": lambda lam: jr.slope(lam, q=0.1),
    "nuclear": jr.nuclear,
    "log_det": jr.log_det,
    "spectral_norm": jr.spectral_norm,
    "fused_lasso": jr.fused_lasso,
    "total_variation": lambda lam: jr.total_variation(lam, axis=(0, 1)),
    "trend_filter": lambda lam: jr.trend_filter(lam, axis=0),
    "l2_sp": lambda lam: jr.l2_sp(lam, 0.5 * jnp.ones_like(X)),
    "a sum": lambda lam: jr.l1(lam) + jr.l2(lam),
    "a sum around": lambda lam: jr.l2_sp(lam, 0.5 * jnp.ones_like(X)) + jr.nonneg(),
    "around": lambda lam: jr.l1(lam).around(1.0),
    "scaled": lambda lam: 2.0 * jr.l1(lam),
}
FAR = (1e7, 1e12, 1e20, 1e30, 3e38, np.inf)


@pytest.fixture(scope="module")
def moved():
    """name -> (near the limit, at each strength far out, at each that is nothing)."""

    def of(name):
        prox = jax.jit(lambda reg: reg.prox(X, 0.5))
        make = PENALTIES[name]
        return prox(make(1e5)), [prox(make(lam)) for lam in FAR], [prox(make(1e-30))]

    return of


@pytest.mark.parametrize("name", PENALTIES)
def test_far_out_nothing_changes_any_more(name, moved):
    limit, far, near = moved(name)
    assert np.isfinite(limit).all()
    for lam, z in zip(FAR, far):
        np.testing.assert_allclose(z, limit, atol=1e-4, err_msg=f"lam = {lam}")
    np.testing.assert_allclose(
        near[0], X if name != "a sum around" else jnp.maximum(X, 0), atol=1e-5
    )


@pytest.mark.parametrize(
    "name", sorted(set(PENALTIES) - {"mcp", "scad", "l2_sp", "a sum around", "around"})
)
def test_a_long_step_is_as_far_out_as_a_large_strength(name):
    prox = jax.jit(lambda reg, step: reg.prox(X, step))
    limit = prox(PENALTIES[name](1e5), 0.5)
    for lam, step in ((1e-7, 1e30), (1e7, 1e7), (1e30, 1e30)):
        np.testing.assert_allclose(prox(PENALTIES[name](lam), step), limit, atol=1e-4)


@pytest.mark.parametrize("name", PENALTIES)
def test_at_any_strength_it_is_0_where_it_was_and_so_is_its_gradient(name):
    made = PENALTIES[name]
    zero = {"l2_sp": 0.5, "a sum around": 0.5, "around": 1.0}.get(name, 0.0) * jnp.ones_like(X)
    both = jax.jit(jax.value_and_grad(lambda reg, x: reg(x), 1))
    for lam in (1e-30, 1.0, *FAR):
        value, slope = both(made(lam), zero)
        assert value == 0
        np.testing.assert_array_equal(slope, 0)
        value, slope = both(made(lam), X)
        assert not np.isnan(value)
        assert not np.isnan(slope).any() or not np.isfinite(value)


def test_a_strength_without_end_is_one_of_1e30_where_it_is_made_and_where_it_is_traced():
    assert jr.l1(np.inf).lam == np.float32(1e30)
    values = jax.vmap(lambda lam: jr.l1(lam)(jnp.zeros(3)))(jnp.array([1.0, np.inf]))
    np.testing.assert_array_equal(values, 0)
    assert (np.inf * jr.l2(1.0))(jnp.zeros(3)) == 0
    assert jr.l1(0.1, weights=jnp.array([1.0, np.inf, 1.0]))(
        jnp.array([1.0, 0.0, 0.0])
    ) == np.float32(0.1)
    assert jr.max_norm(np.inf).radius == np.inf, "a bound of inf is no bound"


def test_the_limits_are_those_of_the_formulas():
    prox = lambda reg: reg.prox(X, 0.5)
    zero = np.zeros((4, 3))
    for name in ("l1", "exclusive_lasso", "exclusive rows", "nuclear", "a sum", "group_lasso"):
        np.testing.assert_array_equal(prox(PENALTIES[name](np.inf)), zero, err_msg=name)
    mean = np.broadcast_to(np.mean(np.asarray(X, float)), (4, 3))
    np.testing.assert_allclose(prox(jr.total_variation(1e30, axis=(0, 1))), mean, atol=1e-3)
    assert (np.asarray(prox(jr.l1_minus_l2(np.inf))) != 0).sum() == 1  # of one nonzero R is 0
    np.testing.assert_array_equal(prox(PENALTIES["around"](np.inf)), np.ones((4, 3)))
    np.testing.assert_allclose(prox(PENALTIES["l2_sp"](np.inf)), 0.5 * np.ones((4, 3)), rtol=1e-6)
