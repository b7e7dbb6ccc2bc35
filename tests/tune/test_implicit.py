"""Gradients by strengths against central differences of minima that are solved to the last digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.compilations import compilations

import jaxreg as jr

RNG = np.random.default_rng(0)


def rows(n, p, seed=0, responses=None, noise=0.5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    w = rng.normal(size=(p,) if responses is None else (p, responses)) * (
        rng.random(p) < 0.3
    ).reshape((p,) if responses is None else (p, 1))
    y = x @ w + noise * rng.normal(size=(n, *w.shape[1:]))
    return (x[: n // 2], y[: n // 2]), (x[n // 2 :], y[n // 2 :])


def squares(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def logistic(w, x, y):
    return jnp.mean(jnp.logaddexp(0.0, -jnp.sign(y) * (x @ w)))


def minimum(loss, reg, start, train, steps=60_000):
    """Accelerated proximal gradient steps, restarted where they overshoot, in float64."""
    x = train[0]
    rate = 1 / (np.linalg.norm(x, 2) ** 2 / len(x))
    slope = jax.grad(lambda w: loss(w, *train))

    def step(state, _):
        w, z, t = state
        new = reg.prox(z - rate * slope(z), rate)
        again = jnp.vdot(z - new, new - w) > 0
        t = jnp.where(again, 1.0, t)
        later = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return (new, new + jnp.where(again, 0, (t - 1) / later) * (new - w), later), None

    return jax.jit(lambda w: jax.lax.scan(step, (w, w, 1.0), None, length=steps)[0][0])(start)


CASES = {
    "lasso": (squares, jr.l1, 0.1, (200, 30)),
    "lasso, p over n": (squares, jr.l1, 0.15, (50, 200)),
    "ridge": (squares, jr.l2, 0.3, (60, 20)),
    "elastic net": (squares, lambda lam: jr.elastic_net(lam, 0.6), 0.15, (80, 40)),
    "logistic": (logistic, jr.l1, 0.03, (200, 20)),
    "mcp": (squares, lambda lam: jr.mcp(lam, 3.0), 0.15, (200, 15)),
    "groups": (squares, lambda lam: jr.group_lasso(lam, groups=np.arange(30) // 3), 0.1, (80, 30)),
    "groups, p over n": (
        squares, lambda lam: jr.group_lasso(lam, groups=np.arange(120) // 4), 0.15, (60, 120),
    ),
    "sum": (squares, lambda lam: jr.l1(lam) + jr.l2(0.1), 0.1, (80, 30)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_central_difference(name):
    loss, make, lam, size = CASES[name]
    with jax.enable_x64(True):
        train, valid = jax.tree.map(jnp.asarray, rows(*size))
        solved = lambda lam: minimum(loss, make(lam), jnp.zeros(size[1]), train)
        w = solved(lam)
        found = jr.hypergradient(loss, w, make(lam), train, valid, tol=1e-9)
        by = 1e-5 * lam
        high, low = (loss(solved(v), *valid) for v in (lam + by, lam - by))
        total = sum(jax.tree.leaves(jax.grad(lambda v: _inner(found.gradient, make, v))(lam)))
        assert float(total) == pytest.approx(float(high - low) / (2 * by), rel=1e-6)
        assert 0 < int(found.active) < size[1] or name == "ridge"


def _inner(gradient, make, lam):
    """The gradient's numbers times those of the penalty at a strength, whose derivative is the chain rule."""
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(make(lam)))
    return sum(jnp.sum(g * x) for g, x in pairs)


@pytest.mark.parametrize("axis", [0, 1])
def test_groups_of_a_matrix_along_either_axis(axis):
    with jax.enable_x64(True):
        train, valid = jax.tree.map(jnp.asarray, rows(80, 12, responses=3))
        make = lambda lam: jr.group_lasso(lam, axis=axis)
        solved = lambda lam: minimum(squares, make(lam), jnp.zeros((12, 3)), train)
        lam = 0.03 if axis == 0 else 0.05
        found = jr.hypergradient(squares, solved(lam), make(lam), train, valid, tol=1e-9)
        by = 1e-5 * lam
        high, low = (squares(solved(v), *valid) for v in (lam + by, lam - by))
        assert float(found.gradient.lam) == pytest.approx(float(high - low) / (2 * by), rel=1e-6)


def test_one_solve_serves_a_strength_for_each_coordinate():
    with jax.enable_x64(True):
        train, valid = jax.tree.map(jnp.asarray, rows(100, 12))
        lams = 0.1 * jnp.linspace(0.5, 1.5, 12)
        solved = lambda lams: minimum(squares, jr.l1(lams), jnp.zeros(12), train)
        found = jr.hypergradient(squares, solved(lams), jr.l1(lams), train, valid, tol=1e-9)
        for i in range(12):
            by = 1e-6 * jnp.eye(12)[i]
            high, low = (squares(solved(lams + s * by), *valid) for s in (1, -1))
            assert float(found.gradient.lam[i]) == pytest.approx(
                float(high - low) / 2e-6, rel=1e-5, abs=1e-9
            )


def test_columns_that_are_twice_there_have_a_gradient():
    """The Hessian is singular; what is asked for lies in its range."""
    with jax.enable_x64(True):
        (x, y), (u, v) = rows(100, 8)
        twice = lambda a: np.hstack([a, a[:, :4]])
        train, valid = jax.tree.map(jnp.asarray, ((twice(x), y), (twice(u), v)))
        solved = lambda lam: minimum(squares, jr.l1(lam), jnp.zeros(12), train)
        found = jr.hypergradient(squares, solved(0.1), jr.l1(0.1), train, valid, tol=1e-8)
        high, low = (squares(solved(0.1 + s * 1e-6), *valid) for s in (1, -1))
        assert float(found.gradient.lam) == pytest.approx(float(high - low) / 2e-6, rel=1e-6)


def net(params, x, y):
    hidden = jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"])
    return 0.5 * jnp.mean((hidden @ params["b"]["kernel"] - y) ** 2)


def newton(reg, params, train, steps=300):
    """Damped Newton steps on a small net, to a minimum."""
    flat, back = jax.flatten_util.ravel_pytree(params)
    whole = lambda v: net(back(v), *train) + reg(back(v))
    slope, bends = jax.jit(jax.grad(whole)), jax.jit(jax.hessian(whole))
    for _ in range(steps):
        s, v = jnp.linalg.eigh(bends(flat))
        move = -v @ ((v.T @ slope(flat)) / jnp.maximum(jnp.abs(s), 1e-6))
        t = 1.0
        while whole(flat + t * move) > whole(flat) and t > 1e-6:
            t *= 0.5
        flat = flat + t * move
        if jnp.linalg.norm(slope(flat)) < 1e-13:
            break
    return back(flat)


def test_a_net_at_its_minimum_and_not_before():
    with jax.enable_x64(True):
        train, valid = jax.tree.map(jnp.asarray, rows(60, 4, noise=0.3))
        start = {
            "a": {"kernel": jnp.asarray(RNG.normal(size=(4, 3))), "bias": jnp.zeros(3)},
            "b": {"kernel": jnp.asarray(RNG.normal(size=3))},
        }
        make = lambda lam: jr.l2(lam).on(jr.kernels)
        params = newton(make(0.05), start, train)
        found = jr.hypergradient(net, params, make(0.05), train, valid, tol=1e-8)
        ends = [net(newton(make(0.05 + s * 1e-5), params, train), *valid) for s in (1, -1)]
        (told,) = jax.tree.leaves(found.gradient)
        assert float(told) == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-6)
        assert int(found.active) == 18, "the biases are free and not penalised"
        with pytest.raises(ValueError, match="`params` are no minimum of L [+] R"):
            jr.hypergradient(net, start, make(0.05), train, valid)


def test_a_saddle_has_no_gradient():
    saddle = lambda w, a: 0.5 * (w[0] ** 2 - w[1] ** 2) + 0 * a.sum()
    other = lambda w, a: (w - 1).sum() + 0 * a.sum()
    call = lambda **more: jr.hypergradient(
        saddle, jnp.zeros(2), jr.l2(0.1), (jnp.ones(1),), (jnp.ones(1),), valid_loss=other, **more
    )
    with pytest.raises(ValueError, match="a direction of curvature .*no gradient by λ"):
        call()
    assert call(damping=5.0).damping == 5.0


def test_kinks_that_are_not_at_zero_are_refused():
    with jax.enable_x64(True):
        train, valid = jax.tree.map(jnp.asarray, rows(40, 10))
        reg = jr.fused_lasso(0.2, l1_ratio=0.0)
        w = minimum(squares, reg, jnp.zeros(10), train, steps=3000)
        assert int(((jnp.diff(w) == 0) & (w[1:] != 0)).sum()) > 0, "else there is no kink"
        with pytest.raises(ValueError, match="kinks that are not at 0"):
            jr.hypergradient(squares, w, reg, train, valid)


def test_in_float32_and_under_jit_it_is_the_same():
    train, valid = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), rows(200, 30))
    w = minimum(squares, jr.l1(0.1), jnp.zeros(30), train, steps=3000)
    found = jr.hypergradient(squares, w, jr.l1(0.1), train, valid)
    with jax.enable_x64(True):
        exact_train, exact_valid = jax.tree.map(jnp.asarray, rows(200, 30))
        exact = minimum(squares, jr.l1(0.1), jnp.zeros(30), exact_train)
        told = jr.hypergradient(squares, exact, jr.l1(0.1), exact_train, exact_valid).gradient.lam
    assert float(found.gradient.lam) == pytest.approx(float(told), rel=1e-3)
    inside = jax.jit(lambda w, reg: jr.hypergradient(squares, w, reg, train, valid))
    np.testing.assert_allclose(inside(w, jr.l1(0.1)).gradient.lam, found.gradient.lam, rtol=1e-4)
    assert float(inside(w + 1, jr.l1(0.1)).residual) > 0.1, (
        "which a caller inside of jit must look at"
    )


def test_another_strength_compiles_nothing():
    train, valid = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), rows(60, 5))
    loss = lambda w, x, y: squares(w, x, y)
    ridge = lambda lam: jnp.linalg.solve(
        train[0].T @ train[0] / 30 + lam * jnp.eye(5), train[0].T @ train[1] / 30
    )
    weights = [ridge(lam) for lam in (0.1, 0.2)]
    first = jr.hypergradient(loss, weights[0], jr.l2(0.1), train, valid)
    with compilations() as compiled:
        second = jr.hypergradient(loss, weights[1], jr.l2(0.2), train, valid)
    assert compiled == []
    assert float(first.gradient.lam) != float(second.gradient.lam)


BAD = {
    "loss": ({"loss": jr.l2(0.1)}, TypeError, "`loss` must be a function"),
    "penalty": ({"penalty": 0.1}, TypeError, "`penalty` must be a penalty"),
    "train": ({"train": np.ones(3)}, TypeError, "`train` must be a tuple of arrays"),
    "valid": ({"valid": None}, TypeError, "`valid` must be a tuple of arrays"),
    "valid_loss": ({"valid_loss": 3}, TypeError, "`valid_loss` must be a function"),
    "damping": (
        {"damping": -1.0},
        ValueError,
        "`damping` must be a finite number of at least 0, got -1",
    ),
    "tol": ({"tol": "small"}, TypeError, "`tol` must be a finite number"),
    "steps": ({"steps": 0}, ValueError, "`steps` must be an integer of at least 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    change, error, match = BAD[name]
    one = (jnp.ones((2, 2)), jnp.ones(2))
    given = {
        "loss": squares,
        "params": jnp.ones(2),
        "penalty": jr.l2(0.1),
        "train": one,
        "valid": one,
    }
    with pytest.raises(error, match=match):
        jr.hypergradient(**{**given, **change})
