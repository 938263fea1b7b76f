"""Gradient engines against a loop of torch.autograd.grad over single examples."""

import contextlib
import functools
import resource
import warnings

import pytest
import torch
from models import ENGINE_CASES, Case, images, sequences
from torch import nn

from trak.gradients import (
    ENGINES,
    FunctionalEngine,
    HooksEngine,
    LoopEngine,
    ProjectedRows,
    base,
    check_engine_name,
    check_finite,
    choose_engine,
    differentiable,
    featurize,
    register_engine,
    select_parameters,
)
from trak.inputs import batches
from trak.projectors import Sketch
from trak.tasks import Task, make_task
from trak.testing import EngineContract
from trak.testing.reference import gradients


def collect(engine, batch):
    with differentiable(engine.model, engine.parameters):
        outputs = engine.gradients(batch, lambda name, block, start: None)
        return base.collect(engine, batch), outputs


def cases(*names):
    """What the contract takes: functions that make a model, a task and a batch."""

    def first_batch(case):
        model, task, data = case()
        return model, task, data[0]

    return tuple(functools.partial(first_batch, ENGINE_CASES[name]) for name in names)


class TestFunctional(EngineContract):
    engine = FunctionalEngine
    cases = cases("images", "texts", "numbers")


class TestHooks(EngineContract):
    engine = HooksEngine
    cases = cases("images", "texts", "numbers", "bert")


class TestLoop(EngineContract):
    engine = LoopEngine
    cases = cases(*ENGINE_CASES)


def test_a_registered_engine_is_chosen_by_its_name():
    @register_engine("mine")
    class Mine(LoopEngine):
        pass

    try:
        assert check_engine_name("mine") == "mine"
        assert type(chosen(images(), "mine")) is Mine
        with pytest.raises(ValueError, match="engine name 'loop' is taken by"):
            register_engine("loop")(Mine)
    finally:
        del ENGINES["mine"]


def chosen(case: Case, name="auto"):
    model, task, data = case
    names = [n for n, _ in model.named_parameters()]
    with differentiable(model, names):
        return choose_engine(name, model, make_task(task), names, data[0])


def test_auto_takes_the_layers_engine_where_it_covers_everything():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("images", "texts", "numbers", "bert"):
            assert chosen(ENGINE_CASES[name]()).name == "hooks"


@pytest.mark.parametrize("seed", range(3))
def test_auto_allows_a_half_precision_model_its_rounding(seed):
    torch.manual_seed(seed)
    layers = [layer for width in (20, 64, 64) for layer in (nn.Linear(width, 64), nn.GELU())]
    model = nn.Sequential(*layers, nn.Linear(64, 10)).bfloat16()
    batch = (torch.randn(4, 20).bfloat16(), torch.randint(10, (4,)))
    assert chosen(Case(model, "image_classification", [batch])).name == "hooks"


def parts(engine):
    return (*parts(engine.first), *parts(engine.second)) if engine.name == "mixed" else (engine,)


def test_auto_mixes_engines_so_that_every_parameter_has_the_first_that_is_right(caplog):
    case = sequences()
    caplog.set_level("INFO", "trak")
    with pytest.warns(UserWarning, match="one example at a time, which is exact but slower") as caught:
        engine = chosen(case)
    # torch has words of its own for such LSTMs, once for each process.
    assert len([w for w in caught if "one example at a time" in str(w.message)]) == 1
    assert [(part.name, part.parameters) for part in parts(engine)] == [
        ("hooks", ("head.weight", "head.bias")),
        ("loop", tuple(f"lstm.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"))),
    ]
    assert caplog.messages[-1] == (
        "engine: hooks for 2 parameters, loop for 5 parameters, equal to single-example autograd on the first batch"
    )
    found, _ = collect(engine, case.batches[0])
    truth = gradients(case.model, make_task(case.task), case.batches[0])
    for name, expected in truth.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)


def test_an_engine_that_fails_without_a_word_is_replaced(monkeypatch):
    def fail(self, batch, sink):
        raise AssertionError

    monkeypatch.setattr(HooksEngine, "gradients", fail)
    assert chosen(ENGINE_CASES["numbers"]()).name == "functional"


class Folded(nn.Module):
    """A parameter that only torch.vmap can follow: einsum has no rule."""

    def __init__(self):
        super().__init__()
        self.first, self.core = nn.Linear(4, 5), nn.Parameter(torch.randn(5, 5, 3))

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return torch.einsum("bi,bj,ijc->bc", hidden, hidden, self.core)


def test_auto_takes_the_functional_engine_for_what_no_rule_covers():
    torch.manual_seed(0)
    case = Case(Folded(), "image_classification", [(torch.randn(4, 4), torch.randint(3, (4,)))])
    engine = chosen(case)
    assert [(part.name, part.parameters) for part in parts(engine)] == [
        ("hooks", ("first.weight", "first.bias")),
        ("functional", ("core",)),
    ]


@pytest.mark.parametrize("kind", [HooksEngine, FunctionalEngine])
def test_auto_notices_wrong_gradients(monkeypatch, kind):
    honest = kind.gradients

    def lying(self, batch, sink):
        return honest(self, batch, lambda name, block, i: sink(name, block * 1.01 if name == "5.bias" else block, i))

    monkeypatch.setattr(kind, "gradients", lying)
    if kind is FunctionalEngine:
        monkeypatch.setattr(HooksEngine, "gradients", lambda *_: 1 / 0)
    (first, *others) = parts(chosen(images())) if kind is HooksEngine else warned(images())
    assert first.name == kind.name
    assert "5.bias" not in first.parameters
    assert [part.parameters for part in others] == [("5.bias",)]


def warned(case):
    with pytest.warns(UserWarning, match="disagrees with single-example autograd"):
        return parts(chosen(case))


def test_randomness_of_the_task_is_refused_by_the_name_of_the_task():
    class Shaky(Task):
        def output(self, model, batch):
            return model(batch[0])[:, 0] * torch.rand(1)

    with pytest.raises(ValueError, match=r"the output f of Shaky, .* gives another result .*make it deterministic"):
        chosen(Case(nn.Linear(4, 3), Shaky(), [(torch.randn(4, 4), torch.randint(3, (4,)))]))


def test_random_outputs_are_refused_by_the_name_of_the_module():
    class Noisy(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(x, 0.5, training=True)

    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Tanh(), Noisy()), nn.Linear(8, 3))
    with pytest.raises(ValueError, match=r"Noisy '1.1' gives another result .*make it deterministic"):
        chosen(Case(model, "image_classification", [(torch.randn(4, 4), torch.randint(3, (4,)))]))


def test_error_of_the_user_model_is_passed_on_as_it_is():
    model, task, _ = images()
    with pytest.raises(RuntimeError, match="shape"):
        chosen(Case(model, task, [(torch.randn(3, 1, 5, 9), torch.zeros(3, dtype=torch.long))]))


def test_models_that_vmap_can_not_run_are_refused_by_the_functional_engine_with_the_one_to_use():
    model, task, data = sequences()
    with pytest.raises(
        ValueError, match=r"^engine='functional' can't run \w+ under torch.vmap \(.+\); use engine='auto'$"
    ):
        chosen(Case(model, task, data), "functional")


def test_unknown_engine_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"unknown engine 'functinal': did you mean 'functional'\?"):
        check_engine_name("functinal")


@pytest.mark.parametrize("case", ["images", "texts", "numbers"])
def test_small_memory_budget_splits_the_batch_and_gives_the_same_features(case):
    model, task, data = ENGINE_CASES[case]()
    names = [n for n, _ in model.named_parameters()]
    sizes = []

    class Counting(FunctionalEngine):
        def gradients(self, batch, sink):
            sizes.append(batches.size(batch))
            return super().gradients(batch, sink)

    with differentiable(model, names):
        engine = Counting(model, make_task(task), names)
        whole = featurize(engine, Sketch(32), data[0], 0, 10**9)
        budget = 10**9 // engine.examples_within(10**9, data[0]) * 3 + 3
        split = featurize(engine, Sketch(32), data[0], 0, budget)
        tiny = featurize(engine, Sketch(32), data[0], 0, 1)
    assert sizes == [8, 3, 3, 2] + [1] * 8
    for other in (split, tiny):
        for a, b in zip(vars(whole).values(), vars(other).values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_split_batch_stays_within_its_memory_budget():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 1000), nn.Tanh(), nn.Linear(1000, 2))
    batch = (torch.randn(64, 300), torch.randint(2, (64,)))
    names = [n for n, _ in model.named_parameters()]
    budget = 40 * 2**20
    with differentiable(model, names):
        engine = FunctionalEngine(model, make_task("image_classification"), names)
        featurize(engine, Sketch(64), batches.take(batch, 0, 1), 0, budget)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        featurize(engine, Sketch(64), batch, 0, budget)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown <= budget * 1.25


def test_modes_flags_hooks_and_gradients_are_as_found_even_after_an_error():
    model, _, data = images()
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[5].weight.grad = torch.ones_like(model[5].weight)
    calls = []
    model[5].register_forward_hook(lambda *_: calls.append(1))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()]
    names = ["0.weight", "5.bias"]
    with contextlib.suppress(ZeroDivisionError), differentiable(model, names):
        assert not any(m.training for m in model.modules())
        assert {n for n, p in model.named_parameters() if p.requires_grad} == set(names)
        raise ZeroDivisionError
    with differentiable(model, names):
        HooksEngine(model, make_task("image_classification"), names).gradients(data[0], lambda *_: None)
        FunctionalEngine(model, make_task("image_classification"), names).gradients(data[0], lambda *_: None)
        LoopEngine(model, make_task("image_classification"), names).gradients(data[0], lambda *_: None)
    assert [m.training for m in model] == [True, False, True, True, True, True]
    assert model.training
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["0.weight"]
    assert hooks == [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()
    ]
    assert calls
    assert torch.equal(model[5].weight.grad, torch.ones_like(model[5].weight))
    for k, v in model.state_dict().items():
        assert torch.equal(v, before[k])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_recurrent_layers_drop_nothing_in_the_mode_that_cudnn_differentiates_and_are_as_found(kind, training):
    model, x = nn.Sequential(kind(3, 4, 2, dropout=0.9)).train(training), torch.randn(5, 2, 3)
    with differentiable(model, ["0.weight_hh_l1"]):
        assert model[0].training
        found = model(x)[0]
    assert (model.training, model[0].training, model[0].dropout) == (training, training, 0.9)
    assert torch.equal(found, model.eval()(x)[0])


class TestSelectParameters:
    """Which parameters take part."""

    def test_by_default_those_that_require_gradients_in_order(self):
        model, *_ = images()
        model[1].bias.requires_grad_(False)
        assert list(select_parameters(model)) == ["0.weight", "0.bias", "1.weight", "5.weight", "5.bias"]

    def test_names_and_patterns_in_the_models_order_whatever_their_flags(self):
        model, *_ = sequences()
        model.requires_grad_(False)
        assert list(select_parameters(model, ["head.bias", "lstm.weight_*"])) == [
            "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.weight_hr_l0", "head.bias",
        ]  # fmt: skip
        assert list(select_parameters(model, "head.*")) == ["head.weight", "head.bias"]

    def test_unknown_name_suggests_the_nearest(self):
        model, *_ = sequences()
        with pytest.raises(ValueError, match=r"'haed.bias'.*did you mean 'head.bias'\?"):
            select_parameters(model, ["haed.bias"])

    def test_model_without_trainable_parameters_is_refused(self):
        model, *_ = images()
        with pytest.raises(ValueError, match=r"Sequential.*no trainable parameter: none of its 6.*requires_grad_"):
            select_parameters(model.requires_grad_(False))
        with pytest.raises(ValueError, match="none of its 0"):
            select_parameters(nn.ReLU())

    def test_nothing_or_no_names_is_refused(self):
        model, *_ = images()
        with pytest.raises(ValueError, match="grad_wrt is empty"):
            select_parameters(model, [])
        with pytest.raises(TypeError, match="parameter names, got 3"):
            select_parameters(model, [3])

    def test_complex_parameter_is_refused(self):
        model = nn.Linear(2, 2).to(torch.complex64)
        with pytest.raises(ValueError, match=r"'weight' is torch.complex64"):
            select_parameters(model)


def test_large_features_whose_sum_overflows_are_finite():
    ones = torch.ones(2)
    check_finite(
        ProjectedRows(torch.full((2, 4), 3e38), ones, ones, ones), None, (torch.ones(2, 1),), [0, 1], "training set"
    )
