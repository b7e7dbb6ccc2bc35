"""Laws of form: a penalty is a value that jax may flatten, trace, batch and scan.

They come first: what fails here would fail everywhere else in a less readable way.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg import _tree
from jaxreg.testing import _compiled
from jaxreg.testing._case import (
    Case,
    DoesNotApply,
    fields,
    is_float,
    times,
)

CLOSE = 1e-9

# Under jit the shapes of a second draw are known from the first.
_value = jax.jit(lambda penalty, x: penalty(x))
_moved = jax.jit(lambda penalty, x: penalty.prox(x, jnp.float32(1)))


def pytree_round_trip(case: Case) -> None:
    """Flattening and rebuilding gives the same penalty, whatever the leaves are meanwhile."""
    penalty = case.penalty
    leaves, treedef = jax.tree.flatten(penalty)
    again = jax.tree.unflatten(treedef, leaves)
    same = type(again) is type(penalty) and repr(again) == repr(penalty)
    case.require(same, f"it comes back from jax.tree as {again!r}")
    case.require(hash(treedef) == hash(jax.tree.structure(again)), "its structure hashes unstably")
    # jax rebuilds a penalty with placeholders, and a gradient has negative strengths.
    jax.tree.unflatten(treedef, [object()] * len(leaves))
    jax.tree.map(lambda v: -v, penalty)


def repr_reads(case: Case) -> None:
    """The repr is one line made of the name and strengths, also of a traced penalty."""
    text, label = repr(case.penalty), case.penalty.label
    case.require(" object at 0x" not in text and "\n" not in text, f"its repr is {text!r}")
    case.require(bool(label) and "\n" not in label, f"its label is {label!r}")
    jax.eval_shape(lambda p: jnp.zeros(len(repr(p)) + len(p.label)), case.penalty)


def lam_forms(case: Case) -> None:
    """lam as a Python number, an array of no dimension or one number per leaf means the same."""
    given = fields(case.penalty)
    if not given or any(np.ndim(v) for lam in given for v in jax.tree.leaves(lam)):
        raise DoesNotApply("it has no scalar `lam`")
    x = case.layout.tree(jnp.asarray(case.generic[0]))
    per_leaf = jax.tree.map(lambda _: jnp.asarray(0.5), x)
    forms: dict[str, Any] = {"0.5": 0.5, "np.float32(0.5)": np.float32(0.5)}
    forms |= {"an array of no dimension": jnp.asarray(0.5), "a pytree": per_leaf}
    reference = None
    for name, lam in forms.items():
        penalty = case.penalty.map_field("lam", lambda _, lam=lam: lam)
        if name == "a pytree" and not _accepts(case, penalty, x):
            continue
        found = _eager(case, penalty, x)
        reference = found if reference is None else reference
        _same(case, reference, found, f"lam given as {name} instead of 0.5 changes the {{what}}")


def _accepts(case: Case, penalty, x) -> bool:
    """Whether a penalty takes strengths of this form; per layer is an offer, not a duty."""
    try:
        jax.eval_shape(lambda p, x: _eager(case, p, x), penalty, x)
    except Exception:
        return False
    return True


def _eager(case: Case, penalty, x) -> tuple[Any, Any]:
    """Value and prox (where there is one) of a pytree, without jit."""
    if case.subject.refusals["prox"] is not None:
        return penalty(x), case.layout.flat(x)
    return penalty(x), case.layout.flat(penalty.prox(x, jnp.asarray(case.step)))


def _same(case: Case, expected, found, detail: str, atol: float = CLOSE) -> None:
    """Value and prox agree to rounding."""
    for what, a, b in zip(("value", "prox"), expected, found):
        a, b = np.asarray(a), np.asarray(b)
        good = np.isclose(a, b, rtol=CLOSE, atol=atol, equal_nan=True)
        if not good.all():
            rows = {"expected": a[None], "found": b[None]}
            blame = None if a.ndim == 0 else (a - b)[None]
            case.require(np.zeros(1, bool), detail.format(what=what), blame, **rows)


def jit_is_eager(case: Case) -> None:
    """Value and prox are the same inside jit and outside."""
    x = case.generic[0]
    eager = _eager(case, case.penalty, case.layout.tree(jnp.asarray(x)))
    _same(case, eager, _alone(case, case.penalty, x), "jit changes the {what}")


def _alone(case: Case, penalty, x):
    return _compiled.alone(case.layout, penalty, x, _step(case))


def _step(case: Case):
    return None if case.subject.refusals["prox"] is not None else case.step


def one_trace(case: Case) -> None:
    """Another strength or step does not compile anew."""
    traces = []
    step = _step(case)

    def probe(penalty, x, step):
        traces.append(penalty)
        return penalty(x), x if step is None else penalty.prox(x, step)

    jitted = jax.jit(probe)
    x = case.layout.tree(jnp.asarray(case.x))
    for factor in (1.0, 0.5, 1.5):
        scaled = times(jax.tree.map(lambda v: v, case.penalty), 3 * factor)
        moved = jax.tree.map(lambda v, f=factor: f * v if is_float(v) else v, scaled)
        jitted.trace(moved, x, None if step is None else factor * step)
    detail = f"three strengths take {len(traces)} traces; a strength must be a leaf, not static"
    case.require(len(traces) == 1, detail)


def vmap_is_loop(case: Case) -> None:
    """A batch of parameters, and a batch of strengths, give what a loop gives."""
    points, step = case.generic, _step(case)
    loop = [_alone(case, case.penalty, x) for x in points]
    batch = case.value(points), points if step is None else case.prox(points)
    _compare(case, loop, batch, "vmap over parameters changes the {what}")
    if not case.subject.has_lam:
        return
    penalties = [times(case.penalty, f) for f in (0.3, 1.0001, 2.0)]
    loop = [_alone(case, p, points[0]) for p in penalties]
    batch = _compiled.swept(case.layout, _compiled.stack(penalties), points[0], step)
    _compare(case, loop, batch, "vmap over strengths changes the {what}")


def _compare(case: Case, loop, batch, detail: str) -> None:
    for i, one in enumerate(loop):
        _same(case, one, [part[i] for part in batch], detail, _loose(case))


def _loose(case: Case) -> float:
    """Iterations stop at another rounding in a batch."""
    return max(CLOSE, case.tolerance)


def stacked_layers(case: Case) -> None:
    """Layers stacked for a scan are penalized as they are one by one."""
    points = case.generic
    loop = [_alone(case, case.penalty, x) for x in points]
    found = _compiled.scanned(case.layout, case.penalty, points, _step(case))
    _compare(case, loop, found, "a scan over stacked layers changes the {what}")


def dtype_kept(case: Case) -> None:
    """The prox keeps structure, shapes and dtypes; sums are taken in float32 at least."""
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64):
        with jax.enable_x64(dtype == jnp.float64):
            _check_types(case, dtype)
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        _check_rounding(case, dtype)


def _check_types(case: Case, dtype) -> None:
    tree = case.layout.tree(jnp.zeros(case.layout.size), dtype)
    name, wide = jnp.dtype(dtype).name, jnp.promote_types(dtype, jnp.float32)
    value = _value.eval_shape(case.penalty, tree)
    case.require(value.shape == (), f"the value has shape {value.shape} and should be a scalar")
    detail = f"the value of {name} parameters is {value.dtype}; sum in {wide.name}"
    case.require(value.dtype == wide, detail)
    if _step(case) is None:
        return
    moved = _moved.eval_shape(case.penalty, tree)
    case.require(
        jax.tree.structure(moved) == jax.tree.structure(tree), "the prox changes the structure"
    )
    for path, a, b in zip(case.layout.paths, jax.tree.leaves(moved), jax.tree.leaves(tree)):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            detail = f"the prox turns {b.dtype}{b.shape} into {a.dtype}{a.shape}"
            case.fail(detail, path)


def _check_rounding(case: Case, dtype) -> None:
    """In a narrow dtype the answer is the wide one, rounded once."""
    points = np.asarray(jnp.asarray(case.generic, dtype), np.float64)
    with jax.enable_x64(False):
        found = _compiled.narrow(case.layout, dtype, case.penalty, points, _step(case))
    value, moved = (np.asarray(part, np.float64) for part in found)
    wide, name = case.value(points), jnp.dtype(dtype).name
    near = np.isclose(value, wide, rtol=1e-4, atol=1e-4) | ~np.isfinite(wide)
    case.require(near, f"its value in {name} is not accumulated in float32", x=points,
                 expected=wide, found=value)  # fmt: skip
    if _step(case) is None:
        return
    expected = case.prox(points)
    eps = float(jnp.finfo(dtype).eps)
    scale = np.max(np.abs(points), 1, keepdims=True)
    allowed = eps * np.abs(expected) + (1e-5 + 10 * case.tolerance) * (1 + scale)
    good = (np.abs(moved - expected) <= allowed).all(1)
    case.require(good, f"its prox in {name} is not the rounded one", moved - expected, case.step,
                 x=points, expected=expected, found=moved)  # fmt: skip


def support_respected(case: Case) -> None:
    """Leaves outside `support` do not count in the value and pass the prox untouched."""
    inside = case.layout.support(case.penalty.support(_template(case)))
    if inside.all():
        raise DoesNotApply("it acts on every leaf")
    other = np.where(inside, case.points, 1 + case.points[::-1])
    good = np.isclose(case.value(case.points), case.value(other), rtol=CLOSE, equal_nan=True)
    case.require(good, "the value depends on a leaf outside its support", x=other)
    moved = case.prox(case.points)
    same = np.where(inside, True, moved == case.points)
    detail = "the prox moves a leaf outside its support"
    case.require(same.all(1), detail, np.where(inside, 0, moved - case.points), x=case.points)


def _template(case: Case) -> _tree.PyTree:
    return case.layout.tree(jnp.zeros(case.layout.size))
