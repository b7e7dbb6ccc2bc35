"""A sweep over lambda as one compiled program, against the loops it replaces, on the same work.

Scikit-learn's digits, an MLP 64-128-128-10 and a logistic regression, minibatches of 64, Adam at 1e-3,
lam/2 |kernels|^2 added to the mean loss, 32 values of lam, one split and one seed. The candidates:

    jaxreg.sweep           the library, as a user calls it (it uses every core by itself)
    vmap by hand           one jitted scan over the steps, vmapped over lam
    loop of jitted scans   the same scan, compiled once, called lam after lam
    loop of jitted steps   the training loop most people write; one compiled step with donated state
    PyTorch, n threads     eager PyTorch, Adam's own weight_decay on the weights, default foreach;
                           once with one thread and once with all, since small nets prefer one

All of them start from the same parameters and see the same minibatches in the same order, and all end
with the training and the validation loss of every lam. These must agree, or the script stops with
status 1 before it has printed any time. Times are of the whole sweep; the ratio says how many times
longer than jaxreg.sweep a candidate takes. Compiling happens in the first call, which stands apart.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import (
    Row,
    arguments,
    cross_entropy,
    emit,
    figures,
    first_calls,
    machine,
    mlp,
    refuse,
    show,
    timed_rounds,
)
from jax import Array, lax

import jaxreg as jr
from jaxreg.train import BatchStream, init_key, stream_key

NETS = {"MLP 64-128-128-10": (64, 128, 128, 10), "logistic regression 64-10": (64, 10)}
BATCH, RATE, N_TRAIN = 64, 1e-3, 1297
OURS, BY_HAND = "jaxreg.sweep", "loop of jitted scans"
# Difference of the final losses from those of the scans by hand, over how far training has moved the
# loss: (median, largest) over lam, train and validation. Sums are taken in another order in each
# program, and a few runs meet a gradient that is all rounding, which Adam scales up to a full step:
# hence the two numbers.
TOLERANCE = {"jax": (1e-4, 2e-3), "torch": (1e-3, 1e-2)}


class Task(NamedTuple):
    """What every candidate gets; `order` [steps, batch] are the rows of each minibatch."""

    sizes: tuple[int, ...]
    lams: np.ndarray
    train: tuple[Array, Array]
    valid: tuple[Array, Array]
    params: Any
    order: np.ndarray
    key: Array


def make_task(sizes: tuple[int, ...], n_lams: int, steps: int) -> Task:
    """The digits, and from the library's own keys the initial parameters and the minibatches."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(x))
    x, y = jnp.asarray(x[rows] / 16, jnp.float32), jnp.asarray(y[rows], jnp.int32)
    key = jax.random.key(0)
    every = jnp.arange(N_TRAIN)
    stream = BatchStream(every, N_TRAIN, stream_key(key, 0, 0), BATCH, steps, N_TRAIN)
    batch_at = stream.batches((every,), 0)
    order = np.asarray(jax.vmap(lambda i: batch_at(i)[0])(jnp.arange(steps)))
    return Task(
        sizes,
        np.logspace(-6, 0, n_lams).astype(np.float32),
        (x[:N_TRAIN], y[:N_TRAIN]),
        (x[N_TRAIN:], y[N_TRAIN:]),
        mlp(init_key(key, 0), sizes),
        order,
        key,
    )


# --- the candidates: each returns a function () -> losses [K, 2], of train and validation ---------


def library(task: Task) -> Callable[[], np.ndarray]:
    trainer = jr.Trainer(
        init=functools.partial(mlp, sizes=task.sizes),
        loss=cross_entropy,
        optimizer=lambda reg: optax.chain(jr.add_penalty_gradient(reg), optax.adam(RATE)),
    )

    def run():
        grid = jr.grid(lambda lam: jr.l2(lam).on(jr.kernels), lam=task.lams)
        result = jr.sweep(
            trainer, grid, task.train, validation=task.valid, steps=len(task.order), key=task.key,
            batch_size=BATCH, evals=1, keep_params=False, progress=False,
        )  # fmt: skip
        ends = result.train["loss"][:, 0, 0, -1], result.valid["loss"][:, 0, 0, -1]
        return np.stack([np.asarray(e) for e in ends], -1)

    return run


def _objective(params, lam, x, y):
    decay = sum(jnp.sum(layer["kernel"] ** 2) for layer in params.values())
    return cross_entropy(params, x, y) + lam / 2 * decay


def _step(params, state, lam, x, y):
    grads = jax.grad(_objective)(params, lam, x, y)
    updates, state = optax.adam(RATE).update(grads, state, params)
    return optax.apply_updates(params, updates), state


def _losses(params, train, valid):
    return jnp.stack([cross_entropy(params, *train), cross_entropy(params, *valid)])


def _scan(lam, params, order, train, valid):
    """One lam from start to end."""
    x, y = train

    def body(carry, rows):
        return _step(*carry, lam, x[rows], y[rows]), None

    (params, _), _ = lax.scan(body, (params, optax.adam(RATE).init(params)), order)
    return _losses(params, train, valid)


def vmap_by_hand(task: Task) -> Callable[[], Array]:
    program = jax.jit(jax.vmap(_scan, in_axes=(0, None, None, None, None)))
    rest = (task.params, jnp.asarray(task.order), task.train, task.valid)
    return lambda: program(jnp.asarray(task.lams), *rest)


def loop_of_scans(task: Task) -> Callable[[], Array]:
    program = jax.jit(_scan)
    rest = (task.params, jnp.asarray(task.order), task.train, task.valid)
    # Nothing waits inside the loop: whatever jax can overlap, it may.
    return lambda: jnp.stack([program(lam, *rest) for lam in task.lams])


def loop_of_steps(task: Task) -> Callable[[], Array]:
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, lam, rows, x, y):
        return _step(params, state, lam, x[rows], y[rows])

    look = jax.jit(_losses)

    def run():
        found = []
        for lam in task.lams:
            params = jax.tree.map(jnp.copy, task.params)  # the step consumes what it is given
            state = optax.adam(RATE).init(params)
            for rows in task.order:
                params, state = step(params, state, lam, rows, *task.train)
            found.append(look(params, task.train, task.valid))
        return jnp.stack(found)

    return run


def torch_loop(task: Task, threads: int) -> Callable[[], np.ndarray]:
    """Eager PyTorch. Its weight_decay is lam * w in the gradient, as here, and cheaper than a term
    in the loss."""
    import torch
    from torch import nn

    as_torch = lambda a: torch.from_numpy(np.array(a))
    (x, y), (x_valid, y_valid) = (
        (as_torch(a), as_torch(b).long()) for a, b in (task.train, task.valid)
    )
    order = as_torch(task.order).long()
    widths = list(zip(task.sizes, task.sizes[1:]))
    layers = [nn.Linear(n, m) for n, m in widths]
    between = [part for layer in layers for part in (layer, nn.ReLU())][:-1]
    net, loss = nn.Sequential(*between), nn.functional.cross_entropy
    starts = [(as_torch(p["kernel"]).T, as_torch(p["bias"])) for p in task.params.values()]

    def restart(lam):
        with torch.no_grad():
            for layer, (kernel, bias) in zip(layers, starts):
                layer.weight.copy_(kernel)
                layer.bias.copy_(bias)
        decayed = {"params": [layer.weight for layer in layers], "weight_decay": float(lam)}
        return torch.optim.Adam([decayed, {"params": [layer.bias for layer in layers]}], lr=RATE)

    def run():
        torch.set_num_threads(threads)
        found = []
        for lam in task.lams:
            optimizer = restart(lam)
            for rows in order:
                optimizer.zero_grad()
                loss(net(x[rows]), y[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                found.append([loss(net(x), y).item(), loss(net(x_valid), y_valid).item()])
        return np.array(found)

    return run


def candidates(task: Task) -> tuple[dict[str, Callable[[], Any]], list[str]]:
    """The candidates by name, and the names of those that are not installed."""
    found = {
        OURS: library(task),
        "vmap by hand": vmap_by_hand(task),
        BY_HAND: loop_of_scans(task),
        "loop of jitted steps": loop_of_steps(task),
    }
    try:
        for threads in sorted({1, len(os.sched_getaffinity(0))}):
            found[f"PyTorch, {threads} thread{'s' * (threads > 1)}"] = torch_loop(task, threads)
    except ImportError:
        return found, ["PyTorch"]
    return found, []


# --- check, time, print ---------------------------------------------------------------------------


def disagreement(task: Task, answers: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """(median, largest) difference of the losses from the scans by hand, over the way trained."""
    right = np.asarray(answers[BY_HAND])
    start = np.asarray(_losses(task.params, task.train, task.valid))
    moved = np.abs(right - start).max(0)
    far = {name: np.abs(np.asarray(a) - right) / moved for name, a in answers.items()}
    # A NaN agrees with nothing.
    far = {name: np.where(np.isnan(f), np.inf, f) for name, f in far.items()}
    return {name: (float(np.median(f)), float(np.max(f))) for name, f in far.items()}


def tolerance(name: str) -> tuple[float, float]:
    return TOLERANCE["torch" if name.startswith("PyTorch") else "jax"]


def check(net: str, far: dict[str, tuple[float, float]]) -> None:
    """Stop the script if a candidate's losses are not those of the scans by hand."""
    for name, found in far.items():
        if any(f > allowed for f, allowed in zip(found, tolerance(name))):
            refuse(
                f"{net}: the losses of {name!r} differ from those of {BY_HAND!r} by {found[0]:.2g} of "
                f"the way trained in the median, {found[1]:.2g} at most; allowed are {tolerance(name)}."
            )


def measure(net: str, n_lams: int, steps: int, rounds: int) -> list[Row]:
    """All rows of one net; stops the script if the answers disagree."""
    task = make_task(NETS[net], n_lams, steps)
    calls, missing = candidates(task)
    first, answers = first_calls(calls)
    far = disagreement(task, answers)
    check(net, far)
    timings = timed_rounds(calls, first, rounds)
    setting = {"net": net, "lams": n_lams, "steps": steps, "batch": BATCH}
    rows = [
        {**setting, "candidate": n, **figures(t, timings[OURS]),
         "us_per_lam_and_step": round(t.median / n_lams / steps * 1e6, 2),
         "disagreement": far[n], "tolerance": tolerance(n)}
        for n, t in timings.items()
    ]  # fmt: skip
    return rows + [{**setting, "candidate": n, "note": "not installed"} for n in missing]


def table(net: str, rows: list[Row]) -> None:
    lines = []
    for row in rows:
        if "note" in row:
            lines.append([row["candidate"], row["note"], "", "", "", ""])
            continue
        low, high = row["ratio_iqr"]
        lines.append([
            row["candidate"], f"{row['ratio']:.2f}", f"{low:.2f} - {high:.2f}",
            f"{row['us_per_lam_and_step']:.1f}", f"{row['first_call_seconds']:.2f}",
            " / ".join(f"{d:.0e}" for d in row["disagreement"]),
        ])  # fmt: skip
    columns = [
        "candidate", "time / jaxreg.sweep", "quartiles", "µs per λ and step", "first call (s)",
        "losses differ (median / most)",
    ]  # fmt: skip
    r = rows[0]
    title = f"{net}: {r['lams']} λ, {r['steps']} steps of batch {r['batch']}, {r['rounds']} rounds"
    show(title, columns, lines)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--lams", type=int, default=32)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    if options.smoke:
        options.lams, options.steps, options.rounds = 3, 20, 2
    for net in NETS:
        rows = measure(net, options.lams, options.steps, options.rounds)
        if not options.json:
            table(net, rows)
        emit("sweep", rows)
    if not options.json:
        print(machine())


if __name__ == "__main__":
    main()
