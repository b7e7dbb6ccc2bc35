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
# two of them, a GRU that reads digits row by row and one that guesses the next letter of a text. It asks
# the same of each method: with a strength that was chosen honestly, **does it help on data that nothing
# chose by, and by more than chance?**
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
from functools import partial
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
# Eight time steps of eight pixels, ten classes. So that the answer is not one of a lucky draw, there are
# ten experiments: ten disjoint sets of 100 digits to train on, and 797 digits to test with, the same for
# all.

# %%
X, y = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(X))
digits = (X[order] / 16).reshape(-1, 8, 8).astype(np.float32), y[order]
sets, test = np.arange(1000).reshape(10, 100), np.arange(1000, len(X))

# %% [markdown]
# What is swept is a point with one number for each method. All points have the same structure; a method
# that is not meant has a strength of 0, where it changes nothing. So one compiled program trains them all.


# %%
def reader_point(method, strength):
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
# **The choice** is of a strength *and* of when to stop, for the net without any method too: stopping early
# is a regulariser, and free. It is made within the training rows: five of the sets are split into 70 digits
# to train on and 30 to judge by. Folds may be any pairs of rows, so the five splits are five folds.

# %%
strengths = {
    "l2": np.geomspace(1e-3, 3e-2, 4),
    "AR": np.geomspace(0.1, 10, 4),
    "TAR": np.geomspace(0.1, 10, 4),
    "weight drop": [0.1, 0.25, 0.5, 0.75],
    "zoneout": [0.1, 0.2, 0.35, 0.5],
}
pairs = [("none", 0.0)] + [(method, x) for method, values in strengths.items() for x in values]
points = [reader_point(*pair) for pair in pairs]
splits = [(rows[:70], rows[70:]) for rows in sets[:5]]
options = {"steps": 300, "batch_size": 35, "evals": 10, "keep_params": False, "progress": False}
result = jr.sweep(reader, jr.points(points), digits, folds=splits, key=jax.random.key(0), **options)
print(
    f"{len(points)} points, {result.status.size} trainings, {(result.status != 0).sum()} diverged"
)

# %% [markdown]
# Each method becomes a result of its own, whose weakest point is the plain net, with each point at the step
# where its mean is lowest. Rules of choice and plots are then those of any sweep.


# %%
def choose(result, pairs, make):
    """For each method its result; for each and for none the number of the choice; the steps to stop at."""
    curves = result.valid["loss"]  # [points, folds, seeds, times]
    stops = curves.mean((1, 2)).argmin(-1)
    valid, train = (
        c["loss"][np.arange(len(stops)), :, :, stops] for c in (result.valid, result.train)
    )
    results, chosen = {}, {"none": 0}
    for method in dict(pairs[1:]):
        mine = [0] + [k for k, pair in enumerate(pairs) if pair[0] == method]
        grid = jr.grid(partial(make, method), strength=[pairs[k][1] for k in mine])
        results[method] = jr.SweepResult.of(grid, valid[mine], train=train[mine])
        chosen[method] = mine[results[method].best("min").index]
    return results, chosen, stops


results, chosen, stops = choose(result, pairs, reader_point)
figure, axes = plt.subplots(1, 5, figsize=(10, 2.2), sharey=True)
for axis, (method, one) in zip(axes, results.items()):
    one.plot(axis)
    axis.get_legend().remove()
    axis.set(title=method, ylabel="", xlabel="strength" if one.strengths else "rate")
_ = axes[0].set_ylabel("loss")

# %% [markdown]
# Blue is the validation loss: the outer band is its standard error, the inner one that of its difference
# from the best; the black line marks the choice, the orange one that of the rule `paired`. Grey is the
# training loss.
#
# **The comparison.** The choices are trained on all 100 digits of each set and judged on the test digits.
# Each experiment has its own digits and two seeds of its own, of initial weights, batches and noise; within
# it all methods share them. So they are compared in pairs: a difference for each experiment, the mean over
# its seeds, and its standard error over the ten.


# %%
def compare(trainer, experiments, fresh, metrics, seeds):
    """metric -> [experiments, methods], of the choices, each at the step it was chosen to stop at."""
    ks = list(chosen.values())
    grid = jr.points([points[k] for k in ks])
    scores = {metric: [] for metric in metrics}
    for number, training in enumerate(experiments):
        key = jax.random.key(1 + number)
        once = jr.sweep(trainer, grid, training, validation=fresh, seeds=seeds, key=key, **options)
        for metric in metrics:
            scores[metric].append(once.valid[metric][np.arange(len(ks)), 0, :, stops[ks]].mean(1))
    return scores


rows_of = lambda data, rows: tuple(part[rows] for part in data)
experiments = [rows_of(digits, rows) for rows in sets]
scores = compare(reader, experiments, rows_of(digits, test), ["loss", "error"], seeds=2)


# %%
def paired(scores):
    """Differences of [experiments, methods] from the first method: means and standard errors."""
    apart = np.array(scores)[:, 1:] - np.array(scores)[:, :1]
    return apart.mean(0), apart.std(0, ddof=1) / len(apart) ** 0.5


def written(mean, error, digits):
    if error == 0:
        return "the same net"
    word = "lower" if mean < -2 * error else "higher" if mean > 2 * error else "not told apart"
    return f"{mean:+.{digits}f} ± {error:.{digits}f}, {word}"


def table_of(scores, digits):
    """What was chosen, and for each metric the mean and the paired difference from the first method."""
    ks = list(chosen.values())
    table = pd.DataFrame(index=[*chosen])
    table["strength"] = [f"{pairs[k][1]:.2g}" for k in ks]
    table["steps"] = result.time[stops[ks]]
    for metric, some in scores.items():
        table[f"test {metric}"] = np.mean(some, 0).round(digits)
        table[f"{metric} less that of none"] = [""] + [
            written(*d, digits) for d in zip(*paired(some))
        ]
    return table


table = table_of(scores, 3)
table

# %%
BLUE, GREY = "#0072B2", "#777777"


def draw_differences(axis, names, scores, label):
    """Paired differences ± 2 standard errors; blue where they leave 0 outside."""
    for height, (mean, error) in enumerate(zip(*paired(scores))):
        color = BLUE if abs(mean) > 2 * error > 0 else GREY
        axis.errorbar(mean, -height, xerr=2 * error, fmt="o", color=color, capsize=3)
    axis.xaxis.set_major_locator(plt.MaxNLocator(5))
    axis.axvline(0, color="black", lw=0.8)
    axis.set(
        yticks=-np.arange(len(names)), yticklabels=names, ylim=(0.6 - len(names), 0.6), xlabel=label
    )


figure, axes = plt.subplots(1, 2, figsize=(8, 1.9), sharey=True)
for axis, (metric, some) in zip(axes, scores.items()):
    draw_differences(axis, list(chosen)[1:], some, f"test {metric} less that of none, ± 2 SE")

# %% [markdown]
# **Weight drop wins**, on loss and on error, by many standard errors. Zoneout lowers both, too, by less.
# Weight decay lowers the loss and AR the error; what either does to the other figure cannot be told from
# nothing. For TAR the validation digits chose a strength of 0: what they ask for is the last state alone,
# which gains nothing by having changed slowly.
#
# How far to trust this: of ten experiments, 2 SE leave the truth outside in one case of thirteen. The bars
# tell of other training digits and seeds, with the same strengths and the same test digits. l2, AR and
# zoneout were best at the last step, so that longer training might have shown them in a better light.

# %% [markdown]
# ## Text, letter by letter
#
# The text is one that Python brings along, the topics of `help()`, in small letters, with a 0 for each
# digit. (It is another one in another version of Python, and so are the figures.) A row is a window of 32
# letters and the one after. Ten passages of 125 windows are ten experiments again; what follows them is to
# choose by, and what follows that is to test with.

# %%
text = " ".join(topics[name] for name in sorted(topics)).lower()
text = re.sub(r"[^a-z0 .,:;()'\"_=-]+", " ", re.sub(r"\d", "0", text))
text = re.sub(r" +", " ", text)[: 1750 * 32 + 1]
letters = sorted(set(text))
codes = np.array([letters.index(letter) for letter in text], np.int32)
windows = np.lib.stride_tricks.sliding_window_view(codes, 33)[::32]
passages, valid, test = (
    np.arange(1250).reshape(10, 125),
    np.arange(1250, 1500),
    np.arange(1500, 1750),
)
print(f"{len(letters)} different letters; the first window: {text[:33]!r}")

# %% [markdown]
# AR is on the outputs after dropout, TAR on those before it; their ratio is that of Merity and others. The
# perplexity is that of a letter: exp of the mean loss in nats. Each window starts with an empty memory.


# %%
def writer_point(method, strength):
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
# **The choice**, of strength and of when to stop, is made on the validation text, of nets that were trained
# on the first two passages.

# %%
strengths = {
    "AR + TAR": [0.3, 1.0, 3.0, 10.0],
    "weight drop": [0.1, 0.25, 0.5, 0.75],
    "locked dropout": [0.1, 0.25, 0.5, 0.75],
}
pairs = [("none", 0.0)] + [(method, x) for method, values in strengths.items() for x in values]
points = [writer_point(*pair) for pair in pairs]
splits = [(rows, valid) for rows in passages[:2]]
options = {"steps": 120, "batch_size": 16, "evals": 6, "keep_params": False, "progress": False}
result = jr.sweep(
    writer, jr.points(points), (windows,), folds=splits, key=jax.random.key(0), **options
)
_, chosen, stops = choose(result, pairs, writer_point)

figure, axis = plt.subplots(figsize=(5, 2.4))
curves = result.valid["perplexity"].mean((1, 2))  # [points, times]
for (method, k), color in zip(chosen.items(), ["black", "#D55E00", BLUE, "#009E73"]):
    name = method if k == 0 else f"{method}, {pairs[k][1]:g}"
    axis.plot(result.time[1:], curves[k, 1:], color=color, label=name)
    axis.plot(result.time[stops[k]], curves[k, stops[k]], "o", color=color)
axis.set(xlabel="step", ylabel="validation perplexity of a letter")
_ = axis.legend(frameon=False)

# %% [markdown]
# A point marks where each was chosen to stop.
#
# **The comparison**, as before: ten experiments, each with its own passage, initial weights, batches and
# noise.

# %%
experiments = [(windows[rows],) for rows in passages]
scores_of_text = compare(writer, experiments, (windows[test],), ["perplexity"], seeds=1)
table_of_text = table_of(scores_of_text, 2)
table_of_text

# %%
figure, axis = plt.subplots(figsize=(4.5, 1.4))
label = "test perplexity less that of none, ± 2 SE"
draw_differences(axis, list(chosen)[1:], scores_of_text["perplexity"], label)

# %% [markdown]
# **All three win**, by many standard errors, over a plain net that stops early. Both kinds of noise were
# still gaining at the last step. Which of the three is best is another question: it takes their own
# difference, and more than one text.
#
# ## What was claimed

# %%
for few in (scores["loss"], scores["error"]):
    mean, error = paired(few)
    assert mean[list(results).index("weight drop")] == mean.min()
    assert (mean + 2 * error)[list(results).index("weight drop")] < 0
mean, error = paired(scores_of_text["perplexity"])
assert (mean + 2 * error < 0).all()
assert (result.status == jr.Status.FINISHED).all()
