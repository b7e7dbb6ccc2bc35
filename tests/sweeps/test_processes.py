"""Sweeps where users run them: threads, event loops, workers without signals, and a Ctrl-C that is meant."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.paths import TESTS
from support.toy import assert_equal, numbers, run


@pytest.fixture(scope="module")
def whole():
    return run()


def test_sweeps_of_several_threads_do_not_touch_each_other(whole, tmp_path):
    """And may not set signals, as workers of a server or a notebook."""
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(run, checkpoint=tmp_path / str(i % 3 and i)) for i in range(1, 5)]
    for job in jobs:
        assert_equal(numbers(job.result()), numbers(whole))


def test_of_two_threads_in_one_directory_one_is_refused_or_reads_what_the_other_left(
    whole, tmp_path
):
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(run, checkpoint=tmp_path / "run") for _ in range(2)]
    errors = [job.exception() for job in jobs]
    assert errors.count(None) >= 1
    for job, error in zip(jobs, errors):
        if error is None:
            assert_equal(numbers(job.result()), numbers(whole))
        else:
            assert "in use by process" in str(error)


def test_in_an_event_loop(whole, tmp_path):
    async def cell():
        beside = asyncio.get_running_loop().run_in_executor(None, run)
        return run(checkpoint=tmp_path / "run"), await beside

    for result in asyncio.run(cell()):
        assert_equal(numbers(result), numbers(whole))


LONG = """
import sys, time
sys.path.insert(0, sys.argv[1])
import jaxreg as jr
from support.toy import run
class Tell(jr.Callback):
    def evaluated(self, evaluation):
        if evaluation.step == 4000:
            print("running", flush=True)
            time.sleep(float(sys.argv[3]))
run(steps=2_000_000, evals=500, callbacks=[Tell()], checkpoint=sys.argv[2])
"""


def ended(tmp_path, presses, held):
    """How a process ends that is sent Ctrl-C so often, and how many seconds after the last.

    A callback holds it for `held` seconds from before the first press.
    """
    command = [sys.executable, "-c", LONG, str(TESTS), str(tmp_path / "run"), str(held)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "running\n"
        time.sleep(0.1)  # a press between the line and the sleep would be the first of two
        for _ in range(presses):
            os.kill(process.pid, signal.SIGINT)
            time.sleep(0.1)  # two at once would be one
        began = time.monotonic()
        _, err = process.communicate(timeout=100)
        return err, time.monotonic() - began


@pytest.mark.parametrize(
    ("presses", "held", "word"), [(1, 0, "Interrupted:"), (2, 60, "KeyboardInterrupt")]
)
def test_ctrl_c_ends_soon_and_a_second_one_at_once(presses, held, word, tmp_path):
    """The first is heeded where the lanes can be kept, the second where a callback holds the sweep.

    Of three tries one is to be quick: the machine may be busy with other tests.
    """
    found = []
    while len(found) < 3 and (not found or min(found) > 2.5):
        err, seconds = ended(tmp_path / str(len(found)), presses, held)
        assert word in err
        found.append(seconds)
    assert min(found) < 1 + 1.5  # of which python and jax end as slowly without a sweep


FORKED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from support.toy import run
run()
if os.fork() == 0:
    try:
        run()
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""


def test_a_fork_of_a_process_that_has_used_jax_is_told_and_does_not_hang():
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(TESTS)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert re.match("(sweep|grid): this process was forked from one in which jax was at work", told)
    assert "spawn" in told


def test_a_sweep_leaves_no_thread_and_no_handler_behind(whole):
    del whole
    before, handler = threading.active_count(), signal.getsignal(signal.SIGINT)
    for _ in range(3):
        run()
    assert threading.active_count() <= before + 2 * (os.cpu_count() or 1)
    assert signal.getsignal(signal.SIGINT) is handler
