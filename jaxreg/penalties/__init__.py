"""The catalogue of penalties, one family a file; public as `jaxreg.NAME`."""

from jaxreg.penalties.bounds import box, nonneg
from jaxreg.penalties.constraints import (
    cardinality,
    l1_ball,
    l2_ball,
    linf_ball,
    max_norm,
    simplex,
    unit_norm,
)
from jaxreg.penalties.elementwise import elastic_net, huber, l1, l2
from jaxreg.penalties.folded import mcp, scad
from jaxreg.penalties.fused import fused_lasso
from jaxreg.penalties.group import group_lasso, sparse_group_lasso
from jaxreg.penalties.hierarchy import hierarchical
from jaxreg.penalties.matrix import log_det, nuclear, orthogonal, spectral_norm
from jaxreg.penalties.maximum import exclusive_lasso, l1_linf, linf
from jaxreg.penalties.nonconvex import l0, l1_minus_l2, l_half, l_two_thirds, log_sum
from jaxreg.penalties.ordered import slope
from jaxreg.penalties.overlap import overlapping_group_lasso
from jaxreg.penalties.reference import adaptive_weights, ewc, fisher_diagonal, l2_sp
from jaxreg.penalties.smooth import total_variation, trend_filter
from jaxreg.penalties.spectral import low_rank, spectral_ball

__all__ = [
    "adaptive_weights",
    "box",
    "cardinality",
    "elastic_net",
    "ewc",
    "exclusive_lasso",
    "fisher_diagonal",
    "fused_lasso",
    "group_lasso",
    "hierarchical",
    "huber",
    "l0",
    "l1",
    "l1_ball",
    "l1_linf",
    "l1_minus_l2",
    "l2",
    "l2_ball",
    "l2_sp",
    "l_half",
    "l_two_thirds",
    "linf",
    "linf_ball",
    "log_det",
    "log_sum",
    "low_rank",
    "max_norm",
    "mcp",
    "nonneg",
    "nuclear",
    "orthogonal",
    "overlapping_group_lasso",
    "scad",
    "simplex",
    "slope",
    "sparse_group_lasso",
    "spectral_ball",
    "spectral_norm",
    "total_variation",
    "trend_filter",
    "unit_norm",
]
