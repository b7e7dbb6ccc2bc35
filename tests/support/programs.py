"""Convex programs that scipy solves, for the duals of norms."""

import numpy as np
from scipy.optimize import minimize


def solve(goal, start, limits=(), bounds=None):
    """The minimiser of `goal`, which gives value and gradient, under (function, jacobian) >= 0."""
    rules = [{"type": "ineq", "fun": f, "jac": j} for f, j in limits]
    options = {"ftol": 1e-15, "maxiter": 500}
    return minimize(
        goal, start, jac=True, method="SLSQP", bounds=bounds, constraints=rules, options=options
    ).x


def ball(n, group, reach, offset=0):
    """|u_g|_2 <= reach."""
    at = offset + np.asarray(group)

    def slope(u):
        out = np.zeros(n)
        out[at] = -2 * u[at]
        return out

    return lambda u: reach**2 - u[at] @ u[at], slope


def sizes(groups, weights=None):
    """sqrt|g| * weights_g of each group."""
    root = np.sqrt([len(g) for g in groups])
    return list(root if weights is None else root * weights)
