"""Every penalty with typical arguments, its variants, and the parameters that suit each."""

import jax.numpy as jnp
import numpy as np

import jaxreg as jr
from jaxreg.testing import LAWS

CENTER = {"bias": -0.3, "kernel": 0.7}
WEIGHTS = jnp.asarray(np.arange(12.0).reshape(4, 3) / 6)

# Constructor -> typical arguments, built when the test runs.
CATALOGUE = {
    "box": lambda: jr.box(-1.0, 2.0),
    "cardinality": lambda: jr.cardinality(3),
    "elastic_net": lambda: jr.elastic_net(0.5, 0.7),
    "ewc": lambda: jr.ewc(0.5, CENTER, {"bias": WEIGHTS, "kernel": 2.0}),
    "exclusive_lasso": lambda: jr.exclusive_lasso(0.5, axis=0),
    "fused_lasso": lambda: jr.fused_lasso(0.3),
    "group_lasso": lambda: jr.group_lasso(0.3, axis=0),
    "hierarchical": lambda: jr.hierarchical(0.5, 2.0, skip="skip", layer="layer"),
    "huber": lambda: jr.huber(0.5, 0.3),
    "l0": lambda: jr.l0(0.5),
    "l1": lambda: jr.l1(0.5),
    "l1_ball": lambda: jr.l1_ball(2.0),
    "l1_linf": lambda: jr.l1_linf(0.5, axis=1),
    "l1_minus_l2": lambda: jr.l1_minus_l2(0.5, 0.8),
    "l2": lambda: jr.l2(0.5),
    "l2_ball": lambda: jr.l2_ball(1.5),
    "l2_sp": lambda: jr.l2_sp(0.5, CENTER),
    "l_half": lambda: jr.l_half(0.5),
    "l_two_thirds": lambda: jr.l_two_thirds(0.5),
    "linf": lambda: jr.linf(0.5),
    "linf_ball": lambda: jr.linf_ball(0.8),
    "log_det": lambda: jr.log_det(0.5),
    "log_sum": lambda: jr.log_sum(0.5, 0.2),
    "low_rank": lambda: jr.low_rank(1),
    "max_norm": lambda: jr.max_norm(1.2),
    "mcp": lambda: jr.mcp(0.5),
    "nonneg": lambda: jr.nonneg(),
    "nuclear": lambda: jr.nuclear(0.5),
    "orthogonal": lambda: jr.orthogonal(0.5),
    "overlapping_group_lasso": lambda: jr.overlapping_group_lasso(0.3, [[0, 1], [1, 2]]),
    "scad": lambda: jr.scad(0.5),
    "simplex": lambda: jr.simplex(1.5),
    "slope": lambda: jr.slope(0.5),
    "sparse_group_lasso": lambda: jr.sparse_group_lasso(0.3, axis=1),
    "spectral_ball": lambda: jr.spectral_ball(0.9),
    "spectral_norm": lambda: jr.spectral_norm(0.5),
    "total_variation": lambda: jr.total_variation(0.3),
    "trend_filter": lambda: jr.trend_filter(0.3),
    "unit_norm": lambda: jr.unit_norm(),
}

# Other arguments of the same constructors; the laws that bind value, prox and certificate.
VARIANTS = {
    "box per leaf": lambda: jr.box({"bias": -1.0, "kernel": 0.0}, {"bias": jnp.inf, "kernel": 1.0}),
    "cardinality by rows": lambda: jr.cardinality(1, axis=0),
    "elastic net per leaf": lambda: jr.elastic_net({"bias": 0.1, "kernel": 1.0}, 0.3),
    "elastic net with a ratio per leaf": lambda: jr.elastic_net(0.6, {"bias": 0.0, "kernel": 1.0}),
    "exclusive lasso of leaves": lambda: jr.exclusive_lasso(0.5),
    "group lasso across leaves": lambda: jr.group_lasso(0.3, groups=[["bias", "kernel"]]),
    "group lasso across slices": lambda: jr.group_lasso(
        0.3, groups=[[("bias", 0), ("kernel", -2)]]
    ),
    "group lasso by labels": lambda: jr.group_lasso(0.3, axis=0, groups=jnp.array([0, 1, 0, 2])),
    "group lasso weighted": lambda: jr.group_lasso(
        0.3, axis=0, weights=jnp.array([[1.0], [0.0], [2.0], [0.5]])
    ),
    "group lasso of columns": lambda: jr.group_lasso(0.5, axis=-1, sqrt_size=False),
    "group lasso by two axes": lambda: jr.group_lasso(0.3, axis=(0, 1)),
    "group lasso of leaves": lambda: jr.group_lasso(0.3, sqrt_size=False),
    "groups and a weighted quadratic": lambda: (
        jr.l2(0.5, weights=WEIGHTS).on("kernel") + jr.group_lasso(0.3, axis=0)
    ),
    "l0 nonneg": lambda: jr.l0(0.5, nonneg=True),
    "l1 adaptive": lambda: jr.l1(0.5, weights=WEIGHTS),
    "l1 around": lambda: jr.l1(0.5, center=CENTER),
    "l1 nonneg": lambda: jr.l1(0.5, nonneg=True),
    "l1 per leaf": lambda: jr.l1({"bias": 0.0, "kernel": 1.0}),
    "l1_ball by columns": lambda: jr.l1_ball(1.0, axis=1),
    "l2 weighted around": lambda: jr.l2(0.5, weights=WEIGHTS, center=CENTER),
    "mcp steep": lambda: jr.mcp(0.8, 1.5),
    "orthogonal both sides": lambda: jr.orthogonal(0.5, double_sided=True),
    "scad weighted": lambda: jr.scad(0.5, weights=WEIGHTS),
    "simplex by rows": lambda: jr.simplex(axis=0),
    "isotropic images": lambda: jr.total_variation(0.3, axis=(0, 1), isotropic=True),
    "slope of OSCAR": lambda: jr.slope(0.5, weights=jnp.linspace(1.0, 0.1, 12)),
}

# The variants of the commonest penalties obey the other laws, too: in a metric, for instance.
WITH_EVERY_LAW = {
    "elastic net with a ratio per leaf",
    "group lasso of columns",
    "group lasso of leaves",
    "groups and a weighted quadratic",
    "l1 adaptive",
    "l1 around",
    "l1 per leaf",
    "l2 weighted around",
}

BINDING = {
    "certificate_of_prox",
    "gradient_matches_differences",
    "prox_jumps_between_equals",
    "prox_minimises",
    "prox_on_a_grid",
    "support_respected",
    "zero_groups",
}
ALL_BUT_BINDING = sorted(set(LAWS) - BINDING)

# An iterative prox is as exact as its tolerance, and its least subgradient would take as long as it.
ITERATED = {"tolerance": 1e-3, "skip": ("gradient_least_norm",)}

# Parameters that suit a structure, how exact an iterative prox is, laws that cannot hold.
OPTIONS: dict[str, dict] = {
    "hierarchical": {"params": {"layer": jnp.ones((4, 3)), "skip": jnp.ones((4, 2))}},
    "overlapping_group_lasso": {"shape": (4, 3)},  # two features apart, and one shared: 4 copies
    "isotropic images": {"tolerance": 1e-3},
    "trend_filter": ITERATED,
}
