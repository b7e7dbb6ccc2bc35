"""Rows that are judged by and trained on: told from chance, refused or told, in arrays, trees and streams."""

import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.compilations import compilations

import jaxreg as jr
from jaxreg.fit.classes import lacking, missing_classes
from jaxreg.fit.overlap import Met, Overlap, known, overlap, refuse_overlap
from jaxreg.fit.splits import make_splits

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype("f")
Y = (X @ np.array([2, -1, 0.5]) + RNG.normal(size=40)).astype("f")
GRID = jr.grid(jr.l2, lam=[0.1, 1.0])
NEW = (RNG.normal(size=(20, 3)).astype("f"), RNG.normal(size=20).astype("f"))


def trainer(reg):
    tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1))
    return jr.Trainer(lambda k: jnp.zeros(3), lambda w, x, y: 0.5 * jnp.mean((x @ w - y) ** 2), tx)


def sweep(validation=None, data=(X, Y), **kwargs):
    options = {"steps": 4, "evals": 1, "key": KEY, "progress": False} | kwargs
    return jr.sweep(trainer, GRID, data, validation=validation, **options)


def mixed(copied):
    """Twenty rows to judge by, of which so many are rows of the data."""
    return tuple(np.concatenate([a[7 : 7 + copied], b[copied:]]) for a, b in zip((X, Y), NEW))


# --- counting -----------------------------------------------------------------------------------------


def brute(data, others):
    rows = lambda of: [
        tuple(np.concatenate([np.ravel(a[i]) for a in of])) for i in range(len(of[0]))
    ]
    mine, theirs = rows(data), rows(others)
    shared = [t in set(mine) for t in theirs]
    return sum(shared), np.mean([mine.count(m) > 1 for m in mine])


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(0, 99))
def test_it_counts_as_one_by_one(n, m, d, seed):
    rng = np.random.default_rng(seed)
    made = lambda k: (rng.integers(0, 2, (k, d)).astype("f"), rng.integers(0, 2, k))
    data, others = made(n), made(m)
    found = overlap(data, others)
    shared, chance = brute(data, others)
    assert (found.shared, found.n) == (shared, m)
    assert found.chance == pytest.approx(chance)
    if shared:
        i, j = found.first
        assert all((a[j] == b[i]).all() for a, b in zip(data, others))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([[0.0, 1.0]], [[-0.0, 1.0]]),
        ([[0.1]], np.array([[0.1]], np.float64)),
        ([[np.nan, 1.0]], [[np.nan, 1.0]]),
        (np.array([["x", "y"]]), np.array([["x", "y"]], object)),
        (np.array([[3]], np.int8), np.array([[3]], np.int64)),
        (np.array([[1 + 2j]]), np.array([[1 + 2j]])),
        (jnp.ones((1, 2), jnp.bfloat16), jnp.ones((1, 2), jnp.bfloat16)),
        (jax.random.split(KEY, 1), jax.random.split(KEY, 1)),
        (np.zeros((1, 0)), np.zeros((1, 0))),
    ],
)
def test_equal_numbers_are_equal_rows_whatever_holds_them(a, b):
    a, b = (np.asarray(x, "f") if isinstance(x, list) else x for x in (a, b))
    assert overlap((a,), (b,)).shared == 1


def test_targets_and_every_leaf_of_a_tree_count():
    tree = lambda x, y: ({"a": x[:, 0], "b": {"c": x[:, 1:]}}, y)
    assert overlap(tree(X, Y), tree(X[:9], Y[:9])).shared == 9
    assert overlap(tree(X, Y), tree(X[:9], Y[:9] + 1)).shared == 0
    nudged = np.concatenate([X[:9, :2], X[:9, 2:] + 1], 1)
    assert overlap(tree(X, Y), tree(nudged, Y[:9])).shared == 0


def test_rows_of_one_hash_are_compared_number_by_number(monkeypatch):
    same = lambda leaves: np.zeros(len(leaves[0]), np.uint64)
    monkeypatch.setattr(sys.modules[Met.__module__], "_hashed", same)
    assert overlap((X, Y), NEW).shared == 0
    assert overlap((X, Y), (X[:1], Y[:1])).shared == 1


def test_large_rows_are_hashed_in_parts(monkeypatch):
    whole = overlap((X, Y), mixed(6))
    monkeypatch.setattr(sys.modules[Met.__module__], "_WORDS", 5)
    assert overlap((X, Y), mixed(6)) == whole
    assert whole == Overlap(6, 20, 0.0, (0, 7))


# --- against chance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("values", [3, 6, 20])
def test_an_honest_split_of_rows_that_repeat_is_not_refused_and_copies_are(share, values):
    """100 draws each: rows of few values from one source, and the same with copies among them."""
    seen = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rows = rng.integers(0, values, (300, 3))
        data, honest = (rows[:200],), rows[200:]
        assert not overlap(data, (honest,)).too_many
        copies = int(share * 100)
        leaked = np.concatenate([rows[rng.integers(200, size=copies)], honest[copies:]])
        seen.append(overlap(data, (leaked,)).copied)
    if values == 20 or (values, share) == (6, 0.9):  # far from chance: the share is found
        assert np.mean(seen) == pytest.approx(share, abs=0.02)


def test_what_is_told_and_what_refused():
    told = lambda *a: refuse_overlap("sweep", "`validation`", Overlap(*a))
    assert told(0, 20, 0.9) == []
    assert "1 of the 20 rows of `validation` are rows of `data` too" in told(1, 20, 0.0, (3, 9))[0]
    assert (
        "the first is row 3, equal to row 9; their scores are too good"
        in told(1, 20, 0.0, (3, 9))[0]
    )
    assert "scores are too good" in told(10, 20, 0.0)[0]
    with pytest.raises(
        ValueError, match="got 11 of the 20 rows of `validation` are rows of `data` too"
    ):
        told(11, 20, 0.0)
    assert told(5, 100, 0.04) == [], "as many as chance has, and too few to matter"
    (chance,) = told(30, 100, 0.3)
    assert "30% of the rows of `data` equal another one there" in chance
    assert "Split first, and copy then" in chance
    assert len(told(100, 100, 0.9)) == 1, (
        "rows that were copied before the split: told, not refused"
    )


# --- in a sweep ---------------------------------------------------------------------------------------


def told_by(call):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in seen if issubclass(w.category, RuntimeWarning)]


@pytest.mark.parametrize(
    "call",
    [
        lambda v: sweep(v),
        lambda v: sweep(v, data=tuple(map(jnp.asarray, (X, Y)))),
        lambda v: sweep(jr.stream([v])),
        lambda v: jr.search(trainer, jr.space(jr.l2, lam=(0.1, 1.0)), (X, Y), validation=v, steps=4, key=KEY),
        lambda v: sweep(v, prepare=lambda x, y: lambda x, y: (x - 1, y)),
    ],
    ids=["arrays", "of jax", "a stream to judge by", "search", "prepared"],
)  # fmt: skip
def test_rows_that_are_trained_on_are_refused_before_anything_compiles(call):
    for validation, many in ((mixed(20), 20), (mixed(11), 11)):
        with compilations() as compiled, pytest.raises(
            ValueError,
            match=f"sweep: `validation` must be rows that are not trained on, got {many} of the 20 .*"
            "equal to row 7; the score would be that of training. Leave them out .* or give `folds` instead",
        ):  # fmt: skip
            call(validation)
        # A search lays out its points first.
        assert not [c for c in compiled if c not in ("jit(stage)", "jit(convert_element_type)")]


def test_some_of_them_are_told_and_none_are_not():
    (text,) = told_by(lambda: sweep(mixed(4)))
    assert text.startswith("sweep: 4 of the 20 rows of `validation` are rows of `data` too, the first is row 0, equal to row 7")  # fmt: skip
    assert told_by(lambda: sweep(NEW)) == []


def test_a_stream_is_looked_at_as_it_comes():
    batches = [tuple(a[i : i + 8] for a in (X, Y)) for i in range(0, 40, 8)]
    run = lambda v, steps: sweep(v, data=jr.stream(batches), steps=steps)
    assert told_by(lambda: run(NEW, 10)) == []
    # Rows 7 to 10 of the data are in the first batch, one of them, and in the second.
    for steps, many in ((1, 1), (2, 4), (10, 4)):
        (text,) = told_by(lambda s=steps: run(mixed(4), s))
        assert text.startswith(f"sweep: {many} of the 20 rows of `validation` came in the batches")
    with compilations() as compiled, pytest.raises(
        ValueError, match="got 8 of the 8 rows of the first batch of the stream. Leave them out"
    ):  # fmt: skip
        run((X, Y), 2)
    assert not compiled


def test_rows_that_repeat_among_themselves_may_come_by_chance():
    few = (np.repeat(np.arange(5.0, dtype="f"), 20)[:, None],)
    met = Met(few)
    met.look((few[0][:2],))
    (text,) = met.warnings()
    assert "20 of the 100 rows" in text
    assert "unless rows hold few distinct values" in text


def test_a_refit_is_judged_by_its_training_rows_where_it_says_so():
    result = sweep(folds=4)
    options = {"seeds": 1, "key": KEY, "progress": False}
    assert told_by(lambda: jr.refit(trainer, result, (X, Y), **options)) == []
    with pytest.raises(
        ValueError, match="refit: `test` must be rows that are not trained on, got 20 of"
    ):
        jr.refit(trainer, result, (X, Y), test=mixed(20), **options)
    (text,) = told_by(lambda: jr.refit(trainer, result, (X, Y), test=mixed(4), **options))
    assert text.startswith("refit: 4 of the 20 rows of `test` are rows of `data` too")
    assert known(3) == 3


def test_folds_by_hand_that_overlap_are_refused():
    pairs = [(np.arange(20), np.arange(20, 40)), (np.arange(25), np.arange(22, 40))]
    with compilations() as compiled, pytest.raises(
        ValueError,
        match="sweep: fold 1 of `folds` trains on a row it validates on, got 3 of its 18 validation rows "
        "among those to train on, the first is row 22; .* Leave them out",
    ):  # fmt: skip
        sweep(folds=pairs)
    assert not compiled


# --- a class that is missing --------------------------------------------------------------------------


CLASSES = np.repeat([0, 1, 2], [20, 18, 2])


def times(folds, n=40):
    return make_splits(folds, n, 0, KEY).table.times


def test_a_class_that_is_judged_on_and_not_trained_on_is_told():
    apart = CLASSES == 2
    (text,) = missing_classes(
        times([(~apart, apart), (np.arange(20), np.arange(20, 30))]), (X, CLASSES)
    )
    assert text.startswith("fold 0 is judged on the class 2 and has no row of it to train on (2 of 2 folds lack")  # fmt: skip
    assert "Give folds=jaxreg.folds(n, k, y=y)" in text
    assert missing_classes(times(jr.folds(40, 2, y=CLASSES)), (X, CLASSES)) == []
    names = np.array(["a", "b", "c"])[CLASSES]
    for y in (names, names.astype(object), CLASSES == 2):
        assert len(missing_classes(times([(~apart, apart)]), (X, y))) == 1


def test_a_class_that_a_fold_has_not_at_all_is_not_told():
    both = np.flatnonzero(CLASSES < 2)
    assert missing_classes(times([(both[::2], both[1::2])]), (X, CLASSES)) == []


def test_what_may_be_no_class_is_not_told():
    first = times([(np.arange(20), np.arange(20, 40))])
    assert missing_classes(first, (X, CLASSES.astype("f"))) == []
    assert missing_classes(first, (X, np.arange(40))) == [], "numbers of rows, or counts"
    assert missing_classes(first, (CLASSES,)) == []
    assert missing_classes(first, (CLASSES, Y)) == []
    assert missing_classes(first, (X, CLASSES[:, None])) == []


def test_a_sweep_tells_at_once_and_folds_made_of_classes_cure_it():
    def classes(reg):
        loss = lambda w, x, y: optax.softmax_cross_entropy_with_integer_labels(x @ w, y).mean()
        tx = optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1))
        return jr.Trainer(lambda k: jnp.zeros((3, 3)), loss, tx)

    options = {"steps": 4, "evals": 1, "key": KEY, "progress": False}
    grid = jr.grid(jr.l2, lam=[0.1])
    by_row = np.arange(40) // 8  # rows that were sorted by class
    run = lambda folds: jr.sweep(classes, grid, (X, CLASSES), folds=folds, **options)
    (text,) = told_by(lambda: run(by_row))
    assert text.startswith(
        "sweep: fold 4 is judged on the class 2 and has no row of it to train on"
    )
    assert told_by(lambda: run(jr.folds(40, 2, y=CLASSES))) == []
    new = np.full(20, 2)
    known_classes = lambda: jr.sweep(
        classes, grid, (X, CLASSES % 2), validation=(NEW[0], new), **options
    )
    (text,) = told_by(known_classes)
    assert "judged on the class 2 and has no row" in text


def test_as_many_classes_as_a_third_of_the_rows_are_looked_at_at_once():
    """A loop over classes would take minutes of these; sets of Python say what is right."""
    rng, n = np.random.default_rng(0), 60_000
    y, fold = rng.integers(0, n // 3, n), rng.integers(0, 2, n)
    of = np.stack([np.stack([fold != f, fold == f], 1) for f in range(2)]).astype(np.int32)
    wanted = [
        (f, c)
        for f in range(2)
        for c in sorted(set(y[fold == f].tolist()) - set(y[fold != f].tolist()))
    ]
    began = time.perf_counter()
    assert lacking(of, y) == wanted
    assert time.perf_counter() - began < 2
    assert len(wanted) > 100
