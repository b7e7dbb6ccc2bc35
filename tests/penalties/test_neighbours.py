"""Total variation, the fused lasso and trend filtering against numpy's formulas and least squares.

The references are the dual problems: with the differences D the prox is x - step * D'u, where u solves
a least-squares problem in a box, which scipy's active-set solver (BVLS) does exactly.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear, minimize

import jaxreg as jr
from jaxreg import prox

pytestmark = pytest.mark.formulas

close = np.testing.assert_allclose
RNG = np.random.default_rng(6)
N = 6
X = RNG.normal(size=(3, N)).round(2)
# Runs, ties and zeros, where the value has kinks.
POINTS = np.concatenate([X, [[1, 1, 1, 0, 0, -1], [0, 0, 2, 2, 0, 0], [0, 0, 0, 0, 0, 0]]])
WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5, 1.0])
D = np.diff(np.eye(N), axis=0)
LAM, STEP = 0.5, 0.8
STEPS = RNG.uniform(0.2, 2, N)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def in_a_box(a, x, sides, step):
    """The prox of sum_i sides_i * |(a z)_i| with one step per coordinate, or one for all."""
    root, free = np.sqrt(np.broadcast_to(step, x.shape)), sides > 0
    ends = (-sides[free], sides[free])
    if not free.any():
        return x
    u = lsq_linear((root[:, None] * a.T)[:, free], x / root, ends, method="bvls", tol=1e-15).x
    return x - root**2 * (a.T[:, free] @ u)


# Name -> penalty with a strength, and rows and sizes of sum_i sizes_i * |(rows z)_i|.
CASES = {
    "total_variation": (jr.total_variation, D, np.ones(5)),
    "total_variation, weighted": (
        lambda lam: jr.total_variation(lam, weights=WEIGHTS), D, WEIGHTS,
    ),
    "fused_lasso": (
        lambda lam: jr.fused_lasso(lam, 0.3), np.vstack([np.eye(N), D]), np.repeat([0.3, 0.7], [6, 5]),
    ),
    "fused_lasso, weighted": (
        lambda lam: jr.fused_lasso(lam, 0.6, weights=WEIGHTS),
        np.vstack([np.eye(N), D]),
        np.append(np.full(6, 0.6), 0.4 * WEIGHTS),
    ),
    "fused_lasso, l1 alone": (lambda lam: jr.fused_lasso(lam, 1.0), np.eye(N), np.ones(N)),
}  # fmt: skip
case = pytest.mark.parametrize("name", CASES)
CENTRED = X - X.mean(1, keepdims=True)


@functools.cache
def computed(name):
    """Everything that the tests ask of a case, one program for all points."""
    make, _, _ = CASES[name]

    def one(x, grad):
        reg = make(LAM)
        near, lam = reg.prox(x, STEP), reg.lambda_max(grad)
        return {
            "value": reg(x),
            "prox": near,
            "distance": reg.subdiff_distance(near, (near - x) / STEP),
            "distance aside": reg.subdiff_distance(near + 0.1, (near + 0.1 - x) / STEP),
            "gradient": jax.grad(reg)(x),
            "least": reg.min_norm_subgradient(x, jnp.zeros(N)),
            "lambda_max": lam,
            "below": make(0.999 * lam).prox(-grad, 1.0),
            "above": make(1.001 * lam).prox(-grad, 1.0),
        }

    grads = np.tile(CENTRED if name.startswith("total") else X, (2, 1))
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(POINTS, grads)) | {"grads": grads}


@case
def test_the_value_is_the_formula(name):
    _, rows, sizes = CASES[name]
    close(computed(name)["value"], LAM * np.abs(POINTS @ rows.T) @ sizes, atol=1e-12)


@case
def test_the_prox_is_least_squares_in_a_box(name):
    _, rows, sizes = CASES[name]
    for x, near in zip(POINTS, computed(name)["prox"]):
        close(near, in_a_box(rows, x, STEP * LAM * sizes, 1.0), atol=1e-9)


@case
def test_the_certificate_is_zero_at_the_prox_alone(name):
    close(computed(name)["distance"], 0, atol=1e-9)
    # By strong monotonicity.
    assert (computed(name)["distance aside"] >= 0.1 * N**0.5 / STEP * (1 - 1e-9)).all()


@case
def test_the_gradient_at_kinks_is_the_shortest_subgradient(name):
    """The slopes where (rows z)_i is not 0, and the best of a box where it is."""
    _, rows, sizes = CASES[name]
    for x, slope, least in zip(POINTS, computed(name)["gradient"], computed(name)["least"]):
        bends = rows @ x
        fixed = rows.T @ (LAM * sizes * np.sign(bends))
        shortest = in_a_box(rows, fixed, np.where(bends == 0, LAM * sizes, 0), 1.0)
        close(slope, shortest, atol=1e-9)
        close(least, shortest, atol=1e-9)


@case
def test_lambda_max_is_the_smallest_with_the_zero_solution(name):
    found, (_, rows, sizes) = computed(name), CASES[name]
    if name == "total_variation, weighted":  # a free difference between the second and the third
        assert (found["lambda_max"] == np.inf).all()
        return
    for grad, lam in zip(found["grads"], found["lambda_max"]):
        close(in_a_box(rows, -grad, 1.001 * lam * sizes, 1.0), 0, atol=1e-9)
        assert np.abs(in_a_box(rows, -grad, 0.999 * lam * sizes, 1.0)).max() > 1e-6
    close(found["above"], 0, atol=1e-12)
    assert (np.abs(found["below"]) > 1e-6).any(1).all()


def test_no_strength_of_total_variation_holds_a_mean():
    assert jr.total_variation(1.0).lambda_max(jnp.asarray(X[0] + 1)) == np.inf
    assert jr.fused_lasso(1.0, 0.0).lambda_max(jnp.asarray(X[0] + 1)) == np.inf
    close(
        jr.fused_lasso(1.0, 0.0).lambda_max(jnp.asarray(CENTRED[0])),
        np.abs(np.cumsum(CENTRED[0])).max(),
    )


def test_the_conjugate_of_the_fused_lasso_is_a_box_after_a_prox():
    reg = jr.fused_lasso(LAM, 0.3)
    for x in X:
        near = in_a_box(D, x, 0.7 * LAM * np.ones(5), 1.0)
        inside = np.abs(near).max() / (0.3 * LAM)
        lam = reg.lambda_max(jnp.asarray(x))
        assert (inside > 1) == (lam > LAM)
        assert jr.fused_lasso(1.001 * lam, 0.3).conjugate(jnp.asarray(x)) == 0
        assert jr.fused_lasso(0.999 * lam, 0.3).conjugate(jnp.asarray(x)) == np.inf


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_in_a_diagonal_metric_total_variation_stays_exact(weights):
    reg = jr.total_variation(LAM, weights=weights)
    sizes = LAM * (np.ones(5) if weights is None else weights)
    move = jax.jit(jax.vmap(lambda x: reg.prox(x, jnp.asarray(STEPS))))
    for x, near in zip(POINTS, move(POINTS)):
        close(near, in_a_box(D, x, sizes, STEPS), atol=1e-9)
    held = reg.prox(jnp.asarray(X[0]), jnp.asarray(STEPS).at[2].set(0.0))
    assert held[2] == X[0, 2]


def test_a_weight_of_zero_cuts_the_line_in_two():
    run = jax.jit(lambda x: jr.total_variation(LAM, weights=jnp.asarray(WEIGHTS)).prox(x, STEP))
    tail = jr.total_variation(LAM, weights=jnp.asarray(WEIGHTS[2:])).prox(
        jnp.asarray(X[0, 2:]), STEP
    )
    near = run(X[0])
    close(near[2:], tail, atol=1e-12)
    close(near[:2], in_a_box(D[:1, :2], X[0, :2], np.array([LAM * STEP]), 1.0), atol=1e-9)


def test_every_line_along_the_axis_is_a_signal_of_its_own():
    x = RNG.normal(size=(2, N, 3))
    for make in (jr.total_variation, lambda *a, **k: jr.fused_lasso(*a, 0.3, **k)):
        one, all_ = jax.jit(make(LAM).prox), jax.jit(make(LAM, axis=1).prox)
        near, value = all_(x, STEP), make(LAM, axis=-2)(jnp.asarray(x))
        lines = [(i, j) for i in range(2) for j in range(3)]
        for i, j in lines:
            close(near[i, :, j], one(x[i, :, j], STEP), atol=1e-13)
        close(value, sum(make(LAM)(jnp.asarray(x[i, :, j])) for i, j in lines), rtol=1e-12)
    lams = jnp.asarray(RNG.uniform(0.1, 1, (2, 1, 3)))
    near = jr.total_variation(lams, axis=1).prox(jnp.asarray(x), STEP)
    close(
        near[1, :, 2],
        jr.total_variation(lams[1, 0, 2]).prox(jnp.asarray(x[1, :, 2]), STEP),
        atol=1e-13,
    )


def test_a_long_rough_line_against_least_squares():
    x = np.cumsum(RNG.normal(size=60)) + RNG.normal(size=60)
    rows = np.diff(np.eye(60), axis=0)
    run = jax.jit(prox.total_variation)
    for threshold in (0.01, 0.5, 5.0, 100.0):
        near = run(x, threshold)
        close(near, in_a_box(rows, x, np.full(59, threshold), 1.0), atol=1e-8)
    assert (np.diff(near) == 0).all()
    close(near[0], x.mean(), rtol=1e-12)


# --- iterated: images and trends ------------------------------------------------------------------


def gradients(m, n):
    """Vertical and horizontal differences of an m x n image, as rows that act on it flattened."""
    down = np.kron(np.diff(np.eye(m), axis=0), np.eye(n))
    return down, np.kron(np.eye(m), np.diff(np.eye(n), axis=0))


SHAPE = (4, 3)
IMAGES = RNG.normal(size=(2, *SHAPE))
SECOND = np.diff(np.eye(N), n=2, axis=0)


def isotropic_by_discs(image, side):
    """x - D'u with the two duals of each pixel in a disc."""
    m, n = image.shape
    down, right = np.zeros((m, n, m * n)), np.zeros((m, n, m * n))
    rows = gradients(m, n)
    down[:-1], right[:, :-1] = rows[0].reshape(m - 1, n, -1), rows[1].reshape(m, n - 1, -1)
    both = np.concatenate([down.reshape(m * n, -1), right.reshape(m * n, -1)])
    x, k = image.ravel(), m * n

    def goal(u):
        off = both.T @ u - x
        return 0.5 * off @ off, both @ off

    spots = np.hstack([np.eye(k), np.eye(k)])
    rule = {
        "type": "ineq",
        "fun": lambda u: side**2 - u[:k] ** 2 - u[k:] ** 2,
        "jac": lambda u: -2 * spots * u,
    }
    options = {"ftol": 1e-15, "maxiter": 500}
    u = minimize(
        goal, np.zeros(2 * k), jac=True, method="SLSQP", constraints=rule, options=options
    ).x
    return (x - both.T @ u).reshape(m, n)


def anisotropic_by_a_box(image, side):
    rows = np.vstack(gradients(*image.shape))
    return in_a_box(rows, image.ravel(), np.full(len(rows), side), 1.0).reshape(image.shape)


def trend_by_a_box(x, side):
    return in_a_box(SECOND, x, np.full(N - 2, side), 1.0)


ITERATED = {
    "isotropic": (
        lambda lam, **k: jr.total_variation(lam, axis=(0, 1), isotropic=True, **k),
        isotropic_by_discs, IMAGES, lambda x: x.mean(),
    ),
    "anisotropic": (
        lambda lam, **k: jr.total_variation(lam, axis=(-2, -1), **k),
        anisotropic_by_a_box, IMAGES, lambda x: x.mean(),
    ),
    "trend_filter": (
        jr.trend_filter, trend_by_a_box, X, lambda x: np.polyval(np.polyfit(range(N), x, 1), range(N)),
    ),
}  # fmt: skip
iterated = pytest.mark.parametrize("name", ITERATED)


@functools.cache
def moves(name, **limits):
    make = ITERATED[name][0]
    return jax.jit(lambda lam, x: make(lam, **limits).prox_with_residual(x, STEP))


@iterated
@pytest.mark.parametrize("lam", [0.05, 0.5, 20.0])
def test_an_iterated_prox_is_as_near_to_the_answer_as_it_says(name, lam):
    _, reference, inputs, unseen = ITERATED[name]
    for tolerance in (1e-2, 1e-7):
        near, residual = (np.asarray(a) for a in moves(name, tolerance=tolerance)(lam, inputs[0]))
        assert residual <= tolerance
        error = np.linalg.norm(near - reference(inputs[0], STEP * lam))
        # The reference itself is good to 1e-7.
        assert error <= (residual + 1e-6) * np.linalg.norm(inputs[0] - unseen(inputs[0]))


@iterated
def test_a_prox_that_is_stopped_early_reports_what_is_left(name):
    _, reference, inputs, unseen = ITERATED[name]
    x, exact = inputs[1], reference(inputs[1], STEP * 0.5)
    size = np.linalg.norm(x - unseen(x))
    left = []
    for max_steps in (1, 8, 64):
        near, residual = moves(name, tolerance=1e-9, max_steps=max_steps)(0.5, x)
        assert np.linalg.norm(near - exact) <= residual * size + 1e-7
        left.append(float(residual))
    assert left[0] > 10 * left[2] > 0


def finished(penalty, x):
    """The prox, and whatever it has to say has been said."""
    near = jax.jit(penalty.prox)(x, STEP)
    jax.effects_barrier()
    return near


@iterated
def test_a_prox_that_misses_its_tolerance_warns_and_one_that_meets_it_does_not(name):
    make, _, inputs, _ = ITERATED[name]
    x = jnp.asarray(inputs[0])
    text = (
        r"the prox stopped with a relative error of up to .*above `tolerance` 1e-09\. Raise `max_"
    )
    with pytest.warns(RuntimeWarning, match=text):
        finished(make(0.5, tolerance=1e-9, max_steps=2), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        near = finished(make(0.5), x)
    close(near, moves(name)(0.5, inputs[0])[0], atol=1e-12)


@iterated
def test_the_value_counts_bends(name):
    make, _, inputs, _ = ITERATED[name]
    for x in inputs:
        down, right = np.diff(x, axis=0), np.diff(x, axis=-1)
        expected = np.abs(np.diff(x, 2, axis=-1)).sum()
        if name == "anisotropic":
            expected = np.abs(down).sum() + np.abs(right).sum()
        if name == "isotropic":
            down, right = np.pad(down, [(0, 1), (0, 0)]), np.pad(right, [(0, 0), (0, 1)])
            expected = np.hypot(down, right).sum()
        close(make(LAM)(jnp.asarray(x)), LAM * expected, rtol=1e-12)


@iterated
def test_what_it_does_not_see_passes_and_costs_nothing(name):
    make, _, inputs, unseen = ITERATED[name]
    flat = np.broadcast_to(unseen(inputs[0]), inputs[0].shape)
    near, residual = moves(name)(3.0, flat)
    close(near, flat, atol=1e-12)
    assert residual <= 1e-3
    close(make(3.0)(jnp.asarray(flat)), 0, atol=1e-12)
    assert (moves(name)(0.0, inputs[0])[0] == inputs[0]).all()
    far = moves(name)(1e6, inputs[0])[0]
    close(far, flat, atol=2e-3)


@iterated
def test_its_derivatives_by_strength_and_point_are_those_of_the_values(name):
    make, _, inputs, _ = ITERATED[name]
    x, way = jnp.asarray(inputs[0]), jnp.asarray(inputs[1])

    @jax.jit
    def slopes(lam):
        run = lambda lam, x: make(lam, tolerance=1e-8).prox(x, STEP)
        sums = lambda lam, x: jnp.sum(way * run(lam, x))
        h = 1e-5
        by_x = (sums(lam, x + h * way) - sums(lam, x - h * way)) / (2 * h)
        by_lam = (sums(lam + h, x) - sums(lam - h, x)) / (2 * h)
        down = jax.grad(sums, (0, 1))(lam, x)
        along = jax.jvp(run, (lam, x), (0.0 * lam, way))[1]
        return by_lam, by_x, down[0], jnp.sum(down[1] * way), jnp.sum(along * way)

    by_lam, by_x, grad_lam, grad_x, along = slopes(0.3)
    close(grad_lam, by_lam, rtol=1e-3, atol=1e-4)
    close([grad_x, along], [by_x, by_x], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("isotropic", [False, True])
def test_a_strength_that_flattens_an_image_is_seen_to_in_float32(isotropic):
    """The bound is not lost in rounding times the strength, and the image is its mean exactly."""
    x = jnp.asarray(RNG.normal(size=(12, 9)), jnp.float32)
    run = jax.jit(functools.partial(prox.total_variation_2d, isotropic=isotropic))
    for threshold, scale in [(3.0, 1.0), (1e6, 1.0), (1.0, 1e-30)]:
        near = run(scale * x, jnp.float32(threshold))
        assert near.residual <= 1e-3
        assert near.n_steps < 200
        assert (near.value == near.value[0, 0]).all()
        close(near.value[0, 0], scale * x.mean(), rtol=1e-4)


def test_a_batch_of_images_is_bounded_image_by_image():
    stack = jnp.asarray(np.stack([IMAGES[0], np.ones(SHAPE), 100 * IMAGES[1]]))
    reg = jr.total_variation(0.5, axis=(1, 2))
    near, residual = jax.jit(reg.prox_with_residual)({"w": stack}, STEP)
    assert residual["w"].shape == (3,)
    assert (residual["w"] <= 1e-3).all()
    assert (near["w"][1] == 1).all()
    one = anisotropic_by_a_box(IMAGES[0], STEP * 0.5)
    assert np.linalg.norm(near["w"][0] - one) <= 1e-3 * np.linalg.norm(IMAGES[0])


# --- edges ----------------------------------------------------------------------------------------

FAMILIES = {
    "total_variation": jr.total_variation,
    "total_variation of images": lambda lam: jr.total_variation(lam, axis=(0, 1)),
    "fused_lasso": jr.fused_lasso,
    "trend_filter": jr.trend_filter,
}
family = pytest.mark.parametrize("name", FAMILIES)


@family
def test_a_leaf_without_entries_or_neighbours_adds_nothing(name):
    reg, some = FAMILIES[name](0.5), jnp.asarray(IMAGES[0])
    params = {"none": jnp.zeros((0, 3)), "flat": jnp.zeros((3, 0)), "some": some}
    near = jax.jit(reg.prox)(params, STEP)
    assert (near["none"].shape, near["flat"].shape) == ((0, 3), (3, 0))
    assert reg(params) == reg(some)
    one = jnp.array([[2.0]])
    l1 = 0.25 if name == "fused_lasso" else 0
    assert reg(one) == 2 * l1
    assert reg.prox(one, 1.0).tolist() == [[2.0 - l1]]


@family
def test_bf16_leaves_are_summed_in_float32_and_rounded_once(name):
    reg, x = FAMILIES[name](0.5), jnp.asarray(IMAGES[0], jnp.bfloat16)
    run = jax.jit(lambda x: (reg(x), reg.prox(x, STEP)))
    value, near = run(x)
    assert (value.dtype, near.dtype) == (jnp.float32, jnp.bfloat16)
    assert (near == run(x.astype(jnp.float32))[1].astype(jnp.bfloat16)).all()


def test_the_slope_left_of_trend_filtering_is_least_squares_in_a_box():
    """Bends fix their multiplier, what is straight has one in [-lam, lam]."""
    make = functools.partial(jr.trend_filter, LAM, max_steps=5000)
    found = {t: jax.jit(make(tolerance=t).min_norm_subgradient) for t in (1e-2, 1e-8)}
    kinked = np.array([[0, 1, 2, 3, 2, 1], [1, 1, 1, 1, 1, 1], [0, 2, 0, 0, 0, 0], X[0]]) / 3.0
    for x in kinked:
        bends = np.sign((SECOND @ x).round(12))
        for grad in X:
            fixed = grad + LAM * SECOND.T @ bends
            expected = in_a_box(SECOND, fixed, np.where(bends == 0, LAM, 0), 1.0)
            for tolerance, rest in found.items():
                error = np.linalg.norm(rest(x, grad) - expected)
                assert error <= (tolerance + 1e-7) * np.linalg.norm(fixed)


@pytest.mark.parametrize(("dtype", "size"), [(np.float64, 1e-6), (np.float32, 1e-3)])
def test_the_certificate_of_trend_filtering_is_small_at_the_prox_alone(dtype, size):
    reg = jr.trend_filter(LAM, tolerance=1e-8 if dtype == np.float64 else 1e-4, max_steps=5000)
    for x in X.astype(dtype):
        near = reg.prox(jnp.asarray(x), STEP)
        assert reg.subdiff_distance(near, (near - x) / STEP) <= size
        aside = near + np.asarray(0.1, dtype)
        assert reg.subdiff_distance(aside, (aside - x) / STEP) >= 0.1 * np.sqrt(N) / STEP - size


def test_lambda_max_of_trend_filtering_is_the_least_box_that_holds_the_dual():
    """D'u = -grad has one solution u if any, as D' has full column rank; a line has none."""
    find = jax.jit(jr.trend_filter(1.0).lambda_max)
    for x in X:
        grad = x - ITERATED["trend_filter"][3](x)
        u = np.linalg.lstsq(SECOND.T, -grad, rcond=None)[0]
        lam = find(grad)
        close(lam, np.abs(u).max(), rtol=1e-10)
        for factor, stays in ((1.01, True), (0.99, False)):
            near = moves("trend_filter", tolerance=1e-7)(factor * lam, -STEP * grad)[0]
            assert (np.abs(near).max() < 1e-5) == stays
        ramp = np.arange(N) - 2.5
        # Each is seen by one of the last two sums, or by both.
        for tilt in (x, np.ones(N), ramp, np.eye(N)[0] - N * np.eye(N)[-1]):
            assert find(grad + 1e-3 * tilt) == np.inf
    assert find(jnp.zeros(N)) == 0


def test_lambda_max_of_trend_filtering_is_relative_to_the_strengths_of_lines():
    grad = np.stack([x - ITERATED["trend_filter"][3](x) for x in X], 1)
    alone = [float(jr.trend_filter(1.0).lambda_max(jnp.asarray(g))) for g in grad.T]
    strengths = jnp.array([[1.0, 0.5, 2.0]])
    found = jr.trend_filter(strengths, axis=0).lambda_max(jnp.asarray(grad))
    close(found, np.max(np.array(alone) / strengths[0]), rtol=1e-12)
    free = jr.trend_filter(strengths.at[0, 1].set(0), axis=0)
    assert free.lambda_max(jnp.asarray(grad)) == np.inf
    short = jr.trend_filter(1.0)
    assert [float(short.lambda_max(jnp.ones(n))) for n in (0, 1, 2)] == [0, np.inf, np.inf]


def test_order_zero_of_trend_filtering_is_total_variation():
    reg = jr.trend_filter(0.5, 0, axis=0)
    assert repr(reg) == repr(jr.total_variation(0.5, axis=0))


@pytest.mark.parametrize("axis", [0, -1])
def test_bends_that_cost_nothing_are_knots_of_a_least_squares_fit(axis):
    """Where no other bend can be paid: regression on a line and one hinge for each free bend."""
    free = np.array([False, True, False, True])
    place = np.arange(N)
    hinges = [np.maximum(place - 1 - i, 0) for i in np.flatnonzero(free)]
    basis = np.stack([np.ones(N), place, *hinges], 1)
    fits = [basis @ np.linalg.lstsq(basis, x, rcond=None)[0] for x in X]
    signals, along = (X, free) if axis else (X.T, free[:, None])
    found = prox.trend_filter(signals, 10.0, axis, free=along, tolerance=1e-9, max_steps=20_000)
    close(found.value if axis else found.value.T, fits, atol=1e-6)
    close(
        prox.trend_filter(signals, 10.0, axis, free=True, tolerance=1e-9).value, signals, atol=1e-6
    )


# --- refusals -------------------------------------------------------------------------------------

W = jnp.asarray(IMAGES[0])
UNEVEN = jnp.ones(SHAPE)
REFUSALS = {
    "an axis out of range": (lambda: jr.total_variation(1.0, axis=2)({"w": W}), ValueError, r"total_variation: `axis` 2 is out of range for the leaf 'w' of shape \(4, 3\)"),
    "an axis out of range, fused": (lambda: jr.fused_lasso(1.0, axis=-3)(W), ValueError, "fused_lasso: `axis` -3 is out of range"),
    "an axis out of range, trend": (lambda: jr.trend_filter(1.0, axis=2).prox(W, 1.0), ValueError, "trend_filter: `axis` 2 is out of range"),
    "a scalar leaf": (lambda: jr.total_variation(1.0)(jnp.ones(())), ValueError, r"`axis` -1 is out of range for the leaf '' of shape \(\)"),
    "no two axes of a vector": (lambda: jr.total_variation(1.0, axis=(0, 1))({"b": jnp.ones(3)}), ValueError, r"total_variation: `axis` \(0, 1\) is not two axes of the leaf 'b' of shape \(3,\)"),
    "the same axis twice": (lambda: jr.total_variation(1.0, axis=(1, -1)).prox(W, 1.0), ValueError, r"`axis` \(1, -1\) is not two axes of the leaf ''"),
    "three axes": (lambda: jr.total_variation(1.0, axis=(0, 1, 2)), TypeError, r"total_variation: `axis` must be an integer or two of them, got \(0, 1, 2\)"),
    "an axis that is a float": (lambda: jr.total_variation(1.0, axis=0.5), TypeError, r"total_variation: `axis` must be an integer, got 0\.5"),
    "axes that are floats": (lambda: jr.total_variation(1.0, axis=(0, 1.0)), TypeError, r"total_variation: `axis` must be an integer, got 1\.0"),
    "an axis that is None, fused": (lambda: jr.fused_lasso(1.0, axis=None), TypeError, "fused_lasso: `axis` must be an integer, got None"),
    "two axes, trend": (lambda: jr.trend_filter(1.0, axis=(0, 1)), TypeError, r"trend_filter: `axis` must be an integer, got \(0, 1\)"),
    "weights of an image": (lambda: jr.total_variation(1.0, axis=(0, 1), weights=2.0), ValueError, r"total_variation: `weights` are for one axis, and `axis` \(0, 1\) has two"),
    "as many weights as entries": (lambda: jr.total_variation(1.0, axis=0, weights=jnp.ones(4))({"w": W}), ValueError, r"total_variation: `weights` has shape \(4,\) on the leaf 'w' of shape \(4, 3\); give one per pair of neighbours, 3 of them"),
    "as many weights as entries, fused": (lambda: jr.fused_lasso(1.0, weights=jnp.ones(3)).prox(W, 1.0), ValueError, r"fused_lasso: `weights` has shape \(3,\).*2 of them"),
    "negative weights": (lambda: jr.total_variation(1.0, weights=jnp.array([-1.0])), ValueError, "total_variation: `weights` must be >= 0"),
    "a strength per entry": (lambda: jr.total_variation(UNEVEN)(W), ValueError, r"total_variation: `lam` has shape \(4, 3\) and differs along axis -1"),
    "a strength per entry, fused": (lambda: jr.fused_lasso(UNEVEN)(W), ValueError, "fused_lasso: `lam` has shape"),
    "a strength per entry, trend": (lambda: jr.trend_filter(UNEVEN)(W), ValueError, "trend_filter: `lam` has shape"),
    "a strength per row of an image": (lambda: jr.total_variation(UNEVEN[:, :1], axis=(0, 1))(W), ValueError, r"`lam` has shape \(4, 1\) and differs along axis 0"),
    "a ratio above one": (lambda: jr.fused_lasso(1.0, 1.5), ValueError, r"fused_lasso: `l1_ratio` is a share between 0 \(total variation\) and 1 \(lasso\), got 1\.5"),
    "a ratio per row": (lambda: jr.fused_lasso(1.0, UNEVEN[:, :1])(W), ValueError, r"fused_lasso: `l1_ratio` has shape \(4, 1\); give one number per leaf"),
    "a metric, fused": (lambda: jr.fused_lasso(1.0).prox(W, UNEVEN), ValueError, r"fused_lasso: with one step per coordinate \(as after Adam\) the prox has no closed form"),
    "a metric, trend": (lambda: jr.trend_filter(1.0).prox(W, UNEVEN), ValueError, "trend_filter: with one step per coordinate"),
    "a metric, image": (lambda: jr.total_variation(1.0, axis=(0, 1)).prox(W, UNEVEN), ValueError, "total_variation: with one step per coordinate"),
    "a negative step": (lambda: jr.trend_filter(1.0).prox_with_residual(W, -1.0), ValueError, "trend_filter: `step` must be >= 0"),
    "a step of another shape": (lambda: jr.trend_filter(1.0).prox_with_residual({"w": W}, jnp.ones(2)), ValueError, r"trend_filter: `step` has shape \(2,\) on the leaf 'w'"),
    "an order of two": (lambda: jr.trend_filter(1.0, 2), ValueError, r"trend_filter: `order` must be 0 \(piecewise constant\) or 1 \(piecewise linear\), got 2"),
    "no tolerance": (lambda: jr.trend_filter(1.0, tolerance=0), ValueError, "trend_filter: `tolerance` must be a number > 0, got 0"),
    "a tolerance that is text": (lambda: jr.total_variation(1.0, axis=(0, 1), tolerance="low"), ValueError, "total_variation: `tolerance` must be a number > 0, got 'low'"),
    "no steps": (lambda: jr.total_variation(1.0, axis=(0, 1), max_steps=0), ValueError, r"total_variation: `max_steps` must be an integer between 1 and 2\*\*31, got 0"),
    "half a step": (lambda: jr.trend_filter(1.0, max_steps=1.5), ValueError, r"trend_filter: `max_steps` must be an integer between 1 and 2\*\*31, got 1\.5"),
    "no certificate, image": (lambda: jr.total_variation(1.0, axis=(0, 1)).subdiff_distance(W, W), ValueError, "total_variation: the subdifferential has no closed form"),
    "no lambda_max, image": (lambda: jr.total_variation(1.0, axis=(0, 1)).lambda_max(W), ValueError, "total_variation: lambda_max has no closed form"),
    "no conjugate": (lambda: jr.total_variation(1.0).conjugate(W), ValueError, "total_variation: the conjugate has no closed form"),
    "integers, the operator": (lambda: prox.total_variation(jnp.arange(3), 1.0), TypeError, "total_variation: `x` must be a floating array"),
    "integers, both": (lambda: prox.fused_lasso(jnp.arange(3), 1.0, 1.0), TypeError, "fused_lasso: `x` must be a floating array"),
    "integers, an image": (lambda: prox.total_variation_2d(jnp.ones((2, 2), int), 1.0), TypeError, "total_variation_2d: `x` must be a floating array"),
    "bends as numbers": (lambda: prox.trend_filter(W, 1.0, free=jnp.ones(SHAPE)), ValueError, "trend_filter: `free` must be boolean and broadcast to"),
    "bends of the entries": (lambda: prox.trend_filter(jnp.ones(6), 1.0, free=jnp.ones(6, bool)), ValueError, r"second differences of `x` along axis 0, got bool\[6\]"),
    "integers, a trend": (lambda: prox.trend_filter(jnp.arange(3), 1.0), TypeError, "trend_filter: `x` must be a floating array"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused_with_a_remedy(call, error, text):
    with pytest.raises(error, match=text):
        call()


@family
def test_integer_and_complex_leaves_are_refused(name):
    reg = FAMILIES[name](1.0)
    for x, kind in [(jnp.ones((2, 2), int), "int"), (W.astype(complex), "complex")]:
        for call in (reg, lambda p: reg.prox(p, 1.0)):
            with pytest.raises(
                TypeError, match=f"the leaf 'w' is of dtype {kind}.*only real floating"
            ):
                call({"w": x})
