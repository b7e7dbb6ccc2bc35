"""The scripts of this folder, a short run of each; their `--help` says how the long ones are begun."""

import subprocess
import sys

from support.paths import TESTS

from attacks import collisions, files, kills


def test_damaged_and_hostile_files_are_read_right_or_refused_in_one_clear_error():
    found = files.attack(60)
    assert [outcome for outcome in found if outcome.what not in ("right", "refused")] == []
    assert {outcome.what for outcome in found} == {"right", "refused"}


def test_of_two_runs_in_one_directory_none_ends_wrong():
    told = collisions.attack(4)
    assert sum(told.values()) == 16
    assert not [what for what in told if any(w in what for w in ("WRONG", "UNCLEAR", "LEAKED"))]


def test_killed_at_random_moments_every_run_ends_as_if_nothing_had_happened():
    told = kills.attack(4)
    assert told["kills"] == 4
    assert told["errors"] == 0
    assert told["right"] == told["ends"] >= 1


def test_sweeps_one_after_another_keep_nothing():
    """In a process of its own, whose memory nothing else fills."""
    command = [sys.executable, "-m", "attacks.memory", "--sweeps", "60"]
    told = subprocess.run(command, cwd=TESTS, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "0 trainers kept" in told.stdout
