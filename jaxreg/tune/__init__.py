"""Beyond the grid: what error to expect, and how else a strength is found."""

from jaxreg.tune.ask import ask_and_tell
from jaxreg.tune.bootstrap import Bootstrap, bootstrap
from jaxreg.tune.continuation import continuation
from jaxreg.tune.criteria import Criteria, criteria
from jaxreg.tune.evidence import Evidence, evidence
from jaxreg.tune.implicit import Hypergradient, hypergradient
from jaxreg.tune.leave_one_out import LeaveOneOut, leave_one_out
from jaxreg.tune.nested import expected_error
from jaxreg.tune.ridge import RidgePath, ridge_path
from jaxreg.tune.ridge_groups import RidgeGroups, ridge_groups
from jaxreg.tune.search import Found, Gain, search
from jaxreg.tune.space import Space, space
from jaxreg.tune.stability import Stability, stability
from jaxreg.tune.sure import Sure, sure
from jaxreg.tune.unrolled import Unrolled, unrolled_hypergradient

__all__ = [
    "Bootstrap",
    "Criteria",
    "Evidence",
    "Found",
    "Gain",
    "Hypergradient",
    "LeaveOneOut",
    "RidgeGroups",
    "RidgePath",
    "Space",
    "Stability",
    "Sure",
    "Unrolled",
    "ask_and_tell",
    "bootstrap",
    "continuation",
    "criteria",
    "evidence",
    "expected_error",
    "hypergradient",
    "leave_one_out",
    "ridge_groups",
    "ridge_path",
    "search",
    "space",
    "stability",
    "sure",
    "unrolled_hypergradient",
]
