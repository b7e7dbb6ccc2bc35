"""Tables that print anywhere, and the audit of a penalty on a model."""

from jaxreg.report.table import Column, Table
from jaxreg.report.tabulate import tabulate

__all__ = ["Column", "Table", "tabulate"]
