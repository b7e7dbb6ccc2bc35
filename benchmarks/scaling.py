"""How time and memory of a sweep grow with the number of lam, and what a second core brings.

The MLP 64-128-128-10 on the digits, as in sweep.py, for K values of lam. Sweeps run in worker processes,
one with all cores and one pinned to a single core before jax starts; each waits for its turn without
using the machine, so that their runs can be interleaved. Two tables:

    time and memory a lane   K = 1, 2, 4, ..., with all cores. Time against the largest K. Memory is the
                             peak of a second sweep (nothing compiles) over what the process held before
                             it, per lane, over the bytes of one lane's state: its parameters and Adam's
                             two moments.
    one core / all cores     how many times faster all cores are, for K = 2, 3, 5, 8, 32. Bound: 1.7 for
                             two cores.

Lanes run one by one on each core (chunk=1): the library would choose other chunks for other K and other
cores, in which sums are taken in another order, and the losses could not be compared.

Before any time is printed: pinned and unpinned runs have the same losses, and the lam that all K have
in common (the smallest) has the same losses at each K. On an accelerator the peak is that of its own
allocator, and there is no second table. Peak memory of a CPU needs Linux; elsewhere it is missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _common import (
    Row,
    Timing,
    arguments,
    bound,
    cores,
    emit,
    figures,
    first_calls,
    machine,
    pin,
    refuse,
    show,
    show_bounds,
    timed_rounds,
)
from _loops import library
from _models import MODELS, make_task

import jaxreg as jr

MODEL = "mlp"
LADDER, PINNED = (1, 2, 4, 8, 16, 32, 64, 128), (2, 3, 5, 8, 32)
LEAST = 1.7  # two cores over one
TOLERANCE = 1e-3  # of a loss, relative


# --- the worker's side ----------------------------------------------------------------------------


def work(n_cores: int, steps: int) -> None:
    """Answer the questions on stdin, a JSON line each: [what, K], where what is "losses" or "peak"."""
    if n_cores < cores():
        pin(n_cores)
    sweeps: dict[int, Callable] = {}
    say = lambda answer: print(json.dumps(answer), flush=True)
    say(jax.default_backend())
    for line in sys.stdin:
        what, n_lams = json.loads(line)
        if n_lams not in sweeps:
            sweeps[n_lams] = library(
                make_task(MODELS[MODEL], n_lams, steps), machine=jr.Machine(chunk=1)
            )
        run = sweeps[n_lams]
        say(run().tolist() if what == "losses" else peak(run))


def peak(call: Callable[[], Any]) -> int | None:
    """Bytes that a call takes at its peak over what is held before it; None where nobody knows."""
    call()  # so that nothing is compiled
    if jax.default_backend() != "cpu":
        # An allocator's peak cannot be reset: where nothing else has run and K rises, each sets it anew.
        stats = jax.devices()[0].memory_stats() or {}
        before = stats.get("bytes_in_use")
        return None if before is None else stats["peak_bytes_in_use"] - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # freed memory would be used again and not be counted
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        before = _status("VmRSS")
        call()
        return _status("VmHWM") - before
    except (OSError, AttributeError):
        return None


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(field))
    return 1024 * int(kilobytes)


# --- the other side -------------------------------------------------------------------------------


class Worker:
    """A process that runs sweeps on `n_cores` cores when it is asked to."""

    def __init__(self, n_cores: int, steps: int):
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", str(n_cores), str(steps)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.backend = self._answer()

    def ask(self, what: str, n_lams: int) -> Any:
        print(json.dumps([what, n_lams]), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            refuse("a worker process ended; its error stands above.")
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate()  # closes its stdin, and it ends


@contextlib.contextmanager
def workers(steps: int, alone: bool = False) -> Iterator[dict[int, Worker]]:
    """Workers by their number of cores: all, and unless `alone`, on a CPU with several also one."""
    found = {cores(): Worker(cores(), steps)}
    try:
        if found[cores()].backend == "cpu" and not alone and cores() > 1:
            found[1] = Worker(1, steps)
        yield found
    finally:
        for worker in found.values():
            worker.close()


Key = tuple[int, int]  # K, cores


def check(answers: dict[Key, Any]) -> None:
    """Stop the script if losses depend on the cores, or those of the first lam on K."""
    right = {n_lams: np.array(a) for (n_lams, _), a in answers.items()}
    first = right[max(right)][0]
    for (n_lams, n_cores), answer in answers.items():
        for what, expected, got in (
            ("on other cores", right[n_lams], np.array(answer)),
            ("at another K", first, np.array(answer)[0]),
        ):
            far = np.max(np.abs(got - expected) / np.abs(expected))
            if not far <= TOLERANCE:
                refuse(
                    f"K = {n_lams} on {n_cores} cores: the losses are {far:.1e} from those {what}."
                )


def state_bytes() -> int:
    """Of one lane: the parameters and Adam's two moments."""
    shapes = jax.eval_shape(MODELS[MODEL].init, jax.eval_shape(lambda: jax.random.key(0)))
    return 3 * sum(4 * x.size for x in jax.tree.leaves(shapes))


def measure(
    ladder: tuple[int, ...], pinned: tuple[int, ...], steps: int, rounds: int, budget: float
) -> list[Row]:
    with workers(steps, alone=True) as found:
        peaks = {k: found[cores()].ask("peak", k) for k in ladder}
    with workers(steps) as found:
        keys = [(k, cores()) for k in sorted({*ladder, *(pinned if 1 in found else ())})]
        keys += [(k, 1) for k in pinned if 1 in found]
        calls: dict[Any, Callable] = {
            (k, n): (lambda k=k, n=n: found[n].ask("losses", k)) for k, n in keys
        }
        first, answers = first_calls(calls)
        check(answers)
        timings: dict[Any, Timing] = timed_rounds(calls, first, rounds, budget)
    last = (ladder[-1], cores())
    ours = lambda k, n: timings[k, n]._replace(rounds=timings[k, n].rounds / k)
    rows = [
        {"table": "lanes", "lams": k, "steps": steps, "cores": cores(), "seconds_of": "a lane",
         **figures(ours(k, cores()), ours(*last)), "peak_bytes": peaks[k],
         "peak_over_state": peaks[k] and round(peaks[k] / k / state_bytes(), 2)}
        for k in ladder
    ]  # fmt: skip
    return rows + [
        {"table": "cores", "lams": k, "steps": steps, "cores": cores(),
         **figures(timings[k, 1], timings[k, cores()])}
        for k, n in keys if n == 1 and cores() > 1
    ]  # fmt: skip


def tables(rows: list[Row]) -> None:
    lanes, speedups = ([r for r in rows if r["table"] == t] for t in ("lanes", "cores"))
    setting = f"{MODELS[MODEL].title}, {lanes[0]['steps']} steps, {lanes[0]['rounds']} rounds"
    lines = [
        [str(r["lams"]), f"{r['ratio']:.2f}", "{:.2f} - {:.2f}".format(*r["ratio_iqr"]),
         f"{r['seconds'] / r['steps'] * 1e6:.1f}", _mega(r["peak_bytes"]),
         "-" if r["peak_over_state"] is None else f"{r['peak_over_state']:.2f}"]
        for r in lanes
    ]  # fmt: skip
    columns = [
        "λ", f"time a lane / at {lanes[-1]['lams']}", "quartiles", "µs per λ and step", "peak (MB)",
        "peak a lane / its state",
    ]  # fmt: skip
    show(f"{setting}, {cores()} cores", columns, lines)
    lines = [
        [str(r["lams"]), f"{r['ratio']:.2f}", "{:.2f} - {:.2f}".format(*r["ratio_iqr"])]
        for r in speedups
    ]
    if lines:
        show(setting, ["λ", f"time on 1 core / on {cores()}", "quartiles"], lines)


def _mega(n: int | None) -> str:
    return "-" if n is None else f"{n / 1e6:.1f}"


def bounds(rows: list[Row]) -> list[Row]:
    pairs = [(r["lams"], r["ratio"]) for r in rows if r["table"] == "cores" and r["cores"] == 2]
    return [bound(f"{k} λ: one core / two", ratio, least=LEAST) for k, ratio in pairs]


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        return work(*map(int, sys.argv[2:]))
    parser = arguments(__doc__ or "")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument(
        "--budget", type=float, default=120.0, help="seconds after which no round begins"
    )
    options = parser.parse_args()
    sizes: tuple[tuple[int, ...], ...] = (LADDER, PINNED)
    if options.smoke:
        options.steps, options.rounds, sizes = 20, 2, ((1, 2), (2,))
    rows = measure(*sizes, options.steps, options.rounds, options.budget)
    if not options.json:
        tables(rows)
    emit("scaling", rows)
    reached = [] if options.smoke else bounds(rows)
    emit("scaling", reached)
    if not options.json:
        show_bounds(reached)
        print(machine())


if __name__ == "__main__":
    main()
