"""Data sets and columns are read by position, with names of labels."""

import re

import numpy as np
import pytest
import torch
from views import attribution

from trak.visualization.dataset_reader import DatasetReader


class TestPandas:
    """Rows are meant by their position, as in scores, whatever the index of a Series or a DataFrame is."""

    pandas = pytest.importorskip("pandas")
    shuffled = pandas.DataFrame(
        {"text": [f"text {i}" for i in range(12)], "label": np.arange(12), "weight": np.ones(12)}
    ).sample(frac=1, random_state=0)
    texts, labels = shuffled.text.tolist(), shuffled.label.tolist()

    def shown(self, train, **options):
        return repr(attribution().show(train, ["t"] * 4, targets=[0], k=12, **options))

    def test_a_series_of_texts_and_one_of_labels(self):
        found = self.shown(self.shuffled.text, train_labels=self.shuffled.label)
        assert found == self.shown(self.texts, train_labels=self.labels)
        assert f"#0, label {self.labels[0]}\n               {self.texts[0]}\n" in found

    def test_a_series_of_predictions(self):
        some = self.pandas.Series([3, 2, 1, 0], index=[7, 0, 3, 2])
        assert "target 0, predicted 3" in self.shown(self.texts, predicted_labels=some)

    def test_a_data_frame_and_series_in_a_dict_are_columns(self):
        expected = self.shown(list(zip(self.texts, self.labels, strict=True)))
        assert self.shown(self.shuffled) == expected
        assert self.shown({"text": self.shuffled.text, "label": self.shuffled.label}) == expected

    def test_a_part_of_a_data_set_keeps_its_index(self):
        part = self.pandas.Series([f"text {i}" for i in range(50)]).iloc[30:42]
        assert self.shown(part) == self.shown(part.tolist())

    @pytest.mark.parametrize("missing", [None, float("nan"), pandas.NA])
    def test_what_is_missing_is_empty_and_a_missing_label_is_none(self, missing):
        data = self.pandas.DataFrame({"text": ["a", missing] * 6, "label": [1, missing] * 6}, dtype=object)
        assert self.shown(data) == self.shown([("a", 1), ("(empty)", None)] * 6)

    def test_a_data_frame_of_another_length_is_refused(self):
        with pytest.raises(ValueError, match="train_dataset has 11 examples, but the attribution 12"):
            self.shown(self.shuffled[1:])


@pytest.mark.parametrize(
    "empty",
    ["", ("", 1), (None, 1), {"text": None, "label": 1}, {"text": "", "meta": object()}, [], ([], 1),
     torch.zeros(0, dtype=torch.long), {"input_ids": [], "attention_mask": None}, None, float("nan"),
     {"input_ids": [5, 6], "attention_mask": [0, 0]}],
)  # fmt: skip
def test_an_empty_example_is_said_to_be_empty(empty):
    data = ["a"] * 11 + [empty]
    shown = attribution().show(data, targets=[0], k=12)
    assert re.search(r"#11.*\n +\(empty\)", repr(shown))
    assert shown._repr_html_().count("<blockquote>(empty)<") == 2
    assert "(empty)" not in repr(attribution().show(["a"] * 12)) + repr(attribution().show())


@pytest.mark.parametrize("shown", ["", [], ("", None), {"text": None}])
def test_display_may_return_what_is_empty(shown):
    assert "(empty)" in repr(attribution().show(range(12), k=1, targets=[0], display=lambda number: shown))


@pytest.mark.parametrize("unknown", [b"a", {"idx": 7, "label": 1}, (object(), None), {}, {"a": None, "b": object()}])
def test_what_lacks_anything_that_is_shown_is_not_taken_for_empty(unknown):
    with pytest.raises(ValueError, match="can't tell how to show example"):
        repr(attribution().show([unknown] * 12))


def test_display_that_returns_nothing_is_refused():
    with pytest.raises(ValueError, match="display returned None for example"):
        repr(attribution().show(["a"] * 12, display=lambda text: None))


def named(label, names):
    return DatasetReader(["a"], 1, "train_dataset", labels=[label], label_names=names)[0].label


@pytest.mark.parametrize("label", [-1, -100, np.int64(-1), 2, 0.5, -1.5, float("nan"), [1]])
@pytest.mark.parametrize("names", [["cat", "dog"], ("cat", "dog"), {0: "cat", 1: "dog"}])
def test_a_label_without_a_name_is_refused(label, names):
    with pytest.raises(ValueError, match=re.escape(f"no name for the label {label}")):
        named(label, names)


@pytest.mark.parametrize("label", [1, 1.0, True, np.float32(1), torch.tensor(1.0), torch.tensor(True)])
def test_a_class_has_one_name_whatever_type_its_number_is_of(label):
    assert named(label, ["cat", "dog"]) == named(label, {1: "dog"}) == "dog"
    assert named(label, None) == "1"


def test_a_series_of_names_names_the_numbers_of_its_index():
    names = pytest.importorskip("pandas").Series(["dog", "cat"], index=[1, 0])
    assert [named(label, names) for label in (0, 1)] == ["cat", "dog"]


def test_labels_of_many_digits_are_told_apart_as_floats():
    assert [named(label, None) for label in (12345.0, 12346.0, 0.123456, 1e30)] == ["12345", "12346", "0.1235", "1e+30"]


def test_pixels_are_kept_up_to_a_bound_and_read_again_beyond(monkeypatch):
    monkeypatch.setattr("trak.visualization.dataset_reader._BYTES_CACHED", 250)
    asked = []
    examples = DatasetReader(np.zeros((5, 10, 10)), 5, "train_dataset", display=lambda image: asked.append(1) or image)
    for _ in range(3):
        assert [example.image.nbytes for example in examples] == [100] * 5
    assert len(asked) == 5 + 3 + 3
    assert len(list(DatasetReader(["a"] * 500, 500, "train_dataset"))) == 500


def test_classes_are_named_as_a_data_set_names_them_unless_the_user_does():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["ham", "spam"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features)
    assert [example.label for example in DatasetReader(data, 3, "train_dataset")] == ["spam", "ham", "-1"]
    named = DatasetReader(data, 3, "train_dataset", label_names={1: "x", 0: "y", -1: "z"})
    assert [example.label for example in named] == ["x", "y", "z"]
