"""Stability selection against scikit-learn's lasso on the same halves, and what its bound promises."""

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
import pytest
from sklearn.linear_model import Lasso

import jaxreg as jr

mpl.use("Agg")
import matplotlib.pyplot as plt

P = 20
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, P)).astype(np.float32)
Y = (2 * X[:, 3] - X[:, 7] + 0.5 * RNG.normal(size=60)).astype(np.float32)
LAMS = [0.05, 0.2, 0.5]
KEY = jax.random.key(0)


def loss(p, x, y):
    return 0.5 * jnp.mean((x @ p["kernel"] + p["bias"] - y) ** 2)


def init(key):
    del key
    return {"kernel": jnp.zeros(P), "bias": jnp.zeros(())}


def trainer(reg):
    return jr.Trainer(init, loss, jr.proximal(optax.trace(0.9), reg.on(jr.kernels), 0.05))


@pytest.fixture(scope="module")
def found():
    return jr.stability(trainer, jr.grid(jr.l1, lam=LAMS), (X, Y), steps=400, pairs=6, key=KEY)


def test_shares_are_those_of_lassos_on_complementary_halves(found, monkeypatch):
    from jaxreg.tune import stability as function

    module = __import__(function.__module__, fromlist=["_"])
    halves, seen = module._halves, []
    monkeypatch.setattr(module, "_halves", lambda *a: seen.extend(halves(*a)) or seen)
    again = jr.stability(trainer, jr.grid(jr.l1, lam=LAMS), (X, Y), steps=400, pairs=6, key=KEY)
    assert len(seen) == 12
    for (first, second), (third, fourth) in zip(seen[::2], seen[1::2]):
        assert len(first) == len(second) == 30
        assert not set(first) & set(second)
        np.testing.assert_array_equal((first, second), (fourth, third))
    for k, lam in enumerate(LAMS):
        taken = [
            Lasso(alpha=lam, tol=1e-8, max_iter=10**5).fit(X[h], Y[h]).coef_ != 0 for h, _ in seen
        ]
        np.testing.assert_allclose(again.probability["kernel"][k], np.mean(taken, 0), atol=0.09)
        np.testing.assert_array_equal(
            again.probability["kernel"][k], found.probability["kernel"][k]
        )
    np.testing.assert_allclose(again.count, again.probability["kernel"].sum(1))
    assert (again.size, list(again.probability)) == (P, ["kernel"])


def test_the_two_that_matter_are_stable_and_the_bound_is_the_papers(found):
    assert np.flatnonzero(found.selected()["kernel"]).tolist() == [3, 7]
    allowed = found.q[found.q <= np.sqrt(0.5 * P)].max()
    assert found.bound() == pytest.approx(allowed**2 / (0.5 * P))
    assert found.bound() <= 1
    assert found.bound(0.9) == pytest.approx(
        found.q[found.q <= np.sqrt(0.8 * P)].max() ** 2 / (0.8 * P)
    )
    every = found.selected(0.6, most=P)["kernel"]
    assert every.sum() >= found.selected(0.6)["kernel"].sum()
    np.testing.assert_array_equal(every, (found.probability["kernel"] >= 0.6).any(0))


def test_several_strengths_count_what_any_of_them_selects(found):
    """As the theorem has it: q of all strengths that are looked at, the strongest first."""
    nonzero = np.asarray(found.result.params["kernel"])[:, :, 0] != 0
    order = np.argsort(found.count)
    for i in range(len(LAMS)):
        union = nonzero[order[: i + 1]].any(0)
        np.testing.assert_allclose(found.ever["kernel"][order[i]], union.mean(0))
        assert found.q[order[i]] == pytest.approx(union.sum(1).mean())
    assert (found.q >= found.count - 1e-9).all()
    module = __import__(jr.stability.__module__, fromlist=["_"])
    # Three strengths on two halves, the last the strongest; what a weaker one leaves out again counts.
    taken = np.array([[[0, 0, 1], [0, 1, 1]], [[0, 1, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 0]]], bool)
    ever = module._ever(taken, np.array([2, 1, 0]))
    np.testing.assert_array_equal(ever, [[0.5, 1, 1], [0.5, 1, 0], [0.5, 0, 0]])


def test_a_family_has_the_bound_of_its_own_variables(found):
    kinds = np.where(np.arange(P) < 5, "few", "many")
    few, many = found.families(kinds).rows
    assert (few["family"], few["variables"], few["selected"]) == ("few", 5, 1)
    assert (many["family"], many["variables"], many["selected"]) == ("many", 15, 1)
    k = int(np.flatnonzero(found.q <= np.sqrt(0.5 * P)).min())
    for row, mine in ((few, slice(0, 5)), (many, slice(5, None))):
        q = found.ever["kernel"][k, mine].sum()
        assert row["on a half"] == pytest.approx(q)
        assert row["false at most"] == pytest.approx(q**2 / (0.5 * row["variables"]))
    assert few["false at most"] + many["false at most"] >= found.bound()
    (one,) = found.families().rows
    assert (one["family"], one["selected"]) == ("kernel", 2)
    assert one["false at most"] == pytest.approx(found.bound())
    assert found.families({"kernel": np.arange(P) // 5}, 0.9, most=P).rows[0]["family"] == 0
    lines = str(found.families(list(kinds))).splitlines()
    assert lines[0] == "families of variables, stable in at least 0.75 of the halves"
    assert lines[3].split()[:3] == ["few", "5", "1"]
    assert "noise of a family is exchangeable" in " ".join(lines[-2:])


def test_entries_of_a_leaf_may_be_labelled_by_its_rows():
    from jaxreg.tune._variables import families_of

    shapes = {"a": (3, 2), "b": (2,)}
    names = families_of(shapes, {"a": ["x", "y", "x"], "b": np.array(["y", "z"], object)})
    assert names.tolist() == ["x", "x", "y", "y", "x", "x", "y", "z"]
    assert families_of(shapes, None).tolist() == ["a"] * 6 + ["b"] * 2
    each = families_of({"a": (3, 2)}, np.arange(6).reshape(3, 2))
    assert each.tolist() == list(range(6))


@pytest.mark.parametrize(
    ("labels", "error", "match"),
    [
        (np.zeros(P - 1, int), ValueError, r"must have the shape \[20\] of its .* got \[19\]"),
        (3, ValueError, r"or one label for each of its 20 rows, got \[\]"),
        (np.zeros(P), TypeError, "must be whole numbers or names, got float64"),
        ([None] * P, TypeError, "must be whole numbers or names, got object"),
        ({"bias": [0]}, ValueError, "must name the leaves kernel, got bias"),
        ({}, ValueError, "must name the leaves kernel, got none"),
    ],
)
def test_labels_that_fit_no_variables_are_refused(labels, error, match, found):
    with pytest.raises(error, match="stability: `labels` .*" + match):
        found.families(labels)


def test_false_ones_are_no_more_than_the_bound_says():
    """Noise alone, 8 draws: the mean number of variables that are found, each of them false.

    Those of the second family are half as large again, so that it is taken far more often, and each family
    has its own bound.
    """
    start = lambda key: {"kernel": jnp.zeros(30), "bias": jnp.zeros(())}
    lasso = lambda reg: jr.Trainer(
        start, loss, jr.proximal(optax.trace(0.9), reg.on(jr.kernels), 0.05)
    )
    false, bounds, families = [], [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(40, 30)).astype(np.float32), rng.normal(size=40).astype(np.float32)
        x[:, 20:] *= 1.5
        grid = jr.grid(jr.l1, lam=[0.25, 0.35])
        got = jr.stability(lasso, grid, (x, y), steps=100, pairs=10, key=KEY)
        most = got.q.max()
        false.append(got.selected(0.7, most=most)["kernel"].sum())
        bounds.append(got.bound(0.7, most=most))
        rows = got.families(np.arange(30) >= 20, 0.7, most=most).rows
        families.append([(row["selected"], row["false at most"]) for row in rows])
    assert np.mean(false) <= np.mean(bounds)
    (calm, calm_bound), (loud, loud_bound) = np.mean(families, 0)
    assert calm <= calm_bound < loud_bound
    assert 0 < loud <= loud_bound


def test_rows_of_a_leaf_are_one_variable_each():
    def net(reg):
        start = lambda key: {"kernel": 0.1 * jax.random.normal(key, (P, 3)), "bias": jnp.zeros(3)}
        model = lambda p, x, y: 0.5 * jnp.mean(((x @ p["kernel"] + p["bias"]).sum(-1) - y) ** 2)
        return jr.Trainer(start, model, jr.proximal(optax.trace(0.9), reg.on(jr.kernels), 0.02))

    grid = jr.grid(lambda lam: jr.group_lasso(lam, axis=0), lam=[0.3, 0.5])
    got = jr.stability(net, grid, (X, Y), steps=300, pairs=4, key=KEY, rows=True)
    assert got.probability["kernel"].shape == (2, P)
    assert got.size == P
    assert set(np.flatnonzero(got.selected()["kernel"])) <= {3, 7}
    assert got.selected()["kernel"][3]


def test_it_is_a_table_and_a_picture(found):
    lines = repr(found).splitlines()
    assert lines[0] == "2 of 20 variables in at least 0.75 of the halves"
    assert lines[3].split() == ["kernel", "3", "1.00"]
    assert "false ones are to be expected" in repr(found).replace("\n", " ")
    ax = found.plot()
    blue = [line for line in ax.lines if line.get_color() == "#0072B2"]
    assert len(blue) == 2
    for line, j in zip(blue, (3, 7)):
        np.testing.assert_allclose(line.get_ydata(), found.probability["kernel"][:, j])
    assert ax.get_xlabel() == "λ"
    (shade,) = ax.patches
    assert shade.get_x() == pytest.approx(0.05), "17 of 20 are selected there"
    plt.close("all")


def test_what_selects_nothing_by_itself_is_refused():
    smooth = lambda reg: jr.Trainer(
        init, loss, optax.chain(jr.add_penalty_gradient(reg.on(jr.kernels)), optax.sgd(0.1))
    )
    few = {"steps": 5, "pairs": 2, "key": KEY}
    with pytest.raises(
        ValueError, match="none of the 20 variables is ever exactly 0.*jaxreg.proximal"
    ):
        jr.stability(smooth, jr.grid(jr.l2, lam=[0.1]), (X, Y), **few)
    grid = jr.grid(jr.l1, lam=LAMS)
    with pytest.raises(ValueError, match=r"selector path\('nothing'\) matches none"):
        jr.stability(trainer, grid, (X, Y), where="nothing", **few)
    with pytest.raises(ValueError, match="at least 4 rows to halve, got 3"):
        jr.stability(trainer, grid, (X[:3], Y[:3]), **few)
    with pytest.raises(TypeError, match="`grid` must come from jaxreg.grid"):
        jr.stability(trainer, jr.l1(0.1), (X, Y), **few)
    wild = lambda reg: jr.Trainer(
        init, loss, jr.proximal(optax.identity(), reg.on(jr.kernels), 1e8)
    )
    with pytest.raises(ValueError, match="trainings diverged. Lower the learning rate"):
        jr.stability(wild, grid, (X, Y), **{**few, "steps": 60})
    with pytest.raises(ValueError, match="`folds` must be left away, since the halves"):
        jr.stability(trainer, grid, (X, Y), folds=5, **few)
    with pytest.raises(ValueError, match="`halving` gives points up"):
        jr.stability(trainer, grid, (X, Y), halving=jr.Halving(), **few)


@pytest.mark.parametrize("threshold", [0.5, 1.1, True, "0.75"])
def test_a_threshold_is_a_share_above_a_half(threshold, found):
    with pytest.raises(ValueError, match="`threshold` must be a share above 0.5 and at most 1"):
        found.selected(threshold)


def test_strengths_that_all_select_too_many_are_told(found):
    with pytest.raises(
        ValueError, match="every strength selects more than `most`.*stronger penalties"
    ):
        found.selected(0.75, most=0.5)
    for most in ("2", True, -1, float("nan")):
        with pytest.raises(ValueError, match="`most` must be a number of variables of at least 0"):
            found.selected(0.75, most=most)
