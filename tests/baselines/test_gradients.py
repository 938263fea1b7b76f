"""Inner products of gradients against loops of torch.autograd.grad, in float64."""

import copy

import numpy as np
import pytest
import torch
from models import TASK_CASES, images, numbers, states, texts

from trak.baselines import GradientCosine, GradientDot, TracIn
from trak.baselines.gradient_features import Directions
from trak.inputs import batches
from trak.projectors import OuterProducts, Sketch, SparseRows, make_projector
from trak.tasks import Task, make_task
from trak.testing import reference


def double_case(name):
    model, task, data = TASK_CASES[name]()
    return model.double(), make_task(task), [reference.double(b) for b in data]


def attributed(baseline, case, checkpoints=None):
    model, task, data = case
    state = model.state_dict() if checkpoints is None else checkpoints
    return baseline.attribute(model, task, state, data, data[:2], progress=False).scores


def gradients_of_losses_and_outputs(model, task, data):
    """∇ℓ_i and ∇f_i as rows, (n, p) each: a loop, without Q."""
    model = copy.deepcopy(model).eval()
    losses, outputs = [], []
    for batch in data:
        for i in range(batches.size(batch)):
            one = batches.take(batch, i, i + 1)
            f = task.output(model, one)
            for value, rows in ((task.loss(f), losses), (f, outputs)):
                grads = torch.autograd.grad(value.sum(), list(model.parameters()), retain_graph=True)
                rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(losses), torch.stack(outputs)


@pytest.mark.parametrize("name", TASK_CASES)
def test_exact_dot_product_is_the_fall_of_the_loss_of_i_along_the_gradient_of_the_target(name):
    model, task, data = case = double_case(name)
    losses, outputs = gradients_of_losses_and_outputs(model, task, data)
    found = attributed(GradientDot(projector="identity"), case)
    np.testing.assert_allclose(found, -(losses @ outputs[:16].T).numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", TASK_CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_exact_cosine_has_the_sign_of_q_or_its_size(name, weighted):
    model, task, data = case = double_case(name)
    losses, outputs = gradients_of_losses_and_outputs(model, task, data)
    cosine = torch.nn.functional.cosine_similarity
    if weighted:
        q = torch.cat([task.weights(model, b, task.output(copy.deepcopy(model).eval(), b))[0] for b in data])
        expected = q[:, None] * cosine(outputs[:, None], outputs[None, :16], dim=2)
    else:
        expected = cosine(-losses[:, None], outputs[None, :16], dim=2)
    found = attributed(GradientCosine(weighted=weighted, projector="identity"), case)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-6, atol=1e-6)


def test_cosine_of_a_gradient_that_is_zero_is_zero():
    class Dead(Task):
        def output(self, model, batch):
            return model(batch[0]).squeeze(-1) * batch[1]

    model, _, data = numbers()
    x, alive = data[0][0], torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 1])
    found = GradientCosine().attribute(model, Dead(), model.state_dict(), [(x, alive)], [(x, alive)], progress=False)
    assert (found.scores[0] == 0).all()
    assert (found.scores[:, 0] == 0).all()
    np.testing.assert_allclose(np.abs(np.diag(found.scores))[1:], 1, rtol=1e-5)


def test_tracin_is_the_sum_over_checkpoints_of_the_learning_rate_times_the_product():
    model, task, data = case = double_case("images")
    several, rates, expected = states(model, 3), [0.5, 0.0, 0.01], 0
    for state, rate in zip(several, rates, strict=True):
        exact = copy.deepcopy(model)
        exact.load_state_dict(state)
        losses, outputs = gradients_of_losses_and_outputs(exact, task, data)
        expected = expected - rate * (losses @ outputs[:16].T).numpy()
    np.testing.assert_allclose(
        attributed(TracIn(rates, projector="identity"), case, several), expected, rtol=1e-6, atol=1e-6
    )


def test_a_step_of_sgd_on_an_example_moves_the_outputs_by_the_score_times_the_learning_rate():
    model, task, data = case = double_case("images")
    scores, rate = attributed(TracIn([1e-6], projector="identity"), case), 1e-6
    model.eval()
    for i in (0, 5, 11):
        batch = batches.take(data[i // 8], i % 8, i % 8 + 1)
        trained = copy.deepcopy(model)
        task.loss(task.output(trained, batch)).sum().backward()
        with torch.no_grad():
            for p in trained.parameters():
                p -= rate * p.grad
            moved = torch.cat([task.output(trained, b) - task.output(model, b) for b in data[:2]])
        np.testing.assert_allclose(scores[i], moved.numpy(), rtol=1e-3, atol=1e-3 * np.abs(scores[i]).max())


@pytest.mark.parametrize("projector", ["sketch", "rademacher", "gaussian"])
def test_projected_products_are_those_of_the_projected_gradients_of_each_checkpoint(projector):
    model, task, data = images()
    task, several, expected = make_task(task), states(model, 2), []
    for model_id, state in enumerate(several):
        exact = copy.deepcopy(model)
        exact.load_state_dict(state)
        made = make_projector(projector, 32, 5)
        phi = np.concatenate([reference.features(exact, task, b, made, model_id) for b in data])
        with torch.no_grad():
            q = np.concatenate([task.weights(exact, b, task.output(exact.eval(), b))[0].numpy() for b in data])
        expected.append(q[:, None] * (phi @ phi[:16].T))
    baseline = GradientDot(projector=projector, proj_dim=32, seed=5)
    found = attributed(baseline, (model, task, data), several)
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_wide_sketch_is_near_the_exact_products():
    exact = attributed(GradientDot(projector="identity"), images())
    near = attributed(GradientDot(proj_dim=20_000), images())
    assert np.corrcoef(exact.ravel(), near.ravel())[0, 1] > 0.99


def test_a_projector_of_ones_own_is_used_and_described():
    baseline = GradientDot(projector=Sketch(24, seed=9))
    np.testing.assert_array_equal(
        attributed(baseline, images()), attributed(GradientDot(proj_dim=24, seed=9), images())
    )
    assert baseline.describe()["settings"]["projector"] == {"kind": "sketch", "seed": 9, "proj_dim": 24}


def test_only_the_named_parameters_take_part():
    model, task, data = case = double_case("images")
    task = make_task(task)
    names = ["5.bias", "5.weight"]
    rows = [reference.gradients(model, task, b, names) for b in data]
    phi = torch.cat([torch.cat([row[n].flatten(1) for n in ("5.weight", "5.bias")], 1) for row in rows])
    with torch.no_grad():
        q = torch.cat([task.weights(model, b, task.output(model.eval(), b))[0] for b in data])
    found = attributed(GradientDot(projector="identity", grad_wrt=iter(names)), case)
    np.testing.assert_allclose(found, (q[:, None] * (phi @ phi[:16].T)).numpy(), rtol=1e-6, atol=1e-6)


def test_whole_gradients_are_never_formed_of_more_examples_than_fit_in_the_memory_budget(monkeypatch):
    model, task, data = images()
    p = sum(x.numel() for x in model.parameters())
    whole = attributed(GradientDot(projector="identity"), (model, task, data))
    sizes = []

    def spied(engine, projector, batch, *args):
        sizes.append(batches.size(batch))
        assert projector.proj_dim == p
        return featurize(engine, projector, batch, *args)

    from trak.gradients import featurize

    monkeypatch.setattr("trak.baselines.gradient_features.featurize", spied)
    budget = 4 * 3 * 4 * p  # a quarter of it holds three gradients
    found = attributed(GradientDot(projector="identity", memory_budget=budget), (model, task, data))
    assert max(sizes) == 3
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", ["dense", "outer", "sparse"])
def test_directions_give_the_inner_product_with_each_of_them(block):
    torch.manual_seed(0)
    shapes, b = {"a": (6, 4), "b": (5,)}, 3
    directions = torch.randn(29, 7, dtype=torch.float64)
    blocks = {
        "dense": torch.randn(b, 6, 4, dtype=torch.float64),
        "outer": OuterProducts(torch.randn(b, 2, 6, dtype=torch.float64), torch.randn(b, 2, 4, dtype=torch.float64)),
        "sparse": SparseRows(torch.tensor([[0, 5, 5], [1, 1, 1], [2, 3, 4]]), torch.randn(b, 3, 4).double(), 6),
    }
    first = blocks[block]
    dense = (first if block == "dense" else first.dense()).clone()
    second = torch.randn(b, 5, dtype=torch.float64)
    projector = Directions(directions, {name: int(np.prod(shape)) for name, shape in shapes.items()})
    from trak.projectors import Accumulator

    total = Accumulator(projector, b, 0, torch.device("cpu"), torch.float64)
    total.add("b", second)
    total.add("a", first)
    torch.testing.assert_close(total.result(), torch.cat([dense.flatten(1), second], 1) @ directions)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: GradientDot(projector="sketh"), r"unknown projector 'sketh': did you mean 'sketch'\?"),
        (lambda: GradientDot(engine="hook"), r"unknown engine 'hook': did you mean 'hooks'\?"),
        (lambda: GradientDot(proj_dim=0), "proj_dim must be at least 1, got 0"),
        (lambda: GradientDot(memory_budget=0), "memory_budget must be a positive integer, in bytes, got 0"),
        (lambda: TracIn([0.1, -1]), "learning_rates must be 0 or more and finite, got -1"),
    ],
)
def test_settings_that_can_not_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_learning_rates_must_be_as_many_as_checkpoints():
    with pytest.raises(ValueError, match="1 learning_rates for 2 checkpoints; give one for each"):
        attributed(TracIn([0.1]), images(), states(images().model, 2))


def test_input_that_is_not_finite_is_named():
    model, task, data = images()
    data[1][0][3] = torch.nan
    with pytest.raises(ValueError, match=r"example 11 \(row 3 of its batch\), targets, checkpoint 0: input 0 .* NaN"):
        GradientDot().attribute(model, task, model.state_dict(), data, data, progress=False)


def test_label_out_of_range_is_explained():
    model, task, data = texts()
    data[0]["labels"][2] = 9
    with pytest.raises(ValueError, match="label out of range: 9 in row 2"):
        GradientDot().attribute(model, task, model.state_dict(), data, data, progress=False)
