"""Data of the command: bundled sets and your own files, how they are split, and what is learnt of them."""

from jaxreg.cli.data.dataset import Dataset, Rows, load, read_like
from jaxreg.cli.data.encode import Encoder, learn, standardizer
from jaxreg.cli.data.files import Reading
from jaxreg.cli.data.leak import leaks
from jaxreg.cli.data.split import split, split_rows

__all__ = [
    "Dataset",
    "Encoder",
    "Reading",
    "Rows",
    "leaks",
    "learn",
    "load",
    "read_like",
    "split",
    "split_rows",
    "standardizer",
]
