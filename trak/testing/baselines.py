"""The contract of baselines."""

import copy
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from trak.attribution.results import ArrayAttribution
from trak.baselines import BASELINES, Baseline
from trak.inputs import batches
from trak.testing._pytest import pytest


def _rebatched(data: Sequence[Any], size: int) -> list[Any]:
    """Return the same examples in batches of another size."""
    columns = [torch.cat(parts) for parts in zip(*map(batches.tensors, data), strict=True)]
    pieces = zip(*(column.split(size) for column in columns), strict=True)
    return [batches.replace_tensors(data[0], list(piece)) for piece in pieces]


def _states(model: nn.Module, count: int) -> list[dict[str, Tensor]]:
    """Return checkpoints that differ a little from the model's weights."""
    torch.manual_seed(7)
    return [
        {k: v + 0.1 * torch.randn_like(v) if v.is_floating_point() and "running" not in k else v for k, v in s.items()}
        for s in [copy.deepcopy(model.state_dict()) for _ in range(count)]
    ]


def _global_state() -> tuple[Any, ...]:
    numbers = str(np.random.get_state())  # noqa: NPY002
    generators = torch.get_rng_state().tolist(), numbers, random.getstate()
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

    def attribute(
        self,
        case: str | None = None,
        *,
        baseline: Baseline | None = None,
        model: nn.Module | None = None,
        checkpoints: Any = None,
        train: Any = None,
        targets: Any = None,
        progress: bool = False,
    ) -> Any:
        """Call the baseline with what `data` returns, unless something else is given."""
        case = case or self.cases[0]
        made, task, data = self.data(case)
        model = made if model is None else model
        return (baseline or self.make(case)).attribute(
            model,
            task,
            model.state_dict() if checkpoints is None else checkpoints,
            train or data,
            targets or data[:2],
            progress=progress,
        )

    def assert_close(self, found: Any, expected: Any) -> None:
        """Compare two arrays of scores."""
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())

    def test_scores_are_float32_finite_and_of_the_right_shape(self) -> None:
        for case in self.cases:
            found, data = self.attribute(case), self.data(case)[2]
            assert isinstance(found, ArrayAttribution)
            rows, columns = sum(map(batches.size, data)), sum(map(batches.size, data[:2]))
            assert found.shape == found.scores.shape == (rows, columns)
            assert found.scores.dtype == np.float32
            assert np.isfinite(found.scores).all()
            assert found.scores.std() > 0
            assert found.name == self.make(case).name

    def test_scores_do_not_depend_on_the_batch_size(self) -> None:
        for case in self.cases:
            expected, data = self.attribute(case).scores, self.data(case)[2]
            for size in self.sizes:
                found = self.attribute(case, train=_rebatched(data, size), targets=_rebatched(data[:2], size))
                self.assert_close(found.scores, expected)

    def test_a_second_run_gives_the_same_bits(self) -> None:
        for case in self.cases:
            np.testing.assert_array_equal(self.attribute(case).scores, self.attribute(case).scores)

    def test_one_instance_serves_several_calls(self) -> None:
        baseline = self.make(self.cases[0])
        first = np.array(self.attribute(baseline=baseline).scores)
        np.testing.assert_array_equal(self.attribute(baseline=baseline).scores, first)

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
            assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())

    def test_dict_and_tuple_batches_give_the_same_scores(self) -> None:
        for case in self.cases:
            data = self.data(case)[2]
            is_dict = isinstance(data[0], dict)
            other = [tuple(b.values()) if is_dict else dict(zip(("x", "y"), b, strict=True)) for b in data]
            found = self.attribute(case, train=other, targets=other[:2])
            self.assert_close(found.scores, self.attribute(case).scores)

    def test_a_loader_is_as_good_as_a_list_and_one_that_shuffles_is_refused(self) -> None:
        data = self.data(self.cases[0])[2]
        if isinstance(data[0], dict):
            return
        dataset = TensorDataset(*(torch.cat(t) for t in zip(*data, strict=True)))
        found = self.attribute(train=DataLoader(dataset, 10))
        self.assert_close(found.scores, self.attribute().scores)
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
