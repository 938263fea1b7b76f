"""Private parts of zarr: the only module that uses them."""

from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync

__all__ = ["Buffer", "BufferPrototype", "default_buffer_prototype", "sync"]
