"""What runs were trained on, to notice that those of one folder were trained on different data."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from trak._utils.platform import replace
from trak._utils.seeding import seeded
from trak.inputs import batches

FILE = "data.json"
"""In the folder of a run."""
_ROWS = 16


@dataclass(frozen=True)
class RecordedData:
    """Training data, as far as they can be told from others without reading them all."""

    examples: int
    rows: str | None
    """Hash of a few examples spread over them, as they are collated; None if those can't be read twice alike."""

    @classmethod
    def of(cls, loader: Any) -> "RecordedData | None":
        """Those of a loader; None for anything but a DataLoader that collates examples of a map-style data set.

        The global random generators are as found afterwards.
        """
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            return None
        if not hasattr(loader.dataset, "__len__") or loader.batch_sampler is None or not len(loader.dataset):
            return None
        first = _rows(loader)
        return cls(len(loader.dataset), first if first == _rows(loader) else None)

    @classmethod
    def read(cls, run: Path) -> "RecordedData | None":
        """Those that are recorded in the folder of a run; None if none are."""
        path = run / FILE
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def write(self, run: Path) -> None:
        """Record them in the folder of a run, as a whole or not at all."""
        run.mkdir(parents=True, exist_ok=True)
        partial = run / f"{FILE}.partial"
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        replace(partial, run / FILE)

    def difference(self, other: "RecordedData") -> str | None:
        """In words; None if there is none."""
        if self.examples != other.examples:
            return f"{self.examples} examples, not {other.examples}"
        if None not in (self.rows, other.rows) and self.rows != other.rows:
            return f"as many examples, {self.examples}, with other values or in another order"
        return None


def check_same(found: Iterable[tuple[str, RecordedData | None]], folder: Path) -> None:
    """Raise a ValueError if data differ; those that are not known differ from none.

    Args:
        found: whose data, and which.
        folder: that the runs share.
    """
    known = [(name, data) for name, data in found if data is not None]
    for name, data in known[1:]:
        first, expected = known[0]
        if difference := data.difference(expected):
            raise ValueError(
                f"{name} has other training data than {first} in {str(folder)!r}: {difference}; use another folder for "
                "another experiment, since all runs in one are attributed to the same data"
            )


def _rows(loader: DataLoader[Any]) -> str | None:
    dataset: Any = loader.dataset
    count = len(dataset)
    chosen = np.unique(np.linspace(0, count - 1, _ROWS).round().astype(int)).tolist()
    with seeded(0):
        try:
            found = [batches.digests(loader.collate_fn([dataset[i]])) for i in chosen]
        except Exception:  # the user's code, which may want other indices or no single examples
            return None
    return hashlib.blake2b(np.concatenate(found).astype("<u8").tobytes(), digest_size=16).hexdigest()
