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

__all__ = ["quickly"]

_LESS = {"xla_backend_optimization_level": 0}
_LEAST = {**_LESS, "xla_cpu_use_fusion_emitters": False}


@functools.cache
def _options() -> dict[str, Any]:
    """What makes XLA compile quickly, as far as this version of it has such options."""
    if jax.default_backend() != "cpu":
        return {}
    for options in (_LEAST, _LESS):
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            jax.jit(jnp.negative, compiler_options=options)(0.0)
            return options
    return {}


def quickly(function: Callable[..., Any], static: tuple[int, ...] = ()) -> Callable[..., Any]:
    """As `jax.jit` with the arguments `static`; the backend is not asked for before the first call."""

    @functools.cache
    def program() -> Callable[..., Any]:
        return jax.jit(function, static_argnums=static, compiler_options=_options())

    return functools.wraps(function)(lambda *args: program()(*args))
