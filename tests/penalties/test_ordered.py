"""Sorted and largest entries: SLOPE, the maximum norm and isotonic regression.

The references are maxima over all orders, convex programs solved by scipy, and scikit-learn's
isotonic regression.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.isotonic import isotonic_regression

import jaxreg as jr
from jaxreg import prox

pytestmark = pytest.mark.formulas

close = np.testing.assert_allclose
RNG = np.random.default_rng(5)
X = RNG.normal(size=(3, 4))
TIES = np.array([[2.0, -2.0, 0.0, 1.0], [1.0, 1.0, -1.0, 1.0], [0.0, 0.0, 0.5, 0.0]])
POINTS = np.concatenate([X, TIES])
FALLING = np.array([1.5, 0.9, 0.4, 0.0])
ORDERS = np.array(list(itertools.permutations(range(4))))
SIGNS = np.array(list(itertools.product([-1, 1], repeat=4)))


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def by_orders(x, weights):
    """sum of weights_i |x|_(i), the largest over all orders: the norm without a sort."""
    return (np.abs(x)[ORDERS] @ weights).max()


def by_program(x, thresholds):
    """x - u, u the nearest point with u . s <= sum of the first |s| thresholds for all signs s."""
    rows = np.array([s for s in itertools.product([-1, 0, 1], repeat=4) if any(s)], float)
    room = np.cumsum(thresholds)[np.abs(rows).sum(1).astype(int) - 1]
    rule = {"type": "ineq", "fun": lambda u: room - rows @ u, "jac": lambda u: -rows}
    goal = lambda u: (0.5 * np.sum((u - x) ** 2), u - x)
    options = {"ftol": 1e-15, "maxiter": 300}
    found = minimize(goal, 0 * x, jac=True, method="SLSQP", constraints=rule, options=options)
    return x - found.x


def by_scikit_learn(x, thresholds):
    """Sort, subtract, make it fall, cut at 0."""
    order = np.argsort(-np.abs(x), kind="stable")
    near = isotonic_regression(np.abs(x)[order] - thresholds, increasing=False)
    out = np.zeros_like(x)
    out[order] = np.maximum(near, 0)
    return np.sign(x) * out


# Name -> penalty with a strength, and the weights that it stands for.
CASES = {
    "slope": (lambda lam: jr.slope(lam, weights=FALLING), FALLING),
    "lasso": (lambda lam: jr.slope(lam, weights=np.ones(4)), np.ones(4)),
    "maximum by slope": (lambda lam: jr.slope(lam, weights=np.eye(4)[0]), np.eye(4)[0]),
    "linf": (jr.linf, np.eye(4)[0]),
    "nothing": (lambda lam: jr.slope(lam, weights=np.zeros(4)), np.zeros(4)),
}
case = pytest.mark.parametrize("name", CASES)
LAM, STEP = 0.8, 0.6


@functools.cache
def computed(name):
    """Everything that the tests ask of a case, one program for all points."""
    make, _ = CASES[name]

    def one(x):
        reg = make(LAM)
        near, lam = reg.prox(x, STEP), reg.lambda_max(x)
        return {
            "value": reg(x),
            "prox": near,
            "distance": reg.subdiff_distance(near, (near - x) / STEP),
            "distance aside": reg.subdiff_distance(near + 0.1, (near + 0.1 - x) / STEP),
            "least": reg.min_norm_subgradient(x, jnp.zeros(4)),
            "gradient": jax.grad(reg)(x),
            "lambda_max": lam,
            "below": make(0.999 * lam).prox(-x, 1.0),
            "above": make(1.001 * lam).prox(-x, 1.0),
            "conjugate inside": make(1.001 * lam).conjugate(x),
            "conjugate outside": make(0.999 * lam).conjugate(x),
        }

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(POINTS))


@case
def test_the_value_is_the_largest_over_all_orders(name):
    weights = CASES[name][1]
    close(computed(name)["value"], [LAM * by_orders(x, weights) for x in POINTS], atol=1e-12)


@case
@pytest.mark.parametrize("reference", [by_program, by_scikit_learn])
def test_the_prox_is_that_of_the_references(name, reference):
    for x, near in zip(POINTS, computed(name)["prox"]):
        close(near, reference(x, STEP * LAM * CASES[name][1]), atol=1e-6)


@case
def test_the_certificate_is_zero_at_the_prox_alone(name):
    close(computed(name)["distance"], 0, atol=1e-9)
    # By strong monotonicity.
    assert (computed(name)["distance aside"] >= 0.1 * 2 / STEP * (1 - 1e-9)).all()


def shortest(vertices):
    """The shortest vector in the hull of some."""
    v = np.unique(vertices, axis=0)
    rule = {"type": "eq", "fun": lambda c: c.sum() - 1, "jac": np.ones_like}
    goal = lambda c: (0.5 * np.sum((c @ v) ** 2), v @ (c @ v))
    start, box = np.full(len(v), 1 / len(v)), [(0, 1)] * len(v)
    options = {"ftol": 1e-16, "maxiter": 500}
    return v.T @ minimize(goal, start, jac=True, method="SLSQP", bounds=box, constraints=rule, options=options).x  # fmt: skip


@case
def test_the_gradient_at_ties_and_zeros_is_the_shortest_subgradient(name):
    """The subdifferential is the hull of w ordered as x may be sorted, with any sign where x is 0."""
    weights = LAM * CASES[name][1]
    for x, least, slope in zip(POINTS, computed(name)["least"], computed(name)["gradient"]):
        falls = np.all(np.diff(np.abs(x)[ORDERS]) <= 0, 1)
        agree = ((np.sign(x) == SIGNS) | (x == 0)).all(1)
        # The weight of an entry is that of its place in the order.
        vertices = SIGNS[agree][:, None] * weights[np.argsort(ORDERS[falls], 1)]
        close(least, shortest(vertices.reshape(-1, 4)), atol=1e-6)
        close(slope, least, atol=1e-12)


@pytest.mark.parametrize("name", sorted(set(CASES) - {"nothing"}))
def test_lambda_max_is_the_smallest_with_the_zero_solution(name):
    found, weights = computed(name), CASES[name][1]
    for x, lam in zip(POINTS, found["lambda_max"]):
        # The dual norm: the largest u . x over the vertices s / (their own norm).
        rows = np.array([s for s in itertools.product([-1, 0, 1], repeat=4) if any(s)], float)
        close(lam, max(s @ x / by_orders(s, weights) for s in rows), rtol=1e-12)
    assert (found["above"] == 0).all()
    assert (found["below"] != 0).any(1).all()
    assert (found["conjugate inside"] == 0).all()
    assert (found["conjugate outside"] == np.inf).all()


def test_weights_of_zero_hold_nothing():
    found = computed("nothing")
    assert (found["prox"] == POINTS).all()
    assert (found["lambda_max"] == np.inf).all()
    assert (found["conjugate outside"] == np.inf).all()
    assert jr.slope(1.0, weights=np.zeros(4)).conjugate(jnp.zeros(4)) == 0
    for reg in (jr.slope(0.0), jr.linf(0.0)):
        assert (reg.prox(jnp.asarray(POINTS), 1.0) == POINTS).all()
        assert reg(jnp.asarray(POINTS)) == 0


@pytest.mark.parametrize(
    ("x", "thresholds", "expected"),
    [
        ([5.0, 2.0], [4.0, 2.0], [1.0, 0.0]),
        ([3.0, 3.0], [0.0, 0.0], [3.0, 3.0]),
        ([2.0, 1.0], [3.0, 0.0], [0.0, 0.0]),
        ([8.0, 6.0, 4.0, 2.0], [4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0]),
        ([5.0, 4.0, 3.0, 1.0], [3.0, 2.5, 1.0, 0.5], [2.0, 1.75, 1.75, 0.5]),
    ],
)
def test_published_numbers(x, thresholds, expected):
    """Signs and places do not matter, and pooled entries are equal to the last bit."""
    weights = jnp.asarray(thresholds)
    assert prox.slope(jnp.array(x), weights).tolist() == expected
    flip = (-1.0) ** np.arange(len(x))
    mirrored = prox.slope(jnp.array(x * flip)[::-1], weights)
    assert mirrored.tolist() == (expected * flip)[::-1].tolist()
    assert jr.slope(0.5, weights=weights).prox(jnp.array(x), 2.0).tolist() == expected


def test_the_weights_of_a_rate_are_benjamini_and_hochbergs():
    from scipy.stats import norm

    x, q = jnp.asarray(X), 0.2
    weights = norm.ppf(1 - q * np.arange(1, 13) / 24)
    falling = -np.sort(-np.abs(X).ravel())
    close(jr.slope(0.7, q=q)(x), 0.7 * falling @ weights, rtol=1e-12)
    close(jr.slope(0.7, q=q).prox(x, 0.5), jr.slope(0.7, weights=weights).prox(x, 0.5), atol=1e-12)
    close(jr.slope(0.7)(x), jr.slope(0.7, q=0.1)(x), rtol=1e-12)
    # One program, and a derivative, for all rates; the tail keeps its digits.
    h, value = 1e-6, jax.jit(lambda q: jr.slope(0.7, q=q)(x))
    close(jax.grad(value)(q), (value(q + h) - value(q - h)) / (2 * h), rtol=1e-6)
    tiny = jr.slope(1.0, q=1e-12)(jnp.array([1.0]))
    close(tiny, norm.isf(0.5e-12), rtol=1e-9)


def test_leaves_are_sorted_each_by_itself_and_may_differ_in_rate():
    params = {"a": jnp.asarray(X[0]), "b": jnp.asarray(X[1:])}
    reg = jr.slope({"a": 0.3, "b": 0.6}, q={"a": 0.1, "b": 0.5})
    alone = jr.slope(0.3, q=0.1)(params["a"]) + jr.slope(0.6, q=0.5)(params["b"])
    close(reg(params), alone, rtol=1e-12)
    close(reg.prox(params, 0.5)["b"], jr.slope(0.6, q=0.5).prox(params["b"], 0.5), atol=1e-12)
    close(jr.linf(0.5)(params), 0.5 * (np.abs(X[0]).max() + np.abs(X[1:]).max()), rtol=1e-12)


# --- isotonic regression --------------------------------------------------------------------------


@pytest.mark.parametrize("decreasing", [False, True])
@pytest.mark.parametrize("axis", [0, -1])
def test_isotonic_regression_is_scikit_learns(decreasing, axis):
    y = RNG.normal(size=(6, 5)).round(1)
    w = RNG.uniform(0.1, 3, (6, 5))
    run = jax.jit(functools.partial(prox.isotonic, axis=axis, decreasing=decreasing))
    found, plain = (np.asarray(run(y, w)) for w in (w, None))
    for i in range(y.shape[axis - 1]):
        take = functools.partial(np.take, indices=i, axis=axis - 1)
        rises = {"increasing": not decreasing}
        close(take(found), isotonic_regression(take(y), sample_weight=take(w), **rises), atol=1e-12)
        close(take(plain), isotonic_regression(take(y), **rises), atol=1e-12)


def test_what_is_in_order_is_kept_to_the_last_bit():
    y = np.sort(RNG.normal(size=7))
    assert (prox.isotonic(jnp.asarray(y)) == y).all()
    assert (prox.isotonic(jnp.asarray(y[::-1].copy()), decreasing=True) == y[::-1]).all()


# --- under transformations ------------------------------------------------------------------------

OPERATORS = {
    "slope": lambda x: prox.slope(x, jnp.asarray(FALLING, x.dtype)),
    "isotonic": prox.isotonic,
    "linf": lambda x: prox.linf(x, 0.7),
}
each = pytest.mark.parametrize("name", OPERATORS)


@each
def test_jit_and_vmap_once_and_twice_are_the_loop(name):
    run = OPERATORS[name]
    loop = np.stack([run(jnp.asarray(x)) for x in POINTS])
    close(jax.jit(jax.vmap(run))(POINTS), loop, atol=1e-14)
    twice = jax.jit(jax.vmap(jax.vmap(run)))(POINTS.reshape(2, 3, 4))
    close(twice.reshape(6, 4), loop, atol=1e-14)


def test_vmap_over_strengths_is_a_sweep():
    lams = jnp.array([0.0, 0.1, 0.7, 3.0])
    for make in (lambda lam: jr.slope(lam, q=0.3), jr.linf):
        run = jax.jit(jax.vmap(lambda lam, make=make: make(lam).prox(jnp.asarray(X), 0.5)))
        loop = np.stack([make(lam).prox(jnp.asarray(X), 0.5) for lam in lams])
        close(run(lams), loop, atol=1e-14)


@each
def test_derivatives_in_both_modes_are_those_of_the_values(name):
    run, h = OPERATORS[name], 1e-6
    forward, reverse = jax.jit(lambda x: (jax.jacfwd(run)(x), jax.jacrev(run)(x)))(X[0])
    values = jax.jit(jax.vmap(run))
    step = h * np.eye(4)
    close(forward.T, (values(X[0] + step) - values(X[0] - step)) / (2 * h), atol=1e-6)
    close(forward, reverse, atol=1e-12)


@each
def test_narrow_and_empty_arrays_keep_shape_and_dtype(name):
    run = OPERATORS[name]
    narrow = run(jnp.asarray(X[0], jnp.bfloat16))
    assert narrow.dtype == jnp.bfloat16
    wide = run(jnp.asarray(X[0], jnp.bfloat16).astype(jnp.float32))
    close(narrow.astype(float), wide, atol=2e-2)
    if name != "slope":
        assert run(jnp.zeros((0,))).shape == (0,)
    assert prox.slope(jnp.zeros((0, 2)), jnp.zeros(0)).shape == (0, 2)


def test_empty_and_bf16_leaves():
    params = {"none": jnp.zeros((0, 3)), "some": jnp.asarray(X, jnp.bfloat16)}
    for reg in (jr.slope(0.5, q=0.3), jr.linf(0.5)):
        assert reg(params) == reg(params["some"])
        assert reg(params["some"]).dtype == jnp.float32
        near = reg.prox(params, 0.5)
        wide = reg.prox(params["some"].astype(jnp.float32), 0.5)
        assert (near["some"] == wide.astype(jnp.bfloat16)).all()
        assert near["none"].shape == (0, 3)
        assert reg.lambda_max({"none": jnp.zeros((0, 3))}) == 0


# --- refusals -------------------------------------------------------------------------------------

W = jnp.asarray(X)
REFUSALS = {
    "weights that rise": (lambda: jr.slope(1.0, weights=jnp.array([1.0, 2.0])), ValueError, r"slope: `weights` must decrease, got float64\[2\]; the first is for the largest entry"),
    "weights that are negative": (lambda: jr.slope(1.0, weights=jnp.array([1.0, -2.0])), ValueError, "slope: `weights` must be >= 0"),
    "a rate and weights": (lambda: jr.slope(1.0, q=0.1, weights=jnp.ones(2)), ValueError, "slope: `q` and `weights` are two ways to say the same; give one of them"),
    "a rate of zero": (lambda: jr.slope(1.0, q=0.0), ValueError, "slope: `q` must be > 0, got 0"),
    "a rate above one": (lambda: jr.slope(1.0, q=1.5), ValueError, r"slope: `q` is a share between 0 and 1, got 1\.5"),
    "a rate per row": (lambda: jr.slope(1.0, q=jnp.full((3, 1), 0.1))(W), ValueError, r"slope: `q` has shape \(3, 1\); give one number per leaf"),
    "weights as a list": (lambda: jr.slope(1.0, weights=[2.0, 1.0])({"w": W}), ValueError, "slope: `weights` has the leaf '0', which the parameters lack"),
    "weights of another size": (lambda: jr.slope(1.0, weights=jnp.ones(4))({"w": W}), ValueError, r"slope: `weights` has shape \(4,\) on the leaf 'w' with 12 entries; give one weight per rank"),
    "weights of the leaf's shape": (lambda: jr.slope(1.0, weights=jnp.ones((3, 4))).prox(W, 1.0), ValueError, r"slope: `weights` has shape \(3, 4\)"),
    "a strength per row": (lambda: jr.slope(jnp.ones((3, 1)))(W), ValueError, r"slope: `lam` has shape \(3, 1\) and differs along axis 0; give one strength per leaf"),
    "a step per entry": (lambda: jr.slope(1.0).prox(W, jnp.ones((3, 4))), ValueError, r"slope: with one step per coordinate \(as after Adam\) the prox has no closed form.*add_penalty_gradient"),
    "a maximum with a strength per row": (lambda: jr.linf(jnp.ones((3, 1)))(W), ValueError, r"linf: `lam` has shape \(3, 1\) and differs inside a group"),
    "a negative maximum": (lambda: jr.linf(-1.0), ValueError, "linf: `lam` must be >= 0"),
    "integers": (lambda: jr.slope(1.0)({"w": jnp.arange(2)}), TypeError, "slope: the leaf 'w' is of dtype int"),
    "complex numbers": (lambda: jr.slope(1.0).prox({"w": W.astype(complex)}, 1.0), TypeError, "slope: the leaf 'w' is of dtype complex"),
    "integers, the maximum": (lambda: jr.linf(1.0)({"w": jnp.arange(2)}), TypeError, "linf: the leaf 'w' is of dtype int"),
    "complex numbers, the maximum": (lambda: jr.linf(1.0).prox({"w": W.astype(complex)}, 1.0), TypeError, "linf: the leaf 'w' is of dtype complex"),
    "integers, the operator": (lambda: prox.slope(jnp.arange(2), jnp.ones(2)), TypeError, "slope: `x` must be a floating array, got dtype int"),
    "integers to be made monotone": (lambda: prox.isotonic(jnp.arange(2)), TypeError, "isotonic: `x` must be a floating array"),
    "integers to be cut": (lambda: prox.linf(jnp.arange(2), 1.0), TypeError, "linf: `x` must be a floating array"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused_with_a_remedy(call, error, text):
    with pytest.raises(error, match=text):
        call()
