"""A sweep over a stream against the loop that reads the file for each point.

Sparse autoencoders, 16 λ x 2 learning rates, on xz-compressed shards that are read one by one, by a
process that is not allowed the memory that the rows would take: that it cannot read them all is checked
before the timed rounds. Reading a batch takes several times as long as
training one point on it, which is where people who sweep over files are. The loop is a good one: each point
has one compiled step, reads the same batches, and a thread reads ahead for it as well. Answers are compared
before anything is timed. The idle share is what the devices wait for a reader that is fast enough: batches
from memory instead of from shards, against resident arrays.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import queue
import resource
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import (
    Row,
    arguments,
    bound,
    emit,
    first_calls,
    machine,
    refuse,
    seconds,
    show,
    show_bounds,
)

import jaxreg as jr

DIM, UNITS, BATCH = 64, 64, 256
SPARE = 1 << 28  # bytes that a smoke run may take
TARGET, MOST_IDLE = 8.0, 0.05


def main() -> None:
    args = arguments(__doc__ or "", rounds=3).parse_args()
    shards, of_each = (2, 4) if args.smoke else (24, 32)
    lams = np.geomspace(0.01, 1.0, 2 if args.smoke else 16)
    with tempfile.TemporaryDirectory() as folder:
        written = write(Path(folder), shards, of_each)
        read = lambda: from_shards(Path(folder))
        steps, held_out = shards * of_each, like(next(read()))
        grid = jr.grid(lambda lam, lr: {"lam": lam, "lr": lr}, lam=lams, lr=[1e-3, 3e-3])
        candidates: dict[str, Callable[[], Any]] = {
            "jaxreg.sweep": lambda: swept(grid, jr.stream(read), steps, held_out),
            "a loop over the points": lambda: looped(grid, read, steps),
        }
        _, answers = first_calls(candidates)
        compare(*answers.values(), held_out)
        rounds = 1 if args.smoke else args.rounds
        with memory_for(SPARE if args.smoke else 0.8 * written):
            if not args.smoke:
                must_not_fit(read)
            taken = {n: [seconds(call)[0] for _ in range(rounds)] for n, call in candidates.items()}
        batches = list(read())
        resident = jr.stream(lambda: iter(batches))
        swept(grid, resident, steps, held_out)
        from_memory = min(
            seconds(lambda: swept(grid, resident, steps, held_out))[0] for _ in range(rounds)
        )
        over_arrays = min(
            seconds(lambda: arrays(grid, batches, steps, held_out))[0] for _ in range(rounds)
        )
        reading = min(seconds(lambda: sum(len(b[0]) for b in read()))[0] for _ in range(rounds))
    ours, loop = (np.array(s) for s in taken.values())
    ratio, idle = float(np.median(loop / ours)), max(0.0, 1 - over_arrays / from_memory)
    rows: list[Row] = [
        {"candidate": "jaxreg.sweep", "seconds": float(np.median(ours)), "ratio": 1.0},
        {"candidate": "a loop over the points", "seconds": float(np.median(loop)), "ratio": ratio},
        {
            "candidate": "reading alone",
            "seconds": reading,
            "ratio": reading / float(np.median(ours)),
        },
    ]
    size = {"points": len(grid), "steps": steps, "file_mb": written / 1e6, "idle": idle}
    emit("stream", [row | size for row in rows])
    if not args.json:
        title = f"{len(grid)} autoencoders on {written / 1e6:.0f} MB, {steps} batches\n{machine()}"
        cells = [[r["candidate"], f"{r['seconds']:.2f} s", f"{r['ratio']:.2f}"] for r in rows]
        show(title, ["candidate", "time", "over sweep"], cells)
        if not args.smoke:
            share = bound("share of the time that devices wait", idle, most=MOST_IDLE)
            show_bounds([bound("loop over sweep", ratio, least=TARGET), share])


@contextlib.contextmanager
def memory_for(spare: float) -> Iterator[None]:
    """Allow this process so many bytes more than it has now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    status = Path("/proc/self/status").read_text()
    (have,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (int(1024 * have + spare), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def must_not_fit(read: Callable) -> None:
    try:
        rows = [batch[0].copy() for batch in read()]
    except MemoryError:
        return
    refuse(f"{len(rows)} batches fit into the memory that was left, so the limit shows nothing.")


# --- the data ---------------------------------------------------------------------------------------


def write(folder: Path, shards: int, of_each: int) -> int:
    """Compressed shards of sparse sums; returns how many bytes their rows are."""
    rng, total = np.random.default_rng(0), 0
    directions = rng.normal(size=(4 * DIM, DIM)).astype("f") / DIM**0.5
    for i in range(shards):
        amounts = rng.exponential(size=(of_each * BATCH, 4 * DIM)).astype("f")
        amounts *= rng.random(amounts.shape) < 0.02
        rows = (amounts @ directions).astype(np.float16).astype("f")
        with lzma.open(folder / f"{i:03}.npy.xz", "wb", preset=1) as file:
            np.save(file, rows)
        total += rows.nbytes
    return total


def from_shards(folder: Path) -> Iterator[tuple[np.ndarray]]:
    for path in sorted(folder.glob("*.xz")):
        rows = np.load(io.BytesIO(lzma.decompress(path.read_bytes())))
        for start in range(0, len(rows), BATCH):
            yield (rows[start : start + BATCH],)


# --- the model --------------------------------------------------------------------------------------


def init(key: jax.Array) -> dict:
    down = jax.random.normal(key, (UNITS, DIM)) / DIM**0.5
    return {"up": down.T, "down": down, "bias": jnp.zeros(UNITS)}


def code(params: dict, x: jax.Array) -> jax.Array:
    return jax.nn.relu(x @ params["up"] + params["bias"])


def error(params: dict, x: jax.Array) -> jax.Array:
    return jnp.mean(jnp.sum((code(params, x) @ params["down"] - x) ** 2, -1))


def penalized(params: dict, x: jax.Array, lam: Any) -> jax.Array:
    return error(params, x) + lam * jnp.mean(jnp.sum(code(params, x), -1))


def trainer(point: dict) -> jr.Trainer:
    loss = lambda params, x: penalized(params, x, point["lam"])
    return jr.Trainer(init, loss, optax.adam(point["lr"]), eval_loss=error)


# --- the candidates ---------------------------------------------------------------------------------


def like(batch: tuple) -> tuple:
    """Other rows of the same kind, to judge by."""
    rng = np.random.default_rng(1)
    return tuple((x + 0.1 * x.std() * rng.normal(size=x.shape)).astype(x.dtype) for x in batch)


def swept(grid: Any, source: Any, steps: int, held_out: tuple) -> Any:
    result = jr.sweep(
        trainer, grid, source, validation=held_out, steps=steps, evals=1, key=jax.random.key(0),
        progress=False,
    )  # fmt: skip
    return jax.tree.map(lambda x: x[:, 0, 0], result.params)


def arrays(grid: Any, batches: list, steps: int, held_out: tuple) -> Any:
    """The same work on rows that are resident: nothing is read."""
    rows = np.concatenate([b[0] for b in batches])
    result = jr.sweep(
        trainer, grid, (rows,), validation=held_out, steps=steps, evals=1, batch_size=BATCH,
        key=jax.random.key(0), progress=False,
    )  # fmt: skip
    return result.params


@jax.jit
def step(state: tuple, x: jax.Array, lam: jax.Array, lr: jax.Array) -> tuple:
    params, opt_state = state
    updates, opt_state = optax.adam(lr).update(
        jax.grad(penalized)(params, x, lam), opt_state, params
    )
    return optax.apply_updates(params, updates), opt_state


def looped(grid: Any, read: Callable, steps: int) -> Any:
    """One point after the other, each with a pass of its own over the shards, read ahead by a thread."""
    found = []
    start = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 0)
    for k in range(len(grid)):
        lam, lr = grid[k]["lam"], grid[k]["lr"]
        params = init(start)
        state = params, optax.adam(lr).init(params)
        for _, (x,) in zip(range(steps), ahead(read)):
            state = step(state, x, lam, lr)
        found.append(jax.block_until_ready(state[0]))
    return jax.tree.map(lambda *x: jnp.stack(x), *found)


def ahead(read: Callable) -> Iterator:
    waiting: queue.Queue = queue.Queue(8)

    def work():
        for batch in read():
            waiting.put(tuple(map(jnp.asarray, batch)))
        waiting.put(None)

    threading.Thread(target=work, daemon=True).start()
    while (batch := waiting.get()) is not None:
        yield batch


def compare(ours: Any, theirs: Any, held_out: tuple) -> None:
    """By the error on rows that nobody trained on: thousands of steps of Adam amplify rounding."""
    scores = jax.vmap(error, (0, None))
    a, b = scores(ours, *held_out), scores(theirs, *held_out)
    apart = float(jnp.max(jnp.abs(a - b) / b))
    if not apart < 0.01:
        refuse(f"the errors of the sweep and of the loop differ by {apart:.1%}.")


if __name__ == "__main__":
    main()
