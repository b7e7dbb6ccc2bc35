"""The catalogue of penalties, one family a file; public as `jaxreg.NAME`."""

from jaxreg.penalties.elementwise import elastic_net, l1, l2
from jaxreg.penalties.structured import group_lasso

__all__ = ["elastic_net", "group_lasso", "l1", "l2"]
