"""The command: a whole small run and what it leaves, and one clear line for every mistake."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from support.paths import TESTS

import jaxreg as jr
from jaxreg.choice import RULES
from jaxreg.cli import main, options, output
from jaxreg.cli.folder import RunFolder
from jaxreg.cli.job import prepare
from jaxreg.cli.settings import Settings, parse_lams, parse_penalty, penalty_signatures

SMALL = ["--hidden", "8", "--steps", "6", "--folds", "2", "--seeds", "1", "--refits", "2"]
SMALL += ["--batch-size", "16", "--train-size", "40", "--lams", "1e-4:1:3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One small run: its folder and what it printed."""
    import contextlib
    import io

    folder, out = tmp_path_factory.mktemp("run") / "new", io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["sweep", "digits", *SMALL, "--out", str(folder)]) == 0
    return folder, out.getvalue()


def fails(capsys, *argv):
    """The message of a command that must fail with status 2 and no traceback."""
    try:
        status = main(list(argv))
    except SystemExit as error:  # argparse's own
        status = error.code
    assert status == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err


def test_a_run_says_what_it_does_and_what_it_found(run):
    _, out = run
    for words in ("40 to train on, 1757 held out", "3 λ x 2 folds x 1 seeds = 6 trainings",
                  "Dense_0/kernel", "valid loss", "λ chosen by min", "λ chosen by paired",
                  "no penalty", "test loss", "test accuracy", "±"):  # fmt: skip
        assert words in out, words


def test_a_run_leaves_results_tables_plots_and_settings(run):
    folder, out = run
    names = {p.name for p in folder.iterdir()}
    assert names == {"settings.json", "result.npz", "table.txt", "test.json", "curves.csv",
                     "validation.png", "learning_curves.png", "model.npz"}  # fmt: skip
    for name in ("validation.png", "learning_curves.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert (folder / "table.txt").read_text().splitlines()[0] in out
    result = jr.SweepResult.load(folder / "result.npz")
    np.testing.assert_allclose(result.coords["lam"], [1e-4, 1e-2, 1], rtol=1e-6)
    assert result.valid["loss"].shape[:3] == (3, 2, 1)
    test = json.loads((folder / "test.json").read_text())
    assert [row["name"] for row in test] == ["no penalty", "chosen by min", "chosen by paired"]
    assert test[0]["lam"] == 0


def test_a_finished_run_is_chosen_from_again(run, capsys):
    folder, _ = run
    result = jr.SweepResult.load(folder / "result.npz")
    assert main(["choose", str(folder)]) == 0
    out = capsys.readouterr().out
    for rule in RULES:
        (line,) = [text for text in out.splitlines() if text.startswith(f"{rule} ")]
        assert f"{result.best(rule).coords['lam']:.3g}" in line
    assert f"jaxreg sweep --again {folder / 'settings.json'} --choose" in out
    assert main(["choose", str(folder), "percent", "--within", "30", "--metric", "accuracy"]) == 0
    assert capsys.readouterr().out == f"{result.best('percent', 'accuracy', within=30)}\n"
    assert "got 'best'" in fails(capsys, *["choose", str(folder), "best"])
    assert "--within is about one rule" in fails(capsys, *["choose", str(folder), "--within", "2"])
    assert "got 'f1'" in fails(capsys, *["choose", str(folder), "--metric", "f1"])
    assert "no folder of a run" in fails(capsys, *["choose", str(folder / "no")])


def test_a_run_that_has_not_ended_has_nothing_to_choose_from(run, tmp_path, capsys):
    shutil.copy(run[0] / "settings.json", tmp_path)
    err = fails(capsys, *["choose", str(tmp_path)])
    assert "has not ended. Go on: jaxreg sweep --resume" in err


def test_the_rules_that_were_asked_for_are_refitted(tmp_path, capsys):
    argv = [
        "wine",
        "--model",
        "linear",
        "--lams",
        "1e-3:1:5",
        "--steps",
        "40",
        "--folds",
        "2",
        "--batch-size",
        "16",
    ]
    argv += ["--seeds", "1", "--refits", "2", "--choose", "parabola,1se"]
    argv += ["--out", str(tmp_path / "a")]
    assert main(["sweep", *argv]) == 0
    assert "chosen by parabola" in capsys.readouterr().out
    test = json.loads((tmp_path / "a" / "test.json").read_text())
    assert [row["name"] for row in test] == ["no penalty", "chosen by parabola", "chosen by 1se"]
    result = jr.SweepResult.load(tmp_path / "a" / "result.npz")
    assert test[1]["lam"] == pytest.approx(result.best("parabola").coords["lam"])


ALL_ROWS = [
    "wine", "--model", "linear", "--lams", "3e-2:1:4", "--steps", "400", "--folds", "2", "--optimizer", "sgd",
    "--lr", "0.3", "--batch-size", "0", "--seeds", "1", "--refits", "2",
]  # fmt: skip


def test_rules_without_folds_train_every_lam_on_all_rows(tmp_path, capsys):
    folder = tmp_path / "a"
    argv = [*ALL_ROWS, "--choose", "min,evidence,loo", "--out", str(folder)]
    assert main(["sweep", *argv]) == 0
    out = capsys.readouterr().out
    assert "4 more on all rows, for evidence and loo." in out
    job = prepare(Settings.from_json(folder / "settings.json"))
    whole = jr.SweepResult.load(
        folder / "whole.npz", like=(job.grid[0], job.model.init(jax.random.key(0)))
    )
    learn = job.learnt(*job.train)
    data = learn(*job.train)
    for rule, found in (
        ("evidence", jr.evidence(job.model.apply, whole, data)),
        ("loo", jr.leave_one_out(job.model.apply, whole, data, likelihood="categorical")),
    ):
        lam = float(found.best().coords["lam"])
        assert f"λ chosen by {rule}: {lam:.3g}" in out
        assert main(["choose", str(folder), rule]) == 0
        assert capsys.readouterr().out.startswith(f"{rule}: lam={lam:.4g}")
    test = json.loads((folder / "test.json").read_text())
    assert [row["name"] for row in test][2:] == ["chosen by evidence", "chosen by loo"]
    assert main(["choose", str(folder), "min", "loo"]) == 0
    assert "(leave-one-out loss)" in capsys.readouterr().out


REFUSED = [
    (["--choose", "loo"], "leaving a row out by a formula needs a linear model, got --model mlp"),
    (["--choose", "evidence", "--penalty", "l1"], "l1.on(kernels) is no quadratic"),
    (["--choose", "evidence", "--coupling", "decoupled"], "does not minimise loss + penalty"),
    (["--choose", "evdence"], "did you mean 'evidence'?"),
]


@pytest.mark.parametrize(("argv", "match"), REFUSED)
def test_rules_without_folds_say_what_they_need(argv, match, capsys):
    assert match in fails(capsys, "sweep", *argv)


def test_a_run_by_folds_alone_has_no_models_of_all_rows(run, capsys):
    err = fails(capsys, "choose", str(run[0]), "evidence")
    assert "--choose evidence,loo" in err
    assert "the run chose by folds alone" in err


@pytest.mark.parametrize(
    ("rules", "match"),
    [
        ("mni", "did you mean 'min'?"),
        ("", "each once"),
        ("min,min", "each once"),
        ("min,x", "no rule 'x'"),
    ],
)
def test_rules_that_are_none(rules, match, capsys):
    assert match in fails(capsys, *["sweep", "--choose", rules])


def test_a_narrow_terminal_gets_fewer_columns_and_is_told(run):
    result = jr.SweepResult.load(run[0] / "result.npz")
    whole = output.sweep_table(result)
    width = len(whole.splitlines()[2])  # of the line below the headers
    assert whole == str(result.table()) == output.sweep_table(result, width)
    narrow = output.sweep_table(result, width - 1)
    assert len(narrow.splitlines()[2]) < width - len("train accuracy")
    assert "train accuracy" not in narrow.splitlines()[1]
    assert "train loss" in narrow.splitlines()[1]
    assert narrow.endswith("not shown, for want of width: train accuracy; see table.txt.")
    least = output.sweep_table(result, 10)
    assert "valid loss" in least
    assert "train loss" not in least.splitlines()[1]


def test_the_settings_run_the_same_again(run, tmp_path, capsys):
    folder, _ = run
    again = tmp_path / "again"
    assert main(["sweep", "--again", str(folder / "settings.json"), "--out", str(again)]) == 0
    capsys.readouterr()
    assert (again / "test.json").read_text() == (folder / "test.json").read_text()
    assert (again / "curves.csv").read_text() == (folder / "curves.csv").read_text()


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(run, capsys):
    folder, _ = run
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    err = fails(capsys, "sweep", "digits", *SMALL, "--out", str(folder))
    assert "already holds another run" in err
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_without_out_each_run_takes_the_next_free_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [str(RunFolder.new(None, Settings()).path) for _ in range(3)]
    assert names == ["runs/digits", "runs/digits-2", "runs/digits-3"]
    assert RunFolder.new("fresh", Settings()).release()
    assert not (tmp_path / "fresh").exists()


def test_options_besides_again_come_before_those_of_the_file(tmp_path):
    old = {"data": "wine", "hidden": [8], "steps": 5, "batch_size": 9, "patience": 3}
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(old))
    read = lambda *argv: options.settings(options.parser().parse_args(["sweep", *argv]))
    before = Settings(**{**old, "hidden": (8,)})
    assert read("--again", str(file)) == before, "what an older file lacks has its default"
    argv = ["--steps", "7", "--batch-size", "0", "--patience", "0", "--halving", "0.5:2"]
    expected = dataclasses.replace(before, steps=7, batch_size=None, patience=None, halving="0.5:2")
    assert read("--again", str(file), *argv) == expected
    assert read() == Settings()
    assert read("x.csv", "--tensorboard", "--chunk", "4") == Settings(
        "x.csv", tensorboard=True, chunk=4
    )
    file.write_text('{"stepz": 3}')
    with pytest.raises(ValueError, match=r"no settings file of this version \(\['stepz'\]\)"):
        Settings.from_json(file)


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["digit"], "digits"),
        (["no/such.csv"], "no/such.csv"),
        (["digits", "--lams", "-1,2"], "--lams"),
        (["digits", "--lams", ""], "--lams"),
        (["digits", "--lams", "1:0:3"], "a range needs 0 < LOW <= HIGH"),
        (["digits", "--lams", "nan"], "--lams"),
        (
            ["digits", "--penalty", "elasticnet"],
            "unknown penalty 'elasticnet'; did you mean 'elastic_net'",
        ),
        (["digits", "--penalty", "l2:ratio=1"], "l2 takes weights, center"),
        (["digits", "--on", "*/nothing"], "matches none of the 6 leaves"),
        (["digits", "--penalty", "group_lasso:axis=4"], "`axis` 4 is out of range"),
        (["digits", "--train-size", "99999"], "1797"),
        (
            ["digits", "--train-size", "10", "--folds", "11", "--batch-size", "0"],
            "between 2 and the 10",
        ),
        (["digits", "--train-size", "20", "--batch-size", "64"], "between 1 and the 16 rows"),
        (["digits", "--steps", "0"], "--steps must be a whole number of at least 1"),
        (["digits", "--refits", "0"], "--refits must be a whole number of at least 1"),
        (["digits", "--seeds", "0"], "--seeds must be a whole number of at least 1"),
        (["digits", "--folds", "1"], "--folds must be a whole number of at least 2"),
        (["digits", "--lr", "nan"], "--lr must be a finite number above 0"),
        (["digits", "--hidden", "8,0"], "--hidden must be a list of widths"),
        (["digits", "--out", ""], "--out: got an empty path"),
        (["digits", "--out", "/proc/nothing/run"], "No such file or directory (/proc/nothing)"),
        (["diabetes", "--model", "cnn"], "image"),
        (["digits", "--coupling", "magic"], "invalid choice: 'magic'"),
        (["--again", "nowhere.json"], "cannot read settings"),
        (["digits", "--halving", "half"], "--halving: cannot read 'half'"),
        (["digits", "--halving", "2:3"], "`keep` must be between 0 and 1"),
        (["digits", "--halving", "0.5:9", "--steps", "6"], "9 rungs that keep 0.5 each do not fit"),
        (
            ["digits", "--patience", "-1"],
            "--patience must be a whole number of at least 1 and below 2**31, got -1",
        ),
        (["digits", "--chunk", "99"], "`chunk` must be between 1 and the 16 points, got 99"),
    ],
)
def test_mistakes_get_one_line_and_leave_no_folder(argv, match, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    err = fails(capsys, "sweep", *argv)
    assert match in err
    assert not list(tmp_path.rglob("*.json")), "no folder is left behind"


OF_ANOTHER_KIND = {
    "task": "guess", "steps": 2.5, "seeds": "3", "refits": True, "lr": "fast", "hidden": 8, "stratify": "no",
    "penalty": None, "target": 3, "header": 1, "coupling": ["auto"], "optimizer": {}, "batch_size": 0,
    "chunk": 2**40, "decimal": ";", "lams": [0.1], "hidden ": "x",
}  # fmt: skip


@pytest.mark.parametrize("name", OF_ANOTHER_KIND)
def test_settings_of_another_kind_are_refused_where_they_are_read(name, tmp_path):
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({name: OF_ANOTHER_KIND[name]}))
    unknown = "is no settings file of this version"
    said = unknown if name.endswith(" ") else f"cannot be run: --{name.replace('_', '-')} must"
    with pytest.raises(ValueError, match=f"settings: .*settings.json' {said}"):
        Settings.from_json(file)


def test_a_full_disk_is_one_line_and_the_run_goes_on_from_there(tmp_path):
    """Files of this process may have 20 kB: neither the checkpoint nor the result fits."""
    small = ["--steps", "6", "--folds", "2", "--seeds", "1", "--refits", "1", "--lams", "0.1,1"]
    small += ["--batch-size", "16", "--hidden", "64", "--out", str(tmp_path / "full")]
    command = [
        "bash",
        "-c",
        f"ulimit -f 20; exec {sys.executable} -m jaxreg sweep wine {' '.join(small)}",
    ]
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    full = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert full.returncode == 2
    assert "a checkpoint could not be written" in full.stderr
    assert "jaxreg: File too large.\n" in full.stderr
    assert "Traceback" not in full.stderr
    assert f"Go on: jaxreg sweep --resume {tmp_path / 'full'}" in full.stderr
    assert main(["sweep", "--resume", str(tmp_path / "full")]) == 0
    assert (tmp_path / "full" / "model.npz").exists()


def test_a_csv_with_text_and_one_without_its_target(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("x,colour,y\n1,red,2\n2,blue,3\n")
    assert "colour" in fails(capsys, "sweep", "a.csv")
    (tmp_path / "b.csv").write_text("x,y\n1,2\n2,3\n")
    err = fails(capsys, "sweep", "b.csv", "--target", "price")
    assert "price" in err
    assert "x" in err


def test_help_is_worth_reading(capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    out = capsys.readouterr().out
    for words in (
        "examples:",
        "LOW:HIGH:COUNT",
        "default 1e-5:1e-1:16",
        "exact zeros",
        "runs/DATA",
        "--halving 0.5:3",
        "--resume runs/digits",
        "Ctrl-C",
    ):
        assert words in out
    with pytest.raises(SystemExit):
        main(["--version"])
    assert jr.__version__ in capsys.readouterr().out


def test_every_penalty_with_a_strength_can_be_swept_and_is_listed(capsys):
    assert main(["penalties"]) == 0
    out = capsys.readouterr().out
    assert {"l1", "l2", "elastic_net", "group_lasso"} <= set(penalty_signatures())
    for name in penalty_signatures():
        assert name in out
    assert repr(parse_penalty("elastic_net:l1_ratio=0.3")(0.5)) == "elastic_net(0.5, l1_ratio=0.3)"


def test_lams():
    np.testing.assert_allclose(parse_lams("1e-6:1:4"), [1e-6, 1e-4, 1e-2, 1])
    np.testing.assert_allclose(parse_lams("1,0, .5"), [0, 0.5, 1])


@pytest.mark.parametrize("coupling", ["gradient", "decoupled", "proximal"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_every_coupling_and_optimizer_trains(coupling, optimizer, tmp_path, capsys):
    argv = ["sweep", "wine", "--model", "linear", "--penalty", "l1", "--lams", "1e-3,1e-2"]
    argv += ["--steps", "4", "--folds", "2", "--seeds", "1", "--refits", "2", "--train-size", "60"]
    argv += ["--batch-size", "0", "--coupling", coupling, "--optimizer", optimizer]
    assert main([*argv, "--out", str(tmp_path / "x")]) == 0
    assert "no penalty" in capsys.readouterr().out


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_cache_keeps_programs_for_the_next_process(by, tmp_path):
    """Run twice in processes of their own: the second finds what the first compiled."""
    words = "sweep wine --model linear --lams 1e-3,1e-2 --steps 4 --folds 2 --seeds 1 --refits 2 "
    argv = [*words.split(), "--train-size", "60", "--batch-size", "0"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    if by == "option":
        argv += ["--cache", str(tmp_path / "cache")]
    else:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "cache")
    code = f"""
import sys
from jaxreg.cli import main
import jaxreg.cli.output as output
output._plots = lambda folder, result, metric: None
hits = []
import jax.monitoring
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
code = main({argv!r} + ["--out", sys.argv[1]])
print("hits", sum("cache_hits" in e for e in hits), "misses", sum("cache_misses" in e for e in hits))
sys.exit(code)
"""
    said = []
    for name in ("first", "second"):
        child = [sys.executable, "-c", code, str(tmp_path / name)]
        run = subprocess.run(
            child, cwd=TESTS, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        said.append([int(n) for n in run.stdout.splitlines()[-1].split()[1::2]])
    assert said[0][1] > 0
    assert said[1][1] == 0 < said[1][0]
