"""Resuming: whatever ended the first run, the same call ends bit for bit as if nothing had."""

import json
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from support.paths import TESTS
from support.toy import LAMS, Press, assert_equal, make, numbers, run

import jaxreg as jr
from jaxreg.sweeps import drive
from jaxreg.sweeps.checkpoint import CheckpointError, CheckpointStore

OPTIONS = {"steps": 40, "evals": 20, "halving": jr.Halving(0.5, 2), "patience": 12}


@pytest.fixture(scope="module")
def uninterrupted():
    return run(**OPTIONS)


@pytest.mark.parametrize("step", [0, 8, 14])
def test_ctrl_c_stops_cleanly_and_the_same_call_goes_on(step, uninterrupted, tmp_path):
    with pytest.raises(
        jr.Interrupted, match=r"interrupted at step \d+ of 40.*goes on from"
    ) as stop:
        run(**OPTIONS, checkpoint=tmp_path / "run", callbacks=[Press(step)])
    partial = stop.value.result
    assert isinstance(stop.value, KeyboardInterrupt)
    assert (partial.status == jr.Status.RUNNING).any()
    seen = np.isfinite(partial.valid["loss"])
    np.testing.assert_array_equal(partial.valid["loss"][seen], uninterrupted.valid["loss"][seen])
    np.testing.assert_array_equal(
        seen.any((0, 1, 2)), partial.time <= partial.time[partial.stop.max()]
    )
    assert "interrupted" in str(partial.table())
    assert_equal(numbers(run(**OPTIONS, checkpoint=tmp_path / "run")), numbers(uninterrupted))


def test_ctrl_c_without_a_checkpoint_keeps_what_there_is(uninterrupted):
    with pytest.raises(jr.Interrupted, match="a new call starts from the beginning") as stop:
        run(**OPTIONS, callbacks=[Press(8)])
    assert stop.value.result.best().index in range(len(LAMS))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the handler is put back"


def test_a_finished_sweep_is_read_and_not_run_again(uninterrupted, tmp_path, monkeypatch):
    run(**OPTIONS, checkpoint=tmp_path / "run")
    monkeypatch.setattr(drive.Drive, "_round", None)
    assert_equal(numbers(run(**OPTIONS, checkpoint=tmp_path / "run")), numbers(uninterrupted))


def test_another_experiment_is_refused_with_the_difference(tmp_path):
    run(steps=2, evals=1, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="steps is 1 here and 2 there"):
        run(steps=1, evals=1, checkpoint=tmp_path)
    grid = jr.grid(make, lam=[*LAMS[:4], 2.0])
    with pytest.raises(ValueError, match=r"the grid's lam\[4\] is 2.0 here and 1.0 there"):
        run(grid, steps=2, evals=1, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="key is"):
        run(steps=2, evals=1, checkpoint=tmp_path, key=jax.random.key(9))


def test_a_damaged_checkpoint_falls_back_and_says_so(uninterrupted, tmp_path):
    with pytest.raises(jr.Interrupted):
        run(**OPTIONS, checkpoint=tmp_path, checkpoint_every=0, callbacks=[Press(14)])
    newest = max(tmp_path.glob("step-*"), key=lambda file: int(file.name.split(".")[1]))
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 4
    newest.write_bytes(data)
    step = int(newest.name.split("-")[1].split(".")[0])
    with pytest.warns(RuntimeWarning, match=f"sweep: .*step {step} is damaged .* is used instead"):
        result = run(**OPTIONS, checkpoint=tmp_path)
    assert_equal(numbers(result), numbers(uninterrupted))


def test_a_full_disk_costs_a_checkpoint_and_not_the_sweep(uninterrupted, tmp_path, monkeypatch):
    def full(*_):
        raise CheckpointError("no space left on device")

    monkeypatch.setattr(CheckpointStore, "save", full)
    with pytest.warns(RuntimeWarning, match="could not be written: no space left"):
        result = run(**OPTIONS, checkpoint=tmp_path / "run")
    assert_equal(numbers(result), numbers(uninterrupted))


def test_a_callback_that_raises_is_told_at_the_end(uninterrupted):
    class Broken(jr.Callback):
        def evaluated(self, evaluation):
            raise OSError("no network")

    with pytest.warns(RuntimeWarning, match=r"callbacks\[0\] \(Broken\) raised .* no network"):
        result = run(**OPTIONS, callbacks=[Broken()])
    assert_equal(numbers(result), numbers(uninterrupted))


def test_callbacks_see_what_the_result_holds(uninterrupted):
    seen = []

    class Watch(jr.Callback):
        def start(self, setup):
            seen.append(setup)

        def evaluated(self, evaluation):
            seen.append(evaluation)

        def finish(self, result):
            seen.append(result)

    run(**OPTIONS, callbacks=[Watch()])
    setup, *evaluations, result = seen
    assert (setup.steps, setup.folds, setup.seeds, setup.metrics) == (40, 3, 2, ("loss", "mae"))
    assert [e.step for e in evaluations] == result.time.tolist()
    for at, evaluation in enumerate(evaluations):
        np.testing.assert_array_equal(evaluation.valid["loss"], result.valid["loss"][..., at])
        np.testing.assert_array_equal(evaluation.alive, np.isfinite(result.valid["loss"][..., at]))


def test_killed_at_many_moments_it_ends_as_if_nothing_had_happened(tmp_path):
    """A real process and a real kill -9, again and again, until a life reaches the end."""
    out = tmp_path / "result.npz"
    child = [sys.executable, "-m", "support.children", "lives", tmp_path / "run", out, "0"]
    lives = subprocess.run(list(map(str, child)), cwd=TESTS, capture_output=True, text=True)
    assert lives.returncode == 0, lives.stderr
    assert json.loads(lives.stdout.splitlines()[-1])["killed"] >= 3
    whole = run(steps=200, evals=50, halving=jr.Halving(0.5, 2), patience=12)
    assert_equal(numbers(jr.SweepResult.load(out)), numbers(whole))


@pytest.mark.parametrize(
    ("make_path", "kwargs", "match"),
    [
        (lambda p: p / "file", {}, "file"),
        (
            lambda p: p / "run",
            {"checkpoint_every": -1},
            "`checkpoint_every` must be a number of seconds",
        ),
    ],
)
def test_bad_arguments(make_path, kwargs, match, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=match):
        run(checkpoint=make_path(tmp_path), **kwargs)
    assert (tmp_path / "file").read_text() == "mine"
