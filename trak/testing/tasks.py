"""The contract of tasks."""

import json
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import nn

from trak.inputs.batches import take
from trak.tasks import Task
from trak.testing._pytest import pytest


class TaskContract(ABC):
    """What `trak.tasks.Task` promises, compared with formulas in NumPy.

    A subclass defines `task`, `model`, `batch` and `expected_output`; also `expected_loss` and `expected_weights`
    unless the loss is softplus(-f). All numbers are in float64.
    """

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

    def test_output_equals_the_formula_in_float64(self) -> None:
        model, batch = self.model(), self.batch(7)
        output = self.task().output(model, batch)
        assert output.shape == (7,)
        np.testing.assert_allclose(output.detach().numpy(), self.expected_output(model, batch), rtol=1e-9, atol=1e-10)

    def test_output_of_an_example_does_not_depend_on_its_batch(self) -> None:
        model, batch, task = self.model(), self.batch(5), self.task()
        singles = torch.cat([task.output(model, take(batch, i, i + 1)) for i in range(5)])
        torch.testing.assert_close(singles, task.output(model, batch), rtol=1e-12, atol=1e-12)

    def test_gradient_of_the_output_equals_finite_differences_of_the_formula(self) -> None:
        model, batch, step = self.model(), self.batch(3), 1e-5
        self.task().output(model, batch).sum().backward()
        generator, own = torch.Generator().manual_seed(2), list(model.parameters())
        directions = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in own]
        slope = sum(float((d * p.grad).sum()) for d, p in zip(directions, own, strict=True))
        values = []
        with torch.no_grad():
            for sign in (1, -2):
                for p, d in zip(own, directions, strict=True):
                    p += sign * step * d
                values.append(self.expected_output(model, batch).sum())
        assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)

    def test_q_and_r_equal_their_closed_forms(self) -> None:
        model, batch, task = self.model(), self.batch(7), self.task()
        f = task.output(model, batch)
        for found, expected in zip(
            task.weights(model, batch, f), self.expected_weights(f.detach().numpy()), strict=True
        ):
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)

    def test_q_equals_minus_the_finite_difference_of_the_loss(self) -> None:
        model, batch, task = self.model(), self.batch(7), self.task()
        output = task.output(model, batch)
        q, _ = task.weights(model, batch, output)
        f, step = output.detach().numpy(), 1e-5
        difference = (self.expected_loss(f + step) - self.expected_loss(f - step)) / (2 * step)
        np.testing.assert_allclose(q.numpy(), -difference, rtol=1e-6, atol=1e-9)

    def test_r_equals_minus_the_finite_difference_of_q(self) -> None:
        model, batch, task = self.model(), self.batch(7), self.task()
        f, step = task.output(model, batch).detach(), 1e-5
        _, r = task.weights(model, batch, f)
        (above, _), (below, _) = task.weights(model, batch, f + step), task.weights(model, batch, f - step)
        np.testing.assert_allclose(r.numpy(), -((above - below) / (2 * step)).numpy(), rtol=1e-5, atol=1e-9)

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
        assert json.loads(json.dumps(described)) == described
        assert described == self.task().describe()
