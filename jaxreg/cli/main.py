"""The command's words: `jaxreg sweep` trains a grid of λ, `jaxreg penalties` lists the catalogue."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence

__all__ = ["main"]

_SWEEP = """\
Train a model for every λ of a grid, on every fold, with every seed, as one compiled program; choose
λ by cross-validation; refit the choice on all training data and test it beside λ = 0.

examples:
  jaxreg sweep digits
  jaxreg sweep digits --penalty l1 --lams 1e-5:1e-1:20
  jaxreg sweep breast_cancer --model linear --penalty elastic_net:l1_ratio=0.3 --train-size 200
  jaxreg sweep digits --penalty group_lasso:axis=0 --on '*/Dense_0/kernel'
  jaxreg sweep my.csv --target price --lams 0,1e-4,1e-3,1e-2 --train-size 500
  jaxreg sweep --again runs/digits/settings.json
"""


def _parser() -> argparse.ArgumentParser:
    import jaxreg
    from jaxreg.cli.job import COUPLINGS, OPTIMIZERS
    from jaxreg.cli.settings import Settings

    parser = argparse.ArgumentParser("jaxreg", description="Functional regularization for JAX.")
    parser.add_argument("--version", action="version", version=f"jaxreg {jaxreg.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "penalties", help="list every penalty that can be swept, with its arguments"
    )
    sweep = commands.add_parser(
        "sweep", help="train a grid of λ, choose one, test it", description=_SWEEP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    default = Settings()
    add = sweep.add_argument
    add(
        "data",
        nargs="?",
        default=default.data,
        help="digits, breast_cancer, diabetes, wine, or the path of a .csv (with a header) or .npz "
        "(arrays X and y); default digits",
    )
    add(
        "--target",
        help="the target's column in a .csv; default 'target' if there is one, else the last",
    )
    _group(sweep, "model", default, {
        "model": ("mlp, cnn or linear", {"choices": ("mlp", "cnn", "linear")}),
        "hidden": ("widths of the mlp's hidden layers", {"type": _widths, "metavar": "N,N"}),
    })  # fmt: skip
    _group(sweep, "penalty", default, {
        "penalty": ("NAME or NAME:KEY=VALUE,…; see `jaxreg penalties`", {"metavar": "NAME"}),
        "on": ("which leaves: kernels, biases, everything, or a glob such as '*/Dense_0/kernel'",
               {"metavar": "WHERE"}),
        "lams": ("LOW:HIGH:COUNT, evenly spaced in the logarithm, or a list", {"metavar": "LAMS"}),
        "coupling": ("how the penalty reaches the weights; auto is gradient for smooth penalties and "
                     "proximal (exact zeros) for the others", {"choices": COUPLINGS}),
    })  # fmt: skip
    _group(sweep, "training", default, {
        "optimizer": ("adam or sgd", {"choices": OPTIMIZERS}),
        "lr": ("learning rate", {"type": float}),
        "steps": ("updates per training", {"type": int}),
        "batch_size": ("rows per step; 0 is the full batch", {"type": int}),
        "train_size": ("rows to train on, the others are the test set; 0 is three quarters", {"type": int}),
        "folds": ("folds of the cross-validation", {"type": int}),
        "seeds": ("repetitions of each fold", {"type": int}),
        "refits": ("repetitions of the final training, for the test's standard error", {"type": int}),
        "seed": ("of the split, the folds, the parameters and the batches", {"type": int}),
    })  # fmt: skip
    out = sweep.add_argument_group("output")
    out.add_argument("--out", metavar="DIR",
                     help="a new folder; default the first free of runs/DATA, runs/DATA-2, …")  # fmt: skip
    out.add_argument(
        "--again", metavar="FILE", help="run the settings.json of an earlier run again"
    )
    return parser


def _group(parser: argparse.ArgumentParser, title: str, default, options: dict) -> None:
    group = parser.add_argument_group(title)
    for name, (text, kwargs) in options.items():
        value = getattr(default, name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, default=value, help=f"{text}; default {shown}", **kwargs)


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"give widths such as 128,128, got {text!r}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `jaxreg` command; returns the exit status.

    Errors in what was asked for are one line on stderr and status 2.
    """
    args = _parser().parse_args(argv)
    try:
        return _penalties() if args.command == "penalties" else _sweep(args)
    except (ValueError, TypeError, ImportError) as error:
        print(f"jaxreg: {error}", file=sys.stderr)
        return 2


def _penalties() -> int:
    from jaxreg import penalties
    from jaxreg.cli.output import simple_table
    from jaxreg.cli.settings import penalty_signatures

    rows = []
    for name, signature in penalty_signatures().items():
        extra = [
            str(p).split(":")[0] + _default(p)
            for n, p in signature.parameters.items()
            if n != "lam"
        ]
        line = (getattr(penalties, name).__doc__ or "").strip().splitlines()[0]
        rows.append([name, " ".join(extra), line])
    print(simple_table(["penalty", "arguments", "what it is"], rows))
    return 0


def _default(parameter) -> str:
    return "" if parameter.default is parameter.empty else f"={parameter.default}"


def _settings(args: argparse.Namespace):
    from jaxreg.cli.settings import Settings

    if args.again:
        return Settings.from_json(args.again)
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Settings)}
    given["batch_size"] = given["batch_size"] or None
    given["train_size"] = given["train_size"] or None
    return Settings(**given)


def _sweep(args: argparse.Namespace) -> int:
    from jaxreg.cli import output
    from jaxreg.cli.job import prepare

    settings = _settings(args)
    job = prepare(settings)
    folder = output.claim(args.out, settings)
    print(output.describe(job), end="\n\n")
    print(output.penalised(job), end="\n\n")
    started = time.perf_counter()
    try:
        outcome = job.run()
    except (ValueError, TypeError):
        output.release(folder)
        raise
    print(outcome.result.table(), end="\n\n")
    for rule, lam in outcome.chosen.items():
        print(f"λ chosen by {rule}: {lam:.3g}")
    print()
    print(output.test_table(outcome), end="\n\n")
    written = output.write(folder, outcome)
    print(
        f"{time.perf_counter() - started:.0f} s. In {folder}: {', '.join(p.name for p in written)}"
    )
    print(f"Again: jaxreg sweep --again {folder / 'settings.json'}")
    return 0
