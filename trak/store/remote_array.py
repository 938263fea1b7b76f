"""Arrays of rows in an object store, or whatever else zarr knows."""

from functools import partial

import numpy as np

from trak._utils.typing import Array
from trak._utils.zarr_private import default_buffer_prototype, sync
from trak.store.checks import UNREADABLE, StoreError
from trak.store.object_store import Bucket
from trak.store.row_array import SPARE, RowArray

_LISTED = 4096


class RemoteArray(RowArray):
    """Through zarr's own path. Writers at the same time may share a chunk of a `Bucket`, and must not elsewhere."""

    whole_chunks = True

    def write(self, indices: Array, values: Array) -> None:
        chunks = indices // self.chunk_rows
        for chunk in np.unique(chunks).tolist():
            first, here, store = chunk * self.chunk_rows, chunks == chunk, self.array.store
            places, added = indices[here] - first, np.asarray(values)[here]
            size = min(self.chunk_rows, len(self) - first)
            if len(np.unique(places)) == size:
                rows = np.empty((size, *self.shape[1:]), self.dtype)
                rows[places] = added
                self.array[first : first + size] = rows
            elif isinstance(store, Bucket):
                store.change(self._key(chunk), partial(self._changed, chunk, places, added))
            else:
                self.array.set_orthogonal_selection((indices[here],), added)

    def _key(self, chunk: int) -> str:
        return "/".join([self.array.path, "c", str(chunk), *("0" for _ in self.shape[1:])])

    def _changed(self, chunk: int, places: Array, values: Array, found: bytes | None) -> bytes:
        rows = np.zeros((self.chunk_rows, *self.shape[1:]), self.dtype)
        if found is not None:
            if len(found) != rows.nbytes:
                raise self._damaged(chunk, f"{len(found)} bytes instead of {rows.nbytes}")
            rows[...] = np.frombuffer(found, self.dtype).reshape(rows.shape)
        rows[places] = values
        return rows.tobytes()

    def stored_chunks(self) -> list[int]:
        # More than these aren't looked for: zarr compares each with all.
        if self.chunks <= _LISTED and not self.array.nchunks_initialized:
            return []
        return list(range(self.chunks))

    def read_chunk(self, chunk: int) -> Array:
        try:
            return np.asarray(self.array[chunk * self.chunk_rows : (chunk + 1) * self.chunk_rows])
        except UNREADABLE as error:
            raise self._damaged(chunk, str(error)) from error

    def fill_up(self) -> None:
        for chunk in self.stored_chunks():
            found = sync(self.array.store.get(self._key(chunk), default_buffer_prototype()))
            if found is not None and len(found) < self._chunk_bytes <= SPARE + 64 * len(found):
                whole = found.to_bytes().ljust(self._chunk_bytes, b"\0")
                sync(self.array.store.set(self._key(chunk), default_buffer_prototype().buffer.from_bytes(whole)))

    def _damaged(self, chunk: int, why: str) -> StoreError:
        return StoreError(
            f"chunk {chunk} of {self.array.path} in {self.array.store} is damaged: {why}; restore it from a copy, or "
            "fill it up by trak repair and run the same script again, which computes what is lost"
        )
