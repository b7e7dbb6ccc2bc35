"""An example of every penalty, and the parameters it is timed on."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxreg as jr


class Case(NamedTuple):
    """An example of a penalty: how it is made for some parameters, and what it costs.

    `kind` is a word of the docstring of penalties.py; `on` names the parameters, see `shapes`;
    `extra` counts the arrays of the parameters' size that are read beside them.
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


def _by_four(params: Any) -> Any:
    """Labels of groups of four rows."""
    (rows, _), *_ = (x.shape for x in jax.tree.leaves(params))
    return np.arange(rows) // 4


def _windows(params: Any) -> list[np.ndarray]:
    """Groups of four features that share two with the next, as many as there are copies for."""
    (rows, _), *_ = (x.shape for x in jax.tree.leaves(params))
    return [np.arange(2 * i, 2 * i + 4) for i in range(rows // 4)]


# A comma begins what tells several examples of one penalty apart.
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
    "group_lasso, labels": Case(
        lambda p: jr.group_lasso(0.1, axis=0, groups=_by_four(p)), "group", "rows"
    ),
    "overlapping_group_lasso": Case(
        lambda p: jr.overlapping_group_lasso(0.1, _windows(p)), "group", "rows"
    ),
    "sparse_group_lasso": Case(lambda p: jr.sparse_group_lasso(0.1, axis=-1), "group"),
    "l1_minus_l2": Case(lambda p: jr.l1_minus_l2(0.1), "group"),
    "fused_lasso": Case(lambda p: jr.fused_lasso(0.1), "linear", "vector"),
    "total_variation": Case(lambda p: jr.total_variation(0.1), "linear", "vector"),
    "total_variation, image": Case(
        lambda p: jr.total_variation(0.1, axis=(0, 1)), "iterative", "matrices"
    ),
    "trend_filter": Case(lambda p: jr.trend_filter(0.1), "iterative", "signal"),
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
    "cardinality": Case(lambda p: jr.cardinality(1_000), "search"),
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
            made = typing.get_type_hints(thing)["return"]
            found += [name] * (isinstance(made, type) and issubclass(made, jr.Penalty))
    return found


def examples() -> list[str]:
    """The names in CASES of what jaxreg exports."""
    there = set(exported())
    return [name for name in CASES if penalty_of(name) in there]


def penalty_of(name: str) -> str:
    """The penalty that an entry is an example of."""
    return name.split(",")[0]


# --- the parameters -------------------------------------------------------------------------------


def shapes(on: str, small: bool, times: int = 1) -> dict[str, tuple[int, ...]]:
    """Shapes of the leaves: 10^7 numbers in all where a penalty takes them, fewer where not.

    `times` as many numbers in a vector or signal.
    """
    large = {
        # Convolution, dense, output and embedding.
        "tree": {
            "conv": (3, 3, 256, 512),
            "dense": (2048, 3072),
            "out": (2048, 1000),
            "in": (940, 512),
        },
        "rows": {"rows": (100_000, 100)},
        "lassonet": {"skip": (4096, 10), "layer": (4096, 2431)},
        "vector": {"vector": (1_000_000 * times,)},
        "signal": {"signal": (10_000 * times,)},
        "matrices": {"first": (256, 256), "second": (256, 256)},
    }
    tiny = {
        "tree": {"conv": (3, 3, 8, 16), "dense": (64, 96), "out": (64, 32), "in": (16, 41)},
        "rows": {"rows": (100, 100)},
        "lassonet": {"skip": (64, 10), "layer": (64, 150)},
        "vector": {"vector": (1_000 * times,)},
        "signal": {"signal": (100 * times,)},
        "matrices": {"first": (16, 16), "second": (16, 16)},
    }
    return (tiny if small else large)[on]


@functools.cache
def parameters(on: str, small: bool, times: int = 1) -> Any:
    """Standard normal float32 leaves, each a kernel of its own layer."""
    rng = np.random.default_rng(0)
    draw = lambda shape: jnp.asarray(rng.standard_normal(shape, np.float32))
    return {n: {"kernel": draw(shape)} for n, shape in shapes(on, small, times).items()}


def size(params: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(params))
