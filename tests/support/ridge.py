"""Data for ridge regressions, and scikit-learn's answer to them."""

import numpy as np
from sklearn.linear_model import Ridge

from jaxreg.tune._ridge_groups import Grouped


def data(n, p, seed=0, responses=None):
    """Columns of different sizes; y is [n], or [n, responses]."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * rng.uniform(0.5, 2, p) + 1
    w = rng.normal(size=(p,) if responses is None else (p, responses))
    y = x @ w + rng.normal(size=(n, *w.shape[1:])) + 3
    return x, y


def in_groups(n, p, seed=0, responses=None, sizes=(2.0, 0.3, 0.0), noise=1.0):
    """Three groups of columns, with coefficients of three sizes, and the group of each."""
    rng = np.random.default_rng(seed)
    group = np.arange(p) % 3
    w = rng.normal(size=(p, responses or 1)) * np.asarray(sizes)[group][:, None]
    x = rng.normal(size=(n, p)) + 1
    y = x @ w + noise * rng.normal(size=(n, responses or 1)) + 3
    return x, y if responses else y[:, 0], group


def fitted(x, y, kappa, intercept):
    """(X'X + κ I) w = X'y."""
    return Ridge(alpha=kappa, fit_intercept=intercept, solver="svd").fit(x, y)


def grouped(x, y, group, by, intercept=True):
    return Grouped.of(x, y.reshape(len(x), -1), group, by, intercept)
