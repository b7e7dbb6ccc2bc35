"""Compiling quickly: for programs that run once on a few numbers, where all the time goes into compiling.

On a CPU such a program is compiled with fewer optimisations, in less than half the time. Floating point
results may differ from the optimised ones by rounding; integers do not.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.extend import core

__all__ = ["Scan", "answered", "once", "quickly"]

Scan: TypeAlias = Callable[..., tuple[Any, Any]]

_LESS = {"xla_backend_optimization_level": 0}
_LEAST = {**_LESS, "xla_cpu_use_fusion_emitters": False}

_KEPT: dict[tuple[str, str], Any] = {}  # programs by their texts
_MOST = 32


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

    def call(*args: Any) -> Any:
        with jax.disable_jit(False):
            return program()(*args)

    return functools.wraps(function)(call)


_WORKED: set[int] = set()  # processes, of which a fork inherits the numbers


def moves(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which moves what it is given to the devices: a guard is against what nobody asked for.

    Raises:
      RuntimeError: the process was forked from one in which such a function has run: jax would hang.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _WORKED and os.getpid() not in _WORKED:
            raise RuntimeError(
                f"{function.__name__}: this process was forked from one in which jax was at work and would "
                "hang. Start it anew, as by multiprocessing.get_context('spawn'), or fork before jax "
                "is used."
            )
        _WORKED.add(os.getpid())
        with jax.transfer_guard("allow"):
            return function(*args, **kwargs)

    return call


def answered(ask: Callable[[Scan], Any]) -> Any:
    """`ask(scan)` as one program that runs at once, also inside of what is being traced.

    `scan` is `lax.scan`, or does as it does by a loop of Python. The arrays that `ask` closes over are
    arguments of the program, which is kept: a question that differs from a recent one in their values
    alone compiles nothing. Where they are traced themselves it cannot run now: what depends on them is
    then traced, and all else are numbers.
    """
    try:
        closed, shapes = jax.make_jaxpr(ask, static_argnums=0, return_shape=True)(lax.scan)
    except TypeError:  # a state whose type changes at every step cannot be scanned
        closed, shapes = jax.make_jaxpr(ask, static_argnums=0, return_shape=True)(_scan)
    if any(isinstance(x, Tracer) for x in closed.consts):
        with jax.ensure_compile_time_eval():
            return ask(_scan)
    with jax.disable_jit(False):  # nothing of the user's is looked into here
        return _answer(closed, shapes)


def _answer(closed: core.ClosedJaxpr, shapes: Any) -> Any:
    # Rounding to narrow types is what an optimizer does; a program of another form would skip it elsewhere.
    options = _options() | {"xla_allow_excess_precision": False}
    program = jax.jit(_lifted(closed.jaxpr), compiler_options=options).lower(closed.consts)
    with jax.ensure_compile_time_eval():  # for what it calls back, which would be traced too
        return jax.tree.unflatten(jax.tree.structure(shapes), _compiled(program)(closed.consts))


def _scan(step: Scan, carry: Any, xs: Any) -> tuple[Any, Any]:
    """`lax.scan`, step by step."""
    ys = []
    for i in range(len(jax.tree.leaves(xs)[0])):
        carry, y = step(carry, jax.tree.map(lambda x: x[i], xs))  # noqa: B023
        ys.append(y)
    return carry, jax.tree.map(lambda *y: jnp.stack(y), *ys)


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, traced once for all arguments of one kind, in a program that calls it often.

    Unlike under a `jax.jit` of its own, arrays that it closes over stay values to that program. With
    traced ones it is called as it is, so that numbers which depend on none of them stay numbers.
    """
    known: dict[Any, tuple] = {}

    def call(*args: Any) -> Any:
        flat, structure = jax.tree.flatten(args)
        kind = structure, tuple(jax.typeof(x) for x in flat)
        if kind not in known:
            closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
            known[kind] = jax.jit(_lifted(closed.jaxpr)), closed.consts, jax.tree.structure(shapes)
        program, consts, out = known[kind]
        if any(isinstance(x, Tracer) for x in consts):
            return function(*args)
        return jax.tree.unflatten(out, program(consts, *flat))

    return call


def _lifted(jaxpr: core.Jaxpr) -> Callable[..., list]:
    """What a jaxpr computes, as a function of its constants and then its arguments."""
    return lambda consts, *args: core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, consts))(*args)


def _compiled(program: Any) -> Callable[..., Any]:
    """The program, compiled or kept. Its text tells all about it, but for the functions it calls back."""
    text = program.as_text()
    if "custom_call" in text:
        return program.compile()
    key = text, str(program.args_info)
    made = _KEPT.get(key)
    if made is None:
        made = program.compile()
        if len(_KEPT) >= _MOST:
            _KEPT.clear()
        _KEPT[key] = made
    return made
