"""Bad inputs, made of the signatures: each is answered in our words, before anything compiles."""

import matplotlib as mpl
import pytest
from support import wrong
from support.compilations import compilations

mpl.use("Agg")
NAMES = list(wrong.public())
# What it got stands in other words in these: of a group by leaves, of two points that differ.
EXCUSED = {("group_lasso", "groups"), ("sparse_group_lasso", "groups"), ("points", "make")}


pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_argument_is_answered_in_our_words(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what a wrong path would write lands here
    good = {argument: value for argument, (value, _) in wrong.arguments(name).items()}
    wrong.called(name, good, tmp_path)  # which is not what is refused
    short = []
    for attack in wrong.attacks(name):
        error = None
        with compilations() as compiled:
            try:
                wrong.called(name, attack.call, tmp_path)
            except Exception as raised:
                error = raised
        lacks = wrong.shortcomings(attack, error) + [f"compiled {c}" for c in compiled]
        if lacks and not ((name, attack.argument) in EXCUSED and lacks == ["got"]):
            short.append(f"{attack.argument}={attack.wrong!r:.60}: lacks {lacks}; {error}")
    assert not short, "\n".join(short)


def test_there_are_many_of_them():
    """Of so many that the excused are not one in a hundred."""
    asked = [(a.owner, a.argument) for name in NAMES for a in wrong.attacks(name)]
    assert len(asked) >= 2000
    assert len(EXCUSED) <= len(asked) / 100


def test_a_message_without_its_parts_is_told():
    attack = wrong.Attack("l1", "lam", -1.0, {})
    assert wrong.shortcomings(attack, None) == ["silent"]
    assert wrong.shortcomings(attack, KeyError("x")) == [
        "KeyError",
        "owner",
        "argument",
        "remedy",
        "got",
    ]
    assert wrong.shortcomings(attack, ValueError("l1: `lam` must be >= 0, got -1.0.")) == []
