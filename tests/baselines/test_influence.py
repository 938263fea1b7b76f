"""Influence functions against dense linear algebra and leave-one-out retraining, in float64."""

import copy
import math

import numpy as np
import pytest
import torch
from models import bert, images, numbers
from torch import nn

from trak.baselines import EKFAC, InfluenceFunctions
from trak.baselines.curvature import _COPIES
from trak.inputs import batches
from trak.tasks import Regression, Task, make_task
from trak.testing import reference

N, M = 18, 7


def softmax_case(seed=0):
    """A softmax regression with four classes."""
    torch.manual_seed(seed)
    model = nn.Linear(3, 4).double()
    x, y = torch.randn(N, 3).double(), torch.randint(4, (N,))
    return model, make_task("image_classification"), list(zip(x.split(5), y.split(5), strict=True))


def mlp_case(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, y = torch.randn(N, 3).double(), torch.randint(3, (N,))
    return model, make_task("image_classification"), list(zip(x.split(5), y.split(5), strict=True))


def regression_case(seed=0):
    torch.manual_seed(seed)
    model = nn.Linear(3, 1).double()
    x = torch.randn(N, 3).double()
    y = x @ torch.tensor([1.0, -2, 0.5]).double() + 0.3 * torch.randn(N).double()
    return model, make_task("regression"), list(zip(x.split(5), y.split(5), strict=True))


class Margins(Task):
    """A task of one's own: how far a number is above a threshold, under a loss of its own."""

    def output(self, model, batch):
        return model(batch["x"]).squeeze(-1) - batch["threshold"]

    def loss(self, output):
        return torch.log(torch.cosh(output))


def own_case(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x, threshold = torch.randn(N, 3).double(), torch.rand(N).double()
    pairs = zip(x.split(5), threshold.split(5), strict=True)
    return model, Margins(), [{"x": x, "threshold": threshold} for x, threshold in pairs]


def targets_of(data):
    return [data[0], batches.take(data[1], 0, 2)]


def attributed(baseline, case, checkpoints=None):
    model, task, data = case
    state = model.state_dict() if checkpoints is None else checkpoints
    return baseline.attribute(model, task, state, data, targets_of(data), progress=False).scores


def flat_function(case, of):
    """Flat parameters, and `of(model, batch)` for the whole training set as a function of them."""
    model, _, data = case
    whole = data[0] if len(data) == 1 else stacked(data)
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    theta = torch.cat([p.detach().flatten() for p in model.parameters()])

    def function(theta):
        parts = theta.split([s.numel() for s in shapes])
        state = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}

        class Called(nn.Module):
            def forward(self, *args):
                return torch.func.functional_call(model, state, args)

        return of(Called(), whole)

    return theta, function


def stacked(data):
    if isinstance(data[0], dict):
        return {k: torch.cat([b[k] for b in data]) for k in data[0]}
    return tuple(torch.cat(t) for t in zip(*data, strict=True))


def dense_hessian(case, kind):
    _, task, _ = case
    if kind == "exact":
        theta, loss = flat_function(case, lambda model, batch: task.loss(task.output(model, batch)).mean())
        return torch.autograd.functional.hessian(loss, theta)
    if hasattr(task, "logits_and_labels"):
        theta, logits = flat_function(case, lambda model, batch: model(batch[0]))
        jacobian, p = torch.autograd.functional.jacobian(logits, theta), logits(theta).softmax(-1)
        curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    else:
        theta, f = flat_function(case, lambda model, batch: task.output(model, batch)[:, None])
        jacobian = torch.autograd.functional.jacobian(f, theta)
        curvature = task.weights(None, None, f(theta)[:, 0])[1][:, None, None]
    return torch.einsum("ncp,ncd,ndq->pq", jacobian, curvature, jacobian) / len(jacobian)


def dense_influence(case, inverse):
    """-∇f_tᵀ inverse ∇ℓ_i / n."""
    _, task, _ = case
    theta, losses = flat_function(case, lambda model, batch: task.loss(task.output(model, batch)))
    _, outputs = flat_function(case, task.output)
    jacobian = torch.autograd.functional.jacobian
    return (-jacobian(losses, theta) @ inverse @ jacobian(outputs, theta)[:M].T / N).numpy()


def damped_inverse(hessian, damping):
    return torch.linalg.inv(hessian + damping * torch.eye(len(hessian), dtype=hessian.dtype))


def agree(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


CASES = {"softmax": softmax_case, "mlp": mlp_case, "regression": regression_case, "own": own_case}


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
        (lambda: InfluenceFunctions(rank=0), "rank must be an integer, at least 1, got 0"),
        (lambda: InfluenceFunctions(tolerance=0), "tolerance must be between 0 and 1, got 0"),
        (lambda: EKFAC(damping=math.nan), "damping must be 0 or more and finite, .* got nan"),
        (lambda: EKFAC(fisher="type2"), r"unknown fisher 'type2': did you mean 'type-2'\?"),
        (lambda: EKFAC(sharing="expnd"), r"unknown sharing 'expnd': did you mean 'expand'\?"),
    ],
)
def test_settings_that_can_not_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


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
        assert noted[0].filename == __file__
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
