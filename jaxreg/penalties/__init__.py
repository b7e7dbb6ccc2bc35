"""The catalogue of penalties, one family a file; public as `jaxreg.NAME`."""

from jaxreg.penalties.bounds import box, nonneg
from jaxreg.penalties.elementwise import elastic_net, huber, l1, l2
from jaxreg.penalties.folded import mcp, scad
from jaxreg.penalties.nonconvex import l0, l1_minus_l2, l_half, l_two_thirds, log_sum
from jaxreg.penalties.reference import adaptive_weights, ewc, fisher_diagonal, l2_sp
from jaxreg.penalties.structured import group_lasso

__all__ = [
    "adaptive_weights",
    "box",
    "elastic_net",
    "ewc",
    "fisher_diagonal",
    "group_lasso",
    "huber",
    "l0",
    "l1",
    "l1_minus_l2",
    "l2",
    "l2_sp",
    "l_half",
    "l_two_thirds",
    "log_sum",
    "mcp",
    "nonneg",
    "scad",
]
