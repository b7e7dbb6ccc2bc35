"""How fast every penalty is, against the speed of memory and against other libraries.

Memory first. On parameters of 10^7 numbers in four leaves, each penalty's value, gradient and prox are
timed under jit, over the time of copying the same parameters once (read and write: 80 MB) in the same
rounds. A pass over memory cannot be faster than a copy, so the ratio says how far from the machine's
limit a penalty is, and means the same on another machine. Memory is kept between calls, so that fresh
pages count for neither. The targets:

    elementwise  at most 1.5: one pass, which hides its arithmetic
    group        at most 2: norms first, then a second pass
    search       a level per group is searched for, in a handful of passes; stated
    sort         sorting is n log n; stated as nanoseconds per n log2 n
    linear       one pass in order along a vector of 10^6; its time must grow like n, which is
                 checked with four times as many
    matrix       singular values, on two 256 x 256 matrices
    iterative    no closed form, so to a tolerance; on the same matrices, or a signal of 10^4

A penalty that reads more arrays than the parameters (a centre, weights) is allowed as many copies
more. Then the same operator in jaxopt, pyproximal and skglm, where they have it and are installed, on
one array of 10^6, answers first: where they differ the script ends with status 1.

Every penalty that jaxreg exports has an entry in _cases.py; one without ends the script with status 1 too.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import math
from collections.abc import Callable
from typing import Any

import _peers as peers
import jax
import jax.numpy as jnp
import numpy as np
from _cases import CASES, Case, examples, exported, parameters, penalty_of, size
from _common import (
    Row,
    arguments,
    emit,
    figures,
    first_calls,
    keep_memory,
    machine,
    refuse,
    show,
    timed_rounds,
)

from jaxreg.objective import penalty_gradient

STEP = 0.1
TARGETS = {"elementwise": 1.5, "group": 2.0}
# Seconds that the rounds of one penalty may take, three rounds at least.
BUDGET = 20.0


# --- against memory -------------------------------------------------------------------------------


def reserve_memory(blocks: int = 16) -> None:
    """Grow the heap by some 500 MB, so that a temporary array of all the parameters fits into it.

    glibc maps a block above 32 MB afresh, page by page, at every call, unless the heap has a gap for it;
    then a pass over 40 MB takes 20 ms or 3, whatever was freed before.
    """
    try:
        malloc, free = (getattr(ctypes.CDLL(None), name) for name in ("malloc", "free"))
    except (OSError, AttributeError):
        return
    malloc.restype, malloc.argtypes, free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    for block in [malloc(2**25 - 2**12) for _ in range(blocks)]:
        free(block)


@jax.jit
def _copy(params, zero):
    # An addend that only the call knows: else the copy would be optimised away or be a memcpy.
    return jax.tree.map(lambda x: x + zero, params)


_OPERATIONS = {
    "value": jax.jit(lambda penalty, params: penalty(params)),
    "gradient": jax.jit(penalty_gradient),
    "prox": jax.jit(lambda penalty, params: penalty.prox(params, STEP)),
}


def operations(case: Case, params: Any) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """The calls to time, and for those a penalty refuses the reason it gives."""
    penalty = case.make(params)
    zero = jnp.zeros(())
    calls: dict[str, Callable[[], Any]] = {"copy": lambda: _copy(params, zero)}
    refused = {}
    for what, operation in _OPERATIONS.items():
        try:
            jax.eval_shape(operation, penalty, params)
        except (ValueError, TypeError, NotImplementedError) as error:
            refused[what] = str(error)
        else:
            calls[what] = functools.partial(operation, penalty, params)
    return calls, refused


def against_memory(name: str, options: argparse.Namespace) -> list[Row]:
    """A row for the value, the gradient and the prox of one penalty."""
    case = CASES[name]
    params = parameters(case.on, options.smoke)
    calls, refused = operations(case, params)
    first, _ = first_calls(calls)
    timings = timed_rounds(calls, first, options.rounds, BUDGET)
    n = size(params)
    setting = {"penalty": name, "kind": case.kind, "parameters": n}
    rows = [{**setting, "what": w, "refused": why} for w, why in refused.items()]
    for what in [w for w in calls if w != "copy"]:
        row = {**setting, "what": what, **figures(timings[what], timings["copy"])}
        # In small the time is that of the call, which no target is about.
        if case.kind in TARGETS and not options.smoke:
            row["target"] = TARGETS[case.kind] * (2 + case.extra) / 2
            row["met"] = row["ratio"] <= row["target"]
        if case.kind == "sort":
            row["ns_per_n_log2_n"] = timings[what].median / (n * math.log2(n)) * 1e9
        rows.append(row)
    if case.kind == "linear":
        rows += growth(name, options)
    return rows


def growth(name: str, options: argparse.Namespace, times: int = 4) -> list[Row]:
    """How the time of the prox grows with n, over n: 1 is linear."""
    case = CASES[name]
    calls = {}
    for factor in (1, times):
        params = parameters(case.on, options.smoke, factor)
        calls[factor] = functools.partial(_OPERATIONS["prox"], case.make(params), params)
    first, _ = first_calls(calls)
    timings = timed_rounds(calls, first, options.rounds, BUDGET)
    row = {"penalty": name, "kind": "linear", "what": "growth of prox / growth of n"}
    found = figures(timings[times], timings[1])
    found["ratio"], found["ratio_iqr"] = (
        found["ratio"] / times,
        [q / times for q in found["ratio_iqr"]],
    )
    return [{**row, "parameters": size(parameters(case.on, options.smoke, times)), **found}]


# --- against other libraries ----------------------------------------------------------------------


def difference(ours: Any, theirs: Any, jumps: bool) -> float:
    """The largest difference of an entry, over 1 + the largest entry; inf for a NaN."""
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    far = np.sort(np.abs(ours - theirs).ravel() / (1 + np.abs(theirs).max()))
    far = np.where(np.isnan(far), np.inf, far)
    # At a jump an entry within rounding of the threshold may go either way.
    return float(far[-1 - max(1, len(far) // 100_000)] if jumps else far[-1])


def against_peers(name: str, options: argparse.Namespace) -> list[Row]:
    """A row for each library with the same operator; stops the script where the answers differ."""
    match = peers.MATCHES[name]
    sizes = {"matrix": (256, 65_536)}.get(match.shape, (1_000, 1_000_000))
    n = sizes[not options.smoke]
    x = peers.array(match.shape, n)
    penalty, on_device = match.penalty(x.size), jnp.asarray(x)
    prox = jax.jit(lambda penalty, x: penalty.prox(x, peers.STEP))
    calls: dict[str, Callable[[], Any]] = {"jaxreg": lambda: prox(penalty, on_device)}
    setting = {"penalty": name, "what": "prox, peers", "parameters": x.size}
    rows: list[Row] = []
    for peer in match.peers:
        module = peers.library(peer.library)
        if module is None:
            rows.append({**setting, "peer": peer.library, "note": "not installed"})
        else:
            calls[peer.library] = peer.prepare(module, x)
    if len(calls) == 1:
        return rows
    first, answers = first_calls(calls)
    tolerances = {peer.library: peer.tolerance for peer in match.peers}
    far = {
        p: difference(answers["jaxreg"], answers[p], match.jumps) for p in tolerances if p in calls
    }
    for library, distance in far.items():
        if not distance <= tolerances[library]:
            refuse(
                f"{name}: ours and {library}'s differ by {distance:.2g} > {tolerances[library]:g}."
            )
    timings = timed_rounds(calls, first, options.rounds, BUDGET)
    ours = timings["jaxreg"]
    return rows + [
        {**setting, "peer": p, "difference": d, **figures(timings[p], ours)} for p, d in far.items()
    ]


# --- printing -------------------------------------------------------------------------------------


def memory_table(rows: list[Row]) -> None:
    by_name: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_name.setdefault(row["penalty"], {})[row["what"]] = row
    lines = []
    for name, found in by_name.items():
        cells = [_cell(found.get(what)) for what in _OPERATIONS]
        row = found.get("prox") or next(iter(found.values()))
        lines.append([name, row["kind"], f"{row['parameters']:.0e}", *cells, _remark(found)])
    columns = ["penalty", "kind", "numbers", *_OPERATIONS, "target"]
    show("Time over that of copying the parameters once", columns, lines)


def _cell(row: Row | None) -> str:
    return "-" if row is None else "refused" if "refused" in row else f"{row['ratio']:.2f}"


def _remark(found: dict[str, Row]) -> str:
    grown = found.get("growth of prox / growth of n")
    if grown:
        return f"grows {grown['ratio']:.2f} times as n"
    row = found.get("prox", {})
    if "ns_per_n_log2_n" in row:
        return f"{row['ns_per_n_log2_n']:.2f} ns per n log2 n"
    if "target" not in row:
        return ""
    missed = [what for what, r in found.items() if not r.get("met", True)]
    return f"<= {row['target']:g}: " + (f"missed by {', '.join(missed)}" if missed else "met")


def peer_table(rows: list[Row]) -> None:
    def line(row: Row) -> list[str]:
        if "note" in row:
            return [row["penalty"], row["peer"], row["note"], ""]
        low, high = row["ratio_iqr"]
        return [row["penalty"], row["peer"], f"{row['ratio']:.2f}", f"{low:.2f} - {high:.2f}"]

    lines = [line(row) for row in rows]
    show("Prox: time of the library over ours", ["penalty", "library", "ratio", "quartiles"], lines)


def main() -> None:
    parser = arguments(__doc__ or "")
    if keep_memory():
        reserve_memory()
    parser.add_argument("--only", nargs="+", metavar="PENALTY", help="these penalties alone")
    options = parser.parse_args()
    if options.smoke:
        options.rounds = 2
    names = options.only or examples()
    without = {*exported(), *map(penalty_of, names)} - set(map(penalty_of, CASES))
    if without:
        refuse(f"no example in benchmarks/_cases.py for {sorted(without)}; add one.")
    memory = [row for name in names for row in against_memory(name, options)]
    others = [
        row for name in names if name in peers.MATCHES for row in against_peers(name, options)
    ]
    if not options.json:
        memory_table(memory)
        peer_table(others)
        print(machine())
    emit("penalties", memory + others)


if __name__ == "__main__":
    main()
