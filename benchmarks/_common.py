"""What the benchmarks share: fair timing, one JSON line a row, a table, and an exit that means it.

Candidates are timed in interleaved rounds. Each runs once a round, the round's order is rotated, and
a candidate's ratio to the reference is taken within a round, so that whatever slows the machine for
a while slows both. The first call (compiling, page faults, warm-up) is timed apart. Ratios are the
result; the times beside them belong to this machine on this day.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

Row = dict[str, Any]


def arguments(description: str, rounds: int = 20) -> argparse.ArgumentParser:
    """The options every benchmark has; `description` is the script's docstring."""
    parser = argparse.ArgumentParser(
        description=description.split("\n\n")[0], formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--smoke", action="store_true", help="tiny sizes, two rounds: whether it runs, no figures"
    )
    parser.add_argument("--json", action="store_true", help="only the JSON lines, no table")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default: {rounds}")
    return parser


class Timing(NamedTuple):
    """Seconds of one candidate: the first call, and every round after it."""

    first: float
    rounds: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.rounds))


def block(value: Any) -> Any:
    """`value`, when it is there: jax returns before it has computed."""
    return jax.block_until_ready(value)


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    value = block(call())
    return time.perf_counter() - start, value


def first_calls(
    candidates: Mapping[str, Callable[[], Any]],
) -> tuple[dict[str, float], dict[str, Any]]:
    """Every candidate once: the seconds it took, and what it answered, to be checked."""
    done = {name: seconds(call) for name, call in candidates.items()}
    return {n: s for n, (s, _) in done.items()}, {n: answer for n, (_, answer) in done.items()}


def timed_rounds(
    candidates: Mapping[str, Callable[[], Any]],
    first: Mapping[str, float],
    rounds: int,
    budget: float = math.inf,
    slow: float = math.inf,
) -> dict[str, Timing]:
    """Every candidate once a round; each round starts with another one.

    After `budget` seconds no further round begins, but there are three at least if `rounds` allows.
    A candidate that took more than `slow` seconds in the first round is left out of the others.
    """
    names, began = list(candidates), time.perf_counter()
    times: dict[str, list[float]] = {name: [] for name in names}
    for r in range(rounds):
        if r >= 3 and time.perf_counter() - began > budget:
            break
        turn = r % len(names)
        for name in names[turn:] + names[:turn]:
            if not r or times[name][0] <= slow:
                times[name].append(seconds(candidates[name])[0])
    return {name: Timing(first[name], np.array(times[name])) for name in names}


def ratio(timing: Timing, reference: Timing) -> tuple[float, float, float]:
    """Median, lower and upper quartile of timing / reference, over the rounds that both have run."""
    both = min(len(timing.rounds), len(reference.rounds))
    quotients = timing.rounds[:both] / reference.rounds[:both]
    low, middle, high = np.percentile(quotients, [25, 50, 75])
    return float(middle), float(low), float(high)


def figures(timing: Timing, reference: Timing) -> Row:
    """The columns of one timed row: the ratio with its quartiles, then seconds."""
    middle, low, high = ratio(timing, reference)
    quarter, three_quarters = np.percentile(timing.rounds, [25, 75])
    return {
        "ratio": round(middle, 4),
        "ratio_iqr": [round(low, 4), round(high, 4)],
        "seconds": timing.median,
        "seconds_iqr": [float(quarter), float(three_quarters)],
        "first_call_seconds": timing.first,
        "rounds": len(timing.rounds),
    }


def cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pin(n: int) -> None:
    """Keep this process on its first `n` cores. Before anything is computed: jax looks only once."""
    if not hasattr(os, "sched_setaffinity"):
        refuse("this system cannot pin a process to a core; leave --cores out.")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n])


def keep_memory() -> bool:
    """Ask glibc to keep freed memory, so that a large result does not cost fresh pages each time.

    Whether it does depends on what else was freed before, and made the same copy 2 or 12 ms. Call it
    first of all. Returns False where there is no glibc.
    """
    arena_max, mmap_threshold, trim_threshold = -8, -3, -1
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    options = {arena_max: 1, mmap_threshold: 2**25, trim_threshold: 2**31 - 1}
    taken = [mallopt(option, value) for option, value in options.items()]
    return all(taken)


@functools.cache
def environment() -> Row:
    """What the figures depend on: versions, device, cores, commit."""
    import jaxlib

    return {
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "python": platform.python_version(),
        "device": _device(),
        "cpus": cores(),
        "commit": _commit(),
    }


def _device() -> str:
    kind = jax.devices()[0].device_kind
    if jax.default_backend() != "cpu":
        return kind
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or kind


def _commit() -> str | None:
    here = Path(__file__).parent
    try:
        run = functools.partial(
            subprocess.run, cwd=here, capture_output=True, text=True, check=True
        )
        commit = run(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        changed = run(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}, changed" if changed else commit


def emit(benchmark: str, rows: Sequence[Row]) -> None:
    """One JSON line a row on stdout, each complete by itself."""
    for row in rows:
        print(json.dumps({"benchmark": benchmark, **row, **environment()}), flush=True)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: the first column left, the others right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    wide = None if sys.stdout.isatty() else 160
    Console(width=wide).print(table)


def bound(what: str, measured: float, *, least: float = -math.inf, most: float = math.inf) -> Row:
    """A row of what must be reached: the figure, its bound, and whether it is kept."""
    limit = {"at_least": least} if least > -math.inf else {}
    limit |= {"at_most": most} if most < math.inf else {}
    return {
        "bound": what,
        "measured": round(float(measured), 4),
        **limit,
        "kept": bool(least <= measured <= most),
    }


def show_bounds(rows: Sequence[Row]) -> None:
    """The rows that `bound` made, as a table; nothing without any."""
    lines = []
    for row in rows:
        limits = [
            f"{n.replace('_', ' ')} {row[n]:.4g}" for n in ("at_least", "at_most") if n in row
        ]
        kept = "yes" if row["kept"] else "NO"
        lines.append([row["bound"], f"{row['measured']:.2f}", ", ".join(limits), kept])
    if lines:
        show("To be reached", ["what", "measured", "bound", "reached"], lines)


def machine() -> str:
    """The line under a table."""
    e = environment()
    return (
        f"{e['device']}, {e['cpus']} cores; jax {e['jax']}, Python {e['python']}, "
        f"commit {e['commit'] or 'unknown'}"
    )


def refuse(message: str) -> None:
    """Stop with status 1: a figure whose answers disagree is worth nothing."""
    sys.exit(f"FAILED: {message}")


# --- the net that is trained ----------------------------------------------------------------------


def mlp(key: jax.Array, sizes: Sequence[int]) -> dict:
    """Parameters of a net of dense layers with He's initialisation; two sizes: a linear model."""

    def layer(k, n, m):
        return {"kernel": jax.random.normal(k, (n, m)) * (2 / n) ** 0.5, "bias": jnp.zeros(m)}

    keys = jax.random.split(key, len(sizes) - 1)
    layers = [layer(k, n, m) for k, (n, m) in zip(keys, itertools.pairwise(sizes))]
    return {f"dense_{i}": layer for i, layer in enumerate(layers)}


def cross_entropy(params: dict, x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean cross-entropy of the net with ReLU between its layers."""
    *hidden, last = params.values()
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    logits = x @ last["kernel"] + last["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
