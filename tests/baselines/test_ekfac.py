"""EK-FAC against dense Kronecker factors, in float64."""

import copy

import numpy as np
import pytest
import torch
from influence_case import (
    CASES,
    N,
    agree,
    attributed,
    damped_inverse,
    dense_hessian,
    dense_influence,
    mlp_case,
    own_case,
    regression_case,
    softmax_case,
    stacked,
)
from models import images, numbers
from torch import nn

from trak.baselines import EKFAC, InfluenceFunctions
from trak.baselines.curvature import _COPIES
from trak.tasks import Regression, make_task


def dense_ekfac(case):
    """The eigenvalue-corrected Kronecker factors of each layer as a dense matrix (George et al., 2018, section 3), by a
    loop over examples, with the columns of a square root of the output's Hessian in place of sampled gradients."""
    model, task, data = case
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    found = {layer: ([], []) for layer in layers}
    x, _ = stacked(data)
    for i in range(N):
        seen = {}

        def see(layer, args, out, seen=seen):
            seen[layer] = args[0], out

        handles = [layer.register_forward_hook(see) for layer in layers]
        prediction = model(x[i : i + 1])
        for handle in handles:
            handle.remove()
        if isinstance(task, Regression):
            root = torch.ones(1, 1).double()
        else:
            p = prediction[0].detach().softmax(0)
            values, vectors = torch.linalg.eigh(torch.diag(p) - torch.outer(p, p))
            root = vectors * values.clamp_min(0).sqrt()
        for layer in layers:
            given, out = seen[layer]
            columns = [torch.autograd.grad(prediction[0] @ column, out, retain_graph=True)[0][0] for column in root.T]
            found[layer][0].append(torch.cat([given[0].detach(), torch.ones(1).double()]))
            found[layer][1].append(torch.stack(columns))
    blocks = []
    for layer in layers:
        a, g = torch.stack(found[layer][0]), torch.stack(found[layer][1])  # (n, in + 1), (n, columns, out)
        q_a = torch.linalg.eigh(a.T @ a / N).eigenvectors
        q_g = torch.linalg.eigh(torch.einsum("nci,ncj->ij", g, g) / N).eigenvectors
        rotated = torch.einsum("nci,nj->ncij", g @ q_g, a @ q_a)
        eigenvalues = rotated.square().sum((0, 1)) / N
        basis = torch.kron(q_g, q_a)  # rows in the order of [weight | bias], row by row
        block = basis @ torch.diag(eigenvalues.flatten()) @ basis.T
        # To the order of the weight, then the bias.
        out, inner = layer.weight.shape
        index = torch.arange(out * (inner + 1)).view(out, inner + 1)
        order = torch.cat([index[:, :inner].flatten(), index[:, inner]])
        blocks.append(block[order][:, order])
    return torch.block_diag(*blocks)


class TestEKFAC:
    """By curvlinops, against its own definition."""

    @pytest.mark.parametrize("name", ["softmax", "mlp", "regression"])
    def test_scores_equal_the_dense_formula(self, name):
        case, damping = CASES[name](), 0.05
        expected = dense_influence(case, damped_inverse(dense_ekfac(case), damping))
        agree(attributed(EKFAC(damping), case), expected)

    def test_for_a_linear_regression_it_is_exact(self):
        case = regression_case()
        torch.testing.assert_close(dense_ekfac(case), dense_hessian(case, "exact"))
        agree(attributed(EKFAC(0.05), case), attributed(InfluenceFunctions(damping=0.05, tolerance=1e-9), case))

    def test_without_damping_a_tenth_of_the_mean_eigenvalue_is_taken(self):
        case = mlp_case()
        matrix = dense_ekfac(case)
        agree(attributed(EKFAC(), case), attributed(EKFAC(0.1 * float(matrix.trace()) / len(matrix)), case))

    def test_labels_drawn_give_nearly_the_same_and_always_the_same_for_one_seed(self):
        case = mlp_case()
        exact, drawn, again, other = (
            attributed(EKFAC(0.5, **settings), case)
            for settings in ({}, {"fisher": "mc"}, {"fisher": "mc"}, {"fisher": "mc", "seed": 1})
        )
        np.testing.assert_array_equal(drawn, again)
        assert not np.allclose(drawn, other)
        assert np.corrcoef(drawn.ravel(), exact.ravel())[0, 1] > 0.95

    def test_several_groups_of_targets_give_the_same_scores(self):
        case = mlp_case()
        agree(attributed(EKFAC(0.1, memory_budget=3 * _COPIES * 8 * 31), case), attributed(EKFAC(0.1), case))

    def test_what_has_no_kronecker_factors_is_left_out_and_named(self):
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm, self.twice, self.tied, self.once = (
                    nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 3)
                )  # fmt: skip
                self.shared = nn.Linear(4, 4)
                self.shared.weight = self.tied.weight
                self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
                self.groups = nn.Conv2d(4, 4, 1, groups=2)

            def forward(self, x):
                x = self.tied(self.twice(self.twice(self.norm(x))))
                x = self.attention(x[:, None], x[:, None], x[:, None], need_weights=False)[0][:, 0]
                return self.once(self.groups(x[:, :, None, None])[:, :, 0, 0] + self.shared(x))

        torch.manual_seed(0)
        model, data = Model(), [(torch.randn(6, 4), torch.randint(3, (6,)))]
        arguments = (model, "image_classification", model.state_dict(), data, data)
        with pytest.warns(UserWarning, match=r"leaves out 11 of 14 parameters.*norm.weight, norm.bias") as noted:
            found = EKFAC(0.1).attribute(*arguments, progress=False)
        assert [w.filename for w in noted if "leaves out" in str(w.message)] == [__file__]
        named = EKFAC(0.1, grad_wrt=["once.*", "shared.bias"]).attribute(*arguments, progress=False)
        agree(found.scores, named.scores)
        with pytest.raises(ValueError, match=r"covers none of the 2 parameters, such as 'norm.weight'"):
            EKFAC(grad_wrt="norm.*").attribute(*arguments, progress=False)

    def test_convolutions_take_part(self):
        model, task, data = images()
        del model[1]
        scores = EKFAC(0.1).attribute(model, task, model.state_dict(), data, data, progress=False).scores
        head = EKFAC(0.1, grad_wrt="4.*").attribute(model, task, model.state_dict(), data, data, progress=False).scores
        assert np.abs(scores - head).max() > 0.01 * np.abs(head).max()

    def test_no_hook_stays_when_the_model_stops_halfway(self):
        class Stops(nn.Linear):
            calls = 0

            def forward(self, x):
                type(self).calls += 1
                if self.calls == 3:
                    raise KeyboardInterrupt
                return super().forward(x)

        model, (_, task, data) = Stops(3, 4).double(), softmax_case()
        model.register_forward_hook(lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            attributed(EKFAC(0.1), (model, task, data))
        assert (len(model._forward_hooks), len(model._forward_pre_hooks)) == (1, 0)

    def test_a_singular_matrix_is_refused(self):
        model, _, data = mlp_case()
        with torch.no_grad():
            model[0].weight.zero_()
            model[0].bias.zero_()
        with pytest.raises(ValueError, match="singular with damping=0: use a positive one"):
            attributed(EKFAC(0.0), (model, "image_classification", data))

    def test_other_losses_are_refused_with_the_alternative(self):
        model, task, data = own_case()
        with pytest.raises(ValueError, match="Margins has another output or loss; use InfluenceFunctions"):
            EKFAC().attribute(model, task, model.state_dict(), data, data)

        class Focal(type(make_task("image_classification"))):
            def loss(self, output):
                return (1 - output.sigmoid()) ** 2

        with pytest.raises(ValueError, match="Focal has another output or loss"):
            EKFAC().attribute(model, Focal(), model.state_dict(), data, data)


def test_batch_normalization_stays_in_evaluation_mode():
    model, task, data = images()
    before = copy.deepcopy(model.state_dict())
    for baseline in (InfluenceFunctions(damping=1.0), EKFAC(1.0, grad_wrt="5.*")):
        baseline.attribute(model, task, before, data, data[:1], progress=False)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_regression_on_several_inputs_by_dicts():
    model, task, data = numbers()
    dicts = [{"x": x, "y": y} for x, y in data]
    found = [
        EKFAC(0.1, grad_wrt="3.*").attribute(model, task, model.state_dict(), d, d, progress=False).scores
        for d in (data, dicts)
    ]
    np.testing.assert_array_equal(*found)
