"""The score computers of the published package (traker 0.3.2): accepted as `score_computer`, without effect."""


class AbstractScoreComputer:
    """Scores are what `damping` and `weighting` say."""


class BasicScoreComputer(AbstractScoreComputer):
    """The same."""


class BasicSingleBlockScoreComputer(AbstractScoreComputer):
    """The same."""
