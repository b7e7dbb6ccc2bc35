"""Beyond the grid: what error to expect, and how else a strength is found."""

from jaxreg.tune.nested import expected_error

__all__ = ["expected_error"]
