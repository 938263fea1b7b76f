"""What is sent to other processes: packed once, and unpacked once in each."""

import hashlib
import pickle
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from trak._utils.optional import import_optional_dependency

_KEPT = 2


class Packed(NamedTuple):
    """An object, pickled once: joblib and Ray share a large array among the processes of a machine."""

    key: bytes
    data: np.ndarray

    @classmethod
    def of(cls, value: Any, what: str, cure: str) -> "Packed":
        """Pack an object, whatever it refers to included, also what is defined in a notebook. If it can't be sent, the
        TypeError says what it is and what to do."""
        cloudpickle = import_optional_dependency(
            "cloudpickle", "sending work to other processes needs cloudpickle", "evaluation"
        )
        try:
            data = cloudpickle.dumps(value)
        except Exception as error:  # pickling runs the user's code too
            raise TypeError(
                f"{what} can't be sent to other processes ({type(error).__name__}: {error}); {cure}"
            ) from error
        return cls(hashlib.blake2b(data, digest_size=16).digest(), np.frombuffer(data, np.uint8))

    def unpack(self) -> Any:
        """The object; the same one again if it was among the last that this process unpacked."""
        if self.key not in _unpacked:
            while len(_unpacked) >= _KEPT:
                _unpacked.popitem(last=False)
            _unpacked[self.key] = pickle.loads(self.data.data)  # noqa: S301  packed by the process that asks
        _unpacked.move_to_end(self.key)
        return _unpacked[self.key]


_unpacked: OrderedDict[bytes, Any] = OrderedDict()
