"""The bank of negatives and its embeddings."""

import copy
import pickle
from collections import Counter

import pytest
import torch
from clip_models import (
    SIZE,
    OpenClip,
    all_margins,
    cheap,
    data,
    embedded,
    make,
    outputs,
    pairs,
    true_margins,
    without_caption,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from trak.gradients import ENGINES, differentiable
from trak.gradients.base import collect
from trak.inputs import batches
from trak.tasks import CLIP
from trak.tasks.image_text import read_image_text_batch
from trak.tasks.negatives import NegativeBank
from trak.testing.reference import double


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
        assert torch.equal(drawn.excluded(read_image_text_batch(bank)), drawn.excluded(read_image_text_batch(padded)))
        assert drawn.excluded(read_image_text_batch(bank)).sum(0).tolist() == [1] * 6

    def test_an_example_with_the_same_image_or_caption_alone_is_a_negative(self):
        images, tokens = cheap(6)
        drawn = NegativeBank([(images, tokens)], 6, 0)
        for other in ((images, tokens.roll(1, 0)), (images.roll(1, 0), tokens)):
            assert not torch.isin(read_image_text_batch(other).hashes(), drawn.hashes).any()

    def test_hashes_tell_apart_what_differs_in_one_number(self):
        images, tokens = cheap(1)
        images = images.repeat(40, 1, 1, 1).flatten(1)
        for i in range(1, 40):
            images[i, i] *= 2 if i % 2 else -1
        found = read_image_text_batch((images.reshape(40, 3, SIZE, SIZE), tokens.repeat(40, 1))).hashes()
        assert len(set(found.tolist())) == 40

    def test_every_example_is_drawn_as_often_as_any_other(self):
        batch = cheap(12)
        hashes, counts = read_image_text_batch(batch).hashes(), Counter()
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
