"""Memory does not grow with the number of rows: the benchmark's own limit, at small sizes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trak.store import FeatureStore, RowValues, StoreConfig

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from big_store import GIGABYTE, measured

SIZES = {"k": 128, "dtype": "float16", "targets": 10, "batch": 4096}


def test_ten_times_the_rows_take_no_more_memory_within_a_limit_that_holds(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    few, many = (measured(tmp_path, 1, examples=examples, **SIZES) for examples in (20_000, 200_000))
    assert many["bytes"] > 9 * few["bytes"] > 4e7
    assert many["bytes_read"] < 1.1 * many["bytes"]
    for name, phase in many["phases"].items():
        assert phase["anonymous"] < few["phases"][name]["anonymous"] + 64 * 2**20 < GIGABYTE
    assert not list(tmp_path.iterdir())
    with pytest.raises(subprocess.CalledProcessError):
        measured(tmp_path, 0.1, examples=1000, **SIZES)


def test_reading_a_store_of_many_chunks_keeps_few_files_open(tmp_path, monkeypatch):
    monkeypatch.setattr("trak.store.table.CHUNK_BYTES", 64)
    rows, k = 300, 4
    config = StoreConfig(rows, k, {"kind": "sketch", "seed": 0}, "float16", {"w": [k]}, {"name": "fake"})
    store = FeatureStore.create(tmp_path / "store", config)
    table, ones = store.add_checkpoint(0, "weights"), np.ones(rows, np.float32)
    features = np.random.default_rng(0).standard_normal((rows, k), np.float32)
    table.write(np.arange(rows), RowValues(features, ones, ones, ones, np.arange(rows, dtype=np.uint64)))
    assert table.features.chunks > 30
    before = len(os.listdir("/proc/self/fd"))
    table.verify()
    np.testing.assert_allclose(table.take(np.arange(rows), np.float32), features, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(table.column("output"), 1)
    assert len(os.listdir("/proc/self/fd")) <= before + 9  # one for each array
