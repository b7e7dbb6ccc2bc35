"""The two iterations behind `jaxreg.prox.iterative`: an image's dual, and a signal with its slopes."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxreg.prox.fused import total_variation

__all__ = ["ImageDual", "Trend", "regression_line", "relative"]

Pair = tuple[Array, Array]


class ImageDual(NamedTuple):
    """Total variation of an image, as a projection: z = image - D'u with u in a box or in discs.

    The dual variables u are one per pixel and direction; those past the edge stay 0, so shifting by
    one and back needs no padding.
    """

    image: Array
    level: Array
    axes: tuple[int, int]
    isotropic: bool

    def primal(self, u: Pair) -> Array:
        """image - D'u."""
        moves = [jnp.roll(v, 1, a) - v for v, a in zip(u, self.axes)]
        return self.image - moves[0] - moves[1]

    def differences(self, z: Array) -> Pair:
        first, second = (
            jnp.where(_at_end(z, a), 0, jnp.roll(z, -1, a) - z) for a in self.axes
        )  # fmt: skip
        return first, second

    def step(self, state: tuple[Pair, Pair, Array]) -> tuple[Pair, Pair, Array]:
        """Accelerated projected gradient; 8 is the largest eigenvalue of D D'."""
        u, v, momentum = state
        slopes = self.differences(self.primal(v))
        new = self._project((v[0] + slopes[0] / 8, v[1] + slopes[1] / 8))
        ahead = sum(self._sum((q - n) * (n - p)) for p, q, n in zip(u, v, new))
        after = jnp.where(ahead > 0, 1, (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2)
        push = jnp.where(ahead > 0, 0, (momentum - 1) / after)
        return new, (new[0] + push * (new[0] - u[0]), new[1] + push * (new[1] - u[1])), after

    def answer(self, u: Pair) -> Array:
        """The flat image, which is 0, where it is bound to be nearer than `primal`; else that."""
        z, gap, flat = self._gaps(u)
        return jnp.where(gap < flat, z, 0)

    def error(self, u: Pair, size: Array) -> Array:
        """The bound on the relative error of `answer`."""
        _, gap, flat = self._gaps(u)
        return relative(jnp.where(gap < flat, gap, flat), size)

    def _gaps(self, u: Pair) -> tuple[Array, Array, Array]:
        """z = `primal`, its duality gap, sum (level |Dz| - u Dz) of terms >= 0, and that of z = 0.

        A strong level multiplies the rounding of Dz, so only the second can then be seen to close.
        """
        z = self.primal(u)
        slopes = self.differences(z)
        lengths = _length(slopes) if self.isotropic else jnp.abs(slopes[0]) + jnp.abs(slopes[1])
        gap = self.level * lengths - u[0] * slopes[0] - u[1] * slopes[1]
        return z, self._sum(gap), 0.5 * self._sum(z**2)

    def _project(self, u: Pair) -> Pair:
        if not self.isotropic:
            return jnp.clip(u[0], -self.level, self.level), jnp.clip(u[1], -self.level, self.level)
        length = _length(u)
        long = length > self.level
        factor = jnp.where(long, self.level / jnp.where(long, length, 1), 1)
        return factor * u[0], factor * u[1]

    def _sum(self, v: Array) -> Array:
        return jnp.sum(v, self.axes, keepdims=True)


def _at_end(z: Array, axis: int) -> Array:
    return lax.broadcasted_iota(jnp.int32, z.shape, axis) == z.shape[axis] - 1


def _length(u: Pair) -> Array:
    square = u[0] ** 2 + u[1] ** 2
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


class Trend(NamedTuple):
    """Trend filtering as total variation of the slopes: min |z - signal|^2 / 2 + level tv(a), a = Dz.

    ADMM with rho = 3 level. State: the slopes a, the scaled multipliers v, and z. The last axis runs
    along the signal, whose regression line is 0. `level` is one per signal, or one per bend.
    """

    signal: Array
    level: Array

    @classmethod
    def of(cls, signal: Array, level: Array, free: Array) -> Trend:
        """Level 0 at `free` bends; where none is, what makes a straight line is cut to less that does."""
        u = jnp.cumsum(jnp.cumsum(lax.stop_gradient(signal), -1), -1)
        straight = jnp.max(jnp.abs(u), -1, keepdims=True, initial=0)
        cut = jnp.minimum(level, 2 * straight)
        return cls(
            signal, jnp.where(jnp.any(free, -1, keepdims=True), jnp.where(free, 0, level), cut)
        )

    @property
    def rho(self) -> Array:
        level = jnp.max(self.level, -1, keepdims=True, initial=0)
        return jnp.where(level > 0, 3 * level, 1)

    def step(self, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        a, v, _ = state
        z = self._smooth(self.signal + self.rho * _backward(a + v))
        slopes = jnp.diff(z)
        a = total_variation(slopes - v, self.level / self.rho)
        return a, v + a - slopes, z

    def primal(self, state: tuple[Array, Array, Array]) -> Array:
        """The signal near z whose slopes are a, so that it bends only where a jumps."""
        a, _, z = state
        shift = jnp.pad(jnp.cumsum(a - jnp.diff(z), -1), _edge(z, 1, 0))
        return z + shift - jnp.mean(shift, -1, keepdims=True)

    def error(self, state: tuple[Array, Array, Array], size: Array) -> Array:
        """The bound on the relative error of `primal`, from the dual point that v stands for."""
        a, v, _ = state
        v = self.rho * v
        u = jnp.cumsum(v, -1)[..., :-1]
        # Where the level is 0, so is u, up to rounding.
        over = jnp.where(self.level > 0, jnp.abs(u) / jnp.where(self.level > 0, self.level, 1), 0)
        inside = 1 / jnp.maximum(1, jnp.max(over, -1, keepdims=True, initial=0))
        bends = jnp.diff(a)
        off = self.primal(state) - self.signal - inside * _backward(v)
        gap = jnp.sum(self.level * jnp.abs(bends) - inside * u * bends, -1, keepdims=True)
        return relative(gap + 0.5 * jnp.sum(off**2, -1, keepdims=True), size)

    def _smooth(self, right: Array) -> Array:
        """Solve (I + rho D'D) z = right: tridiagonal, positive definite."""
        n = right.shape[-1]
        at = jnp.arange(n).reshape((1,) * (right.ndim - 1) + (n,))
        inner = jnp.broadcast_to(jnp.where(at > 0, -self.rho, 0), right.shape)
        ends = (at == 0) | (at == n - 1)
        middle = jnp.broadcast_to(1 + self.rho * jnp.where(ends, 1, 2), right.shape)
        upper = jnp.flip(inner, -1)
        return lax.linalg.tridiagonal_solve(inner, middle, upper, right[..., None])[..., 0]


def regression_line(y: Array) -> Array:
    """The least-squares line through each signal [..., n]."""
    n = y.shape[-1]
    at = (jnp.arange(n, dtype=y.dtype) - (n - 1) / 2).reshape((1,) * (y.ndim - 1) + (n,))
    slope = jnp.sum(at * y, -1, keepdims=True) / jnp.sum(at**2)
    return jnp.mean(y, -1, keepdims=True) + slope * at


def relative(gap: Array, size: Array) -> Array:
    """sqrt(2 gap) / |x| of a duality gap and |x|^2; 0 for an x that the penalty does not see."""
    known = (gap > 0) & (size > 0)
    return jnp.where(known, jnp.sqrt(2 * jnp.where(known, gap, 1) / jnp.where(known, size, 1)), 0)


def _backward(v: Array) -> Array:
    """D'v, one entry longer than v."""
    return jnp.pad(v, _edge(v, 1, 0)) - jnp.pad(v, _edge(v, 0, 1))


def _edge(v: Array, before: int, after: int) -> list[tuple[int, int]]:
    return [(0, 0)] * (v.ndim - 1) + [(before, after)]
