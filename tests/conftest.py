"""Settings shared by all tests: the same examples in every run, and few of them."""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "jaxreg",
    derandomize=True,
    deadline=None,  # the first example compiles
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("jaxreg")

# A suite that a shell starts in the background inherits an ignored Ctrl-C, and some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)
