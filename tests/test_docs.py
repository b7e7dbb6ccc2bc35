"""docs/penalties.md against the code: every penalty has its line, and every name in it exists."""

import inspect
import re
from pathlib import Path

import pytest

import jaxreg as jr

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "penalties.md").read_text()
# The first cell of a row: `name(a, b, *, c)`.
ROWS = dict(re.findall(r"^\| `(\w+)\((.*?)\)` \|", TEXT, re.MULTILINE))


def from_the_catalogue():
    """Public functions of the catalogue: penalties, and what computes their arguments."""
    for name in jr.__all__:
        thing = getattr(jr, name)
        if inspect.isfunction(thing) and thing.__module__.startswith("jaxreg.penalties"):
            yield name


def test_every_penalty_has_its_line_and_every_line_its_penalty():
    assert sorted(ROWS) == sorted(from_the_catalogue())


@pytest.mark.parametrize("name", ROWS)
def test_a_line_has_the_arguments_in_order(name):
    written = [a for a in ROWS[name].split(", ") if a]
    actual, keywords = [], False
    for parameter in inspect.signature(getattr(jr, name)).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            actual, keywords = [*actual, "*"], True
        actual.append(parameter.name)
    assert written == actual


def test_every_name_in_code_type_is_public_or_an_argument():
    calls = set(re.findall(r"\bjr\.(\w+)", TEXT))
    assert calls <= set(jr.__all__)
    # In the table of choices each bare name is a penalty.
    choices = TEXT.split("## Which one")[1].split("##")[0]
    assert set(re.findall(r"`(\w+)`", choices)) <= set(ROWS)


def test_pictures_and_links_exist_and_are_small():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (DOCS / target).exists(), target
    assert all(p.stat().st_size < 100_000 for p in (DOCS / "img").glob("*.png"))
