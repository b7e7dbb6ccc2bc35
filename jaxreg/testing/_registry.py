"""The laws in one table, in the order they are tried: form first, as nothing works without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from jaxreg.testing import _laws_dual as dual
from jaxreg.testing import _laws_edge as edge
from jaxreg.testing import _laws_form as form
from jaxreg.testing import _laws_prox as prox
from jaxreg.testing import _laws_value as value
from jaxreg.testing._case import Case

Law: TypeAlias = Callable[[Case], None]

# A law with how many draws it is worth; None for as many as the caller wants.
_TABLE: tuple[tuple[Law, int | None], ...] = (
    (form.pytree_round_trip, 1),
    (form.repr_reads, 1),
    (form.lam_forms, 1),
    (form.jit_is_eager, 2),
    (form.one_trace, 1),
    (form.vmap_is_loop, 2),
    (form.support_respected, 3),
    (value.value_nonnegative, None),
    (edge.gradient_finite, None),
    (edge.zero_groups, None),
    (edge.zero_strength, None),
    (value.gradient_matches_differences, None),
    (value.gradient_least_norm, None),
    (value.smooth_means_smooth, None),
    (value.convex_means_convex, None),
    (value.homogeneous_in_lam, None),
    (value.strength_gradient, 8),
    (prox.projection_stays, None),
    (prox.prox_minimises, None),
    (prox.prox_on_a_grid, 10),
    (prox.prox_jumps_between_equals, 10),
    (prox.prox_nonexpansive, None),
    (prox.prox_in_a_metric, None),
    (prox.prox_differentiable, 8),
    (edge.zero_weights, 5),
    (dual.moreau, None),
    (dual.certificate_of_prox, None),
    (dual.subgradient_least_norm, None),
    (dual.lambda_max_exact, None),
    (form.stacked_layers, 2),
    (form.dtype_kept, 3),
    (edge.empty_leaves, 1),
    (edge.huge_and_tiny, 2),
    (edge.any_strength, 2),
)

LAWS: dict[str, Law] = {law.__name__: law for law, _ in _TABLE}
"""Every law by its name, in the order they are tried; `LAWS[name].__doc__` states it."""

DRAWS: dict[str, int | None] = {law.__name__: draws for law, draws in _TABLE}
"""The most examples a law is worth: one that hardly depends on the point needs few."""
