"""Penalties of groups against numpy's formulas and convex programs that scipy solves.

The programs are the duals: for a norm the prox is x - step * u, with u the point of the dual ball
nearest to x / step. Nothing of the library's closed forms or root searches is in them.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize, nnls

import jaxreg as jr

pytestmark = pytest.mark.formulas

close = np.testing.assert_allclose
POINTS = np.random.default_rng(3).normal(size=(2, 12))
LAM, STEP = 0.6, 0.7


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


# --- the programs ---------------------------------------------------------------------------------


def solve(goal, start, limits=(), bounds=None):
    """The minimiser of `goal`, which gives value and gradient, under (function, jacobian) >= 0."""
    rules = [{"type": "ineq", "fun": f, "jac": j} for f, j in limits]
    options = {"ftol": 1e-15, "maxiter": 500}
    return minimize(
        goal, start, jac=True, method="SLSQP", bounds=bounds, constraints=rules, options=options
    ).x


def ball(n, group, reach, offset=0):
    """|u_g|_2 <= reach."""
    at = offset + np.asarray(group)

    def slope(u):
        out = np.zeros(n)
        out[at] = -2 * u[at]
        return out

    return lambda u: reach**2 - u[at] @ u[at], slope


@dataclasses.dataclass
class Groups:
    """sum_g reach_g * |z_g|_2 + a * |z|_1, at lam = 1."""

    groups: list
    reach: list
    a: float = 0.0

    def value(self, z):
        norms = [r * np.linalg.norm(z[g]) for g, r in zip(self.groups, self.reach)]
        return sum(norms) + self.a * np.abs(z).sum()

    def prox(self, x, step, lam):
        n, step = len(x), np.broadcast_to(step, len(x))

        def goal(u):  # u = (what the entries cost, what the groups cost)
            off = step * (u[:n] + u[n:]) - x
            return 0.5 * np.sum(off**2 / step), np.tile(off, 2)

        held = {i: r for g, r in zip(self.groups, self.reach) for i in g}
        sides = [lam * self.a] * n + [lam * held.get(i, 0.0) for i in range(n)]
        limits = [ball(2 * n, g, lam * r, n) for g, r in zip(self.groups, self.reach) if r > 0]
        u = solve(goal, np.zeros(2 * n), limits, [(-s, s) for s in sides])
        return x - step * (u[:n] + u[n:])


@dataclasses.dataclass
class Maxima:
    """sum_g reach_g * max |z_g|, at lam = 1."""

    groups: list
    reach: list

    def value(self, z):
        return sum(r * np.abs(z[g]).max() for g, r in zip(self.groups, self.reach))

    def prox(self, x, step, lam):
        n, step = len(x), np.broadcast_to(step, len(x))

        def goal(u):  # of what is pulled down and what is pulled up
            off = step * (u[:n] - u[n:]) - x
            return 0.5 * np.sum(off**2 / step), np.concatenate([off, -off])

        rows = [np.tile(np.isin(np.arange(n), g), 2).astype(float) for g in self.groups]
        limits = [
            (lambda u, row=row, r=r: lam * r - row @ u, lambda u, row=row: -row)
            for row, r in zip(rows, self.reach)
        ]
        u = solve(goal, np.zeros(2 * n), limits, [(0, None)] * (2 * n))
        return x - step * (u[:n] - u[n:])


@dataclasses.dataclass
class Squares:
    """sum_g reach_g / 2 * |z_g|_1^2, at lam = 1: the primal in positive and negative parts."""

    groups: list
    reach: list

    def value(self, z):
        return sum(r / 2 * np.abs(z[g]).sum() ** 2 for g, r in zip(self.groups, self.reach))

    def prox(self, x, step, lam):
        n, step = len(x), np.broadcast_to(step, len(x))

        def goal(u):
            size, off = u[:n] + u[n:], u[:n] - u[n:] - x
            slope = np.zeros(n)
            for g, r in zip(self.groups, self.reach):
                slope[g] = lam * r * size[g].sum()
            down, up = slope + off / step, slope - off / step
            return lam * self.value(size) + np.sum(off**2 / (2 * step)), np.append(down, up)

        u = solve(goal, np.append(np.maximum(x, 0), np.maximum(-x, 0)), (), [(0, None)] * (2 * n))
        return u[:n] - u[n:]


LEAF = np.zeros((4, 3))
ROWS, COLUMNS = np.arange(12).reshape(4, 3), np.arange(12).reshape(4, 3).T
LABELS = np.array([0, 1, 0, 2])
BY_LABEL = [[0, 1, 2, 6, 7, 8], [3, 4, 5], [9, 10, 11]]
LISTS = [[0, 5, 7], [1, 2, 3, 4, 6, 8, 9, 10], [11]]
# Flat, in this order: a is 0 and 1, b[i, j] is 2 + 2 i + j, c is 8 to 11.
TREE = {"a": np.zeros(2), "b": np.zeros((3, 2)), "c": np.zeros(4)}
WEIGHTS = np.array([2.0, 0.0, 0.5])


def sizes(groups, weights=None):
    root = np.sqrt([len(g) for g in groups])
    return list(root if weights is None else root * weights)


# Name -> constructor, parameters, the same in numpy and scipy.
CASES = {
    "rows": (lambda lam: jr.group_lasso(lam, axis=0), LEAF, Groups(ROWS, sizes(ROWS))),
    "columns": (
        lambda lam: jr.group_lasso(lam, axis=-1, sqrt_size=False, weights=WEIGHTS),
        LEAF,
        Groups(COLUMNS, WEIGHTS),
    ),
    "labels": (
        lambda lam: jr.group_lasso(lam, axis=0, groups=LABELS, weights=WEIGHTS),
        LEAF,
        Groups(BY_LABEL, sizes(BY_LABEL, WEIGHTS)),
    ),
    "index lists": (
        lambda lam: jr.group_lasso(lam, groups=LISTS),
        LEAF,
        Groups(LISTS, sizes(LISTS)),
    ),
    "leaves": (
        lambda lam: jr.group_lasso(lam, groups=["a", ["b", "c"]], weights=[1.0, 0.5]),
        TREE,
        Groups([range(2), range(2, 12)], [2**0.5, 0.5 * 10**0.5]),
    ),
    "slices of leaves, and a leaf in no group": (
        lambda lam: jr.group_lasso(lam, groups=[[("b", -1), ("a", 0)]], sqrt_size=False),
        TREE,
        Groups([[0, 2, 4, 6], [1, 3, 5, 7]], [1.0, 1.0]),
    ),
    "sparse rows": (
        lambda lam: jr.sparse_group_lasso(lam, 0.3, axis=0),
        LEAF,
        Groups(ROWS, 0.7 * np.sqrt([3.0] * 4), 0.3),
    ),
    "sparse index lists": (
        lambda lam: jr.sparse_group_lasso(lam, 0.6, groups=LISTS, weights=WEIGHTS, sqrt_size=False),
        LEAF,
        Groups(LISTS, 0.4 * WEIGHTS, 0.6),
    ),
    "copies": (
        lambda lam: jr.overlapping_group_lasso(lam, [[0, 1], [1, 2, 0], [3]], weights=WEIGHTS),
        np.zeros((6, 2)),
        Groups(
            [range(4), range(4, 10), range(10, 12)], sizes([range(4), range(6), [0, 1]], WEIGHTS)
        ),
    ),
    "maxima of rows": (lambda lam: jr.l1_linf(lam, axis=0), LEAF, Maxima(ROWS, [1.0] * 4)),
    "maxima of labels": (
        lambda lam: jr.l1_linf(lam, axis=0, groups=LABELS, weights=WEIGHTS),
        LEAF,
        Maxima(BY_LABEL, WEIGHTS),
    ),
    "exclusive columns": (
        lambda lam: jr.exclusive_lasso(lam, axis=1),
        LEAF,
        Squares(COLUMNS, [1.0] * 3),
    ),
    "exclusive index lists": (
        lambda lam: jr.exclusive_lasso(lam, groups=LISTS, weights=WEIGHTS),
        LEAF,
        Squares(LISTS, WEIGHTS),
    ),
}
case = pytest.mark.parametrize("name", CASES)
STEPS = np.random.default_rng(4).uniform(0.2, 2, 12)


@functools.cache
def computed(name):
    """Everything that the tests ask of a case, one program for all points."""
    make, template, _ = CASES[name]
    unravel = ravel_pytree(jax.tree.map(jnp.asarray, template))[1]
    flat = lambda tree: ravel_pytree(tree)[0]

    def one(x):
        reg, tree = make(LAM), unravel(x)
        near = reg.prox(tree, STEP)
        aside = jax.tree.map(lambda z: z + 0.1, near)
        pull = lambda z: jax.tree.map(lambda z, x: (z - x) / STEP, z, tree)
        lam = reg.lambda_max(tree)
        down = jax.tree.map(jnp.negative, tree)
        replaced = lambda lam: dataclasses.replace(reg, lam=lam)
        return {
            "value": reg(tree),
            "prox": flat(near),
            "in a metric": flat(reg.prox(tree, unravel(jnp.asarray(STEPS)))),
            "distance": reg.subdiff_distance(near, pull(near)),
            "distance aside": reg.subdiff_distance(aside, pull(aside)),
            "lambda_max": lam,
            "below": flat(replaced(0.999 * lam).prox(down, 1.0)),
            "above": flat(replaced(1.001 * lam).prox(down, 1.0)),
            "conjugate inside": replaced(1.001 * lam).conjugate(tree),
            "conjugate outside": replaced(0.999 * lam).conjugate(tree),
        }

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(POINTS))


@case
def test_the_value_is_the_formula(name):
    formula = CASES[name][2]
    close(computed(name)["value"], [LAM * formula.value(x) for x in POINTS], rtol=1e-12)


@case
def test_the_prox_solves_the_convex_program(name):
    found, formula = computed(name), CASES[name][2]
    for x, near, metric in zip(POINTS, found["prox"], found["in a metric"]):
        close(near, formula.prox(x, STEP, LAM), atol=3e-6)
        close(metric, formula.prox(x, STEPS, LAM), atol=3e-6)


@case
def test_the_certificate_is_zero_at_the_prox_alone(name):
    found = computed(name)
    close(found["distance"], 0, atol=1e-7)
    assert (found["distance aside"] > 0.1 * 12**0.5 / STEP * (1 - 1e-9)).all()


NORMS = [n for n, (_, _, formula) in CASES.items() if not isinstance(formula, Squares)]
HELD = [n for n in NORMS if n.startswith("sparse") or 0 not in CASES[n][2].reach]
SLICES = "slices of leaves, and a leaf in no group"
HELD.remove(SLICES)


@pytest.mark.parametrize("name", HELD)
def test_lambda_max_is_the_smallest_with_the_zero_solution(name):
    found, formula = computed(name), CASES[name][2]
    for x, lam in zip(POINTS, found["lambda_max"]):
        assert np.abs(formula.prox(-x, 1.0, 1.01 * lam)).max() < 1e-5
        assert np.abs(formula.prox(-x, 1.0, 0.99 * lam)).max() > 1e-3
    assert (found["above"] == 0).all()
    assert (found["below"] != 0).any(1).all()


@pytest.mark.parametrize("name", HELD)
def test_the_conjugate_is_the_dual_ball_of_that_size(name):
    assert (computed(name)["conjugate inside"] == 0).all()
    assert (computed(name)["conjugate outside"] == np.inf).all()


@pytest.mark.parametrize("name", sorted(set(CASES) - set(HELD) - {SLICES}))
def test_nothing_holds_what_costs_nothing_at_zero(name):
    """A group of weight 0, and a square that is flat at 0."""
    assert (computed(name)["lambda_max"] == np.inf).all()
    assert np.isfinite(computed(name)["prox"]).all()


def test_lambda_max_asks_of_the_leaves_in_groups_as_a_selection_does():
    found, groups = computed(SLICES), CASES[SLICES][2].groups
    norms = [[np.linalg.norm(x[g]) for g in groups] for x in POINTS]
    close(found["lambda_max"], np.max(norms, 1), rtol=1e-12)
    free = np.arange(12) >= 8
    assert (found["above"][:, ~free] == 0).all()
    assert (found["above"][:, free] == -POINTS[:, free]).all()


def test_lambda_max_leaves_out_free_groups_at_rest():
    for make in (jr.group_lasso, jr.l1_linf):
        reg = make(1.0, groups=LISTS, weights=WEIGHTS)
        grad = np.where(np.isin(np.arange(12), LISTS[1]), 0, POINTS[0]).reshape(4, 3)
        only = make(1.0, groups=LISTS, weights=np.where(WEIGHTS > 0, WEIGHTS, 1.0))
        assert reg.lambda_max(jnp.asarray(grad)) == only.lambda_max(jnp.asarray(grad))


def test_the_conjugate_of_the_exclusive_lasso_is_a_sum_of_squared_maxima():
    dual = POINTS[0].reshape(4, 3)
    expected = np.sum(np.abs(dual).max(0) ** 2) / (2 * LAM)
    close(jr.exclusive_lasso(LAM, axis=1).conjugate(jnp.asarray(dual)), expected, rtol=1e-12)
    free = jr.exclusive_lasso(LAM, axis=1, weights=WEIGHTS)
    assert free.conjugate(jnp.asarray(dual)) == np.inf
    dual[:, 1] = 0
    top = np.abs(dual).max(0)[[0, 2]] ** 2 / (2 * LAM * WEIGHTS[[0, 2]])
    close(free.conjugate(jnp.asarray(dual)), top.sum(), rtol=1e-12)


def test_a_dual_outside_of_all_groups_must_be_zero():
    reg = jr.group_lasso(5.0, groups=["a"])
    tree = {"a": jnp.ones(2), "b": jnp.zeros(2)}
    assert reg.conjugate(tree) == 0
    assert reg.conjugate(tree | {"b": jnp.array([0.0, 1e-9])}) == np.inf
    assert reg.support(tree) == [True, False]


# --- edges ----------------------------------------------------------------------------------------

EDGES = {
    "group_lasso": lambda **k: jr.group_lasso(0.5, **k),
    "sparse_group_lasso": lambda **k: jr.sparse_group_lasso(0.5, **k),
    "l1_linf": lambda **k: jr.l1_linf(0.5, **k),
    "exclusive_lasso": lambda **k: jr.exclusive_lasso(0.5, **k),
}
edge = pytest.mark.parametrize("family", EDGES)


@edge
def test_a_group_of_weight_zero_is_left_alone_to_the_last_bit(family):
    x = jnp.asarray(POINTS[0].reshape(4, 3))
    reg = EDGES[family](axis=0, weights=jnp.array([1.0, 0.0, 1.0, 1.0]))
    l1 = 0.25 if family == "sparse_group_lasso" else 0.0
    alone = np.sign(x[1]) * np.maximum(np.abs(x[1]) - 0.7 * l1, 0)
    assert (reg.prox(x, 0.7)[1] == alone).all()
    rest = EDGES[family](axis=0)(x[jnp.array([0, 2, 3])])
    close(reg(x), rest + l1 * np.abs(x[1]).sum(), rtol=1e-12)


@edge
def test_zero_groups_stay_zero_and_their_gradient_too(family):
    x = jnp.asarray(POINTS[0].reshape(4, 3)).at[2].set(0)
    reg = EDGES[family](axis=0)
    slope, near = jax.jit(lambda x: (jax.grad(reg)(x), reg.prox(x, 0.1)))(x)
    assert (slope[2] == 0).all()
    assert (near[2] == 0).all()
    assert (slope[0] != 0).any()


@edge
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_leaf_without_entries_adds_nothing(family, axis):
    params = {"none": jnp.zeros((0, 3)), "some": jnp.ones((2, 3))}
    reg = EDGES[family](axis=axis)
    assert reg(params) == reg(params["some"])
    assert reg.prox(params, 0.1)["none"].shape == (0, 3)
    assert reg.lambda_max(params) == reg.lambda_max(params["some"])


@edge
def test_bf16_leaves_are_summed_in_float32_and_rounded_once(family):
    x = jnp.asarray(POINTS[0].reshape(4, 3), jnp.bfloat16)
    reg = EDGES[family](groups=LISTS)
    assert reg(x).dtype == jnp.float32
    near = reg.prox(x, 0.5)
    assert near.dtype == jnp.bfloat16
    assert (near == reg.prox(x.astype(jnp.float32), 0.5).astype(jnp.bfloat16)).all()


def test_bf16_in_a_group_of_leaves_and_in_the_hierarchy():
    x = {"a": jnp.array([3.0, 4.0], jnp.bfloat16), "b": jnp.array([12.0], jnp.float32)}
    near = jr.group_lasso(6.5, groups=[["a", "b"]], sqrt_size=False).prox(x, 1.0)
    assert near["a"].dtype == jnp.bfloat16
    close(near["a"].astype(float), [1.5, 2.0])
    close(near["b"], [6.0], rtol=1e-6)
    params = {"skip": jnp.array([2.0], jnp.bfloat16), "layer": jnp.array([[3.0]], jnp.bfloat16)}
    near = jr.hierarchical(1.0, 1.0, skip="skip", layer="layer").prox(params, 1.0)
    assert {k: (v.dtype, v.ravel().tolist()) for k, v in near.items()} == {
        "skip": (jnp.bfloat16, [2.0]),
        "layer": (jnp.bfloat16, [2.0]),
    }


# --- overlapping groups ---------------------------------------------------------------------------

OVERLAP = [[0, 1, 2], [2, 3], [1, 3, 4]]


def latent_by_duality(x, groups, reach):
    """max <u, x> with |u_g|_2 <= reach_g: the latent norm is the support function of that set."""
    limits = [ball(len(x), g, r) for g, r in zip(groups, reach)]
    u = solve(lambda u: (-u @ x, -x), np.zeros(len(x)), limits)
    return u @ x


@pytest.mark.parametrize("weights", [None, np.array([1.0, 3.0, 0.4])])
def test_the_latent_norm_is_the_support_function_of_the_dual_ball(weights):
    reg = jr.overlapping_group_lasso(LAM, OVERLAP, weights=weights)
    reach = LAM * np.array(sizes(OVERLAP, weights))
    norm = jax.jit(lambda x: reg.latent_norm(x, tolerance=1e-7))
    for x in POINTS[:, :5]:
        found, exact = norm(jnp.asarray(x)), latent_by_duality(x, OVERLAP, reach)
        close(found.value, exact, rtol=1e-6)
        assert found.value - found.residual - 1e-7 <= exact <= found.value + 1e-7
        # Shared out evenly, the copies cost as much or more.
        assert reg(reg.expand(jnp.asarray(x))) >= exact - 1e-9


def test_the_latent_norm_stops_where_it_is_told_and_says_so():
    reg = jr.overlapping_group_lasso(LAM, OVERLAP)
    early = reg.latent_norm(jnp.asarray(POINTS[0, :5]), max_steps=1)
    exact = latent_by_duality(POINTS[0, :5], OVERLAP, LAM * np.array(sizes(OVERLAP)))
    assert early.residual > 1e-4 * early.value
    assert early.value - early.residual <= exact <= early.value
    zero = reg.latent_norm(jnp.zeros(5))
    assert (zero.value, zero.residual) == (0, 0)


def test_copies_contract_to_what_they_were_expanded_from():
    reg = jr.overlapping_group_lasso(LAM, OVERLAP, axis=-1)
    x = {"w": jnp.asarray(POINTS[:, :5]), "v": jnp.asarray(POINTS[0, :5], jnp.bfloat16)}
    copies = reg.expand(x)
    assert copies["w"].shape == (2, 8)
    assert copies["v"].dtype == jnp.bfloat16
    named = np.concatenate(OVERLAP)
    close(copies["w"], POINTS[:, :5][:, named] / np.bincount(named)[named])
    close(reg.contract(copies)["w"], x["w"], rtol=1e-12)
    assert reg.contract(copies)["v"].dtype == jnp.bfloat16


# --- the hierarchy --------------------------------------------------------------------------------

NET = {"layer": POINTS.reshape(4, 6)[:, :3] * 2, "skip": POINTS.reshape(4, 6)[:, 4:]}
GRID = np.linspace(0, 8, 80001)


def by_grid(v, u, lam, M, steps):
    """The best size of one feature's skip weights, and the two leaves that go with it."""
    size = np.linalg.norm(v)
    cut = np.clip(u[:, None], -M * GRID, M * GRID) - u[:, None]
    cost = lam * GRID + (GRID - size) ** 2 / (2 * steps[0])
    best = GRID[np.argmin(cost + np.sum(cut**2 / (2 * steps[1][:, None]), 0))]
    return v / size * best, np.clip(u, -M * best, M * best)


@pytest.mark.parametrize("M", [0.0, 0.5, 10.0])
def test_the_hierarchy_is_solved_as_a_grid_of_sizes_solves_it(M):
    reg = jr.hierarchical(0.8, M, skip="skip", layer="layer")
    params = jax.tree.map(jnp.asarray, NET)
    ones = np.ones((4, 3))
    uneven = {"layer": 0.3 + ones * STEPS[:3], "skip": STEPS[:4, None]}
    for step in (0.7, uneven):
        near = reg.prox(params, step)
        pairs = (
            (0.7 * np.ones((4, 1)), 0.7 * ones) if step == 0.7 else (step["skip"], step["layer"])
        )
        for j in range(4):
            steps = pairs[0][j, 0], pairs[1][j]
            skip, layer = by_grid(NET["skip"][j], NET["layer"][j], 0.8, M, steps)
            close(near["skip"][j], skip, atol=3e-4)
            close(near["layer"][j], layer, atol=3e-4 * max(M, 1))


def test_the_hierarchy_charges_the_skip_weights_and_forbids_layers_beyond_them():
    reg = jr.hierarchical(0.8, 2.0, skip="skip", layer="layer")
    skip = np.linalg.norm(NET["skip"], axis=1)
    layer = 2 * skip[:, None] * np.array([1.0, -1.0, 0.3])
    inside = {"skip": jnp.asarray(NET["skip"]), "layer": jnp.asarray(layer)}
    close(reg(inside), 0.8 * skip.sum(), rtol=1e-12)
    outside = inside | {"layer": inside["layer"].at[2, 1].mul(1.01)}
    assert reg(outside) == np.inf
    slope = jax.grad(reg)(inside)
    close(slope["skip"], 0.8 * NET["skip"] / skip[:, None], rtol=1e-9)
    assert (slope["layer"] == 0).all()


def test_a_feature_leaves_both_leaves_together_and_others_are_untouched():
    reg = jr.hierarchical(2.0, 0.5, skip="skip", layer="layer")
    params = jax.tree.map(jnp.asarray, NET) | {"bias": jnp.ones(3)}
    near = reg.prox(params, 1.5)
    gone = np.asarray(near["skip"] == 0).all(1)
    assert 0 < gone.sum() < 4
    assert (gone == np.asarray(near["layer"] == 0).all(1)).all()
    assert near["bias"] is params["bias"]
    assert reg.support(params) == [False, True, True]


def nearest_slope(skip, layer, pull, lam, M):
    """grad + slope of least norm at one feature, as a nonnegative least-squares problem."""
    n, k = len(skip), len(layer)
    if (skip == 0).all():  # an oblique cone over the ball: a by SLSQP, c split in two signs

        def goal(z):
            off = np.append(z[:n], z[n : n + k] - z[n + k :]) + pull
            return 0.5 * off @ off, np.concatenate([off, -off[n:]])

        slope = np.append(np.zeros(n), np.full(2 * k, -M))

        def left(z):
            return lam - M * z[n:].sum() - np.linalg.norm(z[:n])

        def fall(z):
            return slope - np.append(z[:n] / max(np.linalg.norm(z[:n]), 1e-300), np.zeros(2 * k))

        sides = [(None, None)] * n + [(0, None)] * (2 * k)
        z = solve(goal, np.append(1e-3 * pull[:n], np.zeros(2 * k)), [(left, fall)], sides)
        return np.append(z[:n], z[n : n + k] - z[n + k :]) + pull
    size = np.linalg.norm(skip)
    held = [i for i in range(k) if np.isclose(abs(layer[i]), M * size)]
    free = pull + lam * np.append(skip / size, np.zeros(k))
    normals = [
        np.append(-M * skip / size, sign * np.eye(k)[i])
        for i in held
        for sign in ([np.sign(layer[i])] if M > 0 else [1, -1])
    ]
    if not normals:
        return free
    return free + np.transpose(normals) @ nnls(np.transpose(normals), -free)[0]


def at_the_edge(M, seed, outputs=2):
    """Features that are 0, inside their bounds, at one of them, and at all; with gradients."""
    rng = np.random.default_rng(seed)
    skip = rng.normal(size=(5, outputs)) * np.array([0, 0, 1, 1, 1])[:, None]
    share = rng.uniform(-0.9, 0.9, (5, 3))
    share[3, 1] = -1
    share[4] = rng.choice([-1.0, 1.0], 3)
    layer = M * np.linalg.norm(skip, axis=1, keepdims=True) * share
    pull = {"layer": rng.normal(size=(5, 3)), "skip": rng.normal(size=(5, outputs))}
    pull["skip"][0] *= 0.05  # the layer alone pulls, and so it stays or goes by M
    return {"layer": layer, "skip": skip}, pull


@pytest.mark.parametrize("M", [0.0, 0.4, 3.0])
def test_the_slope_left_of_the_hierarchy_is_a_least_squares_problem(M):
    found = jax.jit(jr.hierarchical(0.8, M, skip="skip", layer="layer").min_norm_subgradient)
    for seed in range(4):
        params, pull = at_the_edge(M, seed)
        rest = found(params, pull)
        for j in range(5):
            both = np.append(pull["skip"][j], pull["layer"][j])
            expected = nearest_slope(params["skip"][j], params["layer"][j], both, 0.8, M)
            # SLSQP is good to 1e-6.
            atol = 1e-5 if (params["skip"][j] == 0).all() else 1e-9
            close(np.append(rest["skip"][j], rest["layer"][j]), expected, atol=atol)


def test_no_way_out_falls_faster_than_the_slope_left_of_the_hierarchy():
    """-grad + rest is a slope: along no curve in the set does L + R fall by more than rest allows."""
    lam, M, h = 0.8, 1.5, 1e-6
    reg, rng = jr.hierarchical(lam, M, skip="skip", layer="layer"), np.random.default_rng(8)
    params, pull = at_the_edge(M, 1)
    rest = reg.min_norm_subgradient(params, pull)
    slope = jax.tree.map(lambda r, g: np.asarray(r - g), rest, pull)
    start = float(reg(params))
    for _ in range(200):
        way = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
        skip = params["skip"] + h * way["skip"]
        reach = M * np.linalg.norm(skip, axis=1, keepdims=True)
        layer = np.clip(params["layer"] + 3 * h * way["layer"], -reach, reach)
        moved = {"layer": layer, "skip": skip}
        first = sum(np.sum(slope[n] * (moved[n] - params[n])) for n in moved)
        rise = lam * np.linalg.norm(skip, axis=1).sum() - start
        assert rise - first >= -1e-4 * h


@pytest.mark.parametrize(("dtype", "size"), [(np.float64, 1e-9), (np.float32, 1e-5)])
def test_the_certificate_of_the_hierarchy_is_zero_at_the_prox_and_not_beside_it(dtype, size):
    reg = jr.hierarchical(0.8, 1.5, skip="skip", layer="layer")
    distance = jax.jit(reg.subdiff_distance)
    weak = np.array([[1], [0.1], [1], [0.1]])
    x = {name: jnp.asarray(weak * leaf, dtype) for name, leaf in NET.items()}
    near = reg.prox(x, STEP)
    assert 0 < np.asarray(near["skip"] == 0).all(1).sum() < 4
    pull = jax.tree.map(lambda z, v: (z - v) / STEP, near, x)
    assert distance(near, pull) <= size
    aside = jax.tree.map(lambda z: 1.05 * z, near)
    assert distance(aside, jax.tree.map(lambda z, v: (z - v) / STEP, aside, x)) > 0.01
    outside = near | {"layer": near["layer"] + 5.0}
    gone = {"layer": jnp.full((4, 3), 0.1), "skip": jnp.zeros((4, 2))}
    assert distance(outside, pull) == distance(gone, pull) == np.inf


@pytest.mark.parametrize("M", [0.0, 0.5, 10.0])
def test_lambda_max_of_the_hierarchy_is_where_the_prox_of_a_step_from_zero_stays(M):
    make = functools.partial(jr.hierarchical, M=M, skip="skip", layer="layer")
    pull = jax.tree.map(jnp.asarray, NET) | {"bias": jnp.ones(3)}
    lam, zero = make(1.0).lambda_max(pull), jax.tree.map(jnp.zeros_like, pull)
    sizes = np.linalg.norm(NET["skip"], axis=1) + M * np.abs(NET["layer"]).sum(1)
    close(lam, sizes.max(), rtol=1e-12)
    for factor, stays in ((1.001, True), (0.999, False)):
        reg = make(factor * lam)
        moved = reg.prox(jax.tree.map(lambda g: -STEP * g, pull), STEP)
        assert bool((moved["skip"] == 0).all()) == stays
        rest = reg.min_norm_subgradient(zero, pull)
        assert bool(np.all(np.abs(rest["skip"]) < 1e-12)) == stays
        assert (rest["bias"] == 1).all(), "it is not the hierarchy's"


# --- refusals -------------------------------------------------------------------------------------

X = jnp.ones((4, 3))
PARAMS = {"enc": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, "n": jnp.arange(2)}
COMPLEX = {"w": jnp.ones(2, jnp.complex64)}
BY_GROUP = {n: functools.partial(getattr(jr, n), 1.0) for n in EDGES}


@edge
@pytest.mark.parametrize(
    ("groups", "error", "text"),
    [
        ([[0, 1], [1, 2]], ValueError, r"index 1 is in `groups`\[0\] and in `groups`\[1\]; groups must not overlap.*use overlapping_group_lasso"),
        ([[0, 1], [3]], ValueError, r"index 2 is in no group, and `groups` reach to 3\. Give it a group of its own"),
        ([[0, 1], [2, 2]], ValueError, r"index 2 is repeated in `groups`\[1\]; name it once"),
        ([[0], [-1]], ValueError, r"`groups`\[1\] has the negative index -1; count from 0"),
        ([[0], []], TypeError, r"`groups`\[1\] is empty; give a list of integer indices"),
        ([[0], [1.5]], TypeError, r"`groups`\[1\] is \[1\.5\]; give a list of integer indices"),
        ([[0], 1], TypeError, r"`groups`\[1\] is 1; give a list of integer indices"),
        ([0, 2, 0], ValueError, r"must count from 0 without a gap, and it leaves label 1 unused\. numpy\.unique"),
        ([0, -1], ValueError, r"must count from 0 without a gap, and it is negative"),
        ([0.5, 1.0], TypeError, r"`groups` must be an array of integer labels, a list of index lists"),
        ([], TypeError, r"`groups` must be an array of integer labels.*got \[\]"),
        (3.0, TypeError, r"`groups` must be an array of integer labels.*got 3\.0"),
    ],
)  # fmt: skip
def test_groups_that_are_no_partition_are_refused_at_construction(family, groups, error, text):
    with pytest.raises(error, match=f"^{family}: .*{text}"):
        BY_GROUP[family](groups=groups)


@edge
def test_an_axis_is_checked_by_the_name_of_its_penalty(family):
    with pytest.raises(TypeError, match=f"{family}: `axis` must be an integer, a tuple of them or"):
        BY_GROUP[family](axis=0.5)
    with pytest.raises(TypeError, match=rf"{family}: `axis` must be an integer or None, got \(0,"):
        BY_GROUP[family](axis=(0, 1), groups=[0, 1])
    with pytest.raises(ValueError, match=f"{family}: `axis` 2 is out of range for the leaf ''"):
        BY_GROUP[family](axis=2)(X)


@edge
def test_groups_for_another_shape_are_refused_with_the_leaf(family):
    few, many = BY_GROUP[family](groups=[0, 1, 0]), BY_GROUP[family](groups=[0] * 13)
    with pytest.raises(
        ValueError,
        match=rf"{family}: `groups` has 3 indices, and on the leaf 'w' of shape \(4, 3\) there are 12 of them: index 3 is in no group",
    ):
        few({"w": X})
    with pytest.raises(ValueError, match="there are 12 of them: there is no index 12"):
        many.prox({"w": X}, 1.0)
    with pytest.raises(
        ValueError, match=r"has 3 indices.*there are 4 of them: index 3 is in no gr"
    ):
        BY_GROUP[family](axis=0, groups=[0, 1, 0])(X)
    with pytest.raises(ValueError, match="`axis` 5 is out of range"):
        BY_GROUP[family](axis=5, groups=[0, 1, 0])(X)


@edge
def test_weights_and_strengths_of_a_wrong_shape_are_refused(family):
    name = rf"{family}: `weights` has shape "
    for reg, shape, wanted in [
        (BY_GROUP[family](axis=0, weights=jnp.ones(3)), r"\(3,\)", r"\(4,\)"),
        (BY_GROUP[family](axis=0, groups=LABELS, weights=jnp.ones(4)), r"\(4,\)", r"\(3,\)"),
        (BY_GROUP[family](axis=(1, 0), weights=jnp.ones((2, 4))), r"\(2, 4\)", r"\(3, 4\)"),
        (BY_GROUP[family](weights=jnp.ones(2)), r"\(2,\)", r"\(\)"),
    ]:
        text = f"{name}{shape} on the leaf 'w' of shape .*one per group, shape {wanted}"
        with pytest.raises(ValueError, match=text):
            reg({"w": X})
    per_row = BY_GROUP[family](groups=[0] * 12)
    with pytest.raises(ValueError, match=r"`lam` has shape \(4, 1\) and differs inside a group"):
        dataclasses.replace(per_row, lam=jnp.ones((4, 1)))(X)


@edge
def test_integer_and_complex_leaves_are_refused(family):
    for params, kind in [({"w": jnp.arange(2)}, "int"), (COMPLEX, "complex64")]:
        for call in (BY_GROUP[family](), lambda p: BY_GROUP[family]().prox(p, 1.0)):
            with pytest.raises(TypeError, match=rf"{family}: the leaf 'w' is of dtype {kind}"):
                call(params)


def by_leaves(*args, **kwargs):
    return jr.group_lasso(1.0, *args, **kwargs)


LEAF_REFUSALS = {
    "no such leaf": (lambda: by_leaves(groups=["dec/*"])(PARAMS), ValueError, r"group_lasso: `groups`: .*'dec/\*'"),
    "no such leaf in a prox": (lambda: by_leaves(groups=[["enc/bias", "b"]]).prox(PARAMS, 1.0), ValueError, r"group_lasso: `groups`: .*'b'"),
    "in two groups": (lambda: by_leaves(groups=["enc/*", "enc/bias"])(PARAMS), ValueError, r"the leaf 'enc/bias' is in `groups`\[0\] by path\('enc/\*'\) and in `groups`\[1\] by path\('enc/bias'\); name it once"),
    "twice in a group": (lambda: by_leaves(groups=[["enc/*", "enc/bias"]])(PARAMS), ValueError, r"the leaf 'enc/bias' is in `groups`\[0\].*name it once"),
    "an integer leaf": (lambda: by_leaves(groups=["n"])(PARAMS), TypeError, r"the leaf 'n' is of dtype int.*Leave it out of `groups`"),
    "a complex leaf": (lambda: by_leaves(groups=["w"])(COMPLEX), TypeError, "the leaf 'w' is of dtype complex64"),
    "no such axis": (lambda: by_leaves(groups=[[("enc/bias", 1)]])(PARAMS), ValueError, r"gives the leaf 'enc/bias' of shape \(2,\) the axis 1, which it has not"),
    "units that differ": (lambda: by_leaves(groups=[[("enc/kernel", 0), ("enc/bias", 0)]])(PARAMS), ValueError, r"`groups`\[0\] makes a group per index.*different numbers of them: \{'enc/(kernel|bias)': "),
    "units and whole leaves": (lambda: by_leaves(groups=["enc/bias", [("enc/kernel", 0), "enc/bias"]]), ValueError, r"`groups`\[1\] is .*some with an axis and some without"),
    "no selector": (lambda: by_leaves(groups=["enc/bias", [3]]), TypeError, r"`groups`\[1\] has 3, and it must be of selectors, globs such as"),
    "an axis beside": (lambda: by_leaves(axis=0, groups=["enc/*"]), ValueError, "with leaves as `groups`, `axis` 0 does not say whose it is"),
    "weights per leaf": (lambda: by_leaves(groups=["enc/*"], weights=[1.0, 2.0])(PARAMS), ValueError, r"`weights` one per group, shape \(1,\); got shapes \(\) and \(2,\)"),
    "strengths per row": (lambda: jr.group_lasso(jnp.ones(2), groups=["enc/*"])(PARAMS), ValueError, r"`lam` is one number and.*got shapes \(2,\) and \(\)"),
    "negative weights": (lambda: by_leaves(groups=["enc/*"], weights=[-1.0]), ValueError, "`weights` must be >= 0"),
    "a step of another shape": (lambda: by_leaves(groups=["enc/*"]).prox({"enc": {"b": X}}, jnp.ones(2)), ValueError, r"group_lasso: `step` has shape \(2,\) on the leaf 'enc/b'"),
    "leaves of a sparse group": (lambda: jr.sparse_group_lasso(1.0, groups=["enc/*"]), TypeError, "`groups` of leaves are for group_lasso"),
    "a ratio per row": (lambda: jr.sparse_group_lasso(1.0, jnp.ones((4, 1)))(X), ValueError, r"sparse_group_lasso: `l1_ratio` has shape \(4, 1\); give one number per leaf.*`l1_weights`"),
    "a ratio above one": (lambda: jr.sparse_group_lasso(1.0, 1.5), ValueError, r"`l1_ratio` is a share between 0 \(group lasso\) and 1 \(lasso\), got 1\.5"),
}  # fmt: skip


def overlapping(groups, **kwargs):
    return jr.overlapping_group_lasso(1.0, groups, **kwargs)


OVERLAP_REFUSALS = {
    "no lists": (lambda: overlapping(3), TypeError, "`groups` must be a list of index lists, got 3"),
    "nothing": (lambda: overlapping([]), TypeError, r"`groups` must be a list of index lists, got \[\]"),
    "a group is a number": (lambda: overlapping([0, [1]]), TypeError, r"overlapping_group_lasso: `groups`\[0\] is 0; give"),
    "an axis is a float": (lambda: overlapping([[0]], axis=0.0), TypeError, r"overlapping_group_lasso: `axis` must be an integer, got 0\.0"),
    "missing": (lambda: overlapping([[0], [0, 2]]), ValueError, "overlapping_group_lasso: index 1 is in no group"),
    "repeated": (lambda: overlapping([[0, 0]]), ValueError, r"overlapping_group_lasso: index 0 is repeated in `groups`\[0\]"),
    "features, not copies": (lambda: overlapping([[0, 1], [1, 2]])({"w": jnp.ones(3)}), ValueError, r"the leaf 'w' has shape \(3,\), and the penalty acts on the 4 copies of its 3 features along axis 0\. Train penalty\.expand"),
    "contract, not copies": (lambda: overlapping([[0, 1], [1, 2]]).contract(jnp.ones(3)), ValueError, r"acts on the 4 copies of its 3 features"),
    "copies, not features": (lambda: overlapping([[0, 1], [1, 2]]).expand({"w": jnp.ones(4)}), ValueError, r"`groups` name 3 features, and the leaf 'w' of shape \(4,\) does not have as many along axis 0"),
    "weights": (lambda: overlapping([[0, 1], [1, 2]], weights=jnp.ones(4))(jnp.ones(4)), ValueError, r"`weights` has shape \(4,\) .*one per group, shape \(2,\)"),
}  # fmt: skip

PAIR = {"skip": jnp.ones((3, 2)), "layer": jnp.ones((3, 4))}


def layered(skip="skip", layer="layer", **kwargs):
    return jr.hierarchical(kwargs.pop("lam", 1.0), skip=skip, layer=layer, **kwargs)


HIERARCHY_REFUSALS = {
    "no leaf": (lambda: layered(skip="skp")(PAIR), ValueError, "hierarchical: `skip`: .*'skp'"),
    "several leaves": (lambda: layered(layer="*").prox(PAIR, 1.0), ValueError, r"hierarchical: `layer` path\('\*'\) must select one leaf, and it selects \['layer', 'skip'\]"),
    "no selector": (lambda: layered(skip=0), TypeError, "hierarchical: `skip` must be a selector or a glob, got 0"),
    "rows that differ": (lambda: layered()(PAIR | {"skip": jnp.ones(4)}), ValueError, r"`skip` 'skip' has shape \(4,\) and `layer` 'layer' has \(3, 4\); they must be \[features\]"),
    "a layer of rank 3": (lambda: layered()(PAIR | {"layer": jnp.ones((3, 4, 1))}), ValueError, r"has \(3, 4, 1\); they must be"),
    "integers": (lambda: layered()(PAIR | {"layer": jnp.ones((3, 4), int)}), TypeError, "hierarchical: the leaf 'layer' is of dtype int"),
    "complex": (lambda: layered()(PAIR | {"skip": jnp.ones(3, complex)}), TypeError, "the leaf 'skip' is of dtype complex"),
    "many lams": (lambda: layered(lam=jnp.ones(3)), TypeError, "hierarchical: `lam` must be one number, got"),
    "many bounds": (lambda: layered(M=jnp.ones(3)), TypeError, "hierarchical: `M` must be one number, got"),
    "a negative bound": (lambda: layered(M=-1.0), ValueError, "hierarchical: `M` must be >= 0"),
    "steps within a feature": (lambda: layered().prox(PAIR, jax.tree.map(jnp.ones_like, PAIR)), ValueError, "hierarchical: with one step per coordinate .* the prox has no closed form"),
    "no conjugate": (lambda: layered().conjugate(PAIR), ValueError, "hierarchical: the conjugate has no closed form"),
}  # fmt: skip
REFUSALS = [LEAF_REFUSALS, OVERLAP_REFUSALS, HIERARCHY_REFUSALS]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    list(itertools.chain(*(table.values() for table in REFUSALS))),
    ids=list(itertools.chain(*REFUSALS)),
)
def test_bad_input_is_refused_with_a_remedy(call, error, text):
    with pytest.raises(error, match=text):
        call()
