"""How a penalty reaches the weights: optax transformations, and what they must know of an optimizer.

`transform` holds the couplings; `probe` asks an optimizer questions on tiny leaves, `metric` reads its
second moments, `measure` finds the rest of its metric, `signs` guards against a decay that grows.
"""

from jaxreg.coupling.signs import check_coupling
from jaxreg.coupling.transform import add_penalty_gradient, decoupled, proximal

__all__ = ["add_penalty_gradient", "check_coupling", "decoupled", "proximal"]
