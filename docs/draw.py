"""Draw docs/img/*.png, the pictures of docs/penalties.md, from the penalties themselves.

python docs/draw.py
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np

import jaxreg as jr

matplotlib.use("agg")
plt.rcParams.update({"font.size": 8, "axes.titlesize": 8.5, "axes.titlelocation": "left"})
IMAGES = Path(__file__).parent / "img"

CONVEX = {
    "l1": jr.l1(1.0),
    "l2": jr.l2(1.0),
    "elastic_net": jr.elastic_net(1.0, 0.5),
    "huber": jr.huber(1.0, 0.5),
}
NONCONVEX = {
    "l0": jr.l0(1.0),
    "l_half": jr.l_half(1.0),
    "l_two_thirds": jr.l_two_thirds(1.0),
    "log_sum": jr.log_sum(1.0, 0.5),
    "mcp": jr.mcp(1.0, 2.0),
    "scad": jr.scad(1.0, 3.0),
    "l1_minus_l2": jr.l1_minus_l2(1.0),
}
GROUPS = {
    "l1, to compare": jr.l1(0.7),
    "group_lasso": jr.group_lasso(0.9, axis=0),
    "sparse_group_lasso": jr.sparse_group_lasso(0.8, 0.6, axis=0),
    "l1_linf": jr.l1_linf(1.4, axis=0),
    "exclusive_lasso": jr.exclusive_lasso(0.9, axis=0),
    "linf": jr.linf(3.0),
    "slope": jr.slope(0.6),
}
MATRICES = {
    "nuclear": jr.nuclear(0.8),
    "log_det": jr.log_det(0.8),
    "spectral_norm": jr.spectral_norm(2.0),
    "orthogonal": jr.orthogonal(0.3),
    "spectral_ball": jr.spectral_ball(1.5),
    "low_rank": jr.low_rank(3),
}
SETS = {
    "box": jr.box(-0.5, 1.0),
    "nonneg": jr.nonneg(),
    "linf_ball": jr.linf_ball(1.0),
    "l1_ball": jr.l1_ball(1.0),
    "l2_ball, max_norm": jr.l2_ball(1.0),
    "simplex": jr.simplex(),
    "unit_norm": jr.unit_norm(axis=None),
    "cardinality": jr.cardinality(1),
}


def panels(columns: int, rows: int = 1, height: float = 1.75):
    """A figure and its axes as a list."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(10, height * rows), squeeze=False, layout="constrained"
    )
    return figure, list(axes.flat)


def save(figure, name: str) -> None:
    """Write one picture."""
    figure.savefig(IMAGES / f"{name}.png", dpi=100)
    plt.close(figure)


def curves(axis, title: str, reg) -> None:
    """The penalty of one number, and its prox with step 1."""
    x = jnp.linspace(-3, 3, 601)
    # One that couples entries is shown for the first of two, the other being 1.5.
    leaf = x[:, None] if title != "l1_minus_l2" else jnp.stack([x, jnp.full_like(x, 1.5)], -1)
    value, moved = jax.vmap(reg)(leaf), jax.vmap(lambda v: reg.prox(v, 1.0)[0])(leaf)
    jump = jnp.abs(jnp.diff(moved, append=moved[-1])) > 0.1
    axis.plot(x, x, color="0.8", lw=0.8)
    axis.plot(x, value, color="C1", lw=1.2, label="penalty")
    axis.plot(x, jnp.where(jump, jnp.nan, moved), color="C0", lw=1.8, label="prox")
    axis.set(title=title, xlim=(-3, 3), ylim=(-3, 3), xticks=(-2, 0, 2), yticks=(-2, 0, 2))
    axis.set_aspect("equal")


def plane(n: int = 241, reach: float = 1.6):
    """Coordinates of a grid in the plane, and its points [n, n, 2]."""
    line = jnp.linspace(-reach, reach, n)
    return line, jnp.stack(jnp.meshgrid(line, line), -1)


def balls(axis, reg, levels=(0.5, 1.0, 1.5), title: str = "") -> None:
    """Where the penalty of two numbers has the same value."""
    line, points = plane()
    value = jax.vmap(jax.vmap(reg))(points)
    axis.contour(line, line, value, levels=levels, colors="C1", linewidths=(0.7, 1.8, 0.7))
    axis.axhline(0, color="0.85", lw=0.6, zorder=0)
    axis.axvline(0, color="0.85", lw=0.6, zorder=0)
    axis.set(title=title, xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    axis.set_aspect("equal")


def separable(name: str, penalties: dict) -> None:
    """Curves above, level sets below."""
    figure, axes = panels(len(penalties), 2)
    for above, below, (title, reg) in zip(axes, axes[len(penalties) :], penalties.items()):
        curves(above, title, reg)
        if title == "l0":
            below.plot([-1.6, 1.6], [0, 0], [0, 0], [-1.6, 1.6], color="C1", lw=1.8)
            below.text(-1.5, 0.8, "R = 2", size=7)
            below.text(0.15, 0.1, "R = 1", size=7)
            below.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1), ylim=(-1.6, 1.6), xlim=(-1.6, 1.6))
            below.set_aspect("equal")
        else:
            balls(below, reg, (0.3, 0.5, 0.7) if title == "l1_minus_l2" else (0.5, 0.99, 1.5))
    axes[0].legend(frameon=False, fontsize=6.5, loc="lower right", handlelength=1)
    save(figure, name)


def tile(axis, title: str, x) -> None:
    """A matrix as colours, with a point where an entry is exactly 0."""
    axis.imshow(x, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto")
    zeros = np.argwhere(np.asarray(x) == 0)
    axis.plot(zeros[:, 1], zeros[:, 0], ".", color="0.4", ms=3)
    axis.set(title=title, xticks=(), yticks=())


def groups() -> None:
    """A matrix before and after one step."""
    rows = [[2.6, 1.8, -2.2], [1.6, -0.3, 0.5], [0.6, -0.9, 0.4], [-0.5, 0.2, -2.0]]
    x = jnp.array(rows)
    figure, axes = panels(6, 2, 1.5)
    tile(axes[0], "before (a group is a row)", x)
    for axis, (title, reg) in zip(axes[1:], GROUPS.items()):
        tile(axis, title, reg.prox(x, 1.0))
    net = jr.hierarchical(1.5, 0.5, skip="skip", layer="layer")
    moved = net.prox({"skip": x[:, :1], "layer": x[:, 1:]}, 1.0)
    tile(axes[8], "hierarchical: skip | layer", jnp.hstack([moved["skip"], moved["layer"]]))
    axes[8].axvline(0.5, color="k", lw=1)
    wide = jnp.array([[1.5, 1.2, 0.8, 0.3, 0.3, -0.2, 0.4]])
    shared = jr.overlapping_group_lasso(0.5, [[0, 1, 2], [2, 3, 4], [4, 5, 6]], axis=1)
    tile(axes[9], "before (012, 234, 456)", wide)
    after = shared.contract(shared.prox(shared.expand(wide), 1.0))
    tile(axes[10], "overlapping_group_lasso", after)
    axes[11].axis("off")
    save(figure, "groups")


def neighbours() -> None:
    """A noisy line before and after one step."""
    t = np.arange(120)
    noise = 0.35 * np.random.default_rng(0).normal(size=120)
    steps = np.where((t > 30) & (t < 55), 2.0, 0) - 1.5 * (t > 90)
    slopes = np.interp(t, [0, 40, 80, 119], [-1, 2, 0.5, 1.5])
    shown = {
        "total_variation": (steps, jr.total_variation(1.5)),
        "fused_lasso": (steps, jr.fused_lasso(1.7, 0.1)),
        "trend_filter": (slopes, jr.trend_filter(10.0)),
    }
    figure, axes = panels(3)
    for axis, (title, (truth, reg)) in zip(axes, shown.items()):
        before = jnp.asarray(truth + noise, jnp.float32)
        axis.plot(t, before, ".", color="0.7", ms=3)
        axis.plot(t, reg.prox(before, 1.0), color="C0")
        axis.set(title=title, xticks=())
    save(figure, "neighbours")


def matrices() -> None:
    """Singular values before and after one step."""
    s = jnp.array([3.0, 2.3, 1.7, 1.2, 0.8, 0.5, 0.25])
    figure, axes = panels(len(MATRICES))
    for axis, (title, reg) in zip(axes, MATRICES.items()):
        axis.bar(range(7), s, color="0.85", label="before")
        after = jnp.linalg.svd(reg.prox(jnp.diag(s), 1.0), compute_uv=False)
        axis.bar(range(7), after, color="C0", width=0.4, label="after")
        axis.set(title=title, xticks=(), ylim=(0, 3.2))
    axes[0].set_ylabel("singular values")
    axes[0].legend(frameon=False, fontsize=6.5)
    save(figure, "matrices")


def arrows(axis, starts, ends) -> None:
    """From each start to its end."""
    move = ends - starts
    axis.quiver(*starts.T, *move.T, angles="xy", scale_units="xy", scale=1, color="C0", width=0.008)


def constraints() -> None:
    """The sets, and where points outside are projected to."""
    figure, axes = panels(len(SETS), height=1.5)
    line, points = plane(321)
    angles = jnp.linspace(0, 2 * jnp.pi, 12, endpoint=False) + 0.2
    ring = 1.5 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], -1)
    for axis, (title, reg) in zip(axes, SETS.items()):
        project = jax.vmap(lambda x, reg=reg: reg.prox(x, 1.0))
        distance = jnp.linalg.norm(points - jax.vmap(project)(points), axis=-1)
        axis.contourf(line, line, distance, levels=(-1, 0.02), colors="C1", alpha=0.6)
        arrows(axis, ring, project(ring))
        axis.set(title=title, xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), xticks=(), yticks=())
        axis.set_aspect("equal")
    save(figure, "constraints")


def reference() -> None:
    """The pull to a reference, and the effect of adaptive weights."""
    center = jnp.array([0.6, 0.3])
    figure, axes = panels(3, height=2.2)
    both = {
        "l2_sp": jr.l2_sp(0.7, center),
        "ewc, the first weight matters": jr.ewc(0.7, center, jnp.array([3.0, 0.15])),
    }
    _, points = plane(6, 1.4)
    for axis, (title, reg) in zip(axes, both.items()):
        balls(axis, reg, levels=(0.2, 0.5, 1.0), title=title)
        starts = points.reshape(-1, 2)
        arrows(axis, starts, jax.vmap(lambda x, reg=reg: reg.prox(x, 1.0))(starts))
        axis.plot(*center, "*", color="k", ms=7)
    x = jnp.linspace(-3, 3, 301)
    axes[2].plot(x, x, color="0.8", lw=0.8)
    axes[2].plot(x, jr.l1(0.8).prox(x, 1.0), color="C1", label="l1")
    weighted = jr.l1(0.8, weights=jr.penalties.adaptive_weights(x))
    axes[2].plot(x, weighted.prox(x, 1.0), color="C0", label="l1, adaptive_weights")
    axes[2].set_title("adaptive_weights: less bias")
    axes[2].set_aspect("equal")
    axes[2].legend(frameon=False, fontsize=6.5, loc="upper left")
    save(figure, "reference")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    separable("convex", CONVEX)
    separable("nonconvex", NONCONVEX)
    groups()
    neighbours()
    matrices()
    constraints()
    reference()
