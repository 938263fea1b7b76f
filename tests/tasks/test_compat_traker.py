"""Tasks written for traker 0.3.2."""

import numpy as np
import pytest
import torch
from task_contract import PublishedContract

from trak.modelout_functions import (
    AbstractModelOutput,
)
from trak.tasks import (
    make_task,
)


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
