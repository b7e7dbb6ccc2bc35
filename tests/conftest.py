"""Settings shared by all tests: the same examples in every run, and few of them."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "jaxreg",
    derandomize=True,
    deadline=None,  # the first example compiles
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("jaxreg")
