"""From a model and its data to scores: the only package that knows the order of the steps."""

from trak.attribution.api import attribute
from trak.attribution.results import ArrayAttribution, Attribution, StoredAttribution
from trak.attribution.traker import TRAKer

__all__ = ["ArrayAttribution", "Attribution", "StoredAttribution", "TRAKer", "attribute"]
