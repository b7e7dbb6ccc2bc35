"""Storage: what is read is what was written, to the bit, or `Damaged` says what is wrong and where."""

import json
import os
import shutil
import zipfile
from collections import OrderedDict, namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.stored import State, assert_same, raw

from jaxreg.storage import atomic, verified
from jaxreg.storage.atomic import new_directory, new_file, remove_directory
from jaxreg.storage.verified import Damaged

SMALL = {"n": np.arange(3), "w": np.random.default_rng(0).standard_normal((40, 25))}


def write(directory, tree):
    directory.mkdir()
    verified.write_tree(directory, {"note": 7}, verified.as_leaves("save", tree))
    return directory


def read(directory):
    return verified.read_tree(directory, verified.read_manifest(directory))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("storage") / "small", SMALL)


@pytest.fixture
def copied(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


# What comes back


def specials(dtype):
    """Zeros of both signs, infinities, NaNs of two payloads, the smallest and largest numbers."""
    info = jnp.finfo(dtype)
    values = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, info.tiny, info.max, 1.5]
    bits = np.array(values, dtype)
    odd = bits[4:5].copy()
    odd.view(np.uint8)[0] ^= 1  # a NaN that no arithmetic makes
    return np.concatenate([bits, odd])


def every_kind():
    ints = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    grid = np.arange(6.0).reshape(2, 3)
    return {
        "floats": [specials(t) for t in ("float32", "float64", "float16", jnp.bfloat16)],
        "minus zeros": np.full((4, 4), -0.0, np.float32),
        "ints": tuple(np.array([jnp.iinfo(t).min, 3, jnp.iinfo(t).max], t) for t in ints),
        "small": [np.array([-1, 3], "int4"), np.array([0.5, -0.0], jnp.float8_e4m3fn)],
        "bools": np.array([[True], [False]]),
        "complex": np.array([1 - 2j, complex(np.nan, -0.0)], np.complex64),
        "state": State({"a/b": jnp.ones((3, 2), jnp.bfloat16), "a": {"b": jnp.arange(3)}}, 7),
        "odd / näme": {"": np.float64(-0.0), "a.b": np.ones(2), "a%2Eb": np.zeros(2)},
        "a": {"b": np.ones(3)},
        "a.b": np.zeros(3),
        "empty": [np.zeros((0, 3), jnp.bfloat16), np.zeros((2, 0), np.int8)],
        "views": [grid.T, grid[:, ::2], np.broadcast_to(grid[0], (2, 3))],
        "keys": [jax.random.split(jax.random.key(1), 3), jax.random.key(2, impl="rbg")],
    }


def test_every_dtype_name_and_special_value_comes_back_to_the_bit(tmp_path):
    tree = every_kind()
    found = read(write(tmp_path / "d", tree)).like(tree, "restore", "tree", exact=True)
    assert_same(found, tree)
    numpy = jax.tree.leaves({k: v for k, v in found.items() if k != "keys"})
    assert all(isinstance(leaf, np.ndarray) for leaf in numpy)
    a, b = (jax.random.normal(k[1], (3,)) for k in (found["keys"][0], tree["keys"][0]))
    assert jnp.array_equal(a, b)


def test_bytes_in_the_order_of_another_machine_are_turned(tmp_path):
    swapped = np.arange(3.0).astype(">f8")
    (found,) = read(write(tmp_path / "d", {"w": swapped})).arrays
    assert raw(found) == raw(np.arange(3.0))


@pytest.mark.parametrize("tree", [np.float32(2), np.ones((2, 3)), {}, np.zeros((0, 2)), (None, [])])
def test_a_tree_that_is_one_leaf_or_none(tmp_path, tree):
    assert_same(read(write(tmp_path / "d", tree)).like(tree, "load", "tree"), tree)


def test_numpy_alone_reads_the_arrays(tmp_path):
    tree = {"a": {"b": np.ones(2)}, "a.b": np.zeros(3), "list": [jnp.ones(2, jnp.bfloat16)]}
    with np.load(write(tmp_path / "d", tree) / "tree.npz") as stored:
        assert_same([stored["0"], stored["1"]], [np.ones(2), np.zeros(3)])
        assert_same(stored["2"].view(jnp.bfloat16), np.ones(2, jnp.bfloat16))


@jax.tree_util.register_pytree_with_keys_class
class Twins:
    """Two leaves under one name."""

    def __init__(self, *leaves):
        self.leaves = leaves

    def tree_flatten_with_keys(self):
        return [(jax.tree_util.DictKey("x"), leaf) for leaf in self.leaves], None

    @classmethod
    def tree_unflatten(cls, aux, children):
        del aux
        return cls(*children)


Boxed = namedtuple("Boxed", "value scale")


@pytest.mark.parametrize("tree", [{"v": Twins(np.ones(2), np.zeros(2))}, {"v": Boxed(1.0, 2.0)}])
def test_leaves_without_a_place_of_their_own(tmp_path, tree):
    with pytest.raises(ValueError, match="save: two leaves have the same path v.*rename one"):
        verified.as_leaves("save", tree, nested=True)
    found = read(write(tmp_path / "d", tree)).like(tree, "restore", "tree", exact=True)
    assert_same(found, jax.tree.map(np.asarray, tree))


def test_what_is_no_array_of_numbers_is_told():
    for leaf in ("text", np.array([None]), object()):
        with pytest.raises(TypeError, match="save: the leaf a/0 has dtype .*; give numbers or bo"):
            verified.as_leaves("save", {"a": [leaf]})


# Damage


def test_flipped_bits_in_every_file_are_found_or_change_nothing(copied):
    """Dates and the like in the zip's own directory may flip; a number never does in silence."""
    rng, found = np.random.default_rng(0), 0
    for file in sorted(p for p in copied.rglob("*") if p.is_file()):
        sound = file.read_bytes()
        for position in rng.integers(8 * len(sound), size=1500):
            bits = bytearray(sound)
            bits[position // 8] ^= 1 << (position % 8)
            file.write_bytes(bits)
            try:
                assert_same(read(copied).nested(), SMALL)
            except Damaged:
                found += 1
        file.write_bytes(sound)
    assert found > 2500


def test_a_file_that_ends_early_is_found_at_every_length(copied):
    for file in (copied / "tree.npz", copied / "jaxreg.json"):
        sound = file.read_bytes()
        for end in range(0, len(sound), 53):
            file.write_bytes(sound[:end])
            with pytest.raises(Damaged):
                read(copied)
        file.write_bytes(sound)


def rewritten(folder, **members):
    """The archive with other members, as somebody else might write it."""
    with zipfile.ZipFile(folder / "tree.npz", "w") as archive:
        for name, array in members.items():
            with archive.open(f"{name[1:]}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.astype(np.float32), r"leaf w: unreadable, .*float32\[40, 25\] is stored"),
        (lambda a: a.T.copy(), r"leaf w: unreadable, .*float64\[25, 40\] is stored"),
        (lambda a: np.asfortranarray(a), r"leaf w: unreadable, .*is stored"),
        (lambda a: -a, r"leaf w: sha256 of its bytes is not the one saved"),
        (lambda a: np.array([{"x": 1}], object), r"leaf w: unreadable, "),
        (lambda a: None, r"leaf w: unreadable, KeyError"),
    ],
    ids=["dtype", "shape", "order", "values", "pickle", "absent"],
)
def test_the_leaf_that_is_another_one_is_named(copied, change, said):
    other = {"_0": SMALL["n"], "_1": change(SMALL["w"])}
    rewritten(copied, **{k: v for k, v in other.items() if v is not None})
    with pytest.raises(Damaged, match=f"^{said}"):
        read(copied)


def test_no_memory_is_taken_for_what_a_header_claims(copied):
    """A member that says it is a petabyte is refused by its header."""
    with zipfile.ZipFile(copied / "tree.npz", "w") as archive, archive.open("0.npy", "w") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (2**47,)}
        )
    with pytest.raises(Damaged, match="leaf n: unreadable, .*140737488355328"):
        read(copied)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"^jaxreg.json is missing"),
        ("{", r"^jaxreg.json is unreadable, JSONDecodeError"),
        ("[]", r"^jaxreg.json is unreadable, TypeError"),
        ("{}", r"^jaxreg.json is unreadable, KeyError"),
        ("7", r"^jaxreg.json is unreadable, AttributeError"),
        (b"\xff", r"^jaxreg.json is unreadable, UnicodeDecodeError"),
        ('{"step": 300, "sha256": "0"}', r"^jaxreg.json: sha256 of its content is not the one"),
    ],
)
def test_a_bad_manifest_is_told(copied, text, said):
    file = copied / "jaxreg.json"
    file.unlink()
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Damaged, match=said):
        read(copied)


def test_the_manifest_keeps_the_header_and_any_edit_is_found(copied):
    file = copied / "jaxreg.json"
    manifest = json.loads(file.read_text())
    assert manifest["note"] == 7
    file.write_text(json.dumps(manifest | {"note": 8}))
    with pytest.raises(Damaged, match="sha256 of its content"):
        read(copied)
    verified.write_json(file, manifest | {"version": 99})
    with pytest.raises(Damaged, match="sha256"):  # the old hash stood in it
        read(copied)


def test_a_newer_format_is_refused_but_is_no_damage(copied, monkeypatch):
    manifest = verified.read_manifest(copied)
    verified.write_json(copied / "jaxreg.json", manifest | {"version": 99})
    with pytest.raises(ValueError, match=r"copy has the format version 99; .* up to 2. Update jax"):
        read(copied)


# A template that is another one


@pytest.mark.parametrize(
    ("saved", "like", "said"),
    [
        ({"n": 1, "w": 1.0}, {"n": 0}, "Only in the file: 'w'; only in `like`: none"),
        ({}, {"b": np.zeros(2)}, "Only in the file: none; only in `like`: 'b'"),
        (Twins(1, 1), Twins(1), "tree of `like` have other leaves than d, or another order"),
        (
            OrderedDict(w=1, b=1),
            OrderedDict(b=1, w=1),
            "have other leaves than d, or another order",
        ),
        (
            {"w": np.zeros(2)},
            {"w": np.zeros(3)},
            r"leaf w is float64\[2\] in d and float64\[3\] in",
        ),
        (
            {"n": np.zeros(3, int)},
            {"n": jax.random.key(0)},
            r"n is int64\[3\] in d and key<fry>\[\]",
        ),
        ({"a/b": 1, "a": {"b": 1}}, {"a/b": 1, "a": {"b": 1.0}}, r"a/b is int64.*float64.* in `li"),
        (
            Twins(1, 1.0),
            Twins(1.0, 1.0),
            r"leaf x is int64\[\] in d and float64\[\].*jax_enable_x64",
        ),
    ],
    ids=["absent", "more", "fewer", "order", "shape", "key", "alike", "twins"],
)
def test_other_leaves_than_those_saved_are_named(tmp_path, saved, like, said):
    stored = read(write(tmp_path / "d", saved))
    with pytest.raises(ValueError, match=f"^restore: the .*{said}"):
        stored.like(like, "restore", "tree", "d", exact=True)


# Whole or not at all


@pytest.fixture
def log(monkeypatch):
    """What was forced to the disk and what renamed, in order."""
    log, sync, replace = [], atomic._sync, os.replace

    def noted_replace(a, b):
        log.append(("rename", os.path.basename(b)))
        replace(a, b)

    monkeypatch.setattr(atomic, "_sync", lambda p: (log.append(("sync", p.name)), sync(p)))
    monkeypatch.setattr(atomic.os, "replace", noted_replace)
    return log


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, log):
    with new_file("save", tmp_path / "file", False) as unfinished:
        unfinished.write_text("new")
    (tmp_path / "file").unlink()
    assert log == [("sync", unfinished.name), ("rename", "file"), ("sync", tmp_path.name)]
    log.clear()
    with new_directory("save", tmp_path / "place") as unfinished:
        (unfinished / "inner").mkdir()
        (unfinished / "inner" / "leaf").write_text("new")
    assert set(log[:3]) == {("sync", n) for n in ("leaf", "inner", unfinished.name)}
    assert log[3:] == [("rename", "place"), ("sync", tmp_path.name)]
    assert os.listdir(tmp_path) == ["place"]


class Stop(BaseException):
    """As Ctrl-C."""


def test_two_writers_of_one_place_do_not_meet(tmp_path):
    with (
        new_file("save", tmp_path / "a", True) as one,
        new_file("save", tmp_path / "a", True) as two,
    ):
        assert one != two  # also on two hosts, whose processes may have one number
        one.touch(), two.touch()


def interrupted(writing):
    with writing as unfinished:
        (unfinished / "x" if unfinished.is_dir() else unfinished).write_text("half")
        raise Stop


def test_what_is_not_finished_leaves_nothing(tmp_path):
    for place in (new_file("save", tmp_path / "a", False), new_directory("save", tmp_path / "b")):
        with pytest.raises(Stop):
            interrupted(place)
        assert os.listdir(tmp_path) == []


def test_a_removal_that_is_cut_off_has_taken_the_name_away(tmp_path, monkeypatch):
    with new_directory("save", tmp_path / "place") as unfinished:
        (unfinished / "leaf").write_text("here")
    monkeypatch.setattr(atomic.shutil, "rmtree", lambda *_, **__: None)
    remove_directory(tmp_path / "place")
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".place.")
    assert left.endswith(".old")
