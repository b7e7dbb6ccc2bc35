"""The conformance kit catches wrong penalties, by the right law, and lets right ones pass.

Every mutant is a bug that a library of the field has had, or one letter away from a right penalty.
"""

import builtins
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.mutants import (
    L0,
    L1,
    AbsOfJax,
    BatchesWrong,
    Box,
    DeafToLam,
    FloatsOnly,
    ForcedToFloat,
    Group,
    GroupAcrossLeaves,
    GroupWithoutJacobian,
    HalfConfused,
    HalfConjugate,
    HardThresholdOff,
    LazyCertificate,
    LeakyPrefix,
    MaxOfNothing,
    MeanStep,
    NaNAtZeroGroup,
    NarrowSum,
    NoGradient,
    NormOfJax,
    NotConvex,
    NotSmooth,
    Overflows,
    ReprOfNumbers,
    RidgeOfTheDocstring,
    ShyBox,
    SignedOrthogonality,
    SlackCertificate,
    Springs,
    Square,
    SquaresItsThreshold,
    StaticLam,
    StepRooted,
    ThresholdOff,
    TwiceLambdaMax,
    UnguardedMCP,
    Validates,
    WeightsDivide,
    WideDtype,
    ZeroOverZero,
)

import jaxreg as jr
from jaxreg.testing import LAWS, LawViolation, Report, _check, _compiled, check_penalty

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
    (SquaresItsThreshold(0.5), "any_strength"),
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
