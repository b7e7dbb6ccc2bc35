"""Separable penalties and their proxes against formulas, brute force, papers and other libraries."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg import prox

pytestmark = pytest.mark.formulas

close = np.testing.assert_allclose
X = np.linspace(-4.0, 4.0, 65)  # holds 0, and the kinks of the penalties below
GRID = np.linspace(-5.0, 5.0, 8001)
STEPS = np.array([0.3, 1.0, 5.0])


def mcp_value(x, lam, gamma):
    flat = gamma * lam**2 / 2
    return np.where(np.abs(x) <= gamma * lam, lam * np.abs(x) - x**2 / (2 * gamma), flat)


def scad_value(x, lam, gamma):
    size = np.abs(x)
    bent = (2 * gamma * lam * size - x**2 - lam**2) / (2 * (gamma - 1))
    inner = np.where(size <= lam, lam * size, bent)
    return np.where(size <= gamma * lam, inner, lam**2 * (gamma + 1) / 2)


def huber_value(x, delta):
    return np.where(np.abs(x) <= delta, x**2 / (2 * delta), np.abs(x) - delta / 2)


# Each penalty with its value on one coordinate, written down a second time.
EVEN = {
    "l1": (lambda **kw: jr.l1(0.75, **kw), lambda x: 0.75 * np.abs(x)),
    "l2": (lambda **kw: jr.l2(0.75, **kw), lambda x: 0.375 * x**2),
    "elastic_net": (
        lambda **kw: jr.elastic_net(0.75, 0.25, **kw),
        lambda x: 0.75 * (0.25 * np.abs(x) + 0.375 * x**2),
    ),
    "huber": (lambda **kw: jr.huber(0.75, 0.5, **kw), lambda x: 0.75 * huber_value(x, 0.5)),
    "mcp": (lambda **kw: jr.mcp(0.75, 3.0, **kw), lambda x: mcp_value(x, 0.75, 3.0)),
    "mcp_weighted": (
        lambda **kw: jr.mcp(0.75, 3.0, weights=0.5, **kw),
        lambda x: 0.5 * mcp_value(x, 0.75, 3.0),
    ),
    "scad": (lambda **kw: jr.scad(0.75, 3.75, **kw), lambda x: scad_value(x, 0.75, 3.75)),
    "scad_wide": (lambda **kw: jr.scad(0.75, 5.5, **kw), lambda x: scad_value(x, 0.75, 5.5)),
    "scad_narrow": (lambda **kw: jr.scad(0.75, 1.5, **kw), lambda x: scad_value(x, 0.75, 1.5)),
    "log_sum": (
        lambda **kw: jr.log_sum(0.75, 0.25, **kw),
        lambda x: 0.75 * np.log(1 + np.abs(x) / 0.25),
    ),
    "log_sum_wide": (
        lambda **kw: jr.log_sum(0.75, 3.0, **kw),
        lambda x: 0.75 * np.log(1 + np.abs(x) / 3),
    ),
    "l_half": (lambda **kw: jr.l_half(0.75, **kw), lambda x: 0.75 * np.abs(x) ** 0.5),
    "l_two_thirds": (
        lambda **kw: jr.l_two_thirds(0.75, **kw),
        lambda x: 0.75 * np.abs(x) ** (2 / 3),
    ),
    "l0": (lambda **kw: jr.l0(0.75, **kw), lambda x: 0.75 * (x != 0)),
}
BOUNDS = {
    "box": (lambda: jr.box(-0.5, 1.5), lambda x: np.where((x < -0.5) | (x > 1.5), np.inf, 0)),
    "nonneg": (jr.nonneg, lambda x: np.where(x < 0, np.inf, 0)),
}
ALL = EVEN | BOUNDS


@functools.cache
def proxes_of(name, **options):
    return proxes(ALL[name][0](**options))


def proxes(penalty):
    """The prox of X at every one of STEPS in one program, [3, 65]; under jit nothing is refused."""
    with jax.enable_x64(True):
        double = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), penalty)
        run = jax.jit(jax.vmap(lambda p, s: p.prox(jnp.asarray(X), s), (None, 0)))
        return np.asarray(run(double, STEPS))


def assert_minimal(found, formula, grid):
    for step, z in zip(STEPS, found):
        best = (formula(grid)[:, None] + (grid[:, None] - X) ** 2 / (2 * step)).min(0)
        assert (formula(z) + (z - X) ** 2 / (2 * step) <= best + 1e-12).all()


@pytest.mark.parametrize("name", ALL)
def test_value_is_the_formula(name):
    make, formula = ALL[name]
    inside = np.isfinite(formula(X))
    assert float(make()(jnp.asarray(X[inside]))) == pytest.approx(
        formula(X[inside]).sum(), rel=1e-5
    )
    assert np.isinf(make()(jnp.asarray(X))) == (not inside.all())


@pytest.mark.parametrize("name", ALL)
def test_prox_is_a_global_minimiser(name):
    """STEPS lie on both sides of where MCP and SCAD stop being single-valued."""
    formula = ALL[name][1]
    assert_minimal(proxes_of(name), formula, GRID)


@pytest.mark.parametrize("name", EVEN)
def test_nonneg_is_the_constrained_minimiser(name):
    formula = EVEN[name][1]
    found = proxes_of(name, nonneg=True)
    assert (found >= 0).all()
    assert_minimal(found, lambda x: np.where(x < 0, np.inf, formula(x)), GRID)


JUMPS = ["mcp", "scad", "scad_wide", "scad_narrow", "log_sum", "l_half", "l_two_thirds", "l0"]


@pytest.mark.parametrize("name", JUMPS)
def test_the_prox_jumps_between_equals(name):
    """Where it jumps both ends cost the same, and the smaller is returned at 0 itself."""
    make, formula = EVEN[name]
    low, high = 0.0, 8.0
    with jax.enable_x64(True):
        run = jax.jit(lambda x: make().prox(x, 5.0))
        for _ in range(60):
            middle = (low + high) / 2
            far = run(jnp.float64(middle)) > 0.4 * middle
            low, high = (low, middle) if far else (middle, high)
        below, above = float(run(jnp.float64(low))), float(run(jnp.float64(high)))
    cost = lambda z: formula(z) + (z - high) ** 2 / 10
    assert above > below + 0.5
    assert cost(above) == pytest.approx(cost(below), rel=1e-9)
    assert (below == 0) == (name != "scad_wide")


SLOPES = {
    "log_sum": lambda z: 1 / (z + 0.25),
    "l_half": lambda z: 0.5 * z**-0.5,
    "l_two_thirds": lambda z: 2 / 3 * z ** (-1 / 3),
}


@pytest.mark.parametrize("name", SLOPES)
def test_survivors_are_stationary_to_rounding(name):
    for step, z in zip(STEPS, proxes_of(name)):
        alive = z > 0
        z, x = z[alive], X[alive]
        close(z + step * 0.75 * SLOPES[name](z), x, rtol=5e-15)


def test_reference_numbers():
    z = jnp.array([0.5, 1.5, 2.9, 3.1])
    assert jr.mcp(1.0, 3.0).prox(z, 1.0).tolist() == pytest.approx([0, 0.75, 2.85, 3.1], rel=1e-6)
    scad = [0, 0.5, 2.4294117647, 2.7470588235]
    assert jr.scad(1.0, 3.7).prox(z, 1.0).tolist() == pytest.approx(scad, rel=1e-6)
    assert jr.scad(1.0)(jnp.array([9.0])) == pytest.approx(4.7 / 2)
    assert jr.mcp(2.0)(jnp.array([9.0])) == pytest.approx(6.0)


def test_thresholds_and_jumps_of_the_papers():
    """Xu et al.: |x|^(1/2) with lambda = 2 t cuts at 54^(1/3)/4 (2 t)^(2/3), to 2/3 of it. Cao et al.:
    |x|^(2/3) cuts at 2/3 (3 (2 t)^3)^(1/4), to half of it."""
    t = 0.7
    half = 54 ** (1 / 3) / 4 * (2 * t) ** (2 / 3)
    thirds = 2 / 3 * (3 * (2 * t) ** 3) ** 0.25
    for operator, cut, kept in ((prox.l_half, half, 2 / 3), (prox.l_two_thirds, thirds, 1 / 2)):
        assert operator(jnp.array(cut * (1 - 1e-6)), t) == 0
        assert operator(jnp.array(cut * (1 + 1e-6)), t) == pytest.approx(kept * cut, rel=1e-5)


SKGLM = {
    "mcp": lambda f, z, s: f.prox_MCP.py_func(z, s, 0.75, 3.0),
    "mcp_weighted": lambda f, z, s: f.prox_MCP.py_func(z, s, 0.75, 3.0, False, 0.5),
    "scad": lambda f, z, s: f.prox_SCAD.py_func(z, s, 0.75, 3.75),
    "log_sum": lambda f, z, s: f.prox_log_sum.py_func(z, s * 0.7, 0.3),
    "log_sum_wide": lambda f, z, s: f.prox_log_sum.py_func(z, s * 0.75, 3.0),
    "l_half": lambda f, z, s: f.prox_05.py_func(z, s * 0.75),
    "l_two_thirds": lambda f, z, s: f.prox_2_3.py_func(z, s * 0.75),
}


@pytest.mark.parametrize("name", SKGLM)
def test_against_skglm(name):
    functions = pytest.importorskip("skglm.utils.prox_funcs")
    # Not (0.75, 0.25) for the log-sum: its bisection starts from a NaN there and misses the jump.
    found = proxes(jr.log_sum(0.7, 0.3)) if name == "log_sum" else proxes_of(name)
    for step, ours in zip(STEPS[:2], found):  # its MCP and SCAD assume a step below the bound
        theirs = [SKGLM[name](functions, z, step) for z in X]
        close(ours, theirs, atol=1e-6)


def test_against_pyproximal():
    """Its Log is lam = sigma / log(1 + gamma), epsilon = 1 / gamma; its quadratic envelope of the
    count is MCP with lam = sqrt(2 mu), gamma = 1. Steps where it has a single minimiser."""
    theirs = pytest.importorskip("pyproximal")
    log = theirs.Log(0.75 * np.log(5.0), gamma=4.0)
    pairs = [
        (jr.scad(0.75, 3.75), theirs.SCAD(0.75, a=3.75), 1),
        (jr.log_sum(0.75, 0.25), log, 1),
        (jr.mcp(0.75, 1.0), theirs.QuadraticEnvelopeCard(0.75**2 / 2), 0),
        (jr.l1(0.75), theirs.L1(0.75), 1),
        (jr.l2(0.75), theirs.L2(sigma=0.75), 1),
        (jr.box(-0.5, 1.5), theirs.Box(-0.5, 1.5), 1),
    ]
    for ours, other, i in pairs:
        expected = other.prox(X.copy(), STEPS[i])
        close(proxes(ours)[i], expected, atol=1e-9, err_msg=str(other))


def test_hard_threshold_against_jax_free_numpy():
    for step, z in zip(STEPS, proxes_of("l0")):
        assert (z == np.where(np.abs(X) > np.sqrt(2 * 0.75 * step), X, 0)).all()


def test_huber_conventions():
    x = jnp.asarray(X, jnp.float32)
    other = float(jnp.sum(optax.huber_loss(x, delta=0.5)))
    assert float(jr.huber(0.5, 0.5)(x)) == pytest.approx(other, rel=1e-6)
    # Huber's function is the Moreau envelope of |.|, with step delta.
    envelope = jr.l1(1.0).moreau_envelope(x, 0.5)
    assert float(jr.huber(1.0, 0.5)(x)) == pytest.approx(float(envelope), rel=1e-6)


@pytest.mark.parametrize("name", EVEN)
def test_threshold_zero_is_the_identity_to_the_bit(name):
    x = jnp.array([0.0, 1e-30, -1e-10, 0.1, -3.3, 7e20], jnp.float32)
    penalty = EVEN[name][0]()
    nothing = dataclasses.replace(penalty, lam=jnp.zeros_like(penalty.lam))

    @jax.jit
    def moved(penalty, step):
        return jax.jvp(lambda x: penalty.prox(x, step), (x,), (jnp.ones_like(x),))

    for reg, step in ((nothing, 1.0), (penalty, 0.0)):
        z, slope = moved(reg, step)
        assert z.tolist() == x.tolist()
        assert slope.tolist() == [1.0] * 6


@pytest.mark.parametrize("name", EVEN)
def test_zeros_have_no_sign_and_nan_stays(name):
    make, _ = EVEN[name]
    z = np.asarray(jax.jit(make().prox)(jnp.array([-0.01, -0.1, jnp.nan, -3.0]), 1.0))
    assert not np.signbit(z[z == 0]).any()
    assert np.isnan(z).tolist() == [False, False, True, False]


SCALED = {
    "l_half": (prox.l_half, 1.5),
    "l_two_thirds": (prox.l_two_thirds, 4 / 3),
    "l0": (prox.l0, 2.0),
    "log_sum": (lambda x, t: prox.log_sum(x, t, 0.5 * jnp.abs(x[-1])), 2.0),
    "mcp": (lambda x, t: prox.mcp(x, 1.0, t, 3.0), 1.0),
    "scad": (lambda x, t: prox.scad(x, 1.0, t, 3.7), 1.0),
    "huber": (lambda x, t: prox.huber(x, t, 0.3 * jnp.abs(x[-1])), 1.0),
}


@pytest.mark.parametrize("name", SCALED)
def test_no_scale_is_special(name):
    """prox(c x, c^p t) = c prox(x, t), also for c = 2^60 in float32, where squares overflow."""
    operator, power = SCALED[name]
    x, t = jnp.array([0.3, -1.1, 1.9, 2.5, -3.7, 1.0]), 0.6
    expected = operator(x, t)
    for exponent in (-60, 60):
        if abs(exponent * power) > 120:
            exponent = exponent // 2
        moved = operator(x * 2.0**exponent, jnp.float32(t * 2.0 ** (exponent * power)))
        close(moved / 2.0**exponent, expected, rtol=1e-5)


@pytest.mark.parametrize("name", EVEN)
def test_derivatives_by_x_and_by_every_strength_are_finite(name):
    make, _ = EVEN[name]
    x = jnp.asarray(np.append(X, [1e-30, 0.75, -2.25, 2.8125]), jnp.float32)

    def total(penalty, x):
        return penalty(x) + jnp.sum(penalty.prox(x, 0.5) * jnp.cos(x))

    for grad in jax.tree.leaves(jax.jit(jax.grad(total, (0, 1)))(make(), x)):
        assert np.isfinite(grad).all()


@pytest.mark.parametrize("name", EVEN)
def test_gradient_at_zero_is_the_least_norm_subgradient(name):
    make, _ = EVEN[name]
    assert jax.grad(lambda x: make()(x))(jnp.zeros(3)).tolist() == [0, 0, 0]


def test_folded_penalties_scale_in_lam_and_x_together():
    x = jnp.asarray(X)
    for make in (jr.mcp, jr.scad):
        assert float(make(1.5)(2 * x)) == pytest.approx(4 * float(make(0.75)(x)), rel=1e-6)
        close(2 * make(0.75).prox(x, 0.5), make(1.5).prox(2 * x, 0.5), atol=1e-6)


@pytest.mark.parametrize(
    ("penalty", "limit"),
    [
        (jr.mcp(0.5, 1e7), jr.l1(0.5)),
        (jr.scad(0.5, 1e7), jr.l1(0.5)),
        (jr.huber(0.5, 1e-6), jr.l1(0.5)),
        (jr.log_sum(500.0, 1e3), jr.l1(0.5)),
        (jr.l1_minus_l2(0.5, 0.0), jr.l1(0.5)),
    ],
    ids=repr,
)
def test_limits_in_which_they_become_the_lasso(penalty, limit):
    x = jnp.asarray(X)
    assert float(penalty(x)) == pytest.approx(float(limit(x)), rel=1e-2)
    close(penalty.prox(x, 0.5), limit.prox(x, 0.5), atol=1e-2)


def test_centers_and_weights():
    x, c, w = jnp.asarray(X), 0.5, jnp.asarray(np.arange(65) % 3, jnp.float32)
    for make in (jr.mcp, jr.scad, jr.log_sum, jr.l_half, jr.l_two_thirds, jr.l0):
        moved = make(0.5, center=c).prox(x + c, 0.5)
        close(moved, make(0.5).prox(x, 0.5) + c, atol=1e-6)
        by_weights = jax.jit(make(0.5, weights=w).prox)(x, 0.5)
        by_steps = jax.jit(make(0.5).prox)(x, 0.5 * w)
        close(by_weights, by_steps, atol=1e-6)


@pytest.mark.parametrize("name", ["l1", "huber", "mcp", "scad", "log_sum", "l_half", "l0"])
def test_proximal_gradient_ends_at_a_certified_point(name):
    make, _ = EVEN[name]
    rng = np.random.default_rng(0)
    A = rng.normal(size=(12, 6)) / np.sqrt(12)
    b = A @ np.array([3.0, -2.0, 0, 0, 1.0, 0])
    with jax.enable_x64(True):
        A, b, reg = jnp.asarray(A), jnp.asarray(b), make(nonneg=True) * 0.1
        loss = lambda w: 0.5 * jnp.sum((A @ w - b) ** 2)
        step = 0.9 / jnp.linalg.norm(A, 2) ** 2
        move = lambda _, w: reg.prox(w - step * jax.grad(loss)(w), step)
        w = jax.lax.fori_loop(0, 2000, move, jnp.ones(6))
        distance = float(reg.subdiff_distance(w, jax.grad(loss)(w)))
        elsewhere = float(reg.subdiff_distance(jnp.ones(6), jax.grad(loss)(jnp.ones(6))))
    assert distance < 1e-7
    assert elsewhere > 1e-2
    assert (np.asarray(w) >= 0).all()


def test_lambda_max_is_where_zero_becomes_stationary():
    grad = jnp.array([0.3, -0.5, 0.1])
    table = {jr.mcp: 0.5, jr.scad: 0.5, jr.log_sum: 0.05, jr.l0: 0.0, jr.l_half: 0.0}
    for make, expected in table.items():
        assert float(make(1.0).lambda_max(grad)) == pytest.approx(expected)
    assert float(jr.huber(1.0, 0.5).lambda_max(grad)) == np.inf
    # One-sided, only the pull upwards has to be held.
    assert float(jr.l1(1.0, nonneg=True).lambda_max(grad)) == pytest.approx(0.5)
    assert float(jr.l1(1.0, nonneg=True).lambda_max(-grad)) == pytest.approx(0.3)
    assert float(jr.l1_minus_l2(1.0, 0.5).lambda_max(grad)) == pytest.approx(1.0)
    assert float(jr.l1_minus_l2(1.0).lambda_max(grad)) == np.inf
    assert float(jr.nonneg().lambda_max(grad)) == np.inf
    assert float(jr.nonneg().lambda_max(jnp.abs(grad))) == 0


def test_conjugates_are_suprema():
    dual = np.linspace(-0.7, 0.7, 15)
    z = np.linspace(-60, 60, 24001)
    cases = [
        (jr.huber(0.75, 0.5), EVEN["huber"][1]),
        (jr.elastic_net(0.75, 0.25), EVEN["elastic_net"][1]),
        (jr.l2(0.75), EVEN["l2"][1]),
        (jr.box(-0.5, 1.5), BOUNDS["box"][1]),
        (jr.l2(0.75, nonneg=True), lambda x: np.where(x < 0, np.inf, EVEN["l2"][1](x))),
    ]
    for penalty, formula in cases:
        expected = (z * dual[:, None] - formula(z)).max(1)
        found = [float(penalty.conjugate(jnp.float32(d))) for d in dual]
        assert found == pytest.approx(expected, abs=1e-4), penalty
    assert float(jr.huber(0.75, 0.5).conjugate(jnp.array(0.76))) == np.inf
    assert float(jr.nonneg().conjugate(jnp.array([-3.0, 0.0]))) == 0
    assert float(jr.nonneg().conjugate(jnp.array([-3.0, 0.1]))) == np.inf


class TestL1MinusL2:
    """The whole leaf is one group."""

    @pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
    def test_prox_is_a_global_minimiser_in_the_plane(self, ratio):
        axis = np.linspace(-3, 3, 301)
        u, v = np.meshgrid(axis, axis)
        value = 0.75 * (np.abs(u) + np.abs(v) - ratio * np.hypot(u, v))
        rng = np.random.default_rng(0)
        points = np.concatenate([rng.uniform(-2.5, 2.5, (40, 2)), [[0, 0], [0.3, 0], [1, 1]]])
        with jax.enable_x64(True):
            run = jax.jit(jax.vmap(lambda x: prox.l1_minus_l2(x, 0.75, ratio)))
            found = np.asarray(run(points))
        for x, z in zip(points, found):
            best = (value + ((u - x[0]) ** 2 + (v - x[1]) ** 2) / 2).min()
            r = 0.75 * (np.abs(z).sum() - ratio * np.hypot(*z))
            assert r + ((z - x) ** 2).sum() / 2 <= best + 1e-12

    def test_one_sparse_costs_nothing_at_any_size(self):
        for size in (1e-30, 3.3, 1e30):
            assert float(jr.l1_minus_l2(2.0)(jnp.array([0.0, -size, 0.0]))) == 0
        assert float(jr.l1_minus_l2(2.0)(jnp.array([3.0, 4.0]))) == pytest.approx(4.0)

    def test_nan_stays(self):
        for x in ([jnp.nan, 3.0], [jnp.nan, 0.1]):
            assert np.isnan(prox.l1_minus_l2(jnp.array(x), 1.0)).any()

    def test_threshold_zero_zero_and_empty_leaves(self):
        for x in (jnp.array([0.1, -0.3]), jnp.zeros(2), jnp.zeros((0, 3))):
            assert jr.l1_minus_l2(0.0).prox(x, 1.0).tolist() == x.tolist()
        slope = jax.grad(lambda x: jr.l1_minus_l2(1.0)(x))(jnp.zeros(2))
        assert slope.tolist() == [0, 0]

    def test_subgradient_at_zero_is_the_steepest_descent(self):
        grad = np.array([0.9, -0.4, 0.1])
        angle = np.random.default_rng(0).normal(size=(200000, 3))
        d = angle / np.linalg.norm(angle, axis=1, keepdims=True)
        for lam in (0.2, 0.6, 2.0):
            slopes = d @ grad + lam * (np.abs(d).sum(1) - 0.5)
            found = jr.l1_minus_l2(lam, 0.5).subdiff_distance(jnp.zeros(3), jnp.asarray(grad))
            assert float(found) == pytest.approx(max(0, -slopes.min()), abs=5e-3)

    def test_refusals(self):
        reg = jr.l1_minus_l2(1.0)
        with pytest.raises(ValueError, match=r"`step` has shape \(2,\); the leaf is one group"):
            reg.prox(jnp.ones(2), jnp.ones(2))
        with pytest.raises(ValueError, match=r"`lam` has shape .* give one number per leaf"):
            jr.l1_minus_l2(jnp.ones(2))(jnp.ones(2))
        with pytest.raises(ValueError, match=r"`l2_ratio` is a share between 0 .* got 1.5"):
            jr.l1_minus_l2(1.0, 1.5)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: jr.mcp(1.0, gamma=0.0), "mcp: `gamma` must be > 0, got 0"),
        (lambda: jr.scad(1.0, gamma=1.0), "scad: `gamma` must be > 1, got 1"),
        (lambda: jr.scad(1.0, gamma=float("nan")), "scad: `gamma` must be > 1, got nan"),
        (lambda: jr.log_sum(1.0, epsilon=0.0), "log_sum: `epsilon` must be > 0"),
        (lambda: jr.huber(1.0, delta=0.0), r"huber: `delta` must be > 0, got 0\. For the limit"),
        (lambda: jr.l_half(-1.0), "l_half: `lam` must be >= 0 and not NaN, got -1"),
        (lambda: jr.l0(1.0, weights=-1.0), "l0: `weights` must be >= 0"),
        (
            lambda: jr.elastic_net(1.0, 1.5),
            "elastic_net: `l1_ratio` is a share between 0 .* got 1.5",
        ),
        (
            lambda: jr.mcp(1.0, gamma=3.0).prox(jnp.ones(2), 3.0),
            "mcp: step . weights is 3 and must be below gamma = 3, else .* no longer single-valued",
        ),
        (
            lambda: jr.scad(1.0, gamma=3.7, weights=2.0).prox(jnp.ones(2), 2.0),
            r"scad: step . weights is 4 and must be below gamma - 1 = 2\.7",
        ),
    ],
)
def test_refusals(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_integer_arrays_are_refused_by_every_operator():
    x = jnp.array([1, 2])
    calls = {
        "huber": lambda: prox.huber(x, 1.0, 1.0),
        "mcp": lambda: prox.mcp(x, 1.0, 1.0, 3.0),
        "scad": lambda: prox.scad(x, 1.0, 1.0, 3.7),
        "log_sum": lambda: prox.log_sum(x, 1.0, 1.0),
        "l_half": lambda: prox.l_half(x, 1.0),
        "l_two_thirds": lambda: prox.l_two_thirds(x, 1.0),
        "l0": lambda: prox.l0(x, 1.0),
        "l1_minus_l2": lambda: prox.l1_minus_l2(x, 1.0),
        "soft_threshold": lambda: prox.soft_threshold(x, 1.0),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=f"{name}: `x` must be a floating array, got dtype int"):
            call()


@pytest.mark.parametrize("name", ["huber", "mcp", "log_sum", "l_half", "l_two_thirds", "l0"])
def test_low_precision_keeps_its_dtype_and_computes_in_float32(name):
    make, _ = EVEN[name]
    x = jnp.asarray(X, jnp.bfloat16)
    found = jax.jit(make().prox)(x, 0.5)
    assert found.dtype == jnp.bfloat16
    wide = jax.jit(make().prox)(x.astype(jnp.float32), 0.5)
    assert (found == wide.astype(jnp.bfloat16)).all()
    assert make()(x).dtype == jnp.float32
