"""Settings shared by all tests: the same examples in every run, few of them, and little memory held."""

import ctypes
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Workers, and the processes that tests start, find each other's programs: before jax reads it.
CACHE = Path(
    tempfile.gettempdir(), f"jaxreg-tests-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
)
OWN_CACHE = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if OWN_CACHE:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# Almost all of a test's time is compiling; what is compiled with fewer optimisations says the same, to
# rounding. With XLA_FLAGS in the environment, an empty one too, it is compiled as that says.
QUICKLY = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
QUICKLY += ["--xla_cpu_use_fusion_emitters=false"]


def _quick_flags() -> str:
    """As many of the flags as this XLA knows: it aborts at one that it does not."""
    for n in range(len(QUICKLY), 0, -1):
        flags = " ".join(QUICKLY[:n])
        asked = [sys.executable, "-c", "import jax; jax.devices()"]
        environment = {**os.environ, "XLA_FLAGS": flags}
        if not subprocess.run(asked, env=environment, capture_output=True, check=False).returncode:
            return flags
    return ""


if "XLA_FLAGS" not in os.environ:  # workers have it from the process that started them
    os.environ["XLA_FLAGS"] = _quick_flags()

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
MOST_MAPS = 20_000
MOST_BYTES = 1.4e9
SLOW = 0.2  # seconds of a test that may have compiled many


@pytest.fixture(autouse=True)
def _few_programs():
    began = time.monotonic()
    yield
    if time.monotonic() - began > SLOW and Path("/proc/self/maps").exists() and _full():
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


def _full() -> bool:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident > MOST_BYTES or Path("/proc/self/maps").read_bytes().count(b"\n") > MOST_MAPS


def pytest_sessionfinish(session):
    if OWN_CACHE and not hasattr(session.config, "workerinput"):
        shutil.rmtree(CACHE, ignore_errors=True)
