"""`prox_of_sum`, the prox of sums by iteration: against closed forms, brute force, and its own certificate."""

import re
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import jaxreg as jr

pytestmark = pytest.mark.formulas

close = np.testing.assert_allclose
RNG = np.random.default_rng(0)
VECTOR = np.array([1.7, 1.4, -0.3, -2.1, 0.6, 0.1], np.float32)
MATRIX = RNG.normal(size=(4, 3)).astype(np.float32)
both = pytest.mark.parametrize("method", ["dykstra", "consensus"])


def soft(x, threshold):
    return np.sign(x) * np.maximum(np.abs(x) - threshold, 0)


def shrink_rows(x, threshold):
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.maximum(1 - threshold / norms, 0) * x


def objective(value, x, step):
    """sum R(z) + |z - x|^2 / (2 step) in float64, of z with x's shape in any layout."""
    x = np.asarray(x, np.float64)
    return lambda z: value(z.reshape(x.shape)) + np.sum((z.reshape(x.shape) - x) ** 2) / 2 / step


# --- against closed forms ---------------------------------------------------------------------------

STEP = 0.8
CLOSED = {
    "l2 and l1": (jr.l2(0.7) + jr.l1(0.5), VECTOR, soft(VECTOR, 0.4) / (1 + 0.56)),
    "box after l1": (jr.l1(0.5) + jr.box(-0.6, 1.1), VECTOR, soft(VECTOR, 0.4).clip(-0.6, 1.1)),
    "sparse group lasso": (
        jr.group_lasso(0.6, axis=0, sqrt_size=False) + jr.l1(0.25),
        MATRIX,
        shrink_rows(soft(MATRIX, 0.2), 0.48),
    ),
    "fused lasso": (
        jr.l1(0.3) + jr.total_variation(0.45),
        VECTOR,
        jr.fused_lasso(0.75, 0.4).prox(VECTOR, STEP),
    ),
    "a ball in a cone": (
        jr.l2_ball(1.5) + jr.nonneg(),
        VECTOR,
        VECTOR.clip(0) * min(1, 1.5 / np.linalg.norm(VECTOR.clip(0))),
    ),
}


@both
@pytest.mark.parametrize("case", CLOSED)
def test_the_solution_is_the_closed_form(case, method):
    reg, x, expected = CLOSED[case]
    found = jr.prox_of_sum(reg, x, STEP, method=method)
    assert found.converged
    assert found.residual <= 1e-6 * np.abs(x).max()
    close(found.params, expected, atol=2e-5)


@both
def test_the_projection_onto_a_simplex_in_a_box(method):
    """min(max(x - t, low), high) at the t where the entries sum to 1."""
    t = optimize.brentq(lambda t: np.clip(VECTOR - t, 0.05, 0.4).sum() - 1, -3, 3)
    found = jr.prox_of_sum(jr.simplex() + jr.box(0.05, 0.4), VECTOR, method=method)
    assert found.converged
    close(found.params, np.clip(VECTOR - t, 0.05, 0.4), atol=2e-5)


# --- against brute force ----------------------------------------------------------------------------

BRUTE = {
    "overlapping groups": (
        sum(jr.group_lasso(0.3, groups=[[i, j], [k]]) for i, j, k in ((0, 1, 2), (1, 2, 0))),
        np.array([1.2, -0.4, 0.7], np.float32),
        lambda z: (
            0.3 * np.sqrt(2) * (np.hypot(z[0], z[1]) + np.hypot(z[1], z[2]))
            + 0.3 * (abs(z[0]) + abs(z[2]))
        ),
    ),
    "rows and columns": (
        jr.group_lasso(0.4, axis=1, sqrt_size=False) + jr.group_lasso(0.3, axis=0, sqrt_size=False),
        np.array([[1.2, -0.7], [0.4, 0.5]], np.float32),
        lambda z: 0.4 * np.linalg.norm(z, axis=0).sum() + 0.3 * np.linalg.norm(z, axis=1).sum(),
    ),
    "l1 and nuclear": (
        jr.nuclear(0.3) + jr.l1(0.2),
        np.array([[1.2, -0.7], [0.1, 0.5]], np.float32),
        lambda z: 0.3 * np.linalg.svd(z)[1].sum() + 0.2 * np.abs(z).sum(),
    ),
}


@both
@pytest.mark.parametrize("case", BRUTE)
def test_no_search_finds_a_better_point(case, method):
    reg, x, value = BRUTE[case]
    whole = objective(value, x, STEP)
    found = jr.prox_of_sum(reg, x, STEP, method=method)
    assert found.converged
    z = np.asarray(found.params, np.float64)
    best = optimize.minimize(
        whole, x.ravel(), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12, "maxiter": 4000}
    )  # fmt: skip
    assert whole(z) <= best.fun + 1e-7
    close(z.ravel(), best.x, atol=1e-3)


def test_the_solution_minimises_with_strong_convexity():
    """P(q) - P(z) >= |q - z|^2 / (2 step) for every q, near and far."""
    x = (2 * RNG.normal(size=(5, 4))).astype(np.float64)
    value = lambda z: (
        0.6 * np.linalg.svd(z)[1].sum()
        + 0.3 * np.abs(z).sum()
        + 0.2 * np.abs(np.diff(z, axis=0)).sum()
        + 0.1 * np.sum(z**2)
    )
    whole = objective(value, x, STEP)
    with jax.enable_x64(True):
        reg = jr.nuclear(0.6) + jr.l1(0.3) + jr.total_variation(0.2, axis=0) + jr.l2(0.2)
        found = jr.prox_of_sum(reg, jnp.asarray(x), STEP, tol=1e-12, max_steps=5000)
    z = np.asarray(found.params)
    assert (found.converged, z.dtype) == (True, np.float64)
    for scale in (1e-4, 1e-2, 1.0):
        for _ in range(50):
            q = z + scale * RNG.normal(size=z.shape)
            assert whole(q) - whole(z) >= np.sum((q - z) ** 2) / (2 * STEP) - 1e-10 * whole(q)


# --- the certificate --------------------------------------------------------------------------------


@both
def test_an_unconverged_run_says_so_and_how_far_it_is(method):
    """No set is farther than the residual, also long before the end."""
    reg = jr.simplex() + jr.l2_ball(0.55) + jr.box(-1.0, 0.4)
    errors = []
    for n in (1, 3, 9):
        found = jr.prox_of_sum(reg, VECTOR, method=method, max_steps=n)
        z = np.asarray(found.params)
        assert (bool(found.converged), int(found.n_steps)) == (False, n)
        away = [set_.prox(z, 1.0) - z for set_ in reg.terms()]
        errors.append(max(np.abs(a).max() for a in away))
        assert errors[-1] <= found.residual + 1e-6
        assert found.residual > 1e-5
    assert errors[0] > 2 * errors[-1]  # the runs are long enough for the residual to matter
    assert (z <= np.float32(0.4)).all()  # the last term holds exactly


@both
def test_the_residual_is_a_backward_error(method):
    """With l2 moved by e and x by r the answer is exact: here P'(z) is then -mu e + r / step."""
    x, mu = np.array([3.5, -2.5, 1.9], np.float32), 0.7
    residuals = []
    for n in (1, 2, 4, 8):
        found = jr.prox_of_sum(jr.l1(0.5) + jr.l2(mu), x, STEP, method=method, max_steps=n)
        z = np.asarray(found.params)
        slope = 0.5 * np.sign(z) + mu * z + (z - x) / STEP
        assert np.abs(slope).max() <= (mu + 1 / STEP) * found.residual + 1e-6
        residuals.append(float(found.residual))
    assert residuals[0] > 0.1 > 3 * residuals[-1]


def test_a_larger_tolerance_needs_fewer_steps():
    reg = jr.simplex() + jr.box(0.05, 0.4)
    steps = [jr.prox_of_sum(reg, VECTOR, tol=tol).n_steps for tol in (1e-2, 1e-4, 1e-6)]
    assert 1 < steps[0] < steps[1] < steps[2] < 1000


@both
def test_sets_without_a_common_point_and_nan_are_data(method):
    reg = jr.simplex(10.0) + jr.box(0.0, 1.0)
    found = jr.prox_of_sum(reg, VECTOR, method=method, max_steps=50)
    assert (bool(found.converged), int(found.n_steps)) == (False, 50)
    close(found.residual, (10 - 6) / 6, rtol=1e-2)  # between the nearest points of the two
    lost = jr.prox_of_sum(reg, VECTOR * np.nan, method=method)
    assert (bool(lost.converged), int(lost.n_steps)) == (False, 1)
    assert np.isnan(lost.residual)
    endless = jr.prox_of_sum(
        reg, VECTOR + np.array([np.inf, 0, 0, 0, 0, 0], np.float32), method=method
    )
    assert not endless.converged


# --- pytrees, order and steps -----------------------------------------------------------------------

PARAMS = {"a": jnp.asarray(VECTOR), "b": jnp.asarray(MATRIX), "count": jnp.int32(7)}


@both
def test_leaves_go_their_own_ways(method):
    groups = jr.group_lasso(0.6, axis=0, sqrt_size=False).on("b")
    reg = jr.l1(0.25).on(~jr.path("count")) + jr.box(-0.6, 1.1).on("a") + groups
    found = jr.prox_of_sum(reg, PARAMS, STEP, method=method)
    close(found.params["a"], soft(VECTOR, 0.2).clip(-0.6, 1.1), atol=2e-5)
    close(found.params["b"], shrink_rows(soft(MATRIX, 0.2), 0.48), atol=2e-5)
    assert (found.params["count"], found.params["count"].dtype) == (7, jnp.int32)


def test_on_each_leaf_the_last_term_holds_exactly():
    """Also where it could have shared the prox of an earlier one."""
    reg = jr.l1(0.3).on("a") + jr.linf(0.5).on(~jr.path("count")) + jr.box(-0.5, 0.5).on("b")
    z = jr.prox_of_sum(reg, PARAMS, max_steps=1).params
    assert np.abs(z["b"]).max() <= 0.5 < np.abs(MATRIX).max()


@both
def test_a_group_may_span_leaves(method):
    """The prox of l1 and one norm over all leaves: the threshold, then the norm."""
    x = {"a": VECTOR, "b": VECTOR[:2]}
    reg = jr.group_lasso(0.9, groups=[["a", "b"]], sqrt_size=False) + jr.l1(0.3)
    small = soft(np.concatenate([x["a"], x["b"]]), 0.3)
    expected = small * (1 - 0.9 / np.linalg.norm(small))
    z = jr.prox_of_sum(reg, x, method=method).params
    close(np.concatenate([z["a"], z["b"]]), expected, atol=2e-5)


@both
def test_steps_may_differ_by_leaf_and_entry(method):
    steps = {"a": np.linspace(0.2, 2, 6, dtype=np.float32), "b": 0.5, "count": 1.0}
    reg = (jr.l1(0.5) + jr.box(-0.6, 1.1)).on("a") + jr.l1(0.5).on("b")
    z = jr.prox_of_sum(reg, PARAMS, steps, method=method).params
    close(z["a"], soft(VECTOR, 0.5 * steps["a"]).clip(-0.6, 1.1), atol=2e-5)
    close(z["b"], soft(MATRIX, 0.25), atol=2e-5)


def test_what_has_an_exact_prox_takes_one_round():
    exact = jr.l1(0.3).on("a") + jr.nuclear(0.4).on("b")
    found = jr.prox_of_sum(exact, PARAMS, STEP)
    assert (int(found.n_steps), bool(found.converged)) == (1, True)
    # The program of the iteration and that of the prox alone round the singular vectors differently.
    close(found.residual, 0, atol=1e-8)
    jax.tree.map(lambda a, b: close(a, b, atol=1e-6), found.params, exact.prox(PARAMS, STEP))
    nothing = jr.prox_of_sum(jr.Zero(), PARAMS)
    assert nothing.converged
    jax.tree.map(np.testing.assert_array_equal, nothing.params, PARAMS)
    # A step of 0 moves nothing, save into a set.
    still = jr.prox_of_sum(jr.l1(0.3) + jr.box(-0.6, 1.1), VECTOR, 0.0)
    close(still.params, VECTOR.clip(-0.6, 1.1), atol=1e-6)


@both
def test_narrow_dtypes_are_kept_and_iterated_in_float32(method):
    reg, x, expected = CLOSED["sparse group lasso"]
    low = jnp.asarray(x, jnp.bfloat16)
    found = jr.prox_of_sum(reg, low, STEP, method=method)
    assert (found.params.dtype, found.residual.dtype) == (jnp.bfloat16, jnp.float32)
    assert found.converged
    close(found.params.astype(jnp.float32), expected, rtol=2**-7, atol=0.01)


# --- transformations --------------------------------------------------------------------------------


class Counted(jr.Elementwise):
    """l1 that counts how often its prox is traced."""

    smooth, convex = False, True
    traces: ClassVar[list[int]] = []

    def rho(self, x):
        return jnp.abs(x)

    def prox_rho(self, x, threshold):
        self.traces.append(1)
        return jr.prox.soft_threshold(x, threshold)


def test_one_program_serves_every_strength_step_and_tolerance():
    jr.prox_of_sum(Counted(0.5) + jr.box(-0.6, 1.1), VECTOR, STEP)
    before = len(Counted.traces)
    reg = Counted(0.25) + jr.box(-0.5, 0.9)
    z = jr.prox_of_sum(reg, VECTOR, 1.0, tol=1e-5, max_steps=500).params
    close(z, soft(VECTOR, 0.25).clip(-0.5, 0.9), atol=1e-4)
    assert len(Counted.traces) == before > 0


@both
def test_vmap_over_strengths_and_params_is_the_loop(method):
    def z(lam, x):
        return jr.prox_of_sum(jr.group_lasso(0.4) + jr.l1(lam), x, STEP, method=method)

    lams = jnp.array([0.0, 0.1, 0.8, 3.0])
    xs = jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)
    found = jax.jit(jax.vmap(z))(lams, xs)
    assert found.converged.all()
    for i in range(4):
        alone = z(lams[i], xs[i])
        close(found.params[i], alone.params, atol=2e-6)
        assert found.n_steps[i] == alone.n_steps


SLOPES = {
    "nuclear": ("dykstra", lambda a, b: jr.nuclear(a) + jr.l1(b) + jr.l2(0.3)),
    "simplex": ("consensus", lambda a, b: jr.simplex(1 + a) + jr.box(-1.0, 0.45) + jr.l1(b)),
    "total variation": ("dykstra", lambda a, b: jr.total_variation(a / 4) + jr.linf(b)),
}


@pytest.mark.parametrize("case", SLOPES)
def test_derivatives_both_ways_are_finite_differences(case):
    """By strengths, params and step, of a random direction; also where an entry is exactly 0."""
    method, make = SLOPES[case]
    with jax.enable_x64(True):
        weights = jnp.asarray(RNG.normal(size=MATRIX.shape))

        def f(a, b, x, step):
            z = jr.prox_of_sum(make(a, b), x, step, method=method, tol=1e-13, max_steps=3000).params
            return jnp.sum(weights * jnp.sin(z))

        at = (jnp.array(0.4), jnp.array(0.25), jnp.asarray(MATRIX, float), jnp.array(0.7))
        along = [jnp.asarray(RNG.normal(size=a.shape)) for a in at]
        shift = lambda h: f(*[a + h * d for a, d in zip(at, along)])
        expected = float(shift(1e-5) - shift(-1e-5)) / 2e-5
        _, push = jax.linearize(f, *at)
        slopes = jax.linear_transpose(push, *at)(jnp.ones(()))
        backward = sum(jnp.sum(g * d) for g, d in zip(slopes, along))
        found = [float(push(*along)), float(backward)]
    assert abs(expected) > 1e-2
    close(found, expected, rtol=1e-5)


def test_a_gradient_by_the_penalty_is_a_penalty():
    reg = jr.l1(0.25) + jr.box(-0.6, 1.1)
    by = jax.grad(lambda reg: jnp.sum(jr.prox_of_sum(reg, VECTOR, STEP).params))(reg)
    # Free entries move by step * lam towards 0, clipped ones with their bound, zeros not at all.
    inside = soft(VECTOR, 0.2)
    free = (inside > -0.6) & (inside < 1.1) & (inside != 0)
    close(by.parts[0].lam, -STEP * np.sign(VECTOR[free]).sum(), atol=1e-5)
    close([by.parts[1].low, by.parts[1].high], [(inside < -0.6).sum(), (inside > 1.1).sum()])


# --- refusals ---------------------------------------------------------------------------------------

CONVEX = jr.l1(0.1) + jr.l2_ball(1.0)


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        (
            {"penalty": jr.l1(0.1) + jr.mcp(0.1).on("*")},
            "prox_of_sum: mcp.on(path('*')) is not convex",
        ),
        (
            {"penalty": 2 * jr.unit_norm()},
            "prox_of_sum: unit_norm is not convex, so neither method is",
        ),
        ({"method": "admm"}, "`method` must be one of ['consensus', 'dykstra'], got 'admm'."),
        (
            {"max_steps": 0},
            "prox_of_sum: `max_steps` must be an integer between 1 and 2**31, got 0.",
        ),
        (
            {"max_steps": 1e3},
            "prox_of_sum: `max_steps` must be an integer between 1 and 2**31, got 1000.0.",
        ),
        ({"tol": -1e-3}, "prox_of_sum: `tol` must be >= 0 and not NaN, got -0.001."),
        ({"step": -1.0}, "prox_of_sum: `step` must be >= 0 and not NaN, got -1."),
        ({"step": {"b": 1.0}}, "`step` has the leaf "),
    ],
)
def test_bad_arguments_are_refused_with_the_remedy(kwargs, text):
    call = {"penalty": CONVEX, "params": {"w": jnp.ones(2)}, "step": 1.0} | kwargs
    with pytest.raises(ValueError, match=re.escape(text)):
        jr.prox_of_sum(**call)


def test_bad_types_are_refused_with_the_remedy():
    with pytest.raises(TypeError, match=re.escape("must be a penalty such as l1(0.1), got 0.1.")):
        jr.prox_of_sum(0.1, VECTOR)
    with pytest.raises(TypeError, match="leaf 'count' is of dtype int32, and only real floating"):
        jr.prox_of_sum(jr.l1(0.1) + jr.linf(0.1), PARAMS)
    low = jr.select.where(lambda path, leaf: leaf.dtype == jnp.float32)
    text = "prox_of_sum: l1.on(where(<lambda>)) selects leaves by their dtype, and the iteration widens"
    with pytest.raises(ValueError, match=re.escape(text)):
        jr.prox_of_sum(
            CONVEX + jr.l1(0.1).on(low), {"w": jnp.ones(2, jnp.bfloat16), "v": jnp.ones(2)}
        )


def test_a_term_without_a_prox_for_this_step_says_so_itself():
    with pytest.raises(ValueError, match="slope"):
        jr.prox_of_sum(jr.slope(0.1) + jr.l1(0.1), VECTOR, np.linspace(0.1, 1, 6, dtype=np.float32))
