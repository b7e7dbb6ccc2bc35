"""Convolutions in loops on a CPU.

XLA's CPU compiler brings convolutions into the layout of its fast kernels in the entry computation
only; inside the body of a loop, a convolution in another layout, such as those of a gradient, runs as
a naive loop, ten times slower. `canonical_convolutions` rewrites a function's jaxpr, after grad and
vmap and whatever model it came from, so that each convolution is a transpose, one in the fast layout,
and a transpose. Values stay equal to rounding.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

__all__ = ["canonical_convolutions", "has_convolution", "needs_rewrite"]


def canonical_convolutions(fn: Callable) -> Callable:
    """`fn` with every convolution in the layout that is fast inside loops; any pytrees in and out."""

    @functools.wraps(fn)
    def call(*args: Any) -> Any:
        # A function of its own for each call: jax finds traces by the function, and keeps them with it.
        fresh = lambda *args: fn(*args)
        closed, shapes = jax.make_jaxpr(fresh, return_shape=True)(*args)
        rewrite = has_convolution(closed.jaxpr) and needs_rewrite()
        run = functools.partial(_run, closed) if rewrite else core.jaxpr_as_fun(closed)
        flat = run(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), flat)

    return call


@functools.cache
def needs_rewrite() -> bool:
    """Whether this backend leaves a convolution inside a loop in a slow layout."""
    if jax.default_backend() != "cpu":
        return False
    slow = ("CNHW", "IHWO", "HWNC")
    image, kernel = jnp.ones((8, 8, 8, 8)), jnp.ones((8, 3, 3, 8))

    def body(carry, _):
        out = lax.conv_general_dilated(carry, kernel, (1, 1), "SAME", dimension_numbers=slow)
        return out.transpose(3, 2, 0, 1), None

    loop = jax.jit(lambda x: lax.scan(body, x, length=3)[0])
    text = loop.lower(image).compile().as_text() or ""
    return bool(re.search(r"dim_labels=(?!b01f_01io->b01f)", text))


def _run(closed: Any, *args: Any) -> list:
    """Evaluate a closed jaxpr, rewriting as it goes."""
    jaxpr, env = closed.jaxpr, {}
    read = lambda v: v.val if isinstance(v, core.Literal) else env[v]
    env.update(zip(jaxpr.constvars, closed.consts))
    env.update(zip(jaxpr.invars, args))
    for eqn in jaxpr.eqns:
        out = _equation(eqn, [read(v) for v in eqn.invars])
        env.update(zip(eqn.outvars, out))
    return [read(v) for v in jaxpr.outvars]


def _equation(eqn: Any, args: list) -> list:
    name = eqn.primitive.name
    if name == "conv_general_dilated":
        return [_convolution(*args, **eqn.params)]
    if name in _INLINE:
        body = _closed(eqn.params[_INLINE[name]])
        return _run(body, *args)
    params = {k: _rewritten(v) for k, v in eqn.params.items()}
    out = eqn.primitive.bind(*args, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


# Calls whose body can stand in their place: they mean nothing more once differentiated.
_INLINE = {
    "pjit": "jaxpr",
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}


def _closed(jaxpr: Any) -> Any:
    return jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else core.ClosedJaxpr(jaxpr, ())


def _jaxprs(value: Any) -> list:
    """The jaxprs in a parameter of an equation."""
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    return [j for v in value for j in _jaxprs(v)] if isinstance(value, (tuple, list)) else []


def has_convolution(jaxpr: Any) -> bool:
    """Whether there is a convolution in a jaxpr, however deep."""
    return any(
        eqn.primitive.name == "conv_general_dilated"
        or any(has_convolution(j) for v in eqn.params.values() for j in _jaxprs(v))
        for eqn in jaxpr.eqns
    )


def _rewritten(value: Any) -> Any:
    """A parameter with the jaxprs in it rewritten, in the form it came in."""
    if not any(has_convolution(j) for j in _jaxprs(value)):
        return value
    if isinstance(value, (tuple, list)):
        return type(value)(_rewritten(v) for v in value)
    closed = _closed(value)
    avals = [
        jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=getattr(a, "weak_type", False))
        for a in (v.aval for v in closed.jaxpr.invars)
    ]
    new = jax.make_jaxpr(lambda *args: _run(closed, *args))(*avals)
    if isinstance(value, core.ClosedJaxpr):
        return new
    if new.consts:
        raise NotImplementedError(f"a body with constants: {new.consts}")  # none is known to jax
    return new.jaxpr


def _convolution(lhs: Any, rhs: Any, *, dimension_numbers: Any, **params: Any) -> Any:
    """conv(lhs, rhs) as transposes around an NHWC x HWIO -> NHWC convolution."""
    lhs_spec, rhs_spec, out_spec = dimension_numbers
    n = lhs.ndim
    spatial = tuple(range(1, n - 1))
    lhs = jnp.transpose(lhs, (lhs_spec[0], *lhs_spec[2:], lhs_spec[1]))
    rhs = jnp.transpose(rhs, (*rhs_spec[2:], rhs_spec[1], rhs_spec[0]))
    batch_last = (0, n - 1, *spatial)
    kernel = (n - 1, n - 2, *range(n - 2))
    numbers = lax.ConvDimensionNumbers(batch_last, kernel, batch_last)
    out = lax.conv_general_dilated_p.bind(lhs, rhs, dimension_numbers=numbers, **params)
    # out is (batch, spatial..., feature); put each where out_spec wants it.
    places = dict(zip((out_spec[0], *out_spec[2:], out_spec[1]), range(n)))
    return jnp.transpose(out, [places[d] for d in range(n)])
