"""How far the scores can be believed."""

from trak.evaluation.lds import LDS, lds

__all__ = ["LDS", "lds"]
