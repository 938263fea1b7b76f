"""Names of traker 0.3.2."""

from trak.attribution.self_check import test_install  # noqa: F401
