"""Proximal operators and projections as theorems: arrays in, arrays out.

    prox_f(x, t) = argmin_z  f(z) + |z - x|^2 / (2 t)

Every function takes the *threshold* `t * lam` already multiplied, so no convention about lam
can enter here; pytrees, selection and strengths live in the layers above.
Source: Parikh & Boyd, Proximal Algorithms (2014), chapter 6.
"""

from jaxreg.prox._groups import Labels
from jaxreg.prox.elementwise import elastic_net, huber, shrink, soft_threshold
from jaxreg.prox.fused import fused_lasso, total_variation
from jaxreg.prox.group import group_soft_threshold, group_soft_threshold_metric
from jaxreg.prox.iterative import Iterated, total_variation_2d, trend_filter
from jaxreg.prox.matrix import (
    log_det,
    low_rank,
    nuclear,
    orthogonal,
    spectral_ball,
    spectral_norm,
)
from jaxreg.prox.maximum import exclusive, hierarchical, linf
from jaxreg.prox.nonconvex import l0, l1_minus_l2, l_half, l_two_thirds, log_sum, mcp, scad
from jaxreg.prox.ordered import isotonic, slope
from jaxreg.prox.project import cardinality, l1_ball, l2_ball, linf_ball, simplex, unit_norm

__all__ = [
    "Iterated",
    "Labels",
    "cardinality",
    "elastic_net",
    "exclusive",
    "fused_lasso",
    "group_soft_threshold",
    "group_soft_threshold_metric",
    "hierarchical",
    "huber",
    "isotonic",
    "l0",
    "l1_ball",
    "l1_minus_l2",
    "l2_ball",
    "l_half",
    "l_two_thirds",
    "linf",
    "linf_ball",
    "log_det",
    "log_sum",
    "low_rank",
    "mcp",
    "nuclear",
    "orthogonal",
    "scad",
    "shrink",
    "simplex",
    "slope",
    "soft_threshold",
    "spectral_ball",
    "spectral_norm",
    "total_variation",
    "total_variation_2d",
    "trend_filter",
    "unit_norm",
]
