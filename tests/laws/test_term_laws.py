"""Every term through the laws of terms, and mutants that each of them catches."""

import jax
import jax.numpy as jnp
import pytest

from jaxreg import terms
from jaxreg.terms._base import Term, mean_over, rows_of
from jaxreg.testing import TERM_LAWS, LawViolation, check_term
from jaxreg.value import static_field

KEY = jax.random.key(0)
W = jax.random.normal(jax.random.key(7), (4, 3))


def arrays(*shapes):
    """Rows of these shapes, the same every time."""
    return lambda n: tuple(
        jax.random.normal(jax.random.key(i), (n, *s)) for i, s in enumerate(shapes)
    )


def shares(n):
    return (jax.nn.sigmoid(arrays((4,))(n)[0]),)


def net(x):
    return jnp.tanh(x @ W)


def critic(x):
    return net(x) @ jnp.array([1.0, -2.0, 0.5])


def labelled(n):
    return (*arrays((4,))(n), jnp.arange(n) % 3, jax.random.normal(KEY, (3, 4)))


TERMS = {
    "activity_l1": (terms.activity_l1(0.5), arrays((5, 4)), 1),
    "activity_l2": (terms.activity_l2(0.5), arrays((5, 4)), 1),
    "tar": (terms.tar(0.5, axis=1), arrays((5, 4)), 1),
    "kl_sparsity": (terms.kl_sparsity(0.5), shares, None),
    "center": (terms.center(0.5), labelled, None),
    "kl": (terms.kl(0.5), arrays((4,), (4,)), None),
    "free_bits": (terms.free_bits(0.5, 0.4), arrays((4,), (4,)), None),
    "capacity": (terms.capacity(0.5, 9.0), arrays((4,), (4,)), None),
    "kl_ar": (terms.kl_ar(0.5, 0.7), arrays((5, 4), (5, 4)), None),
    "lipschitz": (terms.lipschitz(0.5), lambda n: (jnp.array([0.5, 1.2, 2.0]),), None),
    "gradient_penalty": (terms.gradient_penalty(0.5), lambda n: (critic, *arrays((4,))(n)), None),
    "r1": (terms.r1(0.5), lambda n: (critic, *arrays((4,))(n)), None),
    "jacobian": (terms.jacobian(0.5), lambda n: (net, *arrays((4,))(n), KEY), None),
    # Its second prediction is held, so it gets integers, which have no derivative.
    "consistency": (
        terms.consistency(0.5),
        lambda n: (*arrays((4,))(n), jnp.eye(n, 4, dtype=int)),
        None,
    ),
    "confidence": (terms.confidence(0.5), arrays((4,)), None),
    "entropy": (terms.entropy(0.5), arrays((4,)), None),
}


@pytest.mark.parametrize("name", TERMS)
def test_terms_obey_every_law(name):
    term, given, axis = TERMS[name]
    report = check_term(term, given, time_axis=axis)
    assert len(report.passed) + len(report.skipped) == len(TERM_LAWS)
    assert {"scale", "absent", "jit", "vmap", "gradient", "narrow"} <= set(report.passed)
    if axis is not None:
        assert {"batch", "mask", "length"} <= set(report.passed)


class Summed(Term):
    """A sum for a mean."""

    lam: float

    def value(self, h, mask=None):
        return jnp.sum(h**2)


class Unscaled(Term):
    """A strength that never reaches the loss."""

    lam: float

    def value(self, h, mask=None):
        return mean_over(self, rows_of(self, "h", h, 1, "") ** 2, mask)

    def __call__(self, *given, **more):
        return self.value(*given, **more)


class Unmasked(Term):
    """A mask that is taken and not looked at."""

    lam: float

    def value(self, h, mask=None):
        return jnp.mean(jnp.nan_to_num(rows_of(self, "h", h, 1, "")) ** 2)


class Padded(Term):
    """Divided by all steps and not by those that are there."""

    lam: float

    def value(self, h, mask=None):
        h = rows_of(self, "h", h, 1, "")
        kept = (
            jnp.ones(h.shape[:2])
            if mask is None
            else mask.reshape(*mask.shape, *[1] * (2 - mask.ndim))
        )
        of_rows = jnp.broadcast_to(kept, h.shape[:2])
        squares = jnp.where(of_rows[..., None] > 0, h, 0) ** 2
        return jnp.sum(squares.mean(-1)) / h.shape[1] / jnp.sum(of_rows.any(1))


class Reused(Term):
    """A key of its own."""

    lam: float

    def value(self, h, key):
        return jnp.mean(h * jax.random.normal(jax.random.key(1), h.shape)) ** 2


class Narrow(Term):
    """Accumulated in the dtype that it gets."""

    lam: float

    def value(self, h):
        return jnp.mean(h**2)


class Held(Term):
    """A derivative that was cut."""

    lam: float

    def value(self, h):
        return jnp.mean(rows_of(self, "h", h, 1, "") ** 2 * jax.lax.stop_gradient(h))


class Offset(Term):
    """Something that stays at a strength of 0."""

    lam: float
    by: float = static_field(default=0.1)

    def value(self, h):
        return jnp.mean(rows_of(self, "h", h, 1, "") ** 2)

    def __call__(self, *given, **more):
        return super().__call__(*given, **more) + self.by


LAM = jnp.asarray(0.5)
MUTANTS = [
    (Summed(LAM), arrays((5, 4)), "batch"),
    (Unscaled(LAM), arrays((5, 4)), "scale"),
    (Unmasked(LAM), arrays((5, 4)), "mask"),
    (Padded(LAM), arrays((5, 4)), "length"),
    (Reused(LAM), lambda n: (*arrays((4,))(n), KEY), "key"),
    (Narrow(LAM), arrays((4,)), "narrow"),
    (Held(LAM), arrays((4,)), "gradient"),
    (Offset(LAM), arrays((4,)), "scale"),
]


@pytest.mark.parametrize(("mutant", "given", "law"), MUTANTS)
def test_mutants_break_the_law_that_is_theirs(mutant, given, law):
    with pytest.raises(LawViolation, match=f"breaks the law '{law}'.*The law: "):
        check_term(mutant, given, time_axis=1 if law in ("mask", "length") else None)


def test_what_is_no_term():
    with pytest.raises(TypeError, match="check_term: `term` must be a jaxreg.terms.Term, got 3"):
        check_term(3, arrays((4,)))
    with pytest.raises(TypeError, match="`given` must be a function rows -> tuple"):
        check_term(terms.activity_l1(1.0), lambda n: jnp.ones((n, 2)))
