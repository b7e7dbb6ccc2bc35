"""Where the lanes of a sweep run: layouts, widths, devices and hosts."""

from jaxreg.sweeps.machine.layout import Layout

__all__ = ["Layout"]
