"""Steps, seeds and points are added to a sweep: what is there is kept, and all ends as if asked for at once."""

import jax
import numpy as np
import optax
import pytest
from support.compilations import compilations
from support.toy import LAMS, Press, assert_equal, init, loss, make, numbers, run

import jaxreg as jr
from jaxreg.sweeps import population
from jaxreg.sweeps.growth import evaluations

SMALL = {"grid": jr.grid(make, lam=LAMS[1:3]), "seeds": 1, "steps": 20, "evals": 5}
WHOLE = {"grid": jr.grid(make, lam=LAMS), "seeds": 3, "steps": 40, "evals": 10}
ADDED = {
    "points": ["grid"],
    "seeds": ["seeds"],
    "steps": ["steps", "evals"],
    "everything": ["grid", "seeds", "steps", "evals"],
}
# Bundles of one width, so that every lane is computed by the same program.
MACHINE = jr.Machine(chunk=1)


def grow(names):
    return SMALL | {name: WHOLE[name] for name in names}


@pytest.mark.parametrize("name", ADDED)
@pytest.mark.parametrize("ended", [True, False])
def test_what_is_added_ends_as_if_asked_for_at_once(name, ended, tmp_path, monkeypatch):
    options = grow(ADDED[name])
    whole = run(**options, machine=MACHINE)
    if ended:
        before = run(**SMALL, machine=MACHINE, checkpoint=tmp_path)
        trained = before.valid["loss"].size // len(before.time) * SMALL["steps"]
    else:
        with pytest.raises(jr.Interrupted):
            run(**SMALL, machine=MACHINE, checkpoint=tmp_path, callbacks=[Press(8)])
        trained = 0
    lane_steps = []
    run_blocks = population.Population._run

    def counted(self, first, last, parts):
        lane_steps.append(int(self.alive.sum()) * (last - first))
        return run_blocks(self, first, last, parts)

    monkeypatch.setattr(population.Population, "_run", counted)
    grown = run(**options, machine=MACHINE, checkpoint=tmp_path)
    assert_equal(numbers(grown), numbers(whole))
    np.testing.assert_array_equal(grown.time, whole.time)
    asked = whole.status.size * options["steps"]
    assert sum(lane_steps) == asked - trained if ended else trained < sum(lane_steps) < asked
    lane_steps.clear()
    assert_equal(numbers(run(**options, machine=MACHINE, checkpoint=tmp_path)), numbers(whole))
    assert not lane_steps, "read, not trained again"


def test_a_sweep_that_grows_is_interrupted_and_goes_on(tmp_path):
    options = grow(ADDED["everything"])
    run(**SMALL, machine=MACHINE, checkpoint=tmp_path)
    for step in (0, 8, 16):
        with pytest.raises(jr.Interrupted) as stop:
            run(**options, machine=MACHINE, checkpoint=tmp_path, callbacks=[Press(step)])
        seen = np.isfinite(stop.value.result.valid["loss"]).sum()
        assert seen < 5 * 3 * 3 * 11
    grown = run(**options, machine=MACHINE, checkpoint=tmp_path)
    assert_equal(numbers(grown), numbers(run(**options, machine=MACHINE)))


def test_callbacks_see_the_added_lanes_catch_up(tmp_path):
    seen = []

    class Watch(jr.Callback):
        def evaluated(self, evaluation):
            seen.append((evaluation.step, int(evaluation.alive.sum())))

    run(**SMALL, checkpoint=tmp_path)
    run(**grow(["steps", "evals", "seeds"]), checkpoint=tmp_path, callbacks=[Watch()])
    new, all_of_them = 2 * 3 * 2, 2 * 3 * 3
    assert seen == [
        *((t, new) for t in range(0, 21, 4)),
        *((t, all_of_them) for t in range(24, 41, 4)),
    ]


def test_lanes_whose_patience_ended_stay_as_they_are(tmp_path):
    options = {"patience": 1, "machine": MACHINE, "grid": jr.grid(make, lam=[1.0, 30.0])}
    before = run(**SMALL | options, checkpoint=tmp_path)
    stopped = before.status == jr.Status.STOPPED
    assert stopped.any()
    assert not stopped.all()
    after = run(**grow(["steps", "evals"]) | options, checkpoint=tmp_path)
    assert_equal(
        jax.tree.map(lambda x: x[stopped], after.params),
        jax.tree.map(lambda x: x[stopped], before.params),
    )
    assert_equal(numbers(after), numbers(run(**grow(["steps", "evals"]) | options)))


@pytest.mark.parametrize(
    ("less", "match"),
    [
        ({"steps": 10}, "steps is 10 here and 20 there"),
        ({"grid": jr.grid(make, lam=LAMS[2:3])}, "points has 1 values here and 2 there"),
        ({"grid": jr.grid(make, lam=LAMS[2:])}, r"lam has 3 values here and 2 there"),
        ({"evals": 4}, "evals is 4 here and 5 there"),
        ({"steps": 40, "batch_size": 4}, "batch_size is 4 here and 8 there"),
    ],
)
def test_what_is_less_or_changed_is_refused(less, match, tmp_path):
    run(**SMALL, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=f"holds another experiment: .*{match}"):
        run(**SMALL | less, checkpoint=tmp_path)


def test_nothing_is_added_to_halving_which_compares_the_lanes(tmp_path):
    run(**SMALL, halving=jr.Halving(0.5, 1), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="seeds is 2 here and 1 there"):
        run(**SMALL | {"seeds": 2}, halving=jr.Halving(0.5, 1), checkpoint=tmp_path)


def test_the_smaller_call_does_not_shrink_what_has_grown(tmp_path):
    run(**SMALL, checkpoint=tmp_path)
    run(**grow(["seeds"]), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="seeds is 1 here and 3 there"):
        run(**SMALL, checkpoint=tmp_path)


def test_steps_of_the_smaller_sweep_serve_when_the_grown_one_is_damaged(tmp_path):
    run(**SMALL, machine=MACHINE, checkpoint=tmp_path)
    run(**grow(["seeds"]), machine=MACHINE, checkpoint=tmp_path)
    newest = max(tmp_path.glob("step-*"), key=lambda file: int(file.name.split(".")[1]))
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(RuntimeWarning, match="is damaged"):
        again = run(**grow(["seeds"]), machine=MACHINE, checkpoint=tmp_path)
    assert_equal(numbers(again), numbers(run(**grow(["seeds"]), machine=MACHINE)))


def test_evaluations_continue_what_was():
    known = {
        "seeds": 1,
        "steps": 10,
        "evals": 3,
        "runs": 1,
        "points": [],
        "evaluations": [0, 4, 8, 10],
    }
    assert evaluations(None, 10, 3) == [0, 4, 8, 10]
    assert evaluations(known, 10, 3) == known["evaluations"]
    assert evaluations(known, 20, 4) == [0, 4, 8, 10, 15, 20]
    assert evaluations(known, 10, 4) == [0, 3, 6, 9, 10]
    for lie in ([0, 4, 4, 10], [0, 4, 9], [4, 10], "text", [0, 10.0], [True, 10]):
        assert evaluations(known | {"evaluations": lie}, 20, 4) == [0, 5, 10, 15, 20]


def averaged():
    def trainer(reg):
        tx = jr.averaged(optax.chain(jr.add_penalty_gradient(reg), optax.sgd(0.1)), decay=0.9)
        return jr.Trainer(init, loss, tx, eval_params=jr.average_of)

    return trainer


def test_a_finished_sweep_that_is_read_again_compiles_nothing(tmp_path):
    options = {
        "folds": np.arange(24) % 3,
        "steps": 20,
        "key": jax.random.key(0),
        "stationarity": True,
    }
    data = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32), np.ones(24, np.float32)
    grid = jr.grid(make, lam=LAMS)
    first = jr.sweep(averaged(), grid, data, **options, checkpoint=tmp_path)
    jax.clear_caches()
    with compilations() as compiled:
        again = jr.sweep(averaged(), grid, data, **options, checkpoint=tmp_path)
    assert compiled == []
    assert_equal(numbers(again), numbers(first))
    assert_equal(again.stationarity(), first.stationarity())
    assert again.made_by == first.made_by
    with compilations() as compiled:
        jr.sweep(averaged(), grid, data, **options)
    assert compiled, "a sweep that is not there is compiled"
