"""The feature store: rows written once, readable with zarr alone, mapped into memory locally."""

from trak.store.checks import StoreError
from trak.store.claims import POLL, Claims
from trak.store.config import StoreConfig
from trak.store.experiment import Experiment
from trak.store.store import FeatureStore, check_model_id, missing_rows, open_store
from trak.store.table import DTYPES, RowValues, Table
from trak.store.together import Block, Pieces
from trak.store.writer import Writer

__all__ = [
    "DTYPES",
    "POLL",
    "Block",
    "Claims",
    "Experiment",
    "FeatureStore",
    "Pieces",
    "RowValues",
    "StoreConfig",
    "StoreError",
    "Table",
    "Writer",
    "check_model_id",
    "missing_rows",
    "open_store",
]
