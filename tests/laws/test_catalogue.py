"""Every penalty of jaxreg through every law, alone, in its variants and in combination.

The laws are those of `jaxreg.testing.check_penalty`, which tests/test_testing.py sees fail. A new
penalty needs a line in CATALOGUE, and a test says so.
"""

import copy
import dataclasses
import inspect
import io
import itertools
import pickle

import jax
import jax.numpy as jnp
import joblib
import numpy as np
import pytest
from support.catalogue import (
    ALL_BUT_BINDING,
    CATALOGUE,
    ITERATED,
    OPTIONS,
    VARIANTS,
    WITH_EVERY_LAW,
)

import jaxreg as jr
from jaxreg.testing import check_penalty


def constructors():
    """Public functions that build a penalty."""
    for name in jr.__all__:
        thing = getattr(jr, name)
        made_here = getattr(thing, "__module__", "").startswith("jaxreg.penalties.")
        if made_here and inspect.isfunction(thing):
            returned = inspect.signature(thing, eval_str=True).return_annotation
            if inspect.isclass(returned) and issubclass(returned, jr.Penalty):
                yield name


def test_every_constructor_is_in_the_catalogue():
    assert sorted(CATALOGUE) == sorted(constructors())


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_penalty_obeys_every_law(name):
    report = check_penalty(CATALOGUE[name](), max_examples=8, **OPTIONS.get(name, {}))
    assert {"jit_is_eager", "dtype_kept"} <= set(report.passed)


def test_total_variation_of_images_obeys_every_law():
    report = check_penalty(jr.total_variation(0.3, axis=(0, 1)), max_examples=8, **ITERATED)
    assert {"prox_minimises", "prox_nonexpansive", "prox_differentiable"} <= set(report.passed)


@pytest.mark.formulas
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_obeys_the_binding_laws(name):
    # A strength of 0 times a square that overflows is NaN.
    skip = ["huge_and_tiny"] if name in WITH_EVERY_LAW else ALL_BUT_BINDING
    options = {"skip": skip, "max_examples": 5} | OPTIONS.get(name, {})
    check_penalty(VARIANTS[name](), **options)


# One of each family, as combining knows nothing of formulas.
FAMILIES = ["l1", "mcp", "l0", "l2_sp", "group_lasso", "nuclear", "orthogonal", "l1_ball", "box"]


@pytest.mark.parametrize("name", FAMILIES)
def test_scaled_selected_and_added_it_obeys_the_binding_laws(name):
    combined = 0.6 * CATALOGUE[name]().on("kernel") + jr.l2(0.4).on("bias")
    options = OPTIONS.get(name, {})
    skip = sorted({*ALL_BUT_BINDING, *options.get("skip", ())})
    report = check_penalty(combined, max_examples=4, **(options | {"skip": skip}))
    assert "support_respected" in report.passed or report.skipped["support_respected"]


COMBINED = {
    "a kink and a quadratic": lambda: jr.l1(0.4) + jr.l2(0.3),
    "a kink and a quadratic elsewhere": lambda: jr.l1(0.4) + jr.l2(0.2, center=1.0),
    "group lasso and a quadratic": lambda: jr.group_lasso(0.3, axis=1) + 0.5 * jr.l2(0.3),
    "disjoint leaves": lambda: jr.l1(0.4).on("kernel") + jr.group_lasso(0.3).on("bias"),
    "around": lambda: (2.0 * jr.group_lasso(0.3, axis=0)).around({"bias": 0.1, "kernel": -0.4}),
    "nested": lambda: 0.5 * (2.0 * (jr.huber(0.5, 0.2).on("k*") + jr.l2(0.1))).around(0.2),
    "a constraint and a quadratic": lambda: jr.box(-1.0, 1.0) + jr.l2(0.3),
}


# Autodiff adds each term's own least-norm subgradient; that of this sum would let l1 give way to l2.
# `min_norm_subgradient` does.
COMBINED_OPTIONS = {"a kink and a quadratic elsewhere": {"skip": ["gradient_least_norm"]}}


@pytest.mark.parametrize("name", COMBINED)
def test_a_combination_obeys_every_law(name):
    report = check_penalty(COMBINED[name](), max_examples=5, **COMBINED_OPTIONS.get(name, {}))
    assert ("moreau" in report.passed) == (name == "around"), "sums alone have no conjugate"


@pytest.mark.parametrize("name", COMBINED)
@pytest.mark.parametrize("step", [0.6, 1.9])
def test_moreaus_identity_and_envelope(name, step):
    """Also where R* itself has no closed form."""
    with jax.enable_x64(True):
        reg, rng = COMBINED[name](), np.random.default_rng(0)
        x = {leaf: jnp.asarray(rng.normal(size=(4, 3))) for leaf in ("bias", "kernel")}
        near = reg.prox(x, step)
        dual = reg.prox_conjugate({leaf: v / step for leaf, v in x.items()}, 1 / step)
        for leaf in x:
            np.testing.assert_allclose(near[leaf] + step * dual[leaf], x[leaf], atol=1e-12)
        square = sum(jnp.sum((near[leaf] - x[leaf]) ** 2) for leaf in x)
        envelope = float(reg(near) + square / (2 * step))
        assert reg.moreau_envelope(x, step) == pytest.approx(envelope, rel=1e-12)


def test_the_conjugate_around_a_centre_is_a_supremum():
    """R*(y) + <y, center>; a leaf outside of the selection has no dual but 0."""
    z = np.linspace(-20, 20, 400_001)
    for inner, formula in [(jr.l2(2.0), z**2), (jr.huber(2.0, 0.5), None), (jr.l1(1.5), None)]:
        formula = np.asarray(jax.vmap(inner)(jnp.float32(z))) if formula is None else formula
        for y in (-1.0, 0.3):
            expected = np.max((z + 0.7) * y - formula)
            dual = {"w": jnp.array([y]), "b": jnp.zeros(2)}
            for reg in (inner.on("w").around(0.7), inner.around({"w": 0.7, "b": -1.0})):
                assert reg.conjugate(dual) == pytest.approx(expected, abs=1e-5)
            outside = dual | {"b": jnp.array([0.0, 0.1])}
            assert inner.on("w").around(0.7).conjugate(outside) == np.inf
    assert jr.l1(1.0).around(0.7).conjugate(jnp.array([1.5])) == np.inf


def test_no_penalty_has_no_dual_but_zero():
    for nothing in (jr.Zero(), 0.0 * jr.l1(1.0), (0.0 * jr.l2(1.0)).around(2.0)):
        assert nothing.conjugate({"w": jnp.zeros(2)}) == 0
        assert nothing.conjugate({"w": jnp.array([0.0, -1e-6])}) == np.inf


def test_zero_obeys_every_law():
    report = check_penalty(jr.Zero(), max_examples=5)
    assert {"zero_strength", "prox_minimises", "support_respected"} <= set(report.passed)


@pytest.mark.parametrize("shape", [(), (6,), (2, 3, 2)])
def test_elementwise_penalties_take_every_shape(shape):
    for name in ("l1", "mcp"):
        check_penalty(CATALOGUE[name](), shape=shape, max_examples=3, skip=ALL_BUT_BINDING)


def test_no_two_penalties_share_a_structure():
    """Else jit would run the program of one for the other."""
    made = [factory() for factory in CATALOGUE.values()]
    for a, b in itertools.combinations([*made, *(p.on("kernel") for p in made)], 2):
        assert jax.tree.structure(a) != jax.tree.structure(b), (a, b)


def test_jit_tells_classes_with_equal_fields_apart():
    value = jax.jit(lambda penalty, x: penalty(x))
    x = jnp.array([3.0, -1.0])
    pairs = [(jr.l1(0.5), 2.0), (jr.l2(0.5), 2.5), (jr.l0(0.5), 1.0), (jr.l_half(1.0), 3**0.5 + 1)]
    for penalty, expected in pairs * 3:
        assert value(penalty, x) == pytest.approx(expected)


@pytest.mark.parametrize("name", CATALOGUE)
def test_reprs_leave_the_defaults_of_options_out(name):
    penalty = CATALOGUE[name]()
    static = {f.name for f in dataclasses.fields(penalty) if f.metadata.get("static")}
    options = inspect.signature(getattr(jr, name)).parameters
    if repr(penalty).startswith(f"{name}("):  # linf and max_norm are others with an option set
        for option in static & options.keys():
            assert f"{option}={options[option].default!r}" not in repr(penalty)


@pytest.mark.parametrize("name", [*CATALOGUE, *VARIANTS])
def test_a_penalty_is_pickled_to_the_same_program(name):
    penalty = ({**CATALOGUE, **VARIANTS})[name]().on(jr.kernels)
    stream = io.BytesIO()
    joblib.dump(penalty, stream)
    stream.seek(0)
    for again in (pickle.loads(pickle.dumps(penalty)), copy.deepcopy(penalty), joblib.load(stream)):
        assert repr(again) == repr(penalty)
        # By hash, since jit looks a program up by it.
        assert len({jax.tree.structure(again), jax.tree.structure(penalty)}) == 1
