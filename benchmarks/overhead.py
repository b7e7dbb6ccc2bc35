"""What a sweep's comforts cost, and what giving up early saves and loses.

The MLP 64-128-128-10 on the digits, as in sweep.py, evaluated 20 times on the way. The same sweep

    plain                  as it is
    progress               with the bar drawn on a terminal that shows nothing
    callback               with a callback that notes the best validation loss of every evaluation
    checkpoint             with checkpoints in a fresh directory, as often as the library does by itself
    checkpoint each time   with one at every evaluation, for information
    one lam is infinite    one lane diverges in its first step
    halving                with half of the lam given up at each of three rungs

All of them must have the losses of the plain one to the bit, of the lanes that are still there, or the
script stops with status 1. So all run in one layout, chunks of two lanes, which is what the library
chooses for the sweep that halves: the few that are left still fill them. Of halving,
the time saved is compared with the lane-steps saved, and the lam it chose, with the validation loss that
the plain sweep found for it, with the best. Compilations are counted: in the first call those of the
program that takes longest to compile, which is the training; afterwards there may be none at all.
"""

from __future__ import annotations

import collections
import contextlib
import io
import itertools
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.monitoring
import numpy as np
from _common import (
    Row,
    Timing,
    arguments,
    bound,
    emit,
    figures,
    first_calls,
    machine,
    refuse,
    show,
    show_bounds,
    timed_rounds,
)
from _loops import end_losses, result_of
from _models import MODELS, Task, make_task

import jaxreg as jr

MODEL, EVALS = "mlp", 20
PLAIN, INFINITE, HALVED = "plain", "one lam is infinite", "halving"
COSTS = ("progress", "callback", "checkpoint", INFINITE)  # what may take at most
MOST = 1.02
HALVING = jr.Halving(keep=0.5, rungs=3)
LEAST = 0.95  # of the lane-steps saved
CHUNK = 2

# (name, seconds) of every compilation in this process.
COMPILED: list[tuple[str, float]] = []


def _note(event: str, seconds: float, **about: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append((str(about.get("fun_name")), seconds))


class Terminal(io.TextIOBase):
    """A terminal that shows nothing: rich draws on it as on a real one."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


class Best(jr.Callback):
    """Notes the best validation loss at every evaluation."""

    def __init__(self) -> None:
        self.found: dict[int, float] = {}

    def evaluated(self, evaluation: Any) -> None:
        self.found[evaluation.step] = float(np.nanmin(evaluation.valid["loss"]))


# --- the candidates -------------------------------------------------------------------------------


def candidates(task: Task, folder: Path) -> dict[str, Callable[[], jr.SweepResult]]:
    run = lambda **options: result_of(
        task, evals=EVALS, machine=jr.Machine(chunk=CHUNK), **options
    )()
    lams = task.lams.copy()
    lams[len(lams) // 2] = math.inf
    fresh = map(str, itertools.count())

    def drawn():
        with contextlib.redirect_stderr(Terminal()):
            return run(progress=True)

    def saved(**options):
        path = folder / next(fresh)
        result = run(checkpoint=path, **options)
        shutil.rmtree(path)
        return result

    return {
        PLAIN: run,
        "progress": drawn,
        "callback": lambda: run(callbacks=[Best()]),
        "checkpoint": saved,
        "checkpoint each time": lambda: saved(checkpoint_every=0.0),
        INFINITE: result_of(task._replace(lams=lams), evals=EVALS, machine=jr.Machine(chunk=CHUNK)),
        HALVED: lambda: run(halving=HALVING),
    }


def counted(calls: dict[str, Callable]) -> dict[str, Callable]:
    """The calls, each of which leaves what it compiled in COMPILED."""

    def alone(call):
        COMPILED.clear()
        return call(), tuple(COMPILED)

    return {name: (lambda call=call: alone(call)) for name, call in calls.items()}


def trainings(compiled: tuple[tuple[str, float], ...]) -> int:
    """How often the program was compiled that takes longest to compile."""
    total: collections.Counter[str] = collections.Counter()
    for name, seconds in compiled:
        total[name] += seconds  # pyright: ignore[reportArgumentType]
    longest = max(total, key=lambda name: total[name], default=None)
    return sum(name == longest for name, _ in compiled)


# --- check ----------------------------------------------------------------------------------------


def check(answers: dict[str, jr.SweepResult]) -> None:
    """Stop the script if a candidate's losses are not those of the plain sweep."""
    right = end_losses(answers[PLAIN])
    for name, answer in answers.items():
        got, there = end_losses(answer), np.asarray(answer.status)[:, 0, 0] == jr.Status.FINISHED
        lost = int((~there).sum())
        expected = {INFINITE: 1, HALVED: len(right) - HALVING.schedule(len(right), 10**6)[-1].keep}
        if lost != expected.get(name, 0):
            refuse(f"{name}: {lost} lanes did not finish, expected {expected.get(name, 0)}.")
        far = np.abs(got[there] / right[there] - 1).max()
        if far != 0:
            refuse(f"{name}: the losses differ from those of the plain sweep by {far:.1e} of them.")


def halving_row(task: Task, answers: dict[str, Any], timings: dict[str, Timing]) -> Row:
    """What halving saves and what it loses."""
    plain, halved = answers[PLAIN], answers[HALVED]
    k, steps = len(task.lams), len(task.order)
    saved = 1 - timings[HALVED].rounds / timings[PLAIN].rounds
    steps_saved = 1 - HALVING.share(k, steps)
    low, middle, high = np.percentile(saved / steps_saved, [25, 50, 75])
    best, chosen = plain.best("min"), halved.best("min")
    there = np.asarray(halved.status)[:, 0, 0] == jr.Status.FINISHED
    return {
        "time_saved": round(float(np.median(saved)), 4),
        "lane_steps_saved": round(steps_saved, 4),
        "saved_over_saved": round(float(middle), 4),
        "saved_over_saved_iqr": [round(float(low), 4), round(float(high), 4)],
        "lam": best.coords["lam"],
        "lam_by_halving": chosen.coords["lam"],
        "same_choice": best.index == chosen.index,
        "loss_of_its_choice_over_best": round(float(plain.mean()[chosen.index] / best.mean), 4),
        "survivors_equal_to_the_bit": bool(
            np.array_equal(end_losses(plain)[there], end_losses(halved)[there])
        ),
    }


# --- time and print -------------------------------------------------------------------------------


def measure(n_lams: int, steps: int, rounds: int, budget: float) -> tuple[list[Row], Row]:
    task = make_task(MODELS[MODEL], n_lams, steps)
    with tempfile.TemporaryDirectory() as folder:
        calls = counted(candidates(task, Path(folder)))
        first, found = first_calls(calls)
        answers = {name: result for name, (result, _) in found.items()}
        check(answers)
        warm: dict[str, int] = dict.fromkeys(calls, 0)

        def count_again(name):
            result, compiled = calls[name]()
            warm[name] += len(compiled)
            return result

        again = {name: (lambda name=name: count_again(name)) for name in calls}
        timings = timed_rounds(again, first, rounds, budget)
    setting = {"model": MODEL, "lams": n_lams, "steps": steps, "evals": EVALS}
    rows = [
        {**setting, "candidate": n, **figures(t, timings[PLAIN]),
         "compiles": trainings(found[n][1]), "compiles_when_warm": warm[n]}
        for n, t in timings.items()
    ]  # fmt: skip
    return rows, {**setting, "candidate": HALVED, **halving_row(task, answers, timings)}


def bounds(rows: list[Row], halving: Row) -> list[Row]:
    by_name = {row["candidate"]: row for row in rows}
    warm = sum(row["compiles_when_warm"] for row in rows)
    found = [bound(f"{name} / plain", by_name[name]["ratio"], most=MOST) for name in COSTS]
    found.append(
        bound("halving: time / lane-steps saved", halving["saved_over_saved"], least=LEAST)
    )
    if jax.default_backend() == "cpu":
        found.append(bound("halving: compilations", by_name[HALVED]["compiles"], most=1))
    return [*found, bound("compilations when warm", warm, most=0)]


def tables(rows: list[Row], halving: Row) -> None:
    lines = [
        [r["candidate"], f"{r['ratio']:.3f}", "{:.3f} - {:.3f}".format(*r["ratio_iqr"]),
         f"{r['seconds']:.3f}", str(r["compiles"]), str(r["compiles_when_warm"])]
        for r in rows
    ]  # fmt: skip
    r = rows[0]
    title = f"{MODELS[MODEL].title}: {r['lams']} λ, {r['steps']} steps, {r['rounds']} rounds"
    columns = ["candidate", "time / plain", "quartiles", "seconds", "compiles", "when warm"]
    show(title, columns, lines)
    names = {
        "time_saved": "time saved", "lane_steps_saved": "lane-steps saved",
        "saved_over_saved": "time saved / lane-steps saved", "lam": "λ chosen by the plain sweep",
        "lam_by_halving": "λ chosen with halving",
        "loss_of_its_choice_over_best": "validation loss of that λ / the best, both from the plain sweep",
        "survivors_equal_to_the_bit": "survivors equal to the bit",
    }  # fmt: skip
    value = lambda v: str(v) if isinstance(v, bool) else f"{v:.4g}"
    show("Halving", ["what", "figure"], [[text, value(halving[n])] for n, text in names.items()])


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--lams", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument(
        "--budget", type=float, default=300.0, help="seconds after which no round begins"
    )
    options = parser.parse_args()
    if options.smoke:
        options.lams, options.steps, options.rounds = 8, 40, 2
    jax.monitoring.register_event_duration_secs_listener(_note)
    rows, halving = measure(options.lams, options.steps, options.rounds, options.budget)
    if not options.json:
        tables(rows, halving)
    reached = [] if options.smoke else bounds(rows, halving)
    emit("overhead", [*rows, halving, *reached])
    if not options.json:
        show_bounds(reached)
        print(machine())


if __name__ == "__main__":
    main()
