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
# # Recurrent nets
#
# A recurrent net is regularised by its activations and by noise as much as by its weights. This page has
# two of them, a GRU that reads digits row by row and one that writes text letter by letter, and asks of each
# method the same question: with a strength that was chosen honestly, **does it help on what nothing chose
# by, and by how much more than chance?**
#
# | method | what it does |
# |---|---|
# | `jr.l2` | penalises weights: the yardstick |
# | `jr.terms.activity_l2`, AR | penalises large states |
# | `jr.terms.tar`, TAR | penalises states that change fast |
# | `jr.noise.drop_weights`, weight drop | drops recurrent weights, the same ones for a whole sequence |
# | `jr.noise.zoneout` | lets units keep their old state now and then |
# | `jr.noise.drop(..., shared=(1,))`, locked dropout | drops outputs, the same ones for a whole sequence |
#
# Their formulas and sources are in [docs/terms.md](../docs/terms.md).

# %%
import re
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pandas as pd
from jax import lax
from sklearn.datasets import load_digits

import jaxreg as jr

plt.rcParams.update({"font.size": 8, "figure.constrained_layout.use": True})
cross_entropy = optax.softmax_cross_entropy_with_integer_labels

# %% [markdown]
# ## One cell for both
#
# Plain functions of a dict. Zoneout belongs inside the loop over time, with a key for each step; without a
# key it takes the expected state, which is how a net is judged.


# %%
def init_gru(key, inputs, units, outputs):
    a, b, c = jax.random.split(key, 3)
    return {
        "input": {
            "kernel": jax.random.normal(a, (inputs, 3 * units)) / 3,
            "bias": jnp.zeros(3 * units),
        },
        "recurrent": {"kernel": jax.random.normal(b, (units, 3 * units)) / units**0.5},
        "head": {
            "kernel": jax.random.normal(c, (units, outputs)) / units**0.5,
            "bias": jnp.zeros(outputs),
        },
    }


def states(params, inputs, zoneout=0.0, key=None):
    """The states [rows, times, units] of a GRU, of inputs [rows, times, 3 * units]."""
    kernel = params["recurrent"]["kernel"]
    units = len(kernel)

    def step(h, now):
        x, key = now
        (gates, new), (of_gates, of_new) = (jnp.split(z, [2 * units], -1) for z in (x, h @ kernel))
        update, reset = jnp.split(jax.nn.sigmoid(gates + of_gates), 2, -1)
        new = update * h + (1 - update) * jnp.tanh(new + reset * of_new)
        new = jr.noise.zoneout(new, h, zoneout, key)
        return new, new

    keys = None if key is None else jax.random.split(key, inputs.shape[1])
    start = jnp.zeros((len(inputs), units))
    return lax.scan(step, start, (inputs.swapaxes(0, 1), keys))[1].swapaxes(0, 1)


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


# %% [markdown]
# ## Digits, row by row
#
# Eight time steps of eight pixels, ten classes. So that the answer is not one of a lucky draw, there are ten
# experiments: ten disjoint sets of 100 digits to train on, and 797 digits to test with, which all share.

# %%
X, y = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(X))
digits = (X[order] / 16).reshape(-1, 8, 8).astype(np.float32), y[order]
sets, test = np.arange(1000).reshape(10, 100), np.arange(1000, len(X))

# %% [markdown]
# What is swept is a point with one number for each method. All points have the same structure, a method that is
# not meant has a strength of 0, where it changes nothing. So one compiled program trains every method.


# %%
def point(method, strength):
    s = {method: strength}
    return {
        "l2": jr.l2(s.get("l2", 0.0)).on(jr.kernels),
        "AR": jr.terms.activity_l2(s.get("AR", 0.0)),
        "TAR": jr.terms.tar(s.get("TAR", 0.0), axis=1),
        "weight drop": s.get("weight drop", 0.0),
        "zoneout": s.get("zoneout", 0.0),
    }


def reader(p):
    def parts(params, x, y, key=None):
        if key is not None:
            key, of_weights = jax.random.split(key)
            params = jr.noise.drop_weights(
                params, p["weight drop"], of_weights, where="recurrent/kernel"
            )
        h = states(params, dense(params["input"], x), p["zoneout"], key)
        return dense(params["head"], h[:, -1]), {"AR": p["AR"](h), "TAR": p["TAR"](h)}

    def loss(params, x, y, key=None):
        logits, terms = parts(params, x, y, key)
        return cross_entropy(logits, y).mean(), terms

    def error(params, x, y):
        return jnp.mean(jnp.argmax(parts(params, x, y)[0], -1) != y)

    return jr.Trainer(
        lambda key: init_gru(key, 8, 32, 10),
        loss,
        optax.chain(jr.add_penalty_gradient(p["l2"]), optax.adam(5e-3)),
        metrics={"error": error},
        eval_loss=lambda params, x, y: loss(params, x, y),
        stochastic=True,
    )


# %% [markdown]
# **The choice** is made within the training rows: each set is split into 70 digits to train on and 30 to judge
# by. Folds may be any pairs of rows, so the ten splits are ten folds of one sweep. Every grid starts at 0.

# %%
folds = [(rows[:70], rows[70:]) for rows in sets]
strengths = {
    "l2": np.geomspace(1e-3, 3e-2, 4),
    "AR": np.geomspace(0.1, 10, 4),
    "TAR": np.geomspace(0.1, 10, 4),
    "weight drop": [0.1, 0.25, 0.5, 0.75],
    "zoneout": [0.1, 0.2, 0.35, 0.5],
}
options = {"steps": 150, "batch_size": 35, "evals": 1, "progress": False}
chosen = {}
figure, axes = plt.subplots(1, 5, figsize=(10, 2.2), sharey=True)
for axis, (method, values) in zip(axes, strengths.items()):
    grid = jr.grid(lambda strength: point(method, strength), strength=[0.0, *values])
    result = jr.sweep(reader, grid, digits, folds=folds, key=jax.random.key(0), **options)
    chosen[method] = result.best("min")
    result.plot(axis)
    axis.get_legend().remove()
    axis.set(title=method, xlabel="strength" if method in ("l2", "AR", "TAR") else "rate", ylabel="")
_ = axes[0].set_ylabel("loss")

# %% [markdown]
# Blue is the validation loss: the outer band is its standard error, the inner one that of its difference from
# the best; the black line marks the choice, the orange one the strongest that the folds cannot tell from it.
# Grey is the training loss. Without any method the net knows its 70 digits by heart.
#
# **The comparison.** The five choices and the net without any of it are trained on all 100 digits of each
# set, with two seeds each, and judged on the test digits. All of them start from the same weights and see the
# same batches, so they are compared in pairs: a difference for each set, and its standard error over the ten.

# %%
six = jr.points([point("none", 0.0)] + [choice.point for choice in chosen.values()])
folds = [(rows, test) for rows in sets]
final = jr.sweep(reader, six, digits, folds=folds, seeds=2, key=jax.random.key(1), **options)


def paired(scores):
    """Differences of [methods, experiments] from the first method: means and standard errors."""
    apart = scores[1:] - scores[0]
    return apart.mean(1), apart.std(1, ddof=1) / apart.shape[1] ** 0.5


def written(mean, error, digits):
    if error == 0:
        return "the same net"
    word = "lower" if mean < -2 * error else "higher" if mean > 2 * error else "not told apart"
    return f"{mean:+.{digits}f} ± {error:.{digits}f}, {word}"


strength = [choice.coords["strength"] for choice in chosen.values()]
by_metric = {m: final.scores(m).mean(-1) for m in ("loss", "error")}
table = pd.DataFrame({"strength": np.round([0, *strength], 4)}, index=["none", *chosen])
for metric, scores in by_metric.items():
    table[f"test {metric}"] = scores.mean(1).round(3)
    table[f"{metric} less that of none"] = [""] + [written(*d, 3) for d in zip(*paired(scores))]
table

# %%
BLUE, GREY = "#0072B2", "#777777"


def draw_differences(axis, names, scores, label):
    """Paired differences ± 2 standard errors; blue where they leave 0 outside."""
    for height, (name, mean, error) in enumerate(zip(names, *paired(scores))):
        color = BLUE if abs(mean) > 2 * error > 0 else GREY
        axis.errorbar(mean, -height, xerr=2 * error, fmt="o", color=color, capsize=3)
    axis.axvline(0, color="black", lw=0.8)
    axis.set(yticks=-np.arange(len(names)), yticklabels=names, ylim=(0.6 - len(names), 0.6), xlabel=label)


figure, axes = plt.subplots(1, 2, figsize=(8, 1.9), sharey=True)
for axis, (metric, scores) in zip(axes, by_metric.items()):
    draw_differences(axis, list(chosen), scores, f"test {metric} less that of none, ± 2 SE")

# %% [markdown]
# TODO

# %% [markdown]
# ## Text, letter by letter
#
# The text is one that Python brings along, the topics of `help()`, in small letters, with a 0 for each digit.
# (It grows with Python's versions, and so do the figures below.) A row is a window of 32 letters and the one
# after. Ten passages of 125 windows are ten experiments again; what follows them is to choose by, and what
# follows that is to test with.

# %%
text = " ".join(topics[name] for name in sorted(topics)).lower()
text = re.sub(r"[^a-z0 .,:;()'\"_=-]+", " ", re.sub(r"\d", "0", text))
text = re.sub(r" +", " ", text)[: 1750 * 32 + 1]
letters = sorted(set(text))
codes = np.array([letters.index(letter) for letter in text], np.int32)
windows = np.lib.stride_tricks.sliding_window_view(codes, 33)[::32]
passages, valid, test = np.arange(1250).reshape(10, 125), np.arange(1250, 1500), np.arange(1500, 1750)
print(f"{len(letters)} different letters; the first window: {text[:33]!r}")

# %% [markdown]
# AR is on the outputs after dropout, TAR on those before it; their ratio is that of Merity and others. The
# perplexity is that of a letter: exp of the mean loss in nats. Each window starts with an empty memory.


# %%
def point(method, strength):
    s = {method: strength}
    return {
        "AR": jr.terms.activity_l2(2 * s.get("AR + TAR", 0.0)),
        "TAR": jr.terms.tar(s.get("AR + TAR", 0.0), axis=1),
        "weight drop": s.get("weight drop", 0.0),
        "locked dropout": s.get("locked dropout", 0.0),
    }


def writer(p):
    def loss(params, w, key=None):
        if key is not None:
            of_weights, of_outputs = jax.random.split(key)
            params = jr.noise.drop_weights(
                params, p["weight drop"], of_weights, where="recurrent/kernel"
            )
        layer = params["input"]
        h = out = states(params, layer["kernel"][w[:, :-1]] + layer["bias"])
        if key is not None:
            out = jr.noise.drop(h, p["locked dropout"], of_outputs, shared=(1,))
        data = cross_entropy(dense(params["head"], out), w[:, 1:]).mean()
        return data, {"AR": p["AR"](out), "TAR": p["TAR"](h)}

    return jr.Trainer(
        lambda key: init_gru(key, len(letters), 64, len(letters)),
        loss,
        optax.adam(1e-2),
        metrics={"perplexity": lambda params, w: jnp.exp(loss(params, w)[0])},
        eval_loss=lambda params, w: loss(params, w),
        stochastic=True,
    )


# %% [markdown]
# **The choice** is of a strength *and* of when to stop, for each method and for the net without any: stopping
# early is a regulariser, too, and free. It is made on the validation text, of nets that were trained on the
# first two passages. All methods are one sweep.

# %%
strengths = {
    "none": [0.0],
    "AR + TAR": [0.3, 1.0, 3.0, 10.0],
    "weight drop": [0.1, 0.25, 0.5, 0.75],
    "locked dropout": [0.1, 0.25, 0.5, 0.75],
}
pairs = [(method, value) for method, values in strengths.items() for value in values]
grid = jr.points([point(*pair) for pair in pairs])
options = {"steps": 120, "batch_size": 16, "evals": 6, "keep_params": False, "progress": False}
result = jr.sweep(
    writer,
    grid,
    (windows,),
    folds=[(rows, valid) for rows in passages[:2]],
    key=jax.random.key(2),
    **options,
)
curves = result.valid["perplexity"].mean((1, 2))  # [points, times]

chosen = {}
for method in strengths:
    mine = [k for k, pair in enumerate(pairs) if pair[0] == method]
    k, t = np.unravel_index(curves[mine].argmin(), curves[mine].shape)
    chosen[method] = mine[k], t
figure, axis = plt.subplots(figsize=(5, 2.4))
for (method, (k, t)), color in zip(chosen.items(), ["black", "#D55E00", BLUE, "#009E73"]):
    name = method if method == "none" else f"{method}, {pairs[k][1]:g}"
    axis.plot(result.time[1:], curves[k, 1:], color=color, label=name)
    axis.plot(result.time[t], curves[k, t], "o", color=color)
axis.set(xlabel="step", ylabel="validation perplexity of a letter")
_ = axis.legend(frameon=False)

# %% [markdown]
# **The comparison.** Ten experiments, each with its own passage, initial weights, batches and noise. The
# program is compiled once.

# %%
grid = jr.points([point(*pairs[k]) for k, _ in chosen.values()])
stops = [t for _, t in chosen.values()]
scores = []
for number, rows in enumerate(passages):
    once = jr.sweep(
        writer, grid, (windows[rows],), validation=(windows[test],), key=jax.random.key(number), **options
    )
    scores.append(once.valid["perplexity"][np.arange(len(stops)), 0, 0, stops])
scores = np.array(scores).T  # [methods, experiments]
table_of_text = pd.DataFrame({
    "strength": [pairs[k][1] for k, _ in chosen.values()],
    "steps": result.time[stops],
    "test perplexity": scores.mean(1).round(2),
    "less that of none": [""] + [written(*d, 2) for d in zip(*paired(scores))],
}, index=[*chosen])  # fmt: skip
table_of_text

# %%
figure, axis = plt.subplots(figsize=(4.5, 1.4))
draw_differences(axis, list(chosen)[1:], scores, "test perplexity less that of none, ± 2 SE")
