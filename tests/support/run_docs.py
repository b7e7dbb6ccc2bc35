"""Run the ```python blocks of Markdown files, in order and in one namespace per file.

A ```text block right after a python block is what that block must print; `...` stands for anything.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import sys
import types
from pathlib import Path

BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(path: Path) -> int:
    """Run one file; returns how many blocks ran. Raises on an error or other output."""
    checker, printed, ran = doctest.OutputChecker(), None, 0
    page = types.ModuleType("__docs__")
    sys.modules[page.__name__] = page  # dataclasses look their module up
    space = page.__dict__
    text = path.read_text()
    for block in BLOCK.finditer(text):
        kind, body = block.groups()
        line = text[: block.start()].count("\n") + 2
        if kind == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile("\n" * (line - 1) + body, str(path), "exec"), space)
            printed, ran = out.getvalue(), ran + 1
        elif printed is not None:
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            if not checker.check_output(body, printed, flags):
                raise SystemExit(f"{path}:{line}: expected\n{body}\ngot\n{printed}")
            printed = None
    return ran


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {run(Path(name))} python blocks ran", flush=True)
