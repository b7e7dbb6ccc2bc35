"""Tables that print anywhere, and the audit of a penalty on a model."""

from jaxreg.report.stacks import stack_warnings
from jaxreg.report.table import Column, Table
from jaxreg.report.tabulate import tabulate

__all__ = ["Column", "Table", "stack_warnings", "tabulate"]
