"""Proximal operators and projections as theorems: arrays in, arrays out.

    prox_f(x, t) = argmin_z  f(z) + |z - x|^2 / (2 t)

Every function takes the *threshold* `t * lam` already multiplied, so no convention about lam
can enter here; pytrees, selection and strengths live in the layers above.
Source: Parikh & Boyd, Proximal Algorithms (2014), chapter 6.
"""

from jaxreg.prox.elementwise import elastic_net, huber, shrink, soft_threshold
from jaxreg.prox.group import group_soft_threshold, group_soft_threshold_metric
from jaxreg.prox.nonconvex import l0, l1_minus_l2, l_half, l_two_thirds, log_sum, mcp, scad

__all__ = [
    "elastic_net",
    "group_soft_threshold",
    "group_soft_threshold_metric",
    "huber",
    "l0",
    "l1_minus_l2",
    "l_half",
    "l_two_thirds",
    "log_sum",
    "mcp",
    "scad",
    "shrink",
    "soft_threshold",
]
