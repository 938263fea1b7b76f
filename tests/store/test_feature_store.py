import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import uuid
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import obstore
import pytest
import store_contract
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore as ObstoreMemory
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore, ObjectStore

import trak.store.mapped_array
import trak.store.remote_array
import trak.store.table
from trak.__main__ import main
from trak._utils import platform
from trak.distributed import SharingExecutor, SubsetExecutor
from trak.scoring import gram
from trak.store import (
    CheckpointMismatchError,
    ConfigMismatchError,
    FeatureStore,
    MemoryMatrix,
    SerialExecutor,
    StoreError,
    Table,
    Tiles,
    missing_rows,
    open_store,
)
from trak.store.location import locked

COLUMNS = ("output", "out_to_loss_grad", "out_to_loss_curvature", "data_hash")
ROWS, WIDTH, TARGETS = 11, 6, 3
CONFIG = store_contract.StoreContract.config
MISMATCHES = [
    ({"train_set_size": 12}, ["train_set_size=11", "train_set_size=12"]),
    ({"proj_dim": 7}, ["proj_dim=6", "proj_dim=7"]),
    ({"projector": {"kind": "gaussian", "seed": 0}}, ["kind='sketch'", "kind='gaussian'"]),
    ({"projector": {"kind": "sketch", "seed": 1}}, ["seed=0", "seed=1"]),
    ({"dtype": "float16"}, ["dtype='float32'", "dtype='float16'"]),
    ({"parameters": {"weight": [3, 2], "offset": [3]}}, ["'bias'", "'offset'"]),
    ({"parameters": {"weight": [3, 2]}}, ["2 parameters ('bias' among them)", "1 parameters"]),
    ({"parameters": {"weight": [2, 3], "bias": [3]}}, ["weight=[3, 2]", "weight=[2, 3]"]),
    ({"task": {"name": "other", "settings": {"temperature": 1.0}}}, ["name='regression'", "name='other'"]),
    ({"task": {"name": "regression", "settings": {"temperature": 2.0}}}, ["temperature=1.0", "temperature=2.0"]),
]


values_for = store_contract.StoreContract.values


def filling(number):
    """Scores that are a number, made in two pieces."""

    def blocks(piece):
        first, last = ((0, 6), (6, ROWS))[piece]
        yield slice(first, last), slice(0, 1), np.full((last - first, 1), number)
        yield slice(first, last), slice(1, TARGETS), np.full((last - first, TARGETS - 1), number)

    return Tiles(2, (6, TARGETS), blocks)


def scores(experiment, settings, tiles):
    """The scores of one way of scoring, computed if they are not stored."""
    matrix = experiment.score_matrix(settings)
    matrix.compute(tiles, SharingExecutor(experiment.store.locks))
    return matrix.read()


def chunk_bytes(patch, size):
    for name in ("CHUNK_BYTES", "OBJECT_BYTES"):
        patch.setattr(trak.store.table, name, size)


class StoreContract(store_contract.StoreContract):
    """What every place a store can be in promises."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path, monkeypatch):
        self.directory = tmp_path
        # Slow on a busy disk; that it is called when it must be is a test of its own.
        monkeypatch.setattr(os, "fdatasync" if hasattr(os, "fdatasync") else "fsync", lambda descriptor: None)

    def contents(self, location):
        """Every key with its bytes."""
        raise NotImplementedError

    def put(self, location, key, data):
        raise NotImplementedError

    def filled(self, location, finalize=True):
        """A store with one finalized checkpoint and one experiment; built once, as zarr takes its time, then copied."""
        cached = self.__class__.__dict__.get(f"built_{finalize}")
        if cached is None:
            first = self.fresh()
            self.build(first, finalize)
            cached = self.contents(first)
            setattr(self.__class__, f"built_{finalize}", cached)
        for key, data in cached.items():
            self.put(location, key, data)
        return FeatureStore.create(location, CONFIG)

    def delete(self, location, key):
        raise NotImplementedError

    def state(self, location):
        return self.contents(location)

    @given(data=st.data())
    @settings(
        max_examples=12,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
    def test_rows_come_back_exactly_whatever_the_order_and_the_chunks(self, data):
        rows, width = data.draw(st.integers(1, 23)), data.draw(st.integers(1, 5))
        dtype = data.draw(st.sampled_from(["float32", "float64"]))
        order = np.array(data.draw(st.permutations(range(rows))))
        cuts = sorted(data.draw(st.sets(st.integers(1, rows), max_size=4)))
        values = values_for(rows, width, data.draw(st.integers(0, 99)), dtype)
        location = self.fresh()
        with pytest.MonkeyPatch.context() as patch:
            chunk_bytes(patch, data.draw(st.sampled_from([1, 64, 200, 2**20])))
            config = replace(CONFIG, train_set_size=rows, proj_dim=width, dtype=dtype)
            table = FeatureStore.create(location, config).add_checkpoint(0, "w")
            for indices in np.split(order, cuts):
                table.write(indices, values.take(indices))
        written = open_store(location).table(0)
        assert written.is_done().all()
        assert written.features.dtype == dtype
        np.testing.assert_array_equal(written.features.read(), values.features)
        for name in COLUMNS[:-1]:
            np.testing.assert_array_equal(written.column(name), getattr(values, name))
        np.testing.assert_array_equal(written.hashes(np.arange(rows)), values.data_hash)
        pieces = list(written.features.blocks(2))
        assert [start for start, _, _ in pieces] == [0, *(stop for _, stop, _ in pieces[:-1])]
        np.testing.assert_array_equal(np.concatenate([block for _, _, block in pieces]), values.features)

    def test_chunks_are_several_and_the_last_one_is_ragged(self, monkeypatch):
        chunk_bytes(monkeypatch, 4 * WIDTH * 4)
        location = self.fresh()
        table = FeatureStore.create(location, CONFIG).add_checkpoint(0, "w")
        assert (table.features.chunks, table.features.chunk_rows) == (3, 4)
        assert len(table.features.read_chunk(2)) == 3
        table.write(np.array([10]), values_for(1))
        np.testing.assert_array_equal(table.features.read_chunk(2)[2], values_for(1).features[0])
        assert not table.features.read_chunk(0).any()

    @pytest.mark.parametrize("dtype, most", [("float16", 2**-11), ("int8", 1 / 253)])
    @pytest.mark.parametrize("size", [1.0, 1e6, 1e-8, 1e30, 1e-30])
    def test_smaller_types_are_within_half_a_step_of_the_rows_maximum(self, size, dtype, most):
        values = values_for(ROWS)
        features = values.features * np.float32(size)
        features[4] = 0
        location = self.fresh()
        table = FeatureStore.create(location, replace(CONFIG, dtype=dtype)).add_checkpoint(0, "w")
        table.write(np.arange(ROWS), replace(values, features=features))
        table = open_store(location).table(0)
        assert table.features.dtype == np.dtype(dtype)
        found = table.features.read().astype(np.float64) * table.scales()[:, None].astype(np.float64)
        error = np.abs(found - features).max(axis=1)
        assert (error <= most * np.abs(features).max(axis=1)).all()
        assert not found[4].any()

    def test_rows_are_done_only_after_their_other_columns_are_stored(self, monkeypatch):
        events = []
        for kind in (trak.store.mapped_array.MappedArray, trak.store.remote_array.RemoteArray):

            def write(array, indices, values, _real=kind.write):
                _real(array, indices, values)
                events.append((array.array.path.rsplit("/", 1)[-1], np.asarray(values)))

            monkeypatch.setattr(kind, "write", write)
        table = FeatureStore.create(self.fresh(), replace(CONFIG, dtype="float16")).add_checkpoint(0, "w")
        table.write(np.arange(4), values_for(4))
        names = [name for name, written in events if len(written)]
        assert sorted(names[:-1]) == sorted(["features", "scale", "checksum", *COLUMNS])
        assert names[-1] == "done"
        events.clear()
        table.write(np.arange(2, 6), values_for(4, seed=1))
        names = [name for name, written in events if len(written)]
        assert names[0] == names[-1] == "done"
        assert sorted(names[1:-1]) == sorted(["features", "scale", "checksum", *COLUMNS])
        np.testing.assert_array_equal(events[0][1], [0, 0])

    def test_a_store_is_readable_with_zarr_alone(self):
        location = self.fresh()
        self.filled(location)
        store = LocalStore(location) if isinstance(location, Path) else location
        group = zarr.open_group(store, mode="r")["checkpoints/0"]
        values = values_for(ROWS)
        np.testing.assert_array_equal(group["features"][:], values.features)
        for name in COLUMNS:
            np.testing.assert_array_equal(group[name][:], getattr(values, name))
        np.testing.assert_array_equal(group["done"][:], 1)
        phi = values.features.astype(np.float64)
        np.testing.assert_allclose(
            group["gram_ggn"][:], phi.T @ (phi * values.out_to_loss_curvature[:, None]), rtol=1e-5, atol=1e-5
        )
        assert group.attrs["fingerprint"] == "weights-0"

    @pytest.mark.parametrize("change, named", MISMATCHES)
    def test_another_configuration_is_refused_with_both_values_and_changes_nothing(self, change, named):
        location = self.fresh()
        self.filled(location)
        before = self.contents(location)
        with pytest.raises(ValueError, match="was made with") as caught:
            FeatureStore.create(location, replace(CONFIG, **change))
        for words in named:
            assert words in str(caught.value)
        assert self.contents(location) == before

    def test_other_weights_under_a_used_model_id_are_refused(self):
        location = self.fresh()
        store = self.filled(location)
        before = self.contents(location)
        with pytest.raises(ValueError, match=r"weights-0.*weights-1"):
            store.add_checkpoint(0, "weights-1")
        assert self.contents(location) == before
        store.add_checkpoint(7, "weights-1")
        assert open_store(location).checkpoints() == [0, 7]

    def test_an_unknown_model_id_is_refused(self):
        store = self.filled(self.fresh())
        for call in (store.table, store.fingerprint, store.verify, store.experiment("t").targets):
            with pytest.raises(ValueError, match="model_id 3"):
                call(3)
        with pytest.raises(ValueError, match="not finalized"):
            store.gram(0, "identity")

    def test_an_experiment_reopened_with_another_number_of_targets_is_refused(self):
        location = self.fresh()
        store = self.filled(location)
        before = self.contents(location)
        with pytest.raises(ValueError, match=r"num_targets=3.*num_targets=4"):
            store.add_experiment("t", 4)
        assert self.contents(location) == before
        assert store.add_experiment("t", 3).num_targets == 3

    @pytest.mark.parametrize(
        "name", ["../x", "", "a/b", ".hidden", "..", "a\n", " a", "-a", "zarr.json", "é", "a" * 201, None, 3]
    )
    def test_experiment_names_that_are_no_plain_file_names_are_refused(self, name):
        location = self.fresh()
        store = FeatureStore.create(location, CONFIG)
        before = self.contents(location)
        with pytest.raises(ValueError, match="can't be used"):
            store.add_experiment(name, 2)
        assert self.contents(location) == before

    @pytest.mark.parametrize("name", ["a", "0", "_x", "validation set, no.1".replace(",", ""), "x.partial", "a" * 200])
    def test_plain_experiment_names_can_be_used_and_opened_again(self, name):
        location = self.fresh()
        FeatureStore.create(location, CONFIG).add_experiment(name, 2)
        assert FeatureStore.create(location, CONFIG).experiment(name).num_targets == 2
        assert open_store(location).experiments() == [name]

    @pytest.mark.parametrize("number", [0, -1, 2.5, True, "3"])
    def test_impossible_numbers_of_targets_are_refused(self, number):
        with pytest.raises(ValueError, match="num_targets must be a positive integer"):
            FeatureStore.create(self.fresh(), CONFIG).add_experiment("t", number)

    def test_an_unknown_experiment_suggests_the_nearest(self):
        store = FeatureStore.create(self.fresh(), CONFIG)
        with pytest.raises(ValueError, match="none"):
            store.experiment("validation")
        store.add_experiment("validation", 2)
        with pytest.raises(ValueError, match="did you mean 'validation'"):
            store.experiment("valdation")

    @pytest.mark.parametrize("value", [0.0, 1.5])
    def test_scores_are_computed_once_for_each_way_of_scoring(self, value):
        location, calls = self.fresh(), []

        def fill(number):
            def counted(piece):
                calls.append(number)
                yield slice(0, ROWS), slice(0, TARGETS), np.full((ROWS, TARGETS), number)

            return Tiles(1, (ROWS, TARGETS), counted)

        experiment = self.filled(location).experiment("t")
        first = scores(experiment, {"damping": 1}, fill(value))
        again = scores(open_store(location).experiment("t"), {"damping": 1}, fill(5))
        other = scores(experiment, {"damping": 2}, fill(7))
        assert calls == [value, 7]
        assert first.shape == (ROWS, TARGETS)
        assert first.dtype == np.float32
        for array, number in ((first, value), (again, value), (other, 7)):
            np.testing.assert_array_equal(array, number)

    def test_scores_once_handed_out_never_change(self):
        location = self.fresh()
        experiment = self.filled(location).experiment("t")
        handed_out = scores(experiment, {"damping": 1}, filling(1))
        mapped_again = scores(experiment, {"damping": 1}, filling(2))
        experiment.delete_scores()
        renewed = scores(experiment, {"damping": 1}, filling(3))
        assert (handed_out == 1).all()
        assert (mapped_again == 1).all()
        assert (renewed == 3).all()
        assert (scores(open_store(location).experiment("t"), {"damping": 1}, filling(4)) == 3).all()

    def test_scores_whose_computation_failed_are_computed_again(self):
        location = self.fresh()
        experiment = self.filled(location).experiment("t")

        def fail(piece):
            yield slice(0, 4), slice(0, TARGETS), np.ones((4, TARGETS))
            raise RuntimeError("stopped")

        with pytest.raises(RuntimeError, match="stopped"):
            scores(experiment, {"damping": 1}, Tiles(3, (4, TARGETS), fail))
        assert not [key for key in self.contents(location) if key.endswith("-partial")]
        assert (scores(experiment, {"damping": 1}, filling(3)) == 3).all()

    def test_a_gram_matrix_of_zeros_is_stored(self):
        store = self.filled(self.fresh(), finalize=False)
        assert not store.is_finalized(0, "identity")
        store.finalize(0, "identity", np.zeros((WIDTH, WIDTH)))
        assert store.is_finalized(0, "identity")
        np.testing.assert_array_equal(store.gram(0, "identity"), 0)

    def test_a_store_opened_read_only_is_not_touched(self):
        location = self.fresh()
        self.filled(location)
        before = self.state(location)
        store = open_store(location)
        assert store.config == CONFIG
        assert store.table(0).is_done().all()
        store.verify(0)
        store.gram(0, "ggn")
        self.scores(location)
        main_json = main(["info", str(location)]) if isinstance(location, str | Path) else 0
        assert main_json == 0
        assert self.state(location) == before

    @pytest.mark.parametrize("writable", [False, True])
    def test_a_place_without_a_store_is_named_and_stays_empty(self, writable):
        location = self.fresh()
        with pytest.raises(FileNotFoundError) as caught:
            open_store(location, writable)
        assert str(location) in str(caught.value)
        assert not self.contents(location)
        assert not isinstance(location, Path) or not location.exists()

    def test_another_zarr_group_is_no_store(self):
        location = self.fresh()
        zarr.create_group(LocalStore(location) if isinstance(location, Path) else location, attributes={"a": 1})
        before = self.contents(location)
        for call in (open_store, lambda where: FeatureStore.create(where, CONFIG)):
            with pytest.raises(StoreError, match="no feature store") as caught:
                call(location)
            assert str(location) in str(caught.value)
        after = {key: value for key, value in self.contents(location).items() if not key.startswith(".lock")}
        assert after == before

    def test_a_zarr_array_is_no_store(self):
        location = self.fresh()
        zarr.create_array(LocalStore(location) if isinstance(location, Path) else location, shape=(3,), dtype="f4")
        for call in (open_store, lambda where: FeatureStore.create(where, CONFIG)):
            with pytest.raises((StoreError, FileNotFoundError)) as caught:
                call(location)
            assert str(location) in str(caught.value)

    @pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"zarr_format": 3}', b"\xff\xfe"])
    def test_damaged_metadata_is_named(self, damage):
        location = self.fresh()
        self.filled(location)
        self.put(location, "zarr.json", damage)
        for call in (open_store, lambda where: FeatureStore.create(where, CONFIG)):
            with pytest.raises((StoreError, FileNotFoundError)) as caught:
                call(location)
            assert str(location) in str(caught.value)

    @pytest.mark.parametrize(
        "change, words",
        [
            ({"format": 3}, "format 3"),
            ({"format": None}, "format None"),
            ({"dtype": "int4"}, "damaged configuration"),
            ({"train_set_size": "many"}, "damaged configuration"),
            ({"projector": ...}, "damaged configuration"),
        ],
    )
    def test_a_newer_format_or_a_damaged_configuration_is_named(self, change, words):
        location = self.fresh()
        self.filled(location)
        metadata = json.loads(self.contents(location)["zarr.json"])
        metadata["attributes"]["trak"].update(change)
        recorded = metadata["attributes"]["trak"]
        metadata["attributes"]["trak"] = {key: value for key, value in recorded.items() if value is not ...}
        self.put(location, "zarr.json", json.dumps(metadata).encode())
        with pytest.raises(StoreError, match=words) as caught:
            open_store(location)
        assert str(location) in str(caught.value)

    @pytest.mark.parametrize("name", ["features", "done", "out_to_loss_grad", "checksum"])
    @pytest.mark.parametrize("damage", [None, b"{"])
    def test_a_missing_or_damaged_array_stops_scoring(self, name, damage):
        location = self.fresh()
        self.filled(location)
        if damage is None:
            for key in self.contents(location):
                if key.startswith(f"checkpoints/0/{name}/"):
                    self.delete(location, key)
        else:
            self.put(location, f"checkpoints/0/{name}/zarr.json", damage)
        with pytest.raises(StoreError, match=name):
            self.scores(location)

    @pytest.mark.parametrize(
        "name", ["features/c/0/0", "out_to_loss_grad/c/0", "output/c/0", "data_hash/c/0", "checksum/c/0"]
    )
    @pytest.mark.parametrize("table, rows", [("checkpoints/0", ROWS), ("experiments/t/targets/0", TARGETS)])
    @pytest.mark.parametrize("end", ["first", "last"])
    def test_a_flipped_bit_in_a_row_stops_scoring(self, name, table, rows, end):
        location = self.fresh()
        self.filled(location)
        self.scores(location)
        key, row = f"{table}/{name}", 0 if end == "first" else rows - 1
        data = bytearray(self.contents(location)[key])
        data[row * (len(data) // rows)] ^= 4
        self.put(location, key, bytes(data))
        with pytest.raises(StoreError, match=f"{table} .* is corrupt: row {row} "):
            self.scores(location)

    @pytest.mark.parametrize("position", [0, -1])
    def test_a_flipped_bit_in_the_gram_matrix_stops_scoring(self, position):
        location = self.fresh()
        self.filled(location)
        key = "checkpoints/0/gram_ggn/c/0/0"
        data = bytearray(self.contents(location)[key])
        data[position] ^= 4
        self.put(location, key, bytes(data))
        with pytest.raises(StoreError, match=r"gram_ggn in .* is corrupt"):
            self.scores(location)

    @pytest.mark.parametrize("lost", ["fill_value", "zarr_format"])
    def test_a_gram_matrix_whose_metadata_is_damaged_is_no_reason_to_crash(self, lost):
        location = self.fresh()
        store = self.filled(location)
        key = "checkpoints/0/gram_ggn/zarr.json"
        metadata = json.loads(self.contents(location)[key])
        del metadata[lost]
        self.put(location, key, json.dumps(metadata).encode())
        with pytest.raises(StoreError, match=r"gram_ggn.* can't be read as zarr.*restore it or delete it"):
            store.finalize(0, "ggn", np.eye(WIDTH))

    def test_a_gram_matrix_of_an_absurd_shape_is_made_anew(self):
        location = self.fresh()
        store = self.filled(location)
        key = "checkpoints/0/gram_ggn/zarr.json"
        metadata = json.loads(self.contents(location)[key])
        metadata["shape"][1] = 10**30
        self.put(location, key, json.dumps(metadata).encode())
        assert not store.is_finalized(0, "ggn")
        store.finalize(0, "ggn", np.eye(WIDTH))
        np.testing.assert_array_equal(open_store(location).gram(0, "ggn"), np.eye(WIDTH))

    def test_a_lost_chunk_of_what_is_finalized_stops_scoring(self):
        location = self.fresh()
        self.filled(location)
        self.delete(location, "checkpoints/0/features/c/0/0")
        with pytest.raises(StoreError, match="corrupt: row 0 "):
            self.scores(location)

    def test_rows_changed_since_they_were_finalized_are_not_finalized_again(self):
        location = self.fresh()
        store = self.filled(location)
        key = "checkpoints/0/features/c/0/0"
        data = bytearray(self.contents(location)[key])
        data[5] ^= 1
        self.put(location, key, bytes(data))
        table = open_store(location).table(0)
        with pytest.raises(StoreError, match="corrupt"):
            store.finalize(0, "identity", gram(table, "identity"))
        assert not store.is_finalized(0, "identity")


class TestLocal(StoreContract):
    def fresh(self):
        return Path(tempfile.mkdtemp(dir=self.directory)) / "store"

    def contents(self, location):
        files = (path for path in location.rglob("*") if path.is_file())
        return {path.relative_to(location).as_posix(): path.read_bytes() for path in files}

    def state(self, location):
        times = {str(path): path.stat().st_mtime_ns for path in [location, *location.rglob("*")]}
        return self.contents(location), times

    def put(self, location, key, data):
        path = location / key
        path.parent.mkdir(parents=True, exist_ok=True)
        # A new file, as a mapped one must not shrink under those who read it.
        path.unlink(missing_ok=True)
        path.write_bytes(data)

    def delete(self, location, key):
        (location / key).unlink()

    def test_columns_are_on_disk_before_their_rows_are_done(self, monkeypatch):
        events, lock, module = [], threading.Lock(), trak.store.mapped_array
        real_open, real_sync = module.open_locked, module.sync_data

        def column(path):
            return path.relative_to(location / "checkpoints/0").parts[0]

        @contextmanager
        def open_locked(path, write):
            with real_open(path, write) as descriptor:
                yield descriptor
            with lock:
                events.append(("write", column(path)))

        def sync_data(path):
            real_sync(path)
            with lock:
                events.append(("sync", column(path)))

        location = self.fresh()
        monkeypatch.setattr(trak.store.table, "CHUNK_BYTES", 4 * WIDTH * 4)
        table = FeatureStore.create(location, replace(CONFIG, dtype="float16")).add_checkpoint(0, "w")
        monkeypatch.setattr(module, "open_locked", open_locked)
        monkeypatch.setattr(module, "sync_data", sync_data)
        for indices in (np.arange(7), np.array([9, 2, 8])):
            events.clear()
            table.write(indices, values_for(len(indices)))
            done = [i for i, event in enumerate(events) if event == ("write", "done")]
            for name in ("features", "scale", *COLUMNS):
                writes = [i for i, event in enumerate(events) if event == ("write", name)]
                syncs = [i for i, event in enumerate(events) if event == ("sync", name)]
                chunks = len(set((indices // table.features.chunk_rows).tolist()))
                assert writes
                assert len([i for i in syncs if max(writes) < i < max(done)]) == chunks
        undone = done[0]
        assert undone < events.index(("sync", "done")) < events.index(("write", "features"))

    def test_zarr_alone_reads_it_in_a_process_that_never_imports_trak(self):
        location = self.fresh()
        self.filled(location)
        code = """
            import sys, zarr
            group = zarr.open_group(sys.argv[1], mode="r")
            assert "trak" not in sys.modules and "torch" not in sys.modules
            sys.stdout.buffer.write(group["checkpoints/0/features"][:].tobytes())
        """
        found = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(location)],
            check=True,
            stdout=subprocess.PIPE,
            cwd=self.directory,
        )
        assert found.stdout == values_for(ROWS).features.tobytes()

    @pytest.mark.parametrize("spelled", [str, Path, LocalStore, lambda path: f"file://{path}"])
    def test_every_spelling_of_a_directory_is_the_same_store(self, spelled):
        location = self.fresh()
        self.filled(location)
        store = FeatureStore.create(spelled(location), CONFIG)
        assert store.where == str(location)
        assert isinstance(store.table(0).features, trak.store.mapped_array.MappedArray)
        np.testing.assert_array_equal(open_store(spelled(location)).table(0).features.read(), values_for(ROWS).features)

    @pytest.mark.parametrize(
        "key", ["checkpoints/0/features/c/0/0", "checkpoints/0/done/c/0", "experiments/t/targets/0/features/c/0/0"]
    )
    def test_a_truncated_chunk_is_named(self, key):
        location = self.fresh()
        self.filled(location)
        path = location / key
        self.put(location, key, path.read_bytes()[:-1])
        read = missing_rows if "done" in key else lambda table: self.scores(location)
        with pytest.raises(StoreError, match="truncated") as caught:
            read(open_store(location).table(0))
        assert str(path) in str(caught.value)

    def test_a_truncated_chunk_is_never_written_to(self):
        location = self.fresh()
        store = self.filled(location, finalize=False)
        key = "checkpoints/0/features/c/0/0"
        self.put(location, key, (location / key).read_bytes()[:-1])
        before = self.contents(location)
        with pytest.raises(StoreError, match="truncated"):
            store.table(0).features.write(np.array([0]), values_for(1).features)
        assert self.contents(location) == before

    def test_truncated_scores_are_named(self):
        location = self.fresh()
        experiment = self.filled(location).experiment("t")
        scores(experiment, {"damping": 1}, filling(1))
        (key,) = (key for key in self.contents(location) if "/scores/" in key and not key.endswith(".json"))
        self.put(location, key, (location / key).read_bytes()[:-4])
        with pytest.raises(StoreError, match="truncated") as caught:
            scores(experiment, {"damping": 1}, filling(2))
        assert str(location / key) in str(caught.value)

    def test_scores_handed_out_can_not_be_written_to(self):
        found = scores(self.filled(self.fresh()).experiment("t"), {"damping": 1}, filling(1))
        with pytest.raises(ValueError, match="read-only"):
            found[0, 0] = 5

    def test_rows_handed_out_never_reach_the_file(self):
        location = self.fresh()
        self.filled(location)
        before = self.contents(location)
        open_store(location).table(0).features.read_chunk(0)[...] = 7
        assert self.contents(location) == before

    def test_rows_written_later_are_seen_through_maps_made_before(self):
        store = FeatureStore.create(self.fresh(), CONFIG)
        writer, reader = store.add_checkpoint(0, "w"), store.table(0)
        writer.write(np.array([0]), values_for(1))
        assert missing_rows(reader) == list(range(1, ROWS))
        writer.write(np.array([4]), values_for(1))
        assert missing_rows(reader) == [1, 2, 3, *range(5, ROWS)]
        np.testing.assert_array_equal(reader.features.read_chunk(0)[4], values_for(1).features[0])

    def test_files_left_half_written_are_removed_but_not_those_of_scores_being_computed(self):
        location = self.fresh()
        self.filled(location)
        leftover = location / "checkpoints/0/features/c/1.trak-partial"
        leftover.write_bytes(b"half")
        with locked(location, "-scores"):
            FeatureStore.create(location, CONFIG)
            assert leftover.exists()
        FeatureStore.create(location, CONFIG)
        assert not leftover.exists()

    @pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/0/features", "experiments/t"])
    def test_what_a_kill_leaves_of_metadata_is_removed_and_the_users_own_files_are_not(self, place):
        location = self.fresh()
        self.filled(location)
        leftover = location / place / f"zarr.{'0f' * 16}.partial"
        own = [location / "download.partial", location / "zarr.mine.partial", location / "sub" / leftover.name]
        own[-1].parent.mkdir()
        for path in (leftover, *own):
            path.write_bytes(b"half")
        FeatureStore.create(location, CONFIG)
        assert not leftover.exists()
        assert all(path.read_bytes() == b"half" for path in own)

    def test_a_store_can_be_opened_while_another_process_computes_scores(self):
        location = self.fresh()
        experiment = self.filled(location).experiment("t")

        def blocks(piece):
            FeatureStore.create(location, CONFIG)
            yield slice(0, ROWS), slice(piece, 2 * piece + 1), np.full((ROWS, piece + 1), 2)

        np.testing.assert_array_equal(scores(experiment, {"damping": 1}, Tiles(2, (ROWS, 1), blocks)), 2)

    def test_no_reader_sees_a_chunk_before_all_of_it_exists(self, monkeypatch):
        location, seen = self.fresh(), []
        store = FeatureStore.create(location, CONFIG)
        table, real = store.add_checkpoint(0, "w"), platform._allocate

        def fallocate(*arguments):
            seen.append(missing_rows(store.table(0)))
            store.table(0).features.read()
            real(*arguments)

        monkeypatch.setattr(platform, "_allocate", fallocate)
        table.write(np.arange(ROWS), values_for(ROWS))
        assert len(seen) == 7
        assert all(rows == list(range(ROWS)) for rows in seen)

    @pytest.mark.parametrize("number", range(7))
    def test_a_full_disk_leaves_a_store_that_goes_on_when_there_is_room(self, monkeypatch, number):
        location, calls, real = self.fresh(), [], platform._allocate
        values = values_for(ROWS)

        def fallocate(*arguments):
            calls.append(arguments)
            if len(calls) > number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(*arguments)

        table = FeatureStore.create(location, CONFIG).add_checkpoint(0, "w")
        with monkeypatch.context() as patch:
            patch.setattr(platform, "_allocate", fallocate)
            with pytest.raises(OSError, match=r"no room to write .*run the same script again") as caught:
                table.write(np.arange(ROWS), values)
        assert caught.value.errno == errno.ENOSPC
        table = FeatureStore.create(location, CONFIG).add_checkpoint(0, "w")
        assert missing_rows(table) == list(range(ROWS))
        table.write(np.arange(ROWS), values)
        np.testing.assert_array_equal(open_store(location).table(0).features.read(), values.features)

    def test_a_full_disk_leaves_no_half_scores(self, monkeypatch):
        location = self.fresh()
        experiment = self.filled(location).experiment("t")

        def fallocate(*arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(platform, "_allocate", fallocate)
            with pytest.raises(OSError, match="no room to write") as caught:
                scores(experiment, {"damping": 1}, filling(1))
        assert str(location) in str(caught.value)
        assert not list(location.rglob("*-partial"))
        np.testing.assert_array_equal(scores(experiment, {"damping": 1}, filling(2)), 2)

    def test_a_kill_while_scores_are_forgotten_leaves_none_that_nothing_forgets(self, monkeypatch):
        location = self.fresh()
        experiment = self.filled(location).experiment("t")
        scores(experiment, {"damping": 1}, filling(1))

        def killed(path, *arguments, **options):
            (Path(path) / "zarr.json").unlink()
            raise RuntimeError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", killed)
            with pytest.raises(RuntimeError, match="killed"):
                experiment.delete_scores()
        experiment = FeatureStore.create(location, CONFIG).experiment("t")
        experiment.delete_scores()
        np.testing.assert_array_equal(scores(experiment, {"damping": 1}, filling(2)), 2)

    def test_save_dir_that_is_a_file_is_named(self):
        path = self.directory / "file"
        path.write_text("text")
        with pytest.raises(NotADirectoryError, match="choose another") as caught:
            FeatureStore.create(path, CONFIG)
        assert str(path) in str(caught.value)

    def test_info_tells_what_is_there(self, capsys):
        location = self.fresh()
        store = self.filled(location)
        store.add_checkpoint(1, "weights-1").write(np.arange(4), values_for(4))
        scores(store.experiment("t"), {"damping": 1}, filling(1))
        assert main(["info", str(location)]) == 0
        text = capsys.readouterr().out
        for words in (
            str(location),
            "task regression, 11 training examples, k = 6",
            "9 parameters in 2 tensors",
            "checkpoints: 2",
            "0: 11 of 11 rows, finalized (ggn), weights weights-0",
            "1: 4 of 11 rows, not finalized, weights weights-1",
            "t: 3 targets (done by checkpoint: 0: 3), 1 scores",
        ):
            assert words in text

    def test_info_as_json_tells_the_same(self, capsys):
        location = self.fresh()
        scores(self.filled(location).experiment("t"), {"damping": 1}, filling(1))
        assert main(["info", "--json", str(location)]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["store"] == str(location)
        assert found["bytes"] == sum(len(data) for data in self.contents(location).values())
        assert found["configuration"]["train_set_size"] == ROWS
        assert found["configuration"]["projector"] == {"kind": "sketch", "seed": 0}
        assert found["configuration"]["parameters"] == 9
        assert found["checkpoints"] == [
            {"model_id": 0, "fingerprint": "weights-0", "rows_done": ROWS, "finalized": ["ggn"]}
        ]
        assert found["experiments"] == [
            {"name": "t", "num_targets": TARGETS, "targets_done": {"0": TARGETS}, "scores": [{"damping": 1}]}
        ]

    def test_info_on_a_missing_or_damaged_store_says_so_and_fails(self, capsys):
        location = self.fresh()
        assert main(["info", str(location)]) == 1
        found = capsys.readouterr()
        assert found.out == ""
        assert found.err.startswith(f"trak: there is no feature store at {location}; check the path")
        self.filled(location)
        self.put(location, "zarr.json", b"{")
        assert main(["info", "--json", str(location)]) == 1
        assert capsys.readouterr().err.startswith(f"trak: {location} can't be read")


class TestMemoryUrl(StoreContract):
    def fresh(self):
        return f"memory://{uuid.uuid4().hex}/store"

    def contents(self, location):
        files = fsspec.filesystem("memory")
        root = "/" + location.removeprefix("memory://")
        return {path.removeprefix(f"{root}/"): files.cat_file(path) for path in files.find(root)}

    def put(self, location, key, data):
        fsspec.filesystem("memory").pipe_file(f"/{location.removeprefix('memory://')}/{key}", data)

    def delete(self, location, key):
        fsspec.filesystem("memory").rm_file(f"/{location.removeprefix('memory://')}/{key}")

    def test_info_on_a_url_tells_what_is_there(self, capsys):
        location = self.fresh()
        self.filled(location)
        assert main(["info", location]) == 0
        assert "0: 11 of 11 rows, finalized (ggn)" in capsys.readouterr().out
        assert main(["info", location + "-missing"]) == 1
        assert capsys.readouterr().err.startswith(
            f"trak: there is no feature store at {location}-missing; check the path"
        )


class TestObjectStore(StoreContract):
    def fresh(self):
        return ObjectStore(ObstoreMemory())

    def contents(self, location):
        listed = obstore.list(location.store).collect()
        return {entry["path"]: bytes(obstore.get(location.store, entry["path"]).bytes()) for entry in listed}

    def put(self, location, key, data):
        obstore.put(location.store, key, data)

    def delete(self, location, key):
        obstore.delete(location.store, key)


class TestZarrMemoryStore(StoreContract):
    def fresh(self):
        return MemoryStore()

    def contents(self, location):
        return {key: value.to_bytes() for key, value in location._store_dict.items()}

    def put(self, location, key, data):
        location._store_dict[key] = default_buffer_prototype().buffer.from_bytes(data)

    def delete(self, location, key):
        del location._store_dict[key]


@pytest.mark.parametrize("name", ["train_set_size", "proj_dim"])
@pytest.mark.parametrize("value", [0, -1, 1.0, True, None])
def test_impossible_sizes_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer"):
        replace(CONFIG, **{name: value})


def test_unknown_dtypes_are_refused():
    with pytest.raises(ValueError, match="float32, float64, float16, int8"):
        replace(CONFIG, dtype="bfloat16")


def test_a_table_needs_all_of_its_arrays(tmp_path):
    group = zarr.create_group(tmp_path / "g")
    Table.create(group, 3, 2, "float16")
    del group["scale"]
    with pytest.raises(StoreError, match="'scale' is missing"):
        Table(group, 3, 2, "float16")


def test_matrices_in_memory_and_in_a_store_hold_the_same_values(tmp_path):
    TestLocal().build(tmp_path / "store", finalize=True)
    experiment = open_store(tmp_path / "store", writable=True).experiment("t")
    filled = MemoryMatrix(np.full((ROWS, TARGETS), np.nan, np.float32))
    assert not filled.is_complete()
    filled.compute(filling(4), SerialExecutor())
    assert filled.is_complete()
    np.testing.assert_array_equal(filled.read(), scores(experiment, {"damping": 1}, filling(4)))


@pytest.mark.parametrize("place", ["directory", "memory"])
def test_a_matrix_is_complete_once_its_subsets_of_tiles_are_computed(tmp_path, place):
    location, computed = tmp_path / "store" if place == "directory" else MemoryStore(), []
    TestLocal().build(location, finalize=True)
    experiment = open_store(location, writable=True).experiment("t")

    def compute(tile):
        computed.append(tile)
        rows = slice(4 * tile, min(4 * tile + 4, ROWS))
        yield rows, slice(0, TARGETS), np.full((rows.stop - rows.start, TARGETS), tile)

    class Driver:
        """Waits while others compute subsets, as a driver does for the workers of a cluster."""

        def run(self, name, numbers, is_done, compute):
            sharing = SharingExecutor(experiment.store.locks)
            for some, complete in (([0, 2], False), ([2], False), ([1], True), ([0, 1], True)):
                matrix = experiment.score_matrix({"damping": 1})
                matrix.compute(tiles, SubsetExecutor(some, sharing))
                assert matrix.is_complete() == complete
            sharing.run(name, numbers, is_done, compute)

    tiles, matrix = Tiles(3, (4, TARGETS), compute), experiment.score_matrix({"damping": 1})
    matrix.compute(tiles, Driver())
    assert computed == [0, 2, 1]
    np.testing.assert_array_equal(matrix.read()[:, 0], np.arange(ROWS) // 4)


def test_callers_can_tell_a_mismatch_from_a_damaged_store(tmp_path):
    location = tmp_path / "store"
    TestLocal().build(location, finalize=True)
    store = FeatureStore.create(location, CONFIG)
    for mismatch in (
        lambda: FeatureStore.create(location, replace(CONFIG, proj_dim=7)),
        lambda: store.add_experiment("t", TARGETS + 1),
        lambda: FeatureStore.create(location.with_name("empty"), CONFIG).config.check_same(
            replace(CONFIG, dtype="float16"), "here"
        ),
    ):
        with pytest.raises(ConfigMismatchError) as caught:
            mismatch()
        assert not isinstance(caught.value, StoreError)
    with pytest.raises(CheckpointMismatchError, match=r"weights-0.*weights-1"):
        store.add_checkpoint(0, "weights-1")
    (location / "checkpoints/0/zarr.json").write_text(
        (location / "checkpoints/0/zarr.json").read_text().replace("weights-0", "weights-1")
    )
    with pytest.raises(CheckpointMismatchError, match="featurized with other weights"):
        open_store(location).experiment("t").targets(0)
    assert issubclass(ConfigMismatchError, ValueError)
    assert issubclass(CheckpointMismatchError, ValueError)


def test_modules_of_the_store_do_not_import_each_other_in_a_circle():
    folder = Path(trak.store.table.__file__).parent
    imports = {
        path.stem: set(re.findall(r"^\s*from trak\.store\.(\w+) import", path.read_text(), re.MULTILINE))
        | ({"location"} if "from trak.store import location" in path.read_text() else set())
        for path in folder.glob("*.py")
        if path.stem != "__init__"
    }
    while imports:
        lowest = [name for name, below in imports.items() if not below & imports.keys()]
        assert lowest, imports
        for name in lowest:
            del imports[name]
