"""The `jaxreg` command: sweep λ for a small net on real data, from the terminal."""

from jaxreg.cli.main import main

__all__ = ["main"]
