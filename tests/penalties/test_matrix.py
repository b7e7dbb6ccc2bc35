"""Penalties and constraints of singular values, against numpy's SVD, brute force and pyproximal."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg import prox
from jaxreg.prox._spectral import singular_values

pytestmark = pytest.mark.formulas

close = np.testing.assert_allclose
RNG = np.random.default_rng(0)
START = RNG.bit_generator.state
GRID = np.linspace(0, 6, 60001)


@pytest.fixture(autouse=True)
def _same_draws_whatever_ran_before():
    RNG.bit_generator.state = START


# Penalties are arguments, so tests with matrices of one shape share their programs.
value = jax.jit(lambda p, x: p(x))
slope = jax.jit(lambda p, x: jax.grad(p)(x))
move = jax.jit(lambda p, x, step: p.prox(x, step))
distance = jax.jit(lambda p, x, grad: p.subdiff_distance(x, grad))
moves = jax.jit(jax.vmap(lambda p, x, step: p.prox(x, step), (None, None, 0)))


def matrix(values, shape=(4, 3), seed=1):
    """A matrix with these singular values."""
    rng = np.random.default_rng(seed)
    k = min(shape)
    u, v = (np.linalg.qr(rng.normal(size=(n, k)))[0] for n in shape)
    return (u * np.resize(np.asarray(values, float), k)) @ v.T


def from_values(x, move):
    """numpy's SVD with its singular values moved, in float64."""
    u, s, vt = np.linalg.svd(np.asarray(x, float), full_matrices=False)
    return (u * move(s)) @ vt


def brute(formula, step):
    """The scalar prox by a grid on [0, 6], for every singular value on its own."""
    return lambda s: np.array(
        [GRID[np.argmin(formula(GRID) + (GRID - v) ** 2 / (2 * step))] for v in s]
    )


def clipped(s, budget):
    """The prox of the maximum by bisection on its height."""
    low, high = 0.0, s.max()
    for _ in range(100):
        mid = (low + high) / 2
        low, high = (mid, high) if np.maximum(s - mid, 0).sum() > budget else (low, mid)
    return np.minimum(s, high)


PROXES = {
    "nuclear": (jr.nuclear(0.75), lambda t: brute(lambda z: 0.75 * z, t)),
    "log_det": (jr.log_det(0.75, 0.5), lambda t: brute(lambda z: 0.75 * np.log1p(z / 0.5), t)),
    "spectral_norm": (jr.spectral_norm(0.75), lambda t: lambda s: clipped(s, 0.75 * t)),
    "orthogonal": (jr.orthogonal(0.75), lambda t: brute(lambda z: 0.375 * (z**2 - 1) ** 2, t)),
    "orthogonal_both": (
        jr.orthogonal(0.75, double_sided=True),
        lambda t: brute(lambda z: 0.75 * (z**2 - 1) ** 2, t),
    ),
    "spectral_ball": (jr.spectral_ball(1.5), lambda t: lambda s: np.minimum(s, 1.5)),
    "low_rank": (jr.low_rank(2), lambda t: lambda s: s * (np.arange(len(s)) < 2)),
}


@pytest.mark.parametrize("name", PROXES)
def test_prox_moves_singular_values_as_brute_force_does(name):
    penalty, move = PROXES[name]
    x, steps = matrix([3.0, 1.2, 0.4]), (0.3, 2.0)
    found = moves(penalty, jnp.float32(x), jnp.float32(steps))
    for step, moved in zip(steps, found):
        close(moved, from_values(x, move(step)), atol=2e-4)


def test_a_wide_matrix_is_the_transpose_of_a_tall_one():
    x = jnp.float32(RNG.normal(size=(4, 3)))
    for penalty in (jr.nuclear(0.3), jr.orthogonal(0.3)):
        run = jax.jit(lambda x, p=penalty: (p(x), jax.grad(p)(x), p.prox(x, 0.5)))
        for tall, wide in zip(run(x), run(x.T)):
            close(tall.T, wide, atol=1e-5)


VALUES = {
    "nuclear": (jr.nuclear(0.5), lambda s: 0.5 * s.sum()),
    "spectral_norm": (jr.spectral_norm(0.5), lambda s: 0.5 * s.max()),
    "log_det": (jr.log_det(0.5, 0.25), lambda s: 0.5 * np.log(1 + s / 0.25).sum()),
    "orthogonal": (jr.orthogonal(0.5), lambda s: 0.25 * ((s**2 - 1) ** 2).sum()),
}


@pytest.mark.parametrize("name", VALUES)
def test_value_is_the_formula(name):
    penalty, formula = VALUES[name]
    x = RNG.normal(size=(4, 3))
    expected = formula(np.linalg.svd(x, compute_uv=False))
    assert float(value(penalty, jnp.float32(x))) == pytest.approx(expected, rel=1e-5)


def test_against_pyproximal():
    pyproximal = pytest.importorskip("pyproximal")
    x = RNG.normal(size=(4, 3))
    found = move(jr.nuclear(0.6), jnp.float32(x), 0.5)
    close(found.ravel(), pyproximal.Nuclear((4, 3), 0.6).prox(x.ravel(), 0.5), atol=1e-5)
    # Its logarithm has slope sigma * gamma / log(1 + gamma) at 0.
    log = pyproximal.SingularValuePenalty((4, 3), pyproximal.Log(0.6, gamma=2.0))
    ours = jr.log_det(0.6 / np.log(3), 0.5)
    close(move(ours, jnp.float32(x), 0.5).ravel(), log.prox(x.ravel(), 0.5), atol=1e-5)


# --- derivatives ---------------------------------------------------------------------------------

OPERATORS = {
    "nuclear": lambda x, t: prox.nuclear(x, t),
    "log_det": lambda x, t: prox.log_det(x, t, 1.0),
    "spectral_norm": lambda x, t: prox.spectral_norm(x, t),
    "orthogonal": lambda x, t: prox.orthogonal(x, t),
    "spectral_ball": lambda x, t: prox.spectral_ball(x, t),
    "low_rank": lambda x, t: prox.low_rank(x, 2) + 0 * t,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_derivatives_of_the_prox_are_those_of_its_values(name):
    """By the matrix and by the threshold, with a tie in the middle, against differences."""
    # One of each shape: the part of dX outside the span of U is on one side or the other.
    operator, h, shape = OPERATORS[name], 1e-6, (3, 4) if name == "log_det" else (4, 3)
    w, dx = RNG.normal(size=(2, *shape))

    @jax.jit
    def both(x, t):
        moved, slope = jax.jvp(operator, (x, t), (dx, 0.3))
        along = jax.jvp(lambda x: operator(x, t), (x,), (dx,))[1]
        pull = jax.grad(lambda x: jnp.sum(w * operator(x, t)))(x)
        return moved, slope, jnp.sum(pull * dx) - jnp.sum(w * along)

    with jax.enable_x64(True):
        dx, x, t = jnp.asarray(dx), jnp.asarray(matrix([2.0, 2.0, 0.4], shape)), jnp.float64(0.7)
        ahead, behind = (both(x + s * h * dx, t + s * h * 0.3)[0] for s in (1, -1))
        _, slope, gap = both(x, t)
        close(slope, (ahead - behind) / (2 * h), atol=1e-6)
        # Reverse mode is the transpose of forward mode.
        assert abs(float(gap)) < 1e-12


@pytest.mark.parametrize("name", OPERATORS)
def test_derivatives_are_finite_where_an_svd_has_none(name):
    points = np.stack([np.zeros((4, 3)), np.eye(4, 3), matrix([1.0, 0, 0]), np.ones((4, 3))])
    grads = jax.jit(jax.vmap(jax.jacrev(OPERATORS[name], (0, 1))))
    for t in (0.0, 1.0):
        assert all(np.isfinite(g).all() for g in grads(jnp.float32(points), jnp.full(4, t)))


def test_jax_svd_has_no_derivative_there():
    """Why the rule is written out: the day jax has one, it may go."""
    plain = lambda x: (lambda u, s, vt: (u * jnp.maximum(s - 0.5, 0)) @ vt)(*jnp.linalg.svd(x))
    _, slope = jax.jvp(plain, (jnp.eye(3),), (jnp.ones((3, 3)),))
    assert not np.isfinite(slope).all()


def test_gradients_of_the_value_are_the_least_norm_ones():
    low = matrix([3.0, 1.0, 0.0])
    u, _, vt = np.linalg.svd(low, full_matrices=False)
    found = slope(jr.nuclear(2.0), jnp.float32(low))
    close(found, 2 * u[:, :2] @ vt[:2], atol=1e-5)
    zero = jnp.zeros((4, 3))
    every = (jr.nuclear(2.0), jr.spectral_norm(2.0), jr.log_det(2.0), jr.orthogonal(2.0))
    assert not any(slope(p, zero).any() for p in every)
    # At a tie the top pairs share: the mean of u v^T is the shortest element.
    close(slope(jr.spectral_norm(2.0), jnp.eye(4, 3)), 2 * np.eye(4, 3) / 3, atol=1e-6)
    by_strength = jax.jit(jax.grad(lambda p: p(zero)))(jr.log_det(2.0))
    assert np.isfinite(by_strength.epsilon)


def test_singular_values_of_a_batch_have_zero_derivative_at_zeros():
    stack = jnp.stack([jnp.zeros((3, 3)), jnp.eye(3)])
    jac = jax.jit(jax.jacrev(lambda x: singular_values(x).sum(-1)))(stack)
    assert (jac[0] == 0).all()
    close(jac[1, 1], np.eye(3), atol=1e-6)


# --- orthogonality -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 3), (3, 4)])
def test_orthogonal_is_zero_for_orthonormal_sides_and_only_there(shape):
    with jax.enable_x64(True):
        frame = jnp.asarray(matrix([1.0], shape))
        assert 0 <= float(value(jr.orthogonal(1.0), frame)) < 1e-28
        # The last one has W^T W - I with entries of both signs that sum to 0.
        tilted = frame.at[:, 0].multiply(1.1).at[:, 1].multiply(np.sqrt(2 - 1.1**2))
        for other in (0.9 * frame, frame.at[0, 0].add(0.1), -2 * frame, 0 * frame, tilted):
            assert float(value(jr.orthogonal(1.0), other)) > 1e-3


def test_orthogonal_states_its_half_and_its_gradient():
    w = RNG.normal(size=(4, 3))
    gram = w.T @ w - np.eye(3)
    assert float(value(jr.orthogonal(0.6), jnp.float32(w))) == pytest.approx(
        0.3 * (gram**2).sum(), rel=1e-5
    )
    close(slope(jr.orthogonal(0.6), jnp.float32(w)), 2 * 0.6 * w @ gram, rtol=1e-4, atol=1e-5)


def test_double_sided_is_twice_plus_a_constant():
    w = RNG.normal(size=(4, 3))
    sides = ((w.T @ w - np.eye(3)) ** 2).sum() + ((w @ w.T - np.eye(4)) ** 2).sum()
    both, one = jr.orthogonal(0.6, double_sided=True), jr.orthogonal(1.2)
    w = jnp.float32(w)
    assert float(value(both, w)) == pytest.approx(0.3 * sides, rel=1e-5)
    close(slope(both, w), slope(one, w), rtol=1e-5)
    close(move(both, w, 0.4), move(one, w, 0.4), rtol=1e-5)


def test_orthogonal_prox_solves_its_cubic_from_tiny_to_huge():
    s, c = np.meshgrid(np.logspace(-12, 12, 25), np.append(0, np.logspace(-9, 9, 37)))
    with jax.enable_x64(True):
        x = jnp.asarray(s.ravel())[:, None, None]
        z = jax.jit(prox.orthogonal)(x, jnp.asarray(c.ravel())[:, None, None])
        z = np.asarray(z).ravel()
    s, c = s.ravel(), c.ravel()
    # Relative to the larger of the terms that balance.
    gap = 2 * c * z**3 + (1 - 2 * c) * z - s
    close(gap / (2 * c * z**3 + np.abs(1 - 2 * c) * z + s), 0, atol=1e-14)
    # Beyond threshold 1/2 the root at a zero singular value is not 0: both signs are as good.
    assert (z[(c > 0.5)] >= np.sqrt(1 - 1 / (2 * c[c > 0.5])) * (1 - 1e-12)).all()


# --- certificates --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [jr.nuclear, jr.log_det, jr.spectral_norm])
def test_min_norm_subgradient_is_steepest_descent(make):
    """Minus it descends at the rate of its norm, and no direction descends faster."""

    @jax.jit
    def rates(penalty, x, grad):
        found = penalty.min_norm_subgradient(x, grad)
        rows = jnp.concatenate([-found[None], jnp.asarray(RNG.normal(size=(50, 4, 3)))])
        unit = rows / jnp.linalg.norm(rows, axis=(1, 2), keepdims=True)
        ahead = jax.vmap(lambda d: penalty(x + 1e-7 * d))(unit)
        return jnp.linalg.norm(found), (ahead - penalty(x)) / 1e-7 + jnp.sum(grad * unit, (1, 2))

    with jax.enable_x64(True):
        for values in ((2, 1, 0), (0, 0, 0), (2, 2, 1)):
            grad = jnp.asarray(3 * RNG.normal(size=(4, 3)))
            size, rate = rates(make(0.7), jnp.asarray(matrix(values)), grad)
            assert float(rate[0]) == pytest.approx(-float(size), rel=1e-4)
            assert rate.min() >= -size * (1 + 1e-4)


def test_lambda_max_are_the_dual_norms():
    grad = RNG.normal(size=(4, 3))
    s = np.linalg.svd(grad, compute_uv=False)
    sets = [jr.spectral_ball(1.0), jr.low_rank(0)]
    every = [jr.nuclear(9.0), jr.spectral_norm(9.0), jr.log_det(9.0, 0.25), *sets]
    found = jax.jit(lambda g: jnp.stack([p.lambda_max(g) for p in every]))(jnp.float32(grad))
    # Without a strength to tune, 0 is stationary already or never.
    close(found, [s.max(), s.sum(), 0.25 * s.max(), np.inf, 0], rtol=1e-5)


def test_conjugates_are_dual_balls_and_support_functions():
    d = jnp.float32(matrix([2.0, 1.0, 0.5]))
    every = [jr.nuclear(2.001), jr.nuclear(1.999), jr.spectral_norm(3.501), jr.spectral_norm(3.499)]
    every += [jr.spectral_ball(2.0), jr.low_rank(1), jr.low_rank(0)]
    found = jax.jit(lambda d: jnp.stack([p.conjugate(d) for p in every]))(d)
    close(found, [0, np.inf, 0, np.inf, 7, np.inf, 0], rtol=1e-5)


@pytest.mark.parametrize("make", [jr.spectral_ball, jr.low_rank])
def test_a_constraint_holds_after_its_projection_and_not_before(make):
    penalty, x = make(1), jnp.float32(matrix([3.0, 2.0, 1.0]))
    assert value(penalty, x) == np.inf
    for dtype in (jnp.float32, jnp.bfloat16):
        moved = move(penalty, x.astype(dtype), 0.1)
        assert moved.dtype == dtype
        assert value(penalty, moved) == 0
    assert (slope(penalty, x) == 0).all()
    assert distance(penalty, x, x) == np.inf


def test_normals_of_spectral_ball_and_low_rank_are_absorbed():
    u, _, vt = np.linalg.svd(matrix([1, 1, 0.5]), full_matrices=False)
    edge = jnp.float32(matrix([1, 1, 0.5]))
    out = u[:, :2] @ np.array([[2.0, 0.5], [0.5, 1.0]]) @ vt[:2]
    ball = jr.spectral_ball(1.0)
    assert float(distance(ball, edge, jnp.float32(-out))) < 1e-5
    assert float(distance(ball, edge, jnp.float32(out))) > 1
    assert float(distance(ball, 0.9 * edge, jnp.float32(out))) == pytest.approx(
        np.linalg.norm(out), rel=1e-5
    )
    low = jnp.float32(u[:, :1] @ vt[:1])
    free = u[:, 1:2] @ vt[1:2]  # orthogonal to the range on both sides
    assert float(distance(jr.low_rank(1), low, jnp.float32(5 * free))) < 1e-5
    # With room for one more direction that gradient could be followed.
    assert float(distance(jr.low_rank(3), low, jnp.float32(5 * free))) == pytest.approx(5)


# --- how leaves are read -------------------------------------------------------------------------


@pytest.mark.parametrize("make", [jr.nuclear, jr.spectral_ball])
def test_rows_and_columns_reshape_and_leading_axes_are_a_batch(make):
    x = jnp.float32(RNG.normal(size=(2, 2, 4)))
    conv, heads, each = make(0.5, rows=2), make(0.5, columns=2), make(0.5)
    run = jax.jit(lambda p, x: (p(x), p.prox(x, 0.3)))
    for penalty, shape in ((conv, (4, 4)), (heads, (2, 8))):
        (value, moved), (expected, flat) = run(penalty, x), run(each, x.reshape(shape))
        close(value, expected, rtol=1e-5)
        close(moved, flat.reshape(x.shape), atol=1e-6)
    value, moved = run(each, x)
    layers = [run(each, layer) for layer in x]
    close(value, sum(v for v, _ in layers), rtol=1e-5)
    close(moved, [m for _, m in layers], atol=1e-6)


def test_strengths_and_steps_per_matrix():
    x = jnp.float32(RNG.normal(size=(2, 4, 3)))
    lam, step = jnp.array([0.5, 2.0]).reshape(2, 1, 1), jnp.array([0.1, 0.4]).reshape(2, 1, 1)
    together = jr.nuclear(lam)
    parts = [jr.nuclear(0.5), jr.nuclear(2.0)]
    close(value(together, x), sum(value(p, w) for p, w in zip(parts, x)), rtol=1e-6)
    moved = [move(p, w, s) for p, w, s in zip(parts, x, (0.1, 0.4))]
    close(move(together, x, step), moved, atol=1e-6)


def test_a_sweep_over_ranks_and_radii_is_one_program():
    x = jnp.float32(RNG.normal(size=(4, 3)))
    ranks = jax.jit(jax.vmap(lambda r: jr.low_rank(r).prox(x, 1.0)))(jnp.arange(5))
    for rank, found in enumerate(ranks):
        close(found, from_values(x, lambda s, r=rank: s * (np.arange(3) < r)), atol=1e-5)
    radii = jnp.array([0.0, 0.5, 99.0])
    balls = jax.jit(jax.vmap(lambda r: jr.spectral_ball(r).prox(x, 1.0)))(radii)
    assert (balls[0] == 0).all()
    assert (balls[2] == x).all()


def test_what_changes_nothing_returns_the_same_bits():
    x = jnp.float32(RNG.normal(size=(4, 3)))
    idle = [jr.nuclear(0.0), jr.spectral_norm(0.0), jr.orthogonal(0.0), jr.log_det(0.0)]
    for penalty in [*idle, jr.spectral_ball(99.0), jr.low_rank(3)]:
        assert (move(penalty, x, 1.0) == x).all()
    assert (move(jr.nuclear(99.0), x, 1.0) == 0).all()
    assert (move(jr.spectral_norm(99.0), x, 1.0) == 0).all()
    assert np.isnan(move(jr.nuclear(0.1), x.at[0, 0].set(jnp.nan), 1.0)).all()


def test_a_proximal_run_ends_at_low_rank_with_a_certificate():
    """argmin |W - A|^2 / 2 + 0.5 |W|_*: the solution is known, and momentum reaches it."""
    a = jnp.float32(matrix([2.0, 1.0, 0.3]))
    reg = jr.nuclear(0.5)
    tx = jr.proximal(optax.trace(0.5), reg, learning_rate=0.2)

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(w - a, state, w)
        return (optax.apply_updates(w, updates), state), None

    start = jnp.ones_like(a)
    (w, _), _ = jax.lax.scan(step, (start, tx.init(start)), None, 200)
    close(w, move(reg, a, 1.0), atol=1e-5)
    assert np.linalg.matrix_rank(w, tol=1e-5) == 2
    assert float(distance(reg, w, w - a)) < 1e-5


# --- refusals ------------------------------------------------------------------------------------


def test_refusals_say_what_to_do():
    kernel, bias = jnp.ones((3, 2)), jnp.ones(2)
    with pytest.raises(
        ValueError, match=r"nuclear: the leaf 'b' of shape \(2,\) .* \.on\(kernels\)"
    ):
        jr.nuclear(1.0)({"w": kernel, "b": bias})
    with pytest.raises(ValueError, match=r"orthogonal: the leaf 'w' .* 3 \+ 1 axes"):
        jr.orthogonal(1.0, rows=3)({"w": kernel})
    for penalty in (jr.nuclear(1.0), jr.low_rank(1), jr.spectral_ball(1.0), jr.orthogonal(1.0)):
        with pytest.raises(ValueError, match=r"`step` has shape \(3, 2\) .* SGD with momentum"):
            penalty.prox(kernel, jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"nuclear: `lam` has shape \(3, 1\) and differs inside"):
        jr.nuclear(jnp.ones((3, 1)))(kernel)
    tx = jr.proximal(optax.scale_by_adam(), jr.nuclear(1.0), learning_rate=0.1)
    with pytest.raises(ValueError, match=r"Adam's\) has none in closed form"):
        tx.update(kernel, tx.init(kernel), kernel)


def test_constructors_check_concrete_values_only():
    for make in (jr.nuclear, jr.spectral_norm, jr.orthogonal, jr.log_det):
        with pytest.raises(ValueError, match=r"`lam` must be >= 0 and not NaN, got -1.*Zero\(\)"):
            make(-1.0)
    with pytest.raises(ValueError, match=r"log_det: `epsilon` must be > 0, got 0"):
        jr.log_det(1.0, 0.0)
    with pytest.raises(ValueError, match=r"low_rank: `rank` must be a whole number, got 1\.5"):
        jr.low_rank(1.5)
    with pytest.raises(ValueError, match=r"spectral_ball: `radius` must be >= 0"):
        jr.spectral_ball(-1)
    for bad in (0, 1.0, True, None):
        with pytest.raises(TypeError, match=r"nuclear: `rows` must be an integer >= 1.*got"):
            jr.nuclear(1.0, rows=bad)
    with pytest.raises(TypeError, match=r"`double_sided` must be True or False, got 1"):
        jr.orthogonal(1.0, double_sided=1)
    with pytest.raises(
        ValueError, match=r"nuclear: `x` must have at least two axes, got shape \(3,\)"
    ):
        prox.nuclear(jnp.ones(3), 1.0)
    with pytest.raises(TypeError, match=r"nuclear: `x` must be a floating array"):
        prox.nuclear(jnp.ones((2, 2), int), 1.0)
    # Traced strengths of any sign pass: a gradient is a penalty too.
    jax.jit(lambda lam: jr.nuclear(lam)(jnp.eye(2)))(-1.0)
    assert repr(jr.log_det(0.5, 2.0)) == "log_det(0.5, epsilon=2)"
    assert repr(jr.low_rank(2, rows=3)) == "low_rank(2, rows=3)"
