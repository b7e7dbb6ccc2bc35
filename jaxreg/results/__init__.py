"""What a sweep returns: labelled results, the choice of λ, tables, plots and files."""

from jaxreg.results.result import SweepResult
from jaxreg.results.status import Status

__all__ = ["Status", "SweepResult"]
