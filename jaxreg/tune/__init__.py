"""Beyond the grid: what error to expect, and how else a strength is found."""

from jaxreg.tune.implicit import Hypergradient, hypergradient
from jaxreg.tune.nested import expected_error
from jaxreg.tune.ridge import RidgePath, ridge_path
from jaxreg.tune.search import Found, Gain, search
from jaxreg.tune.space import Space, space
from jaxreg.tune.stability import Stability, stability
from jaxreg.tune.unrolled import Unrolled, unrolled_hypergradient

__all__ = [
    "Found",
    "Gain",
    "Hypergradient",
    "RidgePath",
    "Space",
    "Stability",
    "Unrolled",
    "expected_error",
    "hypergradient",
    "ridge_path",
    "search",
    "space",
    "stability",
    "unrolled_hypergradient",
]
