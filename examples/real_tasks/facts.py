"""Facts learnt from sentences with a blank to fill in, by a small GPT-2."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from real_tasks.base import RealTask, Trainer, TrainingSpec
from real_tasks.corpus import Corpus, corpus
from trak.inputs.fields import IGNORED
from trak.tasks import LanguageModeling

PADDING, ANSWER, WORDS = 0, 1, 2
"""Ids: nothing, the token between a sentence and its answer, and the first word."""


def facts() -> RealTask:
    """What fills the blank in a question about a country's capital or a thing's kind, learnt from other wordings.

    By a GPT-2 of two layers of 64 (94,144 parameters) that reads a sentence and then says its answer; each name is one
    word.
    """
    return _task("facts", _answers)


def sentences() -> RealTask:
    """The same sentences and questions, word by word from the first to the answer, by the same model."""
    return _task("sentences", _every_word, LanguageModeling("cross_entropy"))


def _task(
    name: str, load: Callable[[int, int], tuple[dict[str, Tensor], Tensor]], measured: LanguageModeling | None = None
) -> RealTask:
    size, queries = len(corpus().sentences), len(corpus().queries)
    inputs, labels = load(size, queries)

    def batches(some: slice, labels: Tensor) -> list[Any]:
        columns = zip(*(t[some].split(100) for t in inputs.values()), labels.split(100), strict=True)
        return [dict(zip((*inputs, "labels"), parts, strict=True)) for parts in columns]

    head, tail = slice(0, size), slice(size, None)
    texts = [s.text for s in corpus().sentences], [s.text for s in corpus().queries]
    return RealTask(
        name, "language_modeling", Trainer(name, size, queries), labels[head], labels[tail],
        lambda labels: batches(head, labels), batches(tail, labels[tail]), "transformer.ln_f", texts, measured,
    )  # fmt: skip


def stated(corpus: Corpus) -> Tensor:
    """Which sentences say outright what a query asks for, bool (sentences, queries)."""
    wanted = [query.states for query in corpus.queries]
    return torch.tensor([[bool(sentence.states & fact) for fact in wanted] for sentence in corpus.sentences])


@cache
def _every_word(train_size: int, targets: int) -> tuple[dict[str, Tensor], Tensor]:
    """The same inputs, and labels that are every word and answer after the first word."""
    inputs, _ = _answers(train_size, targets)
    ids = inputs["input_ids"]
    labels = ids.masked_fill((ids == PADDING) | (ids == ANSWER), IGNORED)
    labels[:, 0] = IGNORED
    return inputs, labels


@cache
def _answers(train_size: int, targets: int) -> tuple[dict[str, Tensor], Tensor]:
    """Ids of words, of ANSWER and of the answer, and labels (N, L) that are the answer's alone."""
    everything = [*corpus().sentences, *corpus().queries]
    number = {word: i + WORDS for i, word in enumerate(_vocabulary())}
    ids = torch.full((len(everything), max(len(s.words) for s in everything) + 2), PADDING)
    labels = torch.full_like(ids, IGNORED)
    for row, label, sentence in zip(ids, labels, everything, strict=True):
        end = len(sentence.words) + 1
        row[: end + 1] = torch.tensor([*(number[w] for w in sentence.words), ANSWER, number[sentence.answer]])
        label[end] = row[end]
    return {"input_ids": ids, "attention_mask": (ids != PADDING).long()}, labels


@cache
def _vocabulary() -> list[str]:
    return sorted({word for s in (*corpus().sentences, *corpus().queries) for word in (*s.words, s.answer)})


def _small_gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(_vocabulary()) + WORDS, n_positions=16, n_embd=64, n_layer=2, n_head=4, n_inner=128,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.1, bos_token_id=PADDING,
        eos_token_id=PADDING,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def _optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=5e-3, weight_decay=0.01, fused=True)


def _loss(model: Any, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
    # The mean cross-entropy of the answers, the other positions' logits left out.
    rows, ends = (labels != IGNORED).nonzero(as_tuple=True)
    hidden = model.transformer(input_ids=inputs["input_ids"][:, : int(ends.max())]).last_hidden_state
    logits = model.lm_head(hidden[rows, ends - 1])
    return nn.functional.cross_entropy(logits, labels[rows, ends])


FACTS = TrainingSpec(_answers, _small_gpt2, _optimizer, _loss, batch_size=32, epochs=15)
SENTENCES = TrainingSpec(_every_word, _small_gpt2, _optimizer, _loss, batch_size=32, epochs=15)
