"""What every baseline promises."""

import numpy as np
import pytest
import torch
from models import TASK_CASES
from torch import nn

from trak.baselines import (
    BASELINES,
    BM25,
    EKFAC,
    Baseline,
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
    register_baseline,
)
from trak.testing import BaselineContract

N, M = 23, 16


class CaseContract(BaselineContract):
    """The contract on the cases of `models.py`."""

    def data(self, case):
        return TASK_CASES[case]()


class TestGradientDot(CaseContract):
    cases = ("images", "texts", "numbers")

    def make(self, case):
        return GradientDot(projector="identity")


class TestGradientCosine(CaseContract):
    cases = ("images", "texts", "numbers")

    def make(self, case):
        return GradientCosine(projector="identity")


class TestTracIn(CaseContract):
    cases = ("images", "texts", "numbers")
    looks_at_checkpoints = False  # a sum over them, tested in test_engines.py

    def make(self, case):
        return TracIn([0.5], projector="identity")

    def attribute(self, *args, checkpoints=None, baseline=None, **options):
        if isinstance(checkpoints, list):
            baseline = TracIn([0.5] * len(checkpoints), projector="identity")
        return super().attribute(*args, checkpoints=checkpoints, baseline=baseline, **options)


class TestInfluenceFunctions(CaseContract):
    cases = ("images", "texts")
    sizes = (5,)

    def make(self, case):
        return InfluenceFunctions(damping=2.0)


class TestInfluenceFunctionsByArnoldi(CaseContract):
    cases = ("numbers",)
    sizes = (5,)

    def make(self, case):
        return InfluenceFunctions("arnoldi", damping=0.3, rank=5)


@pytest.mark.filterwarnings("ignore:EK-FAC leaves out")
class TestEKFAC(CaseContract):
    cases = ("images", "texts", "numbers")

    def make(self, case):
        return EKFAC(damping=0.1)


class TestRepresentationSimilarity(CaseContract):
    cases = ("images", "texts", "numbers")

    def make(self, case):
        return RepresentationSimilarity({"images": "5", "texts": "head", "numbers": "3"}[case], features_from="input")


class TestKNNShapley(CaseContract):
    cases = ("images", "texts")

    def make(self, case):
        return KNNShapley(3, layer={"images": "5", "texts": "head"}[case], features_from="input")


class TestRandom(CaseContract):
    cases = ("images", "numbers")
    looks_at_checkpoints = False
    unit = ""

    def make(self, case):
        return Random(3)


class TestBM25(CaseContract):
    cases = ("texts",)
    looks_at_checkpoints = False
    unit = "target"

    def make(self, case):
        return BM25()


class TestEmpiricalInfluence(CaseContract):
    cases = ("images", "texts", "numbers")
    looks_at_checkpoints = False
    unit = ""

    class Truth:
        rng = np.random.default_rng(0)
        masks = rng.random((40, N)) < 0.5
        outputs = rng.normal(size=(40, 2, M)) + masks[:, None, :M]

    def make(self, case):
        return EmpiricalInfluence(self.Truth)


class TestDatamodel(TestEmpiricalInfluence):
    unit = "target"

    def make(self, case):
        return Datamodel(self.Truth, "ridge")


class TestDataShapley(CaseContract):
    cases = ("numbers",)
    looks_at_checkpoints = False
    unit = "model"

    def make(self, case):
        def train(indices, seed):
            model = nn.utils.skip_init(nn.Linear, 5, 1, bias=False)
            with torch.no_grad():
                model.weight.copy_(torch.from_numpy(np.bincount(indices % 5, minlength=5) * 0.1))
            return model

        return DataShapley(train, permutations=2)


def test_a_taken_or_unknown_name_of_a_baseline_is_refused():
    with pytest.raises(ValueError, match=r"baseline name 'random' is taken by trak\.baselines\.random_scores\.Random"):
        register_baseline("random")(type("Other", (Random,), {}))
    with pytest.raises(TypeError, match=r"only a subclass of trak\.baselines\.Baseline can be registered"):
        register_baseline("other")(int)
    with pytest.raises(ValueError, match=r"unknown baseline 'randon': did you mean 'random'"):
        BASELINES.find("randon")
    assert all(issubclass(baseline, Baseline) for baseline in BASELINES.values())


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
