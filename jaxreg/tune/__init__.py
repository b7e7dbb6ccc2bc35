"""Beyond the grid: what error to expect, and how else a strength is found."""

from jaxreg.tune.nested import expected_error
from jaxreg.tune.ridge import RidgePath, ridge_path

__all__ = ["RidgePath", "expected_error", "ridge_path"]
