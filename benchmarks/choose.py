"""What choosing λ costs and is worth: rules, searches and shortcuts, by the test loss of what they chose.

Sections (--only): `rules`, every rule of choice on twenty draws of three data sets, against the best mean;
`intervals`, how often nominal 90 % intervals of the expected error hold it, on ridge simulations. Test rows
are those that a draw left out; nothing chose by them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from _common import Row, arguments, bound, emit, machine, show, show_bounds
from _intervals import CASES, data_set
from _resampled import Draw, Task, draws, linear, net

from jaxreg.choice import RULES, Pick, choose


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections alone")
    parser.add_argument("--draws", type=int, default=20, help="resamplings; default: 20")
    args = parser.parse_args()
    for name in args.only or SECTIONS:
        began = time.perf_counter()
        rows, bounds = SECTIONS[name](3 if args.smoke else args.draws, args.smoke)
        emit(f"choose {name}", [*rows, *bounds])
        if not args.json:
            _show(name, rows)
            if not args.smoke:
                show_bounds(bounds)
            print(f"{name}: {time.perf_counter() - began:.0f} s")


def _show(title: str, rows: Sequence[Row]) -> None:
    columns = list(rows[0])
    cells = [[_text(row[name]) for name in columns] for row in rows]
    show(f"{title}\n{machine()}", columns, cells)


def _text(value: object) -> str:
    if isinstance(value, list):
        return f"{value[0]:+.4f} ± {value[1]:.4f}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _mean(values: Sequence[float]) -> list[float]:
    """Mean and standard error over draws."""
    array = np.asarray(values, float)
    return [float(array.mean()), float(array.std(ddof=1) / np.sqrt(len(array)))]


# --- rules ------------------------------------------------------------------------------------------


def _tasks(smoke: bool) -> Iterator[Task]:
    count = 6 if smoke else 16
    lams = lambda low, high: np.geomspace(low, high, count)
    steps = {"steps": 60} if smoke else {}
    yield linear("diabetes", 150, lams(1e-3, 0.5), **steps)
    yield linear("breast_cancer", 100, lams(1e-3, 0.3), **steps)
    yield linear("digits", 100, lams(1e-4, 0.03), **steps)
    yield net("diabetes", 150, lams(1e-3, 1), hidden=32, **steps)
    yield net("breast_cancer", 100, lams(1e-3, 1), hidden=32, **steps)
    yield net("digits", 100, lams(1e-5, 0.1), **steps)


def _rules(count: int, smoke: bool) -> tuple[list[Row], list[Row]]:
    rows, bounds = [], []
    for task in _tasks(smoke):
        found = draws(task, count)
        gains = {}
        for rule in RULES:
            picks = [choose(rule, draw.scores) for draw in found]
            cost = [_test(d, p) - _test(d, choose("min", d.scores)) for d, p in zip(found, picks)]
            gains[rule] = float(np.mean(cost))
            lams = [_lam(d, p) for d, p in zip(found, picks)]
            rows.append({
                "task": task.name, "rule": rule, "test loss - min": _mean(cost),
                "lam (geometric mean)": float(np.exp(np.mean(np.log(lams)))),
                "nonzero": float(np.mean([d.nonzero[p.index] for d, p in zip(found, picks)])),
            })  # fmt: skip
        hindsight = [d.test.min() - _test(d, choose("min", d.scores)) for d in found]
        rows.append({
            "task": task.name, "rule": "the best in hindsight", "test loss - min": _mean(hindsight),
            "lam (geometric mean)": "", "nonzero": "",
        })  # fmt: skip
        bounds += [
            bound(f"{task.name}: cost of paired over half of 1se's", gains["paired"],
                  most=0.5 * gains["1se"]),
            bound(f"{task.name}: true differences within one corrected error", _covered(found, True),
                  least=0.5, most=0.75),
        ]  # fmt: skip
    return rows, bounds


def _test(draw: Draw, pick: Pick) -> float:
    """The test loss of a choice; between points that on the curve through the tested ones."""
    if pick.place is None:
        return float(draw.test[pick.index])
    x = np.log(draw.scores.coords["lam"])
    return float(np.interp(np.log(pick.place.position), x, draw.test))


def _lam(draw: Draw, pick: Pick) -> float:
    return (
        float(draw.scores.coords["lam"][pick.index]) if pick.place is None else pick.place.position
    )


def _covered(found: Sequence[Draw], corrected: bool) -> float:
    """How often the difference in test loss from the best is within one standard error of what was told."""
    inside = []
    for draw in found:
        k = draw.scores.lowest
        told, error = draw.scores.differences(k, corrected)
        true = draw.test - draw.test[k]
        inside += [abs(t - d) <= e for i, (t, d, e) in enumerate(zip(true, told, error)) if i != k]
    return float(np.mean(inside))


# --- intervals ---------------------------------------------------------------------------------------


def _intervals(count: int, smoke: bool) -> tuple[list[Row], list[Row]]:
    rows, bounds = [], []
    for i, case in enumerate(CASES):
        sets = [
            data_set(case, 1000 * i + s, 2 if smoke else 12)
            for s in range(10 if smoke else 15 * count)
        ]
        share = lambda name, sets=sets: float(np.mean([getattr(s, name) for s in sets]))
        title = f"n={case.n} p={case.p} λ={case.lam:g}"
        rows.append({
            "ridge": title, "nested": share("nested"), "rows / √n": share("rows"),
            "folds / √K": share("folds"), "width of nested over rows": share("width"),
            "data sets": len(sets),
        })  # fmt: skip
        bounds.append(bound(f"{title}: covered by nested", share("nested"), least=0.85, most=0.95))
    return rows, bounds


SECTIONS: dict[str, Callable[[int, bool], tuple[list[Row], list[Row]]]] = {
    "rules": _rules, "intervals": _intervals,
}  # fmt: skip


if __name__ == "__main__":
    main()
