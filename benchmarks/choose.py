"""What choosing λ costs and is worth: rules, searches and shortcuts, by the test loss of what they chose.

Sections (--only): `rules`, every rule of choice on twenty draws of three data sets, against the best mean;
`intervals`, how often nominal 90 % intervals of the expected error hold it, on ridge simulations;
`search`, how near a search comes to a dense grid; `layers`, one strength for each layer of a net by a
stencil, beside 64 points of a Sobol sequence and 16 of a single strength; `ridge`, leave-one-out for every
λ beside scikit-learn's; `kfold`, folds of 1,000 responses beside himalaya's; `groups`, one λ for each
group of columns; `variables`, which ones are found; `evidence`, that of nets; `continuation`, from weak to
strong; `tpe`, Optuna's sampler. Test rows are those that a draw left out; nothing chose by them.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from _common import (
    Row,
    arguments,
    bound,
    emit,
    first_calls,
    machine,
    ratio,
    refuse,
    show,
    show_bounds,
    timed_rounds,
)
from _continuation import continuation
from _evidence import evidence
from _intervals import CASES, data_set
from _resampled import Draw, Task, draws, linear, net
from _ridge import groups, kfold
from _stability import variables
from _tpe import tpe

import jaxreg as jr
from jaxreg.choice import RULES, Choice, Pick, choose


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections alone")
    parser.add_argument("--draws", type=int, default=20, help="resamplings; default: 20")
    args = parser.parse_args()
    for name in args.only or _installed():
        began = time.perf_counter()
        rows, bounds = SECTIONS[name](3 if args.smoke else args.draws, args.smoke)
        emit(f"choose {name}", [*rows, *bounds])
        if not args.json:
            _show(name, rows)
            if not args.smoke:
                show_bounds(bounds)
            print(f"{name}: {time.perf_counter() - began:.0f} s")


def _installed() -> list[str]:
    """All sections but those of a library that is not there."""
    return [n for n in SECTIONS if n not in NEEDS or importlib.util.find_spec(NEEDS[n])]


def _show(title: str, rows: Sequence[Row]) -> None:
    columns = list(rows[0])
    cells = [[_text(row[name], name.endswith("_iqr")) for name in columns] for row in rows]
    show(f"{title}\n{machine()}", columns, cells)


def _text(value: object, span: bool = False) -> str:
    if isinstance(value, list):
        if span:
            return f"{value[0]:.3g} … {value[1]:.3g}"
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
    steps = {"steps": 20} if smoke else {}
    yield linear("diabetes", 150, lams(1e-3, 0.5), **steps)
    if not smoke:
        yield linear("breast_cancer", 100, lams(1e-3, 0.3))
        yield linear("digits", 100, lams(1e-4, 0.03))
        yield net("diabetes", 150, lams(1e-3, 1), hidden=32)
        yield net("breast_cancer", 100, lams(1e-3, 1), hidden=32)
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


# --- searches ----------------------------------------------------------------------------------------


def _search(count: int, smoke: bool) -> tuple[list[Row], list[Row]]:
    """CV loss over that of the best of 65 λ, in percent; twelve points each."""
    rows, bounds = [], []
    for task, (low, high) in (
        (task, _span(task)) for task in _tasks(smoke) if "linear" in task.name
    ):
        excess: dict[str, list[float]] = {}
        for r in range(2 if smoke else max(count // 4, 2)):
            sweep = _of_draw(task, r)
            dense = sweep(np.geomspace(low, high, 9 if smoke else 65)).mean().min()
            found = {
                "search": _searched(task, r, low, high),
                "search from a range below": _searched(task, r, low / 30, low),
                "search from a range above": _searched(task, r, high, 30 * high),
                "12 points of a grid": sweep(np.geomspace(low, high, 12)).mean().min(),
            }
            for name, value in found.items():
                excess.setdefault(name, []).append(100 * (float(value) / float(dense) - 1))
        rows += [
            {"task": task.name, "12 points": n, "over the best, %": _mean(v)}
            for n, v in excess.items()
        ]
        bounds.append(bound(f"{task.name}: search over the best of a dense grid, %",
                            float(np.mean(excess["search"])), most=0.1))  # fmt: skip
    return rows, bounds


def _span(task: Task) -> tuple[float, float]:
    lams = np.asarray(task.grid.coords["lam"])
    return float(lams[0]), float(lams[-1])


def _given(task: Task, r: int) -> tuple[tuple, dict]:
    """Rows and options of the r-th draw, for cross-validation alone."""
    rows = np.random.default_rng(r).permutation(len(task.data[0]))[: task.rows]
    options = {"folds": 5, "steps": task.steps, "evals": 1, "key": jax.random.key(r)}
    return tuple(a[rows] for a in task.data), {**options, "progress": False, "keep_params": False}


def _of_draw(task: Task, r: int) -> Callable[[np.ndarray], jr.SweepResult]:
    data, options = _given(task, r)
    made = lambda lam: jr.l1(lam).on(jr.kernels)
    return lambda lams: jr.sweep(task.trainer, jr.grid(made, lam=lams), data, **options)


def _searched(task: Task, r: int, low: float, high: float) -> float:
    data, options = _given(task, r)
    where = jr.space(lambda lam: jr.l1(lam).on(jr.kernels), lam=(low, high))
    return jr.search(task.trainer, where, data, budget=12, **options).choice.mean


def _layers(count: int, smoke: bool) -> tuple[list[Row], list[Row]]:
    """CV and test loss of one strength per layer, less those of 16 λ for all."""
    (task,) = (task for task in _tasks(smoke) if task.name == "digits, MLP L2")
    names = tuple(f"dense_{i}" for i in range(3))
    of = lambda *lams: sum(jr.l2(lam).on(f"{n}/kernel") for n, lam in zip(names, lams))
    budget, span = (16, 4) if smoke else (64, 16), (1e-5, 0.1)
    found: dict[str, list] = {"stencil": [], "sobol": []}
    for r in range(2 if smoke else max(count // 4, 2)):
        data, options = _given(task, r)
        options |= {"seeds": 2}
        test = _test_rows(task, r)
        layered = lambda a, b, c: of(a, b, c)
        one = jr.sweep(
            task.trainer, jr.grid(_l2, lam=np.geomspace(*span, budget[1])), data, **options
        )
        base = _both(task, one.best(), data, test, options)
        where = jr.space(layered, a=span, b=span, c=span)
        stencil = jr.search(task.trainer, where, data, budget=budget[0], **options).choice
        from scipy.stats import qmc

        unit = qmc.Sobol(3, seed=r).random(budget[0])
        a, b, c = np.exp(np.log(span[0]) + unit.T * np.log(span[1] / span[0]))
        sobol = jr.sweep(task.trainer, jr.points(layered, a=a, b=b, c=c), data, **options).best()
        for name, choice in (("stencil", stencil), ("sobol", sobol)):
            found[name].append(np.subtract(_both(task, choice, data, test, options), base))
    rows = [
        {"search": name, "CV loss - one λ": _mean([v[0] for v in values]),
         "test loss - one λ": _mean([v[1] for v in values])}
        for name, values in found.items()
    ]  # fmt: skip
    worse = float(np.mean([s[0] - o[0] for s, o in zip(found["stencil"], found["sobol"])]))
    return rows, [bound("CV loss of the stencil less that of 64 Sobol points", worse, most=0.0)]


def _l2(lam: float) -> jr.Penalty:
    return jr.l2(lam).on(jr.kernels)


def _test_rows(task: Task, r: int) -> tuple:
    rows = np.random.default_rng(r).permutation(len(task.data[0]))[task.rows :]
    return tuple(a[rows] for a in task.data)


def _both(
    task: Task, choice: Choice, data: tuple, test: tuple, options: dict
) -> tuple[float, float]:
    """CV loss of a choice, and its test loss trained on all rows of the draw."""
    options = {n: v for n, v in options.items() if n != "folds"} | {"seeds": 4}
    again = jr.sweep(task.trainer, jr.points([choice.point]), data, validation=test, **options)
    return choice.mean, float(again.mean()[0])


# --- ridge -------------------------------------------------------------------------------------------


def _ridge(count: int, smoke: bool) -> tuple[list[Row], list[Row]]:
    """Leave-one-out of 100 λ: time over that of ours, in interleaved rounds, the answers checked."""
    from sklearn.linear_model import RidgeCV

    n, p = (400, 20) if smoke else (20_000, 500)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, p))
    y = x @ rng.normal(size=p) * 0.05 + rng.normal(size=n)
    lams = np.geomspace(1e-4, 10, 100)
    candidates = {
        "jaxreg.ridge_path": lambda: jr.ridge_path((x, y), lams).best().coords["lam"],
        "scikit-learn's RidgeCV": lambda: RidgeCV(alphas=(n - 1) * lams).fit(x, y).alpha_ / (n - 1),
    }
    first, answers = first_calls(candidates)
    if not np.isclose(*answers.values()):
        refuse(f"leave-one-out chose {answers}.")
    times = timed_rounds(candidates, first, 1 if smoke else max(count // 7, 1))
    reference = times["jaxreg.ridge_path"]
    rows = [{"candidate": name, "ratio": round(ratio(t, reference)[0], 3), "seconds": t.median}
            for name, t in times.items()]  # fmt: skip
    faster = float(rows[1]["ratio"])
    return rows, [bound(f"RidgeCV over ridge_path, {n} x {p}, 100 λ", faster, least=35)]


SECTIONS: dict[str, Callable[[int, bool], tuple[list[Row], list[Row]]]] = {
    "rules": _rules, "intervals": _intervals, "search": _search, "layers": _layers, "ridge": _ridge,
    "kfold": kfold, "groups": groups, "variables": variables, "evidence": evidence,
    "continuation": continuation, "tpe": tpe,
}  # fmt: skip
NEEDS = {"kfold": "himalaya", "tpe": "optuna"}


if __name__ == "__main__":
    main()
