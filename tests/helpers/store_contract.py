"""The contract of places for a store: folders, URLs and zarr stores."""

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import zarr

from trak.scoring import Damping, Scorer, ScoringConfig, gram
from trak.store import FeatureStore, RowValues, StoreConfig, StoreError, missing_rows, open_store


class StoreContract(ABC):
    """What a place for a store must do. A subclass defines `fresh`."""

    config: ClassVar[StoreConfig] = StoreConfig(
        train_set_size=11,
        proj_dim=6,
        projector={"kind": "sketch", "seed": 0},
        dtype="float32",
        parameters={"weight": [3, 2], "bias": [3]},
        task={"name": "regression", "settings": {"temperature": 1.0}},
    )

    @abstractmethod
    def fresh(self) -> Any:
        """Return a new empty location: a path, a URL or a zarr store."""

    @staticmethod
    def values(count: int, width: int = 6, seed: int = 0, dtype: str = "float32") -> RowValues:
        """Return random rows."""
        rng = np.random.default_rng(seed)
        features, rest = rng.standard_normal((count, width)).astype(dtype), rng.random((3, count)).astype(dtype)
        return RowValues(features, rest[0], rest[1], rest[2], rng.integers(0, 2**64, count, np.uint64))

    def build(self, location: Any, finalize: bool = True) -> FeatureStore:
        """Write a store of one checkpoint and one experiment."""
        store, rows = FeatureStore.create(location, self.config), self.config.train_set_size
        table = store.add_checkpoint(0, "weights-0")
        table.write(np.arange(rows), self.values(rows))
        if finalize:
            store.finalize(0, "ggn", gram(table, "ggn"))
        store.add_experiment("t", 3).add_targets(0).write(np.arange(3), self.values(3, seed=1))
        return store

    def scores(self, location: Any) -> np.ndarray:
        """Compute the scores of a store that `build` made."""
        out = np.full((self.config.train_set_size, 3), np.nan, np.float32)
        Scorer(open_store(location).experiment("t"), [0], ScoringConfig(Damping())).fill(out)
        return out

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_rows_written_in_any_order_come_back_exactly(self, dtype: str) -> None:
        location, order = self.fresh(), np.random.default_rng(0).permutation(11)
        values = self.values(11, dtype=dtype)
        table = FeatureStore.create(location, replace(self.config, dtype=dtype)).add_checkpoint(0, "w")
        for indices in np.split(order, [3, 4, 9]):
            table.write(indices, values.take(indices))
        written = open_store(location).table(0)
        assert written.is_done().all()
        np.testing.assert_array_equal(written.features.read(), values.features)
        np.testing.assert_array_equal(written.hashes(np.arange(11)), values.data_hash)
        for name in ("output", "out_to_loss_grad", "out_to_loss_curvature"):
            np.testing.assert_array_equal(written.column(name), getattr(values, name))

    def test_an_opened_store_goes_on_where_it_was(self) -> None:
        location, values, rows = self.fresh(), self.values(11), np.arange(11)
        FeatureStore.create(location, self.config).add_checkpoint(0, "w").write(rows[:5], values.take(rows[:5]))
        table = FeatureStore.create(location, self.config).add_checkpoint(0, "w")
        assert missing_rows(table) == list(range(5, 11))
        table.write(rows[5:], values.take(rows[5:]))
        table = open_store(location).table(0)
        assert missing_rows(table) == []
        np.testing.assert_array_equal(table.features.read(), values.features)

    def test_stored_rows_give_the_scores_of_the_formula(self) -> None:
        location = self.fresh()
        self.build(location)
        values, targets = self.values(11), self.values(3, seed=1)
        phi, phi_t = values.features.astype(np.float64), targets.features.astype(np.float64)
        k = phi.T @ (values.out_to_loss_curvature[:, None] * phi)
        inverse = np.linalg.inv(k + 3.0 * np.trace(k) / len(k) * np.eye(len(k)))
        expected = phi @ inverse @ phi_t.T * values.out_to_loss_grad[:, None]
        np.testing.assert_allclose(self.scores(location), expected, rtol=1e-4, atol=1e-6)

    def test_rows_changed_by_others_stop_scoring(self) -> None:
        location = self.fresh()
        self.build(location)
        zarr_store = str(location) if isinstance(location, Path) else location
        features: Any = zarr.open_group(zarr_store, mode="r+")["checkpoints/0/features"]
        features[4] = features[4] + 1
        with pytest.raises(StoreError, match="corrupt: row 4 "):
            self.scores(location)

    @pytest.mark.parametrize("change", [{"train_set_size": 12}, {"proj_dim": 7}, {"dtype": "float16"}])
    def test_another_configuration_is_refused(self, change: dict[str, Any]) -> None:
        location = self.fresh()
        self.build(location)
        with pytest.raises(ValueError, match="was made with"):
            FeatureStore.create(location, replace(self.config, **change))
