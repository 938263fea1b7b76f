"""The base of the tasks that predict tokens."""

import numpy as np
import pytest
import torch
from models import Next, sentences
from task_contract import CLASSES, Returns
from token_tasks import IDS, MASK, OUTPUTS, combined, gpt2, losses_of, padded, sequences, t5, tagger
from torch import nn

import trak
from trak.gradients import HooksEngine
from trak.inputs import batches
from trak.tasks import LanguageModeling, MultiLabel, Seq2Seq, TextClassification, TokenClassification


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("task, make", [(LanguageModeling, gpt2), (Seq2Seq, t5), (TokenClassification, tagger)])
def test_a_sequence_all_of_whose_labels_are_masked_is_no_number_and_named(task, make, output, reduction):
    ids, mask = padded(sequences(4))
    labels = ids.masked_fill(mask == 0, -100) % CLASSES if task is TokenClassification else ids.clone()
    labels[2] = -100
    f = task(output, reduction).output(make(), (ids, mask, labels))
    assert f.isfinite().tolist() == [True, True, False, True]
    with pytest.raises(ValueError, match="row 2 of the batch has no token to predict: all of its labels are -100"):
        task(output, reduction).check(make(), (ids, mask, labels))


@pytest.mark.parametrize(
    "task, make, batch, message",
    [
        (LanguageModeling, gpt2, (IDS, MASK * torch.tensor([[1], [1], [0], [1]])), "row 2 of the batch is empty"),
        (TextClassification, tagger, (IDS, MASK * 0, IDS[:, 0]), "row 0 of the batch is empty: its attention_mask"),
        (LanguageModeling, gpt2, (IDS, IDS), r"attention_mask must hold 1 .* got \d+ in row 0 .* pass a dict"),
        (LanguageModeling, gpt2, (IDS, MASK[:, 1:]), r"attention_mask has shape \(4, 5\), but input_ids \(4, 6\)"),
        (LanguageModeling, gpt2, (IDS + 15, MASK), r"token id out of range: \d+ in row 0 .* has 20 \(0 to 19\)"),
        (LanguageModeling, gpt2, (IDS, MASK, IDS + 15), r"label out of range: \d+ in row \d .* 20 classes"),
        (LanguageModeling, gpt2, (IDS, MASK, -MASK), "label out of range: -1 in row 0"),
        (LanguageModeling, gpt2, (IDS, MASK, IDS[:, 0]), r"labels as a tensor .* got shape \(4,\)"),
        (LanguageModeling, gpt2, (IDS, MASK, IDS[:, 1:]), r"labels of shape \(4, 5\), got \(4, 6, 20\)"),
        (LanguageModeling, gpt2, (IDS, MASK, IDS.double()), "integer class indices, got torch.float64"),
        (LanguageModeling, gpt2, {"input_ids": IDS, "labels": [1, 2]}, "labels as a tensor .* got list"),
        (LanguageModeling, gpt2, {"ids": IDS}, "neither input_ids nor labels, got ids"),
        (LanguageModeling, gpt2, (IDS,) * 4, r"language modeling is a dict, or a tuple \(input_ids,\) or"),
        (LanguageModeling, gpt2, IDS[:, :1], "no token to predict: .* -100 beyond the first position"),
        (Seq2Seq, t5, (IDS,), r"seq2seq is a dict, or a tuple \(input_ids, labels\)"),
        (Seq2Seq, t5, {"input_ids": IDS}, "no labels.* got input_ids"),
        (Seq2Seq, Next, (IDS, IDS), "Next can't make decoder_input_ids of labels .*; put them into"),
        (Seq2Seq, lambda: t5(decoder_start_token_id=None), (IDS, IDS), "T5.* can't make .*decoder_start_token_id"),
        (Seq2Seq, t5, (IDS, MASK, IDS + 15), "label out of range"),
        (TokenClassification, tagger, (IDS, MASK, IDS), "label out of range: .* 3 classes"),
        (TokenClassification, tagger, (IDS, MASK, IDS[:, 0]), r"token classification needs labels .* got shape \(4,\)"),
    ],
)  # fmt: skip
def test_check_names_what_is_wrong_with_a_batch_of_tokens(task, make, batch, message):
    with pytest.raises(ValueError, match=message):
        task().check(make(), batch)


@pytest.mark.parametrize("value", [None, {"scores": torch.zeros(2, 3)}, ()])
def test_models_without_logits_are_refused_with_the_type_they_returned(value):
    for task in (LanguageModeling(), TokenClassification(), MultiLabel()):
        with pytest.raises(TypeError, match=f"returned {type(value).__name__} without logits"):
            task.check(Returns(value), {"input_ids": torch.zeros(2, 3, dtype=torch.long), "labels": torch.ones(2, 3)})


def test_one_prediction_for_a_whole_sequence_is_refused_with_its_shape():
    ids = torch.ones(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"logits of shape \(B, length, classes\) .*\(2, 3\), got \(2, 20\)"):
        LanguageModeling().check(Returns(torch.zeros(2, 20)), ids)


@pytest.mark.parametrize("output", OUTPUTS)
def test_each_token_of_a_target_becomes_a_target_of_its_own(output):
    model, (ids, mask) = gpt2(), padded(sequences(3), side="left")
    task = LanguageModeling(output)
    targets = task.token_targets({"input_ids": ids, "attention_mask": mask})
    assert ((targets["labels"] != -100).sum(1) == 1).all()
    expected = []
    for row in sequences(3):
        for loss in losses_of(model(torch.tensor([row])).logits[0, :-1], row[1:]):
            expected.append(combined([loss], output, "mean"))
    np.testing.assert_allclose(task.output(model, targets).detach().numpy(), expected, rtol=1e-8)


def test_scores_of_tokens_add_up_to_the_scores_of_their_sequence(tmp_path):
    model, _, data = sentences(n=12)
    task = LanguageModeling("cross_entropy", "sum")
    settings = {"checkpoints": model.state_dict(), "train": data, "proj_dim": 16, "progress": False}
    whole = trak.attribute(model, task, targets=[data[0]], save_dir=tmp_path / "a", **settings).scores
    tokens = task.token_targets(data[0])
    parts = trak.attribute(model, task, targets=[tokens], save_dir=tmp_path / "b", **settings).scores
    rows = (data[0][1].sum(1) - 1).tolist()
    for j, part in enumerate(np.split(parts, np.cumsum(rows)[:-1], axis=1)):
        np.testing.assert_allclose(part.sum(1), whole[:, j], rtol=1e-4, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_task_keeps_one_copy_of_the_logits_at_labels_and_nothing_of_the_others(output):
    vocabulary, length = 3000, 40
    model, ids = nn.Embedding(vocabulary, vocabulary), torch.arange(length)[None]
    copy = 4 * length * vocabulary
    model.forward = lambda input_ids: nn.functional.embedding(input_ids, model.weight)
    for labelled in (length - 1, 4):
        labels = ids.clone()
        labels[:, : length - labelled] = -100
        batch = {"input_ids": ids, "labels": labels}
        kept = HooksEngine(model, LanguageModeling(output), ["weight"]).activation_bytes(batch)
        assert kept < 1.1 * copy * labelled / length


def test_batches_of_tokens_can_be_divided():
    targets = LanguageModeling().token_targets(padded(sequences(3)))
    assert batches.size(batches.take(targets, 1, 3)) == 2
