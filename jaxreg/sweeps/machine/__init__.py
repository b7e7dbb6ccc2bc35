"""Where the lanes of a sweep run: layouts, widths, devices and hosts."""
