"""Compiling quickly: for programs that run once on a few numbers, where all the time goes into compiling.

On a CPU such a program is compiled with fewer optimisations, in less than half the time. Floating point
results may differ from the optimised ones by rounding; integers do not.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend import core

__all__ = ["answered", "quickly"]

_LESS = {"xla_backend_optimization_level": 0}
_LEAST = {**_LESS, "xla_cpu_use_fusion_emitters": False}


@functools.cache
def _options() -> dict[str, Any]:
    """What makes XLA compile quickly, as far as this version of it has such options."""
    if jax.default_backend() != "cpu":
        return {}
    for options in (_LEAST, _LESS):
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            # Compiled and not called: this may be asked for inside of a trace.
            jax.jit(jnp.negative, compiler_options=options).lower(0.0).compile()
            return options
    return {}


def quickly(function: Callable[..., Any], static: tuple[int, ...] = ()) -> Callable[..., Any]:
    """As `jax.jit` with the arguments `static`; the backend is not asked for before the first call."""

    @functools.cache
    def program() -> Callable[..., Any]:
        return jax.jit(function, static_argnums=static, compiler_options=_options())

    return functools.wraps(function)(lambda *args: program()(*args))


def answered(ask: Callable[[], Any]) -> Any:
    """`ask()` as one program that runs at once, also inside of what is being traced.

    Where it depends on values that are traced themselves it cannot run now: its numbers are then traced,
    but for those that depend on none.
    """
    closed, shapes = jax.make_jaxpr(ask, return_shape=True)()
    if any(isinstance(x, Tracer) for x in closed.consts):
        with jax.ensure_compile_time_eval():
            return ask()
    program = jax.jit(core.jaxpr_as_fun(closed), compiler_options=_options()).lower().compile()
    return jax.tree.unflatten(jax.tree.structure(shapes), program())
