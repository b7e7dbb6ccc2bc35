"""Halving and early stopping: what goes on is judged by the data alone and is not changed by it."""

import warnings

import jax
import numpy as np
import pytest
from support.toy import LAMS, assert_equal, endless, run

import jaxreg as jr
from jaxreg.results import Status
from jaxreg.sweeps import population

HALVING = jr.Halving(keep=0.5, rungs=2)  # rungs at steps 5 and 10 of 20: 5 -> 3 -> 2 points


@pytest.fixture(scope="module")
def whole():
    return run(machine=jr.Machine(chunk=1))


@pytest.fixture(scope="module")
def halved():
    return run(machine=jr.Machine(chunk=1), halving=HALVING)


def going_on(result):
    return ~(result.status == Status.GIVEN_UP).any((1, 2))


def test_the_best_by_validation_loss_go_on(whole, halved):
    """Against the full run's own curves, ranked by hand at each rung."""
    alive = np.arange(len(LAMS))
    for rung in HALVING.schedule(len(LAMS), 20):
        at = list(whole.time).index(rung.step)
        score = whole.valid["loss"][..., at].mean((1, 2))
        alive = sorted(alive, key=lambda k: score[k])[: rung.keep]
    assert sorted(alive) == np.flatnonzero(going_on(halved)).tolist()


def test_the_penalized_loss_would_have_chosen_otherwise(whole, halved):
    """Else the test above could not tell which loss was ranked by."""
    at = list(whole.time).index(5)
    penalized = (whole.train["loss"] + whole.penalty_value)[..., at].mean((1, 2))
    assert set(np.argsort(penalized)[:3]) != set(
        np.argsort(whole.valid["loss"][..., at].mean((1, 2)))[:3]
    )


def test_survivors_have_the_numbers_of_the_full_run(whole, halved):
    on = going_on(halved)
    cut = lambda result: jax.tree.map(lambda x: x[on], (result.valid, result.train, result.params))
    assert_equal(cut(halved), cut(whole))


def test_who_was_given_up_ends_at_its_rung(whole, halved):
    for k in np.flatnonzero(~going_on(halved)):
        stop = int(halved.stop[k, 0, 0])
        assert halved.time[stop] in (5, 10)
        np.testing.assert_array_equal(
            halved.valid["loss"][k, ..., : stop + 1], whole.valid["loss"][k, ..., : stop + 1]
        )
        assert np.isnan(halved.valid["loss"][k, ..., stop + 1 :]).all()
        assert halved.mean()[k] == pytest.approx(halved.valid["loss"][k, ..., stop].mean())
    assert going_on(halved)[halved.best("min").index]
    assert "given up" in str(halved.table())
    assert "18 given up" in repr(halved)


def test_fewer_lanes_are_trained_and_nothing_is_compiled_anew(monkeypatch):
    """The steps that every call trains, times its lanes, are those that halving says."""
    run(machine=jr.Machine(chunk=1), halving=HALVING)  # compiles
    trained = []
    monkeypatch.setattr(population, "_Turns", counting(population._Turns, trained))
    with jax.log_compiles(), warnings.catch_warnings():
        warnings.simplefilter("error")
        run(machine=jr.Machine(chunk=1), halving=HALVING)
    assert sum(trained) == HALVING.share(5, 20) * 5 * 20 * 6


def counting(turns, trained):
    def counted(advance, shared, blocks, legs):
        trained.extend(
            int(last - first) * block.real.size for block in blocks for first, last in legs
        )
        return turns(advance, shared, blocks, legs)

    return counted


def test_a_diverged_lane_is_dropped_at_the_next_rung():
    wild = run(endless([*LAMS[:4], np.inf]), halving=jr.Halving(keep=0.9, rungs=1))
    assert (wild.status[4] == Status.DIVERGED).all()
    assert np.isnan(wild.valid["loss"][4, ..., -1]).all(), "not trained to the end"
    assert (wild.status[:4] == Status.FINISHED).all()


def test_when_all_diverge_the_sweep_ends():
    lost = run(endless([np.inf] * 2), halving=jr.Halving(0.5, 1))
    assert (lost.status == Status.DIVERGED).all()
    with pytest.raises(ValueError, match="all 2 points diverged or were given up"):
        lost.best()


# --- early stopping -------------------------------------------------------------------------------

LONG = {"steps": 240, "evals": 48, "machine": jr.Machine(chunk=1)}


@pytest.fixture(scope="module")
def patient():
    return run(**LONG, patience=3)


def test_patience_ends_a_lane_as_its_own_curve_says(patient):
    """Against the rule applied by hand to the full run's curves."""
    curves = run(**LONG).valid["loss"]
    ended = 0
    for lane in np.ndindex(curves.shape[:3]):
        best, end = 0, None
        for at, value in enumerate(curves[lane]):
            best = at if value < curves[lane][best] else best
            if at - best >= 3:
                end = at
                break
        assert patient.stop[lane] == best
        assert patient.status[lane] == (Status.FINISHED if end is None else Status.STOPPED)
        last = len(curves[lane]) - 1 if end is None else end
        np.testing.assert_array_equal(
            patient.valid["loss"][lane][: last + 1], curves[lane][: last + 1]
        )
        assert np.isnan(patient.valid["loss"][lane][last + 1 :]).all()
        ended += end is not None
    assert 0 < ended < curves[..., 0].size, "the example has both kinds of lane"


def test_the_parameters_are_those_of_the_best_evaluation(patient):
    lane = tuple(np.argwhere(patient.status == Status.STOPPED)[0])
    steps = int(patient.time[patient.stop[lane]])
    short = run(steps=steps, evals=1, machine=jr.Machine(chunk=1))
    for name, x in short.params.items():
        np.testing.assert_array_equal(patient.params[name][lane], x[lane])


def test_halving_and_patience_go_together():
    both = run(**LONG, patience=3, halving=jr.Halving(0.5, 1))
    assert set(np.unique(both.status)) == {Status.GIVEN_UP, Status.STOPPED, Status.FINISHED}
    assert going_on(both)[both.best().index]


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"patience": 0}, ValueError, "`patience` must be an integer of at least 1, got 0"),
        ({"halving": 0.5}, TypeError, "`halving` must be a jaxreg.Halving, such as"),
        (
            {"halving": jr.Halving(0.5, 9)},
            ValueError,
            "9 rungs that keep 0.5 each do not fit into 20",
        ),
    ],
)
def test_bad_arguments(kwargs, error, match):
    with pytest.raises(error, match=match):
        run(**kwargs)
