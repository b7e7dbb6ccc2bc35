"""JSON with a hash of itself, and the one error for what is not as it was written."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Damaged", "json_text", "read_sealed", "readable", "sealed", "unsealed"]


class Damaged(Exception):
    """What is wrong with a file, and where in it."""


@contextlib.contextmanager
def readable(what: str) -> Iterator[None]:
    """Whatever goes wrong inside means that `what` is damaged.

    What zipfile, json and numpy raise on damage has a dozen names, and a thirteenth would look like a
    mistake of the caller.
    """
    try:
        yield
    except Damaged:
        raise
    except Exception as error:
        raise Damaged(f"{what} is unreadable, {type(error).__name__}: {error!s:.150}") from error


def json_text(content: Any) -> str:
    """JSON in one spelling, so that equal text means equal values, NaN included."""
    return json.dumps(content, sort_keys=True)


def sealed(content: Mapping[str, Any]) -> bytes:
    """`content` as JSON and, under "sha256", the hash of the rest."""
    content = json.loads(json.dumps(content))  # as it will be read: all keys are texts
    return json.dumps({**content, "sha256": _digest(content)}, indent=1).encode()


def unsealed(text: bytes, name: str) -> dict[str, Any]:
    """What `sealed` was given; raises `Damaged` for anything else."""
    with readable(name):
        content = json.loads(text)
        if content.pop("sha256") != _digest(content):
            raise Damaged(f"{name}: sha256 of its content is not the one saved")
    return content


def read_sealed(file: Path) -> dict[str, Any]:
    """What was sealed into a file; raises `Damaged` for anything else."""
    with readable(file.name):
        return unsealed(file.read_bytes(), file.name)


def _digest(content: Any) -> str:
    return hashlib.sha256(json_text(content).encode()).hexdigest()
