"""Parameters as flat vectors: the laws do plain linear algebra and know nothing of pytrees.

A law draws and compares vectors of all floating coordinates; `Layout` turns a vector into the
parameters that the penalty sees, and an index back into the leaf it belongs to.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxreg import _tree
from jaxreg._tree import PyTree

MOST = 4096


@dataclasses.dataclass(frozen=True)
class Layout:
    """Structure, shapes and dtypes of the parameters: hashable, so it is a static argument."""

    treedef: Any
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str | None, ...]  # None for a floating leaf, which takes the dtype of the vector

    @classmethod
    def of(cls, params: PyTree) -> Layout:
        """The layout of `params`, whose values do not matter.

        Raises:
          ValueError: there are no floating coordinates, or too many for dense candidates.
        """
        leaves = _tree.flatten(params)
        layout = cls(
            leaves.treedef,
            leaves.paths,
            tuple(tuple(np.shape(x)) for x in leaves.values),
            tuple(None if _tree.is_floating(x) else str(x.dtype) for x in leaves.values),
        )
        if not 0 < layout.size <= MOST:
            raise ValueError(
                f"check_penalty: the parameters have {layout.size} floating coordinates; the laws "
                f"need between 1 and {MOST}. Give small shapes: laws do not depend on the size."
            )
        return layout

    def resized(self, shapes: tuple[tuple[int, ...], ...]) -> Layout:
        return dataclasses.replace(self, shapes=shapes)

    @property
    def size(self) -> int:
        """How many floating coordinates there are."""
        return sum(self._sizes())

    def _sizes(self) -> list[int]:
        return [math.prod(s) if d is None else 0 for s, d in zip(self.shapes, self.dtypes)]

    def tree(self, flat: ArrayLike, dtype: Any = None) -> PyTree:
        """The parameters with the coordinates `flat` [n], floating leaves in `dtype`."""
        starts, flat = np.cumsum([0, *self._sizes()]), jnp.asarray(flat)
        values = [
            jnp.zeros(shape, kind)
            if kind is not None
            else jnp.asarray(flat[a:b], dtype or flat.dtype).reshape(shape)
            for shape, kind, a, b in zip(self.shapes, self.dtypes, starts, starts[1:])
        ]
        return jax.tree.unflatten(self.treedef, values)

    def flat(self, tree: PyTree) -> Array:
        """The floating coordinates of parameters as one vector [n], in the widest dtype."""
        leaves = [jnp.ravel(x) for x, d in zip(jax.tree.leaves(tree), self.dtypes) if d is None]
        return jnp.concatenate([x.astype(jnp.result_type(float)) for x in leaves])

    def blocks(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Leaf path -> its coordinates in `flat` [n] as a shaped view, floating leaves only."""
        starts = np.cumsum([0, *self._sizes()])
        return {
            path: flat[a:b].reshape(shape)
            for path, shape, kind, a, b in zip(
                self.paths, self.shapes, self.dtypes, starts, starts[1:]
            )
            if kind is None
        }

    def owner(self, index: int) -> str:
        """The path of the leaf that holds the coordinate `index`."""
        return self.paths[int(np.searchsorted(np.cumsum(self._sizes()), index, side="right"))]

    def support(self, leaves: list[bool]) -> np.ndarray:
        """Bool [n]: the coordinates of the leaves marked True."""
        return np.repeat(leaves, self._sizes())
