"""The gradient computers of the published package (traker 0.3.2): names for `TRAKer(engine=...)`."""


class AbstractGradientComputer:
    """Accepted as `gradient_computer`; the engine is chosen by itself."""

    engine = "auto"


class FunctionalGradientComputer(AbstractGradientComputer):
    """engine="functional"."""

    engine = "functional"


class IterativeGradientComputer(AbstractGradientComputer):
    """engine="single"."""

    engine = "single"
