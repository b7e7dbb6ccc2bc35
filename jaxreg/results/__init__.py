"""What a sweep returns: labelled results, the choice of λ, tables, plots and files."""

from jaxreg.results.result import Choice, Status, SweepResult

__all__ = ["Choice", "Status", "SweepResult"]
