"""`jaxreg predict`: the model that a run leaves says of new rows what the formula says."""

import re

import numpy as np
import pytest
from support.files import CLASSES, house

from jaxreg import SweepResult
from jaxreg.cli import main
from jaxreg.cli.data import learn
from jaxreg.cli.folder import RunFolder
from jaxreg.cli.job import prepare


@pytest.fixture
def csv(tmp_path):
    def write(text, name="table.csv"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def read_csv_text(text):
    head, *rows = [line.split(",") for line in text.strip().splitlines()]
    return head, rows


def test_a_run_leaves_a_model_that_predicts_new_rows(csv, tmp_path, capsys):
    """Against the formula of ridge on rows that scikit-learn encodes."""
    train, out = csv(house(90, gaps=0)), tmp_path / "run"
    argv = ["--model", "linear", "--one-hot", "text", "--train-size", "80", "--lams", "0.05,0.1"]
    argv += ["--steps", "400", "--lr", "0.1", "--folds", "2", "--seeds", "1", "--refits", "2"]
    assert main(["sweep", train, *argv, "--batch-size", "0", "--out", str(out)]) == 0
    capsys.readouterr()
    new = csv(
        "rooms,price,more,street,area\n3,1e5,x,Oak,50\n\n4,2e5,y,Main,150\n2,1e5,z,Elm,80\n",
        "new.csv",
    )
    assert main(["predict", str(out), new]) == 0
    said = capsys.readouterr()
    head, rows = read_csv_text(said.out)
    assert head == ["line", "prediction"]
    assert [r[0] for r in rows] == ["2", "4", "5"]
    assert "1 of them have a value of 'street' that training rows did not have" in said.err
    assert "compared with 'price': rmse" in said.err
    job = prepare(RunFolder.existing(str(out), "here").settings())
    X, y = job.train
    encode = learn(X, job.dataset.values)
    x, lam = encode(X), SweepResult.load(out / "result.npz").best().coords["lam"]
    w = np.linalg.solve(x.T @ x / 80 + lam * np.eye(5), x.T @ (y - y.mean()) / 80)
    expected = y.mean() + encode(np.array([[50, 2, 3], [150, 1, 4], [80, np.nan, 2]])) @ w
    np.testing.assert_allclose([float(r[1]) for r in rows], expected, rtol=2e-3)
    text = (out / "table.txt").read_text()
    assert "chosen by min" in text


def test_a_model_of_classes_writes_their_names_and_shares(csv, tmp_path, capsys):
    train, out = csv(CLASSES), tmp_path / "run"
    argv = [
        "--task",
        "classification",
        "--steps",
        "60",
        "--folds",
        "2",
        "--seeds",
        "1",
        "--refits",
        "2",
    ]
    argv += [
        "--hidden",
        "8",
        "--batch-size",
        "0",
        "--lams",
        "1e-4,1e-3",
        "--lr",
        "0.03",
        "--patience",
        "3",
    ]
    assert main(["sweep", train, *argv, "--out", str(out)]) == 0
    capsys.readouterr()
    file = tmp_path / "predicted.csv"
    for rule in ("min", "paired"):
        file.unlink(missing_ok=True)
        assert main(["predict", str(out), train, "--rule", rule, "--out", str(file)]) == 0
        head, rows = read_csv_text(file.read_text())
        assert head == ["line", "prediction", "p(007x)", "p(08)"]
        right = [line.split(",")[2] for line in CLASSES.splitlines()[1:]]
        told = np.mean([r[1] == kind for r, kind in zip(rows, right)])
        assert told > 0.9
        assert f"accuracy {told:.4g}" in capsys.readouterr().err
        np.testing.assert_allclose([float(r[2]) + float(r[3]) for r in rows], 1, atol=1e-5)
    assert main(["predict", str(out), train, "--out", str(file)]) == 2
    assert "is there already and is left as it is" in capsys.readouterr().err
    other = csv("a,b,kind\n1,2,09\n", "other.csv")
    assert main(["predict", str(out), other]) == 2
    assert "the classes 9, and those that were learnt are 007x, 08" in capsys.readouterr().err


def test_images_are_predicted_from_arrays_like_those_learnt_from(tmp_path, capsys):
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (60, 3, 3), dtype=np.uint8), np.arange(60) % 2
    X[y == 1] //= 4
    np.savez(tmp_path / "a.npz", X=X, y=y)
    argv = ["--steps", "60", "--folds", "2", "--seeds", "1", "--refits", "2", "--lams", "1e-4,1e-3"]
    argv += [
        "--batch-size",
        "0",
        "--model",
        "linear",
        "--lr",
        "0.1",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["sweep", str(tmp_path / "a.npz"), *argv]) == 0
    np.savez(tmp_path / "new.npz", X=X[:5])
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "new.npz")]) == 0
    _, rows = read_csv_text(capsys.readouterr().out)
    assert [r[1] for r in rows] == [str(k) for k in y[:5]]
    for bad, match in [(X[:5] / 255, "holds other numbers, and the model learnt from bytes"),
                       (X[:5, :2], r"a row of X has the shape \(2, 3, 1\), and \(3, 3, 1\)")]:  # fmt: skip
        np.savez(tmp_path / "bad.npz", X=bad)
        assert main(["predict", str(tmp_path / "run"), str(tmp_path / "bad.npz")]) == 2
        assert re.search(match, capsys.readouterr().err)


def test_a_folder_without_a_model_and_a_damaged_one(tmp_path, csv, capsys):
    assert main(["predict", str(tmp_path), csv(CLASSES)]) == 2
    assert "has no model.npz. Give the folder of a run that has ended" in capsys.readouterr().err
    (tmp_path / "model.npz").write_bytes(b"PK nothing")
    assert main(["predict", str(tmp_path), csv(CLASSES)]) == 2
    assert "damaged" in capsys.readouterr().err
