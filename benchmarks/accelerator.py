"""How much an accelerator gains by training many lanes at once.

For each model the sweep at more and more lanes, over one lane's time; the loop of jitted steps, PyTorch's
loop and torch.func.vmap on the same device; the share of the device's peak, by XLA's own count of flops
and bytes; halving in powers of two; and a sweep that is narrowed because memory is short.

Stops cleanly when the seconds are up, and writes what there is.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from _common import Row, environment, seconds
from _loops import _step, library, loop_tuned, result_of, vmap_by_hand
from _models import MODELS, Model, Task, make_task

import jaxreg as jr
from jaxreg.sweeps import population
from jaxreg.sweeps.program import Program

LANES, SMOKE = (1, 8, 32, 128, 512), (1, 2, 4)
ROUNDS = 3
# Medians over lanes, relative: sums are taken in another order in each candidate.
EQUAL = 2e-2
# Dense peaks of float32 products as jax runs them by default (TF32 where there is such), and memory.
PEAKS = {  # kind -> (flops a second, bytes a second); the makers' data sheets
    "H100": (495e12, 3.35e12),
    "H200": (495e12, 4.8e12),
    "A100": (156e12, 2.0e12),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("out", type=Path, help="a folder for the table and the JSON lines")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: whether it runs")
    parser.add_argument("--seconds", type=float, default=290.0, help="stop measuring after so many")
    args = parser.parse_args()
    end = time.monotonic() + args.seconds
    rows: list[Row] = []
    try:
        for row in measured(args.smoke, lambda: end - time.monotonic()):
            rows.append(row)
            print(json.dumps(row), flush=True)
    finally:
        write(args.out, rows)


def measured(smoke: bool, left: Callable[[], float]) -> Iterator[Row]:
    """All rows, as long as there is time left for another."""
    for name, model in MODELS.items():
        model = _without_files(model)
        one = 0.0
        for lanes in SMOKE if smoke else LANES:
            # Ten lanes of a second each on the way here took about a minute.
            if left() < 25:
                yield {"what": "stopped", "at": f"{name}, {lanes} lanes"}
                return
            row = lanes_row(name, make_task(model, lanes, 4 if smoke else model.steps), left)
            one = one or row["seconds"]
            yield {**row, "over_one_lane": row["seconds"] / one}
    yield halving_row(4 if smoke else 32, 40 if smoke else 400)
    yield narrowing_row(2 if smoke else 32)


def _without_files(model: Model) -> Model:
    """The same model on made rows: no data set need be there."""

    def rows() -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        width = (model.sizes or (64,))[0]
        y = rng.integers(0, 10, 768)
        return 0.5 * rng.normal(size=(10, width))[y] + rng.normal(size=(768, width)), y

    return model._replace(data=rows)


def lanes_row(name: str, task: Task, left: Callable[[], float]) -> Row:
    """The sweep of a task, its rivals on the same device, and the share of the peak."""
    first, ours = seconds(library(task))
    took = min(seconds(library(task))[0] for _ in range(ROUNDS))
    lanes, steps = len(task.lams), len(task.order)
    row: Row = {
        "what": "sweep", "model": name, "lanes": lanes, "steps": steps, "seconds": took,
        "first": first, "us_per_lane_step": 1e6 * took / lanes / steps, **shares(task, took),
    }  # fmt: skip
    for rival, run in rivals(task).items():
        if left() < 15:
            break
        run()
        other, answer = seconds(run)
        apart = np.abs(np.asarray(answer) - ours) / np.abs(ours)
        row |= {f"{rival}/ours": other / took, f"{rival} apart": float(np.median(apart))}
        if not np.median(apart) <= EQUAL:
            row["wrong"] = f"{rival} answers otherwise"
    return row


def rivals(task: Task) -> dict[str, Callable[[], Any]]:
    """Loops grow with the lanes and are run for a few of them only."""
    few = len(task.lams) <= 8
    made: dict[str, Callable[[], Any]] = {"vmap by hand": vmap_by_hand(task)}
    made |= {"loop of jitted steps": loop_tuned(task)} if few else {}
    try:
        import torch
        from _rivals import torch_loop, torch_vmap
    except ImportError:
        return made
    device = "cuda" if torch.cuda.is_available() else "cpu"
    made |= {"PyTorch's loop": torch_loop(task, device=device)} if few else {}
    return made | {"torch.func.vmap": torch_vmap(task, device=device)}


def shares(task: Task, took: float) -> Row:
    """Flops and bytes a second by XLA's count of one lane's step, over the device's peaks."""
    x, y = (a[: task.model.batch] for a in task.train)
    state = jax.eval_shape(lambda p: __import__("optax").adam(1e-3).init(p), task.params)
    step = jax.jit(lambda p, s, lam, x, y: _step(task.model.logits, p, s, lam, x, y))
    cost = step.lower(task.params, state, np.float32(0.1), x, y).compile().cost_analysis() or {}
    work = len(task.lams) * len(task.order) / took
    rates = {
        "flops": work * cost.get("flops", 0.0),
        "bytes": work * cost.get("bytes accessed", 0.0),
    }
    row: Row = {f"{name}_per_second": rate for name, rate in rates.items()}
    kind = jax.devices()[0].device_kind
    peak = next((p for card, p in PEAKS.items() if card in kind), None)
    if peak is not None:
        row |= {
            "share_of_flops": rates["flops"] / peak[0],
            "share_of_bytes": rates["bytes"] / peak[1],
        }
    return row


def halving_row(lanes: int, steps: int) -> Row:
    """Halving against the whole sweep: time, work and programs."""
    task = make_task(_without_files(MODELS["mlp"]), lanes, steps)
    halving = jr.Halving(keep=0.5, rungs=2)
    compiled: list[float] = []
    real = Program._compile

    def noted(self: Program, args: tuple) -> Any:
        made = real(self, args)
        compiled.append(made.seconds)
        return made

    Program._compile = noted  # type: ignore[method-assign]
    try:
        whole, halved = (
            (lambda run: (run(), seconds(run)[0])[1])(result_of(task, halving=h, keep_params=False))
            for h in (None, halving)
        )
    finally:
        Program._compile = real  # type: ignore[method-assign]
    return {
        "what": "halving", "lanes": lanes, "steps": steps, "time": halved / whole,
        "work": halving.share(lanes, steps), "programs": len(compiled),
    }  # fmt: skip


def narrowing_row(lanes: int) -> Row:
    """A sweep for which memory is said to be short takes fewer lanes at once, and the same answers."""
    task = make_task(_without_files(MODELS["mlp"]), lanes, 5)
    whole = result_of(task)()
    asked, real = [], population.memory_limit

    def short() -> int:
        # Enough for the states and little else: found by asking once for everything.
        return asked[0] if asked else real()

    kept = population.narrower
    population.memory_limit = short

    def noted(layout: Any, *args: Any) -> Any:
        return kept(layout, *args)

    population.narrower = noted
    try:
        state = sum(x.nbytes for x in jax.tree.leaves(whole.params)) * 4
        asked.append(int(state * 1.5) + 8_000_000)
        tight = result_of(task, seeds=1)()
    except ValueError as error:  # not even one lane: then it says how many would fit
        return {"what": "narrowing", "lanes": lanes, "refused": str(error)}
    finally:
        population.memory_limit, population.narrower = real, kept
    apart = np.nanmax(np.abs(whole.valid["loss"] - tight.valid["loss"]))
    layouts = [json.loads(r.made_by)["layout"] for r in (whole, tight)]
    return {"what": "narrowing", "lanes": lanes, "layouts": layouts, "apart": float(apart)}


def write(out: Path, rows: list[Row]) -> None:
    """The JSON lines and the table, whatever was measured."""
    out.mkdir(parents=True, exist_ok=True)
    made_by = environment()
    lines = [json.dumps({**row, "environment": made_by}) for row in rows]
    (out / "accelerator.jsonl").write_text("\n".join(lines) + "\n")
    table = [r for r in rows if r["what"] == "sweep"]
    names = sorted({key for r in table for key in r if key.endswith("/ours")})
    heads = [
        "model",
        "lanes",
        "µs per lane and step",
        "over one lane",
        "of peak flops",
        "of peak bytes",
    ]
    heads += [name.removesuffix("/ours") for name in names]
    text = [f"# {made_by['device']}", "", f"jax {made_by['jax']}, commit {made_by['commit']}", ""]
    text += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for r in table:
        share = lambda key, r=r: f"{r[key]:.1%}" if key in r else "-"
        cells = [
            r["model"],
            str(r["lanes"]),
            f"{r['us_per_lane_step']:.3g}",
            f"{r['over_one_lane']:.2f}",
        ]
        cells += [share("share_of_flops"), share("share_of_bytes")]
        cells += [f"{r[name]:.2f}" if name in r else "-" for name in names]
        text.append("| " + " | ".join(cells) + " |")
    text += ["", "Rivals: their time over the sweep's, on the same device.", ""]
    text += [f"- {json.dumps(r)}" for r in rows if r["what"] != "sweep"]
    (out / "accelerator.md").write_text("\n".join(text) + "\n")
    wrong = [r["wrong"] for r in table if "wrong" in r]
    if wrong:
        raise SystemExit(f"accelerator: {wrong[0]}; no figure counts.")


if __name__ == "__main__":
    main()
