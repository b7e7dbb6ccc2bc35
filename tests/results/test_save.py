"""SweepResult.save and load: bit for bit, whole or not at all, and refused where damaged."""

import dataclasses
import json
import os
import pickle
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
from support.results import LAMS, PARAMS, RNG, VALUES, F, K, S, make
from support.stored import forged

import jaxreg as jr
from jaxreg.storage import archive, atomic


def odd_result():
    """Every kind of value and dtype that a file could spoil."""
    odd = VALUES.copy()
    odd[0, 0] = [np.nan, -0.0]
    odd[1, 0] = [np.inf, -np.inf]
    odd[2, 0, 0] = np.uint32(0x7FC12345).view(np.float32)  # a NaN with a payload
    odd[2, 0, 1] = np.float32(1e-42)  # subnormal
    bits = RNG.integers(0, 2**16, (K, F, S, 3)).astype(np.uint16)
    params = {
        "dense/odd name": {"kernel": bits.view(ml_dtypes.bfloat16), "f16": bits.view(np.float16)},
        "list": [bits.astype(np.uint8).view(ml_dtypes.float8_e4m3fn), RNG.normal(size=(K, F, S))],
        "fortran": np.asfortranarray(RNG.normal(size=(K, F, S, 2, 2))),
        "empty": np.zeros((K, F, S, 0), np.float32),
    }
    status = np.zeros((K, F, S), int)
    status[:2] = 1
    penalties = jax.vmap(lambda lam: jr.l2(lam).on(jr.kernels) + 2 * jr.l1(lam))(LAMS)
    return make(odd, status=status, params=params, points=penalties, accuracy=odd)


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_round_trip_is_bitwise(tmp_path):
    result = odd_result()
    path = result.save(tmp_path / "deep" / "er" / "run")
    assert path == tmp_path / "deep" / "er" / "run.npz"
    back = jr.SweepResult.load(
        tmp_path / "deep" / "er" / "run", like=(result.points, result.params)
    )
    assert jax.tree.structure(back) == jax.tree.structure(result)
    for (where, a), b in zip(
        jax.tree_util.tree_flatten_with_path(result)[0], jax.tree.leaves(back)
    ):
        assert same_bits(a, b), jax.tree_util.keystr(where)
    assert repr(back) == repr(result)
    assert str(back.table()) == str(result.table())
    assert repr(back.best().point) == repr(result.best().point)


def test_without_templates_trees_are_nested_dicts(tmp_path):
    result = odd_result()
    back = jr.SweepResult.load(result.save(tmp_path / "run"))
    assert set(back.params) == {"dense/odd name", "list", "fortran", "empty"}
    assert same_bits(back.params["list"][1], result.params["list"][1])
    lane, whole = back.lane(2, 1)["dense/odd name"], result.params["dense/odd name"]
    assert same_bits(lane["f16"], whole["f16"][2, 1, 0])
    strengths = jax.tree.leaves(back.points)
    assert all(same_bits(a, b) for a, b in zip(strengths, jax.tree.leaves(result.points)))
    assert back.best().index == result.best().index
    assert list(back.coords) == ["lam"]
    assert "4 points" in repr(back)


def test_points_without_leaves_and_params_that_were_not_kept(tmp_path):
    result = make(VALUES, points=jr.Zero())
    back = jr.SweepResult.load(result.save(tmp_path / "run"), like=(jr.Zero(), None))
    assert repr(back.best().point) == "Zero()"
    assert back.params is None


def test_parameters_that_are_one_array(tmp_path):
    result = make(VALUES, params=np.ones((K, F, S, 2)))
    back = jr.SweepResult.load(result.save(tmp_path / "run"))
    assert same_bits(back.params, result.params)


def test_what_a_score_is_survives(tmp_path):
    result = dataclasses.replace(
        make(VALUES), directions={"auc": "larger"}, repeats=2, overlap=0.25
    )
    back = jr.SweepResult.load(result.save(tmp_path / "run"))
    assert (back.directions, back.repeats, back.overlap) == ({"auc": "larger"}, 2, 0.25)
    again = jax.tree.map(lambda x: x, result)
    assert (again.directions, again.repeats, again.overlap) == ({"auc": "larger"}, 2, 0.25)


@pytest.mark.parametrize("gone", ["folds", "made_by", "point"])
def test_a_file_of_another_version_says_so(tmp_path, gone):
    path = make(VALUES).save(tmp_path / "run")
    forged(path, lambda known: known.pop(gone) and None)
    with pytest.raises(ValueError, match=f"another version, its header has no '{gone}'"):
        jr.SweepResult.load(path)


def test_the_file_opens_with_numpy_and_needs_no_pickle(tmp_path, monkeypatch):
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    path = odd_result().save(tmp_path / "run")
    with np.load(path, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["coords/0/lam"], LAMS)
    header = json.loads(zipfile.ZipFile(path).read("header.json"))
    assert header["made_by"] == '{"steps": 40}'
    assert header["point"] == "l2.on(kernels) + l1"


def test_equal_results_make_equal_files(tmp_path):
    a, b = odd_result(), make(VALUES)
    assert b.save(tmp_path / "1").read_bytes() == b.save(tmp_path / "2").read_bytes()
    assert a.save(tmp_path / "3").read_bytes() != b.save(tmp_path / "4").read_bytes()


def test_an_existing_file_is_left_alone_unless_told(tmp_path):
    first, second = make(VALUES), make(VALUES + 1)
    path = first.save(tmp_path / "run.npz")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"run\.npz' is there already .*overwrite=True"):
        second.save(path)
    assert path.read_bytes() == before
    second.save(path, overwrite=True)
    np.testing.assert_allclose(jr.SweepResult.load(path).mean(), second.mean())
    assert os.listdir(tmp_path) == ["run.npz"]


def test_a_save_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = make(VALUES).save(tmp_path / "run.npz")
    before = path.read_bytes()
    broken = make(VALUES, params={"w": np.array([object()] * K)})
    with pytest.raises(TypeError, match="save: the leaf w has dtype object; give numbers"):
        broken.save(path, overwrite=True)

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(atomic.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        make(VALUES + 1).save(path, overwrite=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.npz"]


def test_files_that_are_no_result(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"load: there is no file '.*nothing\.npz'"):
        jr.SweepResult.load(tmp_path / "nothing")
    text = tmp_path / "text.npz"
    text.write_text("hello")
    with pytest.raises(ValueError, match=r"text\.npz' is damaged or no jaxreg.SweepResult file"):
        jr.SweepResult.load(text)
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    with pytest.raises(ValueError, match=r"other\.npz' is damaged or no jaxreg.SweepResult file"):
        jr.SweepResult.load(tmp_path / "other.npz")


def test_a_flipped_bit_and_a_cut_file_are_found(tmp_path):
    path = make(VALUES).save(tmp_path / "run.npz")
    good = path.read_bytes()
    spot = good.index(VALUES[1].astype(np.float64).tobytes()[:8])
    path.write_bytes(good[:spot] + bytes([good[spot] ^ 1]) + good[spot + 1 :])
    with pytest.raises(ValueError, match="damaged"):
        jr.SweepResult.load(path)
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match="damaged"):
        jr.SweepResult.load(path)


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_VERSION", 99)
    path = make(VALUES).save(tmp_path / "run")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="format version 99; this jaxreg reads up to 3"):
        jr.SweepResult.load(path)


@pytest.mark.parametrize(
    ("like", "match"),
    [
        ((jr.l1(1.0), None), "the file holds 'l2', but the point of `like` is 'l1'"),
        ((jr.l2(1.0, weights=1.0), None), "only in `like`: 'weights'"),
        ((None, {"dense": {"kernal": 0}, "list": [0, 0]}), "only in `like`: 'dense/kernal'"),
        ((None, {"dense": {"kernal": 0}}), "in the file: 'dense/kernel', 'list/0', 'list/1'; only"),
    ],
)
def test_templates_of_another_structure(tmp_path, like, match):
    path = make(VALUES, params=PARAMS).save(tmp_path / "run")
    with pytest.raises(ValueError, match=match):
        jr.SweepResult.load(path, like=like)
