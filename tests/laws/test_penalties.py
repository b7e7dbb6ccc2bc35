"""Laws that bind the value, the prox, the gradient and the certificate of a penalty to each other.

All in double precision, over one registry: every line of REGISTRY gets every law.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import jaxreg as jr

RNG = np.random.default_rng(0)
SHAPES = {"w": (3, 2), "b": (2,)}
SIZE = 8
WEIGHTS = {"w": RNG.uniform(0.2, 2, (3, 2)), "b": np.array([0.0, 1.0])}

with jax.enable_x64(True):
    REGISTRY = {
        "l1": jr.l1(0.4),
        "l1_per_leaf": jr.l1({"w": 0.4, "b": 0.0}),
        "l1_weighted": jr.l1(0.4, weights=WEIGHTS),
        "l1_centred": jr.l1(0.4, center=0.5),
        "l2": jr.l2(0.7),
        "l2_weighted_centred": jr.l2(0.7, weights=WEIGHTS, center={"w": 0.5, "b": -1.0}),
        "elastic_net": jr.elastic_net(0.6, 0.3),
        "elastic_net_ratios": jr.elastic_net(0.6, {"w": 1.0, "b": 0.0}),
        "group_lasso": jr.group_lasso(0.5),
        "group_lasso_rows": jr.group_lasso(0.5, axis=0),
        "group_lasso_columns": jr.group_lasso(0.5, axis=-1, sqrt_size=False),
        "scaled": 2.5 * jr.group_lasso(0.2, axis=0),
        "on": jr.l1(0.4).on("w"),
        "disjoint": jr.group_lasso(0.5, axis=0).on("w") + jr.l1(0.3).on("b"),
        "l2_beside_l1": jr.l2(0.5, center=1.0) + jr.l1(0.3) + jr.l2(0.2),
        "l2_beside_groups": jr.l2(0.5, weights=WEIGHTS) + jr.group_lasso(0.3, axis=0),
    }
WITH_LAMBDA_MAX = ("l1", "elastic_net", "group_lasso", "group_lasso_rows", "group_lasso_columns")

law = pytest.mark.parametrize("name", REGISTRY)
# Not so small that a square underflows.
entries = st.floats(-4, 4).map(lambda v: v if abs(v) > 1e-6 else 0.0)
vectors = arrays(np.float64, SIZE, elements=entries)
# A lattice that stays 0.1 away from the kinks at 0 and 0.5.
smooth_points = arrays(np.float64, SIZE, elements=st.integers(-12, 12).map(lambda k: k / 4 + 0.1))
steps = st.floats(1e-2, 10)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def tree(v):
    return {"b": v[:2], "w": v[2:].reshape(3, 2)}


def flat(params):
    return jnp.concatenate([params["b"], jnp.ravel(params["w"])])


@functools.cache
def compiled(name):
    """Value, prox and gradient as functions of flat vectors, one program each."""
    reg = REGISTRY[name]

    def value(v):
        return reg(tree(v))

    def prox(v, step):
        return flat(reg.prox(tree(v), tree(step) if jnp.ndim(step) else step))

    return jax.jit(value), jax.jit(prox), jax.jit(jax.grad(value)), jax.jit(jax.vmap(value))


def assert_minimises(name, p, x, step):
    """R + |. - x|^2 / (2 step) is strongly convex, so it grows like |z - p|^2 / (2 step) from p."""
    value, _, _, values = compiled(name)
    directions = np.random.default_rng(0).normal(size=(30, SIZE))
    sizes = 10.0 ** np.arange(-4, 2)
    z = p + (sizes[:, None, None] * directions).reshape(-1, SIZE)
    z = np.concatenate([z, np.zeros((1, SIZE)), x[None], np.where(np.abs(p) < 1e-3, 0, p)[None]])
    moreau = np.asarray(values(z)) + np.sum((z - x) ** 2 / (2 * step), 1)
    best = float(value(p)) + np.sum((p - x) ** 2 / (2 * step))
    growth = np.sum((z - p) ** 2 / (2 * step), 1)
    assert (moreau - best >= growth - 1e-10 * (1 + moreau)).all()


@law
@given(x=vectors, step=steps)
def test_the_prox_minimises_with_strong_convexity(name, x, step):
    p = np.asarray(compiled(name)[1](x, step))
    assert_minimises(name, p, x, step)


@law
@given(x=vectors, step=arrays(np.float64, SIZE, elements=steps))
def test_the_prox_minimises_in_a_diagonal_metric(name, x, step):
    p = np.asarray(compiled(name)[1](x, step))
    assert_minimises(name, p, x, step)


@law
@given(x=vectors, y=vectors, step=steps)
def test_the_prox_is_firmly_nonexpansive(name, x, y, step):
    prox = compiled(name)[1]
    p, q = np.asarray(prox(x, step)), np.asarray(prox(y, step))
    assert np.sum((p - q) ** 2) <= np.dot(p - q, x - y) + 1e-12


@law
@given(x=smooth_points)
def test_the_gradient_equals_finite_differences(name, x):
    _, _, grad, values = compiled(name)
    h = 1e-6 * np.eye(SIZE)
    slopes = (np.asarray(values(x + h)) - np.asarray(values(x - h))) / 2e-6
    np.testing.assert_allclose(grad(x), slopes, atol=1e-7)


@law
@given(x=smooth_points, y=vectors)
def test_the_gradient_is_a_subgradient(name, x, y):
    value, _, grad, _ = compiled(name)
    assert value(y) >= value(x) + np.dot(grad(x), y - x) - 1e-10


@law
@given(x=vectors)
def test_the_value_is_nonnegative(name, x):
    assert compiled(name)[0](x) >= 0


@functools.cache
def certificate(name):
    return jax.jit(lambda v, g: REGISTRY[name].subdiff_distance(tree(v), tree(g)))


@law
@given(x=vectors, step=steps)
def test_the_certificate_accepts_the_prox_and_nothing_beside_it(name, x, step):
    """0 is in (p - x) / step + dR(p) exactly at the prox."""
    p = np.asarray(compiled(name)[1](x, step))
    # Near the kink of a group the subgradient turns quickly, hence the square root of rounding.
    assert certificate(name)(p, (p - x) / step) <= 1e-7 * (1 + np.abs(x).max()) / step
    aside = p + 0.1
    # By strong monotonicity a residual r leaves at most step * |r| to the solution.
    assert certificate(name)(aside, (aside - x) / step) >= 0.1 * np.sqrt(SIZE) / step * (1 - 1e-9)


@functools.cache
def least_subgradient(name):
    return jax.jit(lambda v, g: flat(REGISTRY[name].min_norm_subgradient(tree(v), tree(g))))


@law
@given(x=smooth_points, g=vectors)
def test_where_it_is_differentiable_the_least_subgradient_is_the_gradient(name, x, g):
    found = least_subgradient(name)(x, g)
    np.testing.assert_allclose(found, g + compiled(name)[2](x), atol=1e-12)


@functools.cache
def around_lambda_max(name):
    """g -> lambda_max, and how far 0 is from stationary just above and just below it."""
    reg, zeros = REGISTRY[name], tree(jnp.zeros(SIZE))

    def look(g):
        lam = reg.lambda_max(tree(g))
        distance = lambda f: (f * lam / reg.lam * reg).subdiff_distance(zeros, tree(g))
        return lam, distance(1 + 1e-9), distance(1 - 1e-3)

    return jax.jit(look)


@pytest.mark.parametrize("name", WITH_LAMBDA_MAX)
@given(g=vectors)
def test_lambda_max_is_where_zero_becomes_stationary(name, g):
    lam, above, below = around_lambda_max(name)(g)
    if lam == 0:
        assert not g.any()
        return
    assert above == 0
    assert below > 0


@pytest.mark.parametrize(
    "name", ["l1", "l2", "elastic_net", "group_lasso", "group_lasso_rows", "on"]
)
@given(x=vectors, step=st.floats(0.5, 2))
def test_fenchel_young_is_an_equality_at_the_prox(name, x, step):
    """R(p) + R*(u) = <p, u> for u = (x - p) / step, a subgradient at p."""
    reg = REGISTRY[name]
    p = np.asarray(compiled(name)[1](x, step))
    u = (x - p) / step * (1 - 1e-12)  # inside the dual ball despite rounding
    gap = compiled(name)[0](p) + reg.conjugate(tree(u)) - np.dot(p, u)
    np.testing.assert_allclose(gap, 0, atol=1e-9)


@functools.cache
def by_moreau(name):
    reg = REGISTRY[name]
    return jax.jit(
        lambda v, step: (
            flat(reg.prox_conjugate(tree(v / step), 1 / step)),
            reg.moreau_envelope(tree(v), step),
        )
    )


@law
@given(x=vectors, step=st.floats(0.5, 2))
def test_moreaus_identity_and_envelope(name, x, step):
    value, prox, _, _ = compiled(name)
    p = prox(x, step)
    dual, envelope = by_moreau(name)(x, step)
    np.testing.assert_allclose(p + step * dual, x, atol=1e-12)
    np.testing.assert_allclose(envelope, value(p) + np.sum((p - x) ** 2) / (2 * step), rtol=1e-12)
