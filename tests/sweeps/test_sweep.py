"""The sweep: lanes equal single runs, λ never recompiles, a diverged lane harms no other."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.model_selection import KFold
from support.toy import DATA, KEY_SEED, LAMS, TRACES, N, X, Y, endless, make, predict, run, trainer

import jaxreg as jr
from jaxreg.fit.splits import make_splits

KEY = jax.random.key(KEY_SEED)
GRID = jr.grid(make, lam=LAMS)


@pytest.fixture(scope="module")
def result():
    return run()


def single(k, fold, seed):
    rows = make_splits(3, N, 0, KEY).table.rows[fold]
    return jr.fit(
        trainer, GRID[k], DATA, steps=20, batch_size=8, key=KEY, rows=rows, fold=fold, seed=seed
    )


def lane(result, k, fold, seed):
    return jax.tree.map(lambda x: x[k, fold, seed], result.params)


@pytest.mark.parametrize(("k", "fold", "seed"), [(0, 0, 0), (3, 2, 1), (4, 1, 0)])
def test_a_lane_equals_the_single_run(result, k, fold, seed):
    """To rounding: a vmapped lane sums in another order than a single run."""
    for a, b in zip(
        jax.tree.leaves(lane(result, k, fold, seed)), jax.tree.leaves(single(k, fold, seed).params)
    ):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_a_chunk_of_one_is_bitwise_the_single_run():
    alone = run(machine=jr.Machine(chunk=1))
    for a, b in zip(jax.tree.leaves(lane(alone, 3, 2, 1)), jax.tree.leaves(single(3, 2, 1).params)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("chunk", [2, 3])
def test_padding_lanes_never_show(result, chunk):
    other = run(machine=jr.Machine(chunk=chunk))
    assert other.valid["loss"].shape == (5, 3, 2, 5)
    np.testing.assert_allclose(other.valid["loss"], result.valid["loss"], atol=2e-6)


def test_axes_and_curves_are_what_they_say(result):
    assert result.time.tolist() == [0, 5, 10, 15, 20]
    params = lane(result, 2, 1, 1)
    folds = make_splits(3, N, 0, KEY).table
    for split, column in (("train", 0), ("valid", 1)):
        rows = np.flatnonzero(folds.times[1][:, column])
        want = 0.5 * np.mean((predict(params, X[rows]) - Y[rows]) ** 2)
        np.testing.assert_allclose(getattr(result, split)["loss"][2, 1, 1, -1], want, rtol=1e-5)
        want = np.abs(predict(params, X[rows]) - Y[rows]).mean()
        np.testing.assert_allclose(getattr(result, split)["mae"][2, 1, 1, -1], want, rtol=1e-5)
    np.testing.assert_allclose(
        result.penalty_value[2, 1, 1, -1], 0.01 / 2 * ((params["w1"] ** 2).sum() + (params["w2"] ** 2).sum()),
        rtol=1e-5,
    )  # fmt: skip
    made_by = json.loads(result.made_by)
    assert made_by["steps"] == 20
    assert made_by["folds"] == 3


def test_lanes_of_a_fold_and_seed_start_alike_and_differ_between_seeds(result):
    start = result.valid["loss"][..., 0]
    assert np.ptp(start, axis=0).max() == 0
    assert (start[:, :, 0] != start[:, :, 1]).all()


def test_segments_do_not_change_the_run(result):
    once = run(evals=1)
    np.testing.assert_array_equal(once.valid["loss"][..., -1], result.valid["loss"][..., -1])


def test_lam_never_recompiles():
    run()  # here and not in a fixture: programs may be let go between two tests
    before = len(TRACES)
    run(jr.grid(make, lam=[0.5, 0.4, 0.3, 0.2, 0.1]))
    assert len(TRACES) == before, "nothing is traced again"


def test_a_diverged_lane_is_data_and_harms_no_other(result):
    wild = run(endless([0.0, 1e-3, 1e-2, 0.1, np.inf]))
    assert (wild.status[:4] == jr.Status.FINISHED).all()
    assert (wild.status[4] == jr.Status.DIVERGED).all()
    for name in ("loss", "mae"):
        np.testing.assert_array_equal(wild.valid[name][:4], result.valid[name][:4])
    for a, b in zip(jax.tree.leaves(wild.params), jax.tree.leaves(result.params)):
        np.testing.assert_array_equal(a[:4], b[:4])
    assert wild.best("min").index != 4
    assert wild.best("1se").index != 4


def test_validation_data_instead_of_folds():
    got = run(folds=None, validation=(X[:6] + 1, Y[:6]))
    state = jr.fit(trainer, GRID[1], DATA, steps=20, batch_size=8, key=KEY)
    want = 0.5 * np.mean((predict(state.params, X[:6] + 1) - Y[:6]) ** 2)
    np.testing.assert_allclose(got.valid["loss"][1, 0, 0, -1], want, rtol=1e-5)


# --- folds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folds", "n"), [(2, 7), (5, 23), (4, 4)])
def test_random_folds_are_equal_disjoint_and_complete(folds, n):
    table = make_splits(folds, n, 0, KEY).table
    valid = table.times[:, :, 1]
    assert (valid.sum(1) == n // folds).all()
    assert valid.sum(0).max() == 1
    assert (table.times.sum(-1) == 1).all()
    for rows, count, weight in zip(table.rows, table.count, table.times):
        assert set(rows[:count]) == set(np.flatnonzero(weight[:, 0]))


def test_folds_from_scikit_learn_and_from_numbers_agree():
    pairs = list(KFold(5).split(X))
    number = np.concatenate([np.full(len(v), f) for f, (_, v) in enumerate(pairs)])
    a, b = make_splits(pairs, N, 0, KEY).table, make_splits(number, N, 0, KEY).table
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        np.testing.assert_array_equal(x, y)
    assert sorted(set(a.count)) == [19, 20]


def test_unequal_folds_train_each_on_its_own_rows():
    pairs = [(np.arange(8, N), np.arange(8)), (np.arange(10), np.arange(10, N))]
    got = run(folds=pairs, seeds=1)
    state = jr.fit(
        trainer, GRID[2], DATA, steps=20, batch_size=8, key=KEY, rows=pairs[0][0], fold=0, seed=0
    )
    want = 0.5 * np.mean((predict(state.params, X[:8]) - Y[:8]) ** 2)
    np.testing.assert_allclose(got.valid["loss"][2, 0, 0, -1], want, rtol=1e-5)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"folds": 25}, "between 2 and the 24 examples there are, got 25"),
        ({"folds": 1}, "between 2 and the 24 examples"),
        ({"folds": None}, "nothing to validate on"),
        ({"validation": DATA}, "either `folds` or `validation`"),
        ({"folds": None, "validation": (X[:, :2], Y)}, "`validation` must have arrays like"),
        ({"folds": np.zeros(3, int)}, "one number or name for each of the 24 rows"),
        ({"folds": [(np.arange(5), np.arange(4, 9))]}, "trains on a row it validates on"),
        ({"folds": [(np.arange(5), np.array([99]))]}, "all between 0 and 23"),
        ({"batch_size": 17}, "between 1 and the 16 rows there are to train on, got 17"),
        ({"steps": 0}, "`steps` must be an integer of at least 1, got 0"),
        ({"seeds": 1.5}, "`seeds` must be an integer"),
        ({"machine": jr.Machine(chunk=9)}, "`chunk` must be between 1 and the 5 points"),
    ],
)
def test_bad_arguments_of_sweep(kwargs, match):
    before = len(TRACES)
    with pytest.raises(ValueError, match=match):
        run(**kwargs)
    assert len(TRACES) == before, "nothing was traced or compiled"


def test_nan_in_the_data_is_refused():
    bad = X.copy()
    bad[5, 0] = np.nan
    with pytest.raises(
        ValueError, match=r"`data\[0\]` has NaN in 1 of 24 rows, the first is row 5"
    ):
        jr.sweep(trainer, GRID, (bad, Y), folds=2, steps=1, key=KEY)


def test_a_grid_is_asked_for():
    with pytest.raises(TypeError, match="must come from jaxreg.grid"):
        run(grid=[jr.l2(0.1)])


def test_progress_is_quiet_off_a_terminal_and_speaks_when_asked(capsys):
    run(steps=2, evals=1)
    assert capsys.readouterr().err == ""
    run(steps=2, evals=1, progress=True)
    assert "5 points x 3 folds x 2 seeds" in capsys.readouterr().err


def test_a_leaf_without_entries_comes_through_to_the_result(tmp_path):
    def trainer(reg):
        init = lambda key: {"w": jnp.zeros(3), "none": jnp.zeros((0, 4))}
        of = lambda p, x, y: jnp.mean((x @ p["w"] - y) ** 2)
        return jr.Trainer(init, of, jr.proximal(optax.scale_by_adam(), reg, 0.1))

    rows = jax.random.normal(jax.random.key(0), (12, 3))
    result = jr.sweep(
        trainer, jr.grid(jr.l1, lam=[0.1, 0.2]), (rows, rows[:, 0]), folds=3, steps=4,
        key=jax.random.key(1), checkpoint=tmp_path / "run",
    )  # fmt: skip
    assert result.params["none"].shape == (2, 3, 1, 0, 4)
    read = jr.SweepResult.load(result.save(tmp_path / "result"))
    assert read.params["none"].shape == (2, 3, 1, 0, 4)


@pytest.mark.parametrize("name", ["steps", "seeds", "evals", "patience"])
def test_more_than_32_bits_count_is_refused(name):
    options = {"steps": 2, "key": jax.random.key(0), "folds": 2} | {name: 2**31}
    trainer = lambda reg: jr.Trainer(
        lambda key: jnp.zeros(2), lambda w, x: jnp.mean((x - w) ** 2), optax.sgd(0.1)
    )
    with pytest.raises(ValueError, match=f"sweep: `{name}` must be below 2.*31, as programs count"):
        jr.sweep(trainer, jr.grid(jr.l2, lam=[0.1]), (jnp.ones((4, 2)),), **options)
