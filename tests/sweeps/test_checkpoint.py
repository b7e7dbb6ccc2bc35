"""Checkpoints: what comes back is what was saved, to the bit, or the step before, and it is said."""

import asyncio
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import namedtuple
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.stored import State, assert_same, forged

from jaxreg.sweeps.checkpoint import CheckpointError, CheckpointStore

DEEP = json.loads("[" * 200 + "]" * 200)
EXPERIMENT = {"name": "digits", "steps": 200, "lam": [0.1, 1.0], "floor": float("nan")}

Box = namedtuple("Box", "value scale")  # `value` has the path of the box, above that of `scale`


def small(step):
    """A state that tells which step it is of."""
    rng = np.random.default_rng(step)
    return {"w": rng.standard_normal((40, 25)).astype(np.float32), "n": np.full(3, step)}


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "run", EXPERIMENT)


@pytest.fixture
def two_steps(store):
    store.save(100, small(100))
    store.save(200, small(200))
    return store


def file(store, step):
    (path,) = store._directory.glob(f"step-{step:08d}.*")
    return path


def destroy(store, step):
    file(store, step).write_bytes(b"PK")


def hidden(store):
    return [name for name in os.listdir(store._directory) if name.startswith(".")]


# What comes back


def test_what_was_saved_comes_back_to_the_bit_with_its_note(store):
    tree = {
        "state": State({"a/b": jnp.ones((3, 2), jnp.bfloat16), "a": {"b": jnp.arange(3)}}, 7),
        "empty": np.zeros((0, 3)),
        "key": jax.random.key(1),
    }
    note = {"best": 0.25, "history": [1, float("inf")], "who": "λ"}
    store.save(3, tree, note)
    found = store.restore(jax.tree.map(lambda x: x, tree))
    assert_same(found.tree, tree)
    assert (found.step, found.saved.note, found.warnings) == (3, note, ())


def test_two_leaves_under_one_name_come_back_in_their_order(store):
    tree = {"box": Box(np.ones(2), np.zeros(2))}
    store.save(1, tree)
    assert_same(store.restore(tree).tree, tree)


def test_like_may_be_shapes_without_values(store):
    tree = {"w": np.ones((2, 3), np.float32), "key": jax.random.key(0)}
    store.save(1, tree)
    assert_same(store.restore(jax.eval_shape(lambda: tree)).tree, tree)


def test_saving_inside_a_running_event_loop_as_in_jupyter(store):
    async def cell():
        store.save(1, small(1))
        return store.restore(small(0))

    assert_same(asyncio.run(cell()).tree, small(1))


def test_no_step_is_none(store):
    assert store.restore(small(0)) is None
    assert store.steps() == []


# Which steps stay


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_steps_saved_stay(tmp_path, keep):
    store = CheckpointStore(tmp_path, {}, keep=keep)
    for step in range(5):
        store.save(step, small(step))
        assert store.steps() == list(range(max(0, step + 1 - keep), step + 1))
    assert hidden(store) == []
    # Also after another start, and although the number is a smaller one.
    again = CheckpointStore(tmp_path, {}, keep=keep)
    again.save(0, small(7))
    assert_same(again.restore(small(0)).tree, small(7))


def test_the_same_step_again_is_the_newer_one(two_steps):
    two_steps.save(200, small(5))
    assert_same(two_steps.restore(small(0)).tree, small(5))
    assert len(list(two_steps._directory.glob("step-*"))) == 2


def test_a_damaged_step_takes_no_place_among_those_kept(two_steps):
    destroy(two_steps, 200)
    assert two_steps.restore(small(0)).step == 100
    two_steps.save(200, small(200))
    assert two_steps.steps() == [100, 200]
    assert two_steps.restore(small(0)).warnings == ()


# Damage


def restore_after_damage(store, what):
    """Step 200 to the bit and nothing said, or step 100 to the bit and step 200 named."""
    found = store.restore(small(0))
    assert_same(found.tree, small(found.step))
    if found.step == 200:
        assert found.warnings == (), what
        return False
    assert found.step == 100, what
    (warning,) = found.warnings
    assert re.search(r"run: step 200 is damaged \(.+\); step 100 is used instead\.", warning), what
    return True


def test_flipped_bits_cost_a_step_or_nothing(two_steps):
    path, rng, found = file(two_steps, 200), np.random.default_rng(0), 0
    sound = path.read_bytes()
    for position in rng.choice(8 * len(sound), size=300, replace=False):
        bits = bytearray(sound)
        bits[position // 8] ^= 1 << (position % 8)
        path.write_bytes(bits)
        found += restore_after_damage(two_steps, position)
    assert found > 270


@pytest.mark.parametrize("damage", ["half", "empty", "directory", "renamed", "other", "foreign"])
def test_files_that_are_not_what_was_saved_are_found(two_steps, tmp_path, damage):
    path = file(two_steps, 200)
    sound = path.read_bytes()
    path.unlink()
    if damage in ("half", "empty"):
        path.write_bytes(sound[: len(sound) // 2 if damage == "half" else 0])
    elif damage == "directory":
        path.mkdir()
    elif damage == "renamed":  # a file whose name says that it is of another step
        shutil.copy(file(two_steps, 100), path)
    elif damage == "other":  # the file of this name, from the directory of another experiment
        other = CheckpointStore(tmp_path / "other", EXPERIMENT | {"steps": 7})
        for step in (100, 200):
            other.save(step, small(0))
        shutil.copy(file(other, 200), path)
    else:
        np.savez(path, w=np.ones(2))
    assert restore_after_damage(two_steps, damage)


def test_a_save_with_another_number_is_found(two_steps):
    """Its number says which save is the newer one."""
    os.replace(file(two_steps, 100), two_steps._directory / "step-00000100.0009.npz")
    found = two_steps.restore(small(0))
    assert found.step == 200
    assert "step 100 is damaged (it holds step 100 of save 1, so its" in found.warnings[0]


@pytest.mark.parametrize("change", [{"note": 7}, {"step": None}, {"trees": {}}, {"serial": DEEP}])
def test_a_header_that_lies_costs_a_step(two_steps, change):
    forged(file(two_steps, 200), lambda known: known | change)
    assert restore_after_damage(two_steps, change)


def test_nothing_that_can_be_read_is_an_error_not_a_start_from_zero(two_steps):
    for step in (100, 200):
        destroy(two_steps, step)
    with pytest.raises(ValueError, match=r"no step that can be read back: step 200 .*; step 100 "):
        two_steps.restore(small(0))


def test_a_save_that_was_cut_off_is_told_and_swept(two_steps):
    shutil.copy(file(two_steps, 200), two_steps._directory / ".step-00000300.0003.npz.x.tmp")
    (two_steps._directory / ".experiment.json.x.tmp").touch()
    found = two_steps.restore(small(0))
    assert found.step == 200
    (warning,) = found.warnings
    assert "the save of step 300 was cut off; step 200 is used instead." in warning
    two_steps.save(300, small(300))
    assert hidden(two_steps) == []


def test_a_model_with_other_leaves_is_refused(two_steps):
    said = r"other leaves than .*/step-00000200.0002.npz, or .*Only in the file: 'w'"
    with pytest.raises(ValueError, match=said):
        two_steps.restore({"n": np.zeros(3, int)})
    with pytest.raises(ValueError, match=r"leaf w is float32\[40, 25\] in .*jax_enable_x64"):
        two_steps.restore(small(0) | {"w": np.zeros((40, 25))})


def test_a_step_of_a_newer_version_is_not_passed_over(two_steps):
    forged(file(two_steps, 200), lambda known: known | {"version": 99})
    with pytest.raises(
        ValueError, match=r"restore: .*0200.0002.npz' has the format version 99.*Upd"
    ):
        two_steps.restore(small(0))


def test_a_step_without_a_state_is_damaged(two_steps):
    without = lambda known: known | {"trees": {"state": None}}
    forged(file(two_steps, 200), without, lambda members: members[:1])
    assert restore_after_damage(two_steps, "no state")


# Which directory


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 100}, "steps is 100 here and 200 there"),
        ({"name": "iris", "steps": 1}, "name is 'iris' here and 'digits' there; steps is 1 here"),
        ({"lam": [0.1, 2.0]}, r"lam\[1\] is 2.0 here and 1.0 there"),
        ({"lam": [0.1]}, "lam has 1 values here and 2 there"),
        ({"patience": 5}, "patience is 5 here and absent there"),
        ({"floor": 0.5}, "floor is 0.5 here and nan there"),
    ],
)
def test_another_experiment_is_refused_with_every_difference(two_steps, change, said):
    with pytest.raises(
        ValueError, match=f"run holds another experiment: {said}.*another directory"
    ):
        CheckpointStore(two_steps._directory, EXPERIMENT | change)


def test_an_entry_that_is_gone_is_named(store):
    fewer = {k: v for k, v in EXPERIMENT.items() if k != "steps"}
    with pytest.raises(ValueError, match="steps is absent here and 200 there"):
        CheckpointStore(store._directory, fewer)


@pytest.mark.parametrize("damage", [b"", b"{}", None])
def test_a_lost_marker_is_found_again_in_the_steps(two_steps, damage):
    marker = two_steps._directory / "experiment.json"
    marker.unlink() if damage is None else marker.write_bytes(damage)
    with pytest.raises(ValueError, match="steps is 7 here and 200 there"):
        CheckpointStore(two_steps._directory, EXPERIMENT | {"steps": 7})
    assert CheckpointStore(two_steps._directory, EXPERIMENT).restore(small(0)).step == 200
    assert json.loads(marker.read_text())["experiment"]["steps"] == 200


@pytest.mark.parametrize("name", ["thesis.tex", "experiment.json", "step-1"])
def test_a_directory_of_something_else_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"no sound checkpoints, \\['{name}'\\] among them"):
        CheckpointStore(tmp_path, EXPERIMENT)
    assert (tmp_path / name).read_text() == "mine"
    assert os.listdir(tmp_path) == [name]


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="cannot be used: (File exists|Not a directory)"):
            CheckpointStore(path, EXPERIMENT)


@contextmanager
def without_privileges():
    """Root may write anywhere; nobody may not."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_directory_is_refused_at_once():
    with tempfile.TemporaryDirectory() as path:
        CheckpointStore(path, EXPERIMENT)
        os.chmod(path, 0o555)
        for directory in (path, f"{path}/new"):
            with (
                without_privileges(),
                pytest.raises(ValueError, match=f"{directory} cannot be used: Permission denied"),
            ):
                CheckpointStore(directory, EXPERIMENT)


def test_bad_arguments_are_told(store, tmp_path):
    with pytest.raises(ValueError, match="`keep` must be an int >= 1, got 0"):
        CheckpointStore(tmp_path / "new", EXPERIMENT, keep=0)
    with pytest.raises(ValueError, match="local or mounted directory, got .gs://bucket/run"):
        CheckpointStore("gs://bucket/run", EXPERIMENT)
    with pytest.raises(TypeError, match=r"`experiment` has 'x' of type ndarray.*tolist"):
        CheckpointStore(tmp_path / "new", {"x": np.zeros(2)})
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="`step` must be >= 0, got -1"):
        store.save(-1, {})
    with pytest.raises(TypeError, match="`note` has 'x' of type set"):
        store.save(1, {}, note={"x": {1}})
    with pytest.raises(TypeError, match="the leaf a/0 has dtype"):
        store.save(1, {"a": ["text"]})
    assert (store.steps(), hidden(store)) == ([], [])


# Saves that fail


def test_a_full_disk_is_told_before_writing(two_steps, monkeypatch):
    usage = shutil.disk_usage(two_steps._directory)._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError) as error:
        two_steps.save(300, {"w": np.zeros(1_000_000, np.float32)})
    assert str(error.value) == (
        f"{two_steps._directory}: step 300 needs 4.0 MB and could not be written (No space left on "
        "device); 3.0 MB are free there. Step 200 is intact."
    )
    assert (two_steps.steps(), hidden(two_steps)) == ([100, 200], [])


@contextmanager
def no_file_larger_than(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_half_way_leaves_nothing(two_steps):
    noise = np.random.default_rng(0).standard_normal(500_000)
    with (
        no_file_larger_than(400_000),
        pytest.raises(CheckpointError, match=r"8\.0 MB .*File too large.* Step 200 is intact"),
    ):
        two_steps.save(300, {"w": noise, "v": noise})
    assert (two_steps.steps(), hidden(two_steps)) == ([100, 200], [])
    assert_same(two_steps.restore(small(0)).tree, small(200))
    two_steps.save(300, small(300))
    assert two_steps.restore(small(0)).step == 300


def test_a_directory_that_vanished_is_a_checkpoint_error(store):
    shutil.rmtree(store._directory)
    with pytest.raises(CheckpointError, match="No such file.*cannot be read any more"):
        store.save(1, small(1))


def test_ctrl_c_in_a_save_leaves_nothing(two_steps, monkeypatch):
    def interrupted(member, *_):
        member.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", interrupted)
    with pytest.raises(KeyboardInterrupt):
        two_steps.save(300, small(300))
    assert (two_steps.steps(), hidden(two_steps)) == ([100, 200], [])


# Each life goes on from the step the last one reached, checks it, and saves until it is killed.
# Lives are forked before jax starts a thread, so that all kills cost one import.
LIVES = """
import os, random, signal, sys, time, traceback
import numpy as np
from jaxreg.sweeps.checkpoint import CheckpointStore

def state(step):
    return {"w": np.random.default_rng(step).standard_normal((100, 500)), "n": np.full(3, step)}

def life(out):
    store = CheckpointStore(sys.argv[1], {"lives": 1})
    found = store.restore(state(0))
    step = -1
    if found is not None:
        step = found.step
        for name, leaf in state(step).items():
            assert found.tree[name].tobytes() == leaf.tobytes(), (step, name)
        assert not any("damaged" in warning for warning in found.warnings), found.warnings
    os.write(out, b"resumed %d\\n" % step)
    while True:
        step += 1
        store.save(step, state(step))
        os.write(out, b"saved %d\\n" % step)

random.seed(int(sys.argv[2]))
saved, cut_off = -1, 0
for _ in range(int(sys.argv[3])):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            life(write)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(write)
    told = b""
    while b"saved" not in told:
        more = os.read(read, 100)
        assert more, "the life ended by itself"
        told += more
    time.sleep(random.uniform(0, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(read, 100):
        told += more
    words = told.split()
    assert int(words[1]) >= saved, (saved, told)  # nothing reported as saved was lost
    saved = int(words[-1]) if len(words) % 2 == 0 else saved
    cut_off += any(n.startswith(".") for n in os.listdir(sys.argv[1]))
print(saved, cut_off)
"""


def test_killed_at_any_moment_every_reported_step_is_there(tmp_path):
    lives = [sys.executable, "-c", LIVES, str(tmp_path), "0", "12"]
    run = subprocess.run(lives, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    saved, cut_off = map(int, run.stdout.split())
    assert cut_off >= 2, "hardly a life was killed in the middle of a save"
    store = CheckpointStore(tmp_path, {"lives": 1})
    found = store.restore({"w": np.zeros((100, 500)), "n": np.zeros(3, int)})
    assert found.step >= saved
    assert found.tree["n"].tolist() == [found.step] * 3
    assert len(store.steps()) <= 3


# The second process is forked before jax starts a thread, so that both cost one import.
HOSTS = """
import os, sys
import jax, numpy as np
from jax.experimental.multihost_utils import sync_global_devices
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxreg.sweeps.checkpoint import CheckpointStore

second = os.fork()
me = int(second == 0)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{sys.argv[2]}", num_processes=2, process_id=me)
store = CheckpointStore(sys.argv[1], {"hosts": 2})
tree = {"w": np.arange(50_000.0), "key": jax.random.key(3)}
assert store.restore(tree) is None
sync_global_devices("both have looked")
if me == 0:
    for step in range(3):
        store.save(step, tree, {"step": step})
    mesh = NamedSharding(Mesh(np.array(jax.devices()), ("x",)), PartitionSpec("x"))
    try:
        store.save(9, {"shared": jax.make_array_from_callback((2,), mesh, lambda i: np.ones(1))})
    except ValueError as error:
        print(error)
sync_global_devices("the first has saved")
found = store.restore(tree)
assert found.tree["w"].tobytes() == tree["w"].tobytes()
assert (found.step, found.saved.note, found.warnings) == (2, {"step": 2}, ())
assert jax.process_count() == 2
jax.distributed.shutdown()  # each waits for the other
if me == 0:
    assert os.waitpid(second, 0)[1] == 0, "the second process failed"
"""


def test_one_of_two_processes_saves_and_both_restore(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    run = subprocess.run(
        [sys.executable, "-c", HOSTS, str(tmp_path), port],
        capture_output=True, text=True, timeout=60, check=False, env=env,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert "the leaf shared lives partly on another process" in run.stdout
