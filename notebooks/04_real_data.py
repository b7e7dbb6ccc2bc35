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
# # Real data: a file that is read once, scores that mean what they say
#
# 1. A **stream**: a memory-mapped file of activations trains a sparse autoencoder over λ × learning rate,
#    and every batch is read once for all of them. Drawn is the frontier of reconstruction against sparsity.
# 2. A table with a **rare class, groups and unequal folds**: a score that is no mean over rows, and a
#    scaler that each fold learns of its training rows alone.
#
# The pages behind it: [docs/streams.md](../docs/streams.md), [docs/judging.md](../docs/judging.md).

# %%
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxreg as jr

plt.rcParams.update({"font.size": 8, "figure.constrained_layout.use": True})
work = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A file of activations
#
# Sixteen directions out of forty are seen at a time only in sums: each row is a few of forty directions,
# with amounts above zero. A sparse autoencoder should find them again. The file is written in parts and
# never read as a whole.

# %%
DIM, CAUSES, ROWS, BATCH = 16, 40, 60_000, 256
rng = np.random.default_rng(0)
directions = rng.normal(size=(CAUSES, DIM))
directions /= np.linalg.norm(directions, axis=1, keepdims=True)
path = work / "activations.npy"
file = np.lib.format.open_memmap(path, "w+", np.float32, (ROWS, DIM))
for start in range(0, ROWS, 10_000):
    amounts = rng.exponential(size=(10_000, CAUSES)) * (rng.random((10_000, CAUSES)) < 0.06)
    file[start : start + 10_000] = amounts @ directions
file.flush()
print(f"{path.stat().st_size / 1e6:.1f} MB")


# %%
reads = []


def batches(epoch):
    rows = np.load(path, mmap_mode="r")[: ROWS - 2_000]  # the last 2,000 are held out
    for i in np.random.default_rng(epoch).permutation(len(rows) // BATCH):
        reads.append(i)
        yield rows[BATCH * i : BATCH * (i + 1)]


source = jr.stream(batches)
source

# %% [markdown]
# ## λ × learning rate on one pass
#
# λ weighs the size of the code and stands in the loss: it is a number of the point, like the learning rate.
# `eval_loss` is the reconstruction alone, so that λ does not choose itself; `active` counts how many of the
# 64 units speak for a row.

# %%
UNITS = 64


def init(key):
    down = jax.random.normal(key, (UNITS, DIM)) / DIM**0.5
    return {"up": down.T, "down": down, "bias": jnp.zeros(UNITS), "center": jnp.zeros(DIM)}


def code(params, x):
    return jax.nn.relu((x - params["center"]) @ params["up"] + params["bias"])


def reconstruction(params, x):
    told = code(params, x) @ params["down"] + params["center"]
    return jnp.mean(jnp.sum((told - x) ** 2, -1))


def active(params, x):
    return jnp.mean(jnp.sum(code(params, x) > 0, -1))


def explained(params, x, sample_weight):
    """The share of the variance that is explained: no mean over rows."""
    w = sample_weight[:, None] / jnp.sum(sample_weight)
    told = code(params, x) @ params["down"] + params["center"]
    spread = jnp.sum(w * (x - jnp.sum(w * x, 0)) ** 2)
    return 1 - jnp.sum(w * (told - x) ** 2) / spread


def autoencoder(point):
    def loss(params, x):
        size = jnp.linalg.norm(
            params["down"], axis=1
        )  # a small code must not hide in large weights
        return reconstruction(params, x) + point["lam"] * jnp.mean(
            jnp.sum(code(params, x) * size, -1)
        )

    metrics = {"active": active, "explained": explained}
    return jr.Trainer(init, loss, optax.adam(point["lr"]), metrics, eval_loss=reconstruction)


grid = jr.grid(
    lambda lam, lr: {"lam": lam, "lr": lr}, lam=np.geomspace(0.003, 1.0, 8), lr=[1e-3, 4e-3]
)
held_out = np.array(np.load(path, mmap_mode="r")[-2_000:])
STEPS = 1_500
reads.clear()
frontier = jr.sweep(
    autoencoder,
    grid,
    source,
    validation=(held_out,),
    steps=STEPS,
    evals=6,
    key=jax.random.key(0),
    progress=False,
)
frontier.table(by="lam")

# %% [markdown]
# Sixteen autoencoders, and every batch was read once: a loop over the sixteen would have read sixteen times
# as many.

# %%
print(f"{len(reads)} batches read for {len(grid)} x {STEPS} steps")
assert len(reads) <= STEPS + 3 * 64

# %% [markdown]
# ## The frontier
#
# What is chosen here is no minimum: less error costs more units. Each line is a learning rate, each point a
# λ; down and to the left is better.

# %%
fig, ax = plt.subplots(figsize=(4.6, 3.2))
lam, lr = (np.asarray(frontier.coords[n]) for n in ("lam", "lr"))
units, share = frontier.mean("active"), frontier.mean("explained")
for rate, colour in zip((1e-3, 4e-3), ("#0072B2", "#E69F00")):
    mine = np.isclose(lr, rate)
    ax.plot(units[mine], 1 - share[mine], "o-", color=colour, ms=4, label=f"learning rate {rate:g}")
for k in np.flatnonzero(np.isclose(lr, 4e-3))[::3]:
    place = {"xytext": (-6, -10), "textcoords": "offset points", "ha": "right"}
    ax.annotate(f"λ = {lam[k]:.2g}", (units[k], 1 - share[k]), **place)
ax.axvline(0.06 * CAUSES, color="#6E6E6E", lw=0.8, ls=":")
ax.set(
    yscale="log",
    xlabel="active units per row (dotted: causes per row)",
    ylabel="variance not explained",
)
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Does it find the directions?
#
# The cosine between each true direction and the unit nearest to it, at the λ whose code is about as sparse
# as the causes are.

# %%
near = min(np.flatnonzero(np.isclose(lr, 4e-3)), key=lambda k: abs(units[k] - 0.06 * CAUSES))


def recovered(params):
    down = np.asarray(params["down"])
    down = down / np.linalg.norm(down, axis=1, keepdims=True)
    return np.abs(directions @ down.T).max(1)


start = init(jax.random.key(1))
fig, ax = plt.subplots(figsize=(4.6, 2.4))
for params, label, colour in (
    (start, "at random", "#6E6E6E"),
    (frontier.lane(near), f"λ = {lam[near]:.2g}", "#0072B2"),
):
    ax.hist(recovered(params), np.linspace(0.4, 1, 31), alpha=0.7, color=colour, label=label)
ax.set(xlabel="|cosine| to the nearest unit", ylabel="true directions")
ax.legend(frameon=False)
plt.show()
assert np.median(recovered(frontier.lane(near))) > np.median(recovered(start)) + 0.1

# %% [markdown]
# ## A table as people have it
#
# Patients with several visits each, a rare outcome, features of very different scale. Folds keep the visits
# of a patient together and are stratified; sizes are unequal, and full batches are no obstacle. The AUC is
# no mean over rows, and knows that larger is better; every fold fits the scaler on its training rows.

# %%
patients = rng.integers(0, 60, 400)
severity = rng.normal(size=60)[patients]
visits = np.stack([severity + rng.normal(size=400), 1e3 + 50 * rng.normal(size=400)], 1)
visits = np.concatenate([visits, rng.normal(size=(400, 18))], 1).astype("float32")
outcome = (severity + 0.8 * rng.normal(size=400) > 1.4).astype("int32")


def predict(w, x):
    return x @ w[:-1] + w[-1]


def logistic(w, x, y):
    return optax.sigmoid_binary_cross_entropy(predict(w, x), y).mean()


def scaled(x, y):
    mean, scale = x.mean(0), x.std(0)
    return lambda x, y: ((x - mean) / scale, y)


def classifier(reg):
    tx = optax.chain(jr.add_penalty_gradient(reg), optax.adam(0.03))
    metrics = {"auc": jr.metrics.roc_auc.of(predict), "brier": jr.metrics.brier.of(predict)}
    return jr.Trainer(lambda key: jnp.zeros(21), logistic, tx, metrics)


folds = jr.folds(400, 5, y=outcome, groups=patients, repeats=4)
print(folds)
chosen = jr.sweep(
    classifier,
    jr.grid(jr.l2, lam=np.geomspace(1e-3, 1, 10)),
    (visits, outcome),
    folds=folds,
    prepare=scaled,
    steps=300,
    evals=5,
    key=jax.random.key(0),
    progress=False,
)
chosen

# %%
chosen.plot(metric="auc")
plt.show()
chosen.best(metric="auc")

# %% [markdown]
# The standard error is that of five folds, averaged over the repeats, and not of twenty: all repeats judge
# on the same 400 rows.

# %%
print(chosen.table().notes[0])
naive = chosen.scores("auc").std((1, 2), ddof=1) / np.sqrt(20)
assert (chosen.stderr("auc") > naive).all()
