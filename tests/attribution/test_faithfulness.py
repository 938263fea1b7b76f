"""Results of `lds` that a store keeps."""

import json
import pickle

import numpy as np
import pytest
from models import images
from views import HOSTILE, Page

import trak
from trak.evaluation import lds


class TestRemembered:
    """What `lds` found, as another process sees it."""

    @pytest.fixture
    def measured(self, tmp_path):
        pytest.importorskip("scipy")
        found = self.attributed(tmp_path, images()[2][:1])
        rng = np.random.default_rng(0)
        shape = 6, 2, found.shape[1]
        truth = rng.random((6, 23)) < 0.5, rng.normal(size=shape)
        return found, lds(found, *truth, resamples=50, permutations=50), truth

    def attributed(self, path, targets, **options):
        model, task, batches = images()
        options = {"proj_dim": 16, "damping": 0.5, "progress": False, **options}
        return trak.attribute(model, task, model.state_dict(), batches, targets, path, **options)

    def test_other_processes_are_told_the_same_figures(self, measured, tmp_path):
        found, result, _ = measured
        for other in (pickle.loads(pickle.dumps(found)), self.attributed(tmp_path, images()[2][:1])):
            assert other.faithfulness == result.figures
            assert str(other.faithfulness) == str(result) == other.describe()["faithfulness"]
            assert f"LDS {result.mean:.3f})" in repr(other)
            assert str(result) in Page(other._repr_html_()).text
        assert found.faithfulness is result
        assert f"LDS {result.mean:.3f})" in repr(found)

    def test_what_was_measured_last_is_what_is_told(self, measured, tmp_path):
        found, result, (masks, outputs) = measured
        later = lds(found, masks, -outputs[:, :1], resamples=50, permutations=50)
        told = trak.Attribution.open(tmp_path, damping=0.5).faithfulness
        assert str(told) == str(later) != str(result)
        assert "no noise ceiling" in str(told)

    @pytest.mark.parametrize(
        "options", [{"damping": 0.4}, {"damping": "auto"}, {"damping": 0.5, "normalize_checkpoints": False},
                    {"damping": 0.5, "weighting": "identity"}],
    )  # fmt: skip
    def test_other_settings_are_told_nothing(self, measured, tmp_path, options):
        assert trak.Attribution.open(tmp_path, **options).faithfulness is None

    def test_other_targets_of_the_same_name_are_told_nothing(self, measured, tmp_path):
        before = trak.Attribution.open(tmp_path, damping=0.5)
        assert before.faithfulness is not None
        model, _, batches = images()
        traker = trak.TRAKer(model, "image_classification", 23, tmp_path, proj_dim=16, damping=0.5)
        count = before.shape[1]
        traker.start_scoring_checkpoint("targets", model.state_dict(), 0, count)
        traker.score(tuple(part.flip(0) for part in batches[0]), num_samples=count)
        after = traker.finalize_scores("targets")
        assert trak.Attribution.open(tmp_path, damping=0.5).faithfulness is None
        assert before.faithfulness is None
        assert after is not None

    @pytest.mark.parametrize(
        "damage",
        [{"mean": HOSTILE}, {"mean": 1e99}, {"mean": None}, {"seeds": 1.5}, {"subsets": -1}, {"p_value": [0.5]},
         {"low": {"a": 1}}, {"num_targets": True}],
    )  # fmt: skip
    def test_a_damaged_record_is_none(self, measured, tmp_path, damage):
        (path,) = tmp_path.glob("**/faithfulness/*/zarr.json")
        content = json.loads(path.read_text())
        content["attributes"] |= damage
        path.write_text(json.dumps(content))
        found = trak.Attribution.open(tmp_path, damping=0.5)
        assert found.faithfulness is None
        assert "LDS" not in repr(found)

    def test_a_file_that_is_no_record_is_none(self, measured, tmp_path):
        (path,) = tmp_path.glob("**/faithfulness/*/zarr.json")
        path.write_text("{")
        assert trak.Attribution.open(tmp_path, damping=0.5).faithfulness is None

    def test_where_it_can_not_be_kept_this_process_knows_it_and_says_so(self, measured, monkeypatch):
        found, _, truth = measured

        def full(*arguments):
            raise OSError("no room")

        monkeypatch.setattr(type(found.experiment), "record_faithfulness", full)
        with pytest.warns(UserWarning, match="could not be kept .*no room"):
            result = lds(found, *truth, resamples=50, permutations=50)
        assert found.faithfulness is result
