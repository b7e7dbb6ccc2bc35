"""Who looks on while a sweep runs: callbacks, progress, trackers."""
