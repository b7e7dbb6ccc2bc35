"""jaxreg: functional regularization for JAX.

J(params) = L(params) + R(params): L is your mean loss, R a penalty that is a value. See the README
for a tour, and `jaxreg --help` for the command.

Here are the penalties and what a program of yours calls. Beside them: `jaxreg.metrics`, `jaxreg.select`
(more selectors), `jaxreg.trackers` (TensorBoard and others), `jaxreg.convert` (strengths of other
libraries), `jaxreg.terms` and `jaxreg.noise` (what regularises beyond weights), `jaxreg.reparametrize`
(normalised weights), `jaxreg.prox` (operators on arrays), `jaxreg.testing` (the laws, for a penalty of
yours).
"""

import jaxreg.convert as convert  # noqa: F401  public modules, as jaxreg.prox is
import jaxreg.metrics as metrics  # noqa: F401
import jaxreg.noise as noise  # noqa: F401
import jaxreg.reparametrize as reparametrize  # noqa: F401
import jaxreg.select as select  # noqa: F401
import jaxreg.terms as terms  # noqa: F401
from jaxreg.coupling import (
    add_penalty_gradient,
    average_of,
    averaged,
    check_coupling,
    compensated,
    decoupled,
    proximal,
)
from jaxreg.fit import Trainer, fit, folds, stream
from jaxreg.flatness import sam
from jaxreg.grid import grid, map_grid, points
from jaxreg.leaf import Elementwise, LeafPenalty
from jaxreg.objective import ledger, penalized
from jaxreg.penalties import (
    box,
    cardinality,
    elastic_net,
    ewc,
    exclusive_lasso,
    fused_lasso,
    group_lasso,
    hierarchical,
    huber,
    l0,
    l1,
    l1_ball,
    l1_linf,
    l1_minus_l2,
    l2,
    l2_ball,
    l2_sp,
    l_half,
    l_two_thirds,
    linf,
    linf_ball,
    log_det,
    log_sum,
    low_rank,
    max_norm,
    mcp,
    nonneg,
    nuclear,
    orthogonal,
    overlapping_group_lasso,
    scad,
    simplex,
    slope,
    sparse_group_lasso,
    spectral_ball,
    spectral_norm,
    total_variation,
    trend_filter,
    unit_norm,
)
from jaxreg.penalty import Penalty, Zero
from jaxreg.report import tabulate
from jaxreg.results import Status, SweepResult
from jaxreg.select import biases, embeddings, kernels, norms, path
from jaxreg.splitting import prox_of_sum
from jaxreg.stationarity import stationarity
from jaxreg.sweeps import Halving, Interrupted, Machine, refit, sweep
from jaxreg.sweeps.watch import trackers  # noqa: F401
from jaxreg.sweeps.watch.callbacks import Callback
from jaxreg.tune import (
    ask_and_tell,
    bootstrap,
    continuation,
    criteria,
    evidence,
    expected_error,
    hypergradient,
    leave_one_out,
    ridge_groups,
    ridge_path,
    search,
    space,
    stability,
    sure,
    unrolled_hypergradient,
)

__version__ = "0.1.0"
__all__ = [
    "Callback",
    "Elementwise",
    "Halving",
    "Interrupted",
    "LeafPenalty",
    "Machine",
    "Penalty",
    "Status",
    "SweepResult",
    "Trainer",
    "Zero",
    "add_penalty_gradient",
    "ask_and_tell",
    "average_of",
    "averaged",
    "biases",
    "bootstrap",
    "box",
    "cardinality",
    "check_coupling",
    "compensated",
    "continuation",
    "criteria",
    "decoupled",
    "elastic_net",
    "embeddings",
    "evidence",
    "ewc",
    "exclusive_lasso",
    "expected_error",
    "fit",
    "folds",
    "fused_lasso",
    "grid",
    "group_lasso",
    "hierarchical",
    "huber",
    "hypergradient",
    "kernels",
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
    "leave_one_out",
    "ledger",
    "linf",
    "linf_ball",
    "log_det",
    "log_sum",
    "low_rank",
    "map_grid",
    "max_norm",
    "mcp",
    "nonneg",
    "norms",
    "nuclear",
    "orthogonal",
    "overlapping_group_lasso",
    "path",
    "penalized",
    "points",
    "prox_of_sum",
    "proximal",
    "refit",
    "ridge_groups",
    "ridge_path",
    "sam",
    "scad",
    "search",
    "simplex",
    "slope",
    "space",
    "sparse_group_lasso",
    "spectral_ball",
    "spectral_norm",
    "stability",
    "stationarity",
    "stream",
    "sure",
    "sweep",
    "tabulate",
    "total_variation",
    "trend_filter",
    "unit_norm",
    "unrolled_hypergradient",
]
