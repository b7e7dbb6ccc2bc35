"""Callbacks: who is called with what, and what becomes of one that raises."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxreg.sweeps.watch.callbacks import Callback, Callbacks, Evaluation, Outline

K, F, S = 2, 3, 2
ONES = np.ones((K, F, S))
OUTLINE = Outline({"lam": np.array([0.1, 1.0])}, F, S, 20, ("loss",), ("l2",), "{}")


def evaluation(step):
    return Evaluation(
        step, {"loss": step * ONES}, {"loss": 2 * step * ONES}, {"l2": ONES}, ONES > 0
    )


class Recorder(Callback):
    def __init__(self, log, name=""):
        self.log, self.name = log, name

    def start(self, outline):
        self.log.append((self.name, "start", outline.steps))

    def evaluated(self, evaluation):
        self.log.append((self.name, "evaluated", evaluation.step))

    def finish(self, result):
        self.log.append((self.name, "finish", result))


class Broken(Recorder):
    """Raises in one method, at one step."""

    def __init__(self, log, method, step=None, error=None):
        super().__init__(log, "broken")
        self.method, self.step, self.error = method, step, error or OSError("disk full")

    def _raise_here(self, method, step=None):
        if (method, step) == (self.method, self.step):
            raise self.error

    def start(self, outline):
        super().start(outline)
        self._raise_here("start")

    def evaluated(self, evaluation):
        super().evaluated(evaluation)
        self._raise_here("evaluated", evaluation.step)

    def finish(self, result):
        super().finish(result)
        self._raise_here("finish")


def run(callbacks):
    calls = Callbacks(callbacks)
    calls.start(OUTLINE)
    for step in (0, 10, 20):
        calls.evaluated(evaluation(step))
    calls.finish("result")
    return calls


def test_every_method_is_called_once_per_event_in_the_order_given():
    log = []
    calls = run([Recorder(log, "a"), Recorder(log, "b")])
    events = [("start", 20), ("evaluated", 0), ("evaluated", 10), ("evaluated", 20)]
    events += [("finish", "result")]
    assert log == [(name, *event) for event in events for name in "ab"]
    assert calls.report() == []


def test_the_base_class_does_nothing():
    assert run([Callback()]).report() == []
    assert run([]).report() == []
    assert Callbacks().report() == []


@pytest.mark.parametrize(
    ("method", "step", "calls_before", "where"),
    [
        ("start", None, 1, "in `start` and"),
        ("evaluated", 10, 3, "in `evaluated` at step 10 and"),
        ("finish", None, 5, "in `finish` at step 20 and"),
    ],
)
def test_one_that_raises_is_switched_off_and_the_others_are_called(
    method, step, calls_before, where
):
    log = []
    calls = run([Recorder(log, "a"), Broken(log, method, step), Recorder(log, "b")])
    count = lambda name: sum(entry[0] == name for entry in log)
    assert (count("a"), count("broken"), count("b")) == (5, calls_before, 5)
    (text,) = calls.report()
    assert text.startswith(
        f"callbacks[1] (Broken) raised {where} was switched off: OSError: disk full ("
    )
    assert text.endswith("in _raise_here: raise self.error)")
    assert "test_callbacks.py:" in text


def test_each_failure_is_reported_in_its_order():
    calls = run([Broken([], "finish"), Broken([], "start"), Broken([], "evaluated", 20)])
    assert [text[:12] for text in calls.report()] == [
        "callbacks[1]",
        "callbacks[2]",
        "callbacks[0]",
    ]


def test_the_report_is_a_copy():
    calls = run([Broken([], "start")])
    calls.report().clear()
    assert len(calls.report()) == 1


def test_a_method_of_another_signature_is_reported():
    class Wrong(Callback):
        def evaluated(self):
            pass

    (text,) = run([Wrong()]).report()
    assert "`evaluated` at step 0" in text
    assert "takes 1 positional argument but 2 were given" in text


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_must_stop_the_sweep_is_not_held_back(stop):
    with pytest.raises(stop):
        run([Broken([], "evaluated", 10, stop())])


def test_a_callback_cannot_write_into_the_sweep():
    class Vandal(Callback):
        def start(self, outline):
            outline.coords["other"] = 0
            outline.coords["lam"][0] = 7

        def evaluated(self, evaluation):
            evaluation.train.clear()
            evaluation.alive[:] = False

    class ValidVandal(Callback):
        def evaluated(self, evaluation):
            evaluation.valid["loss"] *= 0

    seen = []

    class Witness(Callback):
        def evaluated(self, evaluation):
            seen.append(evaluation.valid["loss"].sum())

    mine = evaluation(10)
    calls = Callbacks([Vandal(), ValidVandal(), Witness()])
    calls.start(OUTLINE)
    calls.evaluated(mine)
    assert ["read-only" in text for text in calls.report()] == [True, True]
    assert OUTLINE.coords["lam"].tolist() == [0.1, 1.0]
    assert list(OUTLINE.coords) == ["lam"]
    assert mine.alive.all()
    assert mine.train["loss"].flags.writeable
    assert seen == [20.0 * K * F * S]


def test_no_traceback_is_kept_alive():
    """The frames of an error hold the arrays of an evaluation; a report must not."""
    calls = run([Broken([], "start")])
    assert all(isinstance(text, str) for text in calls.report())
    assert not any(isinstance(v, BaseException) for v in vars(calls).values())


def test_only_the_first_process_calls(monkeypatch):
    log = []
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert run([Recorder(log), Broken(log, "start")]).report() == []
    assert log == []


def test_making_callbacks_starts_no_backend():
    code = (
        "from jaxreg.sweeps.watch.callbacks import Callback, Callbacks; Callbacks([Callback()])\n"
        "from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (
            Callback(),
            r"must be a list of Callback objects, got .*Write callbacks=\[\.\.\.\] around",
        ),
        (
            [Callback(), print],
            r"`callbacks\[1\]` must be an object of a subclass of jaxreg.Callback",
        ),
        ([Recorder], r"`callbacks\[0\]` must be an object .* got <class .*Recorder'>"),
    ],
)
def test_things_that_are_no_callbacks(bad, match):
    with pytest.raises(TypeError, match=match):
        Callbacks(bad)
