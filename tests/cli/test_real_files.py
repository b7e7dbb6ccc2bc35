"""Files as people have them: nothing is rounded away, guessed or leaked, and problems name their line."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from support.paths import TESTS

from jaxreg.cli.data import load, split
from jaxreg.cli.files import Reading
from jaxreg.cli.job import prepare
from jaxreg.cli.output import describe
from jaxreg.cli.settings import Settings
from jaxreg.fit.splits import make_splits

DATA = TESTS / "cli" / "data"


@pytest.fixture
def csv(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def settings(data, **options):
    small = {"model": "linear", "steps": 300, "folds": 3, "seeds": 1, "refits": 2, "lr": 0.1}
    return Settings(str(data), **(small | {"lams": "1e-3:1:3", "batch_size": None} | options))


# --- numbers stay numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "match"),
    [
        (
            "target_one_dash",
            r"31 distinct numbers, which is a quantity, but line \d+ holds text: '-'",
        ),
        (
            "decimal_comma_only_in_target",
            r"31 distinct numbers.* holds text: '9,4'.*give --decimal ,",
        ),
        ("index_leak", r"column 1 has no name.*to_csv\(path, index=False\)"),
    ],
)
def test_a_numeric_target_with_a_slip_is_named_by_its_line_and_is_no_class(name, match):
    with pytest.raises(ValueError, match=match):
        load(str(DATA / f"{name}.csv"))


def test_the_line_is_the_one_of_the_slip():
    text = (DATA / "target_one_dash.csv").read_text().splitlines()
    line = 1 + next(i for i, row in enumerate(text) if row.endswith(",-"))
    with pytest.raises(ValueError, match=f"but line {line} holds text"):
        load(str(DATA / "target_one_dash.csv"))


@pytest.mark.parametrize("slip", ["#N/A", "1,234", "12 %", "ca. 5"])
def test_other_slips_are_named_too(csv, slip):
    rows = "".join(f"{i};{i / 4}\n" for i in range(30))
    with pytest.raises(ValueError, match=r"30|31 distinct numbers.* line 32 holds text: "):
        load(csv(f"a;y\n{rows}9;{slip}\n"))


def test_decimal_commas_are_read_where_they_are_said():
    d = load(str(DATA / "decimal_comma_only_in_target.csv"), reading=Reading(decimal=","))
    assert d.task == "regression"
    assert d.y[0] == 9.4
    assert d.X[0, 0] == 7.4, "a point is a point in the other columns"


def test_times_since_1970_keep_their_digits():
    """101 distinct times were 2 in float32."""
    d = load(str(DATA / "unix_time.csv"))
    distinct = len(np.unique(d.X[:, 0]))
    job = prepare(settings(DATA / "unix_time.csv"))
    rows, _ = job.learnt(*job.train)
    x, _ = rows(*job.train)
    assert x.dtype == np.float32
    assert len(np.unique(x)) == len(np.unique(job.train[0])) > 0.7 * distinct
    slope = np.polyfit(x[:, 0], rows(*job.train)[1], 1)
    result = job.sweep(progress=False)
    np.testing.assert_allclose(
        np.ravel(result.lane(0)["params"]["Dense_0"]["kernel"])[0], slope[0], atol=0.05
    )


# --- what is said is done ---------------------------------------------------------------------------


def test_the_task_can_be_said(csv):
    path = csv("a,y\n" + "".join(f"{i},{i % 3}\n" for i in range(30)))
    assert load(path).task == "classification"
    assert load(path, task="regression").task == "regression"
    many = csv("a,y\n" + "".join(f"{i},{i % 25}\n" for i in range(60)))
    assert load(many).task == "regression"
    assert load(many, task="classification").n_classes == 25


def test_columns_can_be_left_out_or_chosen(csv):
    path = csv("id,a,b,y\n7,1,2,0.5\n8,3,4,1.5\n")
    assert load(path, reading=Reading(drop=("id",))).feature_names == ("a", "b")
    assert load(path, reading=Reading(features=("b", "a"))).feature_names == ("a", "b")
    expected = "there is no the column of --drop 'idd'; did you mean 'id'"
    with pytest.raises(ValueError, match=expected.replace("the column", "column")):
        load(path, reading=Reading(drop=("idd",)))


def test_the_delimiter_can_be_said(csv):
    assert load(csv("a|b|y\n1|2|0.5\n3|4|1.5\n"), reading=Reading(delimiter="|")).X.shape == (2, 2)


def test_a_file_of_ones_own_trains_on_three_quarters_and_counts_its_classes(csv):
    path = csv("a,kind\n" + "".join(f"{i},{'cat' if i % 4 else 'dog'}\n" for i in range(40)))
    job = prepare(settings(path))
    assert len(job.train[1]) == 30
    assert "40 examples with 2 classes (cat: 30, dog: 10)" in describe(job)
    assert len(prepare(settings("wine")).train[1]) == 100


# --- scores -----------------------------------------------------------------------------------------


def test_every_fold_is_scaled_by_its_training_rows_and_scored_in_the_units_of_the_target(csv):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2)) * [1, 50] + [100, 3]
    y = 1000 + 30 * x[:, 0] + x[:, 1] + 5 * rng.normal(size=80)
    rows = "".join(f"{a!r},{b!r},{c!r}\n" for (a, b), c in zip(x.tolist(), y.tolist()))
    job = prepare(settings(csv("a,b,price\n" + rows), steps=800))
    result = job.sweep(progress=False)
    X, Y = job.train
    table = make_splits(3, len(X), 0, jax.random.key(0)).table
    for f in range(3):
        train, valid = table.rows[f][: table.count[f]], table.valid[f]
        mean, scale, level, unit = (
            X[train].mean(0),
            X[train].std(0),
            Y[train].mean(),
            Y[train].std(),
        )
        ridge = Ridge(1e-3 * len(train)).fit((X[train] - mean) / scale, (Y[train] - level) / unit)
        error = level + unit * ridge.predict((X[valid] - mean) / scale) - Y[valid]
        got = result.valid["rmse"][0, f, 0, -1]
        np.testing.assert_allclose(got, np.sqrt(np.mean(error**2)), rtol=2e-2)
        r2 = 1 - np.mean(error**2) / Y[valid].var()
        np.testing.assert_allclose(result.valid["r2"][0, f, 0, -1], r2, atol=2e-3)


def test_a_split_is_of_the_rows_as_they_are():
    d = load("diabetes")
    (X, _), (X_test, _) = split(d, 100, 0)
    assert X.dtype == np.float64
    assert len(X) + len(X_test) == 442


# --- groups and times -------------------------------------------------------------------------------


def visits(n=60):
    rows = (
        f"{i % 7},{i},p{i % 12},2024-0{1 + i // 20}-{1 + i % 20:02},{(i * 37) % 11 / 4}"
        for i in range(n)
    )
    return "a,b,patient,day,y\n" + "\n".join(rows) + "\n"


def test_groups_are_split_whole_everywhere(csv):
    path = csv(visits())
    job = prepare(settings(path, groups="patient", drop="day"))
    assert job.dataset.feature_names == ("a", "b")
    of = dict(zip(job.dataset.X[:, 1].tolist(), job.dataset.groups.tolist()))
    trained = {of[b] for b in job.train[0][:, 1].tolist()}
    assert not trained & {of[b] for b in job.test[0][:, 1].tolist()}
    assert 40 <= len(job.train[1]) <= 50
    for train, valid in job.folds:
        names = [{of[b] for b in job.train[0][rows, 1].tolist()} for rows in (train, valid)]
        assert not names[0] & names[1]


def test_what_comes_later_is_judged(csv):
    job = prepare(settings(csv(visits()), time="day", drop="patient"))
    when = dict(zip(job.dataset.X[:, 1].tolist(), job.dataset.times.tolist()))
    trained, tested = ([when[b] for b in part[0][:, 1].tolist()] for part in (job.train, job.test))
    assert max(trained) < min(tested)
    for train, valid in job.folds:
        assert max(trained[i] for i in train) < min(trained[i] for i in valid)
    result = job.sweep(progress=False)
    assert result.status.shape[1] == 3


def test_folds_can_be_stratified(csv):
    path = csv("a,kind\n" + "".join(f"{i},{'cat' if i % 8 else 'dog'}\n" for i in range(64)))
    job = prepare(settings(path, stratify=True))
    rare = job.train[1] == 1
    assert sorted(rare[valid].sum() for _, valid in job.folds) == [2, 2, 2]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"groups": "nobody"}, "no column of --groups 'nobody'"),
        ({"groups": "patient", "time": "day"}, "--groups and --time contradict each other"),
        ({"time": "day", "stratify": True, "drop": "patient"}, "--stratify and --time contradict"),
        (
            {"time": "patient", "drop": "day"},
            "--time must hold numbers or dates .* got 'p0' in line 2",
        ),
    ],
)
def test_groups_and_times_that_say_nothing(csv, options, match):
    with pytest.raises(ValueError, match=match):
        prepare(settings(csv(visits()), **options))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"task": "regression"}, "--task is about a file of yours; 'wine' is what it is"),
        ({"drop": "ash"}, "--drop is about a .csv file, and 'wine' is none"),
        ({"groups": "ash"}, "--groups is about a .csv file"),
        ({"decimal": ","}, "--decimal is about a .csv file"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        prepare(settings("wine", **options))
