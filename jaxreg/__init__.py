"""jaxreg: functional regularization for JAX.

J(params) = L(params) + R(params): L is your mean loss, R a penalty that is a value. See the README
for a tour, and `jaxreg --help` for the command.
"""

from jaxreg.leaf import Elementwise, LeafPenalty
from jaxreg.objective import Ledger, ledger, penalized, penalty_gradient, split
from jaxreg.penalties import (
    adaptive_weights,
    box,
    elastic_net,
    ewc,
    fisher_diagonal,
    group_lasso,
    huber,
    l0,
    l1,
    l1_minus_l2,
    l2,
    l2_sp,
    l_half,
    l_two_thirds,
    log_sum,
    mcp,
    nonneg,
    scad,
)
from jaxreg.penalty import Penalty, Zero, static_field
from jaxreg.report import tabulate
from jaxreg.result import Status, SweepResult
from jaxreg.select import Selector, biases, everything, kernels, leaf_mask, norms, path, where
from jaxreg.sweeps import Grid, grid, map_penalties, sweep
from jaxreg.train import Trainer, TrainState
from jaxreg.transform import add_penalty_gradient, decoupled, proximal

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
    "l1_minus_l2",
    "l2",
    "l2_sp",
    "l_half",
    "l_two_thirds",
    "leaf_mask",
    "ledger",
    "log_sum",
    "map_penalties",
    "mcp",
    "nonneg",
    "norms",
    "path",
    "penalized",
    "penalty_gradient",
    "proximal",
    "scad",
    "split",
    "static_field",
    "sweep",
    "tabulate",
    "where",
]
