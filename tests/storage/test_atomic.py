"""Files that appear whole or not at all, and directories that go so."""

import os

import pytest

from jaxreg.storage import atomic
from jaxreg.storage.atomic import new_file, remove_directory


@pytest.fixture
def log(monkeypatch):
    """What was forced to the disk and what renamed, in order."""
    log, sync, replace = [], atomic._sync, os.replace

    def noted_replace(a, b):
        log.append(("rename", os.path.basename(b)))
        replace(a, b)

    monkeypatch.setattr(atomic, "_sync", lambda p: (log.append(("sync", p.name)), sync(p)))
    monkeypatch.setattr(atomic.os, "replace", noted_replace)
    return log


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, log):
    with new_file("save", tmp_path / "file", False) as unfinished:
        unfinished.write_text("new")
    assert log == [("sync", unfinished.name), ("rename", "file"), ("sync", tmp_path.name)]
    assert os.listdir(tmp_path) == ["file"]


class Stop(BaseException):
    """As Ctrl-C."""


def test_two_writers_of_one_place_do_not_meet(tmp_path):
    with (
        new_file("save", tmp_path / "a", True) as one,
        new_file("save", tmp_path / "a", True) as two,
    ):
        assert one != two  # also on two hosts, whose processes may have one number
        one.touch(), two.touch()


def interrupted(writing):
    with writing as unfinished:
        unfinished.write_text("half")
        raise Stop


@pytest.mark.parametrize("before", [[], ["a"]])
def test_what_is_not_finished_leaves_what_was_there(tmp_path, before):
    for name in before:
        (tmp_path / name).write_text("old")
    with pytest.raises(Stop):
        interrupted(new_file("save", tmp_path / "a", True))
    assert os.listdir(tmp_path) == before
    assert all((tmp_path / name).read_text() == "old" for name in before)


def test_a_removal_that_is_cut_off_has_taken_the_name_away(tmp_path, monkeypatch):
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "leaf").write_text("here")
    monkeypatch.setattr(atomic.shutil, "rmtree", lambda *_, **__: None)
    remove_directory(tmp_path / "place")
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".place.")
    assert left.endswith(".old")
