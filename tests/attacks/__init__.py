"""Attacks that run as scripts of their own, short in the suite and long by an option: `--help` tells."""
