"""Execute every notebook source (`NN_name.py`, percent format) and write the .ipynb beside it.

    python notebooks/build.py [--check] [NAME ...]

Each runs from a fresh kernel and any error is fatal. With --check nothing is written; it only fails
when a source does not run, or when its .ipynb was built from another text.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import jupytext
import nbclient

HERE = Path(__file__).parent


def executed(source: Path):
    """The notebook of a source, run in a fresh kernel."""
    notebook = jupytext.read(source)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}
    ).execute()
    return notebook


def same_text(source: Path) -> bool:
    """Whether the .ipynb beside a source holds the same cells."""
    built = source.with_suffix(".ipynb")
    if not built.exists():
        return False
    cells = [[(c.cell_type, c.source) for c in jupytext.read(p).cells] for p in (source, built)]
    return cells[0] == cells[1]


def main() -> int:
    """Build or check the notebooks named on the command line, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="such as 01_quickstart; all by default")
    parser.add_argument("--check", action="store_true", help="execute, write nothing")
    args = parser.parse_args()
    sources = [HERE / f"{n}.py" for n in args.names] or sorted(HERE.glob("[0-9]*.py"))
    status = 0
    for source in sources:
        started = time.perf_counter()
        notebook = executed(source)
        print(f"{source.name}: ran in {time.perf_counter() - started:.0f} s", flush=True)
        if not args.check:
            # Cell ids and run times change at every build; without them a diff shows what changed.
            for i, cell in enumerate(notebook.cells):
                cell["id"] = f"cell-{i}"
                cell.metadata.pop("execution", None)
            jupytext.write(notebook, source.with_suffix(".ipynb"))
        elif not same_text(source):
            print(f"{source.stem}.ipynb is not of this source: run python notebooks/build.py")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
