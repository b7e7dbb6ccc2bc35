"""tabulate: every leaf with its terms, against numbers worked out by hand."""

import io
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import jaxreg as jr
from jaxreg.report.table import Column, Table

PARAMS = {
    "dense": {"kernel": jnp.array([[3.0, -4.0], [0.0, 0.0]]), "bias": jnp.array([1.0, 2.0])},
    "norm": {"scale": jnp.array([2.0])},
}
KERNEL, BIAS, SCALE = "dense/kernel", "dense/bias", "norm/scale"


def rows(penalty, params=PARAMS, grads=None):
    """(leaf, term) -> row."""
    return {(r["leaf"], r["term"]): r for r in jr.tabulate(penalty, params, grads).rows}


def warned(penalty, params=PARAMS):
    return "\n".join(jr.tabulate(penalty, params).warnings)


def test_value_and_share_against_the_loss_by_hand():
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    row = rows(jr.l2(0.5).on(jr.kernels), grads=grads)[KERNEL, "l2.on(kernels)"]
    assert row["shape"] == (2, 2)
    assert row["lam"] == 0.5
    assert row["value"] == pytest.approx(0.25 * 25)
    # |0.5 (3, -4, 0, 0)| = 2.5 against |(1, 1, 1, 1)| = 2.
    assert row["share"] == pytest.approx(2.5 / 4.5)


def test_each_share_against_the_loss_is_of_its_own_term_and_leaf():
    grads = jax.tree.map(jnp.zeros_like, PARAMS) | {"norm": {"scale": jnp.array([3.0])}}
    got = rows(jr.l2(1.0) + jr.l1(1.0), grads=grads)
    assert got[SCALE, "l2"]["share"] == pytest.approx(2 / 5)
    assert got[SCALE, "l1"]["share"] == pytest.approx(1 / 4)
    assert got[KERNEL, "l2"]["share"] == 1


def test_without_a_loss_gradient_shares_are_of_the_penalty_and_add_to_one():
    got = rows(jr.l2(1.0) + 3 * jr.l1(1.0).on(BIAS))
    pulls = {
        (KERNEL, "l2"): 5.0,
        (BIAS, "l2"): math.sqrt(5),
        (SCALE, "l2"): 2.0,
        (BIAS, "l1.on(path('dense/bias'))"): 3 * math.sqrt(2),
    }
    for key, pull in pulls.items():
        assert got[key]["share"] == pytest.approx(pull / sum(pulls.values()))
    assert sum(r["share"] for r in got.values()) == pytest.approx(1)


def test_shares_are_zero_where_nothing_pulls():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    assert {r["share"] for r in rows(jr.l1(1.0) + jr.group_lasso(1.0), zeros).values()} == {0.0}
    assert {r["share"] for r in rows(jr.l2(1.0), zeros, zeros).values()} == {0.0}


PENALTIES = [
    jr.l2(0.3),
    jr.l1(0.3).on(jr.kernels),
    2 * jr.elastic_net(0.3, 0.2).on("dense/*"),
    jr.group_lasso(0.5, axis=-1).on(jr.kernels) + jr.l2(0.1).on(jr.biases),
    3 * (jr.l1(0.1) + jr.l2({"dense": 0.2, "norm": 0.0})),
    (jr.l2(0.1).around(1.5) + jr.l1(0.2).on(~jr.norms)).on(~jr.path("*/scale")),
    (2 * jr.l1(0.1) + jr.Zero()).around({"dense": 1.0, "norm": 0.5}),
    jr.l2(0.1, weights={"dense": 2.0, "norm": 0.0}, center=0.25),
    jr.Zero(),
]


@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
def test_values_of_the_rows_add_to_the_penalty(penalty):
    table = jr.tabulate(penalty, PARAMS)
    total = sum(r["value"] or 0 for r in table.rows)
    assert total == pytest.approx(float(penalty(PARAMS)), rel=1e-5)
    assert {r["leaf"] for r in table.rows} == {KERNEL, BIAS, SCALE}, "every leaf has a row"
    assert not any("no sum over leaves" in w for w in table.warnings)


@pytest.mark.parametrize(
    ("penalty", "leaf", "lam", "shown"),
    [
        (2 * (3 * jr.l1(0.1)), KERNEL, 0.6, "0.6"),
        (jr.l2({"dense": 0.1, "norm": 0.2}), SCALE, 0.2, "0.2"),
        (2 * jr.elastic_net(0.1, 0.25), KERNEL, 0.2, "0.2, l1_ratio=0.25"),
        (jr.l2(0.5, weights=4.0), BIAS, 0.5, "0.5, weights=4"),
        (jr.l2(0.5).around(7.0).on(jr.biases), BIAS, 0.5, "0.5"),
    ],
    ids=repr,
)
def test_lam_is_the_strength_on_that_leaf(penalty, leaf, lam, shown):
    table = jr.tabulate(penalty, PARAMS)
    (k,) = (k for k, r in enumerate(table.rows) if r["leaf"] == leaf)
    assert table.rows[k]["lam"] == pytest.approx(lam)
    heads = [c.header for c in table.columns]
    assert table.cells[k][heads.index("lam")] == shown


@pytest.mark.parametrize(
    ("penalty", "shown"),
    [(jr.box(0.0, 5.0), "low=0, high=5"), (2 * jr.box(0.0), "factor=2, low=0, high=inf")],
    ids=repr,
)
def test_a_penalty_without_lam_shows_its_fields_by_name(penalty, shown):
    table = jr.tabulate(penalty, jnp.ones(2))
    assert table.rows[0]["lam"] is None
    assert shown in table.cells[0]


def test_a_strength_for_each_coordinate_is_shown_as_a_range():
    lam = jnp.array([[0.5, 2.0]])
    table = jr.tabulate(2 * jr.l1(lam), jnp.ones((3, 2)))
    np.testing.assert_array_equal(table.rows[0]["lam"], 2 * lam)
    assert "1 … 4" in str(table)
    assert "(the array)" in str(table)


def test_leaves_hit_by_nothing_have_a_row_and_a_warning():
    got = jr.tabulate(jr.l2(1.0).on(BIAS), PARAMS)
    missed = next(r for r in got.rows if r["leaf"] == KERNEL)
    assert missed["term"] is missed["lam"] is missed["value"] is missed["share"] is None
    assert "no term acts on 'dense/kernel'." in got.warnings
    assert "no term acts on 'norm/scale' (biases and norms, as is usual)." in got.warnings


def test_leaves_hit_twice_are_named_with_both_terms():
    text = warned(jr.l1(0.1).on(jr.kernels) + jr.l2(0.1).on(~jr.norms))
    assert (
        "several terms act on 'dense/kernel': l1.on(kernels) and l2.on(~norms). Their gradients add."
        in text
    )
    assert text.count("several terms") == 1


def test_biases_and_norms_hit_by_a_term_without_selector_are_named_with_the_remedy():
    text = warned(2 * jr.l2(0.1).around(1.0))
    assert (
        "l2.around(...) also acts on 'dense/bias', 'norm/scale' (biases and norms). To leave them out, "
        "restrict it with .on(jaxreg.kernels)." in text
    )
    assert "also acts" not in warned(2 * jr.l2(0.1).on(jr.select.everything)), "the user said so"


def test_a_clean_penalty_has_no_warning():
    everything = jr.l1(0.1).on(jr.kernels) + jr.l2(0.1).on(~jr.kernels)
    assert jr.tabulate(everything, PARAMS).warnings == ()


def test_long_lists_of_leaves_are_cut():
    params = {f"w{i:02}": jnp.ones(2) for i in range(20)}
    assert "'w07' and 12 more." in warned(jr.Zero(), params)


def test_integer_leaves_and_other_dtypes():
    params = {
        "count": jnp.arange(3),
        "half": jnp.full(4, 300.0, jnp.bfloat16),
        "single": jnp.ones(2),
    }
    table = jr.tabulate(jr.l2(2.0).on(~jr.path("count")), params)
    by_leaf = {r["leaf"]: r for r in table.rows}
    assert by_leaf["half"]["dtype"] == "bfloat16"
    # 300**2 is beyond float16 and rounded in bfloat16: sums are taken in float32.
    assert by_leaf["half"]["value"] == pytest.approx(4 * 300.0**2, rel=1e-2)
    assert by_leaf["count"]["term"] is None
    # An integer leaf cannot be penalized, so it is not missed.
    assert [text for text in table.warnings if "rounding" not in text] == []


class Joint(jr.Penalty):
    """The norm of all leaves together: no sum over leaves."""

    lam: float
    smooth, convex = False, True

    def __call__(self, params):
        return self.lam * jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(params)))

    def prox(self, params, step):
        raise NotImplementedError


def test_groups_that_span_leaves_have_strength_and_share_but_one_value():
    params = {"fc": {"kernel": jnp.array([[3.0, 0.0]]), "bias": jnp.array([4.0, 0.0])}}
    units = [[("fc/kernel", -1), ("fc/bias", 0)]]
    table = jr.tabulate(2 * jr.group_lasso(0.5, groups=units, sqrt_size=False), params)
    bias, kernel = table.rows
    assert bias["value"] is kernel["value"] is None
    assert bias["lam"] == kernel["lam"] == 1
    assert bias["share"] == pytest.approx(4 / 7)
    assert kernel["share"] == pytest.approx(3 / 7)
    assert "group_lasso acts on several leaves together; its value is 5." in table.warnings
    joint = jr.hierarchical(1.0, 2.0, skip="skip", layer="layer")
    features = {"layer": jnp.ones((2, 3)), "skip": jnp.array([3.0, 4.0])}
    assert any("its value is 7" in w for w in jr.tabulate(joint, features).warnings)


def test_a_penalty_that_couples_leaves_says_so():
    text = warned(Joint(2.0), {"a": jnp.array([3.0]), "b": jnp.array([4.0])})
    assert "joint is no sum over leaves" in text
    assert "add to 14, while the whole is 10" in text


def test_one_term_twice_is_counted_twice():
    term = jr.l2(1.0)
    table = jr.tabulate(term + term, jnp.array([2.0]))
    assert [r["value"] for r in table.rows] == [2.0, 2.0]
    assert [w for w in table.warnings if "no sum" in w] == []


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: jr.tabulate(PARAMS, jr.l2(1.0)), TypeError, r"got dict. The order is tabulate\(pe"),
        (lambda: jr.tabulate(jr.l2(1.0), {"n": jnp.arange(2)}), TypeError, "the leaf 'n' is of dtype"),
        (lambda: jr.tabulate(jr.l2(1.0).on("x"), PARAMS), ValueError, "matches none of the 3"),
        (
            lambda: jr.tabulate(jr.l2(1.0), PARAMS, grads={"norm": jnp.ones(3)}),
            ValueError,
            r"`grads` must be the gradient .* the gradient has \['norm' \(3,\)\]",
        ),
        (
            lambda: jr.tabulate(jr.l2(1.0), jnp.ones(2), grads=jnp.ones(3)),
            ValueError,
            r"\['' \(2,\)\], the gradient has \['' \(3,\)\]",
        ),
    ],
)  # fmt: skip
def test_bad_input(call, error, match):
    with pytest.raises(error, match=match):
        call()


# --- the table itself -----------------------------------------------------------------------------

TABLE = Table(
    title="a <title>",
    columns=(Column("name", "left", wrap=True), Column("lam")),
    rows=({"name": "[red]", "lam": 1.0}, {"name": "b", "lam": 22.0}),
    cells=(("[red]", "1"), ("<b>", "22")),
    notes=("a note",),
    warnings=("watch & see",),
    styles=("red", ""),
)


def test_text_is_aligned_and_plain(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "10")
    assert str(TABLE).splitlines() == [
        "a <title>",
        "name    lam",
        "───────────",
        "[red]     1",
        "<b>      22",
        "a note",
        "warning: watch & see",
    ]
    assert repr(TABLE) == str(TABLE)


def test_wide_tables_are_not_cut():
    wide = Table("", (Column("x"),), ({},), (("y" * 300,),))
    assert "y" * 300 in str(wide)


def test_a_console_gets_colour():
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="standard", width=40).print(TABLE)
    assert "\x1b[31m" in out.getvalue()
    assert "[red]" in out.getvalue(), "cells are no markup"


def test_notebooks_get_html():
    html = TABLE._repr_html_()
    assert "<caption>a &lt;title&gt;</caption>" in html
    assert html.count("<tr>") == 3
    assert '&lt;b&gt;</td><td style="text-align:right">22</td>' in html
    assert "<b>warning:</b> watch &amp; see" in html


def test_in_half_precision_the_least_learning_rate_is_told():
    params = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(3, jnp.float16), "c": jnp.ones(3)}
    text = str(jr.tabulate(jr.l2(0.1), params))
    # A step of 1/512 of a weight is half of its last bit at most: 0.1 lr < 1/512.
    assert (
        "l2 in bfloat16 are lost in rounding on 'a' where the learning rate is below about 0.02"
        in (" ".join(text.split()))
    )
    assert "l2 in float16 are lost in rounding on 'b'" in " ".join(text.split())
    lr = 0.0195
    w = params["a"]
    assert (w - (0.9 * lr * 0.1 * w).astype(w.dtype) == w).all()
    assert (w - (2.1 * lr * 0.1 * w).astype(w.dtype) != w).all()
    assert "rounding" not in str(jr.tabulate(jr.l2(0.1), {"c": params["c"]}))


def test_a_setting_of_a_module_is_no_leaf_that_was_missed():
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.Sequential([eqx.nn.Linear(2, 1, key=jax.random.key(0)), eqx.nn.Dropout(0.5)])
    table = jr.tabulate(jr.l2(1.0).on(jr.kernels), net)
    assert not any("layers/1" in text for text in table.warnings)


def test_where_leaves_have_no_names_the_table_says_what_it_took_them_for():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = jr.tabulate(jr.l2(1.0).on(jr.kernels), [(jnp.ones((2, 3)), jnp.ones(3))])
    assert "'0/0', '0/1' have no name, so a vector is taken for a bias" in table.warnings[-1]
