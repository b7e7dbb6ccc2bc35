"""Batches from outside: read once for all lanes, to the bits of the sweep over arrays, in every life."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.paths import TESTS

import jaxreg as jr
from jaxreg.fit.batches import BatchStream, stream_key
from jaxreg.sweeps import reader

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
N, D, B, STEPS = 40, 4, 8, 23
X = RNG.normal(size=(N, D)).astype("f")
Y = (X @ np.array([2, -1, 0.5, 0]) + RNG.normal(size=N)).astype("f")
VALID = (RNG.normal(size=(12, D)).astype("f"), RNG.normal(size=12).astype("f"))


def loss(p, x, y):
    return 0.5 * jnp.mean((jnp.tanh(x @ p["a"]) @ p["b"] - y) ** 2)


def rmse(p, x, y):
    return jnp.sqrt(2 * loss(p, x, y))


def trainer(reg):
    def init(key):
        a, b = jax.random.split(key)
        return {"a": jax.random.normal(a, (D, 5)), "b": jax.random.normal(b, (5,))}

    tx = optax.chain(jr.add_penalty_gradient(reg), optax.adam(0.05))
    return jr.Trainer(init, loss, tx, {"rmse": rmse})


def sweep(data, lams=(0.01, 0.1, 1.0), **kwargs):
    options = {"steps": STEPS, "evals": 4, "key": KEY, "progress": False, "validation": VALID}
    return jr.sweep(trainer, jr.grid(jr.l2, lam=list(lams)), data, **(options | kwargs))


def batches_of_the_sweep():
    """The batches that a sweep over the arrays takes, one epoch after the other."""
    rows = jnp.arange(N)
    drawn = BatchStream(rows, N, stream_key(KEY, 0, 0), B, STEPS + 9, N).batches((X, Y), 0)
    return [tuple(map(np.asarray, drawn(i)[0])) for i in range(STEPS + 9)]


BATCHES = batches_of_the_sweep()


class Counting:
    """An iterable that knows how often each batch was read."""

    def __init__(self, batches=BATCHES):
        self.batches, self.read = batches, []

    def __iter__(self):
        for i, batch in enumerate(self.batches):
            self.read.append(i)
            yield batch


@pytest.fixture(scope="module")
def over_arrays():
    return sweep((X, Y), batch_size=B, machine=jr.Machine(chunk=1))


@pytest.mark.parametrize("width", [1, 5, 64])
def test_the_same_batches_give_the_bits_of_the_sweep_over_arrays(over_arrays, width, monkeypatch):
    monkeypatch.setattr(reader, "_MOST", width)
    got = sweep(jr.stream(lambda: iter(BATCHES)), machine=jr.Machine(chunk=1))
    for a, b in zip(jax.tree.leaves(got.params), jax.tree.leaves(over_arrays.params)):
        np.testing.assert_array_equal(a, b)
    # Scores are sums over other rows of weight 0, or none: equal to rounding.
    np.testing.assert_allclose(got.valid["loss"], over_arrays.valid["loss"], rtol=1e-6)
    np.testing.assert_allclose(got.valid["rmse"], over_arrays.valid["rmse"], rtol=1e-6)


def test_train_scores_are_those_of_the_last_batch():
    got = sweep(jr.stream(BATCHES))
    x, y = BATCHES[STEPS - 1]
    params = got.lane(1)
    np.testing.assert_allclose(got.train["loss"][1, 0, 0, -1], loss(params, x, y), rtol=1e-5)
    np.testing.assert_allclose(got.train["rmse"][1, 0, 0, -1], rmse(params, x, y), rtol=1e-5)
    np.testing.assert_allclose(got.valid["rmse"][1, 0, 0, -1], rmse(params, *VALID), rtol=1e-5)


def test_a_batch_is_read_once_for_all_lanes():
    source = Counting()
    sweep(jr.stream(source), lams=np.geomspace(1e-3, 1, 7), seeds=2)
    after_the_first = source.read[1:]  # it tells the shapes
    assert after_the_first == list(range(STEPS)), "and none in vain"


def test_epochs_follow_each_other_and_short_batches_are_left_out(over_arrays):
    few = [*BATCHES[:5], tuple(a[:3] for a in BATCHES[5])]
    with pytest.warns(RuntimeWarning, match="4 batches of the stream had fewer rows"):
        got = sweep(jr.stream(few))
    want = sweep(jr.stream(BATCHES[:5]))
    np.testing.assert_array_equal(got.valid["loss"], want.valid["loss"])


def test_a_function_may_take_the_epoch():
    seen = []

    def make(epoch):
        seen.append(epoch)
        return iter(BATCHES[:6])

    sweep(jr.stream(make))
    assert seen[-1] >= (STEPS - 1) // 6
    assert sorted(set(seen)) == list(range(max(seen) + 1))


def test_giving_up_and_patience_work_on_streams():
    halved = sweep(jr.stream(BATCHES), halving=jr.Halving(0.5, 1), patience=3)
    assert (halved.status == jr.Status.GIVEN_UP).any()
    assert halved.best().index in range(3)


def test_validation_may_be_a_stream_that_ends():
    parts = [tuple(a[i : i + 5] for a in VALID) for i in (0, 5, 10)]
    got = sweep(jr.stream(BATCHES), validation=jr.stream(parts))
    np.testing.assert_array_equal(got.valid["loss"], sweep(jr.stream(BATCHES)).valid["loss"])


# --- resume -----------------------------------------------------------------------------------------


class Stateful:
    """An iterator with a state of its own, as of torchdata and grain."""

    loaded: ClassVar[list] = []

    def __init__(self):
        self.at = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.at >= len(BATCHES):
            raise StopIteration
        self.at += 1
        return BATCHES[self.at - 1]

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        type(self).loaded.append(state)
        self.at = state["at"]


class Stop(jr.Callback):
    pressed = False

    def evaluated(self, evaluation):
        if evaluation.step >= 6 and not self.pressed:
            self.pressed = True
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("width", [2, 64])
@pytest.mark.parametrize("stateful", [False, True])
def test_an_interrupted_stream_goes_on_to_the_same_bits(tmp_path, stateful, width, monkeypatch):
    monkeypatch.setattr(reader, "_MOST", width)
    source = (lambda: jr.stream(Stateful)) if stateful else lambda: jr.stream(BATCHES)
    whole = sweep(source())
    with pytest.raises(jr.Interrupted):
        sweep(source(), checkpoint=tmp_path, checkpoint_every=0, callbacks=[Stop()])
    Stateful.loaded = []
    again = sweep(source(), checkpoint=tmp_path)
    np.testing.assert_array_equal(again.valid["loss"], whole.valid["loss"])
    for a, b in zip(jax.tree.leaves(again.params), jax.tree.leaves(whole.params)):
        np.testing.assert_array_equal(a, b)
    if stateful and width == 2:  # stopped at step 8, after the window that began at step 6
        assert Stateful.loaded == [{"at": 6}]


LIVES = """
import os, sys, time
import jax, numpy as np
sys.path.insert(0, {tests!r})
from sweeps_stream import sweep, BATCHES
import jaxreg as jr
from jaxreg.sweeps import reader
reader._MOST = 3
class Slow(jr.Callback):
    def evaluated(self, evaluation): time.sleep(0.05)
result = sweep(jr.stream(BATCHES), evals=20, checkpoint={checkpoint!r}, checkpoint_every=0, callbacks=[Slow()])
result.save({out!r}, overwrite=True)
"""


def test_killed_with_9_in_the_middle_it_ends_with_the_same_bits(tmp_path):
    """Two lives end by SIGKILL after a checkpoint was written, the third reaches the end."""
    code = LIVES.replace("from sweeps_stream", "from sweeps.test_streams").format(
        tests=str(TESTS), checkpoint=str(tmp_path / "c"), out=str(tmp_path / "r.npz")
    )
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"}
    for life in range(2):
        child = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=TESTS)
        began = time.monotonic()
        while len(list((tmp_path / "c").glob("*"))) <= life and time.monotonic() - began < 120:
            time.sleep(0.01)
        time.sleep(0.05 * life)
        child.send_signal(signal.SIGKILL)
        child.wait()
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=TESTS, check=False)
    assert done.returncode == 0
    want = sweep(jr.stream(BATCHES), evals=20)
    got = jr.SweepResult.load(tmp_path / "r.npz")
    np.testing.assert_array_equal(got.valid["loss"], want.valid["loss"])


def test_another_stream_in_the_directory_is_refused(tmp_path):
    sweep(jr.stream(BATCHES), checkpoint=tmp_path)
    with pytest.raises(ValueError, match="stream"):
        sweep(jr.stream([(x + 1, y) for x, y in BATCHES]), checkpoint=tmp_path)


# --- what is refused --------------------------------------------------------------------------------


def broken():
    yield from BATCHES[:10]
    raise OSError("the disk is gone")


BAD = {
    "a generator": (lambda: jr.stream(iter(BATCHES)), TypeError, "an iterator, which ends"),
    "no iterable": (lambda: jr.stream(3), TypeError, r"no iterable \(int\)"),
    "one generator twice": (
        lambda: (lambda one: sweep(jr.stream(lambda: one)))(iter(BATCHES)),
        TypeError, "returned the same list_iterator twice",
    ),
    "nothing": (lambda: jr.stream([]), ValueError, "the first epoch has no batch"),
    "text": (lambda: jr.stream([(np.array(["a"]),)]), TypeError, r"batch\[0\]. must hold numbers.*batch 0"),
    "NaN later": (
        lambda: sweep(jr.stream([BATCHES[0], (X[:B] * np.nan, Y[:B])])), ValueError,
        r"`batch\[0\]` has NaN in 8 of 8 rows.*\(batch 1 of the stream\)",
    ),
    "another shape": (
        lambda: sweep(jr.stream([BATCHES[0], (X[:B, :2], Y[:B])])), ValueError,
        r"batch 1 has float32\[8, 2\], float32\[8\], and the first has float32\[8, 4\]",
    ),
    "other names": (
        lambda: jr.stream([{"x": X[:B]}, {"z": X[:B]}]).open(1).__next__(), ValueError,
        r"batch 1 has float32\[8, 4\], and the first has",
    ),
    "too few digits": (
        lambda: jr.stream([(1.7e9 + np.arange(8.0),)]), ValueError, "float32 has too few digits",
    ),
    "an error of the source": (lambda: sweep(jr.stream(broken)), OSError, "the disk is gone"),
    "folds": (lambda: sweep(jr.stream(BATCHES), folds=3), ValueError, "`folds` is for arrays"),
    "weights": (lambda: sweep(jr.stream(BATCHES), sample_weight=Y), ValueError, "`sample_weight` is for"),
    "a batch size": (
        lambda: sweep(jr.stream(BATCHES), batch_size=4), ValueError, "the stream have 8 rows; leave",
    ),
    "no validation": (
        lambda: sweep(jr.stream(BATCHES), validation=None), ValueError, "a stream needs `validation`",
    ),
    "a fit": (
        lambda: jr.fit(trainer, jr.l2(0.1), jr.stream(BATCHES), steps=2, key=KEY),
        TypeError, r"give it one point, as in jaxreg.points",
    ),
    "a loader as it is": (
        lambda: sweep(Counting()), TypeError, r"For batches from outside give jaxreg.stream\(...\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_streams_that_cannot_be_read_are_named(name):
    make, error, match = BAD[name]
    with pytest.raises(error, match=match):
        make()


def test_no_thread_is_left_behind():
    before = threading.active_count()
    sweep(jr.stream(BATCHES))
    with pytest.raises(OSError, match="gone"):
        sweep(jr.stream(broken))
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before
