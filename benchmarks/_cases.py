"""An example of every penalty, and the parameters it is timed on."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxreg as jr


class Case(NamedTuple):
    """An example of a penalty: how it is made for some parameters, and what it costs.

    `kind` is a word of the docstring of penalties.py; `on` says which parameters ("tree", "vector",
    "lassonet", "matrices"); `extra` counts the arrays of the parameters' size that are read beside them.
    """

    make: Callable[[Any], jr.Penalty]
    kind: str
    on: str = "tree"
    extra: int = 0


def _near(params: Any) -> Any:
    """Another array for each leaf: a centre."""
    return jax.tree.map(lambda x: 0.9 * x, params)


def _positive(params: Any) -> Any:
    return jax.tree.map(lambda x: 1 + jnp.abs(x), params)


CASES: dict[str, Case] = {
    "l1": Case(lambda p: jr.l1(0.1), "elementwise"),
    "l2": Case(lambda p: jr.l2(0.1), "elementwise"),
    "elastic_net": Case(lambda p: jr.elastic_net(0.1), "elementwise"),
    "huber": Case(lambda p: jr.huber(0.1, 1.0), "elementwise"),
    "mcp": Case(lambda p: jr.mcp(0.1), "elementwise"),
    "scad": Case(lambda p: jr.scad(0.1), "elementwise"),
    "log_sum": Case(lambda p: jr.log_sum(0.1), "elementwise"),
    "l_half": Case(lambda p: jr.l_half(0.1), "elementwise"),
    "l_two_thirds": Case(lambda p: jr.l_two_thirds(0.1), "elementwise"),
    "l0": Case(lambda p: jr.l0(0.1), "elementwise"),
    "box": Case(lambda p: jr.box(-1.0, 1.0), "elementwise"),
    "nonneg": Case(lambda p: jr.nonneg(), "elementwise"),
    "l2_sp": Case(lambda p: jr.l2_sp(0.1, _near(p)), "elementwise", extra=1),
    "ewc": Case(lambda p: jr.ewc(0.1, _near(p), _positive(p)), "elementwise", extra=2),
    "group_lasso": Case(lambda p: jr.group_lasso(0.1, axis=-1), "group"),
    "sparse_group_lasso": Case(lambda p: jr.sparse_group_lasso(0.1, axis=-1), "group"),
    "l1_minus_l2": Case(lambda p: jr.l1_minus_l2(0.1), "group"),
    "hierarchical": Case(
        lambda p: jr.hierarchical(0.1, skip="skip/*", layer="layer/*"), "search", "lassonet"
    ),
    "linf": Case(lambda p: jr.linf(0.1), "search"),
    "l1_linf": Case(lambda p: jr.l1_linf(0.1, axis=-1), "search"),
    "exclusive_lasso": Case(lambda p: jr.exclusive_lasso(0.1, axis=-1), "search"),
    "linf_ball": Case(lambda p: jr.linf_ball(1.0), "elementwise"),
    "l2_ball": Case(lambda p: jr.l2_ball(1.0), "group"),
    "max_norm": Case(lambda p: jr.max_norm(1.0), "group"),
    "unit_norm": Case(lambda p: jr.unit_norm(), "group"),
    "l1_ball": Case(lambda p: jr.l1_ball(100.0), "search"),
    "simplex": Case(lambda p: jr.simplex(), "search"),
    "cardinality": Case(lambda p: jr.cardinality(1_000), "sort"),
    "slope": Case(lambda p: jr.slope(0.1), "sort"),
    "nuclear": Case(lambda p: jr.nuclear(0.1), "matrix", "matrices"),
    "spectral_norm": Case(lambda p: jr.spectral_norm(0.1), "matrix", "matrices"),
    "orthogonal": Case(lambda p: jr.orthogonal(0.1), "matrix", "matrices"),
    "log_det": Case(lambda p: jr.log_det(0.1), "matrix", "matrices"),
    "spectral_ball": Case(lambda p: jr.spectral_ball(1.0), "matrix", "matrices"),
    "low_rank": Case(lambda p: jr.low_rank(8), "matrix", "matrices"),
}


def exported() -> list[str]:
    """The constructors of the catalogue: public functions of jaxreg.penalties that make a Penalty."""
    found = []
    for name in jr.__all__:
        thing = getattr(jr, name)
        if inspect.isfunction(thing) and thing.__module__.startswith("jaxreg.penalties"):
            made = inspect.signature(thing).return_annotation
            found += [name] * (made in ("Penalty", jr.Penalty))
    return found


# --- the parameters -------------------------------------------------------------------------------

# Convolution, dense, output and embedding: 10^7 numbers in all, and 10^4 in small.
SHAPES = {
    "conv": (3, 3, 256, 512), "dense": (2048, 3072), "out": (2048, 1000), "embedding": (940, 512)
}  # fmt: skip
SMALL = {"conv": (3, 3, 8, 16), "dense": (64, 96), "out": (64, 32), "embedding": (16, 41)}


@functools.cache
def parameters(on: str, small: bool, times: int = 1) -> Any:
    """Standard normal float32 leaves named kernel; `times` as many numbers in a vector."""
    n, side = (10**3, 16) if small else (10**6, 256)
    shapes = {
        "tree": SMALL if small else SHAPES,
        "vector": {"signal": (n * times,)},
        "lassonet": {"skip": (64, 10), "layer": (64, 150)}
        if small
        else {"skip": (4096, 10), "layer": (4096, 2431)},
        "matrices": {"first": (side, side), "second": (side, side)},
    }[on]
    rng = np.random.default_rng(0)
    draw = lambda shape: jnp.asarray(rng.standard_normal(shape, np.float32))
    return {name: {"kernel": draw(shape)} for name, shape in shapes.items()}


def size(params: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(params))
