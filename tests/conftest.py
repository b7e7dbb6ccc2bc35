"""Settings shared by all tests: the same examples in every run, few of them, and few programs alive."""

import signal
import time
from pathlib import Path

import jax
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "jaxreg",
    derandomize=True,
    deadline=None,  # the first example compiles
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("jaxreg")

# A suite that a shell starts in the background inherits an ignored Ctrl-C, and some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Linux gives a process 65,530 memory maps, a compiled program takes about five, and XLA aborts when
# there are no more: a worker that has seen half of the suite would come near.
MAPS = Path("/proc/self/maps")
MOST_MAPS = 20_000
SLOW = 0.5  # seconds of a test that may have compiled many


@pytest.fixture(autouse=True)
def _few_programs():
    began = time.monotonic()
    yield
    if time.monotonic() - began > SLOW and MAPS.exists() and _maps() > MOST_MAPS:
        jax.clear_caches()


def _maps() -> int:
    return MAPS.read_bytes().count(b"\n")
