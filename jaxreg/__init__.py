"""jaxreg: functional regularization for JAX.

J(params) = L(params) + R(params): L is your mean loss, R a penalty that is a value. See the README
for a tour, and `jaxreg --help` for the command.
"""

from jaxreg.leaf import Elementwise, LeafPenalty
from jaxreg.penalties import elastic_net, group_lasso, l1, l2
from jaxreg.penalty import Penalty, Zero, static_field
from jaxreg.select import Selector, biases, everything, kernels, leaf_mask, norms, path, where

__version__ = "0.1.0"
__all__ = [
    "Elementwise",
    "LeafPenalty",
    "Penalty",
    "Selector",
    "Zero",
    "biases",
    "elastic_net",
    "everything",
    "group_lasso",
    "kernels",
    "l1",
    "l2",
    "leaf_mask",
    "norms",
    "path",
    "static_field",
    "where",
]
