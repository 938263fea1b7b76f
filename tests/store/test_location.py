"""Where stores may be, however the place is spelled."""

from pathlib import Path

import numpy as np
import pytest
from zarr.storage import LocalStore

from trak.store import FeatureStore, RowValues, SerialExecutor, StoreConfig, Tiles, open_store
from trak.store.location import check_location, display_name, local_root, locked, remove_leftovers, resolved, shared

CONFIG = StoreConfig(4, 3, {"kind": "sketch", "seed": 0}, "float32", {"w": [3]}, {"name": "regression"})


def fill(location):
    """A store with everything that a store may have."""
    store = FeatureStore.create(location, CONFIG)
    ones = np.ones(4, np.float32)
    values = RowValues(np.ones((4, 3), np.float32), ones, ones, ones, np.arange(4, dtype=np.uint64))
    store.add_checkpoint(0, "weights").write(np.arange(4), values)
    store.finalize(0, "ggn", np.eye(3))
    experiment = store.add_experiment("s", 4)
    experiment.add_targets(0).write(np.arange(4), values)
    blocks = lambda piece: iter([(slice(0, 4), slice(0, 4), np.full((4, 4), 2.0))])  # noqa: E731
    experiment.score_matrix({"damping": 1}).compute(Tiles(1, (4, 4), blocks), SerialExecutor())
    return store


def check(location):
    store = open_store(location)
    assert store.is_finalized(0, "ggn")
    assert store.experiments() == ["s"]
    assert len(store.experiment("s").stored_scores()) == 1
    np.testing.assert_array_equal(store.gram(0, "ggn"), np.eye(3))


@pytest.mark.parametrize(
    "name",
    ["s", "checkpoints", "experiments", "c", "0", "scores", "./s", "s/s", "../here/s", "with space", "Größe", "a%20b"],
)
def test_every_relative_path_works(name, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    store = fill(name)
    assert store.where == str(Path(name))
    check(name)
    check(tmp_path / "here" / name)
    check(LocalStore(name))


def test_a_store_stays_where_it_is_when_the_working_directory_changes(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    store = FeatureStore.create("results", CONFIG)
    monkeypatch.chdir(tmp_path / "other")
    store.add_checkpoint(0, "weights")
    assert store.checkpoints() == [0]
    assert not list(Path().iterdir())


@pytest.mark.parametrize("name", ["plain", "with space", "Größe", "a%20b"])
def test_urls_of_files_may_be_encoded(name, tmp_path):
    fill(tmp_path / name)
    check((tmp_path / name).as_uri())
    assert local_root((tmp_path / name).as_uri().replace("file:", "FILE:", 1)) == tmp_path / name


def test_the_home_directory_is_expanded_and_an_unknown_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    fill("~/results")
    check(tmp_path / "results")
    assert local_root(Path("~/results")) == tmp_path / "results"
    with pytest.raises(ValueError, match="is not a path"):
        check_location("~nobody-of-this-name/results")


def test_urls_of_other_stores_are_not_paths_and_drives_are():
    for url in ("s3://bucket/a", "memory://a", "gs://bucket"):
        assert local_root(url) is None
        assert resolved(url) == display_name(url) == url
    assert local_root("C://results") is not None


@pytest.mark.parametrize("name", ["CON", "nul.txt", "a.", "a "])
def test_experiments_are_not_called_what_windows_refuses(name, tmp_path):
    store = FeatureStore.create(tmp_path, CONFIG)
    with pytest.raises(ValueError, match=r"is not a valid file name on Windows; use one"):
        store.add_experiment(name, 1)
    assert store.experiments() == []


class TestShared:
    """`shared` beside `locked`, without locks that several may have."""

    def test_the_first_is_alone_and_others_are_not(self, tmp_path):
        calls = []
        for expected in (["first"], ["first", "later"]):
            with shared(tmp_path, "-x", lambda: calls.append("first" if not calls else "later")):
                assert calls == expected
                for _ in range(3):
                    with shared(tmp_path, "-x", lambda: calls.append("second")):
                        assert calls == expected
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock-x", ".lock-x.0", ".lock-x.1"]

    def test_the_second_may_leave_last(self, tmp_path):
        calls = []
        one, two = (shared(tmp_path, "-x", lambda: calls.append(1)) for _ in range(2))
        one.__enter__()
        two.__enter__()
        one.__exit__(None, None, None)
        with shared(tmp_path, "-x", lambda: calls.append(2)):
            pass
        two.__exit__(None, None, None)
        assert calls == [1]

    def test_locked_waits_for_all_who_share(self, tmp_path):
        import threading

        order = []

        def exclusive():
            with locked(tmp_path, "-x"):
                order.append("locked")

        with shared(tmp_path, "-x", lambda: None), shared(tmp_path, "-x", lambda: None):
            thread = threading.Thread(target=exclusive)
            thread.start()
            thread.join(0.1)
            order.append("shared")
        thread.join(60)
        assert order == ["shared", "locked"]

    def test_leftovers_stay_while_anybody_shares(self, tmp_path):
        leftover = tmp_path / "checkpoints" / "c.trak-partial"
        leftover.parent.mkdir()
        leftover.touch()
        with shared(tmp_path, "-scores", lambda: None):
            remove_leftovers(tmp_path)
            assert leftover.exists()
        remove_leftovers(tmp_path)
        assert not leftover.exists()
