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
# # Choosing λ
#
# One data set, every method: what each of them picks, what that costs, and how it does on rows that nothing
# chose by. 150 patients to choose with, 292 to test; ten measurements and all their products make 65
# columns, of which a lasso will keep a few.
#
# The formulas and the figures over many data sets are in [docs/choosing.md](../docs/choosing.md).

# %%
import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pandas as pd
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import PolynomialFeatures

import jaxreg as jr

plt.rcParams.update({"font.size": 8, "figure.constrained_layout.use": True})

X, y = load_diabetes(return_X_y=True, as_frame=True)
made = PolynomialFeatures(2, include_bias=False).fit(X)
names = [n.replace(" ", "·") for n in made.get_feature_names_out()]
X, y = made.transform(X), y.to_numpy()
rows = np.random.default_rng(1).permutation(len(X))
train, test = rows[:150], rows[150:]
# Scaled by the rows to choose with, as a model in use would be.
X = ((X - X[train].mean(0)) / X[train].std(0)).astype(np.float32)
y = ((y - y[train].mean()) / y[train].std()).astype(np.float32)
data, fresh = (X[train], y[train]), (X[test], y[test])


# %%
def loss(params, x, y):
    return 0.5 * jnp.mean((x @ params["kernel"] + params["bias"] - y) ** 2)


def init(key):
    return {"kernel": jnp.zeros(X.shape[1]), "bias": jnp.zeros(())}


def trainer(reg):
    return jr.Trainer(init, loss, jr.proximal(optax.trace(0.9), reg, 0.01))


def lasso(lam):
    return jr.l1(lam).on(jr.kernels)


options = {"folds": 5, "steps": 800, "evals": 1, "progress": False, "key": jax.random.key(0)}
grid = jr.grid(lasso, lam=np.geomspace(3e-3, 0.5, 24))
result = jr.sweep(trainer, grid, data, **options)
_ = result.plot()
# %% [markdown]
# The outer band is the standard error of each score, the inner one that of its *difference from the best*.
# All λ were judged on the same folds, so differences are known far better than levels.
#
# ## The rules
#
# Each is one call, and tells why it took what it took.

# %%
rules = ("min", "parabola", "percent", "paired", "nadeau-bengio", "1se")
choices = {rule: result.best(rule) for rule in rules}
print(choices["parabola"])
print(choices["paired"])

# %% [markdown]
# ## A search
#
# Twelve points around the best one, in place of 24 spread over the range. It is begun too low on purpose.

# %%
found = jr.search(trainer, jr.space(lasso, lam=(1e-4, 1e-2)), data, **options)
choices["search"] = found.choice
print(found)

# %% [markdown]
# ## A path
#
# Each λ goes on from where the weaker one ended: 24 λ for the price of six.

# %%
path_options = {n: v for n, v in options.items() if n not in ("evals", "progress")}
walked = jr.continuation(trainer, grid, data, then=200, **path_options)
choices["continuation"] = dataclasses.replace(walked.best(), rule="continuation")
print(choices["continuation"])

# %% [markdown]
# ## Without folds
#
# Trained once on all rows, a lasso can be judged by how many columns it uses, and by a formula for what
# each row would lose, were it left out. The test rows are only looked at here: none of these does.

# %%
whole = jr.sweep(trainer, grid, data, validation=fresh, **{**options, "folds": None, "steps": 4000})
outputs = lambda params, x: x @ params["kernel"] + params["bias"]
criteria = jr.criteria(outputs, whole, data)
for by in ("aic", "bic", "ebic"):
    choices[by] = criteria.best(by)
choices["leave-one-out"] = dataclasses.replace(
    jr.leave_one_out(outputs, whole, data).best(), rule="leave-one-out"
)
print(choices["bic"])
print(choices["leave-one-out"])

# %% [markdown]
# ## What each is worth
#
# `refit` trains every choice on all 150 rows, beside the model without penalty, and tests it.

# %%
refitted = jr.refit(
    trainer,
    result,
    data,
    rule=list(choices.values()),
    test=fresh,
    seeds=1,
    key=jax.random.key(1),
    progress=False,
)
table = []
for name in refitted.names:
    kernel = np.asarray(refitted.params(name)["kernel"])
    choice = choices.get(name.removeprefix("chosen by "))
    table.append({
        "method": name.removeprefix("chosen by "),
        "λ": 0.0 if choice is None else choice.coords["lam"],
        "columns": int((kernel != 0).sum()),
        "lane-steps to choose": 0 if choice is None else choice.lane_steps,
        "test loss": refitted.scores(name)["loss"][0],
    })  # fmt: skip

# %% [markdown]
# ## Ridge, without training
#
# A linear model under the squared loss needs no folds: one eigendecomposition judges every λ.

# %%
path = jr.ridge_path(data)
print(path)
for by in ("loo", "gcv", "aic", "bic", "evidence"):
    choice = path.best(by)
    kernel, bias = path.coef(choice.coords["lam"])
    params = {"kernel": jnp.asarray(kernel[:, 0]), "bias": bias[0]}
    table.append({
        "method": f"ridge, {by}", "λ": choice.coords["lam"], "columns": X.shape[1],
        "lane-steps to choose": 0, "test loss": float(loss(params, *fresh)),
    })  # fmt: skip
kinds = np.where(["·" in n or "^" in n for n in names], "product", "measured")
of_groups = jr.ridge_groups(data, kinds)
kernel, bias = of_groups.coef()
table.append({
    "method": "ridge, two λ", "λ": np.nan, "columns": X.shape[1], "lane-steps to choose": 0,
    "test loss": float(loss({"kernel": jnp.asarray(kernel[:, 0]), "bias": bias[0]}, *fresh)),
})  # fmt: skip
print(of_groups)
pd.DataFrame(table).set_index("method").round({"λ": 4, "test loss": 4})

# %% [markdown]
# Choosing at all is what pays: every choice has two thirds of the loss of no penalty. Which rule it is
# hardly shows on a single data set. Here the folds tell the best λ from its neighbours so well that
# `paired` keeps it, and `1se`, which goes three steps further, drops half of the columns and happens to
# lose nothing. Over many data sets it does lose, two to eight times as much as `paired`: the table in
# [docs/choosing.md](../docs/choosing.md) has the means. Two λ of ridge, which folds call a gain, are none
# on these test rows, where products tell something after all.

# %% [markdown]
# ## What error to expect
#
# The folds' mean and its error are free, and often too sure of themselves. Nested cross-validation trains
# what an honest interval needs; here it finds little to add.

# %%
free = result.expected_error("min")
nested = jr.expected_error(
    trainer, result, data, rule="min", folds=8, repeats=4, key=jax.random.key(2), progress=False
)
print(nested)
truth = next(row["test loss"] for row in table if row["method"] == "min")

figure, ax = plt.subplots(figsize=(5, 1.4))
for height, estimate in enumerate((nested, free)):
    low, high = estimate.interval(0.9)
    ax.plot([low, high], [height, height], lw=5, solid_capstyle="butt", color="#0072B2", alpha=0.5)
    ax.plot(estimate.mean, height, "o", color="#0072B2")
ax.axvline(truth, color="black", ls="--", label="loss on the 292 test rows")
ax.set(
    yticks=[0, 1],
    yticklabels=["nested", "folds alone"],
    ylim=(-0.6, 1.6),
    xlabel="loss, 90 % intervals",
)
_ = ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.35), frameon=False)
# %% [markdown]
# ## Which columns
#
# A λ that predicts well lets noise in. On complementary halves of the rows, what is selected again and
# again is kept, with a bound on how many of it are false.

# %%
stable = jr.stability(
    trainer,
    jr.grid(lasso, lam=np.geomspace(0.08, 0.5, 8)),
    data,
    steps=500,
    pairs=25,
    key=jax.random.key(3),
    progress=False,
)
kept = np.flatnonzero(stable.selected()["kernel"])
print([names[j] for j in kept], f"at most {stable.bound():.2g} false")
_ = stable.plot(plt.subplots(figsize=(5, 3))[1])
# %%
worst = max(row["test loss"] for row in table)
by_rule = {row["method"]: row["test loss"] for row in table}
assert by_rule["no penalty"] == worst
assert all(value < 0.8 * worst for name, value in by_rule.items() if name != "no penalty")
assert nested.interval()[0] < truth < nested.interval()[1]
assert abs(found.choice.mean / choices["min"].mean - 1) < 0.01
assert set(kept) <= set(range(X.shape[1]))
