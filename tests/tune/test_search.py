"""A search against dense grids: how near it comes, from where, and what it says where it cannot."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.toy import Press

import jaxreg as jr
from jaxreg.tune import Gain
from jaxreg.tune._rounds import _bump

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 16)).astype(np.float32)
Y = (X @ RNG.normal(size=16) * 0.5 + RNG.normal(size=40)).astype(np.float32)
OPTIONS = {"folds": np.arange(40) % 4, "steps": 150, "evals": 1, "key": jax.random.key(0)}


def loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def trainer(reg):
    return jr.Trainer(lambda key: jnp.zeros(16), loss, jr.proximal(optax.trace(0.8), reg, 0.05))


def found(low, high, make=jr.l2, trainer=trainer, **more):
    return jr.search(trainer, jr.space(make, lam=(low, high)), (X, Y), **{**OPTIONS, **more})


@pytest.fixture(scope="module")
def dense():
    """The best validation loss of 120 λ, and where."""
    grid = jr.grid(jr.l2, lam=np.geomspace(1e-4, 1e2, 120))
    best = jr.sweep(trainer, grid, (X, Y), **OPTIONS).best()
    return best.mean, best.coords["lam"]


@pytest.mark.parametrize(
    ("low", "high"), [(1e-3, 10.0), (1e-5, 1e2), (1e-6, 1e-3), (10.0, 1e4)],
    ids=["around", "wide", "below", "above"],
)  # fmt: skip
def test_twelve_points_come_within_a_thousandth_of_a_dense_grid(low, high, dense):
    got = found(low, high)
    loss, lam = dense
    assert sum(got.rounds) <= 12
    assert got.choice.mean <= 1.001 * loss
    assert got.choice.coords["lam"] == pytest.approx(lam, rel=0.35)
    assert got.choice.warnings == (), "an end that was best is not left at that"
    assert (f"the range of lam, {low:g} … {high:g}, was extended" in got.choice.why) == (
        not low <= lam <= high
    )


def test_what_it_trained_is_one_result():
    got = found(1e-3, 10.0)
    lams = np.asarray(got.result.coords["lam"])
    assert (np.diff(lams) > 0).all()
    assert len(lams) == sum(got.rounds) == got.result.params.shape[0]
    whole = jr.sweep(trainer, jr.grid(jr.l2, lam=lams), (X, Y), **OPTIONS)
    np.testing.assert_allclose(got.result.valid["loss"], whole.valid["loss"], rtol=1e-5)
    assert got.result.best().index == got.choice.index
    assert got.choice.lane_steps == len(lams) * 4 * 150
    assert got.choice.rule == "search"
    assert got.result.best("paired").coords["lam"] >= got.choice.coords["lam"]
    *_, rounds = repr(got).splitlines()
    assert rounds == "  rounds: 5 + 2 + 2 + 1 + 1 + 1 points"


def test_a_budget_is_kept():
    for budget in (5, 6, 8):
        assert sum(found(1e-3, 10.0, budget=budget).rounds) == budget
    assert sum(found(1e-3, 10.0, budget=40).rounds) < 40, "at some spacing it is known well enough"


def test_a_search_that_never_ends_says_so():
    """A loss of validation rows that all but are the training rows falls with λ for ever."""
    near = 1.000001 * X, Y
    got = found(0.1, 1.0, folds=None, validation=near, budget=9)
    assert got.rounds == (5, 2, 2)
    assert got.choice.coords["lam"] == pytest.approx(0.1 ** (1 + 4 * 0.25), rel=1e-5)
    assert any("smallest of the grid" in text for text in got.choice.warnings)
    far = found(10.0, 11.0, folds=None, validation=near, budget=200)
    assert "it still improves 6 ranges beyond the range" in far.choice.why


def rough(reg):
    """A score with a ripple of one percent in log λ, which no training rows know of."""
    made = trainer(reg)
    lam = reg.lam
    ripple = lambda w, x, y: loss(w, x, y) * (1 + 0.02 * jnp.sin(10 * jnp.log(lam)))
    return jr.Trainer(made.init, loss, made.optimizer, eval_loss=ripple)


def test_refining_ends_where_the_curve_is_rough(dense):
    got = found(1e-3, 10.0, trainer=rough, budget=40)
    assert sum(got.rounds) <= 13
    assert "refining ended where the curve is rough" in got.choice.why
    assert got.choice.mean <= 1.03 * dense[0]


def test_a_bump_is_what_rises_between_two_minima():
    assert _bump(np.array([3.0, 2, 1, 2, 3])) == 0
    assert _bump(np.array([3.0, 1, 2])) == 0
    assert _bump(np.array([2.0, 2.5, 1, 2, 3])) == 0.5
    assert _bump(np.array([3.0, 2, 1, 2, 1.75])) == 0.25
    assert _bump(np.array([np.inf, 2, 1, 2, np.inf])) == 0


def test_points_that_diverge_are_walls():
    """The step is too long for λ above 10 here, which a range up to 1e4 meets."""
    plain = lambda reg: jr.Trainer(
        lambda key: jnp.zeros(16), loss, optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.2))
    )
    got = found(1e-2, 1e4, trainer=plain)
    assert (np.asarray(got.result.status) == jr.Status.DIVERGED).any()
    assert np.isfinite(got.choice.mean)
    assert got.choice.coords["lam"] < 10


def test_it_goes_on_where_it_was_interrupted(tmp_path):
    whole = found(1e-3, 10.0, evals=2)
    for _ in range(3):  # in the first round, and in two later ones
        with pytest.raises(jr.Interrupted):
            found(1e-3, 10.0, checkpoint=tmp_path, callbacks=[Press(75)], evals=2)
    again = found(1e-3, 10.0, checkpoint=tmp_path, evals=2)
    assert again.rounds == whole.rounds
    np.testing.assert_array_equal(
        again.result.valid["loss"][..., -1], whole.result.valid["loss"][..., -1]
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"round-{i}" for i in range(len(whole.rounds))
    ]


def test_by_a_metric_that_knows_its_direction():
    class Within:
        """The share of rows that are nearly right."""

        better = "larger"

        def __call__(self, w, x, y):
            return jnp.mean(jnp.exp(-((x @ w - y) ** 2)))

    share = lambda reg: dataclasses.replace(trainer(reg), metrics={"within": Within()})
    got = found(1e-3, 10.0, trainer=share, metric="within")
    scores = got.result.mean("within")
    assert got.choice.mean == pytest.approx(scores.max())
    assert got.choice.metric == "valid within"
    silent = lambda reg: dataclasses.replace(trainer(reg), metrics={"within": Within().__call__})
    with pytest.raises(ValueError, match="'within' does not say whether larger is better"):
        found(1e-3, 10.0, trainer=silent, metric="within")
    with pytest.raises(ValueError, match=r"`metric` must be one of \['loss'\], got 'within'"):
        found(1e-3, 10.0, metric="within")


# --- several strengths ------------------------------------------------------------------------------


def of_two(narrow, wide):
    return jr.l2(narrow).on("narrow") + jr.l2(wide).on("wide")


def two(reg):
    """Columns of two kinds: three that tell, and thirty that hardly do."""
    init = lambda key: {"narrow": jnp.zeros(3), "wide": jnp.zeros(30)}
    model = lambda p, x, y: 0.5 * jnp.mean((x[:, :3] @ p["narrow"] + x[:, 3:] @ p["wide"] - y) ** 2)
    return jr.Trainer(init, model, optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.02, 0.9)))


RNG = np.random.default_rng(5)
X2 = RNG.normal(size=(60, 33)).astype(np.float32)
Y2 = (
    X2[:, :3] @ [3.0, -2, 2] + X2[:, 3:] @ RNG.normal(size=30) * 0.1 + RNG.normal(size=60)
).astype(np.float32)


def test_a_stencil_finds_what_a_product_of_grids_finds():
    options = {**OPTIONS, "folds": np.arange(60) % 5, "steps": 200}
    grid = jr.grid(of_two, narrow=np.geomspace(1e-4, 1, 12), wide=np.geomspace(1e-3, 10, 12))
    dense = jr.sweep(two, grid, (X2, Y2), **options).best()
    where = jr.space(of_two, narrow=(1e-4, 1.0), wide=(1e-3, 10.0))
    got = jr.search(two, where, (X2, Y2), budget=40, **options)
    assert sum(got.rounds) <= 40
    assert got.choice.mean <= 1.005 * dense.mean
    one = jr.search(
        two, jr.space(lambda lam: of_two(lam, lam), lam=(1e-4, 10.0)), (X2, Y2), **options
    )
    assert got.choice.mean < 0.97 * one.choice.mean, "the kinds want strengths of their own"


LAYERS = jr.space(of_two, narrow=(1e-4, 1.0), wide=(1e-3, 10.0))


OF_TWO = np.arange(60) % 2


def layered(targets=Y2, **options):
    options = {**OPTIONS, "steps": 100, "folds": 3, "budget": 20, "nested": 3} | options
    return jr.search(two, LAYERS, (X2, targets), **options)


def test_several_strengths_are_compared_with_one_on_folds_that_neither_search_saw(monkeypatch):
    seen, sweep = [], jr.sweep
    module = importlib.import_module("jaxreg.tune.search")
    monkeypatch.setattr(module, "sweep", lambda *a, **k: seen.append((a, k)) or sweep(*a, **k))
    got = layered()
    judged = [(a, k) for a, k in seen if isinstance(k["folds"], list)]
    parts = [k["folds"][0][1] for _, k in judged]
    assert sorted(np.concatenate(parts)) == list(range(60))
    apart = []
    for (args, options), part in zip(judged, parts):
        rest = np.setdiff1d(np.arange(60), part)
        np.testing.assert_array_equal(options["folds"][0][0], rest)
        searched = [np.asarray(a[2][1]) for a, k in seen if k["folds"] == 3 and len(a[2][1]) == 40]
        assert sum(np.array_equal(y, Y2[rest]) for y in searched) >= 2, "searched without that fold"
        # Both choices, trained on the other rows and judged on that fold, by a sweep of their own.
        several, one = sweep(two, args[1], (X2, Y2), **options).mean()
        apart.append(several - one)
    error = np.std(apart, ddof=1) * np.sqrt(1 / 3 + 1 / 2)
    assert got.gain.mean == pytest.approx(np.mean(apart), rel=1e-4)
    assert got.gain.stderr == pytest.approx(error, rel=1e-3)
    assert f"; {got.gain}" in got.choice.why
    assert got.choice.lane_steps > 5 * sum(got.rounds) * 3 * 100


def test_a_gain_is_real_from_two_standard_errors_on():
    """Of differences -4, -2, -3 the error is sd sqrt(1/3 + 1/2) = 0.91."""
    one = np.array([10.0, 10.0, 10.0])
    gain = Gain.of(np.array([np.add(one, [-4, -2, -3]), one]), 7, "loss")
    assert gain.real
    assert repr(gain) == (
        "on 3 folds that neither search saw, several strengths less one for all: -3 ± 0.91 of loss, lower "
        "is better"
    )
    assert not Gain.of(np.array([np.add(one, [-4, -2, 3]), one]), 7, "loss").real
    assert not Gain.of(np.array([np.add(one, [4, 2, 3]), one]), 7, "loss").real


def test_where_one_strength_does_as_well_it_says_so():
    """Targets of noise and one column of each kind: what two strengths gain is in the folds alone."""
    noise = np.random.default_rng(8).normal(size=60).astype(np.float32)
    got = layered(X2[:, 0] + X2[:, 5] + 2 * noise)
    assert not got.gain.real
    assert "several strengths are not shown to be better than one" in got.choice.warnings[-1]


def test_the_single_strength_is_the_same_for_all_and_other_coordinates_are_free():
    one = LAYERS.as_one()
    assert one.ranges == {"narrow": (1e-4, 10.0)}
    coords = one.at([[0.0]]).coords
    assert [float(np.asarray(v)[0]) for v in coords.values()] == [1.0, 1.0]
    make = lambda lr, a, b: {"reg": of_two(a, b), "lr": lr}
    mixed = jr.space(make, lr=(1e-3, 0.1), a=(1e-4, 1.0), b=(1e-2, 1.0)).as_one()
    assert mixed.ranges == {"lr": (1e-3, 0.1), "a": (1e-4, 1.0)}
    assert mixed.tied == {"b": "a"}
    assert (
        jr.space(lambda lr, lam: {"reg": jr.l2(lam), "lr": lr}, lr=(1e-3, 1), lam=(0.1, 1)).as_one()
        is None
    )


def test_what_is_not_compared_says_why():
    for options, why in (
        ({"nested": 0}, "`nested` is 0"),
        ({"folds": OF_TWO}, "`folds` is no number"),
    ):
        got = layered(**options)
        assert got.gain is None
        assert f"Whether these do was not asked, since {why}" in got.choice.warnings[-1]
    for options, text in (
        ({"nested": 1}, "`nested` must be 0, or at least 2 folds, got 1"),
        (
            {"nested": 30, "folds": 59},
            "`nested` = 30 folds leave 57 of 60 rows to train on, too few",
        ),
        ({"batch_size": 40}, "`nested` = 3 folds leave 26 of 60 rows"),
    ):
        with pytest.raises(ValueError, match=f"search: {text}"):
            layered(**options)


# --- merged results, and bad input ------------------------------------------------------------------


def test_merged_results_are_saved_and_read(tmp_path):
    got = found(1e-3, 10.0, budget=7)
    got.result.save(tmp_path / "r.npz")
    again = jr.SweepResult.load(tmp_path / "r.npz")
    np.testing.assert_array_equal(again.mean(), got.result.mean())


def test_results_that_do_not_merge_are_told():
    make = lambda lams, **more: jr.sweep(
        trainer, jr.grid(jr.l2, lam=lams), (X, Y), **{**OPTIONS, "steps": 5, **more}
    )
    a, b = make([0.1, 1.0]), make([0.2])
    assert jr.SweepResult.merge([b, a]).coords["lam"].tolist() == pytest.approx([0.1, 0.2, 1.0])
    with pytest.raises(ValueError, match=r"the point {'lam': 0.1.* occurs twice"):
        jr.SweepResult.merge([a, make([0.1])])
    with pytest.raises(
        ValueError, match="differ in their points alone.*SweepResult.join takes such"
    ):
        jr.SweepResult.merge([a, make([0.2], steps=6)])
    with pytest.raises(ValueError, match="the same numbers of both"):
        jr.SweepResult.merge([a, make([0.2], folds=np.arange(40) % 2)])
    with pytest.raises(TypeError, match=r"SweepResult.merge: give results in a list, got \[\]"):
        jr.SweepResult.merge([])


BAD = {
    "0": ({"lam": (0.0, 1.0)}, ValueError, "0 < low < high.*compare with 0 by a sweep of its own"),
    "order": ({"lam": (1.0, 0.1)}, ValueError, r"`lam` must be a pair .*got \(1.0, 0.1\)"),
    "one": ({"lam": 0.1}, TypeError, "`lam` must be a pair .*got 0.1"),
    "three": ({"lam": (0.1, 0.2, 0.3)}, TypeError, "must be a pair"),
    "infinite": ({"lam": (0.1, np.inf)}, ValueError, "must be a pair"),
    "texts": ({"lam": ("a", "b")}, TypeError, "must be a pair"),
    "nothing": ({}, ValueError, "give at least one range by name"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_range_that_is_none(name):
    ranges, error, match = BAD[name]
    with pytest.raises(error, match=match):
        jr.space(jr.l2, **ranges)


def test_what_cannot_be_searched():
    assert repr(jr.space(jr.l1, lam=(1e-4, 1.0))) == "Space(l1, lam=0.0001 … 1)"
    with pytest.raises(TypeError, match="`make` must be a function"):
        jr.space(jr.l1(0.1), lam=(0.1, 1))
    with pytest.raises(ValueError, match="`budget` must be an integer of at least 5, got 4"):
        found(1e-3, 1.0, budget=4)
    with pytest.raises(ValueError, match="`budget` must be an integer of at least 10, got 9"):
        jr.search(
            two, jr.space(of_two, narrow=(0.1, 1), wide=(0.1, 1)), (X2, Y2), budget=9, **OPTIONS
        )
    with pytest.raises(ValueError, match="`halving` gives points up"):
        found(1e-3, 1.0, halving=jr.Halving())
    for more in ({"folds": None}, {"validation": (X, Y)}):
        with pytest.raises(ValueError, match="give `folds` or `validation`, one of them"):
            found(1e-3, 1.0, **more)
    with pytest.raises(TypeError, match=r"`make` must take the ranges mu by name"):
        jr.space(jr.l2, mu=(0.1, 1))
    with pytest.raises(TypeError, match=r"`space` must come from jaxreg.space\(make"):
        jr.search(trainer, jr.grid(jr.l2, lam=[0.1]), (X, Y), **OPTIONS)
    wild = lambda reg: jr.Trainer(
        lambda key: jnp.zeros(16), loss, optax.chain(jr.add_penalty_gradient(reg), optax.sgd(1e4))
    )
    with pytest.raises(ValueError, match="all 5 points diverged"):
        found(1e-3, 1.0, trainer=wild)
