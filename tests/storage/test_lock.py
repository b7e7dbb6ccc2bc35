"""A directory belongs to one run at a time, and to none that has ended."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from jaxreg.storage.lock import LOCK, locked

HOLD = textwrap.dedent(
    """
    import sys, time
    from jaxreg.storage.lock import locked
    with locked("sweep", sys.argv[1]):
        print("held", flush=True)
        time.sleep(60)
    """
)


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_told_who_has_it_and_to_empty_nothing(tmp_path, holder):
    with (
        pytest.raises(
            ValueError, match=rf"sweep: .* is in use by process {holder.pid} on .*never empty"
        ),
        locked("sweep", tmp_path),
    ):
        pass
    assert json.loads((tmp_path / LOCK).read_text())["process"] == holder.pid


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_has_died_keeps_nothing(tmp_path, holder, how):
    holder.send_signal(how)
    holder.wait()
    with locked("sweep", tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()


def test_within_one_process_as_well(tmp_path):
    with (
        locked("sweep", tmp_path),
        pytest.raises(ValueError, match=rf"process {os.getpid()} \(this one\)"),
        locked("sweep", tmp_path),
    ):
        pass
    with locked("sweep", tmp_path):
        pass


def test_an_error_inside_gives_it_back(tmp_path):
    with pytest.raises(KeyError), locked("sweep", tmp_path):
        raise KeyError
    with locked("sweep", tmp_path):
        pass


FORKS = textwrap.dedent(
    """
    import os, sys, time
    from jaxreg.storage.lock import locked
    with locked("sweep", sys.argv[1]):
        if not os.fork():
            print("forked", flush=True)
            time.sleep(30)
            os._exit(0)
        time.sleep(60)
    """
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_keep_the_lock_of_a_parent_that_has_died(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKS, str(tmp_path)],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert parent.stdout.readline() == "forked\n"
    with pytest.raises(ValueError, match="in use"), locked("sweep", tmp_path):
        pass
    parent.kill()
    parent.wait()
    try:
        with locked("sweep", tmp_path):
            pass
    finally:
        os.killpg(parent.pid, signal.SIGKILL)


def test_what_lies_in_the_lock_is_not_believed(tmp_path, holder):
    for text in ("", "[]", '{"process": "x"}', "\\x00" * 9, '{"process": 3}'):
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(ValueError, match="in use by another process"), locked("s", tmp_path):
            pass


@pytest.mark.skipif(os.name != "posix", reason="by posix locks")
def test_one_that_has_just_taken_it_needs_a_moment_to_tell(tmp_path):
    import fcntl

    with open(tmp_path / LOCK, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def tell():
            file.write(json.dumps({"process": 12345, "host": "there"}))
            file.flush()

        late = threading.Timer(0.015, tell)
        late.start()
        with pytest.raises(ValueError, match="is in use by process 12345 on there"):
            locked("sweep", tmp_path).__enter__()
        late.join()


@pytest.mark.skipif(os.name != "posix", reason="by posix locks")
def test_one_that_never_tells_is_another_process(tmp_path):
    import fcntl

    with open(tmp_path / LOCK, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="is in use by another process"):
            locked("sweep", tmp_path).__enter__()
