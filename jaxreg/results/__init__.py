"""What a sweep returns: labelled results, the choice of λ, tables, plots and files."""

from jaxreg.results.result import Choice, SweepResult
from jaxreg.results.status import Status

__all__ = ["Choice", "Status", "SweepResult"]
