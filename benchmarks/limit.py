"""How far the sweep is from the FLOP limit: its time over that of its matrix products alone.

The bare products are those of a training step of the same MLP, x @ W forward, and backward the gradient
of each kernel and of each layer's input but the first's; batch after batch and lane after lane, with
no bias, no ReLU, no loss, no optimizer and no penalty. They run with the sweep's own concurrency: on a
CPU a thread for each core, each with a share of the lanes as one jitted loop on its own buffers; on an
accelerator all lanes at once.

The batch changes from step to step, so nothing can be hoisted out of the loop, and the kernels'
gradients are the loop's carry, so nothing can be dropped; a test counts the products in the compiled
program. Feeding back costs nothing: a product is written where the carry lies. The sweep's time
includes all that it does beyond its steps: drawing the batches, evaluating at the start and the end.

Two layouts of the products: one lane at a time, of exactly the shapes of a single training, and eight
lanes batched, as the sweep runs them. Both do the same flops; GF/s says whether that is plausible. They
are checked against numpy before any time is printed.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _common import (
    Row,
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
from _models import MODELS, Task, layers, make_task
from jax import Array, lax

OURS, BARE = "jaxreg.sweep", "bare products, lane by lane"
BATCHED = 8  # lanes
TOLERANCE = 1e-4  # of the products from numpy's, over their largest entry


class Case(NamedTuple):
    """Which model at which size, and how many times its bare products the sweep may take."""

    model: str
    lams: int
    steps: int
    most: float


CASES = (Case("mlp", 32, 1000, 1.20), Case("wide", 8, 300, 1.15))


def products(kernels: list[Array], x: Array) -> list[Array]:
    """The gradient of each kernel for a linear net whose loss has its output as gradient."""
    inputs = [x]
    for kernel in kernels:
        inputs.append(inputs[-1] @ kernel)
    back, grads = inputs.pop(), []
    for i in reversed(range(len(kernels))):
        grads.append(inputs[i].T @ back)
        if i:
            back = back @ kernels[i].T
    return grads[::-1]


def flops(sizes: tuple[int, ...], batch: int) -> int:
    """Of one step of one lane: two for each multiplication, three products a layer, the first two."""
    shapes = list(itertools.pairwise(sizes))
    return 2 * batch * (3 * sum(n * m for n, m in shapes) - shapes[0][0] * shapes[0][1])


def loop(kernels: list[Array], rows: Array, steps: int) -> list[Array]:
    """`steps` steps of one lane on the batches rows [batches, batch, features] in turn."""

    def body(i, grads):
        return products(kernels, lax.dynamic_index_in_dim(rows, i % len(rows), keepdims=False))

    return lax.fori_loop(0, steps, body, jax.tree.map(jnp.zeros_like, kernels))


def program(width: int, steps: int) -> Callable[[list[Array], Array], list[Array]]:
    """The compiled loop over some lanes, kernels [lanes, in, out], `width` of them batched at a time."""

    @jax.jit
    def run(kernels, rows):
        one = functools.partial(loop, rows=rows, steps=steps)
        if width >= len(kernels[0]):
            return jax.vmap(one)(kernels)
        return lax.map(one, kernels, batch_size=width if width > 1 else None)

    return run


def bare(task: Task, width: int, pool: ThreadPoolExecutor, threads: int) -> Callable[[], Any]:
    """() -> the products of the last step, a list for each thread; all lanes have the same kernels."""
    run, batch = program(width, len(task.order)), task.model.batch
    x = np.asarray(task.train[0])
    rows = x[: len(x) // batch * batch].reshape(-1, batch, x.shape[1])

    def part(lanes: np.ndarray) -> tuple[Callable, list[Array], Array]:
        kernels = [jnp.stack([layer["kernel"]] * len(lanes)) for layer in layers(task.params)]
        own = jnp.array(rows)
        return run.lower(kernels, own).compile(), kernels, own

    parts = [part(lanes) for lanes in np.array_split(task.lams, threads)]
    return lambda: list(pool.map(lambda p: jax.block_until_ready(p[0](p[1], p[2])), parts))


def check(task: Task, name: str, answer: list[list[Array]]) -> None:
    """Stop the script if a thread's products are not those of numpy."""
    x, batch = np.asarray(task.train[0], np.float64), task.model.batch
    last = (len(task.order) - 1) % (len(x) // batch)
    kernels: list = [np.asarray(layer["kernel"], np.float64) for layer in layers(task.params)]
    right = products(kernels, x[last * batch : (last + 1) * batch])
    for part in answer:
        for grad, expected in zip(part, right, strict=True):
            far = np.abs(np.asarray(grad) - expected).max() / np.abs(expected).max()
            if not far <= TOLERANCE:
                refuse(f"{task.model.title}: {name} differ from numpy's by {far:.1e}.")


def measure(case: Case, rounds: int, most_threads: int) -> list[Row]:
    task = make_task(MODELS[case.model], case.lams, case.steps)
    on_cpu = jax.default_backend() == "cpu"
    threads = min(most_threads, case.lams) if on_cpu else 1
    with ThreadPoolExecutor(threads) as pool:
        layouts = {BARE: 1, f"bare products, {BATCHED} lanes batched": BATCHED}
        if not on_cpu:
            layouts = {"bare products, all lanes at once": case.lams}
        products_of = {n: bare(task, width, pool, threads) for n, width in layouts.items()}
        calls = {OURS: library(task), **products_of}
        first, answers = first_calls(calls)
        for name in products_of:
            check(task, name, answers[name])
        if not np.isfinite(answers[OURS]).all():
            refuse(f"{task.model.title}: a loss of the sweep is not finite.")
        timings = timed_rounds(calls, first, rounds)
    reference = timings[next(iter(products_of))]
    work = flops(task.model.sizes or (), task.model.batch) * len(task.order) * case.lams
    return [
        {"model": case.model, "lams": case.lams, "steps": case.steps, "threads": threads,
         "candidate": n, **figures(t, reference), "gflops_per_second": round(work / t.median / 1e9, 1),
         "us_per_lam_and_step": round(t.median / case.lams / case.steps * 1e6, 2)}
        for n, t in timings.items()
    ]  # fmt: skip


def table(rows: list[Row]) -> None:
    r = rows[0]
    lines = [
        [row["candidate"], f"{row['ratio']:.2f}", "{:.2f} - {:.2f}".format(*row["ratio_iqr"]),
         f"{row['us_per_lam_and_step']:.1f}", f"{row['gflops_per_second']:.0f}"]
        for row in rows
    ]  # fmt: skip
    title = (
        f"{MODELS[r['model']].title}: {r['lams']} λ, {r['steps']} steps, {r['threads']} "
        f"thread{'s' * (r['threads'] > 1)}, {r['rounds']} rounds"
    )
    columns = ["candidate", "time / products", "quartiles", "µs per λ and step", "GF/s of products"]
    show(title, columns, lines)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--cores", type=int, default=cores(), help="pin to so many; default: all")
    options = parser.parse_args()
    if options.cores < cores():
        pin(options.cores)
    reached: list[Row] = []
    for case in CASES:
        if options.smoke:
            case = case._replace(lams=4, steps=12)
        rows = measure(case, 2 if options.smoke else options.rounds, options.cores)
        if not options.json:
            table(rows)
        emit("limit", rows)
        what = f"{case.model}, {case.lams} λ: {OURS} / its matrix products"
        reached += [] if options.smoke else [bound(what, rows[0]["ratio"], most=case.most)]
    emit("limit", reached)
    if not options.json:
        show_bounds(reached)
        print(machine())


if __name__ == "__main__":
    main()
