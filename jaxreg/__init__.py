"""jaxreg: functional regularization for JAX.

J(params) = L(params) + R(params): L is your mean loss, R a penalty that is a value. See the README
for a tour, and `jaxreg --help` for the command.
"""

from jaxreg.leaf import Elementwise, LeafPenalty
from jaxreg.objective import Ledger, ledger, penalized, penalty_gradient, split
from jaxreg.penalties import elastic_net, group_lasso, l1, l2
from jaxreg.penalty import Penalty, Zero, static_field
from jaxreg.report import tabulate
from jaxreg.result import Status, SweepResult
from jaxreg.select import Selector, biases, everything, kernels, leaf_mask, norms, path, where
from jaxreg.transform import add_penalty_gradient, decoupled, proximal

__version__ = "0.1.0"
__all__ = [
    "Elementwise",
    "LeafPenalty",
    "Ledger",
    "Penalty",
    "Selector",
    "Status",
    "SweepResult",
    "Zero",
    "add_penalty_gradient",
    "biases",
    "decoupled",
    "elastic_net",
    "everything",
    "group_lasso",
    "kernels",
    "l1",
    "l2",
    "leaf_mask",
    "ledger",
    "norms",
    "path",
    "penalized",
    "penalty_gradient",
    "proximal",
    "split",
    "static_field",
    "tabulate",
    "where",
]
