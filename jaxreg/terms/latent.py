"""Terms of variational autoencoders: the rate in its usual forms, and distances between codes and a prior.

All are in nats per row: means over rows of sums over latent dimensions, so that they belong to a data loss
that is a mean over rows of sums over pixels. Where the data loss is a mean over D pixels as well, a
strength of 1 counts D times as much; `effective_beta` says what β that is.

| term | value of mean and log_var, [rows, latents] |
|---|---|
| kl | mean over rows of sum_j KL(N(μ_j, σ_j²) || N(0, 1)) |
| free_bits | sum_j max(bits, mean over rows of KL_j) |
| capacity | |kl − target| |
| kl_ar | of [rows, times, latents]: KL from z_t = α z_{t−1} + sqrt(1 − α²) ε, summed over times too |
| total_correlation | KL(q(z) || prod_j q(z_j)), by minibatch weighted sampling |
| mmd | MMD² of codes and draws of the prior under an inverse multiquadratic kernel |

Sources: Kingma & Welling 2014 (appendix B); β, Higgins et al. 2017; free bits, Kingma et al. 2016 (eq. 15,
without groups); capacity, Burgess et al. 2018 (eq. 8); the prior of sequences and
its committed rate, Razavi et al. 2019 (δ-VAE); total correlation, Chen et al. 2018 (eq. 5 and appendix C.1,
minibatch weighted sampling); MMD, Zhao, Song & Ermon 2019 and, for the kernel, Tolstikhin et al. 2018
(section 4).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import jax.scipy as jsp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxreg._check import above, count, number, shown, size, strength
from jaxreg._tree import is_concrete
from jaxreg.terms._base import Term, lam_of, rows_of

__all__ = [
    "Capacity", "FreeBits", "Kl", "KlAr", "Mmd", "TotalCorrelation", "capacity", "committed_rate",
    "effective_beta", "free_bits", "kl", "kl_ar", "kl_bernoulli", "kl_categorical", "kl_normal", "mmd",
    "total_correlation",
]  # fmt: skip


# --- divergences of the usual pairs ------------------------------------------------------------------


def kl_normal(
    mean: ArrayLike, log_var: ArrayLike, prior_mean: ArrayLike = 0.0, prior_log_var: ArrayLike = 0.0
) -> Array:
    """KL(N(m, v) || N(m₀, v₀)) entry by entry: ½ (v/v₀ + (m − m₀)²/v₀ − 1 − log v/v₀).

    >>> kl_normal(1.0, 0.0).item()
    0.5
    """
    mean, log_var, prior_mean, prior_log_var = _numbers(
        "kl_normal", mean=mean, log_var=log_var, prior_mean=prior_mean, prior_log_var=prior_log_var
    )
    apart = log_var - prior_log_var
    away = jnp.square(mean - prior_mean)
    return 0.5 * (jnp.exp(apart) + away * jnp.exp(-prior_log_var) - 1 - apart)


def kl_categorical(logits: ArrayLike, prior_logits: ArrayLike | None = None) -> Array:
    """KL(softmax(a) || softmax(b)) over the last axis; without `prior_logits` of the uniform distribution.

    >>> kl_categorical(jnp.array([0.0, 0.0])).item()
    0.0
    """
    given = {} if prior_logits is None else {"prior_logits": prior_logits}
    logits, *others = _numbers("kl_categorical", logits=logits, **given)
    if not logits.ndim:
        raise ValueError("kl_categorical: `logits` must have an axis of classes, got one number.")
    p = jnp.exp(logits - jsp.special.logsumexp(logits, -1, keepdims=True))
    log_p = logits - jsp.special.logsumexp(logits, -1, keepdims=True)
    prior = others[0] if others else jnp.zeros_like(logits)
    log_q = prior - jsp.special.logsumexp(prior, -1, keepdims=True)
    return jnp.sum(jnp.where(p > 0, p * (log_p - log_q), 0), -1)


def kl_bernoulli(logit: ArrayLike, prior: ArrayLike = 0.5) -> Array:
    """KL(Bernoulli(sigmoid(a)) || Bernoulli(prior)) entry by entry.

    >>> kl_bernoulli(0.0).item()
    0.0
    """
    logit, prior = _numbers("kl_bernoulli", logit=logit, prior=prior)
    if is_concrete(prior) and not ((prior > 0) & (prior < 1)).all():
        raise ValueError(f"kl_bernoulli: `prior` must be between 0 and 1, got {shown(prior)}.")
    pair = jnp.stack([logit, jnp.zeros_like(logit)], -1)
    log_prior = jnp.stack([jnp.log(prior), jnp.log1p(-prior)], -1)
    return kl_categorical(pair, jnp.broadcast_to(log_prior, pair.shape))


def _numbers(owner: str, **given: Any) -> list[Array]:
    """Arguments as floating arrays.

    Raises:
      TypeError, ValueError: one is no number, or NaN.
    """
    return [number(owner, name, x) for name, x in given.items()]


# --- terms -------------------------------------------------------------------------------------------


class Kl(Term):
    """lam * mean over rows of the KL of each row's Gaussian from the standard one."""

    lam: Any

    def value(self, mean: Array, log_var: Array) -> Array:
        return jnp.sum(_by_latent(self, mean, log_var))


class FreeBits(Term):
    """lam * sum over latents of max(bits, mean over rows of their KL)."""

    lam: Any
    bits: Any

    def value(self, mean: Array, log_var: Array) -> Array:
        return jnp.sum(jnp.maximum(_by_latent(self, mean, log_var), self.bits))


class Capacity(Term):
    """lam * |KL - target|."""

    lam: Any
    target: Any

    def value(self, mean: Array, log_var: Array) -> Array:
        return jnp.abs(jnp.sum(_by_latent(self, mean, log_var)) - self.target)


class KlAr(Term):
    """lam * mean over rows of the KL of independent Gaussians from an autoregressive prior."""

    lam: Any
    alpha: Any

    def value(self, mean: Array, log_var: Array) -> Array:
        what = "[rows, times, latents]"
        m, v = (rows_of(self, n, x, 3, what) for n, x in (("mean", mean), ("log_var", log_var)))
        if m.shape != v.shape or m.ndim != 3:
            raise ValueError(
                f"kl_ar: `mean` and `log_var` must be {what}, of one shape, got mean {list(m.shape)}, "
                f"log_var {list(v.shape)}."
            )
        if jnp.shape(self.alpha) not in ((), m.shape[2:]):
            raise ValueError(
                f"kl_ar: `alpha` must be one number, or one for each of {m.shape[2]} latents, got shape "
                f"{list(jnp.shape(self.alpha))}."
            )
        left = jnp.log1p(-jnp.square(self.alpha))  # log variance of z_t where z_{t−1} is known
        later = kl_normal(m[:, 1:], v[:, 1:], self.alpha * m[:, :-1], left)
        # The variance of z_{t−1} moves the mean of what follows it.
        spread = 0.5 * jnp.square(self.alpha) * jnp.exp(v[:, :-1] - left)
        first = kl_normal(m[:, 0], v[:, 0])
        return jnp.mean(jnp.sum(first, -1) + jnp.sum(later + spread, (1, 2)))


class TotalCorrelation(Term):
    """lam * an estimate of KL(q(z) || prod_j q(z_j)), from samples z of the rows' Gaussians."""

    lam: Any
    rows: Any

    def value(self, z: Array, mean: Array, log_var: Array) -> Array:
        z, mean, log_var = _alike(self, z=z, mean=mean, log_var=log_var)
        # log q(z_i,j | x_k): [row i, row k, latent j]
        square = jnp.square(z[:, None] - mean[None]) * jnp.exp(-log_var[None])
        each = -0.5 * (square + log_var[None] + jnp.log(2 * jnp.pi))
        count = jnp.log(len(z) * self.rows)
        joint = jsp.special.logsumexp(jnp.sum(each, -1), 1) - count
        product = jnp.sum(jsp.special.logsumexp(each, 1) - count, -1)
        return jnp.mean(joint - product)


class Mmd(Term):
    """lam * MMD² of codes and draws of the prior, without bias, by kernels c / (c + |x − y|²)."""

    lam: Any
    scale: Any

    def value(self, z: Array, draws: Array) -> Array:
        z, draws = _alike(self, z=z, draws=draws)
        n, latents = z.shape
        off = 1 - jnp.eye(n, dtype=z.dtype)
        total = jnp.zeros((), z.dtype)
        for factor in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0):
            c = 2 * latents * self.scale * factor
            kernel = lambda a, b, c=c: c / (c + jnp.sum(jnp.square(a[:, None] - b[None]), -1))
            within = jnp.sum((kernel(z, z) + kernel(draws, draws)) * off) / (n * (n - 1))
            total += within - 2 * jnp.mean(kernel(z, draws))
        return total


def _by_latent(term: Term, mean: Any, log_var: Any) -> Array:
    """The mean over rows of the KL of each latent dimension."""
    mean, log_var = _alike(term, mean=mean, log_var=log_var)
    return jnp.mean(kl_normal(mean, log_var), 0)


def _alike(term: Term, **given: Any) -> list[Array]:
    """Arrays [rows, latents] of one shape."""
    found = [rows_of(term, name, x, 2, "[rows, latents]") for name, x in given.items()]
    shapes = {x.shape for x in found}
    if len(shapes) > 1 or found[0].ndim != 2:
        got = ", ".join(f"{name} {list(x.shape)}" for name, x in zip(given, found))
        names = " and ".join(f"`{name}`" for name in given)
        raise ValueError(
            f"{term.label}: {names} must be [rows, latents], all of one shape, got {got}."
        )
    return found


# --- constructors ------------------------------------------------------------------------------------


def kl(lam: ArrayLike = 1.0) -> Kl:
    """β * mean over rows of KL(N(μ, σ²) || N(0, 1)), in nats: the rate of a VAE; term(mean, log_var).

    Args:
      lam: β >= 0; 1 is the evidence lower bound, if the data loss is a negative log likelihood summed over
        pixels.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0.

    >>> kl(2.0)(jnp.ones((3, 2)), jnp.zeros((3, 2))).item()  # 2 * 2 * 1/2
    2.0
    """
    return Kl(lam_of("kl", lam))


def free_bits(lam: ArrayLike = 1.0, bits: ArrayLike = 0.1) -> FreeBits:
    """β * sum_j max(bits, KL_j): each latent may carry `bits` nats without a price; term(mean, log_var).

    Args:
      lam: β >= 0.
      bits: nats of a latent, >= 0.

    Raises:
      TypeError, ValueError: `lam` or `bits` is no number >= 0.

    >>> free_bits(1.0, 0.25)(jnp.array([[0.0, 1.0]]), jnp.zeros((1, 2))).item()  # 0.25 + 0.5
    0.75
    """
    return FreeBits(lam_of("free_bits", lam), strength("free_bits", "bits", bits))


def capacity(lam: ArrayLike, target: ArrayLike) -> Capacity:
    """γ * |KL − C|: a rate of C nats, which is often raised while training; term(mean, log_var).

    Args:
      lam: γ >= 0.
      target: C >= 0, in nats.

    Raises:
      TypeError, ValueError: `lam` or `target` is no number >= 0.

    >>> capacity(10.0, 3.0)(jnp.ones((1, 2)), jnp.zeros((1, 2))).item()
    20.0
    """
    return Capacity(lam_of("capacity", lam), size("capacity", "target", target))


def kl_ar(lam: ArrayLike, alpha: ArrayLike) -> KlAr:
    """β * mean over rows of KL(∏ N(μ_t, σ_t²) || z_t = α z_{t−1} + sqrt(1 − α²) ε), in nats.

    The prior of a δ-VAE: posteriors that are independent in time cannot follow it, and so the rate of each
    latent is at least `committed_rate(alpha, times)`; term(mean, log_var), each [rows, times, latents].

    Args:
      lam: β >= 0.
      alpha: between -1 and 1, without them: one number, or one for each latent. At 0 the value is that of
        `kl` summed over times.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0, or `alpha` not between -1 and 1; when called, other
        shapes.

    Source: Razavi et al. (2019), arXiv 1901.03416.
    >>> still = jnp.zeros((1, 2, 1))
    >>> kl_ar(1.0, 0.0)(still + 1, still).item()  # 2 * 1/2
    1.0
    >>> kl_ar(1.0, 0.5)(still, still).item() > committed_rate(0.5, 2).item()
    True
    """
    return KlAr(lam_of("kl_ar", lam), _correlation("kl_ar", alpha))


def committed_rate(alpha: ArrayLike, times: int) -> Array:
    """The least that `kl_ar` can be for one latent: ½ ((T − 2) log(1 + α²) − log(1 − α²)), in nats.

    It is reached at μ = 0 and σ_t² = 1 − α² at the first and last time, (1 − α²) / (1 + α²) between. Of one
    time alone it is 0. To choose α for a rate, call it on a grid.

    Args:
      alpha: between -1 and 1, without them; any shape.
      times: T >= 1, how many.

    Raises:
      TypeError, ValueError: `alpha` is no number between -1 and 1, or `times` no integer of at least 1.

    Source: Razavi et al. (2019), arXiv 1901.03416.
    >>> round(committed_rate(0.5, 2).item(), 4)  # -1/2 log(3/4)
    0.1438
    """
    square = jnp.square(_correlation("committed_rate", alpha))
    times = count("committed_rate", "times", times)
    if times == 1:
        return jnp.zeros_like(square)
    return 0.5 * ((times - 2) * jnp.log1p(square) - jnp.log1p(-square))


def _correlation(owner: str, alpha: Any) -> Array:
    checked = number(owner, "alpha", alpha)
    if not isinstance(checked, Array):
        raise TypeError(f"{owner}: `alpha` must be a number or an array, got {shown(alpha)}.")
    if is_concrete(checked) and (np.abs(np.asarray(checked)) >= 1).any():
        raise ValueError(
            f"{owner}: `alpha` must be between -1 and 1, both excluded, got {shown(alpha)}."
        )
    return checked


def total_correlation(lam: ArrayLike, rows: ArrayLike) -> TotalCorrelation:
    """β' * total correlation of the codes, estimated in a batch; term(z, mean, log_var).

    Beside `kl()` it is β-TCVAE with β = 1 + β'. Batches of M rows estimate it from above, by about
    (latents − 1) log M, which is no matter to the gradient.

    Args:
      lam: β' >= 0.
      rows: of the data set, not of the batch.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0, or `rows` not above 0.

    >>> z = jnp.zeros((1, 2))
    >>> round(total_correlation(1.0, rows=1)(z, z, z).item(), 6)  # of one row alone they are independent
    0.0
    """
    return TotalCorrelation(
        lam_of("total_correlation", lam), above("total_correlation", "rows", rows, 0)
    )


def mmd(lam: ArrayLike, scale: ArrayLike = 1.0) -> Mmd:
    """lam * MMD² of codes z and as many draws of the prior, over seven widths; term(z, draws).

    Args:
      lam: strength >= 0.
      scale: the variance of the prior, > 0, by which kernels are scaled.

    Raises:
      TypeError, ValueError: `lam` is no number >= 0, or `scale` not above 0.

    >>> z = jnp.array([[0.0], [1.0]])
    >>> mmd(1.0)(z, z).item() < 0  # without bias it may be below 0
    True
    """
    return Mmd(lam_of("mmd", lam), above("mmd", "scale", scale, 0))


def effective_beta(lam: ArrayLike, pixels: int) -> Array:
    """The β of an ELBO whose data loss is a mean over pixels: β · D.

    >>> effective_beta(1.0, 784).item()
    784.0
    """
    if not isinstance(pixels, int) or isinstance(pixels, bool) or pixels < 1:
        raise ValueError(
            f"effective_beta: `pixels` must be the number of pixels of a row, at least 1, got {pixels!r}."
        )
    return lam_of("effective_beta", lam) * float(pixels)
