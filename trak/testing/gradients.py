"""The contracts of gradient engines and of rules for layers."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trak.gradients import Engine, HooksEngine, differentiable
from trak.gradients.base import collect
from trak.inputs import batches
from trak.tasks import Task, make_task
from trak.testing import reference
from trak.testing._pytest import pytest

Case = tuple[nn.Module, Task | str, Any]
"""A model, a task and one batch."""


class Curved(Task):
    """A scalar of every number that the model returns, with a different slope for each."""

    def output(self, model: nn.Module, batch: Any) -> Tensor:
        result = model(*batch) if isinstance(batch, tuple) else model(**batch)
        result = result[0] if isinstance(result, tuple) else result
        flat = result.flatten(1)
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
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(self.a(x))))


class EngineContract:
    """What `trak.gradients.Engine` promises. A subclass defines `engine`, the class.

    Attributes:
        cases: functions that return a model, a task and a batch; the model is in float32.
    """

    engine: ClassVar[type[Engine]]
    cases: ClassVar[Sequence[Callable[[], Case]]] = (_classifier,)

    def collect(self, case: Case, names: Sequence[str] | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the gradients by the engine and by the loop."""
        model, task, batch = case
        names = [name for name, _ in model.named_parameters()] if names is None else names
        with differentiable(model, names):
            found = collect(self.engine(model, make_task(task), names), batch)
        assert list(found) == list(names)
        return found, reference.gradients(model, make_task(task), batch, names)

    def test_gradients_and_outputs_equal_the_loop(self) -> None:
        for case in self.cases:
            model, task, batch = case()
            assert_equals_loop(self.engine, model, batch, make_task(task))

    def test_outputs_are_those_of_the_task(self) -> None:
        for case in self.cases:
            model, task, batch = case()
            names = [name for name, _ in model.named_parameters()]
            with differentiable(model, names):
                outputs = self.engine(model, make_task(task), names).gradients(batch, lambda name, block, start: None)
            expected = make_task(task).output(copy.deepcopy(model).eval(), batch).detach()
            torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)

    def test_batch_of_one(self) -> None:
        model, task, batch = _classifier()
        (found, _), (whole, _) = (self.collect((model, task, b)) for b in (batches.take(batch, 2, 3), batch))
        for name, grads in found.items():
            torch.testing.assert_close(grads, whole[name][2:3], rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("names", [["3.weight", "0.bias"], ["0.weight"]])
    def test_only_the_named_parameters_are_differentiated(self, names: list[str]) -> None:
        found, truth = self.collect(_classifier(), names)
        for name, expected in truth.items():
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)

    def test_tied_parameters_get_the_sum_of_their_uses_and_unused_ones_zeros(self) -> None:
        torch.manual_seed(0)
        found, truth = self.collect((_Tied(), "image_classification", (torch.randn(5, 4), torch.randint(4, (5,)))))
        assert list(found) == ["a.weight", "a.bias", "b.bias", "unused.weight", "unused.bias"]
        for name, expected in truth.items():
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(found["unused.weight"], torch.zeros(5, 2, 2))

    def test_output_of_the_wrong_shape_is_refused(self) -> None:
        class Wrong(Task):
            def output(self, model: nn.Module, batch: Any) -> Tensor:
                return model(batch[0])

        model, _, batch = _classifier()
        with pytest.raises(TypeError, match=r"Wrong.output must return one number per example, shape \(\d+,\), got"):
            self.collect((model, Wrong(), batch))


class LayerRuleContract(ABC):
    """What `trak.gradients.register_layer` asks of a rule. A subclass defines `layer` and `inputs`."""

    @abstractmethod
    def layer(self) -> nn.Module:
        """Return the layer, or a model of several, whose rule is tested."""

    @abstractmethod
    def inputs(self, count: int) -> tuple[Tensor, ...]:
        """Return arguments of the layer for `count` examples."""

    @pytest.mark.parametrize("count", [1, 5])
    def test_gradients_equal_the_loop(self, count: int) -> None:
        assert_equals_loop(HooksEngine, self.layer(), self.inputs(count))

    def test_gradients_of_each_parameter_alone_equal_the_loop(self) -> None:
        layer = self.layer()
        for kept, _ in layer.named_parameters():
            for name, parameter in layer.named_parameters():
                parameter.requires_grad_(name == kept)
            assert_equals_loop(HooksEngine, layer, self.inputs(3))

    def test_gradients_reach_what_is_before_the_layer(self) -> None:
        layer, inputs = self.layer(), self.inputs(4)

        class Scaled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale, self.layer = nn.Parameter(torch.tensor(1.1)), layer

            def forward(self, x: Tensor, *others: Tensor) -> Any:
                return self.layer(self.scale * x if x.is_floating_point() else x, *others)

        assert_equals_loop(HooksEngine, Scaled(), inputs)

    def test_the_layer_is_left_as_found(self) -> None:
        layer = self.layer()
        assert_equals_loop(HooksEngine, layer, self.inputs(2))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in layer.modules())
        assert all(p.requires_grad and p.grad is None for p in layer.parameters())
