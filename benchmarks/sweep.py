"""A sweep over lambda as one compiled program, against the loops it replaces, on the same work.

Logistic regression, a small and a larger MLP, a CNN and a GRU, minibatches, Adam at 1e-3, lam/2
|kernels|^2 added to the mean loss, lam from 1e-6 to 1, one split and one seed. The candidates:

    jaxreg.sweep                   the library, as a user calls it (it uses every core by itself)
    vmap by hand                   one jitted scan over the steps, vmapped over lam
    lax.map by hand                the same scan under lax.map, one lam or four at a time
    loop of jitted scans           the same scan, compiled once, called lam after lam
    loop of jitted steps, tuned    one compiled step with donated state that gathers its own rows
    loop of jitted steps, usual    the training loop most people write: x[rows] outside, no donation
    PyTorch loop                   eager PyTorch, Adam's own weight_decay on the weights
    torch.func.vmap                its step over all lam at once, Adam by hand inside
    scikit-learn MLPClassifier     one fit a lam; dense nets only
    Optuna trials, jit inside      a study over the same lam; each trial builds and jits its step

PyTorch runs once with one thread and once with all. Every candidate trains the same steps and ends with
the training and the validation loss of every lam. All but scikit-learn start from the same parameters
and see the same minibatches in the same order, and must agree with the jitted scans; scikit-learn
draws its own, and its validation accuracies must be near. Or else the script stops with status 1
before it has printed any time of that task. Times are of the whole sweep; the ratio says how many
times longer than jaxreg.sweep a candidate takes. Compiling happens in the first call, which stands
apart (not for Optuna, where each trial compiles). A candidate that is slow (--slow) takes part in the
first round only, one whose first call lasts longer than 30 s in none: its only time is that call.

By default each model is swept over the number of lam that suits its cost. For the whole table, hours:
`python benchmarks/sweep.py --lams 8 32 128 --slow 30`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

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
from _loops import (
    accuracies,
    library,
    loop_as_usual,
    loop_of_scans,
    loop_tuned,
    losses,
    map_by_hand,
    vmap_by_hand,
)
from _models import MODELS, Task, make_task
from _rivals import rivals

OURS, BY_HAND = "jaxreg.sweep", "loop of jitted scans"
TUNED, USUAL = "loop of jitted steps, tuned", "loop of jitted steps, usual"
ONCE = 30.0  # seconds of a first call that is not repeated
# Difference of the final losses from those of the scans by hand, over how far training has moved the
# loss: (median, largest) over lam, train and validation. Sums are taken in another order in each
# program, and a few runs meet a gradient that is all rounding, which Adam scales up to a full step:
# hence the two numbers.
TOLERANCE = {"jax": (1e-4, 2e-3), "torch": (1e-3, 1e-2)}
# Of scikit-learn: difference of the validation accuracies, median over lam. After so few steps they
# are those of its own initial draw, and anything goes.
ACCURACY, FEW = 0.05, 20
# At least so many times longer than ours, the fastest candidate of that beginning: model -> ratio.
BOUNDS = {
    USUAL: {"logistic": 25.0, "mlp": 2.5, "gru": 1.5, "cnn": 1.3},
    "PyTorch loop": {"mlp": 8.0},
    "torch.func.vmap": {"mlp": 2.5},
    "scikit-learn": {"mlp": 5.0},
}


def candidates(task: Task) -> tuple[dict[str, Callable[[], Any]], list[str]]:
    """The candidates by name, and the names of what is not installed."""
    others, missing = rivals(task)
    return {
        OURS: library(task),
        "vmap by hand": vmap_by_hand(task),
        "lax.map by hand, 1 at a time": map_by_hand(task, 1),
        "lax.map by hand, 4 at a time": map_by_hand(task, 4),
        BY_HAND: loop_of_scans(task),
        TUNED: loop_tuned(task),
        USUAL: loop_as_usual(task),
        **others,
    }, missing


# --- check ----------------------------------------------------------------------------------------


def disagreement(task: Task, answers: dict[str, Any]) -> dict[str, tuple[float, ...]]:
    """(median, largest) difference of the losses from the scans by hand, over the way trained.

    Of accuracies [K], the median difference alone.
    """
    right = np.asarray(answers[BY_HAND])
    start = np.asarray(losses(task.model.logits, task.params, task.train, task.valid))
    moved = np.abs(right - start).max(0)
    found: dict[str, tuple[float, ...]] = {}
    for name, answer in answers.items():
        answer = np.asarray(answer)
        loose = answer.ndim == 1
        far = np.abs(answer - accuracies(task)) if loose else np.abs(answer - right) / moved
        far = np.where(np.isnan(far), np.inf, far)  # a NaN agrees with nothing
        found[name] = (float(np.median(far)), float(np.max(far)))[: 1 if loose else 2]
    return found


def tolerance(name: str, steps: int) -> tuple[float, ...]:
    if name.startswith("scikit-learn"):
        return (ACCURACY if steps > FEW else 1.0,)
    return TOLERANCE["torch" if name.startswith(("PyTorch", "torch")) else "jax"]


def check(task: Task, far: dict[str, tuple[float, ...]]) -> None:
    """Stop the script if a candidate's answers are not those of the scans by hand."""
    for name, found in far.items():
        allowed = tolerance(name, len(task.order))
        if any(f > most for f, most in zip(found, allowed, strict=True)):
            what = "losses" if len(found) > 1 else "accuracies"
            unit = (
                "of the way trained, (median, most)" if len(found) > 1 else "in the median over λ"
            )
            refuse(
                f"{task.model.title}: the {what} of {name!r} differ from those of {BY_HAND!r} by {found} "
                f"{unit}; allowed are {allowed}."
            )


# --- time -----------------------------------------------------------------------------------------


def measure(
    name: str, n_lams: int, steps: int, rounds: int, budget: float, slow: float
) -> list[Row]:
    """All rows of one model; stops the script if the answers disagree."""
    task = make_task(MODELS[name], n_lams, steps)
    calls, missing = candidates(task)
    first, answers = first_calls(calls)
    far = disagreement(task, answers)
    check(task, far)
    once = {n for n, s in first.items() if s > ONCE and n != OURS}
    again = {n: call for n, call in calls.items() if n not in once}
    timings = timed_rounds(again, first, rounds, budget, slow)
    timings |= {n: Timing(first[n], np.array([first[n]])) for n in once}
    setting = {"model": name, "lams": n_lams, "steps": steps, "batch": task.model.batch}
    rows = [
        {**setting, "candidate": n, **figures(timings[n], timings[OURS]),
         "us_per_lam_and_step": round(timings[n].median / n_lams / steps * 1e6, 2),
         "first_call_only": n in once, "disagreement": far[n], "tolerance": tolerance(n, steps)}
        for n in calls
    ]  # fmt: skip
    return rows + [{**setting, "candidate": n, "note": "not installed"} for n in missing]


def bounds(rows: list[Row]) -> list[Row]:
    """What must be reached by a model's rows: never slower, and the factors where it has its own size."""
    name, n_lams = rows[0]["model"], rows[0]["lams"]
    fastest = functools.partial(
        _fastest, {r["candidate"]: r["ratio"] for r in rows if "ratio" in r}
    )
    least = {TUNED: 1.0, USUAL: 1.0}
    if n_lams == MODELS[name].lams:
        least |= {who: per[name] for who, per in BOUNDS.items() if name in per}
    found = {who: fastest(who) for who in least}
    return [
        {
            "model": name,
            "lams": n_lams,
            **bound(f"{name}, {n_lams} λ: {who} / ours", r, least=least[who]),
        }
        for who, r in found.items()
        if r is not None
    ]


def _fastest(ratios: dict[str, float], who: str) -> float | None:
    return min((r for name, r in ratios.items() if name.startswith(who)), default=None)


# --- print ----------------------------------------------------------------------------------------


def table(rows: list[Row]) -> None:
    lines = []
    for row in rows:
        if "note" in row:
            lines.append([row["candidate"], row["note"], "", "", "", "", ""])
            continue
        low, high = row["ratio_iqr"]
        rounds = "1st call" if row["first_call_only"] else str(row["rounds"])
        lines.append([
            row["candidate"], f"{row['ratio']:.2f}", f"{low:.2f} - {high:.2f}", rounds,
            f"{row['us_per_lam_and_step']:.1f}", f"{row['first_call_seconds']:.2f}",
            " / ".join(f"{d:.0e}" for d in row["disagreement"]),
        ])  # fmt: skip
    columns = [
        "candidate", "time / jaxreg.sweep", "quartiles", "rounds", "µs per λ and step",
        "first call (s)", "losses differ (median / most)",
    ]  # fmt: skip
    r = rows[0]
    title = f"{MODELS[r['model']].title}: {r['lams']} λ, {r['steps']} steps of batch {r['batch']}"
    show(title, columns, lines)


def main() -> None:
    parser = arguments(__doc__ or "")
    add = parser.add_argument
    add("--tasks", nargs="+", choices=MODELS, metavar="TASK", help=f"of {', '.join(MODELS)}; all")
    add("--lams", nargs="+", type=int, metavar="K", help="by default each task has its own")
    add("--steps", type=int, help="by default each task has its own")
    add("--budget", type=float, default=30.0, help="seconds of a task after which no round begins")
    add(
        "--slow",
        type=float,
        default=6.0,
        help="seconds above which a candidate runs one round only",
    )
    options = parser.parse_args()
    reached: list[Row] = []
    for name in options.tasks or (["logistic", "gru"] if options.smoke else MODELS):
        model = MODELS[name]
        for n_lams in [2] if options.smoke else options.lams or [model.lams]:
            steps = 10 if options.smoke else options.steps or model.steps
            rounds = 2 if options.smoke else options.rounds
            rows = measure(name, n_lams, steps, rounds, options.budget, options.slow)
            if not options.json:
                table(rows)
            emit("sweep", rows)
            reached += [] if options.smoke else bounds(rows)
    emit("sweep", reached)
    if not options.json:
        show_bounds(reached)
        print(machine())


if __name__ == "__main__":
    main()
