"""One example under one law: a penalty, points, a step, and the words for what went wrong."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jaxreg import _tree
from jaxreg.penalty import Penalty
from jaxreg.testing import _compiled
from jaxreg.testing._layout import Layout

WIDTH = 8  # points per example
WIDE = 64  # candidates per example


class DoesNotApply(Exception):
    """A law has nothing to say of this penalty; the text is the reason."""


class LawViolation(AssertionError):
    """A penalty breaks a law.

    Attributes:
      law: the name of the law, a key of `LAWS`.
      penalty: the penalty's repr, with the strengths of the counterexample.
      leaf: path of the leaf where it shows, or None.
      step: the prox step of the counterexample, or None.
      detail: what is wrong, in a sentence.
    """

    def __init__(
        self,
        law: str,
        penalty: str,
        detail: str,
        leaf: str | None = None,
        step: float | None = None,
        shown: str = "",
    ):
        self.law, self.penalty, self.detail, self.leaf, self.step = law, penalty, detail, leaf, step
        self.shown = shown
        super().__init__(law, penalty, detail, leaf, step, shown)

    def __str__(self) -> str:
        spots = [] if self.leaf is None else [f"leaf {self.leaf!r}"]
        spots += [] if self.step is None else [f"step {self.step:g}"]
        where = f"\n  where: {', '.join(spots)}" if spots else ""
        return f"{self.penalty} breaks the law {self.law!r}: {self.detail}{where}{self.shown}"


class Example(NamedTuple):
    """What hypothesis draws: two points [n], a prox step, and a factor on the strengths."""

    x: np.ndarray
    y: np.ndarray
    step: float
    factor: float


@dataclasses.dataclass(frozen=True)
class Subject:
    """A penalty under test and the parameters it is tested on."""

    penalty: Penalty
    layout: Layout
    tolerance: float

    @functools.cached_property
    def refusals(self) -> dict[str, str | None]:
        """Why the penalty does not do something, or None where it does."""
        pen, tree = self.penalty, self.layout.tree(jnp.zeros(self.layout.size))
        step = jnp.ones(())
        calls: dict[str, Callable[..., Any]] = {
            "prox": lambda x, s: pen.prox(x, s),
            "metric": lambda x, s: pen.prox(x, jax.tree.map(lambda v: s + 0 * v, x)),
            "reverse": lambda x, s: jax.vjp(lambda x: pen.prox(x, s), x)[1](x),
            "subgradient": lambda x, s: pen.min_norm_subgradient(x, x),
            "lambda_max": lambda x, s: pen.lambda_max(x),
            "conjugate": lambda x, s: pen.conjugate(x),
        }
        return {name: refusal(call, tree, step) for name, call in calls.items()}

    @functools.cached_property
    def is_indicator(self) -> bool:
        """Whether R takes no values but 0 and inf, and both: a constraint."""
        points = np.outer([0, 0.01, 1, 100], spread_out(self.layout.size))
        rows = np.concatenate([points, -points, [np.ones(self.layout.size), -points[2] * 7]])
        seen = values(self.layout, self.penalty, rows)
        if np.isfinite(seen).all() or self.refusals["prox"] is not None:
            return False
        moved = _compiled.proxes(self.layout, self.penalty, rows[:WIDTH], np.ones(WIDTH))
        inside = values(self.layout, self.penalty, np.asarray(moved))
        return bool(np.all(inside == 0) and np.all(seen[np.isfinite(seen)] == 0))

    @property
    def has_lam(self) -> bool:
        """Whether any part has a strength called `lam`."""
        return bool(fields(self.penalty))


def refusal(call: Callable[..., Any], *args: Any) -> str | None:
    """Why `call` refuses these shapes, or None if it does not."""
    try:
        _compiled.shapes(call, *args)
    except (ValueError, NotImplementedError) as error:
        return (str(error) or type(error).__name__).split(". ")[0].split("\n")[0]
    except Exception:
        return None  # no refusal but a bug: the law that needs it will say so
    return None


def fields(penalty: Penalty, name: str = "lam") -> list[Any]:
    """The values of the field `name` in all parts of a penalty."""
    found: list[Any] = []
    penalty.map_field(name, lambda value: found.append(value) or value)
    return found


def times(penalty: Penalty, factor: float) -> Penalty:
    """`penalty` with every `lam` multiplied."""
    if factor == 1:
        return penalty
    return penalty.map_field("lam", lambda lam: jax.tree.map(lambda v: v * factor, lam))


def values(layout: Layout, penalty: Penalty, points: np.ndarray) -> np.ndarray:
    """R of points [k, n] with any k, through one compiled width."""
    if len(points) > WIDE:
        rest = values(layout, penalty, points[WIDE:])
        return np.concatenate([values(layout, penalty, points[:WIDE]), rest])
    padded = np.concatenate([points, np.repeat(points[:1], WIDE - len(points), 0)])
    return np.asarray(_compiled.values(layout, penalty, padded))[: len(points)]


def spread_out(n: int) -> np.ndarray:
    """Numbers in (0, 1) [n], well apart from each other and in no order.

    Multiples of the golden ratio modulo 1, shuffled: in order they would make matrices of low rank.
    """
    golden = np.mod(0.137 + 0.6180339887498949 * np.arange(n), 1.0)
    return golden[np.random.default_rng(0).permutation(n)]


class Case:
    """What a law is given: `require` states it, the rest computes."""

    def __init__(self, law: str, subject: Subject, example: Example):
        self.law, self.subject, self.layout = law, subject, subject.layout
        self.penalty = times(subject.penalty, example.factor)
        self.x, self.y, self.step = example.x, example.y, example.step
        self.tolerance = subject.tolerance

    @functools.cached_property
    def points(self) -> np.ndarray:
        """Eight points [8, n] around the drawn ones, with zeros in every pattern that matters."""
        x, y = self.x, self.y
        first = np.where(np.arange(x.size) == 0, x, 0)
        zero = 0 * x
        return np.stack([x, y, x - y, 0.1 * x, 10 * y, self.zeroed(x), zero, first])

    @functools.cached_property
    def generic(self) -> np.ndarray:
        """Eight points [8, n] with no zeros and no ties: R is smooth around them."""
        # Drawn coordinates are multiples of 1/64, so a shift below that makes all of them differ.
        shift = 0.002 + 0.01 * spread_out(self.x.size)
        x, y = self.x + shift, self.y + shift[::-1]
        rows = [x, y, 0.5 * x + 0.4 * y, 0.3 * x, 3 * y, -x, -0.7 * y, x * np.roll(y, 1)]
        return np.stack(rows)

    def zeroed(self, x: np.ndarray) -> np.ndarray:
        """`x` with whole zero groups: first and last slices of every axis, and the last leaf."""
        x = x.copy()
        blocks = list(self.layout.blocks(x).values())
        for block in blocks:
            for axis in range(block.ndim):
                if block.shape[axis] > 1:
                    np.moveaxis(block, axis, 0)[-1] = 0
        if len(blocks) > 1:
            blocks[-1][...] = 0
        return x

    def need(self, *abilities: str) -> None:
        """Skip the law unless the penalty does these."""
        for name in abilities:
            reason = self.subject.refusals[name]
            if reason is not None:
                raise DoesNotApply(reason)

    def value(self, points: np.ndarray, penalty: Penalty | None = None) -> np.ndarray:
        return values(self.layout, penalty or self.penalty, points)

    def finite_value(self, points: np.ndarray, penalty: Penalty | None = None) -> np.ndarray:
        """R of the points, or no law where one lies outside its domain."""
        found = self.value(points, penalty)
        if np.isinf(found).any():
            raise DoesNotApply("R is infinite there: it is a constraint, or has one")
        return found

    def prox(self, points: np.ndarray, penalty: Penalty | None = None, step=None) -> np.ndarray:
        self.need("prox")
        steps = np.full(len(points), self.step) if step is None else np.asarray(step)
        return np.asarray(_compiled.proxes(self.layout, penalty or self.penalty, points, steps))

    def gradient(self, points: np.ndarray, penalty: Penalty | None = None) -> np.ndarray:
        return np.asarray(_compiled.gradients(self.layout, penalty or self.penalty, points))

    def subgradient(self, points: np.ndarray, grads: np.ndarray) -> np.ndarray:
        self.need("subgradient")
        return np.asarray(_compiled.subgradients(self.layout, self.penalty, points, grads))

    def require(
        self,
        good: npt.ArrayLike,
        detail: str,
        blame: np.ndarray | None = None,
        step: Any = None,
        **shown: np.ndarray,
    ) -> None:
        """Break the law at the first row where `good` is False.

        `blame` [k, n] is largest in the leaf at fault; `shown` arrays are printed at that row.
        """
        flags = np.atleast_1d(good)
        if flags.all():
            return
        row = int(np.argmin(flags))
        leaf = None
        if blame is not None:
            sizes = np.abs(np.nan_to_num(blame[row], nan=np.inf))
            leaf = self.layout.owner(int(np.argmax(sizes)))
        at = {name: np.asarray(array)[row] for name, array in shown.items()}
        if np.ndim(step):
            step = float(np.ravel(np.asarray(step)[row])[0])
        self.fail(detail, leaf, step, **at)

    def fail(
        self, detail: str, leaf: str | None = None, step: float | None = None, **shown: np.ndarray
    ) -> NoReturn:
        text = "".join(f"\n  {name} = {self._text(value, leaf)}" for name, value in shown.items())
        raise LawViolation(self.law, repr(self.penalty), detail, leaf, step, text)

    def _text(self, value: Any, leaf: str | None) -> str:
        """A number, or a point: all leaves if they are few numbers, else the one at fault."""
        if np.ndim(value) == 0:
            return f"{value:.6g}"
        blocks = self.layout.blocks(np.asarray(value))
        if leaf is not None and np.size(value) > 8:
            return _short(blocks[leaf])
        return ", ".join(f"{path or 'params'}: {_short(block)}" for path, block in blocks.items())


def _short(block: np.ndarray) -> str:
    if block.size and (block == block.flat[0]).all():
        return f"all {block.flat[0]:.6g}" if block.size > 1 else f"{block.flat[0]:.6g}"
    return np.array2string(block, precision=6, separator=", ", threshold=60).replace("\n", "")


def is_float(x: Any) -> bool:
    return _tree.is_floating(x)
