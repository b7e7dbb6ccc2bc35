"""The same operators in other libraries, each called as its own users call it.

A match is one of our penalties and the peers whose operator is the same function of the same array;
strengths are converted where the conventions differ. A peer prepares what it can beforehand (objects,
compiled clones), so that only the operator is timed. Left out is what is not the same function:
pyproximal's Huber (its prox takes the linear branch too early) and its normalised logarithm.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxreg as jr

LAM, STEP, RATIO = 0.7, 0.5, 0.4
GROUP = 10  # entries of a group


class Peer(NamedTuple):
    """One library's operator: `prepare` gets the library and the array, and returns what is timed."""

    library: str
    prepare: Callable[[Any, np.ndarray], Callable[[], Any]]
    tolerance: float = 2e-5


class Match(NamedTuple):
    """Our penalty, the peers, the shape of the array, and whether the operator jumps.

    Where it jumps, an entry within rounding of the threshold may go either way.
    """

    penalty: Callable[[int], jr.Penalty]
    peers: tuple[Peer, ...]
    shape: str = "vector"
    jumps: bool = False


def library(name: str) -> Any:
    """The module, or None where it is not installed or does not import with this jax."""
    try:
        return importlib.import_module(name)
    except Exception:
        return None


def array(shape: str, n: int) -> np.ndarray:
    """Standard normal float32: n entries, in rows of `GROUP`, or a square matrix."""
    side = int(n**0.5)
    shapes = {"vector": (n,), "rows": (n // GROUP, GROUP), "matrix": (side, side)}
    return np.random.default_rng(0).normal(size=shapes[shape]).astype(np.float32)


# --- how each library is called -------------------------------------------------------------------


def jaxopt(operator: Callable[[Any], Callable[[jax.Array], Any]], tolerance: float = 2e-5) -> Peer:
    """`operator` gets the module and returns a function of the array, which is jitted."""

    def prepare(module, x):
        call, x = jax.jit(operator(module)), jnp.asarray(x)
        return lambda: call(x)

    return Peer("jaxopt", prepare, tolerance)


def pyproximal(make: Callable[[Any, np.ndarray], Any], tolerance: float = 2e-5) -> Peer:
    """`make` gets the module and the array and returns its proximal object; arrays go in flat."""

    def prepare(module, x):
        operator, flat = make(module, x), x.ravel()
        return lambda: operator.prox(flat, STEP).reshape(x.shape)

    return Peer("pyproximal", prepare, tolerance)


def skglm(make: Callable[[Any], Any], tolerance: float = 2e-5) -> Peer:
    """`make` gets skglm.penalties; the penalty is compiled, and its prox runs in skglm's own loop."""

    def prepare(module, x):
        from skglm.utils.jit_compilation import compiled_clone
        from skglm.utils.prox_funcs import _prox_vec

        penalty = compiled_clone(make(importlib.import_module("skglm.penalties")))
        return lambda: _prox_vec(np.empty_like(x), x, penalty, STEP)

    return Peer("skglm", prepare, tolerance)


def _skglm_blocks(module: Any, x: np.ndarray) -> Callable[[], Any]:
    """skglm's block operator in a compiled loop: its own vectorised one, BST_vec, does not compile.

    In float64, the only dtype that BST itself compiles for.
    """
    del module
    from numba import njit
    from skglm.utils.prox_funcs import BST

    @njit
    def loop(x, threshold):
        out = np.empty_like(x)
        for i in range(len(x)):
            out[i] = BST(x[i], threshold)
        return out

    wide = x.astype(np.float64)
    return lambda: loop(wide, LAM * STEP)


def _skglm_slope(module: Any, x: np.ndarray) -> Callable[[], Any]:
    del module
    from skglm.penalties import SLOPE

    penalty = SLOPE(np.linspace(1, 0.5, len(x)), LAM)
    return lambda: penalty.prox_vec(x, STEP)


# --- the matches ----------------------------------------------------------------------------------

MATCHES: dict[str, Match] = {
    "l1": Match(
        lambda n: jr.l1(LAM),
        (
            jaxopt(lambda m: lambda x: m.prox.prox_lasso(x, LAM, STEP)),
            pyproximal(lambda m, x: m.L1(LAM)),
            skglm(lambda m: m.L1(LAM)),
        ),
    ),
    "l2": Match(
        lambda n: jr.l2(LAM),
        (
            # Its docstring has no half; its code has.
            jaxopt(lambda m: lambda x: m.prox.prox_ridge(x, LAM, STEP)),
            pyproximal(lambda m, x: m.L2(sigma=LAM)),
        ),
    ),
    "elastic_net": Match(
        lambda n: jr.elastic_net(LAM, RATIO),
        (
            # Its second number is the ratio of the two strengths.
            jaxopt(
                lambda m: (
                    lambda x: m.prox.prox_elastic_net(x, (LAM * RATIO, (1 - RATIO) / RATIO), STEP)
                )
            ),
            skglm(lambda m: m.L1_plus_L2(LAM, RATIO)),
        ),
    ),
    "mcp": Match(lambda n: jr.mcp(LAM, gamma=3.0), (skglm(lambda m: m.MCPenalty(LAM, 3.0)),)),
    "scad": Match(
        lambda n: jr.scad(LAM, gamma=3.7),
        (skglm(lambda m: m.SCAD(LAM, 3.7)), pyproximal(lambda m, x: m.SCAD(LAM, 3.7))),
    ),
    "log_sum": Match(
        lambda n: jr.log_sum(LAM, epsilon=0.3),
        (skglm(lambda m: m.LogSumPenalty(LAM, 0.3)),),
        jumps=True,
    ),
    "l_half": Match(lambda n: jr.l_half(LAM), (skglm(lambda m: m.L0_5(LAM)),), jumps=True),
    "l_two_thirds": Match(
        lambda n: jr.l_two_thirds(LAM), (skglm(lambda m: m.L2_3(LAM)),), jumps=True
    ),
    "l0": Match(
        lambda n: jr.l0(LAM),
        # It cuts at step * sigma, where the prox of lam |x|_0 cuts at sqrt(2 step lam).
        (pyproximal(lambda m, x: m.L0((2 * LAM / STEP) ** 0.5)),),
        jumps=True,
    ),
    "box": Match(
        lambda n: jr.box(0.0, 1.0),
        (
            jaxopt(lambda m: lambda x: m.projection.projection_box(x, (0.0, 1.0))),
            pyproximal(lambda m, x: m.Box(0.0, 1.0)),
            skglm(lambda m: m.IndicatorBox(1.0)),
        ),
    ),
    "nonneg": Match(
        lambda n: jr.nonneg(),
        (
            jaxopt(lambda m: m.projection.projection_non_negative),
            skglm(lambda m: m.PositiveConstraint()),
        ),
    ),
    "group_lasso": Match(
        lambda n: jr.group_lasso(LAM, axis=0, sqrt_size=False),
        (
            jaxopt(lambda m: jax.vmap(lambda row: m.prox.prox_group_lasso(row, LAM, STEP))),
            Peer("skglm", _skglm_blocks),
        ),
        shape="rows",
    ),
    "slope": Match(
        lambda n: jr.slope(LAM, weights=np.linspace(1, 0.5, n)), (Peer("skglm", _skglm_slope),)
    ),
    "nuclear": Match(
        lambda n: jr.nuclear(LAM),
        (pyproximal(lambda m, x: m.Nuclear(x.shape, LAM), 1e-4),),
        shape="matrix",
    ),
    "simplex": Match(
        lambda n: jr.simplex(1.0),
        (
            jaxopt(lambda m: lambda x: m.projection.projection_simplex(x, 1.0)),
            pyproximal(lambda m, x: m.Simplex(x.size, 1.0), 1e-3),
        ),
    ),
    "l1_ball": Match(
        lambda n: jr.l1_ball(1.0),
        (
            jaxopt(lambda m: lambda x: m.projection.projection_l1_ball(x, 1.0)),
            pyproximal(lambda m, x: m.L1Ball(x.size, 1.0), 1e-3),
        ),
    ),
    "l2_ball": Match(
        lambda n: jr.l2_ball(1.0),
        (
            jaxopt(lambda m: lambda x: m.projection.projection_l2_ball(x, 1.0)),
            pyproximal(lambda m, x: m.EuclideanBall(0.0, 1.0)),
        ),
    ),
    "linf_ball": Match(
        lambda n: jr.linf_ball(1.0),
        (jaxopt(lambda m: lambda x: m.projection.projection_linf_ball(x, 1.0)),),
    ),
    "unit_norm": Match(
        lambda n: jr.unit_norm(axis=None),
        (jaxopt(lambda m: lambda x: m.projection.projection_l2_sphere(x, 1.0)),),
    ),
    "cardinality": Match(
        lambda n: jr.cardinality(n // 10),
        (pyproximal(lambda m, x: m.L0Ball(x.size // 10)),),
    ),
}
