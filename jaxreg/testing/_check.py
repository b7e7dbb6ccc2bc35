"""Running the laws: draw, shrink, report."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg._tree import PyTree
from jaxreg.penalty import Penalty
from jaxreg.testing._case import Case, DoesNotApply, Example, LawViolation, Subject, fields
from jaxreg.testing._layout import Layout
from jaxreg.testing._registry import DRAWS, LAWS


class Report(NamedTuple):
    """What `check_penalty` found out: the laws that hold, and why the others were not tried."""

    penalty: str
    passed: tuple[str, ...]
    skipped: Mapping[str, str]

    def __repr__(self) -> str:
        head = f"{self.penalty}: {len(self.passed)} laws hold, {len(self.skipped)} do not apply"
        held = f"  hold: {', '.join(self.passed)}"
        return "\n".join([head, held, *(f"  {k}: {why}" for k, why in self.skipped.items())])


def check_penalty(
    penalty: Penalty,
    *,
    shape: tuple[int, ...] = (4, 3),
    params: PyTree | None = None,
    max_examples: int = 20,
    tolerance: float = 1e-9,
    skip: Iterable[str] = (),
) -> Report:
    """Put a penalty, yours or a built-in one, through every law that a penalty must obey.

    The laws bind value, prox, gradient, certificates and conjugate to each other, in float64, at
    drawn points with zeros, zero groups and ties; and they test what jax asks of a value: jit,
    vmap, scan, dtypes, one trace for all strengths. `LAWS` lists them, each with its statement.
    The draws are the same every time.

    Args:
      penalty: the penalty to test.
      shape: shape of the two leaves, "bias" and "kernel", that it is tested on.
      params: a pytree to test it on instead, where the structure matters (selectors, groups, a
        centre); its values do not count, and it should have a few dozen coordinates.
      max_examples: draws per law.
      tolerance: how exact the prox is, relative; raise it for a prox that iterates.
      skip: names of laws not to try.

    Returns:
      A `Report` with the laws that hold and, for the others, the reason why they do not apply.

    Raises:
      LawViolation: a law fails. It says which, in which leaf, at which step, with the smallest
        counterexample that hypothesis found. ImportError: hypothesis is not installed.
      ValueError: an unknown law in `skip`, or parameters the penalty does not accept.

    >>> import jaxreg as jr
    >>> from jaxreg.testing import check_penalty
    >>> report = check_penalty(jr.l1(0.5), max_examples=2)
    >>> "prox_minimises" in report.passed
    True
    >>> report.skipped["prox_on_a_grid"]
    'it is convex; prox_minimises covers every dimension'
    """
    unwanted = _known(skip)
    if not isinstance(penalty, Penalty):
        raise TypeError(
            f"check_penalty: `penalty` must be a jaxreg.Penalty, got {penalty!r}. Give an instance, "
            "such as l1(0.5), not the class or a function."
        )
    _hypothesis()
    with jax.enable_x64(True):
        subject = Subject(penalty, _layout(shape, params), tolerance)
        _accepts(subject)
        reasons = {name: _try(name, subject, max_examples, unwanted) for name in LAWS}
    passed = tuple(name for name, reason in reasons.items() if reason is None)
    return Report(repr(penalty), passed, {k: v for k, v in reasons.items() if v is not None})


def _known(skip: Iterable[str]) -> frozenset[str]:
    unwanted = frozenset([skip] if isinstance(skip, str) else skip)
    unknown = sorted(unwanted - set(LAWS))
    if unknown:
        raise ValueError(
            f"check_penalty: `skip` names no law with {unknown}. Laws: {', '.join(LAWS)}."
        )
    return unwanted


def _layout(shape: tuple[int, ...], params: PyTree | None) -> Layout:
    if params is None:
        params = {"bias": jnp.zeros(shape), "kernel": jnp.zeros(shape)}
    return Layout.of(params)


def _accepts(subject: Subject) -> None:
    """Let the penalty itself refuse parameters that do not suit it, in its own words."""
    template = subject.layout.tree(jnp.zeros(subject.layout.size))
    with contextlib.suppress(Exception):
        return jax.eval_shape(lambda p, x: p(x), subject.penalty, template)
    try:
        subject.penalty(template)
    except ValueError as error:
        raise ValueError(
            f"check_penalty: {subject.penalty!r} does not accept the parameters it is tested on "
            f"({error}). Give `shape` or `params` that suit it."
        ) from error


def _try(name: str, subject: Subject, max_examples: int, unwanted: frozenset[str]) -> str | None:
    """None if the law holds, else the reason why it was not tried; raises where it fails."""
    if name in unwanted:
        return "skipped by the caller"
    draws = min(max_examples, DRAWS[name] or max_examples)
    try:
        _once(name, subject, _plain(subject))
    except DoesNotApply as reason:
        return str(reason)
    except LawViolation as first:
        _search(name, subject, max(draws, 20))
        raise first from None
    _search(name, subject, draws)
    return None


def _once(name: str, subject: Subject, example: Example) -> None:
    """One example of one law; an error of the penalty's own is a violation too."""
    try:
        LAWS[name](Case(name, subject, example))
    except (DoesNotApply, LawViolation):
        raise
    except Exception as error:
        text = (str(error) or "no message").split("\n")[0]
        detail = f"it raises {type(error).__name__}: {text}"
        raise LawViolation(name, repr(subject.penalty), detail) from error


def _plain(subject: Subject) -> Example:
    k = np.arange(subject.layout.size)
    return Example(((7 * k + 3) % 11 - 5) / 4, ((5 * k + 1) % 9 - 4) / 3, 1.0, 1.0)


def _search(name: str, subject: Subject, draws: int) -> None:
    """Try drawn examples; the first failure is shrunk before it is raised."""
    if draws <= 1:
        return
    hypothesis = _hypothesis()

    def run(example: Example) -> None:
        try:
            _once(name, subject, example)
        except DoesNotApply:
            hypothesis.reject()

    run.__name__ = name
    settings = hypothesis.settings(
        max_examples=draws,
        derandomize=True,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    try:
        settings(hypothesis.given(_examples(subject))(run))()
    except LawViolation as found:
        # Hypothesis adds notes on how to run it again, which is of no use here.
        raise LawViolation(*found.args) from found.__cause__
    except hypothesis.errors.Unsatisfiable:
        pass


def _examples(subject: Subject) -> Any:
    """Points on the grid k/64, where zeros and ties are common and nothing is nearly a kink."""
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as npst

    def vector():
        ticks = npst.arrays(np.int16, subject.layout.size, elements=st.integers(-256, 256))
        return ticks.map(lambda k: k / 64.0)

    steps = st.sampled_from([1.0, 0.1, 5.0])
    factors = st.sampled_from(_factors(subject))
    return st.builds(Example, vector(), vector(), steps, factors)


def _factors(subject: Subject) -> list[float]:
    """Factors on lam: as given, and such that the points, of size 1, lie on both sides of kinks."""
    sizes = [
        float(np.max(np.abs(np.asarray(v))))
        for lam in fields(subject.penalty)
        for v in jax.tree.leaves(lam)
        if np.size(v)
    ]
    top = max(sizes, default=0.0)
    if not top > 0 or not math.isfinite(top):
        return [1.0]
    return [1.0, 0.5 / top, 0.1 / top, 2.0 / top]


@functools.cache
def _hypothesis() -> Any:
    try:
        import hypothesis
        import hypothesis.extra.numpy
    except ImportError as error:
        raise ImportError(
            "check_penalty draws its examples with hypothesis, which is not installed: "
            "pip install 'jaxreg[tests]'"
        ) from error
    return hypothesis
