"""Runs of the command that are cut off: what is kept, what is said, and that they end as if not."""

import dataclasses
import functools
import json
import os
import signal
import sys

import jax
import numpy as np
import pytest

import jaxreg as jr
from jaxreg.cli import main, output
from jaxreg.cli.folder import RunFolder
from jaxreg.cli.job import prepare
from jaxreg.cli.settings import Settings

OPTIONS = ["--model", "linear", "--lams", "1e-3,1e-2,1e-1,1", "--steps", "12", "--folds", "2"]
OPTIONS += ["--seeds", "1", "--refits", "2", "--train-size", "60", "--batch-size", "16"]
OPTIONS += ["--halving", "0.5:1", "--patience", "3", "--chunk", "2", "--tensorboard"]


class Press(jr.Callback):
    """Ctrl-C, a real signal: `times` at the start, or once at a step."""

    def __init__(self, times=0, step=None):
        self.times, self.step = times, step

    def start(self, outline):
        for _ in range(self.times):
            os.kill(os.getpid(), signal.SIGINT)

    def evaluated(self, evaluation):
        if evaluation.step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module", autouse=True)
def _cheap():
    """One trainer for all runs, so that they compile once, and no plots."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxreg.cli.run.prepare", functools.cache(prepare))
        patch.setattr("jaxreg.cli.output._plots", lambda folder, result, metric: None)
        yield


def cut_off(monkeypatch, callback, *argv):
    """A run that `callback` ends."""
    with monkeypatch.context() as patch:
        patch.setattr(jr.trackers, "TensorBoard", lambda directory: callback)
        return main(["sweep", *argv])


def contents(folder):
    names = ("result.npz", "curves.csv", "table.txt", "test.json", "settings.json")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main(["sweep", "wine", *OPTIONS, "--out", str(folder)]) == 0
    return folder


def assert_goes_on(folder, uninterrupted):
    assert main(["sweep", "--resume", str(folder)]) == 0
    assert contents(folder) == contents(uninterrupted)
    assert {p.name for p in folder.iterdir()} == {p.name for p in uninterrupted.iterdir()}


def test_a_finished_run_keeps_no_checkpoint_and_is_not_run_again(uninterrupted, capsys):
    assert not (uninterrupted / "checkpoint").exists()
    assert len(list((uninterrupted / "tensorboard").iterdir())) == 4
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.iterdir()}
    assert main(["sweep", "--resume", str(uninterrupted)]) == 0
    assert "has finished; its results are there" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in uninterrupted.iterdir()} == before


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (Press(times=1), "interrupted at step 0 of 12, which is kept in {folder}. Go on:"),
        (Press(times=2), "interrupted before a checkpoint was written; {folder} has the settings."),
        (Press(step=5), "of 12, which is kept in {folder}. Go on:"),
    ],
    ids=["while setting up", "twice", "while training"],
)
def test_ctrl_c_says_how_to_go_on_and_that_works(
    callback, said, uninterrupted, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "a run"
    assert cut_off(monkeypatch, callback, "wine", *OPTIONS, "--out", str(folder)) == 130
    err = capsys.readouterr().err
    assert said.format(folder=folder) in err
    assert err.endswith(f"Go on: jaxreg sweep --resume '{folder}'\n"), "quoted for a shell"
    assert err.count("\n") == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the handler is put back"
    (folder / ".result.npz.0.tmp").write_text("what a kill left half written")
    assert_goes_on(folder, uninterrupted)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk full")], ids=repr)
def test_what_ends_the_run_after_the_sweep_costs_no_sweep(
    error, uninterrupted, tmp_path, monkeypatch, capsys
):
    folder, write = tmp_path / "run", output.write_sweep

    def ending(*args):
        write(*args)
        raise error

    monkeypatch.setattr(output, "write_sweep", ending)
    argv = ["sweep", "wine", *OPTIONS, "--out", str(folder)]
    assert main(argv) == (130 if isinstance(error, KeyboardInterrupt) else 2)
    said = capsys.readouterr().err
    assert isinstance(error, KeyboardInterrupt) or "jaxreg: disk full\n" in said
    assert f"while refitting; the finished sweep is kept in {folder}. Go on: jaxreg" in said
    monkeypatch.setattr(output, "write_sweep", write)
    monkeypatch.setattr(jr.sweeps.population.Population, "start", only_refits(3))
    assert_goes_on(folder, uninterrupted)


def only_refits(most):
    """`Population.start`, which is for lanes that begin, for as many λ as are refitted."""
    start = jr.sweeps.population.Population.start

    def checked(population):
        assert len(population.grid) <= most, "the sweep was run again"
        return start(population)

    return checked


@pytest.fixture
def stopped(uninterrupted, tmp_path, monkeypatch, capsys):
    """The folder of a run that was stopped on the way."""
    folder = tmp_path / "stopped"
    assert cut_off(monkeypatch, Press(step=5), "wine", *OPTIONS, "--out", str(folder)) == 130
    capsys.readouterr()
    return folder


def test_another_experiment_in_the_folder_is_refused_and_left_alone(stopped, capsys):
    settings = json.loads((stopped / "settings.json").read_text())
    (stopped / "settings.json").write_text(json.dumps({**settings, "steps": 24}))
    step = RunFolder(stopped).step
    assert main(["sweep", "--resume", str(stopped)]) == 2
    err = capsys.readouterr().err
    assert "steps is 24 here and 12 there" in err
    assert f"at step {step} of 24, which is kept" in err
    assert RunFolder(stopped).step == step


def test_the_newest_checkpoint_is_the_one_saved_last(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.step is None
    for name in ("step-300.0001.npz", "step-200.0010.npz", ".step-400.0011.npz.x.tmp"):
        (folder.checkpoint / name).mkdir(parents=True)
    assert folder.step == 200


def test_resume_takes_the_folder_of_a_run_and_nothing_else(tmp_path, capsys):
    assert main(["sweep", "--resume", str(tmp_path)]) == 2
    assert "is no folder of a run: it has no settings.json" in capsys.readouterr().err
    assert main(["sweep", "wine", "--resume", "x", "--batch-size", "3"]) == 2
    assert "takes nothing else, got --batch-size, data." in capsys.readouterr().err


def test_interrupted_before_there_is_a_folder(monkeypatch, tmp_path, capsys):
    def press(settings):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jaxreg.cli.run.prepare", press)
    assert main(["sweep", "wine"]) == 130
    assert capsys.readouterr().err == "jaxreg: interrupted before the run had begun.\n"
    assert not list(tmp_path.iterdir())


def test_a_missing_tensorboard_is_one_line_and_no_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert main(["sweep", "wine", *OPTIONS, "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jaxreg: TensorBoard needs tensorboardX")
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_in_which_all_diverged_shows_it_and_is_over(tmp_path, capsys):
    folder = tmp_path / "run"
    argv = ["sweep", "diabetes", "--model", "linear", "--optimizer", "sgd", "--lr", "1e30"]
    argv += ["--steps", "4", "--folds", "2", "--seeds", "1", "--lams", "1,2", "--batch-size", "0"]
    assert main([*argv, "--out", str(folder)]) == 2
    told = capsys.readouterr()
    assert "all 2 points diverged" in told.err
    assert "Go on" not in told.err
    assert "every point diverged" in told.out
    assert RunFolder(folder).finished
    assert (jr.SweepResult.load(folder / "result.npz").status == jr.Status.DIVERGED).all()


def test_a_damaged_checkpoint_costs_one_interval_and_a_line(
    uninterrupted, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    assert cut_off(monkeypatch, Press(times=1), "wine", *OPTIONS, "--out", str(folder)) == 130
    before = RunFolder(folder).step  # at the press or, on a busy machine, an evaluation later
    assert cut_off(monkeypatch, Press(step=5), "--resume", str(folder)) == 130
    newest = RunFolder(folder).step
    (file,) = (folder / "checkpoint").glob(f"step-{newest:08d}.*")
    file.write_bytes(file.read_bytes()[:-1])
    capsys.readouterr()
    assert_goes_on(folder, uninterrupted)
    err = capsys.readouterr().err
    assert err.startswith("jaxreg: warning: ")
    assert f"step {newest} is damaged" in err
    assert f"step {before} is used instead" in err
    assert "RuntimeWarning" not in err


def test_refits_train_as_long_as_early_stopping_took_and_no_test_row_says_when():
    settings = Settings(
        "wine", model="linear", lams="1e-4,1e-3", steps=40, folds=2, seeds=2, refits=2, lr=0.3,
        batch_size=None, train_size=30, patience=2,
    )  # fmt: skip
    job = prepare(settings)
    result = job.sweep()
    best = result.time[np.nanargmin(result.valid["loss"], -1)].mean((1, 2))
    chosen = dataclasses.replace(
        result.best("min"), index=1, coords={"lam": 1e-3}, point=job.grid[1]
    )
    refit = job.refit(result, [chosen])
    times = np.arange(0, 41, 2)
    expected = [times[np.abs(times - b).argmin()] for b in best]
    assert list(refit.steps) == expected
    assert 0 < refit.steps[0] < 40
    again = jr.sweep(
        job.trainer, job.grid, job.train, validation=job.test, steps=refit.steps[1], seeds=2,
        key=jax.random.fold_in(jax.random.key(0), 1), prepare=job.learnt,
    )  # fmt: skip
    loss, _ = refit.scores("chosen by min")["loss"]
    np.testing.assert_allclose(loss, again.mean()[1], rtol=1e-5)
    assert "steps" in str(dataclasses.replace(refit, steps=(38, 40)))
    assert "steps" not in str(dataclasses.replace(refit, steps=(40, 40)))
