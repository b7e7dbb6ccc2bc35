"""Constraints and projections, against other libraries, scipy and brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from optax import projections

import jaxreg as jr
from jaxreg import prox

pytestmark = pytest.mark.formulas

close = np.testing.assert_allclose
RNG = np.random.default_rng(0)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def _same_draws_whatever_ran_before():
    RNG.bit_generator.state = START


# Penalties are arguments, so tests with arrays of one shape share their programs.
value = jax.jit(lambda p, x: p(x))
move = jax.jit(lambda p, x, step: p.prox(x, step))
distance = jax.jit(lambda p, x, grad: p.subdiff_distance(x, grad))

SETS = {
    "l1_ball": lambda axis=None: jr.l1_ball(1.5, axis=axis),
    "l2_ball": lambda axis=None: jr.l2_ball(1.5, axis=axis),
    "simplex": lambda axis=None: jr.simplex(1.5, axis=axis),
    "unit_norm": lambda axis=None: jr.unit_norm(axis=axis),
    "cardinality": lambda axis=None: jr.cardinality(2, axis=axis),
}
ALL = SETS | {"linf_ball": lambda: jr.linf_ball(0.75), "max_norm": lambda: jr.max_norm(1.5)}
CONVEX = ("l1_ball", "l2_ball", "simplex", "linf_ball", "max_norm")


# --- against other libraries ---------------------------------------------------------------------


@jax.jit
def ours_and_optax(x):
    """Ours and theirs; optax has NaN for the unit vector of 0."""
    ours = [SETS[n]().prox(x, 0.3) for n in ("l1_ball", "l2_ball", "simplex", "unit_norm")]
    sphere = jnp.where(jnp.any(x), projections.projection_l2_sphere(x), ours[3])
    theirs = [
        projections.projection_l1_ball(x, 1.5),
        projections.projection_l2_ball(x, 1.5),
        projections.projection_simplex(x, 1.5),
        sphere,
        projections.projection_linf_ball(x, 0.75),
    ]
    return jnp.stack([*ours, jr.linf_ball(0.75).prox(x, 9.0)]), jnp.stack(theirs)


@given(npst.arrays(np.float32, 7, elements=st.integers(-64, 64).map(lambda k: k / 16)))
def test_projections_are_those_of_optax(x):
    ours, theirs = ours_and_optax(jnp.asarray(x))
    close(ours, theirs, atol=2e-6)


def test_projections_are_those_of_jaxopt_and_pyproximal():
    jaxopt, pyproximal = map(pytest.importorskip, ("jaxopt", "pyproximal"))
    x = RNG.normal(size=12)
    f32 = jnp.float32(x)
    same = {
        jr.l1_ball(2.0): jaxopt.projection.projection_l1_ball(f32, 2.0),
        jr.simplex(2.0): jaxopt.projection.projection_simplex(f32, 2.0),
        jr.cardinality(5): pyproximal.L0Ball(5).prox(x, 1.0),
        jr.l2_ball(0.5): pyproximal.EuclideanBall(0.0, 0.5).prox(x, 1.0),
    }
    for penalty, theirs in same.items():
        close(move(penalty, f32, 1.0), theirs, atol=1e-6)


def test_max_norm_is_that_of_torch():
    torch = pytest.importorskip("torch")
    kernel = np.float32(RNG.normal(size=(4, 3)))
    # The `dim` of torch.renorm numbers the groups, as `axis` does.
    theirs = torch.renorm(torch.tensor(kernel), p=2, dim=1, maxnorm=1.2).numpy()
    close(move(jr.max_norm(1.2), jnp.asarray(kernel), 1.0), theirs, rtol=1e-5)


def test_max_norm_reads_axis_as_the_units():
    """Keras's MaxNorm sums over axis=0 of a dense kernel and [0, 1, 2] of a convolution."""
    for shape in ((5, 3), (2, 2, 4, 3)):
        x = RNG.normal(size=shape)
        axes = tuple(range(len(shape) - 1))
        norms = np.sqrt((x**2).sum(axes, keepdims=True))
        expected = x * np.clip(norms, 0, 2) / norms
        close(move(jr.max_norm(2.0), jnp.float32(x), 1.0), expected, rtol=1e-5)


# --- against brute force -------------------------------------------------------------------------


def points(n=4):
    """Points with zeros, ties and signs, and metrics spread over four decades."""
    x = np.concatenate([RNG.normal(size=(12, n)), np.zeros((1, n)), np.ones((2, n))])
    x = np.concatenate([x, np.round(x[:6]), x[:3] * [1, 0, 0, 1], 0.1 * x[:4]])
    return x, 10 ** RNG.uniform(-2, 2, size=x.shape)


@pytest.mark.parametrize("name", ["l1_ball", "l2_ball", "simplex"])
def test_projection_in_a_metric_solves_the_quadratic_program(name):
    """Against SLSQP; ours must be inside and no worse."""
    x, step = points()
    with jax.enable_x64(True):
        penalty = jax.tree.map(jnp.float64, SETS[name]())
        found = jax.jit(jax.vmap(penalty.prox))(jnp.asarray(x), jnp.asarray(step))
    for z, v, s in zip(np.asarray(found), x, step):
        cost = lambda z, v=v, s=s: ((z - v) ** 2 / (2 * s)).sum()
        assert inside(name, z)
        assert cost(z) <= cost(SOLVE[name](cost)) * (1 + 1e-6) + 1e-6


def inside(name, z):
    if name == "simplex":
        return (z >= 0).all() and abs(z.sum() - 1.5) < 1e-12
    return np.linalg.norm(z, 1 if name == "l1_ball" else 2) <= 1.5 + 1e-12


def slsqp(cost, n, rule, kind="ineq", bounds=None):
    rules = [{"type": kind, "fun": rule}]
    return scipy.optimize.minimize(cost, np.full(n, 0.2), bounds=bounds, constraints=rules).x


def as_halves(cost):
    """z = a - b with a, b >= 0, so that the l1 norm is smooth."""
    halves = lambda w: w[:4] - w[4:]
    return halves(
        slsqp(lambda w: cost(halves(w)), 8, lambda w: 1.5 - w.sum(), bounds=[(0, None)] * 8)
    )


SOLVE = {
    "simplex": lambda cost: slsqp(cost, 4, lambda z: z.sum() - 1.5, "eq", [(0, None)] * 4),
    "l2_ball": lambda cost: slsqp(cost, 4, lambda z: 2.25 - (z**2).sum()),
    "l1_ball": as_halves,
}


def test_unit_norm_in_a_metric_is_the_best_point_of_a_fine_circle():
    turn = np.linspace(0, 2 * np.pi, 100001)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    x = np.array(
        [[2, 1], [0.2, 0.1], [0, 0], [0.3, 0], [0, 0.3], [0, 2], [1e-6, 0.5], [-0.1, -0.9]]
    )
    steps = np.array([[1, 1], [1, 3], [5, 0.1], [1e-3, 1e3]])
    with jax.enable_x64(True):
        run = jax.jit(lambda x, s: jr.unit_norm(axis=0).prox(x, s))
        for step in steps:
            found = np.asarray(run(jnp.asarray(x), jnp.broadcast_to(step, x.shape)))
            for z, v in zip(found, x):
                cost = lambda z, v=v, s=step: ((z - v) ** 2 / (2 * s)).sum(-1)
                assert np.linalg.norm(z) == pytest.approx(1, rel=1e-12)
                assert cost(z) <= cost(circle).min() * (1 + 1e-9)


@pytest.mark.parametrize("metric", [False, True])
def test_cardinality_tries_every_subset(metric):
    x, step = points()
    step = step if metric else np.ones_like(step)
    found = jax.jit(jax.vmap(jr.cardinality(2).prox))(jnp.float32(x), jnp.float32(step))
    for z, v, s in zip(np.asarray(found, float), x, step):
        lost = [(v**2 / s)[list(out)].sum() / 2 for out in itertools.combinations(range(4), 2)]
        assert np.count_nonzero(z) <= 2
        assert ((z - v) ** 2 / (2 * s)).sum() == pytest.approx(min(lost), rel=1e-5, abs=1e-10)


def test_cardinality_keeps_the_first_of_equals_and_sweeps_over_k():
    x = jnp.array([1.0, -2.0, 2.0, 2.0, 0.5])
    kept = jax.jit(jax.vmap(lambda k: jr.cardinality(k).prox(x, 1.0)))(jnp.arange(7))
    assert (kept != 0).sum(1).tolist() == [0, 1, 2, 3, 4, 5, 5]
    assert kept[2].tolist() == [0, -2, 2, 0, 0]
    assert not np.signbit(np.asarray(kept[0])).any()
    per_column = jr.cardinality(jnp.array([[1.0, 2.0]]), axis=-1)
    assert (per_column.prox(jnp.ones((3, 2)), 1.0) != 0).sum(0).tolist() == [1, 2]


# --- where others break --------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("name", SETS)
def test_groups_are_projected_one_by_one(name, axis):
    x = jnp.float32(RNG.normal(size=(3, 2, 4)))
    found = move(SETS[name](axis), x, 0.3)
    rows = [x] if axis is None else x
    close(found, jnp.stack([move(SETS[name](), r, 9.0) for r in rows]).reshape(x.shape), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("name", ALL)
def test_huge_and_tiny_entries_lose_no_digits(name, scale):
    x = jnp.float32(scale) * jnp.array([[3.0, -1.0], [0.5, 0.0]])
    moved = move(ALL[name](), x, 0.1)
    assert np.isfinite(moved).all()
    assert value(ALL[name](), moved) == 0


@pytest.mark.parametrize("name", ALL)
def test_nan_stays_nan(name):
    x = jnp.array([[jnp.nan, 1.0], [2.0, -3.0]])
    for step in (0.1, jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[9.0, 2.0], [3.0, 4.0]])):
        assert np.isnan(move(ALL[name](), x, step)).any()


def test_projections_scale_with_their_radius():
    """P of the ball of radius c r at c x is c times P of the ball of radius r at x."""
    x = jnp.array([3.0, -1.0, 0.5, 0.0])
    for make in (jr.l1_ball, jr.l2_ball, jr.linf_ball, jr.simplex):
        for c in (1e-30, 1e30):
            close(move(make(c), c * x, 1.0) / c, move(make(1.0), x, 1.0), rtol=1e-6)


def test_radii_from_zero_to_infinity():
    x = jnp.array([3.0, -1.0, 0.5, 0.0])
    for make in (jr.l1_ball, jr.l2_ball, jr.linf_ball, jr.max_norm):
        swept = jax.jit(jax.vmap(lambda r, make=make: make(r).prox(x[:, None], 1.0)[:, 0]))
        found = swept(jnp.array([0.0, 1.0, 99.0, jnp.inf]))
        assert (found[0] == 0).all()
        assert not np.signbit(np.asarray(found[0]) * (x == 0)).any()
        assert (found[1] != x).any()
        assert (found[2] == x).all()
        assert (found[3] == x).all()
    assert (jr.simplex(0.0).prox(x, 1.0) == 0).all()


def test_an_offset_far_larger_than_the_simplex_is_lost_exactly():
    x = jnp.array([0.5, 0.25, 0.0])
    for offset in (2.0**20, -(2.0**20)):
        close(move(jr.simplex(), x + offset, 1.0), [7 / 12, 4 / 12, 1 / 12], atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_derivatives_are_finite_at_zeros_ties_and_both_sides(name):
    penalty = ALL[name]()

    @jax.jit
    @jax.vmap
    def both(x):
        _, pull = jax.vjp(lambda p, x: p.prox(x, 0.5), penalty, x)
        return pull(jnp.arange(1.0, 5.0).reshape(2, 2))

    flat = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [0.1, 0, 0.2, 0], [3, 0, -2, 0.5]], np.float32)
    by_penalty, by_x = both(jnp.asarray(flat.reshape(4, 2, 2)))
    assert np.isfinite(by_x).all()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(by_penalty))
    assert (jax.grad(penalty)(jnp.ones((2, 2))) == 0).all()


def test_the_derivative_by_the_radius_is_right():
    x, h = jnp.array([3.0, -1.0, 0.75, 0.0]), 1e-6
    with jax.enable_x64(True):
        x = x.astype(jnp.float64)
        for make in (jr.l1_ball, jr.l2_ball, jr.linf_ball, jr.simplex):
            run = jax.jit(
                jax.value_and_grad(lambda r, make=make: make(r).prox(x, 1.0) @ jnp.arange(4.0))
            )
            found = (run(0.7 + h)[0] - run(0.7 - h)[0]) / (2 * h)
            assert float(run(0.7)[1]) == pytest.approx(float(found), rel=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("name", ALL)
def test_a_projected_leaf_is_inside_in_its_own_dtype(name, dtype):
    x = jnp.asarray(RNG.normal(size=(200, 3)), dtype)
    assert value(ALL[name](), x) == np.inf
    moved = move(ALL[name](), x, 0.1)
    assert moved.dtype == dtype
    assert value(ALL[name](), moved) == 0


def test_the_tolerance_of_the_value_is_the_stated_one():
    inside, outside = jnp.array([1 + 5e-5, 0.0]), jnp.array([1 + 7e-5, 0.0])
    for penalty in (jr.l1_ball(1.0), jr.l2_ball(1.0), jr.simplex(), jr.unit_norm(axis=None)):
        assert value(penalty, inside) == 0
        assert value(penalty, outside) == np.inf
    assert value(jr.linf_ball(1.0), inside) == np.inf


# --- certificates and conjugates -----------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_the_certificate_is_zero_at_a_projection_and_inf_outside(name):
    penalty, x = ALL[name](), jnp.float32(RNG.normal(size=(4, 3)))
    near = move(penalty, x, 1.0)
    assert float(distance(penalty, near, near - x)) < 1e-5
    assert distance(penalty, x, near - x) == np.inf
    assert float(distance(penalty, near, jnp.float32(RNG.normal(size=(4, 3))))) > 0.1


@pytest.mark.parametrize("name", CONVEX)
def test_min_norm_subgradient_is_the_projected_gradient(name):
    """-rest is the derivative of t -> P(x - t grad) at 0: no formula of a normal cone is needed."""
    penalty, t = ALL[name](), 1e-7
    with jax.enable_x64(True):
        penalty = jax.tree.map(jnp.float64, penalty)

        @jax.jit
        def gap(x, grad):
            x = penalty.prox(x, 1.0)
            return penalty.min_norm_subgradient(x, grad) + (penalty.prox(x - t * grad, 1.0) - x) / t

        for scale in (0.1, 1.0, 3.0):
            x, grad = RNG.normal(size=(2, 4, 3))
            close(gap(jnp.asarray(scale * x), jnp.asarray(grad)), 0, atol=1e-5)


def test_limiting_normals_of_cardinality():
    x, grad = jnp.array([3.0, 0.0, 0.0, 0.0]), jnp.array([0.5, 3.0, -2.0, 1.0])
    assert jr.cardinality(1).min_norm_subgradient(x, grad).tolist() == [0.5, 0, 0, 0]
    # One more entry may move: it is stationary if some choice of it is, the least one here.
    assert jr.cardinality(2).min_norm_subgradient(x, grad).tolist() == [0.5, 0, 0, 1.0]
    assert jr.cardinality(4).min_norm_subgradient(x, grad).tolist() == grad.tolist()


def test_conjugates_are_support_functions():
    d = jnp.float32(RNG.normal(size=5))
    size = np.abs(d)
    expected = {
        jr.l1_ball(1.5): 1.5 * size.max(),
        jr.l2_ball(1.5): 1.5 * np.linalg.norm(d),
        jr.linf_ball(1.5): 1.5 * size.sum(),
        jr.simplex(1.5): 1.5 * d.max(),
        jr.unit_norm(axis=None): np.linalg.norm(d),
        jr.cardinality(1): np.inf,
        jr.cardinality(0): 0.0,
    }
    run = jax.jit(lambda d: jnp.stack([penalty.conjugate(d) for penalty in expected]))
    close(run(d), [float(v) for v in expected.values()], rtol=1e-6)
    assert jr.l2_ball(jnp.inf).conjugate(0 * d) == 0
    assert jr.simplex(1.0).lambda_max(d) == np.inf  # no strength to tune, and 0 is not inside


def test_proximal_adam_ends_at_the_constrained_optimum():
    """Adam's metric differs by coordinate; projected plainly, its steps would rest elsewhere."""
    a, scales = jnp.array([2.0, -1.0, 0.6, 0.3]), jnp.array([1.0, 0.2, 5.0, 0.5])
    slope = jax.grad(lambda w: 0.5 * jnp.sum(scales * (w - a) ** 2))
    for reg in (jr.l2_ball(0.9), jr.simplex(1.0)):
        tx = jr.proximal(optax.scale_by_adam(), reg, learning_rate=0.02)

        def step(carry, _, tx=tx):
            w, state = carry
            updates, state = tx.update(slope(w), state, w)
            return (optax.apply_updates(w, updates), state), None

        start = jnp.full(4, 0.25)
        (w, _), _ = jax.jit(lambda c, step=step: jax.lax.scan(step, c, None, 3000))(
            (start, tx.init(start))
        )
        assert reg(w) == 0
        assert float(reg.subdiff_distance(w, slope(w))) < 2e-3


# --- form ----------------------------------------------------------------------------------------


def test_empty_leaves_are_inside():
    for make in ALL.values():
        empty = jnp.zeros((0, 3))
        assert value(make(), empty) == 0
        assert move(make(), empty, 1.0).shape == (0, 3)


def test_refusals_say_what_to_do():
    x = {"kernel": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match=r"l2_ball: `axis` 2 is out of range .*'kernel'.* -2 to 1"):
        jr.max_norm(1.0, axis=2)(x)
    with pytest.raises(
        ValueError, match=r"l2_ball: `radius` has shape \(3, 2\) and differs inside"
    ):
        jr.l2_ball(jnp.ones((3, 2)), axis=0)(x)
    for bad in ("rows", [0], 1.0, True):
        with pytest.raises(TypeError, match=r"simplex: `axis` must be an integer.*got"):
            jr.simplex(axis=bad)
    for make in (jr.l1_ball, jr.l2_ball, jr.linf_ball, jr.max_norm):
        with pytest.raises(ValueError, match=r"_(ball|norm): `radius` must be >= 0 .* got -1"):
            make(-1.0)
    with pytest.raises(ValueError, match=r"simplex: `scale` must be >= 0 and not NaN, got nan"):
        jr.simplex(float("nan"))
    with pytest.raises(ValueError, match=r"cardinality: `k` must be a whole number, got 0\.5"):
        jr.cardinality(0.5)
    with pytest.raises(TypeError, match=r"the leaf 'n' is of dtype int32"):
        jr.l1_ball(1.0)({"n": jnp.arange(3)})
    for operator in (prox.l1_ball, prox.l2_ball, prox.linf_ball, prox.simplex, prox.unit_norm):
        with pytest.raises(TypeError, match=r"`x` must be a floating array, got dtype int32"):
            operator(jnp.arange(3))
    jax.jit(lambda r: jr.l2_ball(r)(jnp.ones(2)))(-1.0)  # traced radii pass


def test_reprs_put_the_radius_first():
    shown = {
        "l2_ball(0.5)": jr.l2_ball(0.5),
        "l2_ball(2, axis=-1)": jr.max_norm(2),
        "unit_norm()": jr.unit_norm(),
        "unit_norm(axis=None)": jr.unit_norm(axis=None),
        "simplex(1, axis=0)": jr.simplex(axis=0),
        "cardinality(3)": jr.cardinality(3),
        "linf_ball(0.5)": jr.linf_ball(0.5),
    }
    assert [repr(p) for p in shown.values()] == list(shown)
    assert jr.max_norm(2).label == "l2_ball"
