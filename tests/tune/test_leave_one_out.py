"""Leave-one-out from one training against trainings without each row, solved to the last digits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg.tune.leave_one_out import leave_one_out

N, P = 36, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, P))
Y = X @ np.repeat([1.0, 0.0], P // 2) + 1.0 + 0.7 * RNG.normal(size=N)
LABELS = (Y > 1).astype(float)
CLASSES = np.digitize(Y, [0.0, 2.0])


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def half_square(params, x, y, seen):
    return 0.5 * jnp.sum(seen * (linear(params, x) - y) ** 2) / jnp.sum(seen)


def logistic(params, x, y, seen):
    each = jnp.logaddexp(0, linear(params, x)) - y * linear(params, x)
    return jnp.sum(seen * each) / jnp.sum(seen)


def softmax(params, x, y, seen):
    each = optax.softmax_cross_entropy_with_integer_labels(linear(params, x), y)
    return jnp.sum(seen * each) / jnp.sum(seen)


def squares_of_two(params, x, y, seen):
    return jnp.sum(seen[:, None] * (linear(params, x) - y) ** 2) / jnp.sum(seen)


def minimum(loss, reg, x, y, seen, m, rate, steps=1500):
    """Proximal gradient steps with momentum, over the rows that are seen."""
    shape = (x.shape[1],) if m is None else (x.shape[1], m)
    start = {"kernel": jnp.zeros(shape), "bias": jnp.zeros(shape[1:])}
    slope = jax.grad(lambda w: loss(w, x, y, seen))

    def step(state, _):
        w, before = state
        z = jax.tree.map(lambda w, b: w + 0.8 * (w - b), w, before)
        new = reg.prox(jax.tree.map(lambda z, g: z - rate * g, z, slope(z)), rate)
        return (new, w), None

    return jax.lax.scan(step, (start, start), None, length=steps)[0][0]


@functools.cache
def solver(loss, make, m, rate):
    one = lambda lam, x, y, seen: minimum(loss, make(lam), x, y, seen, m, rate)
    return jax.jit(jax.vmap(one, (None, None, None, 0)))


def solved(loss, make, lams, y, m=None, rate=0.2, x=X):
    """A result of minima on all rows, and the losses of each row by the minimum without it, [K, n]."""
    n = len(x)
    seen = np.concatenate([np.ones((1, n)), 1 - np.eye(n)])
    with jax.enable_x64(True):
        found = [solver(loss, make, m, rate)(lam, x, y, seen) for lam in lams]
        at = jax.vmap(loss, (0, None, None, 0))
        left = [np.asarray(at(jax.tree.map(lambda v: v[1:], w), x, y, np.eye(n))) for w in found]
        first = [jax.tree.map(lambda v: np.asarray(v[0]), w) for w in found]
        told = [float(loss(w, x, y, np.ones(n))) for w in first]
    params = jax.tree.map(lambda *v: np.stack(v)[:, None, None], *first)
    return jr.SweepResult.of(jr.grid(make, lam=lams), told, train=told, params=params), np.array(
        left
    )


def on(make):
    return lambda lam: make(lam).on(jr.kernels)


RIDGE, LASSO = on(jr.l2), on(jr.l1)
GROUPS = on(lambda lam: jr.group_lasso(lam, groups=np.arange(P) // 2))
CASES = {
    "logistic ridge": (logistic, RIDGE, [0.1, 0.5], LABELS, None, "bernoulli", 0.002),
    "logistic lasso": (logistic, LASSO, [0.08], LABELS, None, "bernoulli", 0.03),
    "softmax": (softmax, RIDGE, [0.1, 0.5], CLASSES, 3, "categorical", 0.015),
    "lasso": (half_square, LASSO, [0.08, 0.3], Y, None, "gaussian", 0.015),
    "groups": (half_square, GROUPS, [0.1], Y, None, "gaussian", 0.01),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_near_what_leaving_each_out_gives(name):
    loss, make, lams, y, m, likelihood, near = CASES[name]
    result, left = solved(loss, make, lams, y, m)
    found = leave_one_out(linear, result, (X, y), likelihood=likelihood)
    np.testing.assert_allclose(found.loss[:, 0], left.mean(1), rtol=near)
    np.testing.assert_allclose(found.stderr[:, 0], left.std(1, ddof=1) / np.sqrt(N), rtol=4 * near)
    for k in range(len(lams)):
        gone = left[k].mean() - result.scores("loss", "train")[k, 0, 0]
        assert gone > 5 * abs(found.loss[k, 0] - left[k].mean()), (
            "and it is not the loss of training"
        )
        assert np.corrcoef(found.rows[k, 0], left[k])[0, 1] > 0.99


@pytest.mark.parametrize(
    ("make", "ties"), [(LASSO, False), (on(jr.fused_lasso), True)], ids=["lasso", "fused"]
)
def test_of_squares_it_is_exact_for_rows_without_which_the_support_stays(make, ties):
    result, left = solved(half_square, make, [0.1], Y)
    found = leave_one_out(linear, result, (X, Y))
    seen = np.concatenate([np.ones((1, N)), 1 - np.eye(N)])
    with jax.enable_x64(True):
        w = np.asarray(solver(half_square, make, None, 0.2)(0.1, X, Y, seen)["kernel"])
    kinds = np.concatenate([np.sign(w), np.sign(np.diff(w, axis=1)) * ties], 1)
    stays = (kinds[1:] == kinds[0]).all(1)
    assert N / 3 < stays.sum() < N
    np.testing.assert_allclose(found.rows[0, 0][stays], left[0][stays], rtol=1e-5, atol=1e-6)
    assert np.abs(found.rows[0, 0] - left[0])[~stays].max() > 1e-3


@pytest.mark.parametrize("p", [P, 60], ids=["n > p", "p > n"])
def test_of_ridge_it_is_exact(p):
    x = np.hstack([X, np.random.default_rng(1).normal(size=(N, p - P))])
    lams = [0.3, 2.0]
    result, left = solved(half_square, RIDGE, lams, Y, rate=0.1, x=x)
    found = leave_one_out(linear, result, (x, Y))
    path = jr.ridge_path((x, Y), lams)
    np.testing.assert_allclose(found.rows[:, 0], left, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(found.loss[:, 0], path.loo[:, 0], rtol=2e-6)
    np.testing.assert_allclose(found.stderr[:, 0], path.loo_stderr, rtol=2e-6)
    np.testing.assert_allclose(found.dof[:, 0], path.dof, rtol=1e-6)


def test_of_several_outputs_and_the_square_without_a_half_too():
    y = np.stack([Y, X[:, 0] - Y], 1)
    result, left = solved(squares_of_two, RIDGE, [0.2], y, 2, rate=0.1)
    found = leave_one_out(linear, result, (X, y))
    np.testing.assert_allclose(found.rows[0, 0], left[0], rtol=1e-5, atol=1e-7)


def test_the_choice_is_that_of_refits_and_rows_stand_for_folds():
    lams = [0.01, 0.05, 0.15, 0.3, 0.6]
    y = X[:, 0] + 2 * np.random.default_rng(0).normal(size=N)
    result, left = solved(half_square, LASSO, lams, y)
    found = leave_one_out(linear, result, (X, y))
    choice = found.best()
    assert choice.index == left.mean(1).argmin()
    assert choice.mean == pytest.approx(left.mean(1).min(), rel=0.02)
    assert choice.stderr == pytest.approx(found.stderr[choice.index, 0])
    apart = found.rows[:, 0] - found.rows[choice.index, 0]
    near = apart.mean(1) <= apart.std(1, ddof=1) / np.sqrt(N)
    paired = found.best("paired").index
    assert near[choice.index : paired + 1].all()
    assert not near[paired + 1 : paired + 2].any()
    between = found.best("parabola")
    assert lams[choice.index - 1] < between.coords["lam"] < lams[choice.index + 1]
    assert f"least: lam={lams[choice.index]}" in repr(found)
    assert "±" in repr(found)


# --- where it is known to fail ----------------------------------------------------------------------------


def test_a_support_of_more_than_half_of_the_rows_is_no_candidate():
    x = np.hstack([X, np.random.default_rng(2).normal(size=(N, 60))])
    result, left = solved(half_square, LASSO, [0.02, 0.4], Y, rate=0.05, x=x)
    found = leave_one_out(linear, result, (x, Y))
    assert "more than half of the rows" in found.odd[0, 0]
    assert np.isnan(found.loss[0, 0])
    assert (result.params["kernel"][0] != 0).sum() > N / 2
    assert found.loss[1, 0] == pytest.approx(left[1].mean(), rel=0.03)
    assert found.best().index == 1
    assert "point 0, as its support is more than half" in found.best().warnings[-1]


def test_a_row_that_decides_alone_is_told():
    x = np.hstack([X, np.eye(N)[:, :1]])  # a column of one row, which nothing holds
    make = lambda lam: jr.l2(jnp.append(lam * jnp.ones(P), 0.0)).on(jr.kernels)
    result, _ = solved(half_square, make, [0.2], Y, rate=0.2, x=x)
    with pytest.raises(ValueError, match="leave_one_out: .*none.*a row decides a direction alone"):
        leave_one_out(linear, result, (x, Y))


def test_a_lane_that_is_no_minimum_is_told():
    result, _ = solved(half_square, LASSO, [0.1, 0.3], Y)
    moved = jax.tree.map(
        lambda v: v + 0.2 * (np.arange(2).reshape(2, *[1] * (v.ndim - 1)) == 1), result.params
    )
    lane = lambda k: jax.tree.map(lambda v: v[k, 0, 0], moved)
    told = [float(half_square(lane(k), X, Y, np.ones(N))) for k in (0, 1)]
    result = jr.SweepResult.of(jr.grid(LASSO, lam=[0.1, 0.3]), told, train=told, params=moved)
    found = leave_one_out(linear, result, (X, Y))
    assert np.isfinite(found.loss[:, 0]).tolist() == [True, False]
    assert "from a minimum, and `tol` is 0.1" in found.odd[1, 0]


def test_a_sweep_in_float32_is_judged_too():
    x, y = X.astype(np.float32), LABELS.astype(np.float32)

    def trainer(reg):
        loss = lambda p, x, y: logistic(p, x, y, jnp.ones(len(y)))
        start = {"kernel": jnp.zeros(P), "bias": jnp.zeros(())}
        return jr.Trainer(lambda key: start, loss, jr.proximal(optax.trace(0.8), reg, 0.2))

    grid = jr.grid(LASSO, lam=[0.03, 0.08])
    other = (x[:9] + 1, y[:9])
    result = jr.sweep(trainer, grid, (x, y), validation=other, steps=1500, evals=1, keep_params=True,
                      key=jax.random.key(0), progress=False)  # fmt: skip
    found = leave_one_out(linear, result, (x, y), likelihood="bernoulli")
    exact = leave_one_out(
        linear,
        solved(logistic, LASSO, [0.03, 0.08], LABELS)[0],
        (X, LABELS),
        likelihood="bernoulli",
    )
    np.testing.assert_allclose(found.loss, exact.loss, rtol=1e-4)


BAD = {
    "outputs": ({"outputs": None}, TypeError, r"leave_one_out: `outputs` must be a function.*got None"),
    "result": ({"result": {"kernel": X}}, TypeError, "leave_one_out: `result` must be a SweepResult.*got dict"),
    "data": ({"data": (X[:5], Y)}, ValueError, "leave_one_out: .*`data`.*rows"),
    "likelihood": ({"likelihood": None}, ValueError, "leave_one_out: `likelihood` must be one of.*got None"),
    "penalty": ({"penalty": 3}, TypeError, "leave_one_out: `penalty` must be a function.*got 3"),
    "tol": ({"tol": -1.0}, ValueError, "leave_one_out: `tol` must be a number above 0.*got -1"),
    "not linear": ({"outputs": lambda p, x: linear(p, x) ** 2}, ValueError, "must be linear in the parameters"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    more, error, match = BAD[name]
    given = {
        "outputs": linear,
        "result": solved(half_square, LASSO, [0.08, 0.3], Y)[0],
        "data": (X, Y),
    } | more
    with pytest.raises(error, match=match):
        leave_one_out(**given)


def test_rules_that_there_are_not():
    result, _ = solved(half_square, LASSO, [0.08, 0.3], Y)
    with pytest.raises(ValueError, match=r"`rule` must be one of"):
        leave_one_out(linear, result, (X, Y)).best("loo")
