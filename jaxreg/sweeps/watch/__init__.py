"""Who looks on while a sweep runs: callbacks, progress, trackers."""

from jaxreg.sweeps.watch.callbacks import Callback, Evaluation, Outline

__all__ = ["Callback", "Evaluation", "Outline"]
