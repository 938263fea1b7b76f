"""The contract of tasks with several predictions an example, and small models of tokens."""

import numpy as np
import pytest
import torch
from task_contract import CLASSES, ClassificationContract
from torch import nn

from trak.tasks import LanguageModeling
from trak.testing.reference import gradients

transformers = pytest.importorskip("transformers")
VOCABULARY, LONGEST = 20, 6
OUTPUTS = ("margin", "mean_margin", "cross_entropy")


def lengths(count):
    return [2 + (5 * i + 3) % (LONGEST - 1) for i in range(count)]


def sequences(count, seed=1):
    """Token ids, one list an example."""
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCABULARY, size).tolist() for size in lengths(count)]


def padded(rows, length=LONGEST, side="right", value=0):
    """The rows as one tensor, and where they are."""
    out = torch.full((len(rows), length), value)
    mask = torch.zeros_like(out)
    for i, row in enumerate(rows):
        at = slice(0, len(row)) if side == "right" else slice(length - len(row), length)
        out[i, at], mask[i, at] = torch.tensor(row), 1
    return out, mask


def combined(losses, output, reduction):
    """f of one example, from the losses -log p of its predictions, by its definition in float64."""
    p = np.exp(-np.asarray(losses))
    count = 1 if reduction == "mean" else len(p)
    if output == "cross_entropy":
        return -count * np.mean(losses)
    if output == "mean_margin":
        return count * np.mean(np.log(p) - np.log1p(-p))
    together = np.exp(np.mean(np.log(p)))
    return count * (np.log(together) - np.log1p(-together))


def losses_of(logits, labels):
    """-log p of each label by a softmax in float64."""
    return nn.functional.cross_entropy(logits.double(), torch.as_tensor(labels), reduction="none").detach().numpy()


class SeveralContract(ClassificationContract):
    """The mean of margins that keeps the loss; subclasses say `losses`, a list of arrays, one an example."""

    kind, reduction = "margin", "mean"
    make = None

    def task(self):
        return self.make(self.kind, self.reduction)

    def losses(self, model, batch):
        raise NotImplementedError

    def counts(self, count):
        return np.array([len(row) for row in self.losses(self.model(), self.batch(count))])

    def expected_output(self, model, batch):
        return np.array([combined(row, self.kind, self.reduction) for row in self.losses(model, batch)])

    def test_the_loss_of_the_output_is_the_mean_cross_entropy(self):
        model, batch = self.model(), self.batch(7)
        task = self.make()
        loss = task.loss(task.output(model, batch)).detach().numpy()
        np.testing.assert_allclose(loss, [row.mean() for row in self.losses(model, batch)], rtol=1e-9)

    def test_q_times_the_gradient_of_the_output_is_minus_that_of_the_mean_cross_entropy(self):
        model, batch, task = self.model(), self.batch(3), self.make()
        q, _ = task.weights(model, batch, task.output(model, batch))
        found, plain = gradients(model, task, batch), gradients(model, self.make("cross_entropy"), batch)
        for name, expected in plain.items():
            weighted = q.reshape(-1, *[1] * (expected.ndim - 1)) * found[name]
            torch.testing.assert_close(weighted, expected, rtol=1e-8, atol=1e-10)


def gpt2(**more):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=1, **more
    )
    return larger(transformers.GPT2LMHeadModel(config))


def t5(decoder_start_token_id=0):
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
        decoder_start_token_id=decoder_start_token_id,
    )  # fmt: skip
    return larger(transformers.T5ForConditionalGeneration(config))


def bart():
    torch.manual_seed(0)
    config = transformers.BartConfig(
        vocab_size=VOCABULARY, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=16,
    )  # fmt: skip
    return larger(transformers.BartForConditionalGeneration(config))


def tagger():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=16, num_labels=CLASSES,
    )  # fmt: skip
    return larger(transformers.BertForTokenClassification(config))


def larger(model):
    """Weights larger than at the start, so that predictions differ."""
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.5)
    return model.double().eval()


def lm_output(batch, model=None, **settings):
    return LanguageModeling(**settings).output(model or gpt2(), batch)


IDS, MASK = padded(sequences(4))
