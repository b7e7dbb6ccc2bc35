"""Several devices: the same numbers as on one, no talk between lanes, and padding that never shows."""

import json
import subprocess
import sys

import numpy as np
import pytest
from support.paths import TESTS


@pytest.fixture(scope="module")
def seen():
    child = [sys.executable, "-m", "support.children", "mesh"]
    run = subprocess.run(child, cwd=TESTS, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["by default", "data", "model"])
def test_the_numbers_are_those_of_one_device(seen, name):
    for part in ("valid", "w1"):
        np.testing.assert_allclose(seen[name][part], seen["one device"][part], atol=2e-6)


def test_lanes_that_do_not_divide_the_devices_are_padded_unseen(seen):
    """Six pairs of fold and seed, cut into bundles of three of the five points, on eight devices."""
    assert seen["by default"]["layout"].startswith(
        "all bundles of 3 vmapped lanes at once over 8 devices"
    )
    assert np.shape(seen["by default"]["valid"]) == (5, 3, 2, 5)
    assert np.isfinite(seen["by default"]["valid"]).all()


def test_of_more_devices_than_lanes_as_many_are_used_as_there_are_lanes(seen):
    assert "over 2 devices" in seen["few lanes"]["layout"]
    np.testing.assert_allclose(
        seen["few lanes"]["valid"], seen["few lanes on one"]["valid"], atol=2e-6
    )


def test_rows_that_lie_on_two_devices_are_brought_together(seen):
    assert np.isfinite(seen["rows on two devices"]).all()


def test_lanes_do_not_talk(seen):
    """In the compiled program: no collective at all, or only within the other axis of the mesh."""
    assert seen["by default"]["collectives"] == []
    assert seen["halving"]["collectives"] == []
    for name in ("data", "model"):
        groups = seen[name]["collectives"]
        # Devices are numbered lanes first: 0 and 1 share a lane of a 4 x 2 mesh.
        pairs = {"[4,2]<=[8]", "{{0,1},{2,3},{4,5},{6,7}}"}
        permutes = "{{0,1},{1,0},{2,3},{3,2},{4,5},{5,4},{6,7},{7,6}}"
        assert groups, f"{name}: the second axis does talk"
        assert set(groups) <= {*pairs, permutes}, groups


def test_survivors_on_a_mesh_have_the_numbers_of_the_full_run(seen):
    halved, whole = np.array(seen["halving"]["valid"]), np.array(seen["by default"]["valid"])
    known = np.isfinite(halved)
    assert 0 < known[..., -1].sum() < known[..., -1].size
    np.testing.assert_allclose(halved[known], whole[known], atol=2e-6)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "fewer lanes",
            "2 lanes (1 points x 2 pairs of fold and seed) are fewer than the 8 devices",
        ),
        ("data does not divide", "axis 'data' of 3 devices must divide `batch_size`, got 8"),
    ],
)
def test_meshes_that_do_not_fit_are_refused(seen, name, text):
    assert text in seen[name]
