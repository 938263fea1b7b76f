"""Names of traker 0.3.2."""

from trak.attribution.compat_traker import (  # noqa: F401
    AbstractScoreComputer,
    BasicScoreComputer,
    BasicSingleBlockScoreComputer,
)
