"""The feature store: rows written once, readable with zarr alone, mapped into memory locally."""

from trak.store.checkpoint_store import GRAMS, check_model_id, missing_rows
from trak.store.checks import CheckpointMismatchError, ConfigMismatchError, StoreError
from trak.store.experiment import Experiment
from trak.store.feature_store import FeatureStore, open_store
from trak.store.locks import POLL, RowLocks
from trak.store.manifest import StoreConfig
from trak.store.score_matrix import MemoryMatrix, ScoreMatrix
from trak.store.table import DTYPES, RowValues, Table
from trak.store.tiles import Executor, SerialExecutor, TileBlock, Tiles
from trak.store.writer import Writer

__all__ = [
    "DTYPES",
    "GRAMS",
    "POLL",
    "CheckpointMismatchError",
    "ConfigMismatchError",
    "Executor",
    "Experiment",
    "FeatureStore",
    "MemoryMatrix",
    "RowLocks",
    "RowValues",
    "ScoreMatrix",
    "SerialExecutor",
    "StoreConfig",
    "StoreError",
    "Table",
    "TileBlock",
    "Tiles",
    "Writer",
    "check_model_id",
    "missing_rows",
    "open_store",
]
