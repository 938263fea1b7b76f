"""Text classification."""

import pytest
import torch
from task_contract import ClassificationContract, MeanOfEmbeddings, bert, distilbert, labels, log_odds, tokens
from torch import nn

from trak.tasks import (
    TextClassification,
    make_task,
)


class TestPlainTextModel(ClassificationContract):
    def task(self):
        return make_task("text_classification")

    def model(self):
        return MeanOfEmbeddings().double()

    def batch(self, count):
        return (*tokens(count), labels(count))

    def expected_output(self, model, batch):
        return log_odds(model(batch[0], batch[1]), batch[2])


class TestBertWithTokenTypes(ClassificationContract):
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


class TestBertWithoutTokenTypes(ClassificationContract):
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


def test_text_models_never_get_the_labels():
    class TakesAnything(nn.Module):
        def forward(self, **inputs):
            assert set(inputs) == {"input_ids", "extra"}
            return inputs["input_ids"]

    batch = {"input_ids": torch.eye(3), "extra": torch.zeros(3), "labels": labels(3), "label": labels(3)}
    assert TextClassification().output(TakesAnything(), batch).shape == (3,)
