"""What may be said about the machine, and what is refused before anything is laid out."""

import jax
import pytest

from jaxreg.sweeps.machine.machine import Machine, check_machine


def mesh(names, types=jax.sharding.AxisType.Auto):
    return jax.make_mesh((1,) * len(names), names, axis_types=(types,) * len(names))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: "lanes", TypeError, "must be a jax.sharding.Mesh, got a str"),
        (lambda: mesh(("batch",)), ValueError, r"axis named 'lanes' .* got \('batch',\)"),
        (
            lambda: mesh(("lanes", "model")),
            ValueError,
            r"axes \['model'\] of `mesh` would do nothing",
        ),
        (
            lambda: mesh(("lanes",), jax.sharding.AxisType.Explicit),
            ValueError,
            r"must be of type Auto, got \['Explicit'\]",
        ),
    ],
)
def test_a_mesh_with_the_wrong_axes_is_refused(make, error, match):
    with pytest.raises(error, match=match):
        check_machine(Machine(mesh=make()), 8, 3)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (
            lambda: 4,
            TypeError,
            r"`machine` must be a jaxreg.Machine, such as Machine\(chunk=4\), got int",
        ),
        (
            lambda: Machine(chunk=2.0),
            ValueError,
            "`chunk` must be an integer of at least 1, got 2.0",
        ),
        (lambda: Machine(chunk=4), ValueError, "`chunk` must be between 1 and the 3 points, got 4"),
        (
            lambda: Machine(chunk=True),
            ValueError,
            "`chunk` must be an integer of at least 1, got True",
        ),
        (lambda: Machine(mesh="cpu"), TypeError, "`mesh` must be a jax.sharding.Mesh, got a str"),
        (lambda: Machine(shard_params="model"), TypeError, "must be a function .* got a str"),
        (lambda: Machine(shard_params=print), ValueError, "`shard_params` needs a `mesh`"),
    ],
)
def test_what_is_no_machine_is_refused(make, error, match):
    with pytest.raises(error, match=match):
        check_machine(make(), None, 3)


def test_a_machine_tells_only_what_was_said():
    assert repr(Machine()) == "Machine()"
    assert "lanes" in repr(Machine(mesh=mesh(("lanes",))))
