"""Token classification."""

import torch
from task_contract import CLASSES
from token_tasks import SeveralContract, losses_of, padded, sequences, tagger

from trak.inputs import batches
from trak.tasks import TokenClassification


class TestTokenClassification(SeveralContract):
    make = TokenClassification

    def model(self):
        return tagger()

    def batch(self, count):
        ids, mask = padded(sequences(count))
        labels = [[t % CLASSES for t in row] for row in sequences(count)]
        return ids, torch.zeros_like(ids), mask, padded(labels, value=-100)[0]

    def losses(self, model, batch):
        rows = sequences(batches.size(batch))
        return [losses_of(model(torch.tensor([row])).logits[0], [t % CLASSES for t in row]) for row in rows]
