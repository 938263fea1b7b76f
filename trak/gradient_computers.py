"""The gradient computers of the published package (traker 0.3.2): names for `TRAKer(engine=...)`."""


class FunctionalGradientComputer:
    """engine="functional"."""

    engine = "functional"


class IterativeGradientComputer:
    """engine="single"."""

    engine = "single"
