"""What is seen of examples and of their scores, in a notebook and in a terminal."""

import html.parser
import json
import pickle
import re
import sys

import numpy as np
import pytest
import torch
from models import images
from torch.utils.data import DataLoader, TensorDataset

import trak
from trak.attribution.results import ArrayAttribution
from trak.evaluation import lds
from trak.visualization.examples import Examples, read
from trak.visualization.images import pixels
from trak.visualization.summary import facts

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & 'a' \"b\" {{style}} \u2028"


def attribution(n=12, m=4, seed=0):
    return ArrayAttribution(np.random.default_rng(seed).normal(size=(n, m)), name="mine")


class Page(html.parser.HTMLParser):
    """What a browser would make of it: elements, and the text outside of styles."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.words, self._inside = [], [], ""
        self.feed(source)
        self.text = "".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside != "style":
            self.words.append(data)

    def named(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


GREY, COLOUR = np.zeros((5, 6)), np.zeros((3, 5, 6), np.float32)


@pytest.mark.parametrize(
    ("item", "shape", "text", "tokens", "label"),
    [
        ("a text", None, "a text", (), None),
        (("a text", 3), None, "a text", (), 3),
        ({"text": "a text", "label": "good", "idx": 7}, None, "a text", (), "good"),
        ({"premise": "one", "hypothesis": "two", "label": 1}, None, "premise: one\nhypothesis: two", (), 1),
        (GREY, (5, 6), "", (), None),
        ((torch.zeros(1, 5, 6), torch.tensor(4)), (5, 6), "", (), 4),
        ((COLOUR, 2), (5, 6, 3), "", (), 2),
        ({"pixel_values": COLOUR, "labels": 2}, (5, 6, 3), "", (), 2),
        ((COLOUR, "a caption"), (5, 6, 3), "a caption", (), None),
        ((COLOUR, torch.tensor([5, 6])), (5, 6, 3), "", (5, 6), None),
        (torch.tensor([5, 6, 7]), None, "", (5, 6, 7), None),
        (["two", "words"], None, "", ("two", "words"), None),
        ({"input_ids": [5, 6], "labels": [5, 6]}, None, "", (5, 6), None),
        ((torch.tensor([0.5, 2.0]), torch.tensor(0.25)), None, "[0.5, 2]", (), 0.25),
    ],
)
def test_what_an_example_is_is_told_by_its_types(item, shape, text, tokens, label):
    found = read(item)
    assert (None if found.image is None else found.image.shape) == shape
    assert (found.text, found.tokens, found.label) == (text, tokens, label)


def test_pixels_are_kept_where_they_are_bytes_or_from_0_to_1_and_stretched_elsewhere():
    values = np.array([[0.0, 0.5], [0.2, 0.4]])
    np.testing.assert_array_equal(pixels(values), np.rint(values * 255))
    np.testing.assert_array_equal(pixels(torch.from_numpy(values)[None]), np.rint(values * 255))
    np.testing.assert_array_equal(pixels(values * 8 - 3), np.rint(values * 2 * 255))
    given = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    np.testing.assert_array_equal(pixels(np.moveaxis(given, -1, 0)), np.moveaxis(given, -1, 0).transpose(1, 2, 0))
    np.testing.assert_array_equal(pixels(np.full((2, 2), 7.0)), np.zeros((2, 2)))


def test_an_image_of_pillow_is_the_same_as_its_array():
    image = pytest.importorskip("PIL.Image")
    array = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    np.testing.assert_array_equal(pixels(image.fromarray(array)), array)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ((4, 4, 3), (4, 4, 3)), ((3, 3, 4), (3, 3, 4)), ((3, 3, 1), (3, 3)), ((1, 1, 3), (1, 1, 3)),
        ((1, 4, 4), (4, 4)), ((3, 4, 4), (4, 4, 3)), ((4, 5, 3), (5, 3, 4)), ((3, 3, 9), (3, 9, 3)),
    ],
)  # fmt: skip
def test_a_small_square_is_told_from_its_channels_on_either_side(given, shown):
    assert pixels(np.zeros(given, np.uint8)).shape == shown


@pytest.mark.parametrize("value", [np.zeros((2, 5, 6)), np.zeros(4), np.zeros((0, 3))])
def test_what_is_no_image_is_refused_by_its_shape(value):
    with pytest.raises(ValueError, match=re.escape(f"got {value.shape}")):
        pixels(value)


class TestShow:
    def test_rows_are_both_ends_of_a_sort_of_the_scores(self):
        found = attribution()
        for row in found.show(targets=[2, 0], k=3).rows:
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
        (row,) = shown.rows
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
            ({"targets": [4]}, ValueError, "target 4 is out of range: there are 4 targets"),
            ({"targets": []}, ValueError, "targets is empty"),
            ({"targets": [2, 0, 2]}, ValueError, "targets has 2 more than once"),
            ({"targets": [0.5]}, TypeError, "integers, got 0.5"),
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
        found = read((drawn([1, 3, 2]), "a caption"))
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
    return Examples(["a"], 1, "train_dataset", labels=[label], label_names=names)[0].label


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


def test_a_prediction_by_a_threshold_is_right_where_the_labels_are_that():
    shown = attribution().show(target_labels=[1, 0, 1, 0], predicted_labels=torch.tensor([1.0, -1.0, -1.0, -1.0]) > 0)
    assert shown._repr_html_().count("wrong") == 1


def test_labels_of_many_digits_are_told_apart_as_floats():
    assert [named(label, None) for label in (12345.0, 12346.0, 0.123456, 1e30)] == ["12345", "12346", "0.1235", "1e+30"]


def test_pixels_are_kept_up_to_a_bound_and_read_again_beyond(monkeypatch):
    monkeypatch.setattr("trak.visualization.examples._BYTES_KEPT", 250)
    asked = []
    examples = Examples(np.zeros((5, 10, 10)), 5, "train_dataset", display=lambda image: asked.append(1) or image)
    for _ in range(3):
        assert [example.image.nbytes for example in examples] == [100] * 5
    assert len(asked) == 5 + 3 + 3
    assert len(list(Examples(["a"] * 500, 500, "train_dataset"))) == 500


class TestSummary:
    def test_says_how_scores_were_made_and_what_the_first_targets_rest_on(self, tmp_path):
        model, task, batches = images()
        found = trak.attribute(
            model, task, model.state_dict(), batches, batches[:1], tmp_path, proj_dim=16, damping=0.5, progress=False
        )
        text = Page(found._repr_html_()).text
        for part in ("image_classification", "log-odds of the labelled class", "23", "1 (0)", "damping", str(tmp_path)):
            assert part in text
        assert f"#{found.top(1).indices[0, 0]} (" in text
        assert (facts(found)["experiment"], facts(attribution())["name"]) == ("targets", attribution().name)

    def test_shows_what_can_not_be_scored_yet_without_its_targets(self, tmp_path):
        model, task, batches = images()
        trak.attribute(model, task, model.state_dict(), batches, batches[:1], tmp_path, proj_dim=16, progress=False)
        traker = trak.TRAKer(model, task, 23, tmp_path, proj_dim=16)
        traker.start_scoring_checkpoint("later", model.state_dict(), 0, 8)
        found = trak.Attribution.open(tmp_path, "later")
        assert "First targets" not in found._repr_html_()

    def test_shows_what_is_of_targets_that_were_replaced_without_its_targets(self, tmp_path):
        model, task, batches = images()
        both = [
            trak.attribute(
                model, task, model.state_dict(), batches, [tuple(part[rows] for part in batches[0])], tmp_path,
                proj_dim=16, progress=False,
            )
            for rows in (slice(0, 4), slice(1, 5))
        ]  # fmt: skip
        assert ["First targets" in found._repr_html_() for found in both] == [False, True]

    def test_names_faithfulness_once_it_was_measured(self):
        pytest.importorskip("scipy")
        rng, found = np.random.default_rng(0), attribution()
        assert "LDS" not in found._repr_html_()
        masks = rng.random((6, 12)) < 0.5
        result = lds(found, masks, rng.normal(size=(6, 2, 4)), resamples=50, permutations=50)
        assert found.faithfulness is result
        assert str(result) in Page(found._repr_html_()).text


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


@pytest.mark.parametrize("package", ["polars", "pyarrow"])
def test_other_tables_hold_what_the_frame_holds(package):
    pytest.importorskip(package)
    found = attribution()
    table = {"polars": found.to_polars, "pyarrow": found.to_arrow}[package](3, bottom=True)
    top = found.top(3, bottom=True)
    assert table["target"].to_numpy().tolist() == np.repeat(range(4), 3).tolist()
    assert table["rank"].to_numpy().tolist() == [1, 2, 3] * 4
    np.testing.assert_array_equal(table["train_index"].to_numpy(), top.indices.ravel())
    np.testing.assert_array_equal(table["score"].to_numpy(), top.scores.ravel())


def test_xarray_holds_all_scores_by_name():
    pytest.importorskip("xarray")
    found = attribution()
    table = found.to_xarray()
    assert table.dims == ("train_index", "target")
    np.testing.assert_array_equal(table.isel(target=2).to_numpy(), found.scores[:, 2])


def test_classes_are_named_as_a_data_set_names_them_unless_the_user_does():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["ham", "spam"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features)
    assert [example.label for example in Examples(data, 3, "train_dataset")] == ["spam", "ham", "-1"]
    named = Examples(data, 3, "train_dataset", label_names={1: "x", 0: "y", -1: "z"})
    assert [example.label for example in named] == ["x", "y", "z"]
