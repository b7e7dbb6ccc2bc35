"""Roots that a CPU finds at the speed of memory: no logarithm, no loop, few divisions.

In float32 a start and a fixed number of steps reach rounding; float64 takes one or two steps more.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

__all__ = ["inverse_cube_root", "inverse_root", "two_thirds_power"]

# 1 / s for the largest root s of s^degree - s + k, as a polynomial in w = sqrt(1 - k / k_max), in which it
# is smooth up to k_max where s meets the next root. Chebyshev fits up to where the prox jumps, to 1e-8.
_INVERSE_ROOT = {
    3: (1.72867543, -1.37868491, 1.1814139, -0.86626512, 0.469492927, -0.159575361, 0.02494314),
    4: (
        *(1.58678889, -1.11408517, 1.00745228, -0.863130145),
        *(0.614741694, -0.321253271, 0.105510612, -0.016024893),
    ),
}


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def inverse_root(k: Array, degree: int) -> Array:
    """1 / s for the largest root s of s^degree - s + k, for k up to where the prox jumps."""
    k_max = (degree - 1) * degree ** (-degree / (degree - 1))
    w = jnp.sqrt(1 - k / k_max)
    *rest, top = _INVERSE_ROOT[degree]
    q = top
    for coefficient in reversed(rest):
        q = q * w + coefficient
    for _ in range(2 if k.dtype == jnp.float64 else 0):
        # Newton for 1 - q^(degree - 1) + k q^degree = 0.
        power = q ** (degree - 1)
        q = q + q * (1 - power + k * q * power) / (power * (degree - 1 - degree * k * q))
    return q


@inverse_root.defjvp
def _inverse_root_jvp(degree: int, primals: tuple[Array], tangents: tuple[Array]):
    (k,), (dk,) = primals, tangents
    q = inverse_root(k, degree)
    return q, q * q / (degree - 1 - degree * k * q) * dk


@jax.custom_jvp
def inverse_cube_root(x: Array) -> Array:
    """x^(-1/3) for x > 0, in float32 or float64.

    The start divides the exponent by -3, in the bits, and is within 4 %; a step cubes the error.
    """
    info = jnp.finfo(x.dtype)
    # Unsigned: a signed quotient takes twice as long as all the rest.
    integer = jnp.dtype(f"uint{info.bits}")
    start = round(4 / 3 * (info.maxexp - 1.05) * 2**info.nmant)
    bits = jnp.asarray(start, integer) - lax.bitcast_convert_type(x, integer) // 3
    r = lax.bitcast_convert_type(bits, x.dtype)
    for _ in range(3 if x.dtype == jnp.float64 else 2):
        off = 1 - x * r * r * r
        r = r + r * off * (1 / 3 + 2 / 9 * off)
    return r


@inverse_cube_root.defjvp
def _inverse_cube_root_jvp(primals: tuple[Array], tangents: tuple[Array]):
    (x,), (dx,) = primals, tangents
    r = inverse_cube_root(x)
    return r, -1 / 3 * (r / x) * dx


@jax.custom_jvp
def two_thirds_power(x: Array) -> Array:
    """|x|^(2/3), whose derivative at 0 is 0, the subgradient of least size."""
    size = jnp.abs(x)
    return jnp.where(x == 0, 0, size * inverse_cube_root(jnp.where(x == 0, 1, size)))


@two_thirds_power.defjvp
def _two_thirds_power_jvp(primals: tuple[Array], tangents: tuple[Array]):
    (x,), (dx,) = primals, tangents
    slope = 2 / 3 * jnp.sign(x) * inverse_cube_root(jnp.where(x == 0, 1, jnp.abs(x)))
    return two_thirds_power(x), slope * dx
