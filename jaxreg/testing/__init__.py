"""A conformance kit: one call puts a penalty of yours through every law.

A penalty states the same thing several times over: as a value, as a prox, as a gradient, as a
certificate, as a conjugate. Each law compares two of these statements, so that a factor 1/2, a
threshold that is off by 0.1 %, or a NaN at a zero group cannot stay in only one of them.

>>> import jaxreg as jr
>>> from jaxreg.testing import LAWS, check_penalty
>>> class Squared(jr.Elementwise):
...     smooth, convex = True, True
...     def rho(self, x):
...         return x**2
...     def prox_rho(self, x, threshold):
...         return x / (1 + threshold)  # of x**2 / 2: the factor 2 is lost
>>> check_penalty(Squared(0.5), max_examples=2)
Traceback (most recent call last):
    ...
jaxreg.testing.LawViolation: squared(0.5) breaks the law 'prox_minimises': ...

Tests of your own need no more than `check_penalty(MyPenalty(0.1))`; `LAWS` has every law with its
statement, and `skip=` leaves one out by name. `check_term` does the same for a term of `jaxreg.terms`.
Hypothesis is needed: pip install 'jaxreg[tests]'.
"""

from jaxreg.testing._case import LawViolation
from jaxreg.testing._check import Report, check_penalty
from jaxreg.testing._registry import LAWS
from jaxreg.testing._terms import TERM_LAWS, check_term

for _thing in (LawViolation, Report, check_penalty, check_term):
    _thing.__module__ = __name__

__all__ = ["LAWS", "TERM_LAWS", "LawViolation", "Report", "check_penalty", "check_term"]
