"""The task of contrastive image-text models, against the formulas written out over single pairs."""

import copy
import math
import pickle
import warnings
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
import torch
from test_tasks import sigmoid
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import trak
from trak.baselines import GradientDot
from trak.baselines.shapley import DataShapley
from trak.evaluation.retraining.runs import TrainingRun
from trak.evaluation.retraining.training_spec import TrainingSpec
from trak.gradients import ENGINES, choose_engine, differentiable
from trak.gradients.base import collect
from trak.inputs import batches
from trak.modelout_functions import TASK_TO_MODELOUT, CLIPModelOutput
from trak.projectors import make_projector
from trak.tasks import CLIP, ImageClassification, make_task
from trak.tasks.image_text import read_pairs
from trak.tasks.negatives import NegativeBank
from trak.testing import TaskContract
from trak.testing.reference import double

transformers = pytest.importorskip("transformers")

SIZE, VOCABULARY, END, CONTEXT = 8, 30, 29, 12
SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
CONFIG = {
    "text_config": {
        **SMALL, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "eos_token_id": END, "bos_token_id": 1,
        "pad_token_id": 0,
    },
    "vision_config": {**SMALL, "image_size": SIZE, "patch_size": 4},
}  # fmt: skip


class OpenClip(nn.Module):
    """The call signature of open_clip's models."""

    def __init__(self):
        super().__init__()
        self.visual, self.embedding = nn.Linear(3 * SIZE * SIZE, 6), nn.Embedding(VOCABULARY, 7)
        self.projection = nn.Parameter(torch.randn(7, 6))
        self.logit_scale, self.context_length = nn.Parameter(torch.tensor(1.5)), CONTEXT

    def encode_image(self, images, normalize=False):
        found = self.visual(images.flatten(1)).tanh()
        return nn.functional.normalize(found, dim=-1) if normalize else found

    def encode_text(self, tokens, normalize=False):
        found = self.embedding(tokens).cumsum(1).tanh().mean(1) @ self.projection
        return nn.functional.normalize(found, dim=-1) if normalize else found

    def forward(self, images, tokens):
        return self.encode_image(images, True), self.encode_text(tokens, True), self.logit_scale.exp()


class Wrapped(nn.Module):
    """Has a forward alone, as a model inside of DistributedDataParallel."""

    def __init__(self, as_dict):
        super().__init__()
        self.module, self.as_dict = OpenClip(), as_dict

    def forward(self, images, tokens):
        found = self.module(images, tokens)
        return (
            dict(zip(("image_features", "text_features", "logit_scale"), found, strict=True)) if self.as_dict else found
        )


MODELS = {
    "CLIPModel": lambda: transformers.CLIPModel(transformers.CLIPConfig(**CONFIG, projection_dim=6)),
    "SiglipModel": lambda: transformers.SiglipModel(transformers.SiglipConfig(**CONFIG)),
    "open_clip": OpenClip,
    "forward alone, tuple": lambda: Wrapped(False),
    "forward alone, dict": lambda: Wrapped(True),
}


def make(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for p in model.parameters():  # larger than initial weights, so that captions differ
            p.add_(0.2 * torch.randn_like(p))
        if hasattr(model, "logit_scale"):
            model.logit_scale.fill_(1.5)
        if hasattr(model, "logit_bias"):
            model.logit_bias.fill_(-2.0)
    return model


def pairs(count, seed=0, length=9, masked=True):
    """Images with captions of different lengths, padded."""
    g = torch.Generator().manual_seed(seed)
    images, own = torch.randn(count, 3, SIZE, SIZE, generator=g), torch.randint(3, 8, (count, 1), generator=g)
    ids, places = torch.randint(2, END, (count, length), generator=g), torch.arange(length)
    ids = torch.where(places < own, ids, 0).masked_fill(places == own - 1, END)
    mask = {"attention_mask": (places < own).long()} if masked else {}
    return {"pixel_values": images, "input_ids": ids, **mask}


def for_model(name, batch):
    return batch if name in ("CLIPModel", "SiglipModel") else (batch["pixel_values"], batch["input_ids"])


def data(name, count, seed=0):
    return for_model(name, pairs(count, seed, masked=name in ("CLIPModel", "SiglipModel")))


class Embedded(NamedTuple):
    image: torch.Tensor
    text: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None


def embedded(model, batch):
    """By each model's own documented calls, not by the library's."""
    if isinstance(batch, dict):
        found = model(**batch)
        return Embedded(
            found.image_embeds, found.text_embeds, model.logit_scale.exp(), getattr(model, "logit_bias", None)
        )
    found = model(*batch)
    return Embedded(*(found.values() if isinstance(found, dict) else found), None)


def true_margins(model, example, negatives, temperature=None):
    """f₁ and f₂ of one pair, from probabilities; `negatives` are (images, texts) that are constants."""
    x, y, scale, bias = embedded(model, example)
    scale = scale if temperature is None else 1 / temperature
    margins = []
    for anchor, other in ((x, negatives[1]), (y, negatives[0])):
        own, others = scale * (x[0] @ y[0]), scale * (other.detach() @ anchor[0])
        if bias is None:
            margins.append(-torch.log(torch.exp(others - own).sum()))
        else:
            p = torch.sigmoid(own + bias) * torch.prod(torch.sigmoid(-(others + bias)))
            margins.append(torch.log(p / (1 - p)).reshape(()))
    return torch.stack(margins)


def all_margins(model, batch, bank, constants_of=None):
    """(B, 2): of examples of the bank, against all others of it. The bank's embeddings are those of `constants_of`."""
    found, rows = embedded(constants_of or model, bank), []
    for i in range(batches.size(batch)):
        example = batches.take(batch, i, i + 1)
        image, text = batches.tensors(example)[:2]
        known = batches.tensors(bank)
        others = [
            j for j in range(batches.size(bank)) if not (known[0][j].equal(image[0]) and known[1][j].equal(text[0]))
        ]
        rows.append(true_margins(model, example, (found.image[others], found.text[others])))
    return torch.stack(rows)


class ClipContract(TaskContract):
    """With the bank as large as the simulated batch: every other example is a negative."""

    name: str

    def model(self):
        return make(self.name).double()

    def bank(self):
        return double(data(self.name, 12))

    def batch(self, count):
        return batches.take(self.bank(), 0, count)

    def task(self):
        return CLIP([self.bank()], batch_size=12)

    def margins(self, count):
        return all_margins(self.model(), self.batch(count), self.bank()).detach().numpy()

    def directions(self, f):
        """Margins that add up to f, and differ as those of the first examples do."""
        difference = np.diff(self.margins(len(f)), axis=1)[:, 0]
        return (f - difference) / 2, (f + difference) / 2

    def expected_output(self, model, batch):
        return all_margins(model, batch, self.bank(), constants_of=self.model()).sum(1).detach().numpy()

    def expected_loss(self, f):
        return sum(np.logaddexp(0, -margin) for margin in self.directions(f))

    def expected_weights(self, f):
        margins = self.directions(f)
        q = sum(sigmoid(-margin) for margin in margins) / 2
        return q, sum(sigmoid(margin) * sigmoid(-margin) for margin in margins) / 4

    def test_loss_is_the_formula_elementwise(self):
        f = torch.linspace(-5, 5, 11, dtype=torch.float64)
        np.testing.assert_allclose(self.task().loss(f).numpy(), 2 * np.logaddexp(0, -f.numpy() / 2), rtol=1e-12)

    def test_loss_of_the_margins_is_that_of_training(self):
        model, bank = self.model(), self.bank()
        x, y, scale, bias = embedded(model, bank)
        logits, n = scale * x @ y.T, batches.size(bank)
        if bias is None:
            expected = sum(-m.log_softmax(1).diagonal() for m in (logits, logits.T))
        else:
            signs = 2 * torch.eye(n, dtype=logits.dtype) - 1
            terms = -nn.functional.logsigmoid(signs * (logits + bias))
            expected = terms.sum(0) + terms.sum(1)
        found = nn.functional.softplus(-self.task().margins(model, bank)).sum(1)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)

    def test_softening_divides_both_margins(self):
        model, batch, task = self.model(), self.batch(7), self.task()
        f = task.output(model, batch).detach()
        q, r = task.weights_at_temperature(model, batch, f, 3.0)
        margins = self.margins(7) / 3
        np.testing.assert_allclose(q.numpy(), 3 * sigmoid(-margins).mean(1), rtol=1e-9)
        np.testing.assert_allclose(r.numpy(), (sigmoid(margins) * sigmoid(-margins)).sum(1) / 4, rtol=1e-9)

    @pytest.mark.parametrize("count", [1, 7])
    def test_gradients_by_the_automatic_engine_equal_a_loop_to_1e_5(self, count):
        model, bank = make(self.name), data(self.name, 12)
        batch, task = batches.take(bank, 0, count), CLIP([bank], batch_size=12)
        own = dict(model.named_parameters())
        task.prepare(model)
        with differentiable(model, list(own)), warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*one example at a time")
            engine = choose_engine("auto", model, task, list(own), batch)
            found = collect(engine, batch)
        rows = [all_margins(model, batches.take(batch, i, i + 1), bank).sum() for i in range(count)]
        truth = [torch.autograd.grad(row, list(own.values()), allow_unused=True) for row in rows]
        size = math.sqrt(sum(float(g.norm()) ** 2 for row in truth for g in row if g is not None))
        for j, (name, p) in enumerate(own.items()):
            expected = torch.stack([torch.zeros_like(p) if row[j] is None else row[j] for row in truth])
            assert float((found[name] - expected).norm()) <= 1e-5 * size, name

    def test_an_example_has_the_same_numbers_in_every_batch(self):
        model, batch, task = self.model(), self.batch(7), self.task()
        f = task.output(model, batch)
        whole = (f, *task.weights_at_temperature(model, batch, f, 3.0))
        one = batches.take(batch, 4, 5)
        f = task.output(model, one)
        for alone, together in zip((f, *task.weights_at_temperature(model, one, f, 3.0)), whole, strict=True):
            torch.testing.assert_close(alone, together[4:5], rtol=1e-12, atol=1e-12)
            assert float(alone.detach().abs()) > 0

    def test_right_are_those_nearest_to_each_other(self):
        model, bank = self.model(), self.bank()
        x, y, *_ = embedded(model, bank)
        cosines, places = x @ y.T, torch.arange(12)
        expected = (cosines.argmax(0) == places) & (cosines.argmax(1) == places)
        assert torch.equal(self.task().correct(model, bank, self.task().output(model, bank)), expected)

    def test_scores_equal_the_float64_reference(self, tmp_path):
        model, bank = make(self.name), data(self.name, 9)
        torch.manual_seed(1)
        states = [{k: v + 0.1 * torch.randn_like(v) if v.is_floating_point() else v for k, v in s.items()}
                  for s in [model.state_dict()] * 2]  # fmt: skip
        train = [batches.take(bank, 0, 5), batches.take(bank, 5, 9)]
        projector = make_projector("sketch", 16, 3)
        found = trak.attribute(
            model, CLIP(train, batch_size=9), states, train, train[:1], tmp_path, projector=projector, normalize_checkpoints=False,
            progress=False,
        ).scores  # fmt: skip
        kernels, qs, exact, bank = [], [], copy.deepcopy(model).double(), double(bank)
        for model_id, state in enumerate(states):
            exact.load_state_dict(state)
            own = dict(exact.named_parameters())
            margins = all_margins(exact, bank, bank)
            gradients = [torch.autograd.grad(f, list(own.values()), retain_graph=True, allow_unused=True)
                         for f in margins.sum(1)]  # fmt: skip
            stacked = {
                name: torch.stack([torch.zeros_like(p) if row[j] is None else row[j] for row in gradients])
                for j, (name, p) in enumerate(own.items())
            }
            phi, softened = projector.project(stacked, model_id).numpy(), margins.detach().numpy() / 3
            r = (sigmoid(softened) * sigmoid(-softened)).sum(1) / 4
            gram = phi.T @ np.diag(r) @ phi
            inverse = np.linalg.inv(gram + 3 * np.trace(gram) / 16 * np.eye(16))
            kernels.append(phi @ inverse @ phi[:5].T)
            qs.append(3 * sigmoid(-softened).mean(1))
        truth = np.mean(kernels, 0) * np.mean(qs, 0)[:, None]
        assert np.abs(found - truth).max() / np.abs(truth).max() < 1e-4


class TestClipModel(ClipContract):
    name = "CLIPModel"


class TestSiglipModel(ClipContract):
    name = "SiglipModel"


class TestOpenClip(ClipContract):
    name = "open_clip"


class TestForwardAlone(ClipContract):
    name = "forward alone, tuple"


class TestForwardAloneDict(ClipContract):
    name = "forward alone, dict"


def cheap(count, seed=0):
    return data("open_clip", count, seed)


def outputs(task, model, batch):
    with torch.no_grad():
        return task.output(model, batch)


class TestBank:
    def test_an_example_outside_has_as_many_negatives_as_one_inside(self):
        model, bank, outside = make("open_clip").double(), double(cheap(6)), double(cheap(4, seed=1))
        found = CLIP([bank], batch_size=6).margins(model, outside)
        x, y, *_ = embedded(model, bank)
        fits = []
        for left_out in range(6):
            others = [j for j in range(6) if j != left_out]
            rows = [true_margins(model, batches.take(outside, i, i + 1), (x[others], y[others])) for i in range(4)]
            fits.append(torch.allclose(found, torch.stack(rows), rtol=1e-9, atol=1e-10))
        assert sum(fits) == 1

    @pytest.mark.parametrize("name", ["CLIPModel", "open_clip"])
    def test_an_example_given_twice_is_no_negative_of_itself(self, name):
        model, bank = make(name).double(), double(data(name, 6))
        twice = batches.replace_tensors(bank, [torch.cat((t, t[:3])) for t in batches.tensors(bank)])
        found = CLIP([twice], batch_size=6).margins(model, bank)
        torch.testing.assert_close(found, all_margins(model, bank, bank), rtol=1e-9, atol=1e-10)

    @pytest.mark.parametrize("side", ["right", "left"])
    def test_an_example_padded_to_another_length_is_no_negative_of_itself(self, side):
        bank = pairs(6)
        zeros = torch.zeros(6, 3, dtype=torch.long)
        order = (lambda t: (t, zeros)) if side == "right" else (lambda t: (zeros, t))
        padded = {k: t if k == "pixel_values" else torch.cat(order(t), 1) for k, t in bank.items()}
        drawn = NegativeBank([padded], 6, 0)
        assert torch.equal(drawn.excluded(read_pairs(bank)), drawn.excluded(read_pairs(padded)))
        assert drawn.excluded(read_pairs(bank)).sum(0).tolist() == [1] * 6

    def test_an_example_with_the_same_image_or_caption_alone_is_a_negative(self):
        images, tokens = cheap(6)
        drawn = NegativeBank([(images, tokens)], 6, 0)
        for other in ((images, tokens.roll(1, 0)), (images.roll(1, 0), tokens)):
            assert not torch.isin(read_pairs(other).hashes(), drawn.hashes).any()

    def test_hashes_tell_apart_what_differs_in_one_number(self):
        images, tokens = cheap(1)
        images = images.repeat(40, 1, 1, 1).flatten(1)
        for i in range(1, 40):
            images[i, i] *= 2 if i % 2 else -1
        found = read_pairs((images.reshape(40, 3, SIZE, SIZE), tokens.repeat(40, 1))).hashes()
        assert len(set(found.tolist())) == 40

    def test_every_example_is_drawn_as_often_as_any_other(self):
        batch = cheap(12)
        hashes, counts = read_pairs(batch).hashes(), Counter()
        for seed in range(300):
            drawn = torch.isin(hashes, NegativeBank([batch], 4, seed).hashes)
            assert drawn.sum() == 4
            counts.update(drawn.nonzero().flatten().tolist())
        # Binomial(300, 1/3): 100 ± 8.2.
        assert all(abs(counts[i] - 100) < 33 for i in range(12))

    def test_the_draw_depends_on_neither_order_nor_batches_nor_global_generators(self):
        images, tokens = cheap(12)
        order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
        dataset = TensorDataset(images, tokens)
        torch.manual_seed(5)
        found = [
            NegativeBank(given, 5, 2).hashes.tolist()
            for given in (
                [(images, tokens)],
                [(images[order], tokens[order])],
                dataset,
                DataLoader(dataset, batch_size=5),
                DataLoader(dataset, batch_size=2, shuffle=True),
                iter([(images[:7], tokens[:7]), (images[7:].numpy(), tokens[7:].numpy())]),
            )
        ]
        state = torch.get_rng_state()
        CLIP([(images, tokens)], 5)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(one == found[0] for one in found)
        assert NegativeBank([(images, tokens)], 5, 3).hashes.tolist() != found[0]

    def test_captions_of_different_lengths_are_embedded_together(self):
        model, whole = make("CLIPModel").double(), double(pairs(8))
        shorter = {k: t[:, :7] if t.ndim == 2 else t for k, t in batches.take(whole, 0, 4).items()}
        assert int(shorter["attention_mask"].sum()) == int(whole["attention_mask"][:4].sum())
        task, ragged = CLIP([whole], 8), CLIP([shorter, batches.take(whole, 4, 8)], 8)
        torch.testing.assert_close(outputs(ragged, model, whole), outputs(task, model, whole), rtol=1e-9, atol=1e-10)
        assert ragged.describe() == task.describe()


def train_a_step(model):
    images, texts, _ = model(*cheap(4))
    (images * texts).sum().backward()
    torch.optim.SGD(model.parameters(), 1.0).step()


class TestCheckpoints:
    """No embeddings but those of the model's weights as they are."""

    def fresh(self, model, batch):
        return outputs(CLIP([cheap(10)], 6), copy.deepcopy(model), batch)

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: m.load_state_dict({k: v + 0.3 for k, v in m.state_dict().items()}),
            lambda m: m.projection.data.mul_(-1.1),
            lambda m: setattr(m, "projection", nn.Parameter(m.projection.detach() * 2 - 1)),
            train_a_step,
        ],
        ids=["load_state_dict", "data", "another parameter", "training"],
    )
    @pytest.mark.parametrize("prepared", [True, False])
    def test_a_change_of_weights_is_noticed(self, change, prepared):
        model, batch, task = make("open_clip"), cheap(3), CLIP([cheap(10)], 6)
        before = outputs(task, model, batch)
        change(model)
        if prepared:
            task.prepare(model)
        assert torch.equal(outputs(task, model, batch), self.fresh(model, batch))
        assert not torch.allclose(outputs(task, model, batch), before)

    def test_a_model_in_the_memory_of_another_is_not_taken_for_it(self):
        batch, task = cheap(3), CLIP([cheap(10)], 6)
        for seed in range(5):
            torch.manual_seed(seed)
            model = OpenClip()
            assert torch.equal(outputs(task, model, batch), self.fresh(model, batch))
            del model

    def test_the_same_weights_are_embedded_once(self):
        model, calls, task = make("open_clip"), [], CLIP([cheap(10)], 6)
        model.visual.register_forward_hook(lambda _, args, __: calls.append(len(args[0])))
        for _ in range(2):
            task.prepare(model)
            outputs(task, model, cheap(3))
        assert calls == [6, 3, 3]

    def test_inside_of_vmap_unprepared_weights_are_refused(self):
        model, batch, task = make("open_clip"), cheap(3), CLIP([cheap(10)], 6)
        names = [name for name, _ in model.named_parameters()]
        with differentiable(model, names):
            engine = ENGINES["functional"](model, task, names)
            for _ in range(2):
                with pytest.raises(ValueError, match=r"call the task's prepare\(model\) before"):
                    collect(engine, batch)
                task.prepare(model)
                found, truth = (collect(ENGINES[kind](model, task, names), batch) for kind in ("functional", "loop"))
                for name in names:
                    torch.testing.assert_close(found[name], truth[name], rtol=1e-4, atol=1e-5)
                with torch.no_grad():
                    model.visual.bias.add_(1)

    def test_a_model_in_training_mode_is_embedded_in_evaluation_mode_and_left_in_training(self):
        class Dropping(OpenClip):
            def __init__(self):
                super().__init__()
                self.dropout = nn.Dropout(0.5)

            def encode_image(self, images, normalize=False):
                return super().encode_image(self.dropout(images), normalize)

        model, task = Dropping().train(), CLIP([cheap(6)], 6)
        task.prepare(model)
        assert model.dropout.training
        found = outputs(task, model.eval(), cheap(6))
        assert torch.equal(found, outputs(CLIP([cheap(6)], 6), model, cheap(6)))

    def test_two_tasks_do_not_touch_each_other(self):
        one, other = make("open_clip"), OpenClip()
        a, b = CLIP([cheap(10)], 6), CLIP([cheap(20, seed=2)], 15, seed=4, temperature=0.5)
        alone = outputs(a, one, cheap(3)), outputs(b, other, cheap(3))
        for _ in range(2):
            for task, model, expected in ((a, one, alone[0]), (b, other, alone[1])):
                assert torch.equal(outputs(task, model, cheap(3)), expected)
        assert {k: v for k, v in vars(CLIP).items() if isinstance(v, torch.Tensor | NegativeBank)} == {}

    def test_another_process_gets_the_bank_without_embeddings(self):
        model, task = make("open_clip"), CLIP([cheap(10)], 6)
        task.prepare(model)
        sent = pickle.dumps(task)
        assert len(sent) < 6 * (3 * SIZE * SIZE * 4 + 9 * 8) + 5_000
        assert torch.equal(outputs(pickle.loads(sent), model, cheap(3)), outputs(task, model, cheap(3)))


class Prepared(ImageClassification):
    """Notes which weights it was prepared for, in which mode, and that this was before its outputs were asked for."""

    def __init__(self):
        super().__init__()
        self._seen, self._current = [], None

    def prepare(self, model):
        assert not model.training
        self._current = model[0].bias.detach().clone()
        self._seen.append(round(float(self._current[0])))

    def output(self, model, batch):
        with torch.no_grad():
            same = model[0].bias.detach() == self._current
        return super().output(model, batch).masked_fill(~same.all(), torch.nan)


class TestPrepare:
    def model(self, first=0.0):
        model = nn.Sequential(nn.Linear(3, 2))
        with torch.no_grad():
            model[0].bias[0] = first
        return model

    def states(self):
        return [self.model(first).state_dict() for first in (1.0, 2.0)]

    def batch(self):
        return torch.randn(4, 3), torch.tensor([0, 1, 0, 1])

    def test_by_the_traker_at_every_load(self, tmp_path):
        task, data = Prepared(), [self.batch()]
        trak.attribute(self.model(), task, self.states(), data, data, tmp_path, proj_dim=4, progress=False)
        assert task._seen == [1, 1, 2, 2]

    def test_by_baselines(self):
        task, data = Prepared(), [self.batch()]
        GradientDot(proj_dim=4).attribute(self.model(), task, self.states(), data, data, progress=False)
        assert task._seen == [1, 2]

    def test_for_retrained_models(self):
        task = Prepared()
        recipe = TrainingSpec(lambda indices, seed: self.model(seed).train(), task, [self.batch()])
        for seed in (3, 4):
            assert np.isfinite(recipe.measure(TrainingRun(np.arange(2), seed)).outputs).all()
        assert task._seen == [3, 4]

    def test_for_shapley_values(self):
        task, data = Prepared(), [self.batch()]
        train = lambda indices, seed: self.model(len(indices))  # noqa: E731
        DataShapley(train, permutations=1, tolerance=0).attribute(None, task, [], data, data, progress=False)
        assert sorted(set(task._seen)) == [0, 1, 2, 3, 4]


class TestSettings:
    def test_what_decides_the_numbers_is_recorded(self):
        described = [
            CLIP([cheap(10)], 6).describe(),
            CLIP([cheap(10)], 7).describe(),
            CLIP([cheap(10)], 6, seed=1).describe(),
            CLIP([cheap(10)], 6, temperature=0.1).describe(),
            CLIP([cheap(10, seed=1)], 6).describe(),
        ]
        assert all(one["name"] == "clip" for one in described)
        assert len({str(one) for one in described}) == 5
        assert described[0] == CLIP([cheap(10)], 6).describe()

    def test_a_store_made_with_another_bank_is_refused(self, tmp_path):
        model, train = make("open_clip"), [cheap(10)]
        trak.TRAKer(model, CLIP(train, 6), 10, tmp_path, proj_dim=8)
        with pytest.raises(ValueError, match="task settings bank="):
            trak.TRAKer(model, CLIP([cheap(12, seed=1)], 6), 10, tmp_path, proj_dim=8)

    def test_temperature_replaces_the_models_scale(self):
        model, bank = make("open_clip").double(), double(cheap(6))
        found = CLIP([bank], 6, temperature=0.25).margins(model, bank)
        with torch.no_grad():
            model.logit_scale.fill_(math.log(4))
        torch.testing.assert_close(found, all_margins(model, bank, bank), rtol=1e-9, atol=1e-10)

    def test_a_rerun_gives_the_same_bits(self, tmp_path):
        model, train = make("open_clip"), [cheap(10)]
        found = [
            trak.attribute(
                model, CLIP(train, 6), model.state_dict(), train, train, tmp_path / name, progress=False
            ).scores
            for name in "ab"
        ]
        assert np.array_equal(*found)


@pytest.mark.parametrize("bias", [-300.0, 0.0, 300.0])
@pytest.mark.parametrize("name", ["CLIPModel", "SiglipModel"])
def test_confident_models_have_finite_outputs_and_gradients(name, bias):
    model, bank = make(name), data(name, 12)
    with torch.no_grad():
        model.logit_scale.fill_(4.6)
        if hasattr(model, "logit_bias"):
            model.logit_bias.fill_(bias / 3)
    task = CLIP([bank], 12)
    f = task.output(model, bank)
    gradients = torch.autograd.grad(f.sum(), list(model.parameters()), allow_unused=True)
    assert torch.isfinite(f).all()
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)
    assert all(torch.isfinite(t).all() for t in task.weights(model, bank, f))


def without_caption(count, row):
    batch = pairs(count)
    batch["attention_mask"][row] = 0
    return batch


@pytest.mark.parametrize(
    ("bank", "message"),
    [
        ([cheap(5)], "holds 5 different examples, and the simulated batch has 6"),
        ([cheap(4), cheap(4)], "holds 4 different examples"),
        ([], "holds 0 different"),
        (cheap(9), r"yields Tensor.*bank=\[batch\]"),
        ({"images": cheap(9)[0]}, r"yields str.*bank=\[batch\]"),
        ([cheap(9)[:1]], r"in the bank: .*got tuple of 1"),
        ([(cheap(9)[0], cheap(8)[1])], "in the bank: there are 9 images for 8 captions"),
        ([(cheap(9)[0], ["a dog"] * 9)], "captions as a tensor, got list; tokenize"),
        ([cheap(9)[::-1]], r"token ids of shape \(B, length\), got torch.float32 of shape \(9, 3, 8, 8\)"),
        ([(*cheap(9), torch.arange(9))], r"attention_mask of the captions' shape \(9, 9\), got \(9,\)"),
        (
            [{"images": cheap(9)[0], "labels": cheap(9)[1]}],
            "no captions: expected one of input_ids.*got images, labels",
        ),
        ([cheap(9), (cheap(9)[0].double(), cheap(9)[1])], "give all of its examples one form"),
        ([without_caption(9, 4)], "in the bank: the caption in row 4 of a batch is empty"),
    ],
)
def test_a_bank_that_cannot_be_is_refused_in_plain_words(bank, message):
    with pytest.raises(ValueError, match=message):
        CLIP(bank, batch_size=6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 1}, "batch_size must be an integer, at least 2, got 1"),
        ({"batch_size": 2.5}, "got 2.5"),
        ({"temperature": 0}, "temperature must be positive.*got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CLIP([cheap(9)], **arguments)


@pytest.mark.parametrize(
    ("name", "bank", "batch", "message"),
    [
        ("CLIPModel", pairs(9), pairs(3, length=13), "captions have 13 tokens, and the model .CLIPModel. takes 12"),
        ("CLIPModel", pairs(9, length=13), pairs(3), "captions have 13 tokens"),
        ("open_clip", cheap(9), pairs(3), "batch has .*with an attention_mask, and the bank has .*9 tokens without"),
        ("open_clip", cheap(9), (cheap(3)[0].double(), cheap(3)[1]), r"batch has .*float64.*bank has .*float32"),
        ("open_clip", cheap(9), (cheap(3)[0][:, :2], cheap(3)[1]), r"shape \(2, 8, 8\).*shape \(3, 8, 8\)"),
        ("open_clip", cheap(9), (cheap(3)[0], cheap(3)[1][:, :8]), "captions of 8 tokens .*captions of 9 tokens"),
        ("open_clip", cheap(9), (cheap(3)[0], cheap(2)[1]), "3 images for 2 captions"),
        ("open_clip", cheap(9), cheap(3)[0], "a batch of image-text pairs is .* got Tensor"),
        ("CLIPModel", pairs(9), without_caption(3, 1), "caption in row 1 of the batch is empty"),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_is_refused_in_plain_words(name, bank, batch, message):
    task, model = CLIP([bank], 6), make(name)

    def use():
        task.prepare(model)
        task.check(model, batch)

    with pytest.raises(ValueError, match=message):
        use()


def test_an_empty_caption_beyond_the_first_batch_stops_the_run(tmp_path):
    train = [pairs(6), without_caption(6, 2)]
    with pytest.raises(ValueError, match="caption in row 2 of the batch is empty"):
        trak.attribute(
            make("CLIPModel"), CLIP(train[:1], 6), make("CLIPModel").state_dict(), train, train[:1], tmp_path,
            proj_dim=8, progress=False,
        )  # fmt: skip


class NoFeatures(nn.Module):
    def __init__(self, found):
        super().__init__()
        self.weight, self.found = nn.Parameter(torch.ones(1)), found

    def forward(self, images, tokens):
        return self.found


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(3, 3),
        NoFeatures(torch.zeros(6, 2)),
        NoFeatures((torch.zeros(6, 2), torch.zeros(6, 2))),
        NoFeatures({"image_features": torch.zeros(6, 2), "text_features": torch.zeros(6, 2)}),
        NoFeatures((torch.zeros(6, 2), torch.zeros(6, 3), torch.ones(()))),
    ],
)
def test_a_model_of_neither_interface_is_refused_by_name(model):
    with pytest.raises(TypeError, match=f"{type(model).__name__} has the interface neither of transformers"):
        CLIP([cheap(6)], 6).prepare(model)


def test_a_model_without_a_scale_needs_a_temperature():
    model = make("open_clip")
    model.logit_scale = None
    with pytest.raises(TypeError, match="OpenClip has no logit_scale; give the task a temperature"):
        CLIP([cheap(6)], 6).output(model, cheap(3))
    assert CLIP([cheap(6)], 6, temperature=1).output(model, cheap(3)).shape == (3,)


def test_without_a_bank_the_error_says_what_to_write(tmp_path):
    model, said = make("open_clip"), r"task=trak\.tasks\.CLIP\(bank=train_loader, batch_size=300\)"
    for use in (
        lambda: trak.TRAKer(model, "clip", 10, tmp_path),
        lambda: trak.TRAKer(model, CLIPModelOutput(), 10, tmp_path),
        lambda: make_task("clip").prepare(model),
        lambda: make_task(CLIPModelOutput).output(model, cheap(3)),
    ):
        with pytest.raises(ValueError, match=said):
            use()


class TestPublishedName:
    def test_embeddings_asked_for_beforehand_make_the_same_task(self):
        model, (images, tokens) = make("open_clip"), cheap(12)
        task = TASK_TO_MODELOUT["clip"](temperature=4.0, simulated_batch_size=6)
        loader = DataLoader(TensorDataset(images, tokens), batch_size=5)
        task.get_embeddings(
            model, loader, batch_size=5, embedding_dim=6, size=8, preprocess_fn_img=lambda x: 2 * x,
            preprocess_fn_txt=lambda y: y.flip(1),
        )  # fmt: skip
        same = CLIP([(2 * images[:8], tokens[:8].flip(1))], 6, temperature=0.25)
        batch = (2 * images[:3], tokens[:3].flip(1))
        assert torch.equal(outputs(task, model, batch), outputs(same, model, batch))
        assert make_task(task) is task

    def test_embeddings_on_the_class_are_refused(self):
        with pytest.raises(TypeError, match=r"task = CLIPModelOutput\(\); task\.get_embeddings.*CLIP\(bank=loader\)"):
            CLIPModelOutput.get_embeddings(make("open_clip"), [cheap(9)])

    def test_a_subclass_that_overrides_published_methods_is_refused(self):
        with pytest.raises(TypeError, match=r"Mine overrides get_out_to_loss_grad.*override its output and weights"):

            class Mine(CLIPModelOutput):
                def get_out_to_loss_grad(self, model, weights, buffers, batch):
                    return None
