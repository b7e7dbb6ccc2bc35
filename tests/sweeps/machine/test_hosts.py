"""Several processes for real: two on the loopback address, connected by jax's own runtime."""

import json
import signal
import socket
import subprocess
import sys
import time

import pytest
from support.paths import TESTS
from support.toy import assert_close, run, streamed

import jaxreg as jr

PATIENCE = 120  # seconds that a process may take before the test gives it up


@pytest.fixture(scope="module")
def one_process():
    return run(steps=40, evals=20, halving=jr.Halving(0.5, 2))


def numbers(result):
    return result.train, result.valid, result.penalty_value, result.params


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(tmp_path, slow, count=2, what="host"):
    port = free_port()
    given = lambda i: [what, i, count, port, tmp_path / "run", tmp_path / "out", slow]
    child = lambda i: [sys.executable, "-m", "support.children", *map(str, given(i))]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(child(i), cwd=TESTS, **pipes) for i in range(count)]


def test_two_processes_equal_one_and_both_have_the_whole_result(tmp_path, one_process):
    said = []
    for process in start(tmp_path, 0):
        out, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, error
        said.append(json.loads(out.splitlines()[-1]))
    assert said[0] == said[1]
    assert said[0]["devices"] == 2
    for index in (0, 1):
        result = jr.SweepResult.load(f"{tmp_path / 'out'}.{index}")
        assert_close(numbers(result), numbers(one_process))


def test_two_processes_that_read_their_parts_of_a_stream_equal_one_that_reads_it_whole(tmp_path):
    for process in start(tmp_path, 0, what="stream_host"):
        _, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, error
    whole = streamed()
    for index in (0, 1):
        result = jr.SweepResult.load(f"{tmp_path / 'out'}.{index}")
        assert_close(numbers(result), numbers(whole))


def test_a_killed_host_leaves_a_checkpoint_from_which_one_goes_on(tmp_path, one_process):
    processes = start(tmp_path, 0.1)
    alive = (tmp_path / "out").with_suffix(".alive")
    deadline = time.monotonic() + PATIENCE
    while not (alive.exists() and alive.read_text() > "") or int(alive.read_text()) < 8:
        assert time.monotonic() < deadline, "no evaluation was reached"
        assert processes[0].poll() is None, processes[0].communicate()[1]
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGKILL)
    _, error = processes[0].communicate(timeout=PATIENCE)
    assert processes[0].returncode == 1, "the other one does not hang"
    assert "another of the 2 processes no longer answers. Start all of them again" in error
    processes[1].communicate()
    assert not (tmp_path / "out.0").exists()
    assert list((tmp_path / "run").glob("step-*")), error
    result = run(steps=40, evals=20, halving=jr.Halving(0.5, 2), checkpoint=tmp_path / "run")
    assert_close(numbers(result), numbers(one_process))
