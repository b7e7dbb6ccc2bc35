"""The command's data: bundled sets, files, splits by class, and errors that say where."""

import builtins
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxreg.cli.data import dataset as bundled
from jaxreg.cli.data import load, split, standardizer
from jaxreg.cli.data.files import read_csv


@pytest.fixture
def csv(tmp_path):
    def write(text, name="table.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_text(text, encoding=encoding)
        return str(path)

    return write


@pytest.fixture
def npz(tmp_path):
    def write(**arrays):
        path = tmp_path / "table.npz"
        np.savez(path, **arrays)
        return str(path)

    return write


# --- bundled ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("digits", (1797, 64), 10),
        ("breast_cancer", (569, 30), 2),
        ("wine", (178, 13), 3),
        ("diabetes", (442, 10), None),
    ],
)
def test_bundled_sets_have_their_shapes_dtypes_and_task(name, shape, classes):
    d = load(name)
    assert (d.name, d.X.shape, d.X.dtype, d.n_classes) == (
        name,
        shape,
        np.float32 if name == "digits" else np.float64,
        classes,
    )
    assert len(d.feature_names) == shape[1]
    assert len(d.y) == shape[0]
    assert d.n_outputs == (classes or 1)
    if classes:
        assert d.task == "classification"
        assert d.y.dtype == np.int32
        assert sorted(set(d.y.tolist())) == list(range(classes))
        assert len(d.class_names) == classes
    else:
        assert (d.task, d.y.dtype, d.class_names) == ("regression", np.float64, ())


def test_digits_are_images_scaled_to_one():
    d = load("digits")
    assert d.image_shape == (8, 8, 1)
    assert (d.X.min(), d.X.max()) == (0.0, 1.0)
    assert load("wine").image_shape is None


def test_diabetes_is_raw_since_its_scaled_version_has_seen_the_test_rows():
    d = load("diabetes")
    age = d.X[:, d.feature_names.index("age")]
    assert 19 <= age.min() < age.max() <= 79


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.split(".")[0] == "sklearn":
            raise ImportError("gone")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"'wine' comes with.*pip install 'jaxreg\[data\]'"):
        load("wine")


# --- csv -------------------------------------------------------------------------------------------


def test_a_csv_takes_the_last_column_as_target_by_default(csv):
    d = load(csv("a,b,price\n1,2,0.5\n3,4,1.25\n"))
    assert (d.name, d.task, d.feature_names) == ("table", "regression", ("a", "b"))
    np.testing.assert_array_equal(d.X, np.array([[1, 2], [3, 4]], np.float32))
    np.testing.assert_array_equal(d.y, np.array([0.5, 1.25], np.float32))
    assert d.X.dtype == d.y.dtype == np.float64


def test_a_column_called_target_comes_before_the_last_and_a_name_before_both(csv):
    path = csv("target,a,b\n0.5,1,2\n1.5,3,4\n")
    assert load(path).feature_names == ("a", "b")
    d = load(path, target="a")
    assert d.feature_names == ("target", "b")
    np.testing.assert_array_equal(d.y, np.array([1, 3], np.float32))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_semicolons_tabs_blank_lines_and_a_byte_order_mark_are_read(csv, delimiter):
    text = "a,b,y\n\n 1 ,2,0.5\n3,4,1.5\n\n".replace(",", delimiter)
    d = load(csv(text, encoding="utf-8-sig"))
    assert d.feature_names == ("a", "b")
    assert d.X.tolist() == [[1, 2], [3, 4]]


def test_quoted_cells_may_hold_the_delimiter(csv):
    assert load(csv('"a, in m",y\n"1",0.5\n2,1.5\n')).feature_names == ("a, in m",)


def test_a_text_target_becomes_sorted_classes(csv):
    d = load(csv("a,kind\n1,cat\n2,ant\n3,cat\n4, ant\n"))
    assert (d.task, d.n_classes, d.class_names) == ("classification", 2, ("ant", "cat"))
    assert d.y.tolist() == [1, 0, 1, 0]
    assert d.y.dtype == np.int32


def test_few_whole_numbers_are_classes_and_others_are_quantities(csv):
    few = load(csv("a,y\n" + "".join(f"{i},{2 + i % 3}\n" for i in range(12))))
    assert (few.n_classes, few.class_names) == (3, ("2", "3", "4"))
    assert few.y.tolist()[:3] == [0, 1, 2]
    counts = "".join(f"{i},{i % 21}\n" for i in range(41))
    assert load(csv("a,y\n" + counts)).task == "regression"
    halves = "".join(f"{i},{0.5 * (i % 3)}\n" for i in range(12))
    assert load(csv("a,y\n" + halves)).task == "regression"
    assert load(csv("a,y\n1,1\n2,2\n3,3\n4,4\n")).task == "regression"


CSV_ERRORS = {
    "empty": ("", "table.csv: the file is empty"),
    "blank": ("\n\n", "table.csv: the file is empty"),
    "header only": ("a,y\n", "there is a header but no row below it"),
    "no header": ("1,2\n3,4\n", r"first row must name the columns, but it holds the numbers 1, 2"),
    "twice": ("a,a,y\n1,2,3\n", "the column 'a' is there twice"),
    "separators only": (',\n"",\n', "table.csv: the file is empty"),
    "no header, a gap": ("1,NA\n1,2\n", r"first row must name the columns, but it holds the numbers 1"),
    "no name": (",a,y\n0,1,2\n1,2,3\n", r"column 1 has no name.*to_csv\(path, index=False\)"),
    "short": ("a,y\n1,2\n\n3\n5,6\n", r"rows must have 2 cells as the first one: line 4 has 1\.$"),
    "long": ("a,y\n1,2\n\n3,4,5\n5,6\n", r"must have 2 cells as the first one: line 4 has 3\.$"),
    "all long": ("\na,y\n1,2,0\n3,4,0\n", "as the first one: line 3 has 3, line 4 has 3.$"),
    "open quote": ('a,y\n1,"2\n3,4\n', r"cannot be read as a .csv at line 3: unexpected end of data"),
    "only target": ("y\n1\n2\n", "'y' is the only column; there are no features"),
    "text": (
        "a,city,y\n1,2,1.5\n2,Bonn,0.5\n",
        r"features must be numbers, but there is text in the columns 'city' \(such as 'Bonn'\)",
    ),
    "missing": ("a,b,y\n1,2,1.5\n3,,1.0\nnan,4,0.5\n", r"values in a \(line 4\), b \(line 3\)\. Fill"),
    "infinite": ("a,y\n1,0.5\n1e99,0.25\n", r"infinite values in a \(line 3\)"),
    "target missing": ("a,y\n1,0.5\n2,NA\n", r"infinite values in the target \(line 3\)"),
    "lines in cells": ('\n \na,"y\n\ncm"\n1,"2\n3"\n?,4\n', r"infinite values in a \(line 8\)"),
    "all missing": ("a,y\n1,2\nNA,n/a\n", r"infinite values in a \(line 3\)"),
    "truth": ("a,y\nTrue,1\nFalse,2\n", r"text in the columns 'a' \(such as 'True'\)"),
    "class missing": ("a,y\n1,cat\n2,\n", r"infinite values in the target \(line 3\)"),
    "one value": ("a,y\n1,2.5\n2,2.5\n", "the target is 2.5 in every row; nothing can be learnt"),
    "slip": (
        "a,y\n" + "".join(f"{i},{i / 4}\n" for i in range(30)) + "9,-\n",
        "the target has 30 distinct numbers, which is a quantity, but line 32 holds text: '-'. Correct",
    ),
    "decimal commas": (
        "a;y\n" + "".join(f"{i};{i // 2},{5 * (i % 2)}\n" for i in range(60)),
        "60 distinct numbers.* line 2, line 3, line 4 and 57 more holds text: '0,0'.*for decimal commas give --decimal ,",
    ),
    "names": (
        "a,y\n" + "".join(f"{i},n{i}\n" for i in range(50)),
        "the target is text with 50 distinct values in 50 rows, which cannot be classes",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), CSV_ERRORS.values(), ids=CSV_ERRORS)
def test_a_bad_csv_is_refused_with_the_place(csv, text, message):
    with pytest.raises(ValueError, match=message):
        load(csv(text))


def test_numbers_are_read_to_the_last_bit(csv):
    values = 10 ** np.random.default_rng(0).uniform(-9, 9, 2000)
    path = csv("a,y\n" + "".join(f"{i},{x!r}\n" for i, x in enumerate(values.tolist())))
    np.testing.assert_array_equal(read_csv(Path(path), None).y, values)


def test_labels_stay_as_they_are_written(csv):
    d = load(csv("a,y\n007,1.0\n8,01\n1e1,x\n1,True\n"))
    assert d.class_names == ("01", "1.0", "True", "x")
    assert d.X.tolist() == [[7], [8], [10], [1]]


def test_without_pandas_the_error_names_the_extra(csv, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"a \.csv is read with pandas.*'jaxreg\[data\]'"):
        load(csv("a,y\n1,2\n"))


def test_an_unknown_target_column_is_answered_with_the_columns(csv):
    path = csv("age,price\n1,2\n3,4\n")
    expected = "no target column 'prize'; did you mean 'price'? The columns are age, price."
    with pytest.raises(ValueError, match=re.escape(expected)):
        load(path, target="prize")


def test_many_columns_are_listed_in_part(csv):
    header = ",".join(f"c{i}" for i in range(9))
    with pytest.raises(ValueError, match="c0, c1, c2, c3, c4, c5 and 3 more"):
        load(csv(header + "\n" + ",".join("1" * 9) + "\n"), target="zzz")


def test_a_csv_that_is_no_utf8_says_so(tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("größe,y\n1,2\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.csv: cannot be read as a .csv in UTF-8"):
        load(str(path))


# --- npz -------------------------------------------------------------------------------------------


def test_an_npz_is_read_as_arrays(npz):
    X = np.arange(12.0).reshape(6, 2)
    d = load(npz(X=X, y=np.array([[5], [7], [5], [7], [5], [5]])))
    np.testing.assert_array_equal(d.X, X.astype(np.float32))
    assert (d.n_classes, d.y.tolist(), d.feature_names) == (2, [0, 1, 0, 1, 0, 0], ("x0", "x1"))
    assert d.image_shape is None


@pytest.mark.parametrize(("shape", "image"), [((4, 3, 5), (3, 5, 1)), ((4, 3, 5, 2), (3, 5, 2))])
def test_images_in_an_npz_are_kept_flat_with_their_shape(npz, shape, image):
    X = np.arange(np.prod(shape)).reshape(shape)
    d = load(npz(X=X, y=[0, 1, 0, 1]))
    assert d.image_shape == image
    np.testing.assert_array_equal(d.X.reshape(4, *image), X.reshape(4, *image))
    scaled = load(npz(X=np.full(shape, 255, np.uint8), y=[0, 1, 0, 1]))
    assert (scaled.X == 1).all()


@pytest.mark.parametrize(
    ("y", "classes"), [(["b", "a", "b", "a"], ("a", "b")), ([True, False] * 2, ("0", "1"))]
)
def test_an_npz_target_may_be_text_or_bool(npz, y, classes):
    d = load(npz(X=np.ones((4, 1)), y=y))
    assert d.class_names == classes
    assert d.y.tolist() == [1, 0, 1, 0]


def test_numerals_that_were_saved_as_text_are_classes(npz):
    d = load(npz(X=np.ones((50, 1)), y=np.repeat([f"{i:02}" for i in range(25)], 2)))
    assert (d.n_classes, d.class_names[:2]) == (25, ("00", "01"))


ONES = np.ones((4, 2))
NPZ_ERRORS = {
    "names": ({"x": ONES, "labels": [1]}, "needs the arrays X and y, has labels, x"),
    "lengths": ({"X": ONES, "y": [1, 2, 3]}, "X has 4 rows and y has 3"),
    "flat X": ({"X": np.ones(4), "y": np.ones(4)}, r"X must be \[n, d\].*got shape \(4,\)"),
    "empty X": ({"X": np.ones((0, 2)), "y": []}, r"not empty; got shape \(0, 2\)"),
    "text X": ({"X": ONES.astype(str), "y": np.ones(4)}, "X must hold real numbers, got dtype <U"),
    "complex X": ({"X": ONES * 1j, "y": np.ones(4)}, "real numbers, got dtype complex128"),
    "wide y": ({"X": ONES, "y": ONES}, r"y must be \[n\], one target per row, got shape \(4, 2\)"),
    "scalar y": ({"X": ONES, "y": 3.0}, r"y must be \[n\], one target per row, got shape \(\)"),
    "complex y": ({"X": ONES, "y": np.ones(4) * 1j}, "target must be numbers or text, got dtype c"),
    "NaN": ({"X": np.where(np.eye(4, 2), np.nan, 1), "y": np.arange(4)}, r"x0 \(row 0\), x1 \(row 1\)"),
    "NaN y": ({"X": ONES, "y": [0, 1, np.nan, 1]}, r"infinite values in the target \(row 2\)"),
    "many": ({"X": ONES * np.nan, "y": np.ones(4)}, r"x0 \(row 0, 1, 2 and 1 more\)"),
    "objects": ({"X": ONES, "y": np.array([None] * 4)}, "cannot be read as an .npz"),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "message"), NPZ_ERRORS.values(), ids=NPZ_ERRORS)
def test_a_bad_npz_is_refused_with_the_array(npz, arrays, message):
    with pytest.raises(ValueError, match=message):
        load(npz(**arrays))


def test_a_file_that_is_no_npz_says_so(tmp_path):
    for name, content in [("text.npz", b"hello"), ("array.npz", None)]:
        path = tmp_path / name
        if content is None:
            with path.open("wb") as file:
                np.save(file, ONES)
        else:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: cannot be read as an .npz"):
            load(str(path))


# --- names -----------------------------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_the_list_and_the_nearest():
    expected = "unknown data set 'Digit'; did you mean 'digits'? There are breast_cancer, diabetes"
    with pytest.raises(ValueError, match=re.escape(expected)):
        load("Digit")
    with pytest.raises(ValueError, match=r"unknown data set 'mnist'\. There are breast_cancer"):
        load("mnist")


def test_missing_files_and_other_types_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no such file: '.*gone.csv' \(looked in "):
        load(str(tmp_path / "gone.csv"))
    with pytest.raises(ValueError, match=r"no such file: '.*gone.npz'"):
        load(str(tmp_path / "gone.npz"))
    path = tmp_path / "table.xlsx"
    path.write_text("x")
    with pytest.raises(
        ValueError, match=r"is a file of unknown type '.xlsx'; give a .csv or an .npz"
    ):
        load(str(path))


def test_target_goes_with_csv_only(npz):
    for name in ("digits", npz(X=ONES, y=[1, 2, 3, 4])):
        with pytest.raises(ValueError, match=r"`target` names a column of a \.csv file, and"):
            load(name, target="y")


# --- standardising and splitting -------------------------------------------------------------------


def test_standardizing_gives_mean_zero_and_deviation_one():
    X = np.random.default_rng(0).normal(3, [1e-3, 1, 1e4], size=(50, 3)).astype(np.float32)
    mean, scale = standardizer(X)
    assert mean.dtype == scale.dtype == np.float64
    Z = (X - mean) / scale
    np.testing.assert_allclose(Z.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(Z.std(0), 1, rtol=1e-3)


def test_a_constant_column_stays_finite_and_becomes_zero():
    X = np.full((10, 2), 0.1)  # whose standard deviation rounds to 1e-17, not to 0
    X[:, 1] = np.arange(10)
    mean, scale = standardizer(X)
    assert scale[0] == 1
    assert ((X - mean) / scale)[:, 0].tolist() == [0] * 10


def test_a_target_can_be_standardised_too():
    mean, scale = standardizer(np.array([1.0, 3.0], np.float32))
    assert (mean.shape, float(mean), float(scale)) == ((), 2.0, 1.0)


@pytest.mark.parametrize("train_size", [10, 100, 1000, 1796])
def test_a_split_keeps_the_shares_of_the_classes(train_size):
    d = load("digits")
    (X, y), (X_test, y_test) = split(d, train_size, seed=3)
    assert len(X) == len(y) == train_size
    assert len(X_test) == len(y_test) == 1797 - train_size
    expected = np.bincount(d.y) * train_size / 1797
    assert (np.abs(np.bincount(y, minlength=10) - expected) <= 1).all()
    assert (np.bincount(y, minlength=10) >= 1).all()


def test_a_split_uses_every_row_once_with_its_target(npz):
    n = 40
    X, y = np.arange(n)[:, None], np.repeat([0, 1, 2, 3], [25, 9, 5, 1])
    d = load(npz(X=X, y=y))
    train, test = split(d, 11, seed=0)
    rows = np.concatenate([train[0], test[0]])[:, 0].astype(int)
    assert sorted(rows) == list(range(n))
    np.testing.assert_array_equal(np.concatenate([train[1], test[1]]), y[rows])
    assert set(train[1].tolist()) == {0, 1, 2, 3}


def test_a_split_depends_on_the_seed_only():
    d = load("diabetes")
    (a, _), _ = split(d, 100, seed=1)
    (b, _), _ = split(d, 100, seed=1)
    (c, _), _ = split(d, 100, seed=2)
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_training_rows_are_not_in_the_order_of_their_classes():
    (_, y), (_, y_test) = split(load("wine"), 90, seed=0)
    for labels in (y, y_test):
        assert 20 < np.count_nonzero(np.diff(labels)) < len(labels)


@pytest.mark.parametrize("train_size", [0, -1, 178, 5000])
def test_a_train_size_that_leaves_one_side_empty_is_refused(train_size):
    with pytest.raises(ValueError, match=f"wine has 178 examples.*1 and 177.*got {train_size}"):
        split(load("wine"), train_size, 0)


def test_a_train_size_below_the_number_of_classes_is_refused():
    with pytest.raises(
        ValueError, match="digits has 10 classes, and 9 rows cannot have one of each"
    ):
        split(load("digits"), 9, 0)


def test_the_bundled_names_are_the_ones_in_the_docs():
    for name in bundled._BUNDLED:
        assert name in (load.__doc__ or "")
