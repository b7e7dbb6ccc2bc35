"""Where the lanes of a sweep run: layouts, widths, devices and hosts."""

from jaxreg.sweeps.machine.machine import Machine

__all__ = ["Machine"]
