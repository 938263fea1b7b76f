"""Views of targets and training examples in a notebook and in a terminal."""

import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from views import HOSTILE, Page, attribution

from trak.visualization.examples import read_example


class TestShow:
    def test_rows_are_both_ends_of_a_sort_of_the_scores(self):
        found = attribution()
        for row in found.show(targets=[2, 0], k=3).rankings:
            column = found.scores[:, row.target]
            order = sorted(range(12), key=lambda i: -column[i])
            assert [n.train_index for n in row.helpful] == order[:3]
            assert [n.train_index for n in row.harmful] == order[::-1][:3]
            assert [np.float32(n.score) for n in row.helpful + row.harmful] == [
                column[i] for i in order[:3] + order[::-1][:3]
            ]

    def test_html_and_text_name_the_same_indices_scores_labels_and_predictions(self):
        found = attribution()
        shown = found.show(
            [f"train {i}" for i in range(12)], [f"target {i}" for i in range(4)], targets=[1], k=2,
            train_labels=[0, 1] * 6, target_labels=[0] * 4, predicted_labels=[1] * 4, label_names=["cat", "dog"],
        )  # fmt: skip
        (row,) = shown.rankings
        for text in (Page(shown._repr_html_()).text, repr(shown)):
            for n in (*row.helpful, *row.harmful):
                assert f"#{n.train_index}" in text
                assert f"train {n.train_index}" in text
                assert f"{n.score:+#.3g}".replace("-", "−") in text
                assert f"label {['cat', 'dog'][n.train_index % 2]}" in text
            assert f"[{row.helpful[0].train_index}, {row.helpful[1].train_index}]" in text
            assert "predicted dog" in text
            assert "wrong" in text
        right = found.show(targets=[1], target_labels=[0] * 4, predicted_labels=[0] * 4)
        assert "wrong" not in repr(right) + Page(right._repr_html_()).text

    def test_images_are_shown_with_their_names(self):
        pytest.importorskip("PIL")
        data = TensorDataset(torch.rand(12, 1, 6, 6), torch.arange(12))
        page = Page(attribution().show(DataLoader(data, batch_size=5), torch.rand(4, 6, 6), [0], k=2)._repr_html_())
        sources = page.named("img")
        assert len(sources) == 5
        assert all(s["src"].startswith("data:image/") and s["alt"] for s in sources)

    def test_columns_are_read_like_examples(self):
        ids, mask = torch.arange(48).reshape(12, 4), torch.ones(12, 4)
        mask[:, 3] = 0
        found = attribution()
        shown = found.show({"input_ids": ids, "attention_mask": mask}, targets=[0], k=1, tokenizer=lambda i: f"t{i}")
        best = int(found.scores[:, 0].argmax())
        assert f"t{4 * best} t{4 * best + 1} t{4 * best + 2}<" in shown._repr_html_()

    def test_a_text_that_is_markup_is_text(self):
        shown = attribution().show(
            [HOSTILE] * 12, [HOSTILE] * 4, train_labels=[HOSTILE] * 12, predicted_labels=[HOSTILE] * 4
        )
        page = Page(shown._repr_html_())
        assert not page.named("script")
        assert not page.named("img")
        assert HOSTILE in page.text

    def test_tokens_are_shaded_by_their_scores_and_their_sign(self):
        words = [["one", "two", "three"]] * 12
        shown = attribution().show(
            words,
            words[:4],
            [0],
            k=1,
            train_token_scores=lambda t, i: [2.0, -1.0, 0.0],
            target_token_scores=lambda t: [0, 0, 0],
        )
        spans = Page(shown._repr_html_()).named("span")
        assert [(s["class"], s["style"]) for s in spans[3:6]] == [
            ("trak-up", "--trak-share:1"), ("trak-down", "--trak-share:0.5"), ("trak-up", "--trak-share:0"),
        ]  # fmt: skip

    @pytest.mark.parametrize(("scores", "message"), [([1.0], "3 numbers"), ([1, 2, np.nan], "nan, .* finite")])
    def test_scores_that_fit_no_tokens_are_refused(self, scores, message):
        shown = attribution().show([["a", "b", "c"]] * 12, k=1, train_token_scores=lambda t, i: scores)
        with pytest.raises(ValueError, match=rf"train_token_scores\(0, \d+\) .*{message}"):
            shown._repr_html_()

    def test_the_same_is_shown_every_time(self):
        texts = [f"train {i}" for i in range(12)]
        assert attribution().show(texts)._repr_html_() == attribution().show(texts)._repr_html_()

    def test_what_is_no_utf8_is_saved_as_its_replacement(self, tmp_path):
        path = attribution().show(["\ud800 a"] * 12, k=1, targets=[0]).save(tmp_path / "a.html")
        assert "<blockquote>\ufffd" in path.read_text(encoding="utf-8")

    def test_it_is_saved_as_a_page_of_its_own(self, tmp_path):
        shown = attribution().show()
        path = shown.save(tmp_path / "new" / "a.html")
        assert shown._repr_html_() in path.read_text()
        with pytest.raises(ValueError, match=r"HTML, got 'a.png'"):
            shown.save(tmp_path / "a.png")

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"targets": [4]}, ValueError, "targets must be between 0 and 3, got 4"),
            ({"targets": []}, ValueError, "targets is empty"),
            ({"targets": [2, 0, 2]}, ValueError, "targets must be distinct, got 2 more than once"),
            ({"targets": [0.5]}, TypeError, "targets must be integers in one dimension, got float64"),
            ({"train_dataset": ["a"] * 3}, ValueError, "train_dataset has 3 examples, but the attribution 12"),
            ({"target_dataset": iter("abcd")}, TypeError, r"target_dataset must give an example by its number"),
            ({"train_labels": [1]}, ValueError, "1 labels for 12 examples"),
            ({"predicted_labels": [1]}, ValueError, "1 predicted_labels for 4 targets"),
            ({"predicted_labels": torch.ones(4, 3)}, ValueError, r"\(4, 3\); use predicted_labels.argmax\(1\)"),
            ({"train_labels": np.eye(12)}, ValueError, r"\(train_dataset\), .* \(12, 12\); use labels.argmax\(1\)"),
            ({"train_dataset": DataLoader(["a"] * 12, shuffle=True)}, ValueError, "train_dataset .*shuffle=True"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_is_refused_at_once(self, arguments, error, message):
        with pytest.raises(error, match=message):
            attribution().show(**arguments)

    def test_what_can_not_be_told_is_asked_for_and_display_tells_it(self):
        data = [object()] * 12
        with pytest.raises(ValueError, match=r"how to show example \d+ of train_dataset, a object; .*display=function"):
            attribution().show(data)._repr_html_()
        assert "told" in attribution().show(data, display=lambda example: "told")._repr_html_()

    @pytest.mark.parametrize("shown", [np.zeros((4, 5)), "a series", ["two", "words"]])
    def test_an_example_keeps_its_label_whatever_display_makes_of_it(self, shown):
        # Of shape (2, 26, 12), which is no image: only the label is to be read of it.
        train = [(torch.zeros(2, 26, 12), torch.tensor(i % 2)) for i in range(12)]
        targets = [{"series": np.zeros((26, 12)), "labels": 1}] * 4
        found = attribution().show(
            train, targets, [0], k=12, display=lambda example: shown,
            label_names=["cat", "dog"], predicted_labels=[0] * 4,
        )  # fmt: skip
        lines = repr(found).splitlines()
        assert lines[0] == "target 0, label dog, predicted cat, wrong"
        for index in range(12):
            assert f"#{index}, label {['cat', 'dog'][index % 2]}" in repr(found)

    def test_a_label_that_display_returns_is_the_one_shown(self):
        found = attribution().show([("a", 3)] * 12, k=1, display=lambda example: {"text": "b", "label": "mine"})
        assert "label mine" in repr(found)
        assert "label 3" not in repr(found)

    def test_a_number_that_is_all_of_an_example_is_no_label(self):
        assert "label" not in repr(attribution().show(range(12), k=1, display=lambda number: f"number {number}"))

    def test_what_display_returns_is_named_if_it_can_not_be_shown(self):
        shown = attribution().show([("a", 3)] * 12, k=1, display=lambda example: (object(), None))
        with pytest.raises(
            ValueError, match=r"display returned a tuple of a object, None for example \d+ of train_data"
        ):
            shown._repr_html_()

    def test_a_figure_is_shown_as_matplotlib_saves_it_and_closed(self, tmp_path):
        plt, image = pytest.importorskip("matplotlib.pyplot"), pytest.importorskip("PIL.Image")

        def drawn(series):
            figure, axes = plt.subplots(figsize=(4, 1))
            axes.plot(series)
            return figure

        expected = drawn([1, 3, 2])
        expected.savefig(tmp_path / "a.png", dpi=expected.dpi)
        plt.close(expected)
        found = read_example((drawn([1, 3, 2]), "a caption"))
        np.testing.assert_array_equal(found.image, np.asarray(image.open(tmp_path / "a.png").convert("RGB")))
        page = Page(attribution().show(np.ones((12, 26, 1)), k=2, targets=[0], display=drawn)._repr_html_())
        assert len(page.named("img")) == 4
        assert not plt.get_fignums()

    def test_without_pillow_it_is_said_that_an_example_was_taken_for_an_image(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "PIL.Image", None)
        with pytest.raises(ImportError, match=r"shape \(26, 12\) was taken for an image, .*display=.*Pillow: pip"):
            attribution().show(torch.randn(12, 26, 12))._repr_html_()

    @pytest.mark.parametrize("method", ["show", "report"])
    def test_an_unknown_option_is_named_with_the_method_and_the_nearest(self, method, tmp_path):
        with pytest.raises(TypeError, match=rf"attribution.{method} .* 'label_name': did you mean 'label_names'\?"):
            getattr(attribution(), method)(*([tmp_path / "a.html"] if method == "report" else []), label_name=["cat"])


def test_a_prediction_by_a_threshold_is_right_where_the_labels_are_that():
    shown = attribution().show(target_labels=[1, 0, 1, 0], predicted_labels=torch.tensor([1.0, -1.0, -1.0, -1.0]) > 0)
    assert shown._repr_html_().count("wrong") == 1
