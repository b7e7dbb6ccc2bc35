"""Archives: what is read is what was written, to the bit, or one error says what is wrong and where."""

import io
import json
import os
import shutil
import struct
import tracemalloc
import zipfile
from collections import OrderedDict, namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.stored import State, assert_same, forged, raw

from jaxreg.storage.archive import read_archive, write_archive

KIND = "test.Archive"
SMALL = {"n": np.arange(3), "w": np.random.default_rng(0).standard_normal((40, 25))}


def write(path, tree, **options):
    write_archive(path, {"format": KIND, "note": 7}, {"tree": tree}, False, **options)
    return path


def read(path):
    header, trees = read_archive(path, KIND)
    assert header["note"] == 7
    return trees["tree"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("storage") / "small.npz", SMALL)


@pytest.fixture
def copied(written, tmp_path):
    return shutil.copy(written, tmp_path / "copy.npz")


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


def test_text_comes_back_and_a_text_of_python_is_refused(tmp_path):
    names = np.array(["lam", "λ", ""])
    (found,) = read(write(tmp_path / "d", {"names": names, "none": None})).arrays
    assert raw(found) == raw(names)


def test_numpy_alone_reads_the_arrays(tmp_path):
    tree = {"a": {"b": np.ones(2)}, "a.b": np.zeros(3), "list": [jnp.ones(2, jnp.bfloat16)]}
    with np.load(write(tmp_path / "d", tree), allow_pickle=False) as stored:
        assert_same([stored["tree/0/a/b"], stored["tree/1/a_b"]], [np.ones(2), np.zeros(3)])
        assert_same(stored["tree/2/list/0"].view(jnp.bfloat16), np.ones(2, jnp.bfloat16))


NAMES = ["", "..", "/root", "a\0b", "\ud800", "x" * 70_000, 'a"b\n', -1, 2**70]


def test_any_name_can_be_that_of_a_leaf(tmp_path):
    tree = {str(i): {name: np.full(2, i)} for i, name in enumerate(NAMES)}
    assert_same(read(write(tmp_path / "d", tree)).nested(), tree)


def test_a_header_comes_back_as_json_gives_it(tmp_path):
    header = {"format": KIND, "nan": float("nan"), "at": (1, {10: "λ", 9: None})}
    write_archive(tmp_path / "d", header, {}, False)
    assert repr(read_archive(tmp_path / "d", KIND)[0]["at"]) == "[1, {'10': 'λ', '9': None}]"


def test_equal_trees_make_equal_files_and_none_is_no_tree(tmp_path, written):
    assert write(tmp_path / "d", SMALL).read_bytes() == written.read_bytes()
    assert read(write(tmp_path / "none", None)) is None


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
        write(tmp_path / "d", tree)
    found = read(write(tmp_path / "d", tree, nested=False)).like(
        tree, "restore", "tree", exact=True
    )
    assert_same(found, jax.tree.map(np.asarray, tree))


def test_what_is_no_array_of_numbers_is_told(tmp_path):
    for leaf in ("text", np.array([None]), object(), np.datetime64(0, "s")):
        with pytest.raises(TypeError, match="save: the leaf a/0 has dtype .*; give numbers or bo"):
            write(tmp_path / "d", {"a": [leaf]})
    assert not (tmp_path / "d").exists()


# Damage


KINDS = SMALL | {
    "half": [np.full((2, 3), 1.5, jnp.bfloat16), np.zeros((0, 3))],
    "names": np.array(["lam", "λ"]),
    "flag": np.array(True),
    "key": jax.random.key(3),
}


@pytest.mark.parametrize("tree", [SMALL, KINDS], ids=["numbers", "every kind"])
def test_flipped_bits_are_found_or_change_nothing(tmp_path, tree):
    """Dates and the like in the zip's own directory may flip; a number never does in silence."""
    path = write(tmp_path / "a.npz", tree)
    sound, rng, told = path.read_bytes(), np.random.default_rng(0), []
    with path.open("r+b", buffering=0) as file:
        for position in rng.choice(8 * len(sound), size=2000, replace=False).tolist():
            at, bit = divmod(position, 8)
            os.pwrite(file.fileno(), bytes([sound[at] ^ 1 << bit]), at)
            try:
                assert_same(read(path).like(tree, "load", "tree", exact=True), tree)
            except ValueError as error:
                told.append(str(error))
            os.pwrite(file.fileno(), sound[at : at + 1], at)
    assert len(told) > 1800
    assert all("a.npz' is damaged or no test.Archive file: " in text for text in told)


def test_a_file_that_ends_early_or_late_is_found_at_every_length(copied):
    sound = copied.read_bytes()
    for end in range(0, len(sound), 50):
        copied.write_bytes(sound[:end])
        with pytest.raises(ValueError, match="is damaged or no test.Archive file: header.json is"):
            read(copied)
    copied.write_bytes(sound + bytes(100_000))
    with pytest.raises(ValueError, match="is damaged"):
        read(copied)


def test_a_lost_block_in_the_middle_is_found(copied):
    sound = copied.read_bytes()
    for start in range(0, len(sound) - 512, 512):
        copied.write_bytes(sound[:start] + bytes(512) + sound[start + 512 :])
        with pytest.raises(ValueError, match="is damaged"):
            read(copied)


@pytest.fixture
def refused(copied):
    """Called with what is said, reads in little memory and fails."""

    def check(said):
        jnp.zeros(1)
        tracemalloc.start()
        try:
            with pytest.raises(
                ValueError, match=f"^load: '.*copy.npz' is damaged or no test.Archive file: {said}"
            ):
                read(copied)
            assert tracemalloc.get_traced_memory()[1] < 10e6
        finally:
            tracemalloc.stop()

    return check


def with_w(change):
    """The header in which the line of the leaf w is another."""

    def header(known):
        known["trees"]["tree"][1] |= change
        return known

    return header


DEEP = json.loads("[" * 200 + "]" * 200)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": [25, 40]}, r"leaf w is unreadable, .*float64\[40, 25\] is stored"),
        ({"shape": [2**60, 2**60]}, r"leaf w is unreadable, .*is stored"),
        ({"shape": [0, 2**62]}, r"leaf w is unreadable, .*is stored"),
        ({"shape": [-40, -25]}, "leaf w: no keys and shape"),
        ({"shape": [40.0, 25.0]}, "leaf w: no keys and shape"),
        ({"shape": [True]}, "leaf w: no keys and shape"),
        ({"shape": DEEP}, "leaf w: no keys and shape"),
        ({"shape": None}, "the list of its arrays is unreadable, TypeError"),
        ({"dtype": "float32"}, r"leaf w is unreadable, .*float64\[40, 25\] is stored"),
        ({"dtype": "int64"}, r"leaf w is unreadable, .*float64\[40, 25\] is stored"),
        ({"dtype": "object"}, "leaf w is unreadable, .*no dtype 'object'"),
        ({"dtype": "f8,f8"}, "leaf w is unreadable, .*no dtype"),
        ({"dtype": "(2,)f8"}, "leaf w is unreadable, .*no dtype"),
        ({"dtype": "V8"}, "leaf w is unreadable, .*no dtype"),
        ({"dtype": "<f8"}, "leaf w is unreadable, .*no dtype"),
        ({"dtype": "float"}, "leaf w is unreadable, .*no dtype"),
        ({"dtype": None}, "leaf w is unreadable, .*no dtype None"),
        ({"dtype": "nonsense"}, "leaf w is unreadable, TypeError"),
        ({"dtype": DEEP}, "leaf w is unreadable"),
        ({"keys": None}, "the list of its arrays is unreadable, TypeError"),
        ({"keys": [None]}, "leaf None: no keys and shape"),
        ({"keys": [1.5, ["a"]]}, r"leaf 1.5/\['a'\]: no keys and shape"),
        ({"file": "tree/2.npy"}, "it has other members .*'tree/1/w.npy'"),
        ({"file": "tree/0/n.npy"}, "it has other members .*'tree/1/w.npy'"),
        ({"file": "header.json"}, "it has other members .*'tree/1/w.npy'"),
        ({"file": 7}, "the list of its arrays is unreadable, TypeError"),
        ({"sha256": "0"}, "leaf w: sha256 of its bytes is not the one saved"),
        ({"sha256": None}, "leaf w: sha256 of its bytes is not the one saved"),
        ({"prng": "threefry2x32"}, "leaf w is unreadable, "),
        ({"prng": "nonsense"}, "leaf w is unreadable, "),
        ({"prng": 7}, "leaf w is unreadable, "),
        ({"more": 7}, "the list of its arrays is unreadable, TypeError"),
    ],
    ids=str,
)
def test_a_line_of_the_header_that_lies(copied, refused, change, said):
    forged(copied, with_w(change))
    refused(said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "other"}, "its format is 'other'"),
        ({"format": DEEP}, r"its format is \[\["),
        ({"version": None}, "header.json is unreadable, TypeError"),
        ({"version": "99"}, "header.json is unreadable, TypeError"),
        ({"trees": 7}, "the list of its arrays is unreadable, AttributeError"),
        ({"trees": [[]]}, "the list of its arrays is unreadable, AttributeError"),
        ({"trees": {"tree": 7}}, "the list of its arrays is unreadable, TypeError"),
        ({"trees": {"tree": [7]}}, "the list of its arrays is unreadable, TypeError"),
        ({"trees": {"tree": [{}]}}, "the list of its arrays is unreadable, TypeError"),
        ({"trees": {"tree": []}}, "it has other members .*'tree/0/n.npy'"),
        ({"trees": {}}, "it has other members .*'tree/0/n.npy'"),
    ],
    ids=str,
)
def test_a_header_that_lies(copied, refused, change, said):
    forged(copied, lambda known: known | change)
    refused(said)


@pytest.mark.parametrize("name", ["format", "version", "trees"])
def test_a_header_that_lacks_something(copied, refused, name):
    forged(copied, lambda known: {k: v for k, v in known.items() if k != name})
    refused(f".* is unreadable, KeyError: '{name}'")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "header.json is unreadable, JSONDecodeError"),
        (b"{", "header.json is unreadable, JSONDecodeError"),
        (b"[]", "header.json is unreadable, TypeError"),
        (b"{}", "header.json is unreadable, KeyError"),
        (b"7", "header.json is unreadable, AttributeError"),
        (b"\xff", "header.json is unreadable, UnicodeDecodeError"),
        (b"[" * 200_000, "header.json is unreadable, RecursionError"),
        (b"1" * 10_000, "header.json is unreadable, ValueError"),
        (b'{"format": "test.Archive", "sha256": "0"}', "header.json: sha256 of its content is not"),
        (b'{"format": "test.Archive", "sha256": {}}', "header.json: sha256 of its content is not"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_header_that_is_none(copied, refused, text, said):
    forged(copied, text)
    refused(said)


def test_any_edit_of_the_header_is_found(copied, refused):
    with zipfile.ZipFile(copied) as archive:
        text = archive.read("header.json")
    forged(copied, text.replace(b'"note": 7', b'"note": 8'))
    refused("header.json: sha256 of its content is not the one saved")


def test_a_newer_format_is_refused_but_is_no_damage(copied):
    forged(copied, lambda known: known | {"version": 99})
    with pytest.raises(
        ValueError, match=r"^load: .*copy.npz' has the format version 99; .* up to 3. Update jax"
    ):
        read(copied)


def npy(array=None, **header):
    """A member, or the header of one without its data."""
    file = io.BytesIO()
    if array is None:
        np.lib.format.write_array_header_1_0(file, {"fortran_order": False, **header})
    else:
        np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def npy_text(text):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


W = SMALL["w"]


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (npy(W.astype(np.float32)), r"leaf w is unreadable, .*float32\[40, 25\] is stored"),
        (npy(W.T.copy()), r"leaf w is unreadable, .*float64\[25, 40\] is stored"),
        (npy(np.asfortranarray(W)), "leaf w is unreadable, .*is stored"),
        (npy(W.astype(">f8")), "leaf w is unreadable, .*is stored"),
        (npy(-W), "leaf w: sha256 of its bytes is not the one saved"),
        (npy(np.array([{"x": 1}], object)), "leaf w is unreadable, "),
        (npy(W)[:-1], "leaf w is unreadable, ValueError: (its data are not 8000|8000 bytes of it)"),
        (npy(W) + b"0", "leaf w is unreadable, ValueError: its data are not 8000 bytes"),
        (npy(descr="<f8", shape=(40, 25)), "leaf w is unreadable, .*8000 bytes of it are more"),
        (npy(descr="<f8", shape=(2**47,)), "leaf w is unreadable, .*140737488355328"),
        (b"\x93NUMPY\x02\x00" + npy(W)[8:], "leaf w is unreadable, .*npy version"),
        (npy_text(b"(" * 9000), "leaf w is unreadable, "),
        (npy_text(b"9" * 9000), "leaf w is unreadable, "),
        (b"", "leaf w is unreadable, "),
        (b"hello", "leaf w is unreadable, "),
    ],
    ids=range(15),
)
def test_a_member_that_is_another_one(copied, refused, member, said):
    forged(copied, members=lambda all: [*all[:2], ("tree/1/w.npy", member)])
    refused(said)


def test_no_memory_is_taken_for_what_header_and_member_claim_together(copied, refused):
    member = npy(descr="<f8", shape=(2**47,))
    forged(copied, with_w({"shape": [2**47]}), lambda all: [*all[:2], ("tree/1/w.npy", member)])
    refused("leaf w is unreadable, .*1125899906842624 bytes of it are more than the file has")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "said"),
    [
        (lambda all: all[1:], "header.json is unreadable, KeyError"),
        (lambda all: all[:-1], "it has other members than its header lists: 'tree/1/w.npy'"),
        (lambda all: [*all, ("more", b"")], "it has other members than its header lists: 'more'"),
        (lambda all: [*all, all[-1]], "it has other members than its header lists: 'one twice'"),
        (lambda all: [*all, all[0]], "it has other members than its header lists: 'one twice'"),
        (lambda all: [all[0], ("tree/1/w.npy", all[1][1]), ("tree/0/n.npy", all[2][1])], "leaf n"),
        (lambda all: [(name, data + b" ") for name, data in all], "leaf n is unreadable, "),
    ],
)
def test_members_that_lack_or_are_too_many(copied, refused, members, said):
    forged(copied, members=members)
    refused(said)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_nothing_compressed_is_unpacked(copied, refused, method):
    """A megabyte may unpack to a gigabyte."""
    forged(copied, b"[" * 30_000_000, compression=method)
    refused("its members are compressed, or larger than the file")


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (8, struct.pack("<H", 1), "header.json is unreadable, RuntimeError"),  # encrypted
        (8, struct.pack("<H", 0x20), "header.json is unreadable, NotImplementedError"),
        (6, struct.pack("<H", 255), "header.json is unreadable, NotImplementedError"),
        (10, struct.pack("<H", 99), "its members are compressed"),
        (20, struct.pack("<II", 2**31, 2**31), "its members are compressed, or larger"),
        (20, struct.pack("<I", 2**31), "its members are compressed, or larger"),
        (24, struct.pack("<I", 1), "its members are compressed, or larger"),
        (42, struct.pack("<I", 2**31), "header.json is unreadable, "),
    ],
    ids=["encrypted", "patched", "version", "method", "sizes", "stored", "unpacked", "offset"],
)
def test_a_directory_of_the_zip_that_lies(copied, refused, at, value, said):
    data = bytearray(copied.read_bytes())
    start = data.index(b"PK\x01\x02") + at
    data[start : start + len(value)] = value
    copied.write_bytes(data)
    refused(said)


def test_other_kinds_of_files(copied, refused, tmp_path):
    for data in (b"", b"hello", b"PK\x05\x06" + bytes(18), npy(W), b'{"format": "test.Archive"}'):
        copied.write_bytes(data)
        refused("header.json is unreadable, ")
    np.savez(copied, **SMALL)
    refused("header.json is unreadable, KeyError")
    copied.unlink()
    copied.mkdir()
    refused("header.json is unreadable, IsADirectoryError")
    with pytest.raises(FileNotFoundError, match="^load: there is no file '.*nothing.npz'"):
        read_archive(tmp_path / "nothing.npz", KIND)


def test_places_that_clash_are_found_without_a_template(copied):
    def same(known):
        known["trees"]["tree"][1]["keys"] = ["n", "w"]

    forged(copied, same)
    with pytest.raises(ValueError, match="load: two leaves have the same path n, or one lies"):
        read(copied).nested()


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
    stored = read(write(tmp_path / "d", saved, nested=False))
    with pytest.raises(ValueError, match=f"^restore: the .*{said}"):
        stored.like(like, "restore", "tree", "d", exact=True)
