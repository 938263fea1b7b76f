"""Similarity of features that layers compute by hand."""

import numpy as np
import pytest
import torch
from models import bert, images, numbers, sequences, texts
from torch import nn

from trak.baselines import RepresentationSimilarity
from trak.baselines.representations import LayerFeatures


def attributed(baseline, case, targets=2):
    model, task, data = case
    return baseline.attribute(model, task, model.state_dict(), data, data[:targets], progress=False).scores


class TestRepresentationSimilarity:
    """Features by running the layers by hand."""

    @pytest.fixture
    def features(self):
        model, _, data = images()
        with torch.no_grad():
            return model.eval()[:5](torch.cat([b[0] for b in data])).double()

    @pytest.mark.parametrize("where", [("4", "output"), ("5", "input")])
    def test_dot_and_cosine_of_the_features(self, features, where):
        layer, of = where
        found = attributed(RepresentationSimilarity(layer, "dot", features_from=of), images())
        np.testing.assert_allclose(found, (features @ features[:16].T).numpy(), rtol=1e-5, atol=1e-6)
        found = attributed(RepresentationSimilarity(layer, features_from=of), images())
        expected = torch.nn.functional.cosine_similarity(features[:, None], features[None, :16], dim=2)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)

    def test_features_of_images_are_flattened_or_averaged_over_positions(self):
        model, _, data = images()
        with torch.no_grad():
            maps = model.eval()[0](torch.cat([b[0] for b in data]))
        for pool, h in ((None, maps.flatten(1)), ((2, 3), maps.mean((2, 3)))):
            found = attributed(RepresentationSimilarity("0", "dot", pool=pool), images())
            np.testing.assert_allclose(found, (h @ h[:16].T).numpy(), rtol=1e-4, atol=1e-5)

    def test_average_over_tokens_leaves_out_those_that_the_mask_leaves_out(self):
        model, _, data = texts()
        ids, mask = (torch.cat([b[k] for b in data]) for k in ("input_ids", "attention_mask"))
        with torch.no_grad():
            h = model.embedding(ids)
        h = torch.stack([row[m.bool()].mean(0) for row, m in zip(h, mask, strict=True)])
        found = attributed(RepresentationSimilarity("embedding", "dot", pool=1), texts())
        np.testing.assert_allclose(found, (h @ h[:16].T).numpy(), rtol=1e-4, atol=1e-5)

    def test_batches_padded_to_several_lengths_need_an_average(self):
        model, task, data = texts()
        short = [{k: v[:, :5] if v.ndim == 2 else v for k, v in b.items()} for b in data]
        case = model, task, [data[0], *short[1:]]
        assert attributed(RepresentationSimilarity("embedding", pool=1), case).shape == (23, 16)
        with pytest.raises(ValueError, match=r"30 numbers an example, others 42: inputs of several lengths; average"):
            attributed(RepresentationSimilarity("embedding"), case)

    def test_first_tensor_of_what_a_layer_returns_is_taken(self):
        model, _, data = sequences()
        with torch.no_grad():
            h = model.lstm(data[0][0])[0].flatten(1)
        found = attributed(RepresentationSimilarity("lstm", "dot"), sequences())
        np.testing.assert_allclose(found, (h @ h.T).numpy(), rtol=1e-4, atol=1e-5)

    def test_layers_of_transformers_and_the_model_itself(self):
        case = bert()
        assert attributed(RepresentationSimilarity("bert.encoder", pool=1), case, 1).shape == (5, 5)
        with torch.no_grad():
            logits = case.model.eval()(**case.batches[0]).logits
        found = attributed(RepresentationSimilarity("", "dot", features_from="output"), case, 1)
        np.testing.assert_allclose(found, (logits @ logits.T).numpy(), rtol=1e-4, atol=1e-5)

    def test_tasks_that_run_one_example_after_the_other(self):
        class Published:
            @staticmethod
            def get_output(model, weights, buffers, image, label):
                return torch.func.functional_call(model, (weights, buffers), image[None])[0, label]

            @staticmethod
            def get_out_to_loss_grad(model, weights, buffers, batch):
                return torch.ones(len(batch[0]))

        model, _, data = images()
        np.testing.assert_allclose(
            attributed(RepresentationSimilarity("4"), (model, Published, data)),
            attributed(RepresentationSimilarity("4"), images()),
            rtol=1e-5,
        )

    def test_a_layer_called_twice_has_no_features_of_its_own(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

            def forward(self, x):
                return self.a(torch.tanh(self.a(x)))

        data = [(torch.randn(4, 3), torch.randint(3, (4,)))]
        case = Twice(), "image_classification", data
        with pytest.raises(ValueError, match=r"not one tensor for each of the batch's 4 examples.* in 2 calls"):
            attributed(RepresentationSimilarity("a"), case)
        with pytest.raises(ValueError, match=r"'unused' is not one tensor .*but none in 0 calls"):
            attributed(RepresentationSimilarity("unused"), case)

    def test_unknown_layer_suggests_the_nearest(self):
        with pytest.raises(ValueError, match=r"unknown layer 'haed': did you mean 'head'\?"):
            attributed(RepresentationSimilarity("haed"), texts())

    @pytest.mark.parametrize(
        "make, error, message",
        [
            (lambda: RepresentationSimilarity("0", "cos"), ValueError, "unknown metric 'cos': did you mean 'cosine'"),
            (
                lambda: LayerFeatures("0", "outputs"),
                ValueError,
                "unknown features_from 'outputs': did you mean 'output'",
            ),
            (lambda: LayerFeatures("0", pool=0), ValueError, "pool must be dimensions from 1 on"),
            (lambda: LayerFeatures(3), TypeError, "layer must be the name of a module, got 3"),
        ],
    )
    def test_settings_that_can_not_be_are_refused(self, make, error, message):
        with pytest.raises(error, match=message):
            make()

    def test_a_dimension_that_is_not_there_is_refused(self):
        with pytest.raises(ValueError, match=r"pool=\(2,\), but the output of layer '5' is \(8, 3\)"):
            attributed(RepresentationSimilarity("5", pool=2), images())

    def test_features_that_are_not_finite_are_refused(self):
        model, task, data = numbers()
        data[1][0][2, 1] = torch.nan
        with pytest.raises(ValueError, match=r"features of example 10, targets, checkpoint 0, layer '3', are not fini"):
            attributed(RepresentationSimilarity("3"), (model, task, data))
