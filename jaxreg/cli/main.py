"""The command's words: `jaxreg sweep` trains a grid of λ, `choose` and `predict` use it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import jax

from jaxreg import penalties
from jaxreg.cli import options, output, run
from jaxreg.cli.choose import choose
from jaxreg.cli.predict import predict
from jaxreg.cli.settings import penalty_signatures

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `jaxreg` command; returns the exit status.

    Errors in what was asked for are one line on stderr and status 2, Ctrl-C is one line and 130.
    """
    args = options.parser().parse_args(argv)
    _keep_programs(getattr(args, "cache", None))
    try:
        return _COMMANDS[args.command](args)
    except (ValueError, TypeError, ImportError) as error:
        print(f"jaxreg: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return 2
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        said = f"{error.strerror}{where}." if error.strerror else str(error)
        print(f"jaxreg: {said}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxreg: interrupted before the run had begun.", file=sys.stderr)
        return run.INTERRUPTED


def _keep_programs(directory: str | None) -> None:
    """Compiled programs in a folder, small and quick ones too: a run has many of them."""
    directory = directory or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if directory:
        jax.config.update("jax_compilation_cache_dir", directory)
        for name, least in (("min_compile_time_secs", 0.0), ("min_entry_size_bytes", -1)):
            if f"JAX_PERSISTENT_CACHE_{name.upper()}" not in os.environ:
                jax.config.update(f"jax_persistent_cache_{name}", least)


def _sweep(args: argparse.Namespace) -> int:
    directory = getattr(args, "resume", None)
    if directory is None:
        return run.start(options.settings(args), getattr(args, "out", None))
    others = sorted(options.flag(name) for name in set(vars(args)) - {"cache", "command", "resume"})
    if others:
        raise ValueError(
            "--resume goes on with the settings of its folder and takes nothing else, got "
            f"{', '.join(others)}. For a new run with other settings take --again "
            f"{directory}/settings.json."
        )
    return run.resume(directory)


def _choose(args: argparse.Namespace) -> int:
    return choose(args.run, args.rules, args.metric, args.within)


def _predict(args: argparse.Namespace) -> int:
    return predict(args.run, args.file, args.rule, args.out)


def _penalties(args: argparse.Namespace) -> int:
    del args
    rows = []
    for name, signature in penalty_signatures().items():
        extra = [
            str(p).split(":")[0] + _default(p)
            for n, p in signature.parameters.items()
            if n != "lam"
        ]
        line = (getattr(penalties, name).__doc__ or "").strip().splitlines()[0]
        rows.append([name, " ".join(extra), line])
    print(output.simple_table(["penalty", "arguments", "what it is"], rows))
    return 0


def _default(parameter) -> str:
    return "" if parameter.default is parameter.empty else f"={parameter.default}"


_COMMANDS = {"choose": _choose, "penalties": _penalties, "predict": _predict, "sweep": _sweep}
