"""How many programs jax compiles: that bad input is refused before any, and that no λ makes another."""

import contextlib
import logging
import re

import jax

LOGGERS = ("jax._src.dispatch", "jax._src.interpreters.pxla", "jax._src.compiler")


class _Heard(logging.Handler):
    def __init__(self, names):
        super().__init__()
        self.names = names

    def emit(self, record):
        found = re.match(r"Finished XLA compilation of (.+) in ", record.getMessage())
        if found:
            self.names.append(found[1])


@contextlib.contextmanager
def compilations():
    """A list that fills with the names of the programs compiled inside."""
    names = []
    handler = _Heard(names)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(log.level, log.propagate) for log in loggers]
    for log in loggers:
        log.setLevel(logging.DEBUG)
        log.propagate = False
        log.addHandler(handler)
    try:
        with jax.log_compiles(True):
            yield names
    finally:
        for log, (level, propagate) in zip(loggers, before):
            log.removeHandler(handler)
            log.setLevel(level)
            log.propagate = propagate
