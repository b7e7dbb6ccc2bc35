"""Linear and generalised linear models: scikit-learn, celer and skglm, glmnet, R's lars."""

from __future__ import annotations

from typing import Any

from jaxreg._check import above
from jaxreg.convert._common import Strengths, given, positive
from jaxreg.penalties._common import share

__all__ = [
    "from_glmnet",
    "from_lars",
    "from_sklearn_elastic_net",
    "from_sklearn_lasso",
    "from_sklearn_logistic",
    "from_sklearn_ridge",
    "to_glmnet",
    "to_lars",
    "to_sklearn_elastic_net",
    "to_sklearn_lasso",
    "to_sklearn_logistic",
    "to_sklearn_ridge",
]

ENDS = "0 (ridge) and 1 (lasso)"


def from_sklearn_ridge(alpha: Any, n: Any) -> Any:
    """lam = alpha / n for `sklearn.linear_model.Ridge(alpha)` fitted to `n` examples.

    Ridge minimises |y - Xw|^2 + alpha |w|^2, a sum without halves. Over 2 n it is the mean of half
    squared errors plus `l2(lam)`. If your loss is the mean without the half, take twice the lam.

    Args:
      alpha: >= 0, a number or an array of them.
      n: number of examples, or the sum of their weights.

    Raises:
      ValueError: `alpha` is negative or NaN, or `n` is not > 0.

    >>> from_sklearn_ridge(10.0, n=100)
    0.1
    """
    (alpha,), (n,) = given("from_sklearn_ridge", alpha=alpha), positive("from_sklearn_ridge", n=n)
    return alpha / n


def to_sklearn_ridge(lam: Any, n: Any) -> Any:
    """alpha = lam * n, the inverse of `from_sklearn_ridge`.

    >>> to_sklearn_ridge(0.1, n=100)
    10.0
    """
    (lam,), (n,) = given("to_sklearn_ridge", lam=lam), positive("to_sklearn_ridge", n=n)
    return lam * n


def from_sklearn_lasso(alpha: Any) -> Any:
    """lam = alpha for `sklearn.linear_model.Lasso(alpha)`: the convention is jaxreg's.

    Lasso minimises |y - Xw|^2 / (2 n) + alpha |w|_1: the mean of half squared errors plus `l1(lam)`.
    celer, skglm and MultiTaskLasso count alike; C of an l1 logistic regression does not.

    >>> from_sklearn_lasso(0.1)
    0.1
    """
    return given("from_sklearn_lasso", alpha=alpha)[0]


def to_sklearn_lasso(lam: Any) -> Any:
    """alpha = lam, the inverse of `from_sklearn_lasso`.

    >>> to_sklearn_lasso(0.1)
    0.1
    """
    return given("to_sklearn_lasso", lam=lam)[0]


def from_sklearn_elastic_net(alpha: Any, l1_ratio: Any = 0.5) -> Strengths:
    """The two strengths of `sklearn.linear_model.ElasticNet(alpha, l1_ratio=...)`.

    ElasticNet minimises |y - Xw|^2 / (2 n) + alpha r |w|_1 + alpha (1 - r)/2 |w|^2, which is also
    `jaxreg.elastic_net(alpha, r)`: give it the two numbers as they are.

    Args:
      alpha: >= 0, a number or an array.
      l1_ratio: r, from 0 (ridge) to 1 (lasso).

    Raises:
      ValueError: an argument is negative or NaN, or `l1_ratio` exceeds 1.

    >>> from_sklearn_elastic_net(2.0, l1_ratio=0.25)
    Strengths(l1=0.5, l2=1.5)
    """
    alpha, r = given("from_sklearn_elastic_net", alpha=alpha, l1_ratio=l1_ratio)
    share("from_sklearn_elastic_net", "l1_ratio", r, ENDS)
    return Strengths(alpha * r, alpha * (1 - r))


def to_sklearn_elastic_net(l1: Any, l2: Any) -> tuple[Any, Any]:
    """(alpha, l1_ratio) = (l1 + l2, l1 / (l1 + l2)), the inverse of `from_sklearn_elastic_net`.

    >>> to_sklearn_elastic_net(0.5, 1.5)
    (2.0, 0.25)
    """
    l1, l2 = given("to_sklearn_elastic_net", l1=l1, l2=l2)
    above("to_sklearn_elastic_net", "l1 + l2", l1 + l2, 0)
    return l1 + l2, l1 / (l1 + l2)


def from_sklearn_logistic(C: Any, n: Any) -> Any:
    """lam = 1 / (C n) for `sklearn.linear_model.LogisticRegression(C=C)` fitted to `n` examples.

    It minimises C * (sum of log losses) + |w|^2 / 2 (or |w|_1), which over C n is the mean loss plus
    `l2(lam)` (or `l1(lam)`). Not for solver="liblinear" with an intercept, which it penalizes too.

    Args:
      C: the inverse strength, > 0, a number or an array.
      n: number of examples, or the sum of their weights.

    Raises:
      ValueError: an argument is not > 0.

    >>> from_sklearn_logistic(C=10.0, n=100)
    0.001
    """
    C, n = positive("from_sklearn_logistic", C=C, n=n)
    return 1 / (C * n)


def to_sklearn_logistic(lam: Any, n: Any) -> Any:
    """C = 1 / (lam n), the inverse of `from_sklearn_logistic`; for lam = 0 it wants C=np.inf.

    >>> to_sklearn_logistic(0.001, n=100)
    10.0
    """
    lam, n = positive("to_sklearn_logistic", lam=lam, n=n)
    return 1 / (lam * n)


def from_lars(knot: Any, n: Any) -> Any:
    """lam = knot / n for a knot of the R package lars, whose loss is |y - Xw|^2 / 2, a sum.

    scikit-learn's `lars_path` divides by n itself: its alphas are lams.

    >>> round(from_lars(949.435, n=442), 6)  # the first knot of the diabetes data
    2.148043
    """
    (knot,), (n,) = given("from_lars", knot=knot), positive("from_lars", n=n)
    return knot / n


def to_lars(lam: Any, n: Any) -> Any:
    """knot = lam * n, the inverse of `from_lars`.

    >>> to_lars(2.0, n=442)
    884.0
    """
    (lam,), (n,) = given("to_lars", lam=lam), positive("to_lars", n=n)
    return lam * n


def from_glmnet(lam: Any, alpha: Any = 1.0, *, x_std: Any = 1.0, y_std: Any = 1.0) -> Strengths:
    """The strengths on raw columns for `glmnet(x, y, alpha=, lambda=)`, standardised or not.

    glmnet penalizes the coefficients of columns divided by their deviation x_std, and hands back
    those of the raw columns; for family="gaussian" it also divides y by y_std and prints lambda
    times y_std. On the raw scale, with the mean of half squared errors,

        l1_j = lam alpha x_std_j,    l2_j = lam (1 - alpha) x_std_j^2 / y_std.

    Args:
      lam: glmnet's lambda, >= 0.
      alpha: the share of l1, 0 (ridge) to 1 (lasso).
      x_std: deviations of the columns with 1/n, in the shape of the coefficients (a kernel [d, 1]
        wants [d, 1]); 1 for standardize=FALSE.
      y_std: deviation of y with 1/n for family="gaussian"; 1 for the other families.

    Raises:
      ValueError: a negative `lam`, an `alpha` beyond 1, a deviation that is not > 0.

    Source: Friedman, Hastie & Tibshirani (2010); for y_std glmnet's
    vignette, on the gaussian family.
    >>> from_glmnet(0.5, alpha=0.2, x_std=2.0, y_std=4.0)
    Strengths(l1=0.2, l2=0.4)
    """
    lam, alpha = given("from_glmnet", lam=lam, alpha=alpha)
    share("from_glmnet", "alpha", alpha, ENDS)
    x_std, y_std = positive("from_glmnet", x_std=x_std, y_std=y_std)
    return Strengths(lam * alpha * x_std, lam * (1 - alpha) * x_std**2 / y_std)


def to_glmnet(l1: Any, l2: Any, *, x_std: Any = 1.0, y_std: Any = 1.0) -> tuple[Any, Any]:
    """(lambda, alpha) of glmnet, the inverse of `from_glmnet`, column by column.

    glmnet takes one pair for all columns: the strengths must be in proportion to the deviations
    (and their squares), else the pairs differ and it cannot express them.

    >>> lam, alpha = to_glmnet(0.2, 0.4, x_std=2.0, y_std=4.0)
    >>> round(lam, 6), round(alpha, 6)
    (0.5, 0.2)
    """
    l1, l2 = given("to_glmnet", l1=l1, l2=l2)
    x_std, y_std = positive("to_glmnet", x_std=x_std, y_std=y_std)
    return to_sklearn_elastic_net(l1 / x_std, l2 / x_std**2 * y_std)
