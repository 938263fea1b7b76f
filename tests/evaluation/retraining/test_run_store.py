"""What is kept of retrained models."""

import shutil

import numpy as np
import pytest
import zarr
from retraining_case import Counting, N
from torch import nn

import trak
from trak.evaluation import GroundTruth
from trak.evaluation.retraining import training_seed


def test_it_can_be_read_with_zarr_alone(call, tmp_path):
    found = call()
    group = zarr.open_group(tmp_path / "truth", mode="r")
    by_run = {array.attrs["run"]: array for _, array in group["models"].arrays()}
    np.testing.assert_array_equal(by_run["subset 3, seed 1"][0], found.outputs[3, 1])
    assert by_run["subset 3, seed 1"].attrs["seed"] == training_seed(0, 3, 1)
    assert dict(group["ground_truth"].attrs) == {"fraction": 0.5, "seed": 0, "subsets": 5, "seeds": 2}
    assert group.attrs["trak_retraining"]["config"] == {"lr": 0.1, "layers": [3, 4]}


def test_a_store_in_memory_works_like_a_directory(call):
    store = zarr.storage.MemoryStore()
    train = Counting()
    first, second = call(train, save_dir=store), call(train, save_dir=store)
    np.testing.assert_array_equal(first.outputs, second.outputs)
    assert len(train.seen) == 10


def test_a_feature_store_is_not_mistaken_for_retrained_models(call, tmp_path):
    model = nn.Linear(3, 2)
    trak.TRAKer(model, "image_classification", N, tmp_path / "truth", proj_dim=4, logging_level=30)
    with pytest.raises(ValueError, match="no store of retrained models; choose another save_dir"):
        call()


class TestStore:
    """What is kept of models."""

    def test_a_damaged_model_is_noticed_and_named(self, call, tmp_path):
        call()
        chunk = next((tmp_path / "truth" / "models").glob("*/c/0/0"))
        chunk.write_bytes(bytes(reversed(chunk.read_bytes())))
        with pytest.raises(ValueError, match=f"models/{chunk.parts[-4]} in .* is damaged .*delete it"):
            call()
        shutil.rmtree(chunk.parents[2])
        call()

    def test_a_directory_that_is_no_store_is_refused(self, call, tmp_path):
        call()
        (tmp_path / "truth" / "zarr.json").write_text("{")
        with pytest.raises(ValueError, match="can't be read as a zarr v3 group"):
            call()
        (tmp_path / "file").write_text("")
        with pytest.raises(NotADirectoryError, match="is no directory; choose another"):
            call(save_dir=tmp_path / "file")

    def test_a_store_without_ground_truth_says_so(self, run_on, tmp_path):
        run_on([([0], 0)])
        with pytest.raises(ValueError, match="holds retrained models, but no ground truth; make one with retrain"):
            GroundTruth.open(tmp_path / "runs")

    def test_what_a_kill_leaves_half_written_is_removed_and_done_again(self, call, tmp_path):
        expected = call().outputs
        models = sorted((tmp_path / "truth" / "models").glob("*/c/0/0"))
        models[0].unlink()  # metadata without contents
        folders = tmp_path / "truth" / "models", tmp_path / "truth"
        leftovers = [
            models[0].with_name(f"0.{'0f' * 16}.partial"),
            *(at / f"zarr.{'0f' * 16}.partial" for at in folders),
        ]
        own = tmp_path / "truth" / "download.partial"
        for leftover in (*leftovers, own):
            leftover.write_bytes(b"half")
        train = Counting()
        np.testing.assert_array_equal(call(train).outputs, expected)
        assert len(train.seen) == 1
        assert not any(leftover.exists() for leftover in leftovers)
        assert own.exists()
