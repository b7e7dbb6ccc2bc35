"""Rules of choice and the order of simplicity: arithmetic on scores, by hand."""

import numpy as np
import pytest

from jaxreg import choice
from jaxreg.choice import Scores, choose, simplicity

COORDS = {
    "lam": np.array([0.1, 1.0, 10.0, 1.0]),
    "width": np.array([64, 64, 32, 32]),
    "net": np.array(["a", "a", "b", "b"]),
}


def scores(mean, stderr=0.1, simple=None):
    mean = np.array(mean, float)
    return Scores(mean, np.broadcast_to(stderr, mean.shape), mean[:, None, None], simple)


def order(**simplest):
    return simplicity(COORDS, (), simplest)


def test_the_lowest_mean_and_of_equal_ones_the_first():
    assert choose("min", scores([3, 1, 2, 1])) == 1
    assert choose("min", scores([np.nan, np.inf, 2, -np.inf])) == 2


def test_one_standard_error_is_that_of_the_lowest_and_counts_itself():
    simple = order(lam="largest")
    assert choose("1se", scores([1, 1.5, 2, 1.5], [0.5, 9, 9, 9], simple)) == 1
    assert choose("1se", scores([1, 1.5, 2, 1.5], [0.49, 9, 9, 9], simple)) == 0
    assert choose("1se", scores([1, 1.5, 2, 1.5], [1, 0, 0, 0], simple)) == 2


def test_of_equally_simple_points_the_best_and_of_equal_ones_the_first():
    simple = order(width="smallest")
    assert choose("1se", scores([1, 1, 1.1, 1.05], 0.5, simple)) == 3
    assert choose("1se", scores([1, 1, 1.1, 1.1], 0.5, simple)) == 2


def test_the_first_coordinate_named_tells_most():
    near = [1.0, 1.0, 9.0, 1.0]
    assert choose("1se", scores(near, 0.5, order(lam="largest", width="smallest"))) == 3
    assert choose("1se", scores(near, 0.5, order(lam="smallest", width="smallest"))) == 0
    assert choose("1se", scores(near, 0.5, order(width="largest", lam="smallest"))) == 0
    assert choose("1se", scores(near, 0.5, order(width="largest", lam="largest"))) == 1


def test_what_is_not_finite_is_never_within_an_error():
    simple = order(lam="largest")
    for odd in (np.nan, np.inf, -np.inf):
        assert choose("1se", scores([1, 1.01, odd, 1.02], 0.5, simple)) == 1


def test_a_point_without_the_coordinate_is_the_least_simple():
    lam = {"lam": np.array([0.1, np.nan, 0.2])}
    simple = simplicity(lam, ("lam",), None)
    assert choose("1se", scores([1, 0.9, 1.0], 0.5, simple)) == 2
    assert choose("1se", scores([1, 0.9, 9.0], 0.5, simple)) == 0
    assert choose("1se", scores([9, 0.9, 9.0], 0.5, simple)) == 1
    smallest = simplicity(lam, (), {"lam": "smallest"})
    assert choose("1se", scores([1, 0.9, 1.0], 0.5, smallest)) == 0


def test_the_default_is_the_larger_of_a_single_strength():
    np.testing.assert_array_equal(simplicity(COORDS, ("lam",), None), COORDS["lam"][:, None])
    assert simplicity(COORDS, (), None) is None
    assert simplicity(COORDS, ("lam", "width"), None) is None, "which of two must be said"
    with pytest.raises(ValueError, match="'1se' prefers the simpler.*simplest={'lam': 'largest'}"):
        choose("1se", scores([1, 2]))


@pytest.mark.parametrize(
    ("simplest", "error", "match"),
    [
        ({"lam": "larger"}, ValueError, "to 'largest' or 'smallest'.*got 'lam': 'larger'"),
        ({"lr": "largest"}, ValueError, r"coordinates \(lam, width, net\).*got 'lr': 'largest'"),
        ({"net": "largest"}, ValueError, "must order by numbers, and 'net' is text"),
        ({}, TypeError, "which end is the simpler model, such as simplest={'lam': 'largest'}"),
        ("largest", TypeError, "got 'largest'"),
    ],
)
def test_words_that_say_no_order(simplest, error, match):
    with pytest.raises(error, match=match):
        simplicity(COORDS, ("lam",), simplest)


def test_a_rule_that_cannot_be_followed():
    with pytest.raises(ValueError, match=r"`rule` must be one of \['1se', 'min'\], got 'best'"):
        choose("best", scores([1, 2]))
    with pytest.raises(ValueError, match="no point has a finite score"):
        choose("min", scores([np.nan, np.inf]))
    with pytest.raises(ValueError, match="'1se' needs a standard error.*folds, or with seeds"):
        choose("1se", scores([1, 2], np.nan, np.ones((2, 1))))


def test_a_further_rule_is_one_function_and_sees_every_lane(monkeypatch):
    spread = lambda s: int(np.argmin(s.lanes.std((1, 2))))
    monkeypatch.setitem(choice.RULES, "steady", spread)
    lanes = np.array([[[1.0, 3.0]], [[4.0, 4.0]]])
    assert choose("steady", Scores(lanes.mean((1, 2)), np.zeros(2), lanes, None)) == 1
