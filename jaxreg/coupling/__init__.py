"""How a penalty reaches the weights: optax transformations, and what they must know of an optimizer.

`transform` holds the couplings. `probe` asks an optimizer questions on tiny leaves, `metric` reads its
second moments, `measure` finds the rest of its metric, `stages` takes chains apart, `signs` guards against
a decay that grows and a chain in the wrong order. `values` is what line searches are told, `average` keeps
averages of the parameters, `compensate` what rounding would lose of them.
"""

from jaxreg.coupling.average import average_of, averaged
from jaxreg.coupling.compensate import compensated, is_compensated
from jaxreg.coupling.signs import check_coupling
from jaxreg.coupling.transform import add_penalty_gradient, decoupled, proximal
from jaxreg.coupling.values import told

__all__ = [
    "add_penalty_gradient",
    "average_of",
    "averaged",
    "check_coupling",
    "compensated",
    "decoupled",
    "is_compensated",
    "proximal",
    "told",
]
