"""Whole experiments over points as one compiled program; public as `jaxreg.NAME`.

`sweep` checks and lays out, `drive` trains the population in rounds, `program` is what is compiled.
`machine/` knows devices, hosts and memory, `watch/` whoever looks on.
"""

from jaxreg.sweeps.halving import Halving
from jaxreg.sweeps.machine import Machine
from jaxreg.sweeps.refit import Refit, refit
from jaxreg.sweeps.sweep import Interrupted, sweep

__all__ = ["Halving", "Interrupted", "Machine", "Refit", "refit", "sweep"]
