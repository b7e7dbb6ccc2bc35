"""Folds: laws of the splits that are made, and everything that people write for them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import model_selection as ms
from sklearn.linear_model import Ridge

import jaxreg as jr
from jaxreg.fit.splits import make_splits

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
N = 61
X = RNG.normal(size=(N, 3)).astype("f")
Y = (X @ np.array([2, -1, 0.5]) + RNG.normal(size=N)).astype("f")
CLASS = (Y > 0).astype(int)
GROUP = RNG.integers(0, 9, N)


def valid_rows(folds):
    return [v.tolist() for _, v in folds]


def check_partition(folds, n):
    """Within each repeat every row is validated on once, and trained on in all other folds."""
    k = len(folds) // folds.repeats
    for r in range(folds.repeats):
        mine = folds[r * k : (r + 1) * k]
        assert sorted(i for rows in valid_rows(mine) for i in rows) == list(range(n))
        for train, valid in mine:
            assert sorted([*train, *valid]) == list(range(n))


# --- made here --------------------------------------------------------------------------------------


@given(st.integers(2, 40), st.integers(2, 6), st.integers(1, 3), st.integers(0, 5))
def test_random_folds_are_partitions_of_nearly_equal_size(n, k, repeats, seed):
    if k > n:
        return
    folds = jr.folds(n, k, repeats=repeats, seed=seed)
    check_partition(folds, n)
    assert np.ptp([len(v) for _, v in folds]) <= 1
    assert valid_rows(jr.folds(n, k, repeats=repeats, seed=seed)) == valid_rows(folds)


@given(st.lists(st.sampled_from("abc"), min_size=6, max_size=40), st.integers(2, 4))
def test_each_fold_has_its_share_of_every_class(y, k):
    y = sorted(y) + sorted(set(y))  # two rows of each at least
    folds = jr.folds(len(y), k, y=y)
    check_partition(folds, len(y))
    for name in set(y):
        counts = [sum(y[i] == name for i in v) for _, v in folds]
        assert max(counts) - min(counts) <= 1


def test_numbers_are_stratified_by_their_size():
    spread = lambda folds: np.ptp([Y[v].mean() for _, v in folds])
    assert spread(jr.folds(N, 5, y=Y)) < spread(jr.folds(N, 5)) / 3


@given(st.lists(st.integers(0, 7), min_size=8, max_size=40), st.integers(2, 3))
def test_a_group_stays_together(groups, k):
    if len(set(groups)) < k:
        return
    for y in (None, [float(g % 2) for g in groups]):
        folds = jr.folds(len(groups), k, groups=groups, y=y)
        check_partition(folds, len(groups))
        for train, valid in folds:
            assert not {groups[i] for i in train} & {groups[i] for i in valid}


def test_groups_are_as_even_as_scikit_learns():
    sizes = lambda folds: np.std([len(v) for _, v in folds])
    assert sizes(jr.folds(N, 3, groups=GROUP)) <= sizes(ms.GroupKFold(3).split(X, Y, GROUP)) + 1e-9
    share = lambda folds: np.std([CLASS[v].mean() for _, v in folds])
    theirs = ms.StratifiedGroupKFold(3).split(X, CLASS, GROUP)
    assert share(jr.folds(N, 3, groups=GROUP, y=CLASS)) <= share(theirs) + 0.05


@given(st.lists(st.integers(0, 30), min_size=8, max_size=40), st.integers(2, 4), st.integers(0, 2))
def test_nothing_later_is_trained_on(times, k, gap):
    if len(set(times)) <= k:
        return
    try:
        folds = jr.folds(len(times), k, times=times, gap=gap)
    except ValueError as error:
        assert "leaves fold" in str(error)  # noqa: PT017
        return
    t = np.array(times)
    seen = sorted(i for rows in valid_rows(folds) for i in rows)
    assert len(seen) == len(set(seen))
    for train, valid in folds:
        assert t[train].max() < t[valid].min()
        assert (t < t[valid].min()).sum() - len(train) == min(
            gap, (t < t[valid].min()).sum() - 1
        ) or gap


def test_folds_in_time_are_scikit_learns():
    ours = jr.folds(60, 4, times=pd.date_range("2020", periods=60), gap=2)
    for a, b in zip(ours, ms.TimeSeriesSplit(4, gap=2).split(np.zeros(60))):
        for mine, theirs in zip(a, b):
            np.testing.assert_array_equal(mine, theirs)


@given(st.integers(10, 40), st.integers(2, 4), st.integers(0, 2))
def test_blocks_are_runs_with_a_gap_on_both_sides(n, k, gap):
    for train, valid in jr.folds(n, k, blocks=True, gap=gap):
        np.testing.assert_array_equal(valid, np.arange(valid[0], valid[-1] + 1))
        apart = np.abs(train[:, None] - valid[None]).min()
        assert apart == gap + 1
        assert len(train) >= n - len(valid) - 2 * gap


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: jr.folds(10, 11), ValueError, "`k` must be at most the 10 rows there are, got 11"),
        (lambda: jr.folds(10, 1), ValueError, "`k` must be an integer of at least 2, got 1"),
        (lambda: jr.folds(10.0, 2), ValueError, "`n` must be an integer of at least 2, got 10.0"),
        (lambda: jr.folds(4, 2, groups=["a"] * 4), ValueError, "has 1 group, and 2 folds need at least 2"),
        (lambda: jr.folds(4, 2, y=[1, 2]), ValueError, r"`y` must have one value .* got shape \[2\]"),
        (lambda: jr.folds(3, 2, y=[1, np.nan, 2]), ValueError, "`y` has NaN in 1 of 3 rows"),
        (lambda: jr.folds(3, 2, groups=["a", None, "b"]), ValueError, "`groups` is missing in 1 of 3"),
        (lambda: jr.folds(4, 2, gap=1), ValueError, "give `times`, or blocks=True"),
        (lambda: jr.folds(4, 2, times=range(4), repeats=2), ValueError, "`repeats` is for folds in any"),
        (lambda: jr.folds(4, 3, times=[1, 1, 2, 2]), ValueError, "has 2 different moments"),
        (lambda: jr.folds(6, 2, times=range(6), gap=2), ValueError, "leaves fold 0 no row to train on"),
        (lambda: jr.folds(6, 2, y=list("aaaaab")), ValueError, "judged on the class 'b' of `y` and has no "
         "row of it to train on: got 1 row of it, too few to be in both. Leave them out, join"),
        (lambda: jr.folds(8, 2, y=[0] * 4 + [1] * 4, groups=[0, 0, 1, 1, 2, 2, 2, 2]), ValueError,
         "class 1 of `y` .*: got 4 rows of it, all in one group"),
    ],
)  # fmt: skip
def test_folds_that_cannot_be_made(call, error, match):
    with pytest.raises(error, match=match):
        call()


# --- as people write them ---------------------------------------------------------------------------


def trainer(reg):
    tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.2))
    return jr.Trainer(lambda k: jnp.zeros(3), lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2), tx)


def sweep(folds, **kwargs):
    grid = jr.grid(jr.l2, lam=[0.01, 1.0])
    kwargs = {"steps": 500, "evals": 1, "key": KEY, "progress": False} | kwargs
    return jr.sweep(trainer, grid, (X, Y), folds=folds, **kwargs)


SPLITTERS = {
    "KFold": ms.KFold(5, shuffle=True, random_state=0),
    "StratifiedKFold": ms.StratifiedKFold(5),
    "GroupKFold": ms.GroupKFold(3),
    "StratifiedGroupKFold": ms.StratifiedGroupKFold(3),
    "TimeSeriesSplit": ms.TimeSeriesSplit(4),
    "TimeSeriesSplit in windows": ms.TimeSeriesSplit(4, max_train_size=13, test_size=8),
    "ShuffleSplit": ms.ShuffleSplit(3, random_state=0),
    "StratifiedShuffleSplit": ms.StratifiedShuffleSplit(3, random_state=0),
    "GroupShuffleSplit": ms.GroupShuffleSplit(3, random_state=0),
    "LeaveOneGroupOut": ms.LeaveOneGroupOut(),
    "LeavePGroupsOut": ms.LeavePGroupsOut(2),
    "LeaveOneOut": ms.LeaveOneOut(),
    "RepeatedKFold": ms.RepeatedKFold(n_splits=5, n_repeats=2, random_state=0),
    "RepeatedStratifiedKFold": ms.RepeatedStratifiedKFold(n_splits=5, n_repeats=2, random_state=0),
    "PredefinedSplit": ms.PredefinedSplit(np.where(np.arange(N) < 40, -1, 0)),
}
LEVELS = {"RepeatedKFold": 2, "RepeatedStratifiedKFold": 2}
OVERLAPPING = {"ShuffleSplit", "StratifiedShuffleSplit", "GroupShuffleSplit", "LeavePGroupsOut"}


@pytest.mark.parametrize("name", SPLITTERS)
def test_every_splitter_with_full_batches_is_ridge_on_its_rows(name):
    """Unequal sizes are one program."""
    made = SPLITTERS[name]
    pairs = list(made.split() if name == "PredefinedSplit" else made.split(X, CLASS, GROUP))
    result = sweep(pairs)
    scores = np.zeros((2, len(pairs)))
    for f, (train, valid) in enumerate(pairs):
        for k, lam in enumerate([0.01, 1.0]):
            ridge = Ridge(lam * len(train), fit_intercept=False).fit(X[train], Y[train])
            scores[k, f] = 0.5 * np.mean((ridge.predict(X[valid]) - Y[valid]) ** 2)
    np.testing.assert_allclose(result.valid["loss"][..., 0, -1], scores, rtol=1e-4)
    np.testing.assert_allclose(result.mean(), scores.mean(1), rtol=1e-4)
    repeats = LEVELS.get(name, 1)
    if name in OVERLAPPING:
        # Nadeau & Bengio (2003), section 4.
        ratio = np.mean([len(v) / len(t) for t, v in pairs])
        se = scores.std(1, ddof=1) * np.sqrt(1 / len(pairs) + ratio)
    else:
        each = scores.reshape(2, repeats, -1)
        se = (
            np.sqrt((each.std(2, ddof=1) ** 2 / each.shape[2]).mean(1))
            if len(pairs) > 1
            else np.nan
        )
    np.testing.assert_allclose(result.stderr(), se, rtol=1e-3)


def test_many_repeats_report_the_error_of_one_split():
    """5 x 40 folds are no 200 independent ones: that would be a sixth of what the rows allow."""
    rows = 60
    x = np.random.default_rng(3).normal(size=(rows, 10)).astype("f")
    y = (x[:, 0] + np.random.default_rng(4).normal(size=rows)).astype("f")
    folds = jr.folds(rows, 5, repeats=40)

    def small(reg):
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.2))
        loss = lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2)
        return jr.Trainer(lambda key: jnp.zeros(10), loss, tx)

    result = jr.sweep(
        small, jr.grid(jr.l2, lam=[0.1]), (x, y), folds=folds, steps=100, evals=1, key=KEY,
        progress=False,
    )  # fmt: skip
    by_row = np.zeros(rows)
    for f, (_, valid) in enumerate(folds):
        by_row[valid] += 0.5 * (x[valid] @ np.asarray(result.lane(0, f)) - y[valid]) ** 2 / 40
    honest = by_row.std(ddof=1) / np.sqrt(rows)
    assert 0.8 * honest < result.stderr()[0] < 1.3 * honest
    naive = result.scores().std(ddof=1) / np.sqrt(200)
    assert naive < honest / 3
    assert "±: standard error over 5 folds, the mean of 40 repeats" in str(result.table())


def test_training_sets_that_share_no_row_are_as_many_draws():
    """On one set of rows to judge by: the spread over them is what a mean over them moves by."""
    x = np.random.default_rng(3).normal(size=(60, 3)).astype("f")
    y = (x[:, 0] + np.random.default_rng(4).normal(size=60)).astype("f")
    folds = [(range(k, k + 10), range(40, 60)) for k in range(0, 40, 10)]

    def small(reg):
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.2))
        loss = lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2)
        return jr.Trainer(lambda key: jnp.zeros(3), loss, tx)

    options = {"steps": 100, "evals": 1, "key": KEY, "progress": False}
    grid = jr.grid(jr.l2, lam=[0.1, 1.0])
    result = jr.sweep(small, grid, (x, y), folds=folds, **options)
    scores = result.scores()[:, :, 0]
    np.testing.assert_allclose(result.stderr(), scores.std(1, ddof=1) / 2, rtol=1e-6)
    for corrected in (True, False):
        apart, error = result.difference(than=0, corrected=corrected)
        np.testing.assert_allclose(apart, (scores - scores[0]).mean(1), rtol=1e-6)
        np.testing.assert_allclose(error, (scores - scores[0]).std(1, ddof=1) / 2, rtol=1e-6)
    assert "±: standard error over 4 draws of the training rows" in str(result.table())
    shared = [(range(k, k + 11), range(45, 60)) for k in range(0, 40, 10)]
    result = jr.sweep(small, grid, (x, y), folds=shared, **options)
    spread = result.scores()[:, :, 0].std(1, ddof=1)
    np.testing.assert_allclose(result.stderr(), spread * np.sqrt(1 / 4 + 15 / 11), rtol=1e-6)


WRITTEN = {
    "numbers in a list": [int(i) for i in np.arange(N) % 5],
    "numbers in a Series": pd.Series(np.arange(N) % 5),
    "whole floats": (np.arange(N) % 5).astype(float),
    "names": np.array(["a", "b", "c", "d", "e"])[np.arange(N) % 5],
    "names in a Series": pd.Series(np.array(["a", "b", "c", "d", "e"])[np.arange(N) % 5]),
    "names of objects": pd.Series(np.array(["a", "b", "c", "d", "e"])[np.arange(N) % 5], dtype=object),
    "masks": [(np.arange(N) % 5 != f, np.arange(N) % 5 == f) for f in range(5)],
    "lists of rows": [
        ([i for i in range(N) if i % 5 != f], [i for i in range(N) if i % 5 == f]) for f in range(5)
    ],
    "pandas indices": [
        (pd.Index([i for i in range(N) if i % 5 != f]), pd.Index([i for i in range(N) if i % 5 == f]))
        for f in range(5)
    ],
    "a generator": ((np.flatnonzero(np.arange(N) % 5 != f), np.flatnonzero(np.arange(N) % 5 == f)) for f in range(5)),
    "jax arrays": jnp.arange(N) % 5,
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_folds_as_people_write_them(name):
    want = make_splits(np.arange(N) % 5, N, 0, KEY)
    got = make_splits(WRITTEN[name], N, 0, KEY)
    assert got[1:] == want[1:]
    for a, b in zip(jax.tree.leaves(got.table), jax.tree.leaves(want.table)):
        np.testing.assert_array_equal(a, b)


def test_one_split_may_stand_without_brackets():
    splits = make_splits((np.arange(20, N), np.arange(20)), N, 0, KEY)
    assert splits.sizes == ((N - 20, 20),)


def test_rows_that_are_drawn_twice_count_twice():
    result = sweep([(np.arange(40), np.array([41, 41, 42]))])
    w = result.lane(0)
    each = 0.5 * (X @ w - Y) ** 2
    np.testing.assert_allclose(
        result.valid["loss"][0, 0, 0, -1], (2 * each[41] + each[42]) / 3, rtol=1e-5
    )


def test_leaving_one_out_of_many_takes_little_memory():
    pairs = list(ms.LeaveOneOut().split(np.zeros(2000)))
    table = make_splits(pairs, 2000, 0, KEY).table
    assert sum(x.nbytes for x in jax.tree.leaves(table)) < 40e6


@pytest.mark.parametrize(
    ("folds", "error", "match"),
    [
        (ms.KFold(5), TypeError, r"got a KFold\. .*list\(splitter.split\(X, y, groups\)\)"),
        ({"a": 1}, TypeError, "must say which rows each fold has, got {'a': 1}"),
        (True, TypeError, "got True"),
        ("five", TypeError, "got 'five'"),
        (1, ValueError, "between 2 and the 61 examples there are, got 1"),
        (N + 1, ValueError, "between 2 and the 61 examples there are, got 62"),
        (np.arange(N) < 20, TypeError, r"one boolean mask.*such as \[\(~mask, mask\)\]"),
        (np.full(N, -1), ValueError, "`folds` is empty"),
        (np.zeros(N, int), ValueError, "names one fold, 0, for all 61 rows"),
        (np.arange(N) + 0.5, ValueError, "must hold whole numbers or names, got float64 with 0.5"),
        (["a"] * 5, ValueError, r"one number or name for each of the 61 rows, got shape \[5\]"),
        (
            [(np.ones(5, bool), np.ones(N, bool))],
            ValueError,
            "mask in fold 0 of `folds` has 5 entries",
        ),
        ([(["a"], ["b"])], TypeError, "fold 0 of `folds` must hold row numbers or boolean masks"),
        (jr.folds(N - 1, 5), ValueError, "`folds` splits 60 rows, and there are 61"),
        ([*["a", "b"] * 30, None], ValueError, "`folds` has no name for row 60"),
        ([np.arange(4)], TypeError, "fold 0 of `folds` is no pair of rows but a ndarray"),
    ],
)
def test_folds_that_say_nothing_are_refused(folds, error, match):
    with pytest.raises(error, match=match):
        make_splits(folds, N, 0, KEY)
