"""docs/penalties.md against the code: every penalty has its line, and every name in it exists."""

import dataclasses
import inspect
import re

import jax
import jax.numpy as jnp
import pytest
from support.catalogue import CATALOGUE, OPTIONS
from support.paths import ROOT

import jaxreg as jr

DOCS = ROOT / "docs"
TEXT = (DOCS / "penalties.md").read_text()
# The first cell of a row: `name(a, b, *, c)`.
ROWS = dict(re.findall(r"^\| `(\w+)\((.*?)\)` \|", TEXT, re.MULTILINE))


def from_the_catalogue():
    """Public functions of the catalogue: penalties, and what computes their arguments."""
    yield from jr.penalties.__all__


def test_every_penalty_has_its_line_and_every_line_its_penalty():
    assert sorted(ROWS) == sorted(from_the_catalogue())


@pytest.mark.parametrize("name", ROWS)
def test_a_line_has_the_arguments_in_order(name):
    written = [a for a in ROWS[name].split(", ") if a]
    actual, keywords = [], False
    for parameter in inspect.signature(getattr(jr.penalties, name)).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            actual, keywords = [*actual, "*"], True
        actual.append(parameter.name)
    assert written == actual


# `name` | smooth | convex | metric | certificate | lambda_max | conjugate
ABILITIES = dict(re.findall(r"^\| `(\w+)` \|((?: (?:yes|·) \|){6})$", TEXT, re.MULTILINE))


def abilities(name):
    """What a penalty can do, found out by asking it, on shapes alone."""
    penalty, leaf = CATALOGUE[name](), jnp.ones((4, 3))
    params = OPTIONS.get(name, {}).get("params", {"bias": leaf, "kernel": leaf})

    def can(call):
        try:
            jax.eval_shape(call, params)
        except ValueError:
            return False
        return True

    assert can(lambda x: (penalty(x), penalty.prox(x, 1.0)))
    has_lam = "lam" in {f.name for f in dataclasses.fields(penalty)}
    return [
        penalty.smooth,
        penalty.convex,
        can(lambda x: penalty.prox(x, jax.tree.map(jnp.abs, x))),
        can(lambda x: penalty.subdiff_distance(x, x)),
        has_lam and can(penalty.lambda_max),
        can(penalty.conjugate),
    ]


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_page_says_what_a_penalty_can_do(name):
    assert ["yes" in cell for cell in ABILITIES[name].split("|")[:-1]] == abilities(name)


def test_every_operator_is_listed():
    listed = re.findall(r"`(\w+)`", TEXT.split("| of | operators |")[1])
    classes = {n for n in jr.prox.__all__ if inspect.isclass(getattr(jr.prox, n))}
    assert sorted(listed) == sorted(set(jr.prox.__all__) - classes)


def test_every_name_in_code_type_is_public_or_an_argument():
    modules = {"select", "penalties", "prox", "convert", "testing"}
    calls = set(re.findall(r"\bjr\.(\w+)", TEXT))
    assert calls <= set(jr.__all__) | modules
    # In the table of choices each bare name is a penalty.
    choices = TEXT.split("## Which one")[1].split("##")[0]
    assert set(re.findall(r"`(\w+)`", choices)) <= set(ROWS)


def test_pictures_and_links_exist_and_are_small():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (DOCS / target).exists(), target
    assert all(p.stat().st_size < 100_000 for p in (DOCS / "img").glob("*.png"))
