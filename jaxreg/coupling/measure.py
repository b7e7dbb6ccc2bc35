"""Measuring a direction that remembers gradients: the metric it moves in.

eps, momentum and the decay of the second moment are in a transformation's closures and not in its
state, so we ask (`jaxreg.coupling.probe`): put the state where a constant gradient would have brought it,
and read the updates. With q = update / gradient, at v huge, tiny and at T^2

    q(huge) = base / sqrt(v),   base / q(tiny) = T = sqrt(v + root) + eps,   base / q(T^2) = ...

three answers give base, eps and root in closed form. Momentum then answers a constant gradient
with a geometric sequence, whose limit Aitken's extrapolation gives exactly: that is the gain.
Answers to other gradients, large ones too, parameters and step counts must agree with the formula, and
entries of a leaf must not be mixed, or the direction is refused: in a metric that is not its own, the prox
would solve another problem.
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

__all__ = ["INSTEAD", "complete_optimizer", "measure", "no_answer"]

# Powers of two: moments kept in bfloat16 hold them exactly.
_SMALL, _LARGE, _TINY, _HUGE = 2.0**-12, 2.0**20, 2.0**-40, 2.0**40
_TOLERANCE = 0.02

INSTEAD = (
    "Give one of optax's identity (for SGD), trace, ema, scale_by_adam (nesterov too), scale_by_amsgrad, "
    "scale_by_yogi, scale_by_rms or scale_by_rss, or a chain of them with clips; or couple the penalty by "
    "jaxreg.add_penalty_gradient or jaxreg.decoupled, which go with every optimizer but leave no zeros."
)


class _Evidence(NamedTuple):
    """Pairs of answers that agree where the formula describes the direction, [L] each."""

    formula: list[tuple[Array, Array]]
    schedule: list[tuple[Array, Array]]
    apart: list[tuple[Array, Array]]


def measure(
    owner: str,
    direction: optax.GradientTransformationExtraArgs,
    params: PyTree,
    touched: Sequence[bool],
    now: PyTree = None,
) -> Metric:
    """Find the metric of `direction` on each leaf by asking it.

    Args:
      owner: who asks, for messages.
      direction: an optax direction, whose update points along the gradient.
      params: the parameters; only shapes and dtypes count.
      touched: which leaves matter.
      now: a state whose injected hyperparameters hold; else those of the start.

    Raises:
      ValueError: the direction does not answer as the formula says, has the minus sign, or another size at
        later steps. Where answers are traced nothing can be judged.
    """
    if not any(touched):
        nothing = jnp.zeros(len(touched))
        return Metric(nothing, nothing, nothing, nothing)
    shapes = _tree.shapes_of(params)
    names: list[str] = []

    def ask(scan: Scan) -> tuple:
        asked, state = _begun(owner, direction, shapes)
        names[:] = probe.state_names(state)
        state = probe.advance(state, 1) if now is None else probe.injected(state, now)
        return _solve(_Interview(asked, state, scan))

    metric, evidence = answered(ask)
    paths = _tree.flatten(params).paths
    fixed = not any("Inject" in name for name in names)
    _judge(owner, metric.gain, evidence, names, paths, np.asarray(touched), fixed)
    return metric


def _begun(owner: str, direction: Any, params: PyTree) -> tuple[Bench, PyTree]:
    try:
        return probe.bench(direction, params)
    except Exception as error:
        raise ValueError(no_answer(owner, error)) from error


class _Answer(NamedTuple):
    """q = update / gradient, and the second moment that made it: [L] each."""

    q: Array
    v: Array
    # How many steps the moment has seen; 1 where that does not matter.
    seen: Array


@dataclasses.dataclass(frozen=True)
class _Interview:
    """A direction on the bench."""

    bench: Bench
    state: PyTree
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
        return _Answer(update / _nonzero(gradient), v, probe.vector(seen)), new

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


def _solve(talk: _Interview) -> tuple[Metric, _Evidence]:
    """The metric, and pairs of answers to check it by."""
    adaptive = talk.adaptive
    ahead = np.array([0, 100, 10_000, 0], np.int32)
    gradients = np.array([_SMALL, _SMALL, _SMALL, _LARGE], np.float32)
    seconds = np.array([_HUGE, _HUGE, _HUGE, _LARGE**2], np.float32)
    known = talk.settled(gradients, seconds, ahead)
    scaled = known.q * jnp.where(adaptive, jnp.sqrt(known.v), 1)
    base = scaled[0]
    tiny = talk.series(_TINY, 0.0, 7)
    top = base / _nonzero(tiny.q[0])
    near = talk.settled(
        jnp.stack([top * _SMALL, jnp.full_like(top, _SMALL)]),
        jnp.stack([top**2, jnp.full_like(top, _SMALL**2)]),
        ahead[:2] * 0,
    )
    offsets = _offsets(top, tiny.v[0], base / _nonzero(near.q[0]), near.v[0])
    eps, root = (jnp.where(adaptive, x, 0) for x in offsets)
    fresh = jnp.where(talk.corrected, tiny.v[0] / _TINY**2, 1)

    def response(answer: _Answer) -> Array:
        below = jnp.sqrt(answer.v + root[None]) + eps[None]
        return answer.q * jnp.where(adaptive[None], below, 1)

    r, large = response(tiny), response(talk.series(_LARGE, _LARGE**2, 7))
    metric = Metric(_limit(r[0], r[3], r[6]), eps, root, fresh)
    formula = [
        (r[0], base),
        (large[3], r[3]),
        (large[6], r[6]),
        (metric.gain, _limit(r[0], r[2], r[4])),
        (response(near)[1], base),
        (response(known)[3], base),
        _from_the_start(talk, metric),
    ]
    schedule = [(scaled[i], base) for i in (1, 2)]
    return metric, _Evidence(formula, schedule, talk.bench.entries(talk.state, _SMALL))


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


def _nonzero(x: ArrayLike) -> Array:
    return jnp.where(jnp.asarray(x) == 0, 1, x)


def _from_the_start(talk: _Interview, metric: Metric) -> tuple[Array, Array]:
    """Two mean responses of a fresh state to +g and -g, which are free of every decay.

    Each update is divided by its own denominator first, so that it is exact for a coupled decay too.
    """
    g = _SMALL * np.array([1, -1, 8, -8], np.float32)
    q, *moment = talk.fresh(g, np.array([2**-4, 2**-4, 2**-7, 2**-7], np.float32))
    eps, root, fresh = (x[None] for x in (metric.eps, metric.root, metric.fresh))
    below = Moment(*moment).denominator(eps, root, fresh)
    r = q * jnp.where(talk.adaptive[None], below, 1)
    return (r[0] + r[1]) / 2, (r[2] + r[3]) / 2


def _judge(
    owner: str,
    gain: Array,
    evidence: _Evidence,
    names: list[str],
    paths: Sequence[str],
    touched: np.ndarray,
    fixed: bool,
) -> None:
    if not all(is_concrete(x) for x in jax.tree.leaves((gain, evidence))):
        return
    moved = np.asarray(gain)
    of_states = f"(states: {', '.join(names) or 'none'})"
    path = lambda bad: repr(paths[int(np.argmax(bad))])
    if (bad := touched & (moved < 0)).any():
        raise ValueError(complete_optimizer(owner, paths[int(np.argmax(bad))]))
    odd = lambda pairs: touched & ~np.all([_agree(*pair) for pair in pairs], axis=0)
    if (bad := odd(evidence.formula)).any():
        raise ValueError(
            f"{owner}: the metric of the direction is unknown on the leaf {path(bad)} {of_states}: its "
            "step is not gain / (sqrt(second moment) + eps), and in another metric the prox would solve "
            f"another problem. {INSTEAD}"
        )
    if (bad := odd(evidence.apart)).any():
        raise ValueError(
            f"{owner}: the direction mixes the entries of the leaf {path(bad)} {of_states}, as by a norm "
            f"or a mean of the leaf, and has no metric entry by entry. {INSTEAD}"
        )
    if fixed and (bad := odd(evidence.schedule)).any():
        raise ValueError(
            f"{owner}: on the leaf {path(bad)} the direction has another size at later steps {of_states}. "
            "Put the schedule into `learning_rate`, which reaches the prox as well."
        )


def no_answer(owner: str, error: Exception) -> str:
    """That a direction cannot be asked."""
    return (
        f"{owner}: the metric of the direction is unknown: asked for the update of a constant gradient it "
        f"raised {type(error).__name__}: {error} {INSTEAD}"
    )


def complete_optimizer(owner: str, path: str) -> str:
    """That a direction was wanted, and an optimizer was given."""
    return (
        f"{owner}: `direction` must not have the minus sign yet, but its update of the leaf {path!r} "
        "points against the gradient: it is a complete optimizer. Give the direction alone, such as "
        "optax.scale_by_adam() for optax.adam(lr) or optax.trace(0.9) for optax.sgd(lr, momentum=0.9); the "
        "learning rate goes to `learning_rate`."
    )


def _agree(a: Array, b: Array) -> np.ndarray:
    x, y = np.asarray(a, float), np.asarray(b, float)
    with np.errstate(invalid="ignore"):
        return np.abs(x - y) <= _TOLERANCE * np.maximum(np.abs(x), np.abs(y))
