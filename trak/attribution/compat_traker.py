"""Arguments of traker 0.3.2: gradient computers name an engine, savers and score computers have no effect."""

__all__ = [
    "AbstractGradientComputer",
    "AbstractSaver",
    "AbstractScoreComputer",
    "BasicScoreComputer",
    "BasicSingleBlockScoreComputer",
    "FunctionalGradientComputer",
    "IterativeGradientComputer",
    "MmapSaver",
]


class AbstractGradientComputer:
    """Accepted as `gradient_computer`: the library chooses the engine."""

    engine = "auto"


class FunctionalGradientComputer(AbstractGradientComputer):
    """Selects `engine="functional"`."""

    engine = "functional"


class IterativeGradientComputer(AbstractGradientComputer):
    """Selects `engine="loop"`."""

    engine = "loop"


class AbstractSaver:
    """Accepted as `saver`: everything is stored in a `trak.store.FeatureStore`."""


class MmapSaver(AbstractSaver):
    """Accepted as `saver`."""


class AbstractScoreComputer:
    """Accepted as `score_computer`: `damping` and `weighting` decide the scores."""


class BasicScoreComputer(AbstractScoreComputer):
    """Accepted as `score_computer`."""


class BasicSingleBlockScoreComputer(AbstractScoreComputer):
    """Accepted as `score_computer`."""
