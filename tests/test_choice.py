"""Rules of choice, spreads and the order of simplicity: arithmetic on scores, by hand."""

import itertools
import math

import numpy as np
import pytest

from jaxreg import choice
from jaxreg.choice import RULES, Choice, Pick, choose, score_at
from jaxreg.scores import Scores, mean, simplicity, stderr

COORDS = {
    "lam": np.array([0.1, 1.0, 10.0, 1.0]),
    "width": np.array([64, 64, 32, 32]),
    "net": np.array(["a", "a", "b", "b"]),
}


def scores(means, apart=0.1, coords=None, **simplest):
    """Points of these means over four folds, whose level has a standard error of `apart`."""
    means = np.array(means, float)
    folds = (
        apart * np.sqrt(3) * np.array([1, -1, 1, -1])
    )  # sd 2 apart, over 4 folds an error of apart
    lanes = np.broadcast_to(means[:, None] + folds, (len(means), 4))[:, :, None]
    coords = {n: v[: len(means)] for n, v in (COORDS if coords is None else coords).items()}
    return Scores(lanes, coords, *simplicity(coords, (), simplest or None))


def line(means, differences, lams=None, **more):
    """Points on a line of λ; `differences` are the standard errors of those from the first, over folds."""
    means, sizes = np.array(means, float), np.array(differences, float)
    signs = np.array([1, -1, 1, -1])
    level = np.array([5.0, 1.0, 2.0, 4.0])
    apart = np.sqrt(3) * sizes[:, None] * signs
    lanes = (means[:, None] + level + apart)[:, :, None]
    coords = {"lam": np.arange(1.0, len(means) + 1) if lams is None else np.array(lams)}
    return Scores(lanes, coords, *simplicity(coords, ("lam",), None), **more)


# --- what a score is worth --------------------------------------------------------------------------


def test_an_error_is_over_folds_or_the_seeds_of_a_lone_one():
    lanes = np.random.default_rng(0).normal(size=(3, 6, 4))
    np.testing.assert_allclose(mean(lanes), lanes.mean((1, 2)))
    folds = lanes.mean(2)
    np.testing.assert_allclose(stderr(lanes), folds.std(1, ddof=1) / np.sqrt(6))
    np.testing.assert_allclose(stderr(lanes[:, :1]), lanes[:, 0].std(1, ddof=1) / 2)
    assert np.isnan(stderr(lanes[:, :1, :1])).all()
    overlapping = folds.std(1, ddof=1) * np.sqrt(1 / 6 + 0.25)
    np.testing.assert_allclose(stderr(lanes, overlap=0.25), overlapping)
    first, second = folds[:, :3].var(1, ddof=1) / 3, folds[:, 3:].var(1, ddof=1) / 3
    np.testing.assert_allclose(stderr(lanes, repeats=2), np.sqrt((first + second) / 2))


def test_a_difference_is_taken_in_pairs_and_its_error_allows_for_shared_rows():
    lanes = np.random.default_rng(0).normal(size=(3, 5, 2))
    level = np.array([9.0, -9.0, 3.0, 0.0, 1.0])[:, None]
    there, error = Scores(lanes + level).differences(1)
    apart = (lanes - lanes[1]).mean(2)
    np.testing.assert_allclose(there, apart.mean(1))
    np.testing.assert_allclose(error, apart.std(1, ddof=1) / np.sqrt(5))
    assert there[1] == error[1] == 0
    _, corrected = Scores(lanes).differences(1, corrected=True)
    np.testing.assert_allclose(corrected, apart.std(1, ddof=1) * np.sqrt(1 / 5 + 1 / 4))
    _, of_seeds = Scores(lanes[:, :1]).differences(1, corrected=True)
    lone = lanes[:, 0] - lanes[1, 0]
    np.testing.assert_allclose(of_seeds, lone.std(1, ddof=1) / np.sqrt(2))
    twice = Scores(lanes[:, :4], repeats=2)
    parts = [(apart[:, i : i + 2].var(1, ddof=1) * (1 / 2 + 1)) for i in (0, 2)]
    np.testing.assert_allclose(twice.differences(1, True)[1], np.sqrt(np.mean(parts, 0)))


# --- the best mean, and between the points ------------------------------------------------------------


def test_the_lowest_mean_and_of_equal_ones_the_first():
    assert choose("min", scores([3, 1, 2, 1])).index == 1
    assert choose("min", scores([np.nan, np.inf, 2, -np.inf])).index == 2


def test_a_parabola_finds_the_minimum_of_a_quadratic_in_log_lam():
    lams = np.geomspace(1e-3, 1e1, 9)
    at = np.log(0.05)
    found = choose("parabola", line(0.3 * (np.log(lams) - at) ** 2, np.zeros(9), lams))
    assert found.place.position == pytest.approx(0.05)
    assert lams[found.index] == pytest.approx(10**-1.5), "the nearest point"
    score, _ = score_at(line(0.3 * (np.log(lams) - at) ** 2, np.zeros(9), lams), found)
    assert score == pytest.approx(3.0), "the level alone"


def test_a_parabola_goes_through_three_uneven_points():
    lams, means = np.array([0.01, 0.5, 1.0, 9.0]), np.array([3.0, 1.0, 0.7, 2.0])
    s = line(means, [0.1, 0.2, 0.0, 0.3], lams)
    found = choose("parabola", s)
    fit = np.polyfit(np.log(lams[1:]), means[1:], 2)
    vertex = -fit[1] / (2 * fit[0])
    assert np.log(found.place.position) == pytest.approx(vertex)
    middle, error = score_at(s, found)
    assert middle == pytest.approx(np.polyval(fit, vertex) + 3)
    per_fold = [
        np.polyval(np.polyfit(np.log(lams[1:]), s.lanes[1:, f, 0], 2), vertex) for f in range(4)
    ]
    assert error == pytest.approx(np.std(per_fold, ddof=1) / 2)


def test_a_parabola_keeps_the_other_coordinates_of_the_best():
    lams, rates = np.geomspace(0.1, 10, 3), [1.0, 2.0]
    grid = np.array(list(itertools.product(lams, rates)))
    coords = {"lam": grid[:, 0], "lr": grid[:, 1]}
    lanes = ((np.log(grid[:, 0]) - 0.2) ** 2 + grid[:, 1])[:, None, None] * np.ones((1, 2, 1))
    found = choose("parabola", Scores(lanes, coords, *simplicity(coords, ("lam",), None)))
    assert np.log(found.place.position) == pytest.approx(0.2)
    assert [grid[k, 1] for k in found.place.index] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("means", "lams", "index"),
    [([1, 2, 3], [1, 2, 3], 0), ([3, 2, 1], [1, 2, 3], 2), ([2, 1, 3], [0, 2, 3], 1)],
    ids=["the first is best", "the last is best", "beside 0"],
)
def test_a_parabola_without_two_neighbours_is_the_best_point(means, lams, index):
    found = choose("parabola", line(means, np.zeros(3), lams))
    assert (found.index, found.place) == (index, None)
    assert "no neighbour" in found.why


def test_level_neighbours_leave_the_parabola_at_the_best_point():
    assert choose("parabola", line([1, 1, 1, 1], np.zeros(4))).place is None
    found = choose("parabola", line([1.1, 1, 1, 1], np.zeros(4)))
    assert 1 <= found.place.position <= 3


# --- simpler, and as good -----------------------------------------------------------------------------


def test_pairs_tell_apart_what_levels_do_not():
    """The level of all points moves with the fold; the differences are known to a hundredth of it."""
    s = line([1.0, 1.02, 1.2, 1.5], [0, 0.03, 0.03, 0.03])
    assert choose("paired", s).index == 1
    assert choose("1se", s).index == 3


@pytest.mark.parametrize(
    ("rule", "errors"),
    [("paired", [0.19, 0.21]), ("nadeau-bengio", [0.19 / np.sqrt(7 / 3), 0.21 / np.sqrt(7 / 3)])],
)
def test_within_one_error_of_the_difference(rule, errors):
    for error, index in zip(errors, (0, 1)):
        assert choose(rule, line([1.0, 1.2, 9], [0, error, 0.1])).index == index, error
        assert choose(rule, line([1.0, 1.4, 9], [0, error, 0.1]), 2).index == index, error
    assert choose(rule, line([1.0, 1.0, 9], [0, 0, 0.1]), 0).index == 1, "an equal one is as good"


def test_a_gap_ends_the_walk():
    """A model that has collapsed has a wide spread, which lets a walk over a gap through."""
    s = line([1.0, 1.05, 1.5, 1.6], [0, 0.1, 0.1, 0.9])
    assert choose("paired", s).index == 1
    assert choose("percent", line([1, 1, 1.4, 1], np.zeros(4))).index == 1
    broken = line([1.0, 1.05, np.nan, 1.06], [0, 0.1, 0.1, 0.1])
    assert choose("paired", broken).index == 3, "what is no candidate is no gap"


def test_the_walk_is_from_the_best_to_simpler_ones_alone():
    s = line([1.01, 1.0, 1.01, 1.01], [0.1, 0, 0.1, 0.001])
    assert choose("paired", s).index == 2
    assert "lam=2" in choose("paired", s).why


def test_percent_of_the_best_mean_whatever_its_sign():
    flat = np.ones((1, 2, 1)) * np.array([100, 100.9, 101.1])[:, None, None]
    three = {"lam": np.arange(1.0, 4)}
    s = Scores(flat, three, *simplicity(three, ("lam",), None))
    assert choose("percent", s).index == 1
    assert choose("percent", s, 2).index == 2
    below = Scores(flat - 200, three, *simplicity(three, ("lam",), None))
    assert choose("percent", below).index == 1, "-100 and -99.1"


def test_one_standard_error_is_that_of_the_lowest_and_counts_itself():
    assert choose("1se", scores([1, 1.5, 2, 1.5], 0.5001, lam="largest")).index == 1
    assert choose("1se", scores([1, 1.5, 2, 1.5], 0.499, lam="largest")).index == 0
    assert choose("1se", scores([1, 1.5, 2, 1.5], 1.001, lam="largest")).index == 2
    assert choose("1se", scores([1, 1.5, 2, 1.5], 0.51, lam="largest"), 2).index == 2


def test_of_equally_simple_points_the_best_and_of_equal_ones_the_first():
    assert choose("1se", scores([1, 1, 1.1, 1.05], 0.5, width="smallest")).index == 3
    assert choose("1se", scores([1, 1, 1.1, 1.1], 0.5, width="smallest")).index == 2
    assert choose("percent", scores([1, 1, 1.01, 1.001], width="smallest"), 2).index == 3


def test_the_first_coordinate_named_tells_most():
    near = [1.0, 1.0, 9.0, 1.0]
    assert choose("1se", scores(near, 0.5, lam="largest", width="smallest")).index == 3
    assert choose("1se", scores(near, 0.5, lam="smallest", width="smallest")).index == 0
    assert choose("1se", scores(near, 0.5, width="smallest", lam="largest")).index == 3
    assert choose("1se", scores(near, 0.5, width="largest", lam="smallest")).index == 0


@pytest.mark.parametrize("rule", ["paired", "percent"])
def test_the_walk_is_along_one_coordinate_after_the_other(rule):
    """By brute force: each level of the first that is near, then within the level of the next."""
    rng = np.random.default_rng(3)
    grid = np.array(list(itertools.product([1.0, 2, 3], [1.0, 2, 3])))
    coords = {"width": grid[:, 0], "lam": grid[:, 1]}
    order = simplicity(coords, (), {"width": "smallest", "lam": "largest"})
    for _ in range(50):
        s = Scores(1 + 0.02 * rng.random((9, 4, 1)), coords, *order)
        worse, error = s.differences(s.lowest)
        near = worse <= error if rule == "paired" else s.mean <= 1.01 * s.mean.min()
        k = s.lowest
        for column, levels in ((0, [3, 2, 1]), (1, [1, 2, 3])):
            for level in levels[levels.index(grid[k, column]) + 1 :]:
                same = grid[:, 0] == (level if column == 0 else grid[k, 0])
                here = np.flatnonzero(same & (grid[:, column] == level) & near)
                if not here.size:
                    break
                k = here[s.mean[here].argmin()]
        assert choose(rule, s).index == k


def test_what_is_not_finite_is_never_chosen():
    for rule, odd in itertools.product(RULES, (np.nan, np.inf, -np.inf)):
        s = line([1, 1.01, odd, 9], [0, 0.5, 0, 0])
        assert choose(rule, s).index in (0, 1), (rule, odd)


def test_a_point_without_the_coordinate_is_the_least_simple():
    coords = {"lam": np.array([0.1, np.nan, 0.2])}
    largest = lambda means: Scores(
        scores(means, 0.5, coords).lanes, coords, *simplicity(coords, ("lam",), None)
    )
    assert choose("1se", largest([1, 0.9, 1.0])).index == 2
    assert choose("1se", largest([1, 0.9, 9.0])).index == 0
    assert choose("1se", largest([9, 0.9, 9.0])).index == 1
    assert choose("1se", scores([1, 0.9, 1.0], 0.5, coords, lam="smallest")).index == 0


# --- the ends of the grid, and words ------------------------------------------------------------------


def test_a_choice_at_an_end_of_the_grid_is_a_warning():
    (told,) = choose("min", line([1, 2, 3], np.zeros(3))).warnings
    assert told == "lam=1 is the smallest of the grid; a smaller one may be better."
    (told,) = choose("min", line([3, 2, 1], np.zeros(3))).warnings
    assert told == "lam=3 is the largest of the grid; a larger one may be better."
    assert choose("min", line([1, 2, 3], np.zeros(3), [0, 1, 2])).warnings == (), "none is below 0"
    assert choose("min", line([2, 1, 3], np.zeros(3))).warnings == ()
    assert choose("min", line([2], np.zeros(1))).warnings == (), "one value has no other side"


def test_a_choice_tells_why_and_what_it_cost():
    made = Choice("paired", 1, {"lam": 0.25, "net": "a"}, 1.5, 0.25, why="for a reason", lane_steps=12000,
                  warnings=("it lies at an end",))  # fmt: skip
    assert repr(made).splitlines() == [
        "paired: lam=0.25, net=a",
        "  valid loss: 1.5 ± 0.25",
        "  why: for a reason",
        "  cost: 12,000 lane-steps",
        "  warning: it lies at an end",
    ]
    html = made._repr_html_()
    for part in ("0.25", "1.5 ± 0.25", "for a reason", "12,000 lane-steps", "it lies at an end"):
        assert part in html
    assert repr(Choice("min", 1, {"lam": np.nan}, 1.5, math.nan)) == "min: lam=-\n  valid loss: 1.5"


def test_the_default_is_the_larger_of_a_single_strength():
    names, simple = simplicity(COORDS, ("lam",), None)
    assert names == ("lam",)
    np.testing.assert_array_equal(simple, COORDS["lam"][:, None])
    assert simplicity(COORDS, (), None) == ((), None)
    assert simplicity(COORDS, ("lam", "width"), None) == ((), None), "which of two must be said"
    for rule in ("1se", "paired", "percent", "nadeau-bengio"):
        with pytest.raises(
            ValueError, match=f"{rule!r} prefers the simpler.*simplest={{'lam': 'largest'}}"
        ):
            choose(rule, scores([1, 2]))
    with pytest.raises(ValueError, match=r"'parabola' looks along the strength.*Name it"):
        choose("parabola", scores([1, 2]))


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
    with pytest.raises(ValueError, match=r"`rule` must be one of \['1se', 'min', .*got 'best'"):
        choose("best", scores([1, 2]))
    with pytest.raises(ValueError, match="no point has a finite score"):
        choose("min", scores([np.nan, np.inf]))
    single = Scores(np.array([1.0, 2])[:, None, None], {"lam": np.array([1.0, 2])}, ("lam",),
                    np.array([[1.0], [2]]))  # fmt: skip
    for rule in ("1se", "paired"):
        with pytest.raises(
            ValueError, match=f"'{rule}' needs a standard error.*folds, or with seeds"
        ):
            choose(rule, single)
    with pytest.raises(ValueError, match=r"'nadeau-bengio' allows for .* a single fold"):
        choose("nadeau-bengio", single)


@pytest.mark.parametrize(
    ("rule", "within", "error", "match"),
    [
        ("min", 1, ValueError, "'min' has no tolerance, so `within` must be left away"),
        ("parabola", 0.5, ValueError, "'parabola' has no tolerance"),
        ("paired", -1, ValueError, "`within` must be a number of standard errors.*got -1"),
        ("paired", np.nan, ValueError, "finite and at least 0, got nan"),
        ("percent", True, TypeError, "got True"),
        ("1se", "two", TypeError, "got 'two'"),
    ],
)
def test_a_tolerance_that_is_none(rule, within, error, match):
    with pytest.raises(error, match=match):
        choose(rule, line([1, 2, 3], np.ones(3)), within)


def test_a_further_rule_is_one_function_and_sees_every_lane(monkeypatch):
    spread = lambda s, within: Pick(int(np.argmin(s.lanes.std((1, 2)))), "the steadiest")
    monkeypatch.setitem(choice.RULES, "steady", spread)
    lanes = np.array([[[1.0, 3.0]], [[4.0, 4.0]]])
    assert choose("steady", Scores(lanes)).index == 1
