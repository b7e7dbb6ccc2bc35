"""What a direction does to a gradient, stage by stage, and how large a step that makes.

A prox rests at the optimum of L + R if its step is the one the direction takes. At rest the gradient g is
constant, and each stage of a chain turns it into M g with a positive diagonal M, which it keeps:

- a stage that remembers gradients (momentum, second moments) has the metric that `measure` finds;
- one that does not, and gives 0 for 0, multiplies them by a factor, such as a clip, a constant, a schedule,
  Polyak's step or the sign: the factor is read off at every step, as what comes out over what goes in;
- one that adds something, such as the gradient of another penalty, is part of the objective if it comes
  first, before anything was scaled.

The product of all M, times the learning rate, is the step. So a clip keeps the optimum where it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxreg import _tree
from jaxreg._quickly import Scan, answered
from jaxreg._tree import PyTree, is_concrete
from jaxreg.coupling import measure, probe
from jaxreg.coupling import metric as metrics
from jaxreg.coupling.metric import Metric

__all__ = ["Direction", "name_of", "parts", "refuse_wrappers", "remembers", "unwrapped"]

_SIZES = (2.0**-12, 1.0, 2.0**20)
_ELSEWHERE = {
    "MultiStepsState": "optax.MultiSteps(jaxreg.{owner}(...), k)",
    "ApplyEvery": "optax.MultiSteps(jaxreg.{owner}(...), k)",
    "LookaheadState": "optax.lookahead(jaxreg.{owner}(...), ...)",
    "ApplyIfFiniteState": "optax.apply_if_finite(jaxreg.{owner}(...), n)",
    "ConditionallyTransformState": "optax.conditionally_mask(jaxreg.{owner}(...), ...)",
    "ConditionallyMaskState": "optax.conditionally_mask(jaxreg.{owner}(...), ...)",
    "ScheduleFreeState": "jaxreg.averaged(jaxreg.{owner}(...)), for an average",
}


def parts(tx: optax.GradientTransformation) -> list[optax.GradientTransformationExtraArgs] | None:
    """The transformations of an `optax.chain` or `named_chain`; None if it is none."""
    tx = unwrapped(tx)
    if _module(tx.update).startswith("optax"):
        inside = inspect.getclosurevars(tx.update).nonlocals
        if "update_fns" in inside:
            inits = inspect.getclosurevars(tx.init).nonlocals["init_fns"]
            pairs = zip(inits, inside["update_fns"])
            return [optax.GradientTransformationExtraArgs(*pair) for pair in pairs]
        if "transforms" in inside and "names" not in inside and _is_named(inside["transforms"]):
            return [inner for _, inner in inside["transforms"]]
    return None


def unwrapped(tx: Any) -> Any:
    """Without what optax puts around a transformation that takes no further arguments."""
    while _module(tx.update).startswith("optax") and "with_extra_args" in tx.update.__qualname__:
        tx = inspect.getclosurevars(tx.update).nonlocals["tx"]
    return tx


def name_of(tx: optax.GradientTransformation) -> str:
    """The name of optax's function that made it; "" if it is not optax's."""
    update = unwrapped(tx).update
    optax_s = _module(update).startswith("optax")
    return getattr(update, "__qualname__", "").split(".")[0] if optax_s else ""


def _module(function: Any) -> str:
    return getattr(function, "__module__", "") or ""


def _is_named(transforms: Any) -> bool:
    return isinstance(transforms, list) and all(
        isinstance(t, tuple) and isinstance(t[1], optax.GradientTransformation) for t in transforms
    )


class _Known(NamedTuple):
    """What is known of a stage."""

    kind: str  # "remembers", "factor" or "adds"
    metric: Metric | None = None  # of one that remembers
    injected: bool = False  # hyperparameters are in its state, and may change
    uniform: tuple[bool, ...] = ()  # of each leaf, whether a factor is one for all its entries
    moves: Any = True  # which leaves it lets move


class Direction:
    """An optax direction, and the step that a prox takes after it."""

    def __init__(self, owner: str, tx: optax.GradientTransformation):
        self.owner = owner
        self.tx = optax.with_extra_args_support(tx)
        self._known: dict[Any, list[_Known]] = {}

    def update(
        self,
        updates: PyTree,
        state: optax.OptState,
        params: PyTree,
        touched: Sequence[bool],
        **extra,
    ) -> tuple[PyTree, optax.OptState, list[Array]]:
        """What it makes of gradients, its new state, and the step of each leaf at a learning rate of 1."""
        known = iter(self.known(params, touched))
        steps: list[Any] = [jnp.ones(())] * len(touched)

        def run(tx: Any, updates: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
            inner = parts(tx)
            if inner is not None:
                named = isinstance(state, dict)
                new = []
                for part, old in zip(inner, state.values() if named else state):
                    updates, one = run(part, updates, old)
                    new.append(one)
                return updates, type(state)(zip(state, new)) if named else tuple(new)
            stage = next(known)
            after, new = tx.update(updates, state, params, **extra)
            for i, step in enumerate(self._steps(tx, stage, updates, after, (state, new), params)):
                steps[i] = steps[i] * step
            return after, new

        updates, state = run(self.tx, updates, state)
        return updates, state, steps

    def _steps(
        self, tx: Any, stage: _Known, before: PyTree, after: PyTree, states: tuple, params: PyTree
    ) -> list[Any]:
        if stage.kind == "adds":
            return [1.0] * len(stage.uniform)
        if stage.metric is None:
            pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), stage.uniform)
            return [_factor(*pair) for pair in pairs]
        metric = stage.metric
        if stage.injected:
            touched = [True] * len(jax.tree.leaves(params))
            metric = measure.measure(self.owner, tx, _tree.shapes_of(params), touched, states[0])
        return metrics.steps(metric, states[1], params, 1.0)

    def known(self, params: PyTree, touched: Sequence[bool]) -> list[_Known]:
        """What is known of each stage, in the order of the chain.

        Raises:
          ValueError: it has no metric, or the minus sign; see the module.
        """
        shapes = _tree.shapes_of(params)
        leaves, structure = jax.tree.flatten(shapes)
        key = structure, tuple((x.shape, x.dtype) for x in leaves), tuple(touched)
        if key not in self._known:
            found = self._ask(shapes, touched)
            if not all(is_concrete(x) for x in jax.tree.leaves([k.metric for k in found])):
                return found  # of what is being traced, which must not stay
            self._known[key] = found
        return self._known[key]

    def _ask(self, params: PyTree, touched: Sequence[bool]) -> list[_Known]:
        if not any(touched):
            return [_Known("adds", uniform=(True,) * len(touched)) for _ in _stages(self.tx)]
        refuse_wrappers(self.owner, self.tx, params)
        found: list[_Known] = []
        scaled = False
        for tx in _stages(self.tx):
            found.append(_ask_stage(self.owner, tx, params, touched))
            adds = found[-1].kind == "adds"
            scaled |= not adds and not changes_nothing(tx, params)
            if adds and scaled:
                raise ValueError(
                    f"{self.owner}: the direction adds something to gradients that were scaled or averaged "
                    "before, such as a weight decay after Adam, and rests at no optimum then. Put it into "
                    "the penalty, or first in the chain: jaxreg.add_penalty_gradient(...)."
                )
        moved = np.asarray(touched)
        for known in found:
            moved = moved & known.moves
        if not moved.any():
            names = [repr(p) for p, t in zip(_tree.flatten(params).paths, touched) if t]
            raise ValueError(
                f"{self.owner}: the direction moves none of the leaves that the penalty touches "
                f"({', '.join(names[:6])}). Penalize other leaves."
            )
        return found


def refuse_wrappers(owner: str, tx: Any, params: PyTree) -> None:
    """Refuse what acts at other steps, or on other parameters, than what comes after it.

    Raises:
      ValueError: with how to put it outside.
    """
    try:
        state = jax.eval_shape(tx.init, params)
    except Exception:  # it is asked again, and says it better
        return
    for name in probe.state_names(state):
        if name in _ELSEWHERE:
            raise ValueError(
                f"{owner}: the direction keeps a {name}: it acts at other steps or on other parameters "
                f"than what comes after it. Put it outside: {_ELSEWHERE[name].format(owner=owner)}."
            )


def _ask_stage(owner: str, tx: Any, params: PyTree, touched: Sequence[bool]) -> _Known:
    state = _state_of(tx, params)
    if remembers(tx, params):
        injected = state is not None and any("Inject" in n for n in probe.state_names(state))
        metric = measure.measure(owner, tx, params, touched)
        moves = np.asarray(metric.gain) != 0 if is_concrete(metric.gain) else True
        return _Known("remembers", metric, injected, moves=moves)
    uniform = (True,) * len(touched)
    if name_of(tx) == "identity":
        return _Known("factor", uniform=uniform)
    try:
        answers = _factors(tx, params)
    except Exception as error:
        raise ValueError(measure.no_answer(owner, error)) from error
    if not all(map(is_concrete, answers)):
        return _Known("factor", uniform=(False,) * len(touched))
    zero, low, high = map(np.asarray, answers)
    if (np.asarray(touched) & np.isfinite(zero) & (zero != 0)).any():
        return _Known("adds", uniform=uniform)
    _refuse_factor(owner, low, high, probe.state_names(state), params, np.asarray(touched))
    same = np.all(high - low <= 1e-4 * np.abs(high), axis=0)
    return _Known("factor", uniform=tuple(same.tolist()), moves=np.any(high != 0, axis=0))


def changes_nothing(tx: Any, params: PyTree) -> bool:
    """Whether it hands gradients on as they are."""
    if name_of(tx) == "identity":
        return True
    try:
        answers = None if remembers(tx, params) else _factors(tx, params)
    except Exception:  # what cannot be asked is not known to be harmless
        return False
    if answers is None or not all(map(is_concrete, answers)):
        return False
    zero, low, high = map(np.asarray, answers)
    return bool((zero == 0).all() and (low == 1).all() and (high == 1).all())


def _factors(tx: Any, params: PyTree) -> tuple[Array, Array, Array]:
    """Of each leaf what it makes of 0 [L], and the least and largest factor of some gradients [q, L]."""

    def ask(scan: Scan) -> tuple[Array, ...]:
        del scan
        asked, begin = probe.bench(tx, params, at=1.0)
        begin = probe.advance(begin, 1)
        zero = probe.largest(asked.answer(asked.tree(0.0), begin, asked.tree(1.0))[0])
        ratios = []
        for size in _SIZES:
            given = asked.pattern(size)
            for at in (0.0, 1.0):
                got = asked.answer(given, begin, asked.tree(at))[0]
                ratios.append(jax.tree.map(lambda a, b: b / jnp.where(a == 0, 1, a), given, got))
        of = lambda fn: jnp.stack([probe.vector(jax.tree.map(fn, r)) for r in ratios])
        return zero, of(lambda r: jnp.min(r)[None]), of(lambda r: jnp.max(r)[None])

    return answered(ask)


def _refuse_factor(
    owner: str,
    low: np.ndarray,
    high: np.ndarray,
    names: list[str],
    params: PyTree,
    touched: np.ndarray,
) -> None:
    path = lambda bad: _tree.flatten(params).paths[int(np.argmax(bad))]
    if (bad := touched & np.all(high < 0, axis=0)).any():
        raise ValueError(measure.complete_optimizer(owner, path(bad)))
    still = np.all(high == 0, axis=0) & np.all(low == 0, axis=0)
    if (bad := touched & ~still & ~np.all((low > 0) & np.isfinite(high), axis=0)).any():
        raise ValueError(
            f"{owner}: the direction mixes the entries of the leaf {path(bad)!r} (states: "
            f"{', '.join(names) or 'none'}): what it makes of some gradients is 0 or has another "
            f"sign, so it is no factor that a prox could have. {measure.INSTEAD}"
        )


def _state_of(tx: Any, params: PyTree) -> PyTree | None:
    try:
        return jax.eval_shape(tx.init, params)
    except Exception:  # it is asked again, and says it better
        return None


def remembers(tx: Any, params: PyTree) -> bool:
    """Whether its state grows with the parameters: what has their shapes keeps gradients."""
    state = _state_of(tx, params)
    more = jax.tree.map(lambda x: jax.ShapeDtypeStruct((3, *x.shape), x.dtype), params)
    larger = _state_of(tx, more)
    if state is None or larger is None:
        return True
    return [x.shape for x in jax.tree.leaves(state)] != [x.shape for x in jax.tree.leaves(larger)]


def _factor(before: Array, after: Array, uniform: bool) -> Array:
    """What a stage multiplies a gradient by; where there is none, the mean of the others."""
    if not _tree.is_floating(before):
        return jnp.ones(())
    a, b = (x.astype(_tree.accumulator(x)) for x in (before, after))
    if uniform:
        size = jnp.sum(jnp.abs(a))
        return jnp.where(size > 0, jnp.sum(jnp.abs(b)) / jnp.where(size > 0, size, 1), 1)
    return metrics.where_seen(lambda r: r, jnp.where(a == 0, 0, b / jnp.where(a == 0, 1, a)))


def _stages(tx: Any) -> Iterator[optax.GradientTransformationExtraArgs]:
    inner = parts(tx)
    if inner is None:
        yield optax.with_extra_args_support(tx)
    else:
        for part in inner:
            yield from _stages(part)
