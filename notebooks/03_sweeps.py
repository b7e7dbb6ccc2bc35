# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A sweep that gives up early, is interrupted, and goes on
#
# 16 λ × 5 folds × 2 seeds are 160 trainings: the **lanes** of one compiled program. Most of them are
# hopeless long before their last step. This page
#
# 1. trains them all, then again with **successive halving**: what is saved, and is the choice the same?
# 2. **interrupts** the sweep with Ctrl-C and goes on from its checkpoint, to the same bits;
# 3. ends each lane on its own, by **patience**;
# 4. makes the same call on **eight devices**.
#
# How a sweep works inside, and several hosts: [docs/sweeps.md](../docs/sweeps.md).

# %%
import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from sklearn.datasets import load_digits

import jaxreg as jr

plt.rcParams.update({"font.size": 8, "figure.constrained_layout.use": True})
work = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The experiment
#
# 100 handwritten digits and a net with one hidden layer, which learns them by heart. `problem` and `run`
# stand on their own, because another process will run the same source below.


# %%
def problem():
    """Trainer, grid of λ, and data."""
    X, y = load_digits(return_X_y=True)
    some = jax.random.permutation(jax.random.key(0), len(X))[:100]
    X, y = jnp.asarray(X[some] / 16, jnp.float32), jnp.asarray(y[some])

    def init(key):
        shapes = {"hidden": (64, 64), "out": (64, 10)}
        return {
            name: {
                "kernel": jax.random.normal(k, shape) / shape[0] ** 0.5,
                "bias": jnp.zeros(shape[1]),
            }
            for (name, shape), k in zip(shapes.items(), jax.random.split(key))
        }

    def loss(params, x, y):
        hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        logits = hidden @ params["out"]["kernel"] + params["out"]["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def trainer(reg):
        optimizer = optax.chain(jr.add_penalty_gradient(reg), optax.adam(1e-2))
        return jr.Trainer(init, loss, optimizer)

    grid = jr.grid(lambda lam: jr.l2(lam).on(jr.kernels), lam=jnp.logspace(-5, -1, 16))
    return trainer, grid, (X, y)


def run(*args, **options):
    """The sweep of this page; options such as halving= or patience= are added to it."""
    options = {"folds": 5, "seeds": 2, "steps": 800, "batch_size": 40, "evals": 32, **options}
    return jr.sweep(*args, key=jax.random.key(1), progress=False, **options)


trainer, grid, data = problem()

# %% [markdown]
# A callback sees every evaluation as it is made: losses, and which lanes still run. This one keeps them
# and looks at the clock. The first evaluation comes at step 0, when everything has been compiled, so the
# seconds are those of training alone.


# %%
class Watch(jr.Callback):
    """Every evaluation of a sweep, and when it was seen."""

    def __init__(self):
        self.seen, self.clock = [], []

    def evaluated(self, evaluation):
        self.seen.append(evaluation)
        self.clock.append(time.perf_counter())

    @property
    def steps(self):
        return np.array([evaluation.step for evaluation in self.seen])

    @property
    def alive(self):
        """Lanes alive at each evaluation, for each λ [T, K]."""
        return np.array([evaluation.alive.sum((1, 2)) for evaluation in self.seen])

    @property
    def seconds(self):
        return self.clock[-1] - self.clock[0]


def layout(result):
    return json.loads(result.made_by)["layout"]


# %% [markdown]
# ## Everything to the end
#
# The yardstick: all 160 lanes, all 800 steps. The sweep says how it laid the lanes out.

# %%
watch_whole = Watch()
whole = run(trainer, grid, data, callbacks=[watch_whole])
print(layout(whole))
print(whole)

# %% [markdown]
# ## Giving up early
#
# `Halving(keep=0.5, rungs=3)` judges the points three times, after 1/8, 1/4 and 1/2 of the steps, by
# their **validation** loss averaged over folds and seeds, and only the better half goes on each time.

# %%
halving = jr.Halving(keep=0.5, rungs=3)
print([f"after {step} steps {keep} λ go on" for step, keep in halving.schedule(16, 800)])

watch_halved = Watch()
halved = run(trainer, grid, data, halving=halving, callbacks=[watch_halved])
print(layout(halved))
print(halved.table())

# %% [markdown]
# The loss of a point that was given up is that of its rung: a record of why it went, not to be compared
# with those at the end. `best` never chooses it, and its curves go on with NaN.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for axis, result, title in zip(axes, (whole, halved), ("all to the end", "with halving")):
    result.plot_learning_curves(ax=axis)
    axis.text(0.97, 0.95, title, transform=axis.transAxes, ha="right", va="top", fontsize=9)
    axis.set(yscale="log", ylim=(0.28, 3))
    axis.set_yticks([0.3, 0.5, 1, 2], ["0.3", "0.5", "1", "2"])
    axis.minorticks_off()

# %% [markdown]
# The population as it shrinks. Left, a band for each λ, as high as it has lanes alive. Right, how far each
# λ came.

# %%
lam = np.asarray(grid.coords["lam"])
scale = ScalarMappable(
    LogNorm(lam[0], lam[-1]), ListedColormap(plt.get_cmap("viridis")(np.linspace(0, 0.9, 256)))
)


def draw_population(axis, watch, order):
    """Lanes alive against the step, a band for each λ, from below in `order`."""
    steps, alive = watch.steps, watch.alive
    top = np.zeros(len(steps))
    for k in order:
        # "pre": a lane alive at an evaluation has been trained up to it.
        look = {"color": scale.to_rgba(lam[k]), "edgecolor": "white", "linewidth": 0.4}
        axis.fill_between(steps, top, top + alive[:, k], step="pre", **look)
        top = top + alive[:, k]
    axis.set(xlabel="step", ylabel="lanes alive", xlim=(0, steps[-1]), ylim=(0, top[0]))


def draw_lives(axis, watch, best):
    """How far each λ came."""
    reached = [watch.steps[alive > 0].max() for alive in watch.alive.T]
    at = np.arange(len(lam))
    axis.barh(at, reached, color=[scale.to_rgba(x) for x in lam], height=0.8)
    for k, step in enumerate(reached):
        word = (
            "the choice" if k == best else "to the end" if step == watch.steps[-1] else "given up"
        )
        inside = step > 0.7 * watch.steps[-1]
        axis.annotate(
            word, (step, k), xytext=(-3 if inside else 3, 0), textcoords="offset points",
            ha="right" if inside else "left", va="center", fontsize=6.5,
            color="white" if inside else "0.3",
        )  # fmt: skip
    axis.set_yticks(at[::3], [f"{x:.1e}" for x in lam[::3]])
    axis.set(xlabel="step", xlim=(0, watch.steps[-1]))
    axis.set_ylabel("λ", rotation=0)


figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
draw_population(axes[0], watch_halved, np.argsort(-watch_halved.alive.sum(0), kind="stable"))
draw_lives(axes[1], watch_halved, halved.best().index)
for step, keep in halving.schedule(16, 800):
    axes[0].annotate(
        f"{keep} λ go on", (step, 10 * keep), (6, 6), textcoords="offset points", fontsize=8
    )
    axes[1].axvline(step, color="0.6", lw=0.6, ls=":", zorder=0)
figure.colorbar(scale, ax=axes).set_label("λ", rotation=0)

# %% [markdown]
# The strongest and the weakest go first. What did it save, and what did it cost?

# %%
share_steps = watch_halved.alive[1:].sum() / watch_whole.alive[1:].sum()
share_seconds = watch_halved.seconds / watch_whole.seconds
print(f"lane-steps: {share_steps:.2f} of the full sweep; Halving says {halving.share(16, 800):.2f}")
print(f"seconds:    {share_seconds:.2f} ({watch_halved.seconds:.1f} of {watch_whole.seconds:.1f})")
for rule in ("min", "paired"):
    full, early = whole.best(rule), halved.best(rule)
    print(f"{rule}: λ = {early.coords['lam']:.2e}; the full sweep chose {full.coords['lam']:.2e}")

# %% [markdown]
# By the minimum, the same λ. The paired rule has less to choose from: it can only take a λ
# that was still there at the end. Survivors have the numbers of the full sweep, to rounding here, since
# their lanes were vmapped in another width: blocks of two can be filled to the last, and are a little
# less efficient than wider ones, which is why the seconds lag behind the lane-steps.
#
# Giving up is a bet, though. At which place stood the winner on the way?

# %%
best = whole.best().index
curves = whole.valid["loss"].mean((1, 2))  # [K, T]
for step in (50, 100, 200, 400, 800):
    now = curves[:, list(whole.time).index(step)]
    print(f"step {step:3d}: place {1 + (now < now[best]).sum()} of 16")

# %% [markdown]
# At no rung was it ahead. What saved it is that every rung kept some: `rungs=4` would leave one λ at step
# 400, and that would be its neighbour. A rung that keeps a few costs little; one that comes before the
# curves have parted, or keeps a single λ, chooses by noise.

# %%
last = jr.Halving(keep=0.5, rungs=4).schedule(16, 800)[-1]
print(f"the last of four rungs: after {last.step} steps {last.keep} λ goes on")
assert last.keep == 1
assert curves[:, list(whole.time).index(last.step)].argmin() != best

# %% [markdown]
# ## Interrupted, and on it goes
#
# With `checkpoint=` the state of every lane is kept in a directory. The callback presses Ctrl-C at step
# 200, as you would. The sweep stops cleanly and raises `jr.Interrupted`, which holds what there is.


# %%
class CtrlC(jr.Callback):
    """Presses Ctrl-C at a step."""

    def __init__(self, step):
        self.step = step

    def evaluated(self, evaluation):
        if evaluation.step == self.step:
            signal.raise_signal(signal.SIGINT)


watch = Watch()
options = {"halving": halving, "checkpoint": work / "checkpoint"}
try:
    run(trainer, grid, data, **options, callbacks=[watch, CtrlC(200)])
except jr.Interrupted as stop:
    partial = stop.result
    print(str(stop).replace(str(work), "…"), "\n")
print(partial)
assert (partial.status == jr.Status.RUNNING).sum() == 40

# %% [markdown]
# `partial` is a result like any other: it has a table, plots and a best λ so far. The same call goes on.

# %%
resumed = run(trainer, grid, data, **options, callbacks=[watch])


def numbers(result):
    """Everything that was computed."""
    curves = result.train, result.valid, result.penalty_value
    return jax.tree.leaves((curves, result.params, result.status, result.stop))


for a, b in zip(numbers(resumed), numbers(halved), strict=True):
    np.testing.assert_array_equal(a, b)
print(f"{sum(x.size for x in numbers(halved)):,} numbers, equal to the last bit")
print("evaluations seen by the callback, each once:", (watch.steps == whole.time).all())
assert (watch.steps == whole.time).all()
assert (watch.alive == watch_halved.alive).all()

# %% [markdown]
# After `kill -9` it is the same, from the last checkpoint (`checkpoint_every=60` seconds).
#
# ## Patience: each lane on its own
#
# Halving compares penalties. `patience=5` looks at one lane at a time: it ends after five evaluations
# without a lower validation loss, and returns its **best** evaluation, with the parameters of it.

# %%
watch_patient = Watch()
patient = run(trainer, grid, data, patience=5, callbacks=[watch_patient])
print(patient.table())

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3))
draw_population(axes[0], watch_patient, np.arange(16))
jitter = np.random.default_rng(0).uniform(0.88, 1.14, patient.stop.shape)
x, y = patient.time[patient.stop], lam[:, None, None] * jitter
ended = patient.status == jr.Status.STOPPED
for mark, where, label in (("o", ended, "stopped early"), ("^", ~ended, "ran to the end")):
    axes[1].scatter(
        x[where], y[where], c=scale.to_rgba(lam[np.nonzero(where)[0]]), marker=mark, s=12
    )
    axes[1].scatter([], [], c="0.4", marker=mark, s=12, label=label)
axes[1].set(xlabel="step of the best evaluation", ylabel="λ", yscale="log", xlim=(0, 820))
axes[1].legend(loc="upper left", bbox_to_anchor=(0, 1.14), ncols=2, frameon=False)
figure.colorbar(scale, ax=axes).set_label("λ", rotation=0)

# %% [markdown]
# Under strong penalties a lane is soon where it will be, and the noise around that ends its patience.
# Under weak ones it depends on the fold: some lanes overfit within 100 steps and are stopped there, others
# creep down to the very end. Stopping early is itself a regularizer: with it a λ that is far too small
# loses less.

# %%
figure, axis = plt.subplots(figsize=(5, 2.8))
for result, name in ((whole, "at the last step"), (patient, "with patience")):
    axis.errorbar(lam, result.mean(), result.stderr(), marker="o", ms=3, capsize=2, label=name)
axis.set(xscale="log", ylim=(0.2, 0.8), xlabel="λ", ylabel="validation loss")
axis.legend(frameon=False)
print(f"lane-steps: {watch_patient.alive[1:].sum() / watch_whole.alive[1:].sum():.2f}")
print(f"weakest λ: {patient.mean()[0]:.3f} with patience, {whole.mean()[0]:.3f} without")

# %% [markdown]
# ## The same call on eight devices
#
# A process has one CPU device, unless it is told otherwise before jax starts. So the same source runs in
# a new process, with eight virtual devices; on a machine with eight GPUs nothing would have to be set.
# Nothing in the call changes: a sweep uses all devices that there are.

# %%
script = f"""
import sys
import jax, jax.numpy as jnp, optax
from sklearn.datasets import load_digits
import jaxreg as jr

{inspect.getsource(problem)}
{inspect.getsource(run)}
print(jax.device_count(), "devices")
run(*problem(), halving=jr.Halving(keep=0.5, rungs=3)).save(sys.argv[1])
"""
(work / "digits.py").write_text(script)
child = subprocess.run(
    [sys.executable, work / "digits.py", work / "eight.npz"],
    env={**os.environ, "JAX_NUM_CPU_DEVICES": "8"},
    capture_output=True,
    text=True,
)
assert child.returncode == 0, child.stderr
eight = jr.SweepResult.load(work / "eight.npz")
print(child.stdout, layout(eight), sep="")

# %% [markdown]
# The ten pairs of fold and seed are ten rows of sixteen lanes. They are padded to sixteen rows, two for
# each device, and the padding never shows. Lanes do not talk to each other, so the program has no
# collective. The numbers are those of one device, to rounding.

# %%
loss_one, loss_eight = (r.valid["loss"] for r in (halved, eight))
np.testing.assert_array_equal(eight.status, halved.status)
print(f"largest difference of a validation loss: {np.nanmax(np.abs(loss_eight - loss_one)):.1e}")
print(f"λ chosen on eight devices: {eight.best().coords['lam']:.2e}")

# %% [markdown]
# ## What was claimed

# %%
assert halved.best().index == whole.best().index == eight.best().index
assert np.isclose(share_steps, halving.share(16, 800))
assert watch_halved.seconds < watch_whole.seconds
survived = (halved.status == jr.Status.FINISHED).all((1, 2))
assert survived.sum() == 2
np.testing.assert_allclose(halved.valid["loss"][survived], whole.valid["loss"][survived], atol=1e-4)
np.testing.assert_allclose(loss_eight, loss_one, atol=1e-4)
assert "over 8 devices" in layout(eight)
assert 0 < ended.sum() < ended.size
assert patient.mean()[0] < whole.mean()[0]
