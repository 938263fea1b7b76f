"""The contracts: what each kind of extension must do."""

import copy
import json
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from trak._utils.torch_private import has_hooks
from trak.attribution.results import ArrayAttribution
from trak.baselines import BASELINES, Baseline
from trak.gradients import Engine, HooksEngine, differentiable
from trak.gradients.base import collect
from trak.inputs import batches
from trak.projectors import Accumulator, OuterProducts, Projector, SparseRows, base
from trak.tasks import Task, make_task
from trak.testing import reference
from trak.testing._pytest import pytest

_STEP = 1e-5
Case = tuple[nn.Module, Task | str, Any]
"""A model, a task and one batch."""


class TaskContract(ABC):
    """What `trak.tasks.Task` promises, compared with formulas in NumPy.

    A subclass defines `task`, `model`, `batch` and `expected_output`; also `expected_loss` and `expected_weights`
    unless the loss is softplus(-f), and sets `curvature_from_loss` to False if R is 1 whatever the loss (W = I). All
    numbers are in float64.
    """

    curvature_from_loss: ClassVar[bool] = True

    @abstractmethod
    def task(self) -> Task:
        """Return the task to test."""

    @abstractmethod
    def model(self) -> nn.Module:
        """Return a small model in float64 and evaluation mode, the same on every call."""

    @abstractmethod
    def batch(self, count: int) -> Any:
        """Return `count` examples, the first of a larger batch being those of a smaller one."""

    @abstractmethod
    def expected_output(self, model: nn.Module, batch: Any) -> np.ndarray:
        """Compute f of each example by its formula, (B,)."""

    def expected_loss(self, f: np.ndarray) -> np.ndarray:
        """Compute ℓ(f), elementwise."""
        return np.logaddexp(0, -f)

    def expected_weights(self, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute Q = -dℓ/df and R = d²ℓ/df²."""
        p = 1 / (1 + np.exp(-f))
        return 1 / (1 + np.exp(f)), p / (1 + np.exp(f))

    def test_output_equals_the_formula_and_does_not_depend_on_the_batch(self) -> None:
        model, batch, task = self.model(), self.batch(7), self.task()
        output = task.output(model, batch)
        assert output.shape == (7,)
        np.testing.assert_allclose(output.detach().numpy(), self.expected_output(model, batch), rtol=1e-9, atol=1e-10)
        singles = torch.cat([task.output(model, batches.take(batch, i, i + 1)) for i in range(7)])
        torch.testing.assert_close(singles, output, rtol=1e-12, atol=1e-12)

    def test_gradient_of_the_output_equals_finite_differences_of_the_formula(self) -> None:
        model, batch = self.model(), self.batch(3)
        values: list[Tensor] = []
        self.task().output(model, batch).sum().backward()
        generator, own = torch.Generator().manual_seed(2), list(model.parameters())
        directions = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in own]
        grads = [p.grad for p in own if p.grad is not None]
        slope = sum(float((d * g).sum()) for d, g in zip(directions, grads, strict=True))
        for sign in (1, -2):
            with torch.no_grad():
                for p, d in zip(own, directions, strict=True):
                    p.add_(d, alpha=sign * _STEP)
                values.append(self.expected_output(model, batch).sum())
        assert slope == pytest.approx((values[0] - values[1]) / (2 * _STEP), rel=1e-5)

    def test_q_and_r_equal_their_closed_forms_and_minus_the_finite_differences(self) -> None:
        model, batch, task = self.model(), self.batch(7), self.task()
        output = task.output(model, batch)
        f, found = output.detach(), [weight.numpy() for weight in task.weights(model, batch, output)]
        for weight, expected in zip(found, self.expected_weights(f.numpy()), strict=True):
            np.testing.assert_allclose(weight, expected, rtol=1e-10)
        (low, low_q), (high, high_q) = (
            (self.expected_loss(near.numpy()), task.weights(model, batch, near)[0].numpy())
            for near in (f - _STEP, f + _STEP)
        )
        np.testing.assert_allclose(found[0], (low - high) / (2 * _STEP), rtol=1e-6, atol=1e-9)
        if self.curvature_from_loss:
            np.testing.assert_allclose(found[1], (low_q - high_q) / (2 * _STEP), rtol=1e-5, atol=1e-9)

    def test_loss_is_the_formula_elementwise(self) -> None:
        f = torch.linspace(-5, 5, 11, dtype=torch.float64)
        np.testing.assert_allclose(self.task().loss(f).numpy(), self.expected_loss(f.numpy()), rtol=1e-12)

    def test_q_and_r_carry_no_graph_and_work_without_gradients(self) -> None:
        model, batch, task = self.model(), self.batch(2), self.task()
        with torch.no_grad():
            without = task.weights(model, batch, task.output(model, batch))
        for found, expected in zip(without, task.weights(model, batch, task.output(model, batch)), strict=True):
            assert torch.equal(found, expected)
            assert not expected.requires_grad

    def test_a_right_batch_passes_the_check_and_leaves_no_gradients(self) -> None:
        model = self.model()
        self.task().check(model, self.batch(4))
        assert all(p.grad is None for p in model.parameters())

    def test_description_survives_json(self) -> None:
        described = self.task().describe()
        assert json.loads(json.dumps(described)) == described == self.task().describe()


def awkward_vectors(k: int, blocks: int = 12) -> np.ndarray:
    """Return six unit vectors (6, k · blocks), some of them with the largest sums of colliding coordinates."""
    rng = np.random.default_rng(0)
    vectors = np.zeros((6, blocks, k))
    vectors[0] = rng.normal(size=(blocks, k))
    vectors[1] = 1
    vectors[2] = np.outer(rng.normal(size=blocks), rng.normal(size=k))
    vectors[3, :, 0] = rng.normal(size=blocks)
    vectors[4, :2, 0] = vectors[4, :2, k // 2] = 1
    vectors[5] = vectors[1] + rng.normal(size=(blocks, k))
    flat = vectors.reshape(6, -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def _normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


class ProjectorContract(ABC):
    """What `trak.projectors.Projector` promises. A subclass defines `make`; `reference`, if it can.

    Attributes:
        seeds: number of projections over which inner products are averaged.
        bit_identical: whether an example's features are the same bits in every batch, and not only close.
        dtype_tolerance: absolute error of float64 features; larger if random entries are rounded to float32.
    """

    seeds: ClassVar[int] = 400
    bit_identical: ClassVar[bool] = False
    dtype_tolerance: ClassVar[float] = 1e-12

    @abstractmethod
    def make(self, proj_dim: int, seed: int) -> Projector:
        """Return the projector to test."""

    def reference(self, grads: Mapping[str, np.ndarray], k: int, seed: int, model_id: int) -> Any:
        """Compute the features (B, k) by the definition, in NumPy; by default `make`'s own on the CPU in float64."""
        return self.features(self.make(k, seed), {n: torch.from_numpy(g).double() for n, g in grads.items()}, model_id)

    def features(self, projector: Projector, grads: Tensor | Mapping[str, Tensor], model_id: int = 0) -> Tensor:
        """Return the features as they are stored."""
        return projector.project(grads, model_id)

    def assert_same(self, actual: Tensor, expected: Tensor) -> None:
        """Compare two tensors of features."""
        tolerance = 0 if self.bit_identical else 1e-5
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)

    def inner_products(self, k: int) -> np.ndarray:
        """Return ⟨Sx, Sy⟩ of all pairs of awkward vectors for many seeds: (seeds, 6, 6); computed once."""
        samples = vars(type(self)).get(f"_inner_products_{k}")
        if samples is None:
            vectors = torch.from_numpy(awkward_vectors(k))
            rows = (self.features(self.make(k, seed), vectors) for seed in range(self.seeds))
            samples = np.stack([(row @ row.T).numpy() for row in rows])
            setattr(type(self), f"_inner_products_{k}", samples)
        return samples

    @pytest.mark.parametrize("a, b", [(1, 1), (-2.5, 1e3), (0, -1e-3)])
    def test_projection_is_linear(self, a: float, b: float) -> None:
        x, y = _normal(2, 3, 37, dtype=torch.float64)
        projector = self.make(8, 1)
        found, fx, fy = (self.features(projector, grads) for grads in (a * x + b * y, x, y))
        torch.testing.assert_close(found, a * fx + b * fy, rtol=1e-10, atol=1e-9)

    @pytest.mark.parametrize("k", [4, 5, 32])
    def test_inner_products_are_unbiased_and_their_variance_is_within_the_stated_bound(self, k: int) -> None:
        samples, vectors = self.inner_products(k), awkward_vectors(k)
        truth, root = vectors @ vectors.T, math.sqrt(len(samples))
        assert (np.abs(samples.mean(0) - truth) <= 4.5 * samples.std(0) / root + 1e-12).all()
        squares, bound = (samples - truth) ** 2, (1 + truth**2) / k * (1 + 1 / 64)
        assert (squares.mean(0) <= bound + 4.5 * squares.std(0) / root).all()

    def test_features_of_an_example_do_not_depend_on_its_batch_and_gradients_are_left_as_found(self) -> None:
        grads, projector = _normal(23, 301), self.make(16, 3)
        together = self.features(projector, grads)
        for size in (1, 7):
            self.assert_same(torch.cat([self.features(projector, part) for part in grads.split(size)]), together)
        self.assert_same(self.features(projector, grads.flip(0)).flip(0), together)
        assert self.features(projector, grads[:0]).shape == (0, projector.proj_dim)
        assert torch.equal(grads, _normal(23, 301))

    @pytest.mark.parametrize("k", [1, 6, 8, 16])
    @pytest.mark.parametrize("positions", [1, 5])
    @pytest.mark.parametrize("elements", [1, 40, 10**6])
    def test_blocks_in_every_form_and_in_parts_equal_the_dense_gradient(
        self, monkeypatch: Any, k: int, positions: int, elements: int
    ) -> None:
        monkeypatch.setattr(base, "_PART_ELEMENTS", elements)
        monkeypatch.setattr(base, "_PART_ROWS", 2)
        generator = torch.Generator().manual_seed(0)
        shapes = (positions, 9), (positions, 4), (7, 4)
        left, right, values = (torch.randn(5, *shape, generator=generator).double() for shape in shapes)
        indices = torch.randint(9, (5, 7), generator=generator)
        table = torch.nn.functional.one_hot(indices, 9).double().mT @ values
        weight = left.mT @ right + table
        projector = self.make(k, 3)
        expected = self.features(projector, {"weight": weight, "bias": left.sum(1)}, 2)
        for _ in range(2):  # the second time in memory that was used before
            projector.bind({"weight": (9, 4), "bias": (9,)})
            total = Accumulator(projector, 5, 2, left.device, left.dtype)
            total.add("bias", left[3:].sum(1), 3)
            total.add("weight", OuterProducts(left[:2], right[:2], (3, 3, 4)), 0)
            total.add("weight", OuterProducts(left[2:], right[2:]), 2)
            total.add("weight", SparseRows(indices, values, 9))
            total.add("bias", left[:3].sum(1), 0)
            torch.testing.assert_close(total.result(), expected, rtol=1e-10, atol=1e-10)

    def test_sums_of_two_batches_at_a_time_do_not_mix(self) -> None:
        blocks, projector = _normal(2, 3, 37), self.make(8, 1)
        projector.bind({"": (37,)})
        sums = [Accumulator(projector, 3, 0, blocks.device, blocks.dtype) for _ in blocks]
        for total, block in zip(sums, blocks, strict=True):
            total.add("", block)
        for total, block in zip(sums, blocks, strict=True):
            torch.testing.assert_close(total.result(), self.features(projector, block), rtol=1e-6, atol=1e-5)

    def test_seeds_checkpoints_and_names_give_uncorrelated_projections(self) -> None:
        k, x, three = 1024, _normal(1, 200), (0, 1, 12)
        keys = [(seed, model_id, name) for seed in three for model_id in three for name in ("a", "b")]
        rows = [self.features(self.make(k, seed), {name: x}, model_id)[0] for seed, model_id, name in keys]
        unit = torch.nn.functional.normalize(torch.stack(rows))
        assert (unit @ unit.T - torch.eye(len(rows))).abs().max() < 5 / math.sqrt(k)

    def test_checkpoint_ids_of_any_integer_type_mean_the_same_in_any_order(self) -> None:
        grads, used, ids = {"a": torch.ones(1, 40), "b": torch.ones(1, 3)}, self.make(8, 0), (0, 1, 0, np.int64(5))
        for model_id in ids:
            assert torch.equal(used.project(grads, model_id), self.make(8, 0).project(grads, int(model_id)))  # type: ignore[arg-type]
        assert torch.equal(self.make(8, 5).project(grads), self.make(8, np.int64(5)).project(grads))  # type: ignore[arg-type]

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_features_are_the_same_on_every_device(self, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
        grads = (_normal(4, 5003) * 5).round()  # so that float32 sums are exact in any order
        features = self.features(self.make(64, 3), grads.to(device))
        assert features.device.type == device
        expected = torch.as_tensor(self.reference({"": grads.numpy()}, 64, 3, 0)).float()
        tolerance = 0 if self.bit_identical else 1e-5
        torch.testing.assert_close(features.cpu(), expected, rtol=tolerance, atol=100 * tolerance)

    @pytest.mark.parametrize("numel", [0, 1, 15, 16, 17, 100, 1000])
    def test_parameters_of_any_size_match_the_definition_in_float64(self, numel: int) -> None:
        shapes = {"edge": (3, numel), "other": (3, 2, 9), "scale": (3,)}
        grads = {name: _normal(*shape, dtype=torch.float64) for name, shape in shapes.items()}
        features = self.features(self.make(16, 2), grads, model_id=4)
        assert features.dtype == torch.float64
        grads["scale"] = grads["scale"][:, None]  # a parameter without dimensions is one of one element
        expected = self.reference({name: grad.numpy() for name, grad in grads.items()}, 16, 2, 4)
        np.testing.assert_allclose(features.numpy(), expected, rtol=0, atol=self.dtype_tolerance * max(20, numel / 10))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_gradients_are_summed_in_float32(self, dtype: torch.dtype) -> None:
        grads = (20000 + 10000 * _normal(2, 4000)).clamp(1, 60000).to(dtype)
        features = self.features(self.make(8, 0), grads)
        assert features.dtype == torch.float32
        expected = np.asarray(self.reference({"": grads.double().numpy()}, 8, 0, 0))
        np.testing.assert_allclose(features.numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        assert grads.dtype == dtype

    def test_record_tells_kinds_and_seeds_apart(self) -> None:
        record = self.make(8, 3).describe()
        assert record["seed"] == 3
        assert record != self.make(8, 4).describe()
        assert json.loads(json.dumps(record)) == record


class Curved(Task):
    """A scalar of every number that the model returns, with a different slope for each."""

    def output(self, model: nn.Module, batch: Any) -> Tensor:
        result = model(*batch) if isinstance(batch, tuple) else model(**batch)
        flat = (result[0] if isinstance(result, tuple) else result).flatten(1)
        return (torch.sin(flat) * torch.linspace(0.5, 1.5, flat.shape[1], dtype=flat.dtype)).sum(1)


def assert_equals_loop(
    engine: Callable[..., Engine],
    model: nn.Module,
    batch: Any,
    task: Task | None = None,
    tolerance: float | None = None,
) -> None:
    """Assert that an engine's gradients are those of `trak.testing.reference.gradients`, in float32 and float64.

    Args:
        engine: an engine class.
        model: parameters that require gradients are compared; it is in float32 afterwards.
        batch: a batch of the task.
        task: by default `Curved`, for batches that are a model's arguments.
        tolerance: relative to the whole gradient's norm; by default 1e-5 in float32 and 1e-10 in float64.
    """
    task = task or Curved()
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    for dtype, default in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        model, given = model.to(dtype), reference.double(batch) if dtype == torch.float64 else batch
        with differentiable(model, names):
            found = collect(engine(model, task, names), given)
        truth = reference.gradients(model, task, given, names)
        assert list(found) == names
        size = math.sqrt(sum(float(t.norm()) ** 2 for t in truth.values()))
        for name, expected in truth.items():
            assert found[name].shape == expected.shape, name
            assert float((found[name] - expected).norm()) <= (tolerance or default) * size, (dtype, name)
    model.float()


def _classifier() -> Case:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3))
    return model, "image_classification", (torch.randn(8, 1, 6, 6), torch.randint(3, (8,)))


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.unused = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(2, 2)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(self.a(x))))


class EngineContract:
    """What `trak.gradients.Engine` promises. A subclass defines `engine`, the class.

    Attributes:
        cases: functions that return a model, a task and a batch; the model is in float32.
    """

    engine: ClassVar[type[Engine]]
    cases: ClassVar[Sequence[Callable[[], Case]]] = (_classifier,)

    def collect(self, case: Case, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the gradients by the engine, after comparing them with those by the loop."""
        model, task, batch = case
        names = list(dict(model.named_parameters())) if names is None else names
        with differentiable(model, names):
            found = collect(self.engine(model, make_task(task), names), batch)
        assert list(found) == list(names)
        truth = reference.gradients(model, make_task(task), batch, names)
        torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-6)
        return found

    def test_gradients_equal_the_loop_and_outputs_are_those_of_the_task(self) -> None:
        for case in self.cases:
            model, name, batch = case()
            task, names = make_task(name), list(dict(model.named_parameters()))
            assert_equals_loop(self.engine, model, batch, task)
            with differentiable(model, names):
                outputs = self.engine(model, task, names).gradients(batch, lambda name, block, start: None)
            expected = task.output(copy.deepcopy(model).eval(), batch).detach()
            torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)

    def test_a_batch_of_one_and_some_of_the_parameters_equal_the_loop(self) -> None:
        model, task, batch = _classifier()
        self.collect((model, task, batches.take(batch, 2, 3)))
        for names in (["3.weight", "0.bias"], ["0.weight"]):
            self.collect((model, task, batch), names)

    def test_tied_parameters_get_the_sum_of_their_uses_and_unused_ones_zeros(self) -> None:
        torch.manual_seed(0)
        found = self.collect((_Tied(), "image_classification", (torch.randn(5, 4), torch.randint(4, (5,)))))
        assert list(found) == ["a.weight", "a.bias", "b.bias", "unused.weight", "unused.bias"]
        assert torch.equal(found["unused.weight"], torch.zeros(5, 2, 2))

    def test_output_of_the_wrong_shape_is_refused(self) -> None:
        class Wrong(Task):
            def output(self, model: nn.Module, batch: Any) -> Tensor:
                return model(batch[0])

        model, _, batch = _classifier()
        with pytest.raises(TypeError, match=r"Wrong.output must return one number per example, shape \(\d+,\), got"):
            self.collect((model, Wrong(), batch))


class _Scaled(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.tensor(1.1)), layer

    def forward(self, x: Tensor, *others: Tensor) -> Any:
        return self.layer(self.scale * x if x.is_floating_point() else x, *others)


class LayerRuleContract(ABC):
    """What `trak.gradients.register_layer` asks of a rule. A subclass defines `layer` and `inputs`."""

    @abstractmethod
    def layer(self) -> nn.Module:
        """Return the layer, or a model of several, whose rule is tested."""

    @abstractmethod
    def inputs(self, count: int) -> tuple[Tensor, ...]:
        """Return arguments of the layer for `count` examples."""

    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_gradients_equal_the_loop_and_the_layer_is_left_as_found(self, count: int) -> None:
        layer = self.layer()
        assert_equals_loop(HooksEngine, layer, self.inputs(count))
        assert not any(has_hooks(m) for m in layer.modules())
        assert all(p.requires_grad and p.grad is None for p in layer.parameters())

    def test_gradients_of_each_parameter_alone_equal_the_loop(self) -> None:
        layer = self.layer()
        for kept, _ in layer.named_parameters():
            for name, parameter in layer.named_parameters():
                parameter.requires_grad_(name == kept)
            assert_equals_loop(HooksEngine, layer, self.inputs(3))

    def test_gradients_reach_what_is_before_the_layer(self) -> None:
        assert_equals_loop(HooksEngine, _Scaled(self.layer()), self.inputs(4))


def _rebatched(data: Sequence[Any], size: int) -> list[Any]:
    """Return the same examples in batches of another size."""
    columns = [torch.cat(parts).split(size) for parts in zip(*map(batches.tensors, data), strict=True)]
    return [batches.replace_tensors(data[0], list(piece)) for piece in zip(*columns, strict=True)]


def _states(model: nn.Module, count: int) -> list[dict[str, Tensor]]:
    """Return checkpoints that differ a little from the model's weights."""
    torch.manual_seed(7)
    return [
        {k: v + 0.1 * torch.randn_like(v) if v.is_floating_point() and "running" not in k else v for k, v in s.items()}
        for s in [copy.deepcopy(model.state_dict()) for _ in range(count)]
    ]


def _global_state() -> tuple[Any, ...]:
    generators = torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    return (*generators, torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled())


class BaselineContract(ABC):
    """What `trak.baselines.Baseline` promises. A subclass defines `make`, and `data` if it needs another model.

    Attributes:
        cases: what `make` and `data` are called with, one after the other.
        looks_at_checkpoints: whether scores depend on the checkpoint and are the mean over several.
        unit: the unit of the progress bar; empty if there is none.
        sizes: numbers of examples in a batch that give the same scores.
    """

    cases: ClassVar[Sequence[str]] = ("images",)
    looks_at_checkpoints: ClassVar[bool] = True
    unit: ClassVar[str] = "ex"
    sizes: ClassVar[Sequence[int]] = (1, 5)

    @abstractmethod
    def make(self, case: str) -> Baseline:
        """Return the baseline to test."""

    def data(self, case: str) -> tuple[nn.Module, str, list[Any]]:
        """Return a model, a task and training batches of 8, 8 and fewer examples, whose first two are the targets."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, 3))
        x, y = torch.randn(23, 1, 6, 6), torch.randint(3, (23,))
        return model, "image_classification", list(zip(x.split(8), y.split(8), strict=True))

    def attribute(self, case: str | None = None, *, baseline: Baseline | None = None, **given: Any) -> Any:
        """Call the baseline with what `data` returns, except for the arguments of `Baseline.attribute` given."""
        case = case or self.cases[0]
        given = {name: value for name, value in given.items() if value is not None}
        model, task, data = self.data(case)
        weights = given.get("model", model).state_dict()
        own = {"model": model, "task": task, "checkpoints": weights, "train": data, "targets": data[:2]}
        return (baseline or self.make(case)).attribute(**{**own, "progress": False, **given})

    def assert_close(self, found: Any, expected: Any) -> None:
        """Compare two arrays of scores."""
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())

    def test_scores_are_float32_finite_and_of_the_right_shape(self) -> None:
        for case in self.cases:
            found, data = self.attribute(case), self.data(case)[2]
            assert isinstance(found, ArrayAttribution)
            shape = sum(map(batches.size, data)), sum(map(batches.size, data[:2]))
            assert found.shape == found.scores.shape == shape
            assert found.scores.dtype == np.float32
            assert np.isfinite(found.scores).all()
            assert found.scores.std() > 0
            assert found.name == self.make(case).name

    def test_scores_do_not_depend_on_the_size_and_type_of_batches(self) -> None:
        for case in self.cases:
            expected, data = self.attribute(case).scores, self.data(case)[2]
            is_dict = isinstance(data[0], dict)
            retyped = [tuple(b.values()) if is_dict else dict(zip(("x", "y"), b, strict=True)) for b in data]
            resized = [(_rebatched(data, size), _rebatched(data[:2], size)) for size in self.sizes]
            for train, targets in ((retyped, retyped[:2]), *resized):
                self.assert_close(self.attribute(case, train=train, targets=targets).scores, expected)

    def test_a_second_run_gives_the_same_bits_by_the_same_instance_or_another(self) -> None:
        for case in self.cases:
            baseline, expected = self.make(case), np.array(self.attribute(case).scores)
            for _ in range(2):
                np.testing.assert_array_equal(self.attribute(case, baseline=baseline).scores, expected)

    def test_the_model_is_left_as_found_and_nothing_global_changes(self) -> None:
        for case in self.cases:
            model, *_ = self.data(case)
            model.train()
            next(model.children()).eval()
            own = list(model.parameters())
            own[0].requires_grad_(False)
            own[-1].grad = torch.ones_like(own[-1])
            weights, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
            baseline, other = self.make(case), _states(model, 1)
            self.data(case)  # which seeds torch's generator, as the call below does
            before = _global_state()
            self.attribute(case, baseline=baseline, model=model, checkpoints=other)
            assert _global_state() == before
            assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
            assert [m.training for m in model.modules()] == modes
            assert [p.requires_grad for p in own] == [False] + [True] * (len(own) - 1)
            assert all(p.grad is None for p in own[:-1])
            assert own[-1].grad is not None
            assert torch.equal(own[-1].grad, torch.ones_like(own[-1]))
            assert not any(has_hooks(m) for m in model.modules())

    def test_a_loader_is_as_good_as_a_list_and_one_that_shuffles_is_refused(self) -> None:
        data = self.data(self.cases[0])[2]
        if isinstance(data[0], dict):
            return
        dataset = TensorDataset(*(torch.cat(t) for t in zip(*data, strict=True)))
        self.assert_close(self.attribute(train=DataLoader(dataset, 10)).scores, self.attribute().scores)
        with pytest.raises(ValueError, match="train is a DataLoader with its own order"):
            self.attribute(train=DataLoader(dataset, 10, shuffle=True))
        with pytest.raises(TypeError, match="targets is an iterator, which can be read only once"):
            self.attribute(targets=iter(data[:2]))

    def test_several_checkpoints_give_the_mean_of_each_alone(self) -> None:
        for case in self.cases if self.looks_at_checkpoints else ():
            several = _states(self.data(case)[0], 3)
            single = [self.attribute(case, checkpoints=[state]).scores for state in several]
            assert np.abs(single[0] - single[1]).max() > 0.01 * np.abs(single[0]).max()
            self.assert_close(self.attribute(case, checkpoints=several).scores, np.mean(single, axis=0))

    def test_the_models_own_state_dict_among_the_checkpoints_is_not_overwritten(self) -> None:
        model, *_ = self.data(self.cases[0])
        several = [*_states(model, 1), model.state_dict()]
        copies = copy.deepcopy(several)
        found = self.attribute(model=model, checkpoints=several).scores
        np.testing.assert_array_equal(found, self.attribute(checkpoints=copies).scores)

    def test_it_is_registered_and_its_description_is_json(self) -> None:
        baseline = self.make(self.cases[0])
        assert BASELINES[baseline.name] is type(baseline)
        assert json.loads(json.dumps(baseline.describe()))["name"] == baseline.name
        assert repr(baseline).startswith(f"{type(baseline).__name__}(")

    def test_a_bar_with_a_rate_is_shown_unless_it_is_turned_off(self, capsys: Any) -> None:
        self.attribute()
        assert not capsys.readouterr().err
        self.attribute(progress=True)
        shown = capsys.readouterr().err
        if self.unit:
            assert self.make(self.cases[0]).name in shown
            assert f"{self.unit}/s" in shown
