"""Small models with their influence functions by dense linear algebra, in float64."""

import numpy as np
import torch
from torch import nn

from trak.inputs import batches
from trak.tasks import Task, make_task

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
