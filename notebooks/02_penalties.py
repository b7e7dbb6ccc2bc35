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
# # The penalties, seen
#
# A penalty $R$ can be looked at in three ways.
#
# - Its **value**: which parameters are dear, and which cheap.
# - Its **prox**, $\arg\min_z R(z) + \|z - x\|^2 / (2\,\text{step})$: where one step takes a point.
# - Its **effect** on a fit.
#
# This page does so for each family, and ends with a penalty of your own. The list with formulas, sources
# and costs is [docs/penalties.md](../docs/penalties.md).

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxreg as jr
from jaxreg.testing import check_penalty

plt.rcParams.update({"font.size": 8, "figure.constrained_layout.use": True})
rng = np.random.default_rng(0)

# %% [markdown]
# ## One number: value and prox
#
# Read the blue line as "what comes in, what goes out", with the grey diagonal as "nothing happens".
#
# - Flat at 0: small entries become **exactly** 0.
# - Nearer to 0 than the diagonal far out: large entries lose something too, the **bias**.
# - A jump: an entry is either 0 or large, nothing in between.

# %%
one_number = {
    "l2": jr.l2(1.0),
    "l1": jr.l1(1.0),
    "elastic_net": jr.elastic_net(1.0),
    "huber": jr.huber(1.0, 0.5),
    "mcp": jr.mcp(1.0, 2.0),
    "scad": jr.scad(1.0, 3.0),
    "l_half": jr.l_half(1.0),
    "l0": jr.l0(1.0),
}
x = jnp.linspace(-3, 3, 601)

figure, axes = plt.subplots(2, 4, figsize=(9, 4.6), sharex=True, sharey=True)
for axis, (name, reg) in zip(axes.flat, one_number.items()):
    moved = reg.prox(x, 1.0)
    jumps = jnp.abs(jnp.diff(moved, append=moved[-1])) > 0.1
    axis.plot(x, x, color="0.8", lw=0.8)
    axis.plot(x, jax.vmap(reg)(x), color="C1", label="value")
    axis.plot(x, jnp.where(jumps, jnp.nan, moved), color="C0", lw=2, label="prox, step 1")
    axis.set(title=name, ylim=(-3, 3))
axes[0, 0].legend(frameon=False)

# %% [markdown]
# `l2` has no flat piece: it never makes a zero. `l1` does, and takes 1 off everything else. `mcp` and
# `scad` make the same zeros and give large entries back untouched.

# %%
assert jnp.sum(jr.l2(1.0).prox(x, 1.0) == 0) <= 1  # 0 itself, if it is among the points
assert jnp.allclose(jr.l1(1.0).prox(jnp.array([0.9, 3.0]), 1.0), jnp.array([0.0, 2.0]))
assert jnp.allclose(jr.mcp(1.0, 2.0).prox(jnp.array([0.9, 3.0]), 1.0), jnp.array([0.0, 3.0]))

# %% [markdown]
# ## Two numbers: unit balls
#
# Each line joins points where $R$ is the same. A loss usually first touches such a shape at a corner.
# Corners on the axes give zeros. Corners on the diagonals make entries **equal** in size.

# %%
two_numbers = {
    "l2": jr.l2(1.0),
    "l1": jr.l1(1.0),
    "linf": jr.linf(1.0),
    "slope": jr.slope(1.0, weights=jnp.array([1.0, 0.4])),
    "elastic_net": jr.elastic_net(1.0),
    "sparse_group_lasso": jr.sparse_group_lasso(1.0, 0.5, sqrt_size=False),
    "mcp": jr.mcp(1.0, 2.0),
    "l_half": jr.l_half(1.0),
}
line = jnp.linspace(-1.6, 1.6, 201)
points = jnp.stack(jnp.meshgrid(line, line), -1)

figure, axes = plt.subplots(2, 4, figsize=(9, 4.8), sharex=True, sharey=True)
for axis, (name, reg) in zip(axes.flat, two_numbers.items()):
    value = jax.vmap(jax.vmap(reg))(points)
    axis.contour(line, line, value, levels=(0.4, 0.8, 1.2), colors="C1", linewidths=(0.8, 2, 0.8))
    axis.axhline(0, color="0.88", lw=0.6, zorder=0)
    axis.axvline(0, color="0.88", lw=0.6, zorder=0)
    axis.set(title=name, aspect="equal")

# %% [markdown]
# `l1` is pointed on the axes, `linf` on the diagonals, `slope` on both. `sparse_group_lasso` is pointed
# like `l1` and round in between. The last two bend inwards: they are not convex.
#
# ## The effect: a sparse regression
#
# 200 inputs, 80 examples, 8 inputs matter. We solve each problem with an accelerated proximal gradient
# method. λ is chosen by the loss on a second set of 80 examples; every path is one compiled program.


# %%
def regression(truth, noise=0.5, n=80):
    """Training and validation data of a linear model."""
    draws = rng.normal(size=(2, n, len(truth)))
    X = jnp.asarray(draws, jnp.float32)
    return [(x, x @ truth + noise * jnp.asarray(rng.normal(size=n), jnp.float32)) for x in X]


def loss(theta, X, y):
    return 0.5 * jnp.mean((X @ theta - y) ** 2)


def fitted(penalty, data, start=None, steps=600):
    """FISTA: argmin loss + penalty."""
    X, y = data
    step = 1 / jnp.linalg.norm(X, 2) ** 2 * len(y)
    theta = jnp.zeros(X.shape[1]) if start is None else start

    def update(carry, k):
        theta, ahead = carry
        new = penalty.prox(ahead - step * jax.grad(loss)(ahead, X, y), step)
        return (new, new + k / (k + 3) * (new - theta)), None

    return jax.lax.scan(update, (theta, theta), jnp.arange(float(steps)))[0][0]


def chosen(build, data, validation, lams, start=None):
    """The fit whose λ does best on the validation data."""
    fits = jr.map_grid(fitted, jr.grid(build, lam=lams), data, start)
    losses = jax.vmap(lambda theta: loss(theta, *validation))(fits)
    return fits[jnp.argmin(losses)]


# %%
truth = np.zeros(200, np.float32)
where = rng.choice(200, 8, replace=False)
truth[where] = rng.choice([-1, 1], 8) * rng.uniform(1, 3, 8)
data, validation = regression(truth)

lams = jnp.logspace(-2, 0.3, 24)
lasso = chosen(jr.l1, data, validation, lams)
sparse_fits = {
    "l2": chosen(jr.l2, data, validation, lams),
    "l1": lasso,
    # gamma is larger than the step, and the lasso is where to start.
    "mcp": chosen(lambda lam: jr.mcp(lam, 3.0), data, validation, lams, lasso),
    "l1, adaptive weights": chosen(
        lambda lam: jr.l1(lam, weights=jr.penalties.adaptive_weights(lasso, epsilon=0.1)),
        data,
        validation,
        lams,
    ),
}

# %%
figure, axes = plt.subplots(1, 4, figsize=(9, 2.4), sharey=True)
for axis, (name, theta) in zip(axes, sparse_fits.items()):
    axis.vlines(jnp.arange(200), 0, theta, color="C0", lw=1.2)
    axis.plot(where, truth[where], "o", mfc="none", color="k", ms=5, mew=0.8)
    axis.set(title=f"{name}: {int((theta != 0).sum())} nonzeros", xticks=())
axes[0].set_ylabel("coefficient")


def error(theta, truth):
    return float(jnp.linalg.norm(theta - truth) / jnp.linalg.norm(truth))


errors = {name: error(theta, truth) for name, theta in sparse_fits.items()}
for name, value in errors.items():
    print(f"{name:22s} relative error {value:.3f}, nonzeros {int((sparse_fits[name] != 0).sum())}")

# %% [markdown]
# Circles are the truth. `l2` spreads the signal over all 200 inputs. `l1` finds the eight, shrinks them,
# and keeps dozens of others: the λ that predicts best is a compromise between bias and selection. `mcp`
# and the adaptive lasso penalize large entries less, and need far less of a compromise.

# %%
assert errors["mcp"] < errors["l1"] < errors["l2"]
assert errors["l1, adaptive weights"] < errors["l1"]
assert (sparse_fits["l2"] != 0).all()
assert all((sparse_fits["mcp"] != 0)[i] for i in where)

# %% [markdown]
# ## Groups
#
# One prox step on the same matrix. Each row is a group; a point marks an exact zero.

# %%
matrix = jnp.array([[2.6, 1.8, -2.2], [1.6, -0.3, 0.5], [0.6, -0.9, 0.4], [-0.5, 0.2, -2.0]])
grouped = {
    "before": jr.l1(0.0),
    "l1": jr.l1(0.7),
    "group_lasso": jr.group_lasso(0.9, axis=0),
    "sparse_group_lasso": jr.sparse_group_lasso(0.8, 0.6, axis=0),
    "l1_linf": jr.l1_linf(1.4, axis=0),
    "exclusive_lasso": jr.exclusive_lasso(0.9, axis=0),
}

figure, axes = plt.subplots(1, 6, figsize=(9, 1.9))
for axis, (name, reg) in zip(axes, grouped.items()):
    after = reg.prox(matrix, 1.0)
    axis.imshow(after, cmap="RdBu_r", vmin=-3, vmax=3)
    axis.plot(*np.argwhere(np.asarray(after) == 0).T[::-1], ".", color="0.3", ms=4)
    axis.set(title=name, xticks=(), yticks=())

# %% [markdown]
# `group_lasso` clears a whole row. `sparse_group_lasso` clears rows and entries. `l1_linf` levels the
# largest entries of a row. `exclusive_lasso` is the reverse of the first: entries of a row compete, and
# every row keeps a winner.
#
# And a fit: 40 groups of 5 inputs, of which 4 groups matter.

# %%
group = np.repeat(np.arange(40), 5)
alive = rng.choice(40, 4, replace=False)
truth_g = np.where(np.isin(group, alive), rng.normal(size=200), 0).astype(np.float32)
data, validation = regression(truth_g)
group_fits = {
    "l1": chosen(jr.l1, data, validation, lams),
    "group_lasso": chosen(
        lambda lam: jr.group_lasso(lam, groups=group), data, validation, lams / 2
    ),
}

figure, axes = plt.subplots(1, 2, figsize=(9, 2.3), sharey=True)
group_errors = {}
for axis, (name, theta) in zip(axes, group_fits.items()):
    group_errors[name] = error(theta, truth_g)
    for g in alive:
        axis.axvspan(5 * g - 0.5, 5 * g + 4.5, color="C1", alpha=0.25, lw=0)
    axis.plot(np.flatnonzero(truth_g), truth_g[truth_g != 0], "_", color="k", ms=4)
    axis.vlines(np.arange(200), 0, theta, color="C0", lw=1.4)
    axis.set(title=f"{name}: relative error {group_errors[name]:.2f}", xlabel="input")
axes[0].set_ylabel("coefficient")

# %%
norms = jnp.linalg.norm(group_fits["group_lasso"].reshape(40, 5), axis=1)
print("groups kept:", int((norms > 0).sum()), "of 40; the true ones among them:", norms[alive] > 0)
assert (norms[alive] > 0).all()
assert group_errors["group_lasso"] < group_errors["l1"]

# %% [markdown]
# ## Neighbours
#
# Here the order of the entries counts. Penalties on differences turn noise into pieces: flat ones, flat
# ones of which most are 0, or straight ones.

# %%
t = np.arange(120)
flat = np.where((t > 30) & (t < 55), 2.0, 0.0)
bent = np.interp(t, [0, 40, 80, 119], [-1, 2, 0.5, 1.5])
smoothers = {
    "total_variation": (flat, jr.total_variation(1.5)),
    "fused_lasso": (flat, jr.fused_lasso(1.7, 0.1)),
    "trend_filter": (bent, jr.trend_filter(10.0)),
}

figure, axes = plt.subplots(1, 3, figsize=(9, 2.2))
for axis, (name, (signal, reg)) in zip(axes, smoothers.items()):
    before = jnp.asarray(signal + 0.35 * rng.normal(size=120), jnp.float32)
    after = reg.prox(before, 1.0)
    axis.plot(t, before, ".", color="0.7", ms=4)
    axis.plot(t, signal, color="k", lw=0.8, ls="--")
    axis.plot(t, after, color="C0", lw=1.8)
    axis.set(title=f"{name}: error {error(before, signal):.2f} → {error(after, signal):.2f}")
    assert error(after, signal) < error(before, signal) / 2

# %% [markdown]
# ## Matrices: the same curves, on singular values
#
# A 30 x 20 matrix of rank 3 is seen through noise. One prox step cleans it.

# %%
low = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 20))
noisy = jnp.asarray(low + 0.5 * rng.normal(size=low.shape), jnp.float32)
on_matrices = {
    "nuclear": jr.nuclear(5.0),
    "log_det": jr.log_det(25.0, 5.0),
    "low_rank": jr.low_rank(3),
    "spectral_ball": jr.spectral_ball(10.0),
}

figure, axes = plt.subplots(1, 4, figsize=(9, 2.3), sharey=True)
matrix_errors = {"nothing": error(noisy, low)}
for axis, (name, reg) in zip(axes, on_matrices.items()):
    clean = reg.prox(noisy, 1.0)
    matrix_errors[name] = error(clean, low)
    values = jnp.linalg.svd(clean, compute_uv=False)
    axis.bar(range(20), jnp.linalg.svd(noisy, compute_uv=False), color="0.85", label="before")
    axis.bar(range(20), jnp.where(values > 1e-4, values, 0), width=0.5, label="after")
    axis.set(title=f"{name}: error {matrix_errors[name]:.2f}", xticks=())
axes[0].set_ylabel("singular values")
axes[0].legend(frameon=False)
print({name: round(value, 3) for name, value in matrix_errors.items()})

# %% [markdown]
# `nuclear` is `l1` on singular values: the noise goes, and the signal is shrunk. `log_det` has less bias,
# and `low_rank` none, if you know the rank. `spectral_ball` only bounds the gain; it is no denoiser.

# %%
assert matrix_errors["low_rank"] < matrix_errors["nuclear"] < matrix_errors["nothing"]
assert matrix_errors["log_det"] < matrix_errors["nuclear"]

# %% [markdown]
# ## Constraints: the prox is a projection
#
# The set in orange; arrows show where points outside of it go.

# %%
sets = {
    "box": jr.box(-0.5, 1.0),
    "l1_ball": jr.l1_ball(1.0),
    "l2_ball": jr.l2_ball(1.0),
    "simplex": jr.simplex(),
    "unit_norm": jr.unit_norm(axis=None),
    "cardinality": jr.cardinality(1),
}
angles = np.linspace(0, 2 * np.pi, 12, endpoint=False) + 0.2
ring = 1.5 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], -1)

figure, axes = plt.subplots(1, 6, figsize=(9, 1.8))
for axis, (name, reg) in zip(axes, sets.items()):
    project = jax.vmap(lambda v, reg=reg: reg.prox(v, 1.0))
    away = jnp.linalg.norm(points - jax.vmap(project)(points), axis=-1)
    axis.contourf(line, line, away, levels=(-1, 0.03), colors="C1", alpha=0.6)
    move = project(ring) - ring
    axis.quiver(*ring.T, *move.T, angles="xy", scale_units="xy", scale=1, color="C0", width=0.01)
    axis.set(title=name, xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), xticks=(), yticks=(), aspect="equal")
    again = project(project(ring))
    assert jnp.allclose(again, project(ring), atol=1e-6)  # projecting twice is projecting once

# %% [markdown]
# ## Every penalty, three pictures each
#
# On two numbers $(a, b)$:
#
# 1. **level sets** of the value, or the set, for a constraint;
# 2. **prox** of $(a, 0.8)$ at step 1: solid is what becomes of $a$, dashed what becomes of $b = 0.8$;
#
# and on a toy problem, 12 coefficients from 16 noisy examples:
#
# 3. **effect**: the least-squares fit in grey, the penalized one in blue, the truth as black dashes.
#
# The truth is 2, 0, -1 and 0, each three times over: sparse, in groups of three, flat in pieces, and as a
# 4 × 3 matrix of rank 1. So every family finds something that it can use.


# %%
def flat(params):
    """Parameters as one vector."""
    parts = [params[k] for k in ("skip", "layer")] if isinstance(params, dict) else [params]
    return jnp.concatenate([jnp.ravel(part) for part in parts])


def net(first, n):
    """Skip weights of n features, and the rest of the numbers as their first layer."""
    return {"skip": first[:n], "layer": first[n:].reshape(n, -1)}


# How two numbers, and the twelve coefficients, become parameters, and these coefficients again.
AS = {
    "vector": (lambda p: p, lambda v: v, flat),
    "rows": (lambda p: p[None], lambda v: v.reshape(4, 3), flat),  # a row is a group
    "units": (lambda p: p[:, None], lambda v: v.reshape(4, 3).T, lambda w: flat(w.T)),
    "matrix": (jnp.diag, lambda v: v.reshape(4, 3), flat),  # a, b are its singular values
    "ends": (lambda p: jnp.array([p[0], 0, p[1]]), lambda v: v, flat),  # of three numbers
    "net": (lambda p: net(p, 1), lambda v: net(v, 4), flat),
}

truth_t = jnp.repeat(jnp.array([2.0, 0.0, -1.0, 0.0]), 3)
X_t, y_t = regression(truth_t, noise=1.0, n=16)[0]
plain = jnp.linalg.lstsq(X_t, y_t)[0]


def effect(reg, params, model, steps=300):
    """Proximal gradient from the least-squares fit."""
    step = 0.4 / jnp.linalg.norm(X_t, 2) ** 2 * len(y_t)

    def update(params, _):
        grads = jax.grad(lambda p: loss(model(p), X_t, y_t))(params)
        return reg.prox(jax.tree.map(lambda p, g: p - step * g, params, grads), step), None

    return model(jax.lax.scan(update, params, None, steps)[0])


grid_line = jnp.arange(-40, 41) / 25
grid_points = jnp.stack(jnp.meshgrid(grid_line, grid_line), -1)


def draw_sets(axis, value, moved):
    """Level sets of the value; where it is 0 or infinite, the set that projections end in."""
    values = jax.jit(jax.vmap(jax.vmap(value)))(grid_points)
    if jnp.isinf(values).any() and not jnp.any(jnp.isfinite(values) & (values > 0)):
        nearest = jax.jit(jax.vmap(jax.vmap(moved)))(grid_points)
        away = jnp.linalg.norm(grid_points - nearest, axis=-1)
        axis.contourf(grid_line, grid_line, away, levels=(-1, 0.04), colors="C1", alpha=0.6)
    else:
        finite = jnp.where(jnp.isinf(values), jnp.nan, values)
        style = {"levels": (0.4, 0.8, 1.2), "colors": "C1", "linewidths": (0.7, 1.5, 0.7)}
        axis.contour(grid_line, grid_line, finite, **style)


def draw_prox(axis, moved):
    """What becomes of (a, 0.8)."""
    x = jnp.linspace(-3, 3, 121)
    out = jax.jit(jax.vmap(moved))(jnp.stack([x, jnp.full_like(x, 0.8)], -1))
    out = jnp.where(jnp.abs(jnp.diff(out, axis=0, append=out[-1:])) > 0.2, jnp.nan, out)
    axis.plot(x, x, color="0.8", lw=0.8)
    axis.plot(x, out[:, 1], color="C0", lw=1, ls="--")
    axis.plot(x, out[:, 0], color="C0", lw=1.8)


def draw_effect(axis, theta, view):
    """Coefficients before and after, or what `view` makes of them."""
    before, after, true = view(plain), view(theta), view(truth_t)
    at = jnp.arange(len(before))
    axis.bar(at, before, color="0.85")
    axis.bar(at, after, width=0.5, color="C0")
    axis.plot(at, true, "_", color="k", ms=5)


def gallery(family):
    """Three rows of pictures for penalties given as name: (penalty, form, how strong in the fit)."""
    _, axes = plt.subplots(3, len(family), figsize=(1.25 * len(family), 3.9), squeeze=False)
    for column, (name, (reg, form, strength)) in zip(axes.T, family.items()):
        small, large, model = AS[form]
        on_two, on_twelve = reg if isinstance(reg, tuple) else (reg, reg)
        value = lambda p, reg=on_two, small=small: reg(small(p))
        moved = lambda p, reg=on_two, small=small: flat(reg.prox(small(p), 1.0))[jnp.array([0, -1])]
        params = large(plain)
        if name == "overlapping_group_lasso":  # it acts on copies of the coefficients
            value = lambda p, reg=on_two: reg.latent_norm(p, tolerance=1e-2).value
            moved = lambda p, reg=on_two: reg.contract(reg.prox(reg.expand(p), 1.0))
            params, model = on_twelve.expand(plain), on_twelve.contract
        singular = lambda v: jnp.linalg.svd(v.reshape(4, 3), compute_uv=False)
        draw_sets(column[0], value, moved)
        draw_prox(column[1], moved)
        found = effect(strength * on_twelve, params, model)
        draw_effect(column[2], found, singular if form == "matrix" else lambda v: v)
        column[0].set_title(name, fontsize=7 if len(name) < 20 else 5.5)
        column[1].set(xlim=(-3, 3), ylim=(-3, 3))
        for axis in column:
            axis.set(xticks=(), yticks=())
        SHOWN.append(name)
    for axis, text in zip(axes[:, 0], ("level sets", "prox", "effect")):
        axis.set_ylabel(text)


SHOWN = []

# %%
fisher = jnp.array([3.0, 0.2]), jnp.where(jnp.arange(12) < 6, 3.0, 0.2)
gallery(
    {
        "l1": (jr.l1(1.0), "vector", 0.3),
        "l2": (jr.l2(1.0), "vector", 0.3),
        "elastic_net": (jr.elastic_net(1.0), "vector", 0.3),
        "huber": (jr.huber(1.0, 0.5), "vector", 0.3),
        "l2_sp": (jr.l2_sp(1.0, 0.5), "vector", 0.5),
        "ewc": (tuple(jr.ewc(1.0, 0.5, f) for f in fisher), "vector", 0.5),
    }
)

# %% [markdown]
# `l1` and `elastic_net` make zeros, `l2` and `huber` only shrink. The last two pull to 0.5: `ewc` holds the
# weights that count (here the first ones) and lets the others go.

# %%
gallery(
    {
        "l0": (jr.l0(1.0), "vector", 0.3),
        "l_half": (jr.l_half(1.0), "vector", 0.3),
        "l_two_thirds": (jr.l_two_thirds(1.0), "vector", 0.3),
        "log_sum": (jr.log_sum(1.0, 0.5), "vector", 0.2),
        "mcp": (jr.mcp(1.0, 2.0), "vector", 0.3),
        "scad": (jr.scad(1.0, 3.0), "vector", 0.3),
        "l1_minus_l2": (jr.l1_minus_l2(1.0), "vector", 0.5),
    }
)

# %% [markdown]
# Not convex: level sets bend inwards, the prox returns to the diagonal, what survives keeps its size.

# %%
shared = (
    jr.overlapping_group_lasso(0.7, [[0], [0, 1]]),
    jr.overlapping_group_lasso(0.7, [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9], [9, 10, 11]]),
)
sorted_by = tuple(jr.slope(1.0, weights=jnp.linspace(1, 0.4, n)) for n in (2, 12))
gallery(
    {
        "group_lasso": (jr.group_lasso(0.7, axis=0), "rows", 0.5),
        "sparse_group_lasso": (jr.sparse_group_lasso(0.8, axis=0), "rows", 0.4),
        "l1_linf": (jr.l1_linf(1.0, axis=0), "rows", 0.7),
        "exclusive_lasso": (jr.exclusive_lasso(1.0, axis=0), "rows", 0.3),
        "overlapping_group_lasso": (shared, "vector", 0.4),
        "hierarchical": (jr.hierarchical(1.0, 0.7, skip="skip", layer="layer"), "net", 0.5),
        "linf": (jr.linf(1.0), "vector", 1.0),
        "slope": (sorted_by, "vector", 0.4),
    }
)

# %% [markdown]
# Dashed lines that move show entries that act on each other. `group_lasso` keeps $b$ alive while $a$ is
# large, `exclusive_lasso` does the reverse, `linf` and `slope` make them equal. In `hierarchical` $a$ is a
# feature's skip weight and bounds $b$: in the fit the first four bars bound the other eight, two for each.

# %%
gallery(
    {
        "total_variation": (jr.total_variation(1.0), "vector", 0.5),
        "fused_lasso": (jr.fused_lasso(1.0), "vector", 0.3),
        "trend_filter": (jr.trend_filter(1.0, tolerance=1e-2), "ends", 0.5),
        "nuclear": (jr.nuclear(1.0), "matrix", 0.6),
        "log_det": (jr.log_det(1.0, 0.5), "matrix", 0.6),
        "spectral_norm": (jr.spectral_norm(1.0), "matrix", 0.6),
        "orthogonal": (jr.orthogonal(0.5), "matrix", 0.5),
    }
)

# %% [markdown]
# Neighbours are drawn together; `trend_filter` has a third number, 0, in the middle. For matrices $a$ and
# $b$, and the bars, are singular values: `nuclear` and `log_det` cut the small ones, `spectral_norm` the
# largest, `orthogonal` draws all to 1.

# %%
gallery(
    {
        "box": (jr.box(-0.5, 1.0), "vector", 1.0),
        "nonneg": (jr.nonneg(), "vector", 1.0),
        "linf_ball": (jr.linf_ball(1.0), "vector", 1.0),
        "l1_ball": ((jr.l1_ball(1.0), jr.l1_ball(8.0)), "vector", 1.0),
        "l2_ball": ((jr.l2_ball(1.0), jr.l2_ball(3.0)), "vector", 1.0),
        "max_norm": (jr.max_norm(1.0), "units", 1.0),
    }
)
gallery(
    {
        "simplex": ((jr.simplex(), jr.simplex(6.0)), "vector", 1.0),
        "unit_norm": (jr.unit_norm(), "units", 1.0),
        "cardinality": ((jr.cardinality(1), jr.cardinality(6)), "vector", 1.0),
        "spectral_ball": (jr.spectral_ball(1.0), "matrix", 1.0),
        "low_rank": (jr.low_rank(1), "matrix", 1.0),
    }
)

# %%
functions = {"adaptive_weights", "fisher_diagonal"}  # of the catalogue, but no penalties
assert sorted(SHOWN) == sorted(set(jr.penalties.__all__) - functions)

# %% [markdown]
# ## Add your own
#
# Say weights up to 1 should be free, and beyond that cost what they cost `l1`:
#
# $$\rho(x) = \max(|x| - 1, 0) .$$
#
# Two formulas are enough, the value and its prox.


# %%
class DeadZone(jr.Elementwise):
    """lam * sum max(|theta| - 1, 0)."""

    smooth, convex = False, True

    def rho(self, x):
        return jnp.maximum(jnp.abs(x) - 1, 0)

    def prox_rho(self, x, threshold):
        size = jnp.abs(x)
        return jnp.sign(x) * jnp.maximum(size - threshold, jnp.minimum(size, 1))


# %% [markdown]
# Everything else comes with it: pytrees, a λ per layer, `.on(...)`, sums, sweeps. The conformance kit
# tells whether value and prox belong together. It draws points, with
# zeros and ties among them, and puts them through every law that applies.

# %%
report = check_penalty(DeadZone(0.5), max_examples=3)
print(len(report.passed), "laws hold; not applicable:", ", ".join(report.skipped))
assert "prox_minimises" in report.passed

figure, axis = plt.subplots(figsize=(3, 2.6))
axis.plot(x, x, color="0.8", lw=0.8)
axis.plot(x, jax.vmap(DeadZone(1.0))(x), color="C1", label="value")
axis.plot(x, DeadZone(1.0).prox(x, 1.0), color="C0", lw=2, label="prox, step 1")
axis.set(title="dead_zone", ylim=(-3, 3))
axis.legend(frameon=False)
params = {"kernel": jnp.array([0.5, -3.0]), "bias": jnp.array([9.0])}
print((DeadZone(0.5).on(jr.kernels) + jr.l2(0.1)).prox(params, 1.0))


# %% [markdown]
# A mistake does not get through. Here the threshold is doubled:


# %%
class Wrong(DeadZone):
    def prox_rho(self, x, threshold):
        return super().prox_rho(x, 2 * threshold)


try:
    check_penalty(Wrong(0.5), max_examples=3)
    caught = ""
except AssertionError as violation:
    caught = str(violation)
print(caught[:200])
assert "prox_minimises" in caught

# %% [markdown]
# Next: [docs/penalties.md](../docs/penalties.md) for the whole list.
