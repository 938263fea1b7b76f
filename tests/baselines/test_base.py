"""What every baseline promises."""

import copy
import json
import random

import numpy as np
import pytest
import torch
from models import TASK_CASES, states
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from trak.attribution.results import ArrayAttribution
from trak.baselines import (
    BASELINES,
    BM25,
    EKFAC,
    Datamodel,
    DataShapley,
    EmpiricalInfluence,
    GradientCosine,
    GradientDot,
    InfluenceFunctions,
    KNNShapley,
    Random,
    RepresentationSimilarity,
    TracIn,
)

N, M = 23, 16


def rebatched(data, size):
    """The same examples in batches of another size."""
    whole = {
        k: torch.cat([b[k] for b in data]) for k in (data[0] if isinstance(data[0], dict) else range(len(data[0])))
    }
    pieces = zip(*(t.split(size) for t in whole.values()), strict=True)
    return [dict(zip(whole, p, strict=True)) if isinstance(data[0], dict) else p for p in pieces]


def as_dicts(data, keys=("x", "y")):
    return [dict(zip(keys, batch, strict=True)) for batch in data]


class BaselineContract:
    """What every baseline promises: one subclass names it and the cases of `models.py` that it takes."""

    cases = ("images",)
    looks_at_checkpoints = True
    unit = "ex"
    sizes = (1, 5)

    def make(self, case="images"):
        raise NotImplementedError

    def attribute(self, case="images", *, baseline=None, model=None, checkpoints=None, train=None, progress=False):
        made, task, data = TASK_CASES[case]()
        model = made if model is None else model
        return (baseline or self.make(case)).attribute(
            model, task, model.state_dict() if checkpoints is None else checkpoints, train or data, data[:2],
            progress=progress,
        )  # fmt: skip

    def close(self, found, expected):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())

    def test_scores_are_float32_finite_and_of_the_right_shape(self):
        for case in self.cases:
            found = self.attribute(case)
            assert isinstance(found, ArrayAttribution)
            assert found.shape == found.scores.shape == (N, M)
            assert found.scores.dtype == np.float32
            assert np.isfinite(found.scores).all()
            assert found.scores.std() > 0
            assert found.name == self.make(case).name

    def test_scores_do_not_depend_on_the_batch_size(self):
        for case in self.cases:
            model, task, data = TASK_CASES[case]()
            expected = self.attribute(case).scores
            for size in self.sizes:
                train, targets = rebatched(data, size), rebatched(data[:2], size)
                found = self.make(case).attribute(model, task, model.state_dict(), train, targets, progress=False)
                self.close(found.scores, expected)

    def test_a_second_run_gives_the_same_bits(self):
        for case in self.cases:
            np.testing.assert_array_equal(self.attribute(case).scores, self.attribute(case).scores)

    def test_one_instance_serves_several_calls(self):
        baseline = self.make(self.cases[0])
        first = np.array(self.attribute(self.cases[0], baseline=baseline).scores)
        np.testing.assert_array_equal(self.attribute(self.cases[0], baseline=baseline).scores, first)

    def test_the_model_is_left_as_found_and_nothing_global_changes(self):
        for case in self.cases:
            model, *_ = TASK_CASES[case]()
            model.train()
            next(model.children()).eval()
            next(model.parameters()).requires_grad_(False)
            last = list(model.parameters())[-1]
            last.grad = torch.ones_like(last)
            before = copy.deepcopy(model.state_dict())
            modes = [m.training for m in model.modules()]
            _, task, data = TASK_CASES[case]()
            baseline, other = self.make(case), states(model, 1)
            found = (torch.get_rng_state(), str(np.random.get_state()), random.getstate())  # noqa: NPY002
            threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
            baseline.attribute(model, task, other, data, data[:2], progress=False)
            assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
            assert [m.training for m in model.modules()] == modes
            assert [p.requires_grad for p in model.parameters()] == [False] + [True] * (
                len(list(model.parameters())) - 1
            )
            assert [p.grad is None for p in model.parameters()][:-1] == [True] * (len(list(model.parameters())) - 1)
            assert torch.equal(last.grad, torch.ones_like(last))
            assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
            assert torch.equal(torch.get_rng_state(), found[0])
            assert str(np.random.get_state()) == found[1]  # noqa: NPY002
            assert random.getstate() == found[2]
            assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)
            assert torch.is_grad_enabled()

    def test_dict_and_tuple_batches_give_the_same_scores(self):
        for case in self.cases:
            model, task, data = TASK_CASES[case]()
            other = [tuple(b.values()) for b in data] if isinstance(data[0], dict) else as_dicts(data)
            found = self.make(case).attribute(model, task, model.state_dict(), other, other[:2], progress=False)
            self.close(found.scores, self.attribute(case).scores)

    def test_a_loader_is_as_good_as_a_list_and_one_that_shuffles_is_refused(self):
        if self.cases[0] == "texts":
            return
        model, task, data = TASK_CASES[self.cases[0]]()
        dataset = TensorDataset(*(torch.cat(t) for t in zip(*data, strict=True)))
        baseline, state = self.make(self.cases[0]), model.state_dict()
        found = baseline.attribute(model, task, state, DataLoader(dataset, 10), data[:2], progress=False)
        self.close(found.scores, self.attribute(self.cases[0]).scores)
        with pytest.raises(ValueError, match="train is a DataLoader with its own order"):
            baseline.attribute(model, task, state, DataLoader(dataset, 10, shuffle=True), data[:2], progress=False)
        with pytest.raises(TypeError, match="targets is an iterator, which can be read only once"):
            baseline.attribute(model, task, state, data, iter(data[:2]), progress=False)

    def test_several_checkpoints_give_the_mean_of_each_alone(self):
        if not self.looks_at_checkpoints:
            return
        for case in self.cases:
            model, *_ = TASK_CASES[case]()
            several = states(model, 3)
            single = [self.attribute(case, checkpoints=[state]).scores for state in several]
            assert np.abs(single[0] - single[1]).max() > 0.01 * np.abs(single[0]).max()
            self.close(self.attribute(case, checkpoints=several).scores, np.mean(single, axis=0))

    def test_the_models_own_state_dict_among_the_checkpoints_is_not_overwritten(self):
        model, *_ = TASK_CASES[self.cases[0]]()
        several = [*states(model, 1), model.state_dict()]
        copies = copy.deepcopy(several)
        found = self.attribute(self.cases[0], model=model, checkpoints=several).scores
        np.testing.assert_array_equal(found, self.attribute(self.cases[0], checkpoints=copies).scores)

    def test_it_is_registered_and_its_description_is_json(self):
        baseline = self.make(self.cases[0])
        assert BASELINES[baseline.name] is type(baseline)
        assert json.loads(json.dumps(baseline.describe()))["name"] == baseline.name
        assert repr(baseline).startswith(f"{type(baseline).__name__}(")

    def test_a_bar_with_a_rate_is_shown_unless_it_is_turned_off(self, capsys):
        self.attribute(self.cases[0])
        assert not capsys.readouterr().err
        self.attribute(self.cases[0], progress=True)
        shown = capsys.readouterr().err
        if self.unit:
            assert self.make(self.cases[0]).name in shown
            assert f"{self.unit}/s" in shown


class TestGradientDot(BaselineContract):
    cases = ("images", "texts", "numbers")

    def make(self, case="images"):
        return GradientDot(projector="identity")


class TestGradientCosine(BaselineContract):
    cases = ("images", "texts", "numbers")

    def make(self, case="images"):
        return GradientCosine(projector="identity")


class TestTracIn(BaselineContract):
    cases = ("images", "texts", "numbers")
    looks_at_checkpoints = False  # a sum over them, tested in test_engines.py

    def make(self, case="images"):
        return TracIn([0.5], projector="identity")

    def attribute(self, *args, checkpoints=None, baseline=None, **options):
        if isinstance(checkpoints, list):
            baseline = TracIn([0.5] * len(checkpoints), projector="identity")
        return super().attribute(*args, checkpoints=checkpoints, baseline=baseline, **options)


class TestInfluenceFunctions(BaselineContract):
    cases = ("images", "texts")
    sizes = (5,)

    def make(self, case="images"):
        return InfluenceFunctions(damping=2.0)


class TestInfluenceFunctionsByArnoldi(BaselineContract):
    cases = ("numbers",)
    sizes = (5,)

    def make(self, case="images"):
        return InfluenceFunctions("arnoldi", damping=0.3, rank=5)


@pytest.mark.filterwarnings("ignore:EK-FAC leaves out")
class TestEKFAC(BaselineContract):
    cases = ("images", "texts", "numbers")

    def make(self, case="images"):
        return EKFAC(damping=0.1)


class TestRepresentationSimilarity(BaselineContract):
    cases = ("images", "texts", "numbers")

    def make(self, case="images"):
        return RepresentationSimilarity({"images": "5", "texts": "head", "numbers": "3"}[case], features_from="input")


class TestKNNShapley(BaselineContract):
    cases = ("images", "texts")

    def make(self, case="images"):
        return KNNShapley(3, layer={"images": "5", "texts": "head"}[case], features_from="input")


class TestRandom(BaselineContract):
    cases = ("images", "numbers")
    looks_at_checkpoints = False
    unit = ""

    def make(self, case="images"):
        return Random(3)


class TestBM25(BaselineContract):
    cases = ("texts",)
    looks_at_checkpoints = False
    unit = "target"

    def make(self, case="images"):
        return BM25()


class TestEmpiricalInfluence(BaselineContract):
    cases = ("images", "texts", "numbers")
    looks_at_checkpoints = False
    unit = ""

    class Truth:
        rng = np.random.default_rng(0)
        masks = rng.random((40, N)) < 0.5
        outputs = rng.normal(size=(40, 2, M)) + masks[:, None, :M]

    def make(self, case="images"):
        return EmpiricalInfluence(self.Truth)


class TestDatamodel(TestEmpiricalInfluence):
    unit = "target"

    def make(self, case="images"):
        return Datamodel(self.Truth, "ridge")


class TestDataShapley(BaselineContract):
    cases = ("numbers",)
    looks_at_checkpoints = False
    unit = "model"

    def make(self, case="images"):
        def train(indices, seed):
            model = nn.utils.skip_init(nn.Linear, 5, 1, bias=False)
            with torch.no_grad():
                model.weight.copy_(torch.from_numpy(np.bincount(indices % 5, minlength=5) * 0.1))
            return model

        return DataShapley(train, permutations=2)


def test_a_loader_that_yields_other_numbers_of_examples_on_a_later_pass_is_refused():
    class Shrinking:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return iter(TASK_CASES["images"]().batches[: 2 if self.passes > 2 else 3])

    model, task, data = TASK_CASES["images"]()
    with pytest.raises(ValueError, match="train yielded 16 examples, expected 23 as in the first pass"):
        GradientDot().attribute(model, task, model.state_dict(), Shrinking(), data, progress=False)


def test_what_is_no_model_is_refused():
    _, task, data = TASK_CASES["images"]()
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got function"):
        GradientDot().attribute(lambda x: x, task, {}, data, data)


@pytest.mark.parametrize(
    "package, use",
    [
        ("curvlinops", lambda: TestInfluenceFunctions().attribute()),
        ("curvlinops", lambda: TestEKFAC().attribute()),
        ("bm25s", lambda: TestBM25().attribute("texts")),
        ("sklearn", lambda: TestDatamodel().attribute()),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(package, use, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ImportError, match=r"need.* pip install 'trak-attribution\[baselines\]'"):
        use()
