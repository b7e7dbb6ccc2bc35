"""Measuring an optimizer: its metric, and the direction it points in.

eps, momentum and the decay of the second moment are in an optimizer's closures and not in its
state, so we ask (`jaxreg.coupling.probe`): put the state where a constant gradient would have brought it,
and read the updates. With q = -update / (learning_rate * gradient), at v huge, tiny and at T^2

    q(huge) = base / sqrt(v),   base / q(tiny) = T = sqrt(v + root) + eps,   base / q(T^2) = ...

three answers give base, eps and root in closed form. Momentum then answers a constant gradient
with a geometric sequence, whose limit Aitken's extrapolation gives exactly: that is the gain.
Answers to other gradients, parameters and step counts must agree with the formula, or the
optimizer is refused: in a metric that is not its own, the prox would solve another problem.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._quickly import Scan, answered
from jaxreg._tree import PyTree, is_concrete
from jaxreg.coupling import metric as metrics
from jaxreg.coupling import probe
from jaxreg.coupling.metric import Metric, Moment
from jaxreg.coupling.probe import Bench

__all__ = ["measure", "rate_at"]

Rate = ArrayLike | Callable[[Any], ArrayLike]

# Powers of two: moments kept in bfloat16 hold them exactly.
_SMALL, _TINY, _HUGE = 2.0**-12, 2.0**-40, 2.0**40
_TOLERANCE = 0.02

_INSTEAD = (
    "Use one of optax's sgd (with or without momentum), adam, adamw, nadam, amsgrad, yogi, rmsprop "
    "or adagrad here; or couple the penalty by jaxreg.add_penalty_gradient or jaxreg.decoupled, "
    "which go with every optimizer but leave no exact zeros."
)
_OUTSIDE = {
    "MultiStepsState": "Put it outside: optax.MultiSteps(jaxreg.proximal(...), k).",
    "ApplyEvery": "Use optax.MultiSteps(jaxreg.proximal(...), k) instead.",
    "LookaheadState": "Put it outside: optax.lookahead(jaxreg.proximal(...), ...).",
    "ScheduleFreeState": _INSTEAD,
}


class _Evidence(NamedTuple):
    """Pairs of answers that agree where the formula describes the optimizer, [L] each."""

    formula: list[tuple[Array, Array]]
    schedule: list[tuple[Array, Array]]


def measure(
    owner: str,
    optimizer: optax.GradientTransformation,
    params: PyTree,
    learning_rate: Rate,
    touched: Sequence[bool],
) -> Metric:
    """Find the metric of `optimizer` on each leaf by asking it.

    Args:
      owner: who asks, for messages.
      optimizer: a complete optimizer, whose update has the minus sign.
      params: the parameters; only shapes and dtypes count.
      learning_rate: that of the optimizer, a number or a schedule.
      touched: which leaves matter.

    Raises:
      ValueError: the optimizer does not answer as the formula says, has the wrong sign, moves
        nothing, or follows another schedule. Where answers are traced nothing can be judged.
    """
    if not any(touched):
        nothing = jnp.zeros(len(touched))
        return Metric(nothing, nothing, nothing, nothing)
    shapes = jax.eval_shape(lambda tree: tree, params)
    names: list[str] = []

    def ask(scan: Scan) -> tuple:
        asked, state = _begun(owner, optimizer, shapes)
        names[:] = probe.state_names(state)
        _refuse_wrappers(owner, names)
        start = _first_step(owner, learning_rate)
        rate = rate_at(learning_rate, start)
        talk = _Interview(asked, probe.advance(state, start), rate, scan)
        return _solve(talk, lambda ahead: rate_at(learning_rate, start + ahead))

    metric, formula, schedule = answered(ask)
    paths = _tree.flatten(params).paths
    _judge(owner, metric.gain, _Evidence(formula, schedule), names, paths, np.asarray(touched))
    return metric


def rate_at(learning_rate: Rate, count: ArrayLike) -> Array:
    """The learning rate at a step, from a number or a schedule."""
    return jnp.asarray(learning_rate(count) if callable(learning_rate) else learning_rate, float)


def _begun(owner: str, optimizer: Any, params: PyTree) -> tuple[Bench, PyTree]:
    try:
        return probe.bench(optimizer, params)
    except Exception as error:
        raise ValueError(
            f"{owner}: the metric of the optimizer is unknown: asked for the update of a "
            f"constant gradient it raised {type(error).__name__}: {error} {_INSTEAD}"
        ) from error


def _refuse_wrappers(owner: str, names: list[str]) -> None:
    for name in names:
        if name in _OUTSIDE:
            raise ValueError(
                f"{owner}: the optimizer keeps a {name}, and a prox after it would act on other "
                f"parameters or at other steps than the optimizer. {_OUTSIDE[name]}"
            )


def _first_step(owner: str, learning_rate: Rate) -> int:
    """A step at which the learning rate is not 0 (a warm-up starts from 0)."""
    with jax.ensure_compile_time_eval():
        for step in (0, *(2**k for k in range(21))):
            rate = learning_rate(step) if callable(learning_rate) else learning_rate
            if not is_concrete(rate):
                return 1
            if np.any(np.asarray(rate, jnp.result_type(float)) != 0):
                return step
    raise ValueError(
        f"{owner}: `learning_rate` is 0 at every step looked at, so nothing would move. Give the "
        "learning rate or the schedule that the optimizer has."
    )


class _Answer(NamedTuple):
    """q = -update / (learning_rate * gradient), and the second moment that made it: [L] each."""

    q: Array
    v: Array
    # How many steps the moment has seen; 1 where that does not matter.
    seen: Array


@dataclasses.dataclass(frozen=True)
class _Interview:
    """An optimizer on the bench, asked at one learning rate."""

    bench: Bench
    state: PyTree
    rate: Array
    scan: Scan

    def fresh(self, gradients: np.ndarray, params: np.ndarray) -> _Answer:
        """The answers of a state that has seen nothing, to gradients [q] at parameters [q]."""
        return self._each(lambda *question: self._ask(self.state, *question)[0], gradients, params)

    def settled(self, gradients: Any, seconds: Any, ahead: np.ndarray) -> _Answer:
        """The answers of states in which gradients [q] or [q, L] have been constant.

        Their second moments are given, and how many steps `ahead` their schedules are.
        """

        def answer(gradient: ArrayLike, *where: ArrayLike) -> _Answer:
            return self._ask(self._constant(gradient, *where), gradient)[0]

        return self._each(answer, gradients, seconds, ahead)

    def series(self, gradient: float, second: float, length: int) -> _Answer:
        """The answers from such a state on; schedules are held, counters of moments go on."""

        def step(state: PyTree, gradient: ArrayLike) -> tuple[PyTree, _Answer]:
            answer, new = self._ask(state, gradient)
            return probe.advance(new, -1), answer

        begin = self._constant(gradient, second, 0)
        return self.scan(step, begin, np.full(length, gradient, np.float32))[1]

    def _each(self, answer: Callable[..., _Answer], *questions: Any) -> _Answer:
        return self.scan(lambda _, question: (None, answer(*question)), None, questions)[1]

    def _constant(self, gradient: ArrayLike, second: ArrayLike, ahead: Any) -> PyTree:
        state = probe.advance(self.state, ahead)
        return metrics.settled(state, self.bench.like, gradient, second)

    def _ask(
        self, state: PyTree, gradient: ArrayLike, params: ArrayLike = 0.0
    ) -> tuple[_Answer, PyTree]:
        update, new = self.bench.ask(state, gradient, params)
        moments = self.moments(new)
        v = probe.vector([0.0 if m is None else m.value for m in moments])
        seen = [1.0 if m is None or m.seen is None else m.seen.astype(float) for m in moments]
        return _Answer(-update / _nonzero(self.rate * gradient), v, probe.vector(seen)), new

    def moments(self, state: PyTree) -> list[Moment | None]:
        return metrics.second_moments(state, self.bench.like)

    @property
    def adaptive(self) -> np.ndarray:
        """Which leaves have a second moment."""
        return np.array([m is not None for m in self.moments(self.state)], bool)

    @property
    def corrected(self) -> np.ndarray:
        """Which leaves have one whose bias is corrected."""
        moments = self.moments(self.state)
        return np.array([m is not None and m.seen is not None for m in moments], bool)


def _solve(talk: _Interview, rate: Callable[[int], Array]) -> tuple[Metric, list, list]:
    """The metric, and pairs of answers to check it and the learning rate by."""
    adaptive = talk.adaptive
    ahead = np.array([0, 100, 10_000, 0], np.int32)
    seconds = np.array([_HUGE, _HUGE, _HUGE, _SMALL**2], np.float32)
    known = talk.settled(np.full(4, _SMALL, np.float32), seconds, ahead)
    scaled = known.q * jnp.where(adaptive, jnp.sqrt(known.v), 1)
    base = scaled[0]
    tiny = talk.series(_TINY, 0.0, 7)
    top = base / _nonzero(tiny.q[0])
    middle = talk.settled(top[None] * _SMALL, top[None] ** 2, ahead[:1])
    offsets = _offsets(top, tiny.v[0], base / _nonzero(middle.q[0]), middle.v[0])
    eps, root = (jnp.where(adaptive, x, 0) for x in offsets)
    fresh = jnp.where(talk.corrected, tiny.v[0] / _TINY**2, 1)

    def response(answer: _Answer) -> Array:
        return answer.q * jnp.where(adaptive, jnp.sqrt(answer.v + root) + eps, 1)

    r = response(tiny)
    metric = Metric(_limit(r[0], r[3], r[6]), eps, root, fresh)
    formula = [
        (r[0], base),
        (metric.gain, _limit(r[0], r[2], r[4])),
        (response(known)[3], base),
        _from_the_start(talk, metric),
    ]
    # What later steps answer, beside what the learning rate there says they should.
    schedule = [(scaled[i] * talk.rate, base * rate(int(ahead[i]))) for i in (1, 2)]
    return metric, formula, schedule


def _offsets(y0: Array, v0: Array, y1: Array, v1: Array) -> tuple[Array, Array]:
    """eps and root from two points of y = sqrt(v + root) + eps, by (y - eps)^2 = v + root."""
    eps = (y0 + y1) / 2 - (v0 - v1) / (2 * _nonzero(y0 - y1))
    eps = jnp.clip(eps, 0, y0)
    return eps, jnp.maximum((y0 - eps) ** 2 - v0, 0)


def _limit(a: Array, b: Array, c: Array) -> Array:
    """The limit of a geometric sequence from three equally spaced terms (Aitken)."""
    first, second = b - a, c - b
    # Below this the sequence has arrived, and the correction would be noise over noise.
    arrived = jnp.abs(second) <= 5e-3 * jnp.abs(c)
    return c + jnp.where(arrived, 0, second**2 / _nonzero(first - second))


def _nonzero(x: Array) -> Array:
    return jnp.where(x == 0, 1, x)


def _from_the_start(talk: _Interview, metric: Metric) -> tuple[Array, Array]:
    """Two mean responses of a fresh state to +g and -g, which are free of every decay.

    Each update is divided by its own denominator first, so that it is exact for a coupled decay too.
    """
    g = _SMALL * np.array([1, -1, 8, -8], np.float32)
    q, *moment = talk.fresh(g, np.array([2**-4, 2**-4, 2**-7, 2**-7], np.float32))
    below = Moment(*moment).denominator(metric.eps, metric.root, metric.fresh)
    r = q * jnp.where(talk.adaptive, below, 1)
    return (r[0] + r[1]) / 2, (r[2] + r[3]) / 2


def _judge(
    owner: str,
    gain: Array,
    evidence: _Evidence,
    names: list[str],
    paths: Sequence[str],
    touched: np.ndarray,
) -> None:
    if not all(is_concrete(x) for x in jax.tree.leaves((gain, evidence))):
        return
    moved = np.asarray(gain)
    odd = touched & ~np.all([_agree(*pair) for pair in evidence.formula], axis=0)
    if odd.any():
        raise ValueError(
            f"{owner}: the metric of the optimizer is unknown on the leaf "
            f"{paths[int(np.argmax(odd))]!r} (states: {', '.join(names) or 'none'}): its step is not "
            "gain * learning_rate / (sqrt(second moment) + eps), and in another metric the prox "
            f"would solve another problem. {_INSTEAD}"
        )
    if (touched & (moved < 0)).any():
        raise ValueError(_wrong_sign(owner, paths[int(np.argmax(touched & (moved < 0)))]))
    if not (moved[touched] != 0).any():
        raise ValueError(
            f"{owner}: the optimizer moves none of the leaves that the penalty touches "
            f"({', '.join(repr(p) for p, t in zip(paths, touched) if t)}). Penalize other leaves."
        )
    off = touched & ~np.all([_agree(*pair) for pair in evidence.schedule], axis=0)
    if off.any():
        raise ValueError(
            f"{owner}: `learning_rate` is not the one the optimizer follows: at later steps its "
            "updates have another size than it says. Give both the same number or schedule, as in "
            f"{owner}(optax.adam(schedule), penalty, learning_rate=schedule)."
        )


def _agree(a: Array, b: Array) -> np.ndarray:
    x, y = np.asarray(a, float), np.asarray(b, float)
    with np.errstate(invalid="ignore"):
        return np.abs(x - y) <= _TOLERANCE * np.maximum(np.abs(x), np.abs(y))


def _wrong_sign(owner: str, path: str) -> str:
    return (
        f"{owner}: the update of the leaf {path!r} points along the gradient, uphill. Give a complete "
        "optimizer such as optax.adam(1e-3), not a direction such as optax.scale_by_adam(). Under "
        "optax.masked the leaves outside the mask get their bare gradient: use optax.partition with "
        "optax.set_to_zero() for them."
    )
