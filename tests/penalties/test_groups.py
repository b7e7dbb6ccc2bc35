"""Penalties of groups against numpy's formulas and convex programs that scipy solves.

The programs are the duals: for a norm the prox is x - step * u, with u the point of the dual ball
nearest to x / step. Nothing of the library's closed forms or root searches is in them.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from support.programs import ball, sizes, solve

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


def test_bf16_in_a_group_of_leaves():
    x = {"a": jnp.array([3.0, 4.0], jnp.bfloat16), "b": jnp.array([12.0], jnp.float32)}
    near = jr.group_lasso(6.5, groups=[["a", "b"]], sqrt_size=False).prox(x, 1.0)
    assert near["a"].dtype == jnp.bfloat16
    close(near["a"].astype(float), [1.5, 2.0])
    close(near["b"], [6.0], rtol=1e-6)


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
        # Any number, and no memory is taken for it.
        ([0, 1, 10**12], ValueError, r"must count from 0 without a gap, and it leaves label 2 unused"),
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


REFUSALS = {
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


@pytest.mark.parametrize(("call", "error", "text"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused_with_a_remedy(call, error, text):
    with pytest.raises(error, match=text):
        call()
