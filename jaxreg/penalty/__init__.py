"""What a penalty is (`base`) and how penalties combine (`combine`, `sums`); public as `jaxreg.NAME`."""

from jaxreg.penalty.base import Penalty, Quadratic
from jaxreg.penalty.combine import Around, Of, On, Scaled, Zero
from jaxreg.penalty.sums import Sum

__all__ = [
    "Around",
    "Of",
    "On",
    "Penalty",
    "Quadratic",
    "Scaled",
    "Sum",
    "Zero",
]
