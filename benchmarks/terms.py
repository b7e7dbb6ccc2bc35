"""What terms, noise and flat minima cost, how often they compile, and whether they are what others compute.

Sections (--only):

    overhead     one jitted training step with a term over the plain one, in interleaved rounds
    compiles     programs of a sweep over 16 dropout rates x 8 λ, and of another grid of the size
    references   each beside another library's implementation, on the same numbers

A step is `Trainer.step` under jit with `optax.sgd`, which dilutes a ratio least, with the strength as an
argument, as in a sweep: an MLP 784-512-512-10, or a GRU of 64 units over 32 times that predicts at each,
both on 128 rows. In the run, a step must give finite parameters that moved, and other ones than the plain
step does; at a strength of 0 it must give those of the plain step, or the script stops with status 1. So it
does when a reference is missed: 1e-5 in float32, 1e-10 in float64, 4 standard errors for means over probes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.monitoring
import numpy as np
import optax
from _common import (
    Row,
    arguments,
    bound,
    emit,
    machine,
    mlp,
    refuse,
    show,
    show_bounds,
)
from _references import references
from _steps import RATE, SMALL, dropout, logits, nll, overhead, start
from _terms import EXACT, SAMPLED

import jaxreg as jr

# --- compiles -----------------------------------------------------------------------------------------

# (seconds, whether the loss of `dropped` was traced since the one before) of every compilation.
COMPILED: list[tuple[float, bool]] = []
TRACED: list[str] = []


def _note(event: str, seconds: float, **about: Any) -> None:
    del about
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append((seconds, bool(TRACED)))
        TRACED.clear()


def training(compiled: list[tuple[float, bool]]) -> int:
    """How many programs have the loss in them.

    The checks of a sweep trace it too, before a program that compiles at once; that one is left out.
    """
    slowest = max((seconds for seconds, _ in compiled), default=0.0)
    return sum(traced and seconds > slowest / 5 for seconds, traced in compiled)


def dropped(point: dict) -> jr.Trainer:
    """A small net with dropout at the rate of a point, and its penalty."""

    def loss(params, x, y, key):
        TRACED.append("loss")
        return dropout(point["rate"], params, x, y, key)

    tx = optax.chain(jr.add_penalty_gradient(point["penalty"]), optax.sgd(RATE))
    judged = lambda params, x, y: nll(logits(params, x), y)
    init = lambda key: mlp(key, SMALL.mlp)
    return jr.Trainer(init, loss, tx, eval_loss=judged, stochastic=True)


def compiles(smoke: bool, rounds: int) -> tuple[list[Row], list[Row]]:
    del rounds
    n_rates, n_lams = (4, 2) if smoke else (16, 8)
    _, batch = start("mlp", SMALL._replace(rows=64))
    data = tuple(map(np.asarray, batch))

    def swept(highest: float, lams: tuple[float, float]) -> tuple[list, np.ndarray]:
        point = lambda rate, lam: {"rate": rate, "penalty": jr.l2(lam).on(jr.kernels)}
        grid = jr.grid(
            point, rate=np.linspace(0, highest, n_rates), lam=np.geomspace(*lams, n_lams)
        )
        COMPILED.clear()
        result = jr.sweep(
            dropped, grid, data, folds=2, steps=20, batch_size=16, key=jax.random.key(0),
            progress=False, keep_params=False,
        )  # fmt: skip
        return list(COMPILED), result.mean()

    jax.monitoring.register_event_duration_secs_listener(_note)
    rows, before = [], None
    for name, highest, lams in (("first", 0.9, (1e-4, 1e-1)), ("another", 0.8, (1e-3, 1.0))):
        found, losses = swept(highest, lams)
        if not np.isfinite(losses).all() or np.array_equal(losses, before):
            refuse(f"the {name} sweep has losses that are not finite, or those of the one before.")
        before = losses
        rows.append({
            "grid": name, "rates": n_rates, "lams": n_lams, "programs": len(found),
            "programs_that_train": training(found),
        })  # fmt: skip
    return rows, [
        bound("programs that train, first grid", rows[0]["programs_that_train"], least=1, most=1),
        bound("programs of another grid of the size", rows[1]["programs"], most=0),
    ]


# --- references ---------------------------------------------------------------------------------------


def compared(smoke: bool, rounds: int) -> tuple[list[Row], list[Row]]:
    del rounds
    return references(EXACT, SAMPLED, probes=20 if smoke else 2000), []


SECTIONS: dict[str, Callable[[bool, int], tuple[list[Row], list[Row]]]] = {
    "overhead": overhead, "compiles": compiles, "references": compared,
}  # fmt: skip


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections alone")
    args = parser.parse_args()
    if args.smoke:  # all its time goes into compiling
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    for name in args.only or SECTIONS:
        began = time.perf_counter()
        rows, bounds = SECTIONS[name](args.smoke, 2 if args.smoke else args.rounds)
        bounds = [] if args.smoke else bounds
        emit(f"terms {name}", [*rows, *bounds])
        missed = [r for r in rows if name == "references" and not r.get("kept", True)]
        if not args.json:
            tables(name, rows)
            show_bounds(bounds)
            print(f"{name}: {time.perf_counter() - began:.0f} s")
        if missed:
            refuse("; ".join(f"{r['reference']} misses {r['against']}" for r in missed))


def tables(section: str, rows: list[Row]) -> None:
    """The figures of a section; what a row lacks stays empty."""
    columns = {
        "overhead": ["candidate", "model", "ratio", "ratio_iqr", "at_most", "kept", "seconds"],
        "compiles": ["grid", "rates", "lams", "programs", "programs_that_train"],
        "references": ["reference", "against", "dtype", "relative_difference", "standard_errors",
                       "at_most", "kept", "note"],
    }[section]  # fmt: skip
    cells = [[_text(row.get(name, "")) for name in columns] for row in rows]
    show(f"terms {section}\n{machine()}", [c.replace("_", " ") for c in columns], cells)


def _text(value: object) -> str:
    if isinstance(value, list):
        return "{:.3f} - {:.3f}".format(*value)
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
