"""Sequence to sequence."""

import pytest
import torch
from token_tasks import IDS, SeveralContract, bart, losses_of, padded, sequences, t5

from trak.inputs import batches
from trak.tasks import Seq2Seq


class TestSeq2Seq(SeveralContract):
    make = Seq2Seq

    def model(self):
        return bart()  # a T5 computes in float32 here and there

    def answers(self, count):
        return sequences(count, seed=2)

    def batch(self, count):
        ids, mask = padded(sequences(count))
        return ids, mask, padded(self.answers(count), value=-100)[0]

    def losses(self, model, batch):
        pairs = zip(sequences(batches.size(batch)), self.answers(batches.size(batch)), strict=True)
        found = []
        for question, answer in pairs:
            logits = model(input_ids=torch.tensor([question]), decoder_input_ids=torch.tensor([[2, *answer[:-1]]]))
            found.append(losses_of(logits.logits[0], answer))
        return found


@pytest.mark.parametrize("with_model", [True, False])
def test_tokens_of_an_answer_keep_the_tokens_before_them(with_model):
    model, task = t5(), Seq2Seq("cross_entropy", "sum")
    (ids, mask), labels = padded(sequences(3)), padded(sequences(3, seed=2), value=-100)[0]
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if with_model:
        targets = task.token_targets(batch, model)
    else:
        prepared = model.prepare_decoder_input_ids_from_labels(labels=labels)
        targets = task.token_targets({**batch, "decoder_input_ids": prepared})
    parts = task.output(model, targets).split([len(row) for row in sequences(3, seed=2)])
    torch.testing.assert_close(torch.stack([part.sum() for part in parts]), task.output(model, batch))


def test_tokens_of_an_answer_without_what_comes_before_them_are_refused():
    with pytest.raises(ValueError, match="needs decoder_input_ids, and the batch has only"):
        Seq2Seq().token_targets((IDS, IDS))
