"""Exports: CSV against pandas, JSON by a strict reader, parameters bit for bit."""

import csv
import dataclasses
import io
import json
import os
import shutil
import zipfile
from typing import NamedTuple

import jax
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
from support.stored import forged

import jaxreg as jr
from jaxreg.results.export import load_params, save_params, to_csv, to_json
from jaxreg.storage import atomic

K, F, S, T = 3, 2, 2, 4
RNG = np.random.default_rng(0)
LAMS = np.array([1e-5, 0.1, 1.0], np.float32)
SETTINGS = '{"steps": 30, "batch_size": null, "tol": Infinity, "mesh": {"lam": [8, NaN]}}'


def any_bits(dtype, shape):
    """Numbers of every exponent, with NaN, infinities, -0.0 and subnormals among them."""
    size = np.dtype(dtype).itemsize
    return RNG.integers(0, 256, (*shape, size), np.uint8).view(dtype)[..., 0]


def odd_curve(dtype=np.float32):
    curve = any_bits(dtype, (K, F, S, T)).copy()
    curve[0, 0, 0] = np.array([np.nan, np.inf, -np.inf, -0.0], dtype)
    curve[0, 0, 1, 0] = 1e-42
    return curve


def make(dtype=np.float32, params=None, **coords):
    return jr.SweepResult(
        coords={"lam": LAMS, **coords},
        points=jax.vmap(lambda lam: jr.l2(lam).on(jr.kernels))(LAMS),
        time=np.arange(T) * 10,
        train={"loss": odd_curve(dtype), "acc": RNG.normal(size=(K, F, S, T)).astype(dtype)},
        valid={"loss": odd_curve(dtype), "acc": odd_curve(dtype)},
        terms={"l2": odd_curve(dtype)},
        params=params,
        status=RNG.integers(0, 2, (K, F, S)),
        made_by=SETTINGS,
        stop=RNG.integers(0, T, (K, F, S)),
    )


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def same_numbers(a, b):
    """Bitwise, but a NaN is a NaN: a text has no room for its payload."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    with np.errstate(invalid="ignore"):
        keep = ~np.isnan(a)
        np.testing.assert_array_equal(keep, ~np.isnan(b))
    assert a[keep].tobytes() == b[keep].tobytes()


# --- CSV ------------------------------------------------------------------------------------------


def test_csv_is_what_to_pandas_gives(tmp_path):
    result = make(ratio=np.array([1, 2, 3]))
    frame = result.to_pandas()
    path = to_csv(result, tmp_path / "new" / "run.csv")
    read = pd.read_csv(path, converters={"lam": float, "value": float})
    assert list(read.columns) == list(frame.columns)
    for name in frame.columns:
        got, want = read[name].to_numpy(), frame[name].to_numpy()
        if got.dtype.kind == "f":
            same_numbers(got.astype(want.dtype), want)
        else:
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_csv_keeps_the_bits_of_every_dtype(tmp_path, dtype):
    result = make(dtype)
    rows = list(csv.DictReader(io.StringIO(to_csv(result, tmp_path / "run.csv").read_text())))
    values = [r["value"] for r in rows if (r["split"], r["metric"]) == ("valid", "loss")]
    got = np.array([float(v) for v in values]).astype(dtype).reshape(K, F, S, T)
    same_numbers(got, result.valid["loss"])
    assert values[:3] == ["NaN", "Inf", "-Inf"]
    assert values[3] in ("-0.0", "-0")


def test_csv_needs_no_pandas_and_has_plain_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(pd, "DataFrame", None)
    text = to_csv(make(), tmp_path / "run.csv").read_bytes()
    assert text.startswith(b"lam,fold,seed,time,split,metric,value\n1e-05,0,0,0,train,loss,NaN\n")
    assert b"\r" not in text
    assert text.count(b"\n") == 1 + K * F * S * T * 2 * 2


# --- JSON -----------------------------------------------------------------------------------------


def strict(text):
    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def array(entry):
    """What any reader would make of a described array."""
    numbers = np.vectorize(float, otypes=[np.float64])(np.array(entry["values"], object))
    assert numbers.ndim == len(entry["axes"])
    return numbers.astype(entry["dtype"])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_json_gives_every_array_back(tmp_path, dtype):
    result = make(dtype, ratio=np.array([1, 2, 3]))
    document = strict(to_json(result, tmp_path / "new" / "run.json").read_text())
    for split in ("train", "valid"):
        assert list(document[split]) == ["loss", "acc"]
        for metric, values in getattr(result, split).items():
            same_numbers(array(document[split][metric]), values)
            assert document[split][metric]["axes"] == ["point", "fold", "seed", "time"]
    same_numbers(array(document["terms"]["l2"]), result.terms["l2"])
    assert same_bits(array(document["status"]), result.status)
    assert same_bits(array(document["time"]), result.time)
    assert same_bits(array(document["stop"]), result.stop)
    assert list(document["coords"]) == ["lam", "ratio"]
    assert same_bits(array(document["coords"]["lam"]), LAMS)
    assert document["coords"]["ratio"]["values"] == [1, 2, 3]


def test_json_explains_itself_in_strict_json(tmp_path):
    result = make()
    without = dataclasses.replace(result, stop=None)
    text = to_json(result, tmp_path / "run.json").read_text()
    document = strict(text)
    assert document["format"] == "jaxreg.SweepResult"
    assert document["version"] == 1
    assert document["point"] == "l2.on(kernels)"
    assert document["made_by"] == {
        "steps": 30, "batch_size": None, "tol": "Infinity", "mesh": {"lam": [8, "NaN"]},
    }  # fmt: skip
    assert document["statuses"]["1"] == jr.Status.DIVERGED.message
    assert document["valid"]["loss"]["values"][0][0][0] == ["NaN", "Infinity", "-Infinity", -0.0]
    assert strict(to_json(without, tmp_path / "old.json").read_text())["stop"] is None
    assert "0.1," in text
    assert "0.10000000149" not in text


def test_jax_arrays_are_written_too(tmp_path):
    result = jax.tree.map(jax.numpy.asarray, make())
    plain = jax.tree.map(np.asarray, result)
    for write in (to_csv, to_json):
        a, b = write(result, tmp_path / "a"), write(plain, tmp_path / "b")
        assert a.read_bytes() == b.read_bytes()
        a.unlink(), b.unlink()


@pytest.mark.parametrize("write", [to_csv, to_json])
def test_an_existing_file_is_left_alone_unless_told(tmp_path, write, monkeypatch):
    path = write(make(), tmp_path / "run")
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=rf"{write.__name__}: '.*run' is there already .*overwrite=T"
    ):
        write(make(), path)
    assert path.read_bytes() == before
    with pytest.raises(
        ValueError, match="`path` must be the path of a file, got .*which is a directory"
    ):
        write(make(), tmp_path, overwrite=True)

    def fail(*args):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write(make(), path, overwrite=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run"]
    write(make(), path, overwrite=True)
    assert path.read_bytes() != before


# --- parameters -----------------------------------------------------------------------------------


class Pair(NamedTuple):
    full: np.ndarray
    empty: np.ndarray


def odd_params():
    """Names and structures that a file could spoil; for dtypes see storage/test_archive.py."""
    shape = (K, F, S, 3)
    return {
        "list": [any_bits("bfloat16", shape), (RNG.normal(size=shape), RNG.normal(size=(K, F, S)))],
        "a": {"b": RNG.normal(size=shape)},
        "a.b": RNG.normal(size=shape),
        "a%2Eb": RNG.normal(size=shape),
        "odd / näme": {"": np.asfortranarray(RNG.normal(size=(K, F, S, 2, 2)))},
        "named": Pair(RNG.normal(size=shape), np.zeros((K, F, S, 0), np.float16)),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    result = make(params=odd_params())
    return result, save_params(result, tmp_path_factory.mktemp("saved") / "deep" / "params")


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copy(saved[1], tmp_path / "params.npz")


def test_parameters_come_back_bit_for_bit(saved):
    result, path = saved
    back = load_params(path, like=result.params)
    assert jax.tree.structure(back) == jax.tree.structure(result.params)
    for (where, a), b in zip(
        jax.tree_util.tree_flatten_with_path(result.params)[0], jax.tree.leaves(back)
    ):
        assert same_bits(a, b), jax.tree_util.keystr(where)


def test_without_a_template_they_are_nested_dicts(saved):
    result, path = saved
    back = load_params(path)
    assert set(back) == set(result.params)
    assert same_bits(back["list"][1][0], result.params["list"][1][0])
    assert same_bits(back["a.b"], result.params["a.b"])


def test_orbax_takes_the_parameters_themselves(saved, tmp_path):
    """The line that the docstring gives."""
    orbax = pytest.importorskip("orbax.checkpoint")
    params = {"a": saved[0].params["a"], "list": saved[0].params["list"]}
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "theirs", params)
        checkpointer.wait_until_finished()
        back = checkpointer.restore(tmp_path / "theirs")
    assert same_bits(np.asarray(back["a"]["b"]), params["a"]["b"])


def test_the_header_is_strict_json_with_coordinates_and_numpy_opens_the_file(saved):
    result, path = saved
    with zipfile.ZipFile(path) as archive:
        header = strict(archive.read("header.json").decode())
    assert header["axes"] == ["point", "fold", "seed"]
    assert same_bits(array(header["coords"]["lam"]), LAMS)
    with np.load(path, allow_pickle=False) as stored:
        assert same_bits(stored["params/0/a/b"], result.params["a"]["b"])
    assert os.listdir(path.parent) == ["params.npz"]


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    result = make(params={"w": np.ones((K, F, S))})
    assert save_params(result, tmp_path / "params") == tmp_path / "params.npz"
    assert os.listdir(tmp_path) == []


def test_results_without_parameters():
    with pytest.raises(ValueError, match=r"save_params: no parameters were kept.*keep_params=True"):
        save_params(make(), "nowhere")
    assert not os.path.exists("nowhere")


def test_parameters_that_are_there_are_left_alone_unless_told(tmp_path, monkeypatch):
    first, second = (make(params={"w": RNG.normal(size=(K, F, S))}) for _ in range(2))
    path = save_params(first, tmp_path / "params")
    with pytest.raises(
        ValueError, match=r"save_params: '.*params.npz' is there already .*overwrite="
    ):
        save_params(second, path)

    real = os.replace

    def fail(source, target):
        if str(source).endswith(".tmp") and str(target) == str(path):
            raise OSError("disk full")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            save_params(second, path, overwrite=True)
    assert same_bits(load_params(path)["w"], first.params["w"])
    assert os.listdir(tmp_path) == ["params.npz"]
    save_params(second, path, overwrite=True)
    assert same_bits(load_params(path)["w"], second.params["w"])
    assert os.listdir(tmp_path) == ["params.npz"]


def test_a_directory_is_never_replaced(tmp_path):
    (tmp_path / "home.npz").mkdir()
    for overwrite in (False, True):
        with pytest.raises(
            ValueError, match=r"save_params: `path` must be .*home\.npz', which is a directory"
        ):
            save_params(make(params={"w": np.ones(K)}), tmp_path / "home", overwrite=overwrite)
    assert os.listdir(tmp_path) == ["home.npz"]


def test_a_tree_that_cannot_be_saved_leaves_nothing(tmp_path):
    with pytest.raises(
        ValueError, match="save_params: two leaves have the same path w, or one lies"
    ):
        save_params(make(params={"w": Boxed(np.ones(K), np.ones(K))}), tmp_path / "p")
    with pytest.raises(TypeError, match="save_params: the leaf w has dtype object; give numbers"):
        save_params(make(params={"w": np.array([object()] * K)}), tmp_path / "p")
    assert os.listdir(tmp_path) == []


class Boxed(NamedTuple):
    """A box whose `value` has the path of the box, above the other's."""

    value: np.ndarray
    scale: np.ndarray


def test_damage_is_told_by_the_leaf(saved, copied):
    data, b = bytearray(copied.read_bytes()), saved[0].params["a"]["b"]
    data[data.index(b.tobytes()) + 5] ^= 1
    copied.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"load_params: '.*params\.npz' is damaged or no .*: leaf a/b is unread"
    ):
        load_params(copied, like=saved[0].params)


def test_files_that_are_no_parameters(copied, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"load_params: there is no file '.*nothing\.npz'"):
        load_params(tmp_path / "nothing")
    result = make().save(tmp_path / "result")
    with pytest.raises(
        ValueError, match="no jaxreg.params file: its format is 'jaxreg.SweepResult'"
    ):
        load_params(result)
    for change, match in [
        (
            {"trees": {"params": None}},
            r"load_params: '.*' is damaged or no .*: it has other members",
        ),
        (
            {"version": 99},
            r"load_params: '.*' has the format version 99; .* up to 3. Update jaxreg",
        ),
    ]:
        forged(copied, lambda known, change=change: known | change)
        with pytest.raises(ValueError, match=match):
            load_params(copied)
    empty = {"format": "jaxreg.params", "version": 1, "trees": {}}
    forged(copied, lambda known: empty, lambda members: members[:1])
    with pytest.raises(ValueError, match=r"load_params: '.*' has no parameters in it"):
        load_params(copied)


def test_a_template_of_another_structure(saved):
    with pytest.raises(
        ValueError, match=r"load_params: the params of `like` .* only in `like`: 'w'"
    ):
        load_params(saved[1], like={"w": 0})
