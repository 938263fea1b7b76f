"""Influence functions against dense linear algebra and leave-one-out retraining, in float64."""

import copy
import math

import numpy as np
import pytest
import torch
from influence_case import (
    CASES,
    Margins,
    agree,
    attributed,
    damped_inverse,
    dense_hessian,
    dense_influence,
    mlp_case,
    own_case,
    softmax_case,
    stacked,
)
from models import bert
from torch import nn

from trak.baselines import EKFAC, InfluenceFunctions
from trak.baselines.curvature import _COPIES
from trak.inputs import batches
from trak.tasks import make_task
from trak.testing import reference


@pytest.mark.parametrize("kind", ["ggn", "exact"])
@pytest.mark.parametrize("name", CASES)
def test_conjugate_gradients_equal_the_dense_inverse(name, kind):
    case, damping = CASES[name](), 0.5
    expected = dense_influence(case, damped_inverse(dense_hessian(case, kind), damping))
    found = attributed(InfluenceFunctions(damping=damping, hessian=kind, tolerance=1e-9), case)
    agree(found, expected)


@pytest.mark.parametrize("kind", ["ggn", "exact"])
@pytest.mark.parametrize("name", CASES)
def test_all_eigenpairs_equal_the_dense_inverse(name, kind):
    case, damping = CASES[name](), 0.5
    expected = dense_influence(case, damped_inverse(dense_hessian(case, kind), damping))
    found = attributed(InfluenceFunctions("arnoldi", damping=damping, hessian=kind, rank=1000), case)
    agree(found, expected)


@pytest.mark.parametrize("name", CASES)
def test_arnoldi_equals_the_inverse_on_the_top_eigenvectors(name):
    case, damping, rank = CASES[name](), 0.01, 3
    values, vectors = torch.linalg.eigh(dense_hessian(case, "ggn"))
    top = vectors[:, -rank:]
    expected = dense_influence(case, top / (values[-rank:] + damping) @ top.T)
    found = attributed(InfluenceFunctions("arnoldi", damping=damping, rank=rank, tolerance=1e-12), case)
    agree(found, expected)


def test_gauss_newton_matrix_of_a_softmax_regression_is_its_hessian():
    case = softmax_case()
    torch.testing.assert_close(dense_hessian(case, "ggn"), dense_hessian(case, "exact"))
    found = [
        attributed(InfluenceFunctions(damping=0.01, hessian=kind, tolerance=1e-9), case) for kind in ("ggn", "exact")
    ]
    agree(*found)


def test_scores_for_a_ridge_regression_are_what_leaving_one_out_and_retraining_changes():
    torch.manual_seed(0)
    n, decay = 300, 0.1
    x = torch.cat([torch.randn(n, 3), torch.ones(n, 1)], 1).double()
    y = x @ torch.tensor([1.0, -2, 0.5, 0.2]).double() + 0.3 * torch.randn(n).double()

    def trained(weight):
        a = x.T @ (weight[:, None] * x) / n + decay * torch.eye(4).double()
        return torch.linalg.solve(a, x.T @ (weight * y) / n)

    everything = torch.ones(n).double()
    theta, model = trained(everything), nn.Linear(4, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(theta[None])
    new = torch.randn(5, 4).double()
    left_out = [everything.clone().index_fill_(0, torch.tensor([i]), 0) for i in range(n)]
    truth = torch.stack([new @ (theta - trained(weight)) for weight in left_out]).numpy()
    targets = [(new, torch.zeros(5).double())]
    found = (
        InfluenceFunctions(damping=decay, tolerance=1e-9)
        .attribute(model, "regression", model.state_dict(), [(x, y)], targets, progress=False)
        .scores
    )
    for t in range(5):
        assert np.corrcoef(found[:, t], truth[:, t])[0, 1] > 0.999
        slope = (found[:, t] @ truth[:, t]) / (found[:, t] @ found[:, t])
        assert 1 < slope < 1.03  # the higher order: an example's leverage, here 4/300 on average


@pytest.mark.parametrize("solver", ["cg", "arnoldi"])
def test_several_groups_of_targets_give_the_same_scores(solver, monkeypatch):
    case, baseline = mlp_case(), InfluenceFunctions(solver, damping=0.5, tolerance=1e-9)
    whole = attributed(baseline, case)
    budget = 3 * _COPIES * 8 * 31  # of 31 parameters: three targets at once
    agree(attributed(InfluenceFunctions(solver, damping=0.5, tolerance=1e-9, memory_budget=budget), case), whole)


def test_without_damping_a_tenth_of_the_mean_eigenvalue_is_taken():
    case = mlp_case()
    hessian = dense_hessian(case, "ggn")
    mean = float(hessian.trace()) / len(hessian)
    found = attributed(InfluenceFunctions(tolerance=1e-9), case)
    low, high = (dense_influence(case, damped_inverse(hessian, factor * mean)) for factor in (0.08, 0.125))
    between = np.linalg.norm(high - low)
    assert np.linalg.norm(found - low) < between
    assert np.linalg.norm(found - high) < between
    np.testing.assert_array_equal(found, attributed(InfluenceFunctions(tolerance=1e-9), case))


def test_only_the_named_parameters_take_part():
    case = mlp_case()
    kept = torch.arange(16, 31)  # of the last layer
    hessian = dense_hessian(case, "ggn")
    inverse = torch.zeros_like(hessian)
    inverse[16:, 16:] = damped_inverse(hessian[kept][:, kept], 0.5)
    found = attributed(InfluenceFunctions(damping=0.5, grad_wrt="2.*", tolerance=1e-9), case)
    agree(found, dense_influence(case, inverse))


def test_tied_parameters_count_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))

    _, task, data = mlp_case()
    case = Tied().double(), task, data
    for kind in ("ggn", "exact"):
        expected = dense_influence(case, damped_inverse(dense_hessian(case, kind), 1.0))
        agree(attributed(InfluenceFunctions(damping=1.0, hessian=kind, tolerance=1e-9), case), expected)


def test_temperature_is_part_of_the_loss():
    model, task, data = softmax_case()
    hot = type(task)(temperature=3.0)
    agree(
        attributed(InfluenceFunctions(damping=0.1, tolerance=1e-9), (model, hot, data)),
        attributed(InfluenceFunctions(damping=0.1, hessian="exact", tolerance=1e-9), (model, hot, data)),
    )


def test_negative_eigenvalues_are_not_passed_over_in_silence():
    case = mlp_case()
    least = float(torch.linalg.eigvalsh(dense_hessian(case, "exact"))[0])
    assert least < -0.001
    with pytest.raises(ValueError, match=r"did not converge: a relative residual of .*hessian='ggn'"):
        attributed(InfluenceFunctions(damping=1e-6, hessian="exact", max_iterations=40), case)
    with pytest.warns(UserWarning, match="negative eigenvalues are left out"):
        attributed(InfluenceFunctions("arnoldi", damping=-least / 2, hessian="exact", rank=31), case)


def test_a_loss_without_positive_curvature_is_refused():
    class Concave(Margins):
        def loss(self, output):
            return -output.square()

    _, _, data = own_case()
    case = nn.Linear(3, 1).double(), Concave(), data
    with pytest.raises(ValueError, match=r"mean eigenvalue is -.*: give damping, or use hessian='ggn'"):
        attributed(InfluenceFunctions(hessian="exact"), case)
    with pytest.raises(ValueError, match=r"no damped eigenvalue is positive, the largest is .*; use a larger damping"):
        attributed(InfluenceFunctions("arnoldi", damping=1e-3, hessian="exact"), case)


def test_errors_of_the_model_itself_are_passed_on():
    class Breaks(nn.Linear):
        def forward(self, x):
            if not torch.is_grad_enabled():
                raise RuntimeError("out of patience")
            return super().forward(x)

    _, task, data = softmax_case()
    with pytest.raises(RuntimeError, match="out of patience"):
        attributed(InfluenceFunctions(damping=0.1), (Breaks(3, 4).double(), task, data))


def test_too_few_iterations_are_noticed():
    with pytest.warns(UserWarning, match=r"reached a relative residual of .*more max_iterations"):
        attributed(InfluenceFunctions(damping=0.1, max_iterations=6, tolerance=1e-8), mlp_case())


def test_a_transformer_as_it_comes_from_its_library():
    model, task, data = bert()
    model.double()
    settings = {"damping": 0.1, "grad_wrt": ["classifier.*", "*.attention.self.value.weight"], "tolerance": 1e-8}
    found = InfluenceFunctions(**settings).attribute(model, task, model.state_dict(), data, data, progress=False)
    names = [n for n, _ in model.named_parameters() if n.startswith("classifier") or "self.value.weight" in n]
    task, batch, model = make_task(task), data[0], model.eval()
    own, rows, p = dict(model.named_parameters()), [], []
    for i in range(5):
        logits = task.logits_and_labels(model, batches.take(batch, i, i + 1))[0][0]
        grads = [torch.autograd.grad(logit, [own[n] for n in names], retain_graph=True) for logit in logits]
        rows.append(torch.stack([torch.cat([g.flatten() for g in each]) for each in grads]))
        p.append(logits.detach().softmax(0))
    jacobian, p = torch.stack(rows), torch.stack(p)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    hessian = torch.einsum("ncp,ncd,ndq->pq", jacobian, curvature, jacobian) / 5
    grads = reference.gradients(model, task, batch, names)
    phi = torch.cat([grads[n].flatten(1) for n in names], 1)
    q = task.weights(model, batch, task.output(model, batch))[0].detach()
    expected = q[:, None] * (phi @ damped_inverse(hessian, 0.1) @ phi.T) / 5
    agree(found.scores, expected.numpy(), 1e-4)


class Reading(nn.Module):
    """Classifies series by the mean of a recurrent layer's outputs."""

    def __init__(self, kind, packed=False, **options):
        super().__init__()
        torch.manual_seed(0)
        self.packed, self.recurrent = packed, kind(2, 3, batch_first=True, **options)
        self.head = nn.Linear(3 * (1 + self.recurrent.bidirectional), 3)

    def forward(self, x):
        if self.packed:
            lengths = torch.arange(len(x)) % x.shape[1] + 1
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output = self.recurrent(x)[0]
        if self.packed:
            output, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=True)
        return self.head(output.mean(1))


def series(dtype):
    torch.manual_seed(1)
    x, y = torch.randn(8, 4, 2).to(dtype), torch.randint(3, (8,))
    return list(zip(x.split(3), y.split(3), strict=True))


def looped_influence(model, data, hessian, damping):
    """q_i ∇f_tᵀ (H + λI)⁻¹ ∇f_i / n, every derivative by autograd, of one example at a time, in float64."""
    model = copy.deepcopy(model).double().eval()
    weights = list(model.parameters())

    def flat(value, **options):
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, weights, retain_graph=True, **options)])

    total, grads, q = 0, [], []
    x, y = stacked(data)
    for i in range(len(x)):
        logits = model(x[i : i + 1].double())[0]
        p = logits.softmax(0)
        grads.append(flat(torch.log(p[y[i]] / (1 - p[y[i]]))))
        q.append(1 - p[y[i]].detach())
        if hessian == "ggn":
            jacobian, p = torch.stack([flat(logit) for logit in logits]), p.detach()
            total += jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
        else:
            total += torch.stack([flat(each) for each in flat(-torch.log(p[y[i]]), create_graph=True)])
    grads, q = torch.stack(grads), torch.stack(q)
    return (q[:, None] * (grads @ damped_inverse(total / len(x), damping) @ grads.T) / len(x)).numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind, options", [(nn.GRU, {"bidirectional": True}), (nn.LSTM, {}), (nn.RNN, {})])
@pytest.mark.parametrize("settings", [
    {}, {"hessian": "exact"}, {"engine": "loop"}, {"solver": "arnoldi", "rank": 1000},
    {"solver": "arnoldi", "rank": 1000, "hessian": "exact"},
], ids=str)  # fmt: skip
def test_recurrent_layers_have_the_influence_of_a_loop_over_examples(kind, options, dtype, settings):
    model, data = Reading(kind, **options).to(dtype), series(dtype)
    baseline = InfluenceFunctions(damping=0.5, tolerance=1e-6, **settings)
    found = baseline.attribute(model, "classification", model.state_dict(), data, data, progress=False).scores
    agree(found, looped_influence(model, data, settings.get("hessian", "ggn"), 0.5))
    assert "forward" not in vars(model.recurrent)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_a_model_that_packs_sequences_is_refused_with_what_to_do(kind):
    model, data = Reading(kind, packed=True), series(torch.float32)[:1]
    with pytest.raises(ValueError, match=r"can't differentiate the model twice.*; use EKFAC or, .* leave them padded"):
        InfluenceFunctions().attribute(model, "classification", model.state_dict(), data, data, progress=False)


class Opaque(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(3, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(Opaque.apply(self.inner(x[:, 0])))


def test_a_model_that_has_no_forward_derivative_is_refused_with_the_reason():
    torch.manual_seed(0)
    data = [(torch.randn(6, 4, 3), torch.randint(3, (6,)))]
    model, baseline = Fused(), InfluenceFunctions(damping=0.1, engine="loop")
    with pytest.raises(ValueError, match=r"can't differentiate the model twice.*; use EKFAC"):
        baseline.attribute(model, "image_classification", model.state_dict(), data, data, progress=False)


def test_a_task_that_says_no_loss_is_refused():
    class Published:
        @staticmethod
        def get_output(model, weights, buffers, image, label):
            return model(image[None])[0, label]

        @staticmethod
        def get_out_to_loss_grad(model, weights, buffers, batch):
            return torch.ones(len(batch[0]))

    model, _, data = softmax_case()
    with pytest.raises(ValueError, match="not what the loss is; write a"):
        InfluenceFunctions().attribute(model, Published, model.state_dict(), data, data)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: InfluenceFunctions("lissa"), "unknown solver 'lissa': use one of arnoldi, cg"),
        (lambda: InfluenceFunctions(hessian="exakt"), r"unknown hessian 'exakt': did you mean 'exact'\?"),
        (lambda: InfluenceFunctions(damping=-1), "damping must be 0 or more and finite, .* got -1"),
        (lambda: InfluenceFunctions(rank=0), "rank must be an integer of 1 or more, got 0"),
        (lambda: InfluenceFunctions(tolerance=0), "tolerance must be between 0 and 1, got 0"),
        (lambda: EKFAC(damping=math.nan), "damping must be 0 or more and finite, .* got nan"),
        (lambda: EKFAC(fisher="type2"), r"unknown fisher 'type2': did you mean 'type-2'\?"),
        (lambda: EKFAC(sharing="expnd"), r"unknown sharing 'expnd': did you mean 'expand'\?"),
    ],
)
def test_settings_that_can_not_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
