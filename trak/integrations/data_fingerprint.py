"""Fingerprints of training data, which tell whether all runs of one folder were trained on the same data."""

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
"""The name of the file in the folder of a run."""
_ROWS = 16


@dataclass(frozen=True)
class DataFingerprint:
    """A fingerprint of training data, computed from a few examples."""

    examples: int
    rows: str | None
    """Hash of a few collated examples; None if they differ when they are read again."""

    @classmethod
    def from_loader(cls, loader: Any) -> "DataFingerprint | None":
        """The fingerprint of a DataLoader that collates examples of a map-style data set; None for other loaders."""
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            return None
        if not hasattr(loader.dataset, "__len__") or loader.batch_sampler is None or not len(loader.dataset):
            return None
        first = _rows(loader)
        return cls(len(loader.dataset), first if first == _rows(loader) else None)

    @classmethod
    def read(cls, run: Path) -> "DataFingerprint | None":
        """Read the fingerprint in the folder of a run; None if there is none."""
        path = run / FILE
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def write(self, run: Path) -> None:
        """Write the fingerprint into the folder of a run, in one step."""
        run.mkdir(parents=True, exist_ok=True)
        partial = run / f"{FILE}.partial"
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        replace(partial, run / FILE)

    def difference(self, other: "DataFingerprint") -> str | None:
        """A description of the difference; None if there is none."""
        if self.examples != other.examples:
            return f"{self.examples} examples, not {other.examples}"
        if None not in (self.rows, other.rows) and self.rows != other.rows:
            return f"as many examples, {self.examples}, with other values or in another order"
        return None


def check_same_data(found: Iterable[tuple[str, DataFingerprint | None]], folder: Path) -> None:
    """Raise a ValueError if the fingerprints of named runs in a folder differ; an unknown one matches any."""
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
    chosen = np.unique(np.linspace(0, len(dataset) - 1, _ROWS).round().astype(int)).tolist()
    with seeded(0):
        try:
            found = [batches.digests(loader.collate_fn([dataset[i]])) for i in chosen]
        except Exception:  # the user's code, which may want other indices or no single examples
            return None
    return batches.combined_digest(np.concatenate(found))
