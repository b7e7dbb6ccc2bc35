"""Files as people have them: nothing is rounded away, guessed or leaked, and problems name their line."""

import jax
import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from support.files import CLASSES, house
from support.paths import TESTS

from jaxreg.cli.data import Reading, learn, load, split
from jaxreg.cli.job import prepare
from jaxreg.cli.output import describe, sweep_table
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
    """A small run."""
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
    asked = "'y' holds whole numbers of 25 different values, which can be classes or a quantity. Give --task"
    with pytest.raises(ValueError, match=asked):
        load(many)
    assert load(many, task="regression").task == "regression"
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
    for tab in ("\t", "\\t", "tab"):
        rows = csv("a\tb\ty\n1\t2\t0.5\n3\t4\t1.5\n")
        assert load(rows, reading=Reading(delimiter=tab)).X.shape == (2, 2)


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


# --- headers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n6.2,2.9,virginica\n", "it holds the numbers 5.1, 3.5"),
        ("p,x,e\nb,x,p\np,y,e\n", "the first row looks like one of data: 'p' is there again below it"),
    ],
)  # fmt: skip
def test_a_file_without_header_is_suspected(csv, text, match):
    with pytest.raises(ValueError, match=f"{match}.*give --no-header.*give --header"):
        load(csv(text))


def test_what_the_first_row_is_can_be_said(csv):
    iris = "5.1,3.5,setosa\n4.9,3.0,setosa\n6.2,2.9,virginica\n7.0,3.2,virginica\n"
    d = load(csv(iris), reading=Reading(header=False))
    assert (d.feature_names, d.target, d.class_names) == (("1", "2"), "3", ("setosa", "virginica"))
    assert d.X[:, 0].tolist() == [5.1, 4.9, 6.2, 7.0]
    assert load(csv(iris), "1", reading=Reading(header=False, drop=("3",))).feature_names == ("2",)
    years = csv("2019,2020,2021\n1,2,0.5\n3,4,1.5\n")
    assert load(years, reading=Reading(header=True)).feature_names == ("2019", "2020")


def test_a_column_without_a_name_can_be_left_out(csv):
    text = ",a,y\n0,1.5,2\n1,3.5,4.5\n"
    with pytest.raises(ValueError, match="column 1 has no name.*--drop 'column 1'"):
        load(csv(text))
    assert load(csv(text), reading=Reading(drop=("column 1",))).feature_names == ("a",)


# --- everything that is wrong, at once ----------------------------------------------------------------


def test_all_problems_of_a_file_are_told_at_once(csv):
    body = "".join(f"{i},{i % 3},x,{i / 4}\n" for i in range(30))
    path = csv("a,b,kind,y\n" + body + "1,,x,0.5\n1e99,2,y,-\n1,2,3\n1,2,x,0.5,9\n")
    with pytest.raises(ValueError, match="there are 4 problems") as told:
        load(path)
    lines = str(told.value).splitlines()[1:]
    assert lines == [
        "- rows must have 4 cells as the first one: line 34 has 3, line 35 has 5.",
        "- features must be numbers, but there is text in the columns 'kind' (such as 'x'). Give --one-hot "
        "'kind' for a feature of each value, or leave them out with --drop 'kind'.",
        "- there are missing, NaN or infinite values in a (line 33), b (line 32). Fill them or remove those "
        "rows, or give --impute median.",
        "- the target has 30 distinct numbers, which is a quantity, but line 33 holds text: '-'. Correct or "
        "remove it; if these are classes after all, give --task classification.",
    ]


def test_all_names_that_are_unknown_are_told_at_once(csv):
    path = csv("a,b,y\n1,2,0.5\n3,4,1.5\n")
    with pytest.raises(ValueError, match="there are 3 problems") as told:
        load(path, target="z", reading=Reading(drop=("c",), one_hot=("d",)))
    assert [line.split(";")[0].split(".")[0] for line in str(told.value).splitlines()[1:]] == [
        "- there is no column of --drop 'c'",
        "- there is no column of --one-hot 'd'",
        "- there is no target column 'z'",
    ]


# --- text and missing numbers -------------------------------------------------------------------------


@pytest.mark.parametrize("named", [("street",), ("text",)])
def test_text_and_gaps_are_learnt_as_scikit_learn_does(csv, named):
    d = load(csv(house()), reading=Reading(one_hot=named, impute="median"))
    assert d.categories == {"street": ("Hill", "Main", "Oak")}
    assert (d.values, d.n_inputs) == ((0, 3, 0), 5)
    train, test = np.arange(60), np.arange(60, 90)
    got = learn(d.X[train], d.values, "median")(d.X)
    plain = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    hot = make_pipeline(OneHotEncoder(sparse_output=False), StandardScaler())
    expected = ColumnTransformer([("a", plain, [0]), ("s", hot, [1]), ("r", plain, [2])])
    expected.fit(d.X[train])
    for rows in (train, test):
        np.testing.assert_allclose(got[rows], expected.transform(d.X[rows]), atol=1e-5)


def test_a_value_that_training_rows_lack_counts_as_none_of_theirs():
    X = np.array([[0.0, 1.0], [1.0, np.nan], [0.0, 3.0], [2.0, 5.0]])
    encode = learn(X[:3], (3, 0), "mean")
    rows = encode(X)
    assert encode.fill[1] == 2
    np.testing.assert_allclose(rows[3, :3], encode(np.array([[np.nan, 1.0]]))[0, :3])
    assert rows[3, 2] == 0, "a weight that nothing has trained is not used"
    empty = learn(np.array([[np.nan], [np.nan]]), (0,), "median")
    assert empty(np.array([[3.0]])).tolist() == [[3.0]]


def test_every_fold_imputes_and_encodes_by_its_training_rows(csv):
    job = prepare(settings(csv(house()), one_hot="text", impute="mean"))
    X, y = job.train
    rows = np.arange(20)
    encode, _ = job.learnt(X[rows], y[rows])
    x, _ = encode(X, y)
    fill = np.nanmean(X[rows, 0])
    filled = np.where(np.isnan(X[:, 0]), fill, X[:, 0])
    column = (filled - filled[rows].mean()) / filled[rows].std()
    np.testing.assert_allclose(x[:, 0], column, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"one_hot": ("price",)}, "'price' of --one-hot is no feature"),
        ({"one_hot": ("street",), "drop": ("street",)}, "'street' of --one-hot is no feature"),
        ({"one_hot": ("area", "street")}, "'area' of --one-hot has 4[0-9] different values in 50 rows"),
        ({"one_hot": ("text",), "features": ("area", "rooms")}, "no feature holds text, so --one-hot"),
        ({"delimiter": "::"}, "--delimiter: give one character, or tab, got '::'"),
        ({"one_hot": ("street",)}, "missing, NaN or infinite values in area .* give --impute median"),
    ],
)  # fmt: skip
def test_text_and_gaps_that_cannot_be_learnt(csv, options, match):
    with pytest.raises(ValueError, match=match):
        load(csv(house(50)), reading=Reading(**options))


# --- an index that tells the target -------------------------------------------------------------------


@pytest.mark.parametrize("order", ["in order", "shuffled"])
def test_an_index_that_predicts_the_target_is_warned_of(csv, order):
    text = (DATA / "index_leak.csv").read_text()
    head, *rows = text.strip().splitlines()
    if order == "shuffled":
        rows = np.random.default_rng(0).permutation(rows).tolist()
    path = csv("id" + head + "\n" + "\n".join(rows) + "\n")
    (warning,) = prepare(settings(path)).warnings
    assert "the column 'id' numbers the rows and tells the target" in warning
    assert "--drop 'id'" in warning
    assert prepare(settings(path, drop="id")).warnings == ()


def test_an_index_that_predicts_nothing_and_an_honest_feature_are_not_warned_of(csv):
    rng = np.random.default_rng(0)
    y = rng.normal(size=80)
    path = csv("id,a,y\n" + "".join(f"{i},{v + 0.1},{v}\n" for i, v in enumerate(y.tolist())))
    assert prepare(settings(path)).warnings == ()
    ages = "".join(f"{v},{v * 1.5}\n" for v in rng.integers(0, 60, 80).tolist())
    assert prepare(settings(csv("age,y\n" + ages))).warnings == ()


# --- a test file, a metric, a model to use ------------------------------------------------------------


def test_the_rows_of_a_test_file_are_the_test_set(csv):
    train, test = csv(house()), csv(house(30, seed=1), "test.csv")
    job = prepare(settings(train, test=test, one_hot="text", impute="median"))
    assert (len(job.train[1]), len(job.test[1])) == (90, 30)
    prices = [float(line.split(",")[3]) for line in house(30, seed=1).splitlines()[1:]]
    np.testing.assert_array_equal(job.test[1], prices)
    assert job.warnings == ()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"train_size": 20}, "--train-size and --test contradict each other"),
        ({"test": "data"}, "--test is the file that is trained on"),
        ({"test": "a,rooms,price\n1,2,3\n"}, r"2 problems.\n- there is no column 'area'.*\n- .*'street'"),
        ({"test": "area,street,rooms\n1,Oak,3\n"}, "there is no target column 'price'"),
        ({"test": "area,street,rooms,price\n1,Oak,3,x\n"}, "must be a number, and is 'x' in line 2"),
        ({"data": "wine"}, "--test is about a file of yours; 'wine' is split by --train-size"),
    ],
)  # fmt: skip
def test_a_test_file_that_is_none(csv, options, match):
    train = csv(house(40, gaps=0))
    test = csv(options.pop("test", house(9, 2, gaps=0)), "test.csv")
    given = {
        "data": train,
        "test": train if "data\n" in test else test,
        "one_hot": "text",
    } | options
    if match.startswith("--test is the file"):
        given["test"] = train
    if given["data"] == "wine":
        given["one_hot"] = ""
    with pytest.raises(ValueError, match=match):
        prepare(settings(**given))


def test_a_class_that_a_fold_has_none_of_to_train_on_is_refused(csv):
    rows = [f"{i % 7}.{i},{'yes' if i % 2 else 'no'}" for i in range(30)]
    path = csv("\n".join(["x,y", *rows, "3,maybe"]) + "\n")
    given = {"train_size": 30, "folds": 3}
    with pytest.raises(ValueError, match="--folds: fold . is judged on the class 'maybe' and has no row .*"
                       "got 1 of it in all; .* Leave the rows of the class out"):  # fmt: skip
        prepare(settings(path, **given))
    with pytest.raises(ValueError, match="folds: fold . is judged on the class"):
        prepare(settings(path, stratify=True, **given))
    ordered = enumerate(sorted(rows, key=lambda row: row[-2:]))
    grouped = "".join(f"{i // 10},{row}\n" for i, row in ordered)
    grouped = csv("who,x,y\n" + grouped, "groups.csv")
    with pytest.raises(ValueError, match="is judged on the class '.*Give --stratify, or leave"):
        prepare(settings(grouped, groups="who", folds=2, train_size=20))


def test_rows_that_are_in_both_files_are_told(csv):
    text = house(40, gaps=0)
    head, *rows = text.splitlines()
    test = csv(
        "\n".join([head, *rows[:10], *house(15, 3, gaps=0).splitlines()[1:]]) + "\n", "test.csv"
    )
    (warning,) = prepare(settings(csv(text), test=test, one_hot="text")).warnings
    assert warning.startswith(
        "10 of the 25 rows of --test are rows of the data too, the first is row 0"
    )
    most = csv("\n".join([head, *rows[:10]]) + "\n", "most.csv")
    with pytest.raises(
        ValueError, match="--test must be rows that are not trained on, got 10 of the 10"
    ):
        prepare(settings(csv(text), test=most, one_hot="text"))


@pytest.mark.parametrize(
    ("data", "metric"),
    [(CLASSES, "roc_auc"), (CLASSES, "f1"), (house(), "mae"), (house(), "r2")],
)
def test_the_metric_that_was_asked_for_chooses(csv, data, metric):
    s = settings(
        csv(data), task="classification" if data is CLASSES else "auto", metric=metric,
        one_hot="" if data is CLASSES else "text", impute="median", steps=60,
    )  # fmt: skip
    job = prepare(s)
    result = job.sweep(progress=False)
    score = result.mean(metric) * (1 if metric == "mae" else -1)
    assert job.choices(result)[0].index == np.argmin(score)
    words = {"mae": "lowest mean validation mae"}.get(metric, f"highest mean validation {metric}")
    assert f"min: {words}." in sweep_table(result, metric=metric)


@pytest.mark.parametrize(
    ("data", "metric", "match"),
    [
        ("wine", "roc_auc", "no 'roc_auc' for this target"),
        ("diabetes", "accuracy", "There are loss, rmse, r2, mae, mse"),
        ("wine", "acuracy", "did you mean 'accuracy'"),
    ],
)
def test_a_metric_that_there_is_not(data, metric, match):
    with pytest.raises(ValueError, match=f"--metric: .*{match}"):
        prepare(settings(data, metric=metric))
