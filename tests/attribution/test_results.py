"""Results, stored or in memory, behind one interface."""

import numpy as np
import pytest
import torch
from models import images

import trak
from trak.attribution.results import ArrayAttribution, Attribution, StoredAttribution


def numbers(n=30, m=4, ties=False):
    scores = np.random.default_rng(0).normal(size=(n, m))
    return np.round(scores) if ties else scores


class AttributionContract:
    """What every result promises."""

    @pytest.fixture
    def found(self, tmp_path):
        raise NotImplementedError

    def test_scores_are_float32_of_the_shape_and_can_not_be_written_to(self, found):
        assert isinstance(found, Attribution)
        assert found.scores.shape == found.shape
        assert found.scores.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            found.scores[0, 0] = 1

    @pytest.mark.parametrize("bottom", [False, True])
    def test_top_equals_a_stable_sort_of_each_column(self, found, bottom):
        for k in (1, 5, found.shape[0]):
            top = found.top(k, bottom)
            assert top.indices.dtype == np.int64
            assert top.scores.dtype == np.float32
            for target in range(found.shape[1]):
                column = found.scores[:, target]
                order = sorted(range(len(column)), key=lambda i: column[i] if bottom else -column[i])[:k]
                if len(set(column[order])) == k:
                    assert top.indices[target].tolist() == order
                np.testing.assert_allclose(top.scores[target], column[order], rtol=1e-5, atol=1e-6)

    def test_by_default_ten_examples_or_all_of_fewer(self, found):
        assert found.top().indices.shape == (found.shape[1], min(10, found.shape[0]))

    def test_k_out_of_range_or_no_integer_is_refused(self, found):
        for k in (0, found.shape[0] + 1):
            with pytest.raises(ValueError, match=rf"k must be between 1 and .* {found.shape[0]}, got {k}"):
                found.top(k)
        for k in (2.5, True):
            with pytest.raises(TypeError, match=f"k must be an integer, got {k}"):
                found.top(k)

    def test_frame_holds_what_top_finds(self, found):
        frame, top = found.to_frame(k=3, bottom=True), found.top(3, bottom=True)
        assert list(frame.columns) == ["target", "rank", "train_index", "score"]
        np.testing.assert_array_equal(frame.train_index.to_numpy().reshape(-1, 3), top.indices)
        np.testing.assert_array_equal(frame.score.to_numpy().reshape(-1, 3), top.scores)

    def test_it_prints_its_name_and_its_size(self, found):
        train, targets = found.shape
        assert repr(found).startswith(f"Attribution({found.name!r}: {targets} targets to {train} training examples")


class TestArray(AttributionContract):
    @pytest.fixture
    def found(self):
        return ArrayAttribution(numbers(), name="mine")

    def test_of_equal_scores_the_lower_index_comes_first(self):
        scores = numbers(ties=True)
        found = ArrayAttribution(scores)
        np.testing.assert_array_equal(found.top(30).indices, np.argsort(-scores.T, axis=1, kind="stable"))
        np.testing.assert_array_equal(found.top(30, True).indices, np.argsort(scores.T, axis=1, kind="stable"))

    @pytest.mark.parametrize("k", [1, 2, 7, 29])
    @pytest.mark.parametrize("bottom", [False, True])
    def test_a_part_of_the_order_is_that_of_a_stable_sort(self, k, bottom):
        for scores in (numbers(ties=True), np.zeros((30, 3)), numbers(ties=True) * [1, 0, -0.0, 1e-30]):
            order = np.argsort(scores.astype(np.float32).T * (1 if bottom else -1), axis=1, kind="stable")
            np.testing.assert_array_equal(ArrayAttribution(scores).top(k, bottom).indices, order[:, :k])

    def test_many_targets_are_sorted_some_at_a_time_with_the_same_result(self, monkeypatch):
        whole = ArrayAttribution(numbers(m=9)).top(4)
        monkeypatch.setattr("trak.attribution.results._SORTED_AT_ONCE", 60)
        for found, expected in zip(ArrayAttribution(numbers(m=9)).top(4), whole, strict=True):
            np.testing.assert_array_equal(found, expected)

    def test_tensors_lists_and_integers_are_taken(self):
        scores = numbers()
        tensor = torch.from_numpy(scores).requires_grad_()
        np.testing.assert_array_equal(ArrayAttribution(tensor).scores, scores.astype(np.float32))
        assert ArrayAttribution([[1, 2], [3, 4]]).scores.tolist() == [[1, 2], [3, 4]]

    def test_the_given_array_stays_writable(self):
        scores = numbers().astype(np.float32)
        ArrayAttribution(scores)
        scores[0, 0] = 7

    def test_pictures_can_be_drawn_of_it(self, tmp_path):
        pytest.importorskip("matplotlib").use("Agg")
        x = torch.rand(30, 8, 8)
        path = ArrayAttribution(numbers()).show_images(x, x, targets=[0], k=2, path=tmp_path / "a.png")
        assert path.stat().st_size > 1000

    def test_pictures_take_the_labels_of_a_series_by_position(self):
        pandas, pyplot = pytest.importorskip("pandas"), pytest.importorskip("matplotlib.pyplot")
        pyplot.switch_backend("Agg")
        x = torch.rand(30, 8, 8)
        labels = pandas.Series(range(30), index=range(30)[::-1])
        options = {"train_labels": labels, "target_labels": labels[:4], "predicted_labels": labels[:4]}
        found = ArrayAttribution(numbers())
        found.show_images(x, x, targets=[3], k=1, **options)
        captions = [axis.get_xlabel() for axis in pyplot.gcf().axes]
        pyplot.close()
        assert captions[0] == "label 3\npredicted 3"
        assert captions[2].startswith(f"label {found.top(1).indices[3, 0]}\n")

    @pytest.mark.parametrize("scores", [np.zeros(3), np.zeros((0, 2)), np.zeros((2, 2, 2)), [["a", "b"]]])
    def test_another_shape_or_type_is_refused(self, scores):
        with pytest.raises(ValueError, match=r"numbers of shape \(n_train, n_targets\)"):
            ArrayAttribution(scores)

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
    def test_a_score_that_is_not_finite_in_float32_is_refused_by_its_place(self, value):
        scores = numbers()
        scores[3, 2] = value
        with pytest.raises(ValueError, match=r"training example 3 for target 2 is (nan|inf) \(mine\)"):
            ArrayAttribution(scores, name="mine")


class TestStored(AttributionContract):
    @pytest.fixture
    def found(self, tmp_path):
        model, task, batches = images()
        return trak.attribute(
            model, task, model.state_dict(), batches, batches[:1], tmp_path, proj_dim=16, progress=False
        )

    def test_attribute_traker_and_open_return_it(self, found, tmp_path):
        assert isinstance(found, StoredAttribution)
        assert isinstance(trak.Attribution.open(tmp_path), StoredAttribution)
        np.testing.assert_array_equal(trak.Attribution.open(tmp_path).scores, found.scores)
        model, task, _ = images()
        again = trak.TRAKer(model, task, 23, tmp_path, proj_dim=16).attribution("targets")
        assert isinstance(again, StoredAttribution)
        np.testing.assert_array_equal(again.scores, found.scores)


def test_the_interface_itself_can_not_be_made():
    with pytest.raises(TypeError, match="abstract"):
        Attribution()
