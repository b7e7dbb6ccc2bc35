"""What a user may say of the machine that a sweep runs on; by default all of it, as it suits the grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, PartitionSpec

from jaxreg._check import count

__all__ = ["Machine", "check_machine", "default_mesh"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the lanes of a sweep run. What is left at None is chosen by machine, grid, model and memory.

    Attributes:
      chunk: points vmapped together.
      mesh: devices to spread over, all of them when None: its axis "lanes" takes the lanes, an axis
        "data" splits each batch, others are for `shard_params`.
      shard_params: (path, array) -> PartitionSpec of a parameter over further axes of the mesh.

    Raises:
      TypeError, ValueError: an attribute is of another kind.

    >>> Machine(chunk=4)
    Machine(chunk=4)
    """

    chunk: int | None = None
    mesh: Mesh | None = None
    shard_params: Callable[[str, Any], PartitionSpec] | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None:
            count("Machine", "chunk", self.chunk)
        if self.mesh is not None and not isinstance(self.mesh, Mesh):
            raise TypeError(
                f"Machine: `mesh` must be a jax.sharding.Mesh, got a {type(self.mesh).__name__}."
            )
        if self.shard_params is not None and not callable(self.shard_params):
            raise TypeError(
                "Machine: `shard_params` must be a function (path, array) -> PartitionSpec, got a "
                f"{type(self.shard_params).__name__}."
            )

    def __repr__(self) -> str:
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return f"Machine({', '.join(f'{n}={v!r}' for n, v in given.items() if v is not None)})"


def check_machine(machine: Any, batch_size: int | None, n_points: int) -> None:
    """Refuse what is no machine, and a mesh whose axes mean nothing here.

    Raises:
      TypeError: `machine` is of another type. ValueError: axes of the mesh
        that are missing, unknown, of another type, or do not divide the batch; a chunk of more lanes
        than there are points.
    """
    if not isinstance(machine, Machine):
        raise TypeError(
            "sweep: `machine` must be a jaxreg.Machine, such as Machine(chunk=4), got "
            f"{type(machine).__name__}."
        )
    shard = machine.shard_params
    if machine.chunk is not None and machine.chunk > n_points:
        raise ValueError(
            f"sweep: `chunk` must be between 1 and the {n_points} points, got {machine.chunk}."
        )
    if machine.mesh is not None:
        _check_mesh(machine.mesh, batch_size, shard is not None)
    elif shard is not None:
        raise ValueError(
            "sweep: `shard_params` needs a `mesh` with the axes that it names, beside 'lanes'."
        )


def default_mesh(lanes: int) -> Mesh | None:
    """The devices of the run along the axis `lanes`, at most one for each lane; None for one alone.

    Several processes must have a part each, so their devices are all taken.
    """
    devices = jax.devices() if jax.process_count() > 1 else jax.devices()[:lanes]
    if len(devices) == 1:
        return None
    return jax.make_mesh((len(devices),), ("lanes",), axis_types=(AxisType.Auto,), devices=devices)


def _check_mesh(mesh: Mesh, batch_size: int | None, sharded_params: bool) -> None:
    axes = mesh.axis_names
    if "lanes" not in axes:
        raise ValueError(
            f"sweep: `mesh` must have an axis named 'lanes' to spread the lanes over, got {axes}; such as "
            "jax.make_mesh((8,), ('lanes',), axis_types=(jax.sharding.AxisType.Auto,))."
        )
    unknown = sorted(set(axes) - {"lanes", "data"})
    if unknown and not sharded_params:
        raise ValueError(
            f"sweep: the axes {unknown} of `mesh` would do nothing; an axis 'data' splits each batch, "
            "and any other needs `shard_params` to say which parameters lie along it."
        )
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise ValueError(
            "sweep: the axes of `mesh` must be of type Auto, got "
            f"{[kind.name for kind in mesh.axis_types]}; give jax.make_mesh "
            "axis_types=(jax.sharding.AxisType.Auto,) * number of axes."
        )
    size = mesh.shape.get("data", 1)
    if size > 1 and (batch_size is None or batch_size % size):
        raise ValueError(
            f"sweep: the mesh's axis 'data' of {size} devices must divide `batch_size`, got {batch_size}."
        )
