"""Strengths from and to other libraries: the same model, another number.

jaxreg's lam belongs to J = mean loss + R, with l2(lam) = lam/2 * |w|^2 and l1(lam) = lam * |w|_1.
Others sum the loss, leave out the half, divide by the batch, multiply by the learning rate, or give
an inverse. `from_x` takes the number of library x and returns the lam that makes the same fit; `to_x`
goes back. All are arithmetic: numbers, arrays and traced values pass through, whole grids too.

    lam = from_sklearn_ridge(alpha=1.0, n=len(X))
    objective = penalized(lambda w, X, y: jnp.mean((X @ w - y) ** 2) / 2)
    objective(w, l2(lam), X, y)            # has the minimum of sklearn.linear_model.Ridge(1.0)

Mind what is penalized as well: scikit-learn and glmnet leave out the intercept, PyTorch's and
optax's decay take in every bias, and a penalty of jaxreg covers each leaf it is given: select with
`.on(jaxreg.kernels)`. The formulas in one table are in docs/conventions.md.
"""

from jaxreg.convert._common import Strengths
from jaxreg.convert.deep import (
    from_adamw,
    from_keras_l1,
    from_keras_l2,
    from_sklearn_mlp,
    from_torch_weight_decay,
    to_adamw,
    to_keras_l1,
    to_keras_l2,
    to_sklearn_mlp,
    to_torch_weight_decay,
)
from jaxreg.convert.linear import (
    from_glmnet,
    from_lars,
    from_sklearn_elastic_net,
    from_sklearn_lasso,
    from_sklearn_logistic,
    from_sklearn_ridge,
    to_glmnet,
    to_lars,
    to_sklearn_elastic_net,
    to_sklearn_lasso,
    to_sklearn_logistic,
    to_sklearn_ridge,
)

__all__ = [
    "Strengths",
    "from_adamw",
    "from_glmnet",
    "from_keras_l1",
    "from_keras_l2",
    "from_lars",
    "from_sklearn_elastic_net",
    "from_sklearn_lasso",
    "from_sklearn_logistic",
    "from_sklearn_mlp",
    "from_sklearn_ridge",
    "from_torch_weight_decay",
    "to_adamw",
    "to_glmnet",
    "to_keras_l1",
    "to_keras_l2",
    "to_lars",
    "to_sklearn_elastic_net",
    "to_sklearn_lasso",
    "to_sklearn_logistic",
    "to_sklearn_mlp",
    "to_sklearn_ridge",
    "to_torch_weight_decay",
]
