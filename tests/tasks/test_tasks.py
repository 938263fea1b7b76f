import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from trak.modelout_functions import (
    AbstractModelOutput,
    ImageClassificationModelOutput,
    IterativeImageClassificationModelOutput,
    TextClassificationModelOutput,
)
from trak.tasks import (
    TASKS,
    Classification,
    ImageClassification,
    LanguageModeling,
    MultiLabel,
    Regression,
    Task,
    TextClassification,
    make_task,
    register_task,
)
from trak.tasks.base import recorded_name
from trak.tasks.registry import output_in_words
from trak.testing import TaskContract

CLASSES = 3


def images(count, seed=0):
    return torch.randn(count, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def labels(count):
    return torch.arange(count) % CLASSES


def image_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, CLASSES)).double().eval()


def tokens(count):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 20, (count, 6), generator=generator)
    mask = (torch.arange(6) < torch.randint(2, 7, (count, 1), generator=generator)).long()
    return ids * mask, mask


class MeanOfEmbeddings(nn.Module):
    """A text model that returns plain logits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(20, 5), nn.Linear(5, CLASSES)

    def forward(self, input_ids, attention_mask):
        weight = attention_mask.unsqueeze(-1)
        return self.head((self.embedding(input_ids) * weight).sum(1) / weight.sum(1))


def bert(labels_from=CLASSES):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
        num_labels=labels_from,
    )
    # Larger than BERT's own initial weights, so that classes differ.
    model = transformers.BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model.double().eval()


def distilbert():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(
        vocab_size=20, dim=8, n_layers=1, n_heads=2, hidden_dim=8, max_position_embeddings=8, num_labels=CLASSES
    )
    return transformers.DistilBertForSequenceClassification(config).double().eval()


def log_odds(logits, labels):
    """log p - log(1 - p) by a softmax in float64."""
    logits = logits.detach().double().numpy()
    p = np.exp(logits - logits.max(1, keepdims=True))
    p = (p / p.sum(1, keepdims=True))[np.arange(len(labels)), labels.numpy()]
    return np.log(p) - np.log1p(-p)


def sigmoid(f):
    return 1 / (1 + np.exp(-f))


class ImageContract(TaskContract):
    """The contract with margins of images as the default."""

    def model(self):
        return image_model()

    def batch(self, count):
        return images(count), labels(count)

    def expected_output(self, model, batch):
        return log_odds(model(batch[0]), batch[1])


class TestImageTuple(ImageContract):
    def task(self):
        return make_task("image_classification")


class TestImageDict(ImageContract):
    def task(self):
        return ImageClassification()

    def batch(self, count):
        return {"pixel_values": images(count), "labels": labels(count), "index": torch.arange(count)}

    def expected_output(self, model, batch):
        return log_odds(model(batch["pixel_values"]), batch["labels"])


class TestImageTemperature(ImageContract):
    def task(self):
        return ImageClassification(temperature=2.5)

    def expected_output(self, model, batch):
        return log_odds(model(batch[0]) / 2.5, batch[1])


class TestPlainTextModel(ImageContract):
    def task(self):
        return make_task("text_classification")

    def model(self):
        return MeanOfEmbeddings().double()

    def batch(self, count):
        return (*tokens(count), labels(count))

    def expected_output(self, model, batch):
        return log_odds(model(batch[0], batch[1]), batch[2])


class TestBertWithTokenTypes(ImageContract):
    def task(self):
        return TextClassification()

    def model(self):
        return bert()

    def batch(self, count):
        transformers = pytest.importorskip("transformers")
        ids, mask = tokens(count)
        types = (torch.arange(6) > 2).long().expand(count, 6).contiguous()
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "labels": labels(count)}
        return transformers.BatchEncoding(inputs)

    def expected_output(self, model, batch):
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "token_type_ids")}
        return log_odds(model(**inputs).logits, batch["labels"])


class TestBertWithoutTokenTypes(ImageContract):
    def task(self):
        return TextClassification(temperature=0.5)

    def model(self):
        return bert()

    def batch(self, count):
        ids, mask = tokens(count)
        return {"input_ids": ids, "attention_mask": mask, "label": labels(count)}

    def expected_output(self, model, batch):
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return log_odds(logits / 0.5, batch["label"])


class TestDistilBertDropsTokenTypes(TestBertWithTokenTypes):
    """A model whose forward has no token_type_ids."""

    def model(self):
        return distilbert()

    def batch(self, count):
        ids, mask = tokens(count)
        return ids, torch.zeros_like(ids), mask, labels(count)

    def expected_output(self, model, batch):
        return log_odds(model(input_ids=batch[0], attention_mask=batch[2]).logits, batch[3])


def series(count):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, 2, dtype=torch.float64, generator=generator), torch.arange(count) % 5 + 2


class OfSeries(nn.Module):
    """A recurrent classifier of series padded to one length."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.head = nn.GRU(2, 3, batch_first=True, bidirectional=True), nn.Linear(6, CLASSES)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.head(torch.cat(tuple(self.gru(packed)[1]), 1))


class TestSeriesTuple(ImageContract):
    def task(self):
        return make_task("classification")

    def model(self):
        return OfSeries().double()

    def batch(self, count):
        return (*series(count), labels(count))

    def expected_output(self, model, batch):
        return log_odds(model(batch[0], batch[1]), batch[2])


class TestSeriesDict(TestSeriesTuple):
    def task(self):
        return Classification(temperature=2)

    def batch(self, count):
        x, lengths = series(count)
        return {"index": torch.arange(count), "y": labels(count), "lengths": lengths, "x": x}

    def expected_output(self, model, batch):
        return log_odds(model(batch["x"], batch["lengths"]) / 2, batch["y"])


class TestTable(ImageContract):
    def task(self):
        return Classification()


class TestRegression(ImageContract):
    def task(self):
        return make_task("regression")

    def model(self):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(32, 1)).double()

    def batch(self, count):
        return images(count), torch.linspace(-1, 2, count, dtype=torch.float64)

    def expected_output(self, model, batch):
        return model(batch[0]).detach().numpy()[:, 0] - batch[1].numpy()

    def expected_loss(self, f):
        return f**2 / 2

    def expected_weights(self, f):
        return -f, np.ones_like(f)

    def test_q_is_y_minus_prediction(self):
        model, batch, task = self.model(), self.batch(4), self.task()
        q, _ = task.weights(model, batch, task.output(model, batch))
        torch.testing.assert_close(q, batch[1] - model(batch[0])[:, 0].detach())

    def test_predictions_and_y_may_each_be_a_column(self):
        model, (x, y), task = self.model(), self.batch(4), self.task()
        for batch in ((x, y[:, None]), {"inputs": x, "target": y}):
            torch.testing.assert_close(task.output(model, batch), task.output(model, (x, y)))
        flat = nn.Sequential(model, nn.Flatten(0))
        torch.testing.assert_close(task.output(flat, (x, y[:, None])), task.output(model, (x, y)))

    @pytest.mark.parametrize(
        "prediction, y, message",
        [
            (torch.zeros(4, 2), torch.zeros(4), r"prediction of shape \(4, 2\)"),
            (torch.zeros(4), torch.zeros(4, 3), r"y of shape \(4, 3\)"),
            (torch.zeros(()), torch.zeros(4), r"prediction of shape \(\)"),
            (torch.zeros(4), torch.zeros(1), "4 predictions for 1 values of y"),
        ],
    )
    def test_other_than_one_number_per_example_is_refused_with_its_shape(self, prediction, y, message):
        with pytest.raises(ValueError, match=message):
            Regression().check(nn.Identity(), (prediction, y))

    @pytest.mark.parametrize(
        "batch, message",
        [
            ({"inputs": torch.zeros(2), "why": torch.zeros(2)}, "no labels.* got inputs, why"),
            ({"y": torch.zeros(2)}, "no inputs.* got y"),
            ((torch.zeros(2),), r"\(inputs, y\)"),
        ],
    )
    def test_missing_members_are_named(self, batch, message):
        with pytest.raises(ValueError, match=message):
            Regression().check(nn.Identity(), batch)


class TestUsersOwnTask(ImageContract):
    """Poisson regression: ℓ(f) = exp(f) - 2f."""

    @pytest.fixture(autouse=True)
    def _registered(self, monkeypatch):
        monkeypatch.delitem(TASKS, "counts", raising=False)

        @register_task("counts")
        class Counts(Task):
            def output(self, model, batch):
                return model(batch["x"])[:, 0]

            def loss(self, output):
                return output.exp() - 2 * output

        yield
        del TASKS["counts"]

    def task(self):
        return make_task("counts")

    def batch(self, count):
        return {"x": images(count)}

    def expected_output(self, model, batch):
        return model(batch["x"]).detach().numpy()[:, 0]

    def expected_loss(self, f):
        return np.exp(f) - 2 * f

    def expected_weights(self, f):
        return 2 - np.exp(f), np.exp(f)


class PublishedContract(ImageContract):
    """Tasks of the published package, whose curvature is unknown: R = 1."""

    test_r_equals_minus_the_finite_difference_of_q = None
    test_loss_is_the_formula_elementwise = None

    def expected_weights(self, f):
        return sigmoid(-f), np.ones_like(f)


class SquaredErrorAsPublished(AbstractModelOutput):
    def get_output(self, model, weights, buffers, *example):
        image, label = example
        assert image.ndim == 3
        logits = torch.func.functional_call(model, (weights, buffers), (image.unsqueeze(0),))
        return logits[0, 0] - label

    def get_out_to_loss_grad(self, model, weights, buffers, batch):
        image, label = batch
        return (label - torch.func.functional_call(model, (weights, buffers), (image,))[:, 0]).unsqueeze(-1)


class TestPublishedSubclass(PublishedContract):
    def task(self):
        return make_task(SquaredErrorAsPublished())

    def expected_output(self, model, batch):
        return (model(batch[0])[:, 0] - batch[1]).detach().numpy()

    def expected_loss(self, f):
        return f**2 / 2

    def expected_weights(self, f):
        return -f, np.ones_like(f)

    def test_dict_batches_arrive_as_their_members_in_order(self):
        model, (x, y) = self.model(), self.batch(3)
        in_dict = {"x": x, "y": y}
        f = self.task().output(model, in_dict)
        assert torch.equal(f, self.task().output(model, (x, y)))
        assert torch.equal(self.task().weights(model, in_dict, f)[0], self.task().weights(model, (x, y), f)[0])

    def test_the_class_may_be_given_instead_of_an_instance(self):
        model, batch = self.model(), self.batch(3)
        given_class = make_task(SquaredErrorAsPublished)
        assert torch.equal(given_class.output(model, batch), self.task().output(model, batch))
        assert given_class.describe() == {"name": "SquaredErrorAsPublished", "settings": {}}

    def test_q_of_the_wrong_length_is_refused_with_both_numbers(self):
        class Mean(SquaredErrorAsPublished):
            def get_out_to_loss_grad(self, model, weights, buffers, batch):
                return super().get_out_to_loss_grad(model, weights, buffers, batch).mean()

        model, batch, task = self.model(), self.batch(4), make_task(Mean())
        with pytest.raises(TypeError, match=r"Mean.get_out_to_loss_grad must return .* 4 examples, got 1"):
            task.weights(model, batch, task.output(model, batch))


class TestPublishedImageClassification(PublishedContract):
    def task(self):
        return make_task(IterativeImageClassificationModelOutput(temperature=2.0))

    def expected_output(self, model, batch):
        return log_odds(model(batch[0]) / 2, batch[1])

    def test_temperature_is_in_the_record(self):
        assert self.task().describe()["settings"] == {"loss_temperature": 2.0}


class TestPublishedTextClassification(PublishedContract):
    def task(self):
        return make_task(TextClassificationModelOutput())

    def model(self):
        return bert()

    def batch(self, count):
        ids, mask = tokens(count)
        return ids, torch.zeros_like(ids), mask, labels(count)

    def expected_output(self, model, batch):
        return log_odds(model(input_ids=batch[0], attention_mask=batch[2]).logits, batch[3])


@pytest.mark.parametrize("task", [ImageClassification(), ImageClassification(1e-3)], ids=["T=1", "T=0.001"])
def test_weights_of_a_margin_stay_accurate_in_float32_however_confident(task):
    f = torch.linspace(-80, 80, 321)
    q, r = task.weights(nn.Identity(), None, f)
    exact = f.double().numpy()
    small = np.exp(-np.abs(exact))
    np.testing.assert_allclose(q.numpy(), np.where(exact > 0, small, 1) / (1 + small), rtol=1e-5)
    np.testing.assert_allclose(r.numpy(), small / (1 + small) ** 2, rtol=1e-5)


def test_weights_of_a_margin_stay_finite_at_any_size():
    f = torch.tensor([-1e30, -1e4, -200.0, 0.0, 200.0, 1e4, 1e30])
    q, r = ImageClassification().weights(nn.Identity(), None, f)
    assert q.tolist() == [1, 1, 1, 0.5, 0, 0, 0]
    assert r.tolist() == [0, 0, 0, 0.25, 0, 0, 0]


@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 80.0, 1e4])
def test_margins_are_accurate_in_float32_however_large_the_logits(size):
    logits = size * torch.tensor([[1.0, -0.5, 0.25], [-1.0, 0.75, 1.0], [0.0, 1.0, 1.0]])
    output = ImageClassification().output(nn.Identity(), (logits, labels(3)))
    for row, label, f in zip(logits.tolist(), range(3), output.tolist(), strict=True):
        others = [value for j, value in enumerate(row) if j != label]
        largest = max(others)
        exact = row[label] - largest - math.log(math.fsum(math.exp(value - largest) for value in others))
        assert f == pytest.approx(exact, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("make", [ImageClassification, lambda t: make_task(ImageClassificationModelOutput(t))])
def test_temperature_enters_output_and_q_so_that_they_give_the_gradient_of_the_loss(make, temperature):
    logits = torch.randn(6, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch = (logits.requires_grad_(), labels(6))
    loss = nn.functional.cross_entropy(logits / temperature, labels(6), reduction="sum")
    (expected,) = torch.autograd.grad(loss, logits)
    task = make(temperature)
    output = task.output(nn.Identity(), batch)
    q, _ = task.weights(nn.Identity(), batch, output)
    (slope,) = torch.autograd.grad(output.sum(), logits)
    torch.testing.assert_close(-q.unsqueeze(1) * slope, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
@pytest.mark.parametrize("task", [Classification, ImageClassification, TextClassification])
def test_temperature_that_is_not_positive_is_refused_with_its_value(task, temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
        task(temperature)


def test_labels_that_are_no_class_give_nan_and_leave_the_other_rows_right():
    logits = torch.randn(5, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wrong = torch.tensor([0, 3, 2, -1, -100])
    f = ImageClassification().output(nn.Identity(), (logits, wrong))
    assert f.isnan().tolist() == [False, True, False, True, True]
    np.testing.assert_allclose(f[[0, 2]].numpy(), log_odds(logits[[0, 2]], wrong[[0, 2]]), rtol=1e-12)


class IdentityByKeyword(nn.Module):
    def forward(self, input_ids):
        return input_ids


@pytest.mark.parametrize(
    "task, model, key",
    [
        (ImageClassification(), nn.Identity(), "images"),
        (TextClassification(), IdentityByKeyword(), "input_ids"),
        (ImageClassification(2.0), nn.Identity(), "x"),
        (Classification(), IdentityByKeyword(), "input_ids"),
    ],
)
@pytest.mark.parametrize(
    "logits, wrong, message",
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), r"3 in row 1 .* 3 classes \(labels 0 to 2\)"),
        (torch.zeros(2, 3), torch.tensor([-100, 0]), "label out of range: -100 in row 0"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), r"torch.float32; use labels.long\(\)"),
        (torch.zeros(2, 3), torch.tensor([True, False]), r"torch.bool; use labels.long\(\)"),
        (torch.zeros(2, 1), torch.tensor([0, 0]), r"two classes or more, got \(2, 1\)"),
        (torch.zeros(2, 3, 4), torch.tensor([0, 0]), r"got \(2, 3, 4\)"),
        (torch.zeros(2), torch.tensor([0, 0]), r"got \(2,\)"),
        (torch.zeros(2, 3), torch.tensor([[0], [1]]), r"expected labels of shape \(2,\), got \(2, 1\)"),
        (torch.zeros(2, 3), torch.tensor([0]), r"expected labels of shape \(2,\), got \(1,\)"),
        (torch.zeros(2, 3), [0, 1], "labels as a tensor of class indices, got list"),
    ],
)
def test_check_names_what_is_wrong_with_logits_or_labels(task, model, key, logits, wrong, message):
    for batch in ((logits, wrong), {key: logits, "labels": wrong}):
        with pytest.raises(ValueError, match=message):
            task.check(model, batch)


@pytest.mark.parametrize(
    "task, batch, message",
    [
        (ImageClassification(), {"pictures": torch.zeros(2), "labels": labels(2)}, "no images.* got pictures, labels"),
        (ImageClassification(), {"images": torch.zeros(2), "labels": None}, "no labels.* got images, labels"),
        (ImageClassification(), {}, "got nothing"),
        (ImageClassification(), torch.zeros(2), r"is \(images, labels\)"),
        (ImageClassification(), (torch.zeros(2),), r"is \(images, labels\)"),
        (Classification(), torch.zeros(2), r"is \(inputs ..., labels\) or a dict of both, got Tensor"),
        (Classification(), (torch.zeros(2),), r"is \(inputs ..., labels\) or a dict of both, got tuple of 1"),
        (Classification(), {"input_ids": torch.zeros(2), "kind": labels(2)}, "no labels.* got input_ids, kind"),
        (Classification(), {"ids": torch.zeros(2), "labels": labels(2)}, r"\(ids, labels\).*forward \(input_ids\)"),
        (TextClassification(), {"input_ids": torch.zeros(2), "kind": labels(2)}, "no labels.* got input_ids, kind"),
        (TextClassification(), {"ids": torch.zeros(2), "labels": labels(2)}, r"\(ids, labels\).*forward \(input_ids\)"),
        (TextClassification(), torch.zeros(2), r"a tuple \(input_ids, labels\)"),
        (TextClassification(), (torch.zeros(2),) * 5, r"a tuple \(input_ids, labels\)"),
    ],
)
def test_check_names_missing_members_of_a_batch(task, batch, message):
    with pytest.raises(ValueError, match=message):
        task.check(IdentityByKeyword(), batch)


@pytest.mark.parametrize("task", [ImageClassification(), Regression(), MultiLabel(), Classification()])
def test_inputs_that_a_model_misses_are_named_with_the_ways_to_give_them(task):
    (x, lengths), y = series(4), labels(4)
    batch = (x, y) if isinstance(task, Classification) else (x, lengths, y)
    with pytest.raises(TypeError, match=r"OfSeries.forward \(x, lengths\) was given 1 .*'lengths'") as error:
        task.check(OfSeries().double(), batch)
    for way in ('task="classification"', "dicts with its names", "write a Task"):
        assert way in str(error.value)


def test_inputs_that_a_dict_lacks_are_named_and_an_error_within_the_model_is_passed_on():
    with pytest.raises(TypeError, match=r"was given x: missing a required argument: 'lengths'"):
        Classification().check(OfSeries().double(), {"x": series(4)[0], "y": labels(4)})
    with pytest.raises(TypeError, match="shape is text"):
        Classification().check(Fails(), (torch.zeros(4, 2), labels(4)))


class Fails(nn.Module):
    def forward(self, x):
        raise TypeError("shape is text")


class SumOfBoth(nn.Module):
    def forward(self, first, second):
        return first + second


def test_a_dict_reaches_a_model_with_several_inputs_by_their_names_whatever_is_predicted():
    first, second = torch.randn(4, 1), torch.randn(4, 1)
    for task, y in ((Regression(), torch.randn(4)), (MultiLabel(), labels(4) % 2)):
        expected = task.output(nn.Identity(), (first + second, y))
        found = task.output(SumOfBoth(), {"second": second, "y": y, "first": first})
        assert torch.equal(found, expected)


def test_a_scripted_model_which_does_not_tell_its_arguments_is_called_all_the_same():
    model, x, y = torch.jit.trace(nn.Linear(2, 1), torch.zeros(1, 2)), torch.randn(4, 2), torch.randn(4)
    expected = Regression().output(model, (x, y))
    assert torch.equal(Regression().output(model, {"x": x, "y": y}), expected)


class Returns(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, input_ids):
        return self.value


@pytest.mark.parametrize("value", [None, {"scores": torch.zeros(2, 3)}, SimpleNamespace(scores=1), (), "logits"])
def test_model_output_without_logits_is_refused_with_its_type(value):
    for task in (ImageClassification(), TextClassification(), Regression()):
        with pytest.raises(TypeError, match=f"returned {type(value).__name__} without logits"):
            task.check(Returns(value), (torch.zeros(2, 3), labels(2)))


def test_logits_are_found_in_whatever_a_model_returns():
    logits = torch.randn(2, 3, dtype=torch.float64)
    for value in (logits, {"logits": logits}, SimpleNamespace(logits=logits), (logits, None), [logits]):
        f = ImageClassification().output(Returns(value), (torch.zeros(2), labels(2)))
        np.testing.assert_allclose(f.numpy(), log_odds(logits, labels(2)), rtol=1e-10)


def test_text_models_never_get_the_labels():
    class TakesAnything(nn.Module):
        def forward(self, **inputs):
            assert set(inputs) == {"input_ids", "extra"}
            return inputs["input_ids"]

    batch = {"input_ids": torch.eye(3), "extra": torch.zeros(3), "labels": labels(3), "label": labels(3)}
    assert TextClassification().output(TakesAnything(), batch).shape == (3,)


@pytest.mark.parametrize(
    "loss, shape",
    [(lambda f: f.square().mean(), r"\(\)"), (lambda f: f.square().sum(0, keepdim=True), r"\(1,\)")],
)
def test_loss_that_is_not_elementwise_is_refused_with_its_shape(loss, shape):
    class Reduced(Regression):
        def loss(self, output):
            return loss(output)

    with pytest.raises(TypeError, match=rf"Reduced.loss must be elementwise: .*\(4,\) and returned {shape}"):
        Reduced().weights(nn.Identity(), None, torch.ones(4))


def test_loss_linear_in_the_output_has_no_curvature():
    class Linear(Regression):
        def loss(self, output):
            return 3 * output

    q, r = Linear().weights(nn.Identity(), None, torch.ones(4))
    assert (q.tolist(), r.tolist()) == ([-3] * 4, [0] * 4)


@pytest.mark.parametrize("task", [ImageClassification, lambda t: make_task(ImageClassificationModelOutput(t))])
def test_two_tasks_of_one_kind_do_not_touch_each_other(task):
    logits = torch.randn(4, CLASSES, dtype=torch.float64)
    batch = (logits, labels(4))
    warm, cold = task(4.0), task(0.5)
    for _ in range(2):
        for one, temperature in ((warm, 4.0), (cold, 0.5)):
            f = one.output(nn.Identity(), batch)
            np.testing.assert_allclose(f.numpy(), log_odds(logits / temperature, labels(4)), rtol=1e-9)
            q, _ = one.weights(nn.Identity(), batch, f)
            np.testing.assert_allclose(q.numpy(), sigmoid(-f.numpy()), rtol=1e-9)
    assert warm.describe() != cold.describe()


def test_unknown_task_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"'image_clasification': did you mean 'image_classification'\?"):
        make_task("image_clasification")
    with pytest.raises(ValueError, match="'zzz': use one of classification, clip, image_classification"):
        make_task("zzz")


def test_what_is_no_task_is_refused_with_its_type():
    with pytest.raises(TypeError, match="got int"):
        make_task(3)
    with pytest.raises(TypeError, match="got type"):
        make_task(dict)


def test_tasks_are_made_from_names_classes_and_instances():
    assert type(make_task("regression")) is Regression
    assert type(make_task(Regression)) is Regression
    task = Regression()
    assert make_task(task) is task


def test_taken_task_name_is_refused_and_keeps_its_owner():
    class Other(Regression):
        pass

    # The name alone does not make it the same class.
    namesake = type("Regression", (Regression,), {"__qualname__": "Regression", "__module__": "elsewhere"})
    for cls in (Other, namesake):
        with pytest.raises(ValueError, match=r"'regression' is taken by trak\.tasks\.regression\.Regression"):
            register_task("regression")(cls)
        assert TASKS["regression"] is Regression
        assert Regression.name == "regression"


def test_a_class_defined_again_replaces_the_first():
    def define():
        @register_task("defined_twice")
        class Twice(Regression):
            pass

        return Twice

    try:
        define()
        second = define()
        assert TASKS["defined_twice"] is second
    finally:
        del TASKS["defined_twice"]


def test_a_subclass_is_not_recorded_under_its_parents_name():
    class Scaled(ImageClassification):
        def output(self, model, batch):
            return 2 * super().output(model, batch)

    assert Scaled().describe()["name"].endswith("Scaled")
    assert ImageClassification().describe() == {"name": "image_classification", "settings": {"temperature": 1.0}}


def test_settings_json_cannot_hold_are_recorded_by_type_and_tensors_by_their_values():
    def described(scale):
        task = Regression()
        task.scale, task.sizes, task.table, task._cache = scale, (1, 2), {(1, 2): 3}, object()
        return task.describe()

    settings = described(torch.ones(2))["settings"]
    assert {**settings, "scale": None} == {"scale": None, "sizes": [1, 2], "table": "dict"}
    assert described(torch.ones(2))["settings"] == settings
    assert described(torch.zeros(2))["settings"] != settings


def test_only_tasks_can_be_registered_and_only_under_a_name():
    with pytest.raises(TypeError, match="needs a name"):
        register_task(ImageClassification)
    with pytest.raises(TypeError, match=r"only a subclass of trak\.tasks\.Task"):
        register_task("no_task")(object)


@pytest.mark.parametrize("loss", [lambda f: f.abs(), lambda f: -f, lambda f: (1 - f).clamp(min=0)])
def test_piecewise_linear_losses_have_no_curvature(loss):
    class Linear(Regression):
        def loss(self, output):
            return loss(output)

    f = torch.tensor([-2.0, 0.5, 3.0])
    q, r = Linear().weights(nn.Identity(), None, f)
    assert torch.equal(r, torch.zeros(3))
    assert r.numpy().shape == q.numpy().shape == (3,)


def test_loss_that_is_no_function_of_its_argument_is_refused():
    class Constant(Regression):
        def loss(self, output):
            return torch.ones(len(output))

    with pytest.raises(TypeError, match="computed from its argument by torch operations"):
        Constant().weights(nn.Identity(), None, torch.ones(2))


class TestOutputInWords:
    def test_every_task_of_the_library_says_what_its_output_is(self):
        for name, task in TASKS.items():
            said = output_in_words(recorded_name(task), {"output_kind": "margin", "reduction": "mean"})
            assert said, name
            assert said != (task.__doc__ or "").splitlines()[0]

    @pytest.mark.parametrize("output", ["margin", "mean_margin", "cross_entropy"])
    def test_settings_decide_it_where_they_decide_the_output(self, output):
        mean, total = (LanguageModeling(output, reduction).describe() for reduction in ("mean", "sum"))
        assert output_in_words(**total) == f"{output_in_words(**mean)}, times their number"
        assert ("probability" if output == "cross_entropy" else "log-odds") in output_in_words(**mean)

    def test_of_a_task_of_ones_own_it_is_the_first_line_of_a_docstring(self):
        class OnClass(Task):
            """Height of the wave.

            More of it."""

            def output(self, model, batch): ...

        class OnOutput(OnClass):
            """Not this."""

            def output(self, model, batch):
                """
                Length of the wave.
                """

        class Neither(Task):
            def output(self, model, batch): ...

        class Named(Task):
            meaning = "width of the wave"

            def output(self, model, batch):
                """Not this."""

        said = [output_in_words(recorded_name(t), {}) for t in (OnClass, OnOutput, Neither, Named)]
        assert said == ["Height of the wave.", "Length of the wave.", None, "width of the wave"]

    def test_what_is_said_of_an_output_is_not_said_of_another_that_overrides_it(self):
        class SameMargin(ImageClassification):
            """Reads other batches."""

            def logits_and_labels(self, model, batch): ...

        class OtherOutput(ImageClassification):
            def output(self, model, batch): ...

        assert output_in_words(recorded_name(SameMargin), {}) == ImageClassification.meaning
        assert output_in_words(recorded_name(OtherOutput), {}) is None

    def test_unknown_names_and_damaged_settings_say_nothing_or_the_same(self):
        assert output_in_words("nobody's task", {}) is None
        assert output_in_words("image_classification", [3]) == ImageClassification.meaning
        assert output_in_words("language_modeling", {"output_kind": ["margin"]}) is None
