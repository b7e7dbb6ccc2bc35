"""jaxreg: functional regularization for JAX.

J(params) = L(params) + R(params): L is your mean loss, R a penalty that is a value. See the README
for a tour, and `jaxreg --help` for the command.
"""

import jaxreg.convert as convert
from jaxreg.coupling import add_penalty_gradient, decoupled, proximal
from jaxreg.leaf import Elementwise, LeafPenalty
from jaxreg.objective import Ledger, ledger, penalized, penalty_gradient, split
from jaxreg.penalties import (
    adaptive_weights,
    box,
    cardinality,
    elastic_net,
    ewc,
    fisher_diagonal,
    group_lasso,
    huber,
    l0,
    l1,
    l1_ball,
    l1_minus_l2,
    l2,
    l2_ball,
    l2_sp,
    l_half,
    l_two_thirds,
    linf_ball,
    log_det,
    log_sum,
    low_rank,
    max_norm,
    mcp,
    nonneg,
    nuclear,
    orthogonal,
    scad,
    simplex,
    spectral_ball,
    spectral_norm,
    unit_norm,
)
from jaxreg.penalty import Penalty, Zero, static_field
from jaxreg.report import tabulate
from jaxreg.results import Status, SweepResult
from jaxreg.select import Selector, biases, everything, kernels, leaf_mask, norms, path, where
from jaxreg.sweeps import Grid, grid, map_penalties, sweep
from jaxreg.train import Trainer, TrainState

__version__ = "0.1.0"
__all__ = [
    "Elementwise",
    "Grid",
    "LeafPenalty",
    "Ledger",
    "Penalty",
    "Selector",
    "Status",
    "SweepResult",
    "TrainState",
    "Trainer",
    "Zero",
    "adaptive_weights",
    "add_penalty_gradient",
    "biases",
    "box",
    "cardinality",
    "decoupled",
    "elastic_net",
    "everything",
    "ewc",
    "fisher_diagonal",
    "grid",
    "group_lasso",
    "huber",
    "kernels",
    "l0",
    "l1",
    "l1_ball",
    "l1_minus_l2",
    "l2",
    "l2_ball",
    "l2_sp",
    "l_half",
    "l_two_thirds",
    "leaf_mask",
    "ledger",
    "linf_ball",
    "log_det",
    "log_sum",
    "low_rank",
    "map_penalties",
    "max_norm",
    "mcp",
    "nonneg",
    "norms",
    "nuclear",
    "orthogonal",
    "path",
    "penalized",
    "penalty_gradient",
    "proximal",
    "scad",
    "simplex",
    "spectral_ball",
    "spectral_norm",
    "split",
    "static_field",
    "sweep",
    "tabulate",
    "unit_norm",
    "where",
]
