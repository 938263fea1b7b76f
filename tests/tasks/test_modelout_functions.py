"""The task names of traker 0.3.2."""

import pytest
import torch
from clip_models import cheap, make, outputs
from task_contract import PublishedContract, bert, labels, log_odds, tokens
from torch.utils.data import DataLoader, TensorDataset

from trak.modelout_functions import (
    TASK_TO_MODELOUT,
    CLIPModelOutput,
    IterativeImageClassificationModelOutput,
    TextClassificationModelOutput,
)
from trak.tasks import (
    CLIP,
    make_task,
)


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
