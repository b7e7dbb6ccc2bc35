"""What is refused, with a text that names the argument, what it got and the remedy."""

import jax.numpy as jnp
import numpy as np
import pytest
from support.catalogue import CATALOGUE, OPTIONS
from support.trees import PARAMS, close, each

import jaxreg as jr

LEAF = jnp.ones((4, 3))


# --- leaves and weights, over the catalogue -------------------------------------------------------


def parameters(name, first):
    """What suits the penalty, its first leaf made `first`."""
    given = OPTIONS.get(name, {}).get("params", {"bias": LEAF, "kernel": LEAF})
    path = min(given)
    return path, given | {path: first.reshape(-1)[: given[path].size].reshape(given[path].shape)}


@pytest.mark.parametrize(
    ("first", "kind"),
    [(jnp.arange(12).reshape(4, 3), "int32"), (jnp.ones((4, 3), jnp.complex64), "complex64")],
    ids=["integer", "complex"],
)
@pytest.mark.parametrize("name", CATALOGUE)
def test_integer_and_complex_leaves_are_refused(name, first, kind):
    penalty = CATALOGUE[name]()
    path, params = parameters(name, first)
    expected = (
        rf"{penalty.label}: the leaf '{path}' is of dtype {kind}, and only real floating arrays"
    )
    for call in (penalty, lambda p: penalty.prox(p, 1.0)):
        with pytest.raises(TypeError, match=expected):
            call(params)


def test_so_are_leaves_of_a_group_of_leaves():
    penalty = jr.group_lasso(0.5, groups=[["bias", "kernel"]])
    with pytest.raises(TypeError, match=r"group_lasso: the leaf 'bias' is of dtype int32"):
        penalty(parameters("l1", jnp.arange(12))[1])


@pytest.mark.parametrize(
    "make",
    [jr.l1, jr.l2, jr.elastic_net, lambda c, **k: jr.huber(c, 0.5, **k), jr.mcp, jr.scad,
     jr.log_sum, jr.l_half, jr.l_two_thirds, jr.l0],
    ids=["l1", "l2", "elastic_net", "huber", "mcp", "scad", "log_sum", "l_half", "l_two_thirds",
         "l0"],
)  # fmt: skip
def test_weights_of_another_shape_are_refused(make):
    with pytest.raises(ValueError, match=r"`weights` has shape \(3,\) on the leaf 'kernel' of"):
        make(0.5, weights={"bias": 1.0, "kernel": jnp.ones(3)})({"bias": LEAF, "kernel": LEAF})
    with pytest.raises(ValueError, match="`weights` must be >= 0 and not NaN"):
        make(0.5, weights=-LEAF)


# --- strengths, steps and structure ---------------------------------------------------------------


@each
@pytest.mark.parametrize("bad", [-1, -0.5, np.nan, np.array([1.0, -1.0]), {"a": 1.0, "b": -2.0}])
def test_negative_and_nan_strengths_are_refused(make, bad):
    with pytest.raises(
        ValueError, match=r"`lam` must be >= 0 and not NaN, got .*For no penalty use Zero"
    ):
        make(bad)


@each
@pytest.mark.parametrize("bad", ["0.1", None, True, 1j, {"a": None}])
def test_strengths_that_are_no_numbers_are_refused(make, bad):
    with pytest.raises(
        TypeError, match=r"`lam` must be a number, an array or a pytree of them, got "
    ):
        make(bad)


def test_error_texts_name_function_argument_and_value():
    with pytest.raises(ValueError, match=r"l1: `lam` must be >= 0 and not NaN, got -0\.5\."):
        jr.l1(-0.5)
    with pytest.raises(
        ValueError, match=r"l2: `weights` must be >= 0 and not NaN, got float32\[2\]\."
    ):
        jr.l2(1.0, weights=jnp.array([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"elastic_net: `l1_ratio` is a share.*got 1\.5"):
        jr.elastic_net(1.0, 1.5)
    with pytest.raises(ValueError, match=r"elastic_net: `l1_ratio` must be >= 0.*got -0\.5"):
        jr.elastic_net(1.0, -0.5)
    with pytest.raises(ValueError, match=r"l2: `center` must not be NaN, got nan"):
        jr.l2(1.0, center=float("nan"))
    with pytest.raises(TypeError, match=r"around: `center` must be a number.*got 'a'"):
        jr.l2(1.0).around("a")


def test_factors_are_one_nonnegative_number():
    with pytest.raises(
        ValueError, match=r"penalty \*: `factor` must be >= 0 and not NaN, got -2\."
    ):
        -2 * jr.l1(1.0)
    for bad in (np.ones(2), {"a": 1.0}):
        with pytest.raises(ValueError, match=r"penalty \*: `factor` must be one number, got "):
            bad * jr.l1(1.0)
    for wrong in (lambda: jr.l1(1.0) * jr.l2(1.0), lambda: jr.l1(1.0) + 1, lambda: 1 + jr.l1(1.0)):
        with pytest.raises(TypeError, match="unsupported operand"):
            wrong()


@each
@pytest.mark.parametrize("bad", [-1.0, np.nan, jnp.float32(-1), {"dense": 1.0, "head": -1.0}])
def test_negative_steps_are_refused(make, bad):
    for reg in (make(1.0), 2 * make(1.0), make(1.0) + jr.l2(1.0), make(1.0).on(jr.kernels)):
        with pytest.raises(ValueError, match="`step` must be >= 0 and not NaN, got "):
            reg.prox(PARAMS, bad)


@each
def test_integer_and_complex_leaves_are_refused_by_path(make):
    for x, kind in [
        (jnp.arange(3), "int32"),
        (jnp.ones(3, jnp.complex64), "complex64"),
        (3, "a int"),
    ]:
        params = {"w": jnp.ones(3), "net": {"n": x}}
        for call in (lambda p: make(1.0)(p), lambda p: make(1.0).prox(p, 1.0)):
            with pytest.raises(TypeError, match=rf"leaf 'net/n' is .*{kind}.*~path\('net/n'\)"):
                call(params)
        assert np.isfinite(make(1.0).on(~jr.path("net/n"))(params))


def test_strengths_that_fit_no_leaf_are_refused_with_the_path():
    where = r"on the leaf 'dense/kernel' of shape \(3, 2\)"
    with pytest.raises(ValueError, match=r"l1: `lam` has shape \(2,\) " + where):
        jr.l1(np.ones(2)).on("dense/kernel")(PARAMS)
    with pytest.raises(
        ValueError, match=r"l1: `lam` is a pytree that does not match the parameters"
    ):
        jr.l1({"dense": 1.0})(PARAMS)
    with pytest.raises(ValueError, match=r"prox: `step` has shape \(2,\) on the leaf"):
        (jr.l2(1.0) + jr.l2(1.0)).prox(PARAMS["dense"]["kernel"], np.ones(2))
    with pytest.raises(ValueError, match=r"l2: `step` has shape \(2,\) on the leaf"):
        jr.l2(1.0).prox(PARAMS["dense"]["kernel"], np.ones(2))
    with pytest.raises(ValueError, match=r"around: `center` has shape \(4,\) on the leaf"):
        jr.l2(1.0, center=np.ones(4))(PARAMS["dense"]["bias"])


def test_a_group_axis_out_of_range_names_the_leaf():
    where = r"the leaf 'dense/bias' of shape \(2,\)\. Take an axis from -1 to 0, None"
    with pytest.raises(ValueError, match="`axis` 1 is out of range for " + where):
        jr.group_lasso(1.0, axis=1)(PARAMS)
    with pytest.raises(ValueError, match=r"`axis` -3 is out of range for the leaf 'dense/kernel'"):
        jr.group_lasso(1.0, axis=-3).on(jr.kernels).prox(PARAMS, 1.0)
    with pytest.raises(
        ValueError, match=r"the leaf '' of shape \(\)\. Take None for the whole leaf"
    ):
        jr.group_lasso(1.0, axis=0)(jnp.ones(()))


@pytest.mark.parametrize("axis", [1.5, "a", [0], True, (0, "a"), (0, True)])
def test_a_group_axis_is_an_integer(axis):
    with pytest.raises(
        TypeError, match="group_lasso: `axis` must be an integer, a tuple of them or None"
    ):
        jr.group_lasso(1.0, axis=axis)


def test_a_strength_that_varies_inside_a_group_is_refused():
    with pytest.raises(ValueError, match=r"`lam` has shape \(3, 2\) and differs inside a group"):
        jr.group_lasso(np.ones((3, 2)), axis=0)(PARAMS["dense"]["kernel"])


def test_what_has_no_closed_form_says_so():
    class Rough(jr.Elementwise):
        smooth, convex = False, True

        def rho(self, x):
            return jnp.abs(x) ** 1.5

        def prox_rho(self, x, threshold):
            raise ValueError("rough: no prox.")

    reg, x = Rough(1.0), jnp.ones(2)
    assert reg(x) == 2
    for call in (reg.prox, reg.min_norm_subgradient):
        with pytest.raises(ValueError, match=r"rough: (no prox|`kink` is not defined)"):
            call(x, x)
    with pytest.raises(ValueError, match="rough: the conjugate has no closed form"):
        reg.conjugate(x)
    with pytest.raises(ValueError, match=r"l1 \+ l2: lambda_max has no closed form"):
        (jr.l1(1.0) + jr.l2(1.0)).lambda_max(x)


def test_a_smooth_penalty_of_ones_own_needs_not_be_even():
    class Upwards(jr.Elementwise):
        smooth, convex = True, True

        def rho(self, x):
            return jnp.exp(x)

        def prox_rho(self, x, threshold):
            raise ValueError("no prox.")

    x, grad = jnp.array([0.0, 1.0]), jnp.array([-0.5, 0.0])
    close(Upwards(0.5).min_norm_subgradient(x, grad), [0.0, 0.5 * np.e], rtol=1e-6)
