"""The conformance kit catches wrong penalties, by the right law, and lets right ones pass.

Every mutant is a bug that a library of the field has had, or one letter away from a right penalty.
"""

import builtins
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr
from jaxreg.testing import LAWS, LawViolation, Report, _check, _compiled, check_penalty


def wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class L1(jr.Elementwise):
    """A right penalty, for the mutants to spoil."""

    smooth, convex = False, True

    def rho(self, x):
        return jnp.where(x == 0, 0, jnp.abs(x))

    def prox_rho(self, x, threshold):
        return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)

    def kink(self):
        return 1.0


class Square(jr.Elementwise):
    """lam * sum x^2 / 2."""

    smooth, convex = True, True

    def rho(self, x):
        return 0.5 * x**2

    def prox_rho(self, x, threshold):
        return x / (1 + threshold)


class Group(jr.LeafPenalty):
    """lam * |leaf|_2."""

    lam: float
    smooth, convex = False, True

    def norm(self, x):
        square = jnp.sum(x**2)
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)

    def leaf_value(self, x):
        return self.lam * self.norm(x)

    def leaf_prox(self, x, step):
        if step.ndim:
            raise ValueError("only scalar steps")
        return self.shrunk(x, self.norm(x), step * self.lam)

    def shrunk(self, x, norm, threshold):
        return x * jnp.maximum(1 - threshold / jnp.where(norm > 0, norm, 1), 0)


class L0(jr.Elementwise):
    """lam * number of nonzeros: right, and not convex."""

    smooth, convex = False, False

    def rho(self, x):
        return (x != 0).astype(x.dtype)

    def prox_rho(self, x, threshold):
        return jnp.where(x**2 > 2 * threshold, x, 0)


class Box(jr.LeafPenalty):
    """|x| <= 1 as a constraint."""

    smooth, convex = False, True

    def leaf_value(self, x):
        return jnp.where(jnp.all(jnp.abs(x) <= 1), 0.0, jnp.inf)

    def leaf_prox(self, x, step):
        return jnp.clip(x, -1, 1)


# Bugs of the field.


class RidgeOfTheDocstring(Square):
    """The docstring says x^2, the code returns the prox of x^2 / 2."""

    def rho(self, x):
        return x**2


class GroupWithoutJacobian(Group):
    """The norm's derivative at 0 is NaN, and so is the prox's."""

    def shrunk(self, x, norm, threshold):
        norm = jnp.linalg.norm(x)
        return jnp.where(norm > 0, x * jnp.maximum(1 - threshold / norm, 0), 0 * x)


class FloatsOnly(L1):
    """`type(lam) == float` takes arrays for something else."""

    def leaf_prox(self, x, step):
        return self.prox_rho(x, step * self.lam) if type(self.lam) is float else x

    def _leaves(self, params):
        for path, x, _ in super()._leaves(params):
            yield path, x, self


class ZeroOverZero(Group):
    """Strength 0 on a zero group is relu(1 - 0/0)."""

    def shrunk(self, x, norm, threshold):
        return x * jax.nn.relu(1 - threshold / norm)


class GroupAcrossLeaves(Group):
    """The value counts each leaf, the prox takes the norm of all of them."""

    def prox(self, params, step):
        norm = jnp.sqrt(sum(jnp.sum(wide(x) ** 2) for x in params.values()))
        factor = jnp.maximum(1 - step * self.lam / jnp.where(norm > 0, norm, 1), 0)
        return jax.tree.map(lambda x: (x * factor).astype(x.dtype), params)


class UnguardedMCP(jr.Elementwise):
    """Firm thresholding taken beyond step = gamma, where it is no minimiser."""

    gamma: float = 2.0
    smooth, convex = False, False

    def coefficient(self):
        return jnp.ones(())

    def rho(self, x):
        size = jnp.minimum(jnp.where(x == 0, 0, jnp.abs(x)), self.gamma * self.lam)
        return size * (self.lam - size / (2 * self.gamma))

    def prox_rho(self, x, threshold):
        shrunk = jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold * self.lam, 0)
        firm = shrunk / (1 - threshold / self.gamma)
        return jnp.where(jnp.abs(x) > self.gamma * self.lam, x, firm)


class NoGradient(Square):
    """A term that is in the value printed and not in the gradient."""

    def rho(self, x):
        return 0.5 * x**2 + 0.1 * jax.lax.stop_gradient(x**2)


class AbsOfJax(L1):
    """jax has grad(abs)(0) = 1."""

    def rho(self, x):
        return jnp.abs(x)


class NormOfJax(Group):
    """jax has grad(norm)(0) = NaN."""

    def norm(self, x):
        return jnp.linalg.norm(x)


class NaNAtZeroGroup(Group):
    """The direction of a zero group is 0/0."""

    def shrunk(self, x, norm, threshold):
        return x / norm * jnp.maximum(norm - threshold, 0)


class SignedOrthogonality(jr.LeafPenalty):
    """The sum of signed inner products, instead of their sizes."""

    lam: float
    smooth, convex = True, False

    def leaf_value(self, x):
        gram = x.T @ x
        return self.lam * jnp.sum(jnp.triu(gram, 1))

    def leaf_prox(self, x, step):
        raise ValueError("no prox")


class WeightsDivide(L1):
    """The prox divides by weights, which may be 0."""

    def leaf_prox(self, x, step):
        weights = jnp.ones(()) if self.weights is None else self.weights
        return self.prox_rho(x / weights, step * self.lam) * weights


class ForcedToFloat(L1):
    """A strength made a Python number, which a traced one cannot be."""

    def leaf_prox(self, x, step):
        return self.prox_rho(x, step * float(self.lam))


# One letter away.


class HalfConfused(Square):
    def prox_rho(self, x, threshold):
        return x / (1 + 2 * threshold)


class ThresholdOff(L1):
    def prox_rho(self, x, threshold):
        return super().prox_rho(x, 1.001 * threshold)


class HardThresholdOff(L0):
    def prox_rho(self, x, threshold):
        return jnp.where(x**2 > 2.002 * threshold, x, 0)


class WideDtype(Square):
    def prox(self, params, step):
        return jax.tree.map(wide, super().prox(params, step))


class NarrowSum(jr.LeafPenalty):
    """The sum of a bfloat16 leaf, taken in bfloat16."""

    lam: float
    smooth, convex = True, True

    def leaf_value(self, x):
        raise NotImplementedError

    def leaf_prox(self, x, step):
        return x / (1 + step * self.lam)

    def __call__(self, params):
        sums = [jnp.sum(x**2) for x in jax.tree.leaves(params)]
        return 0.5 * self.lam * wide(sum(sums))


class StaticLam(jr.LeafPenalty):
    lam: float = jr.static_field()
    smooth, convex = True, True

    def leaf_value(self, x):
        return 0.5 * self.lam * jnp.sum(x**2)

    def leaf_prox(self, x, step):
        return x / (1 + step * self.lam)


class Validates(Square):
    def __post_init__(self):
        if self.lam < 0:
            raise ValueError("negative")


class ReprOfNumbers(Square):
    def __repr__(self):
        return f"square({float(self.lam)})"


class LeakyPrefix(jr.Penalty):
    """Says that it touches the kernel only, and shrinks everything."""

    lam: float
    smooth, convex = True, True

    def __call__(self, params):
        return 0.5 * self.lam * jnp.sum(wide(params["kernel"]) ** 2)

    def prox(self, params, step):
        return jax.tree.map(lambda x: (x / (1 + step * self.lam)).astype(x.dtype), params)

    def support(self, params):
        return [False, True]


class MaxOfNothing(jr.LeafPenalty):
    lam: float
    smooth, convex = False, True

    def leaf_value(self, x):
        return self.lam * jnp.max(jnp.where(x == 0, 0, jnp.abs(x)))

    def leaf_prox(self, x, step):
        raise ValueError("no prox")


class Overflows(Group):
    """The square of 1e30 is inf in float32, and inf/inf is NaN."""

    def shrunk(self, x, norm, threshold):
        return x * (jnp.maximum(norm - threshold, 0) / jnp.where(norm > 0, norm, 1))


class NotSmooth(L1):
    smooth = True


class NotConvex(L0):
    convex = True


class StepRooted(L1):
    def leaf_prox(self, x, step):
        return self.prox_rho(x, jnp.sqrt(step) * self.lam)


class DeafToLam(Square):
    def coefficient(self):
        return jax.lax.stop_gradient(super().coefficient())


class Springs(L1):
    def prox_rho(self, x, threshold):
        return super().prox_rho(x, threshold) * (1 + jnp.minimum(threshold, 1))


class MeanStep(L1):
    def leaf_prox(self, x, step):
        return self.prox_rho(x, jnp.mean(step) * self.lam)


class ShyBox(Box):
    def leaf_prox(self, x, step):
        return jnp.clip(x, -1 / (1 + step), 1 / (1 + step))


class HalfConjugate(Square):
    def leaf_conjugate(self, dual):
        return jnp.sum(dual**2) / self.lam


class SlackCertificate(L1):
    def kink(self):
        return 0.9


class LazyCertificate(L1):
    """Right about what is stationary, and else forgets to take off the reach of the kink."""

    def leaf_subgradient(self, x, grad):
        moving = grad + self.lam * jnp.sign(x)
        held = jnp.abs(grad) <= self.lam * (1 + 1e-6)
        return jnp.where((x == 0) & held, 0, moving)


class TwiceLambdaMax(L1):
    def leaf_lambda_max(self, grad):
        return 2 * super().leaf_lambda_max(grad)


@jax.custom_batching.custom_vmap
def _mean_threshold(x, threshold):
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)


@_mean_threshold.def_vmap
def _(size, batched, x, threshold):
    del size, batched
    shrunk = jnp.maximum(jnp.abs(x) - 1.5 * jnp.max(threshold), 0)
    return jnp.sign(x) * shrunk, True


class BatchesWrong(L1):
    def prox_rho(self, x, threshold):
        return _mean_threshold(x, jnp.broadcast_to(threshold, x.shape))


MUTANTS = [
    (RidgeOfTheDocstring(0.5), "prox_minimises"),
    (GroupWithoutJacobian(0.5), "prox_differentiable"),
    (FloatsOnly(0.5), "lam_forms"),
    (ZeroOverZero(0.5), "zero_strength"),
    (GroupAcrossLeaves(0.5), "prox_minimises"),
    (UnguardedMCP(0.5), "prox_on_a_grid"),
    (NoGradient(0.5), "gradient_matches_differences"),
    (AbsOfJax(0.5), "gradient_least_norm"),
    (NormOfJax(0.5), "gradient_finite"),
    (NaNAtZeroGroup(0.5), "zero_groups"),
    (SignedOrthogonality(0.5), "value_nonnegative"),
    (WeightsDivide(0.5), "zero_weights"),
    (ForcedToFloat(0.5), "jit_is_eager"),
    (HalfConfused(0.5), "prox_minimises"),
    (ThresholdOff(0.5), "prox_minimises"),
    (HardThresholdOff(0.5), "prox_jumps_between_equals"),
    (WideDtype(0.5), "dtype_kept"),
    (NarrowSum(0.5), "dtype_kept"),
    (StaticLam(0.5), "one_trace"),
    (Validates(0.5), "pytree_round_trip"),
    (ReprOfNumbers(0.5), "repr_reads"),
    (LeakyPrefix(0.5), "support_respected"),
    (MaxOfNothing(0.5), "empty_leaves"),
    (Overflows(0.5), "huge_and_tiny"),
    (NotSmooth(0.5), "smooth_means_smooth"),
    (NotConvex(0.5), "convex_means_convex"),
    (StepRooted(0.5), "homogeneous_in_lam"),
    (DeafToLam(0.5), "strength_gradient"),
    (MeanStep(0.5), "prox_in_a_metric"),
    (ShyBox(), "projection_stays"),
    (HalfConjugate(0.5), "moreau"),
    (SlackCertificate(0.5), "certificate_of_prox"),
    (LazyCertificate(0.5), "subgradient_least_norm"),
    (TwiceLambdaMax(0.5), "lambda_max_exact"),
    (BatchesWrong(0.5), "vmap_is_loop"),
]


# Dear to compile, and only broken by mutants of their own.
FORM = {"lam_forms", "jit_is_eager", "vmap_is_loop", "stacked_layers"}


def all_but(*laws):
    return set(LAWS) - set(laws)


RIGHT = [L1(0.5), Square(0.5), Group(0.5), L0(0.5), Box()]


@pytest.mark.parametrize(("mutant", "law"), MUTANTS, ids=lambda v: getattr(v, "label", v))
def test_a_wrong_penalty_is_caught_by_the_right_law(mutant, law):
    with pytest.raises(LawViolation) as caught:
        check_penalty(mutant, max_examples=6, skip=FORM - {law})
    assert caught.value.law == law
    assert str(caught.value).startswith(f"{caught.value.penalty} breaks the law {law!r}: ")


def test_a_prox_that_expands_is_caught_where_its_value_is_not_looked_at():
    with pytest.raises(LawViolation, match="moves two points apart") as caught:
        check_penalty(Springs(0.5), max_examples=6, skip=["prox_minimises"])
    assert caught.value.law == "prox_nonexpansive"


def test_a_scan_that_differs_is_caught(monkeypatch):
    plain = _compiled.scanned

    def scanned(*args):
        value, moved = plain(*args)
        return value, moved + 1e-3

    monkeypatch.setattr(_compiled, "scanned", scanned)
    with pytest.raises(LawViolation, match="a scan over stacked layers changes the prox"):
        check_penalty(L1(0.5), max_examples=2)


def test_every_law_is_seen_to_fail():
    seen = {law for _, law in MUTANTS} | {"prox_nonexpansive", "stacked_layers"}
    assert set(LAWS) == seen


@pytest.mark.parametrize("penalty", RIGHT, ids=lambda p: p.label)
def test_a_right_penalty_passes(penalty):
    report = check_penalty(penalty, max_examples=5)
    assert set(report.passed) | set(report.skipped) == set(LAWS)
    assert not set(report.passed) & set(report.skipped)


def test_the_report_says_what_was_tried_and_what_not_and_why():
    report = check_penalty(Box(), max_examples=2, skip="repr_reads")
    assert isinstance(report, Report)
    assert report.penalty == "box()"
    assert report.skipped["repr_reads"] == "skipped by the caller"
    assert report.skipped["lambda_max_exact"].endswith("has no closed form here.")
    assert report.skipped["zero_strength"].startswith("R is infinite")
    text = repr(report)
    assert text.startswith(f"box(): {len(report.passed)} laws hold, {len(report.skipped)} do not")
    assert "prox_minimises" in text
    assert "repr_reads: skipped by the caller" in text


def test_a_violation_names_law_leaf_step_and_a_small_counterexample():
    with pytest.raises(LawViolation) as caught:
        check_penalty(ThresholdOff(0.5))
    found = caught.value
    assert isinstance(found, AssertionError)
    assert (found.law, found.leaf) == ("prox_minimises", "bias")
    text = str(found)
    assert "another point z has a lower" in text
    assert re.search(rf"where: leaf 'bias', step {found.step:g}\n  x = all 0\.\d+\n", text)
    assert not getattr(found, "__notes__", None)


def test_the_counterexample_is_shrunk():
    class OffAboveTwo(L1):
        def prox_rho(self, x, threshold):
            return jnp.where(x > 2, x, super().prox_rho(x, threshold))

    with pytest.raises(LawViolation) as caught:
        check_penalty(OffAboveTwo(0.5), shape=(1,))
    # The smallest x above 2 among multiples of 1/64, or ten times one above 0.2.
    size = float(re.search(r"x = bias: ([-\d.]+)", str(caught.value)).group(1))
    assert 2 < size <= 2.2


def test_the_same_counterexample_is_found_every_time():
    texts = []
    for _ in range(2):
        with pytest.raises(LawViolation) as caught:
            check_penalty(HalfConfused(0.5))
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def test_an_error_of_the_penalty_is_a_violation_and_its_cause_is_kept():
    with pytest.raises(LawViolation, match="it raises ConcretizationTypeError") as caught:
        check_penalty(ForcedToFloat(0.5), max_examples=2)
    assert isinstance(caught.value.__cause__, jax.errors.ConcretizationTypeError)


def test_parameters_of_ones_own():
    params = {
        "layers": [{"kernel": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)}],
        "step": np.zeros((), np.int32),
        "scale": jnp.ones(3, jnp.bfloat16),
    }
    penalty = (jr.l1(0.3) + 2 * jr.l2(0.1)).on(jr.kernels & ~jr.path("step"))
    report = check_penalty(penalty, params=params, max_examples=3)
    assert {"support_respected", "prox_minimises", "dtype_kept"} <= set(report.passed)


def test_scalar_and_vector_parameters():
    laws = "prox_minimises", "huge_and_tiny", "gradient_least_norm", "certificate_of_prox"
    for shape in [(), (1,), (2, 1, 2)]:
        report = check_penalty(L1(0.5), shape=shape, max_examples=2, skip=all_but(*laws))
        assert set(report.passed) == set(laws)


def test_tolerance_forgives_a_prox_that_iterates():
    class Rounded(L1):
        def prox_rho(self, x, threshold):
            return super().prox_rho(x, threshold * (1 + 1e-6))

    options = {
        "max_examples": 4,
        "skip": all_but("prox_minimises", "prox_differentiable", "moreau"),
    }
    with pytest.raises(LawViolation):
        check_penalty(Rounded(0.5), **options)
    check_penalty(Rounded(0.5), tolerance=1e-5, **options)


def test_strengths_far_from_one_are_tested_where_they_matter():
    class Capped(L1):
        def prox_rho(self, x, threshold):
            return super().prox_rho(x, jnp.minimum(threshold, 0.01))

    with pytest.raises(LawViolation, match="prox"):
        check_penalty(Capped(1e-4), max_examples=8, skip=all_but("prox_minimises"))


def test_x64_stays_as_it_was():
    check_penalty(Square(0.5), max_examples=1)
    assert jnp.ones(()).dtype == jnp.float32


def test_every_law_states_itself():
    for name, law in LAWS.items():
        assert law.__name__ == name
        assert law.__doc__.strip().endswith((".", "|^2."))


def test_arguments_are_refused_with_a_remedy():
    with pytest.raises(
        ValueError, match=r"`skip` names no law with \['prox'\]. Laws: pytree_round"
    ):
        check_penalty(L1(0.5), skip=["prox"])
    with pytest.raises(TypeError, match=r"must be a jaxreg.Penalty, got .*Give an instance"):
        check_penalty(L1)
    with pytest.raises(ValueError, match=r"does not accept the parameters .*axis.*Give `shape`"):
        check_penalty(jr.group_lasso(0.1, axis=1), shape=(4,))
    with pytest.raises(ValueError, match=r"have 0 floating coordinates; .*Give small shapes"):
        check_penalty(L1(0.5), params={"n": jnp.ones(3, int)})
    with pytest.raises(ValueError, match="have 20000 floating coordinates"):
        check_penalty(L1(0.5), shape=(100, 100))


def test_without_hypothesis_the_remedy_is_named(monkeypatch):
    plain = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.startswith("hypothesis"):
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    _check._hypothesis.cache_clear()
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"pip install 'jaxreg\[tests\]'"):
        check_penalty(L1(0.5))
