"""TRAKer's published interface, and what it says to bad input."""

import contextlib
import logging
import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from models import images, numbers, texts
from torch import nn
from torch.func import functional_call

import trak
from trak.gradient_computers import IterativeGradientComputer
from trak.modelout_functions import AbstractModelOutput, ImageClassificationModelOutput
from trak.projectors import BasicProjector, NoOpProjector, ProjectionType
from trak.store import open_store
from trak.tasks import make_task


def files(where):
    return {p: p.read_bytes() for p in sorted(where.rglob("*")) if p.is_file() and not p.name.startswith(".lock")}


@pytest.fixture
def case():
    return images()


@pytest.fixture
def make(case, tmp_path):
    """A TRAKer over the images case, in one directory."""

    def make(**options):
        return trak.TRAKer(
            **{
                "model": case.model, "task": case.task, "train_set_size": 23, "save_dir": tmp_path / "store",
                "proj_dim": 16, **options,
            }
        )  # fmt: skip

    return make


def run(traker, case, exp_name="test"):
    state = case.model.state_dict()
    traker.load_checkpoint(state, model_id=0)
    for batch in case.batches:
        traker.featurize(batch)
    traker.finalize_features()
    traker.start_scoring_checkpoint(exp_name, state, model_id=0, num_targets=8)
    traker.score(case.batches[0])
    return traker.finalize_scores(exp_name)


class PublishedMargin(AbstractModelOutput):
    """Written for traker 0.3.2."""

    def __init__(self):
        pass

    @staticmethod
    def get_output(model, weights, buffers, image, label):
        logits = functional_call(model, (weights, buffers), image.unsqueeze(0))
        bindex = torch.arange(logits.shape[0])
        cloned = logits.clone()
        cloned[bindex, label.unsqueeze(0)] = torch.tensor(-torch.inf)
        return (logits[bindex, label.unsqueeze(0)] - cloned.logsumexp(dim=-1)).sum()

    def get_out_to_loss_grad(self, model, weights, buffers, batch):
        images, labels = batch
        logits = functional_call(model, (weights, buffers), images)
        return (1 - logits.softmax(-1)[torch.arange(len(labels)), labels]).clone().detach().unsqueeze(-1)


def test_script_for_the_published_package_runs_unchanged(tmp_path):
    model, _, batches = images()
    batch_size, n = 8, 23
    traker = trak.TRAKer(
        model=model, task="image_classification", train_set_size=n, save_dir=str(tmp_path), load_from_save_dir=True,
        device="cpu", projector=None, proj_dim=64, logging_level=logging.ERROR, use_half_precision=False,
        projector_seed=1, grad_wrt=None, lambda_reg=1e-2,
    )  # fmt: skip
    states = [{k: v + i for k, v in model.state_dict().items()} for i in range(2)]
    for model_id, state in enumerate(states):
        traker.load_checkpoint(checkpoint=state, model_id=model_id)
        for batch in batches:
            traker.featurize(batch=batch, num_samples=batch[0].shape[0])
    traker.finalize_features(model_ids=None, del_grads=False)
    for model_id, state in enumerate(states):
        traker.start_scoring_checkpoint(exp_name="x", checkpoint=state, model_id=model_id, num_targets=batch_size)
        traker.score(batch=batches[1], inds=np.arange(batch_size))
    scores = traker.finalize_scores(exp_name="x", model_ids=[0, 1], allow_skip=False)
    assert isinstance(scores, np.memmap)
    assert scores.shape == (n, batch_size)
    assert np.isfinite(scores).all()
    fresh = trak.attribute(
        model, "image_classification", states, batches, [batches[1]], tmp_path / "b", proj_dim=64, projector_seed=1,
        lambda_reg=1e-2, progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(scores, fresh.scores)


def test_published_style_task_gives_the_scores_of_the_same_new_task_with_identity_weighting(make, case, tmp_path):
    old = run(make(task=PublishedMargin()), case)
    new = run(make(weighting="identity", loss_temperature=1, save_dir=tmp_path / "new"), case)
    subclassed = run(make(task=ImageClassificationModelOutput(), save_dir=tmp_path / "alias"), case)
    np.testing.assert_allclose(old, new, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(subclassed, new, rtol=1e-4, atol=1e-6)


def test_published_projectors_are_accepted(make, case, tmp_path):
    basic = BasicProjector(grad_dim=10, proj_dim=16, seed=0, proj_type=ProjectionType.rademacher, device="cpu")
    same = run(make(projector="rademacher", save_dir=tmp_path / "a"), case)
    np.testing.assert_array_equal(run(make(projector=basic), case), same)
    noop = make(projector=NoOpProjector(device="cpu"), save_dir=tmp_path / "b")
    assert noop.proj_dim == sum(p.numel() for p in case.model.parameters())


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("load_from_save_dir", False, "any number of processes may use one save_dir"),
        ("gradient_computer", IterativeGradientComputer, "engine"),
        ("saver", object, "save_dir"),
        ("score_computer", object, "damping and weighting"),
        ("proj_max_batch_size", 32, "memory_budget"),
    ],
)
def test_argument_without_meaning_is_accepted_with_one_deprecation_warning(make, name, value, cure):
    with pytest.warns(DeprecationWarning, match=f"{name}.*{cure}") as caught:
        make(**{name: value})
    assert len(caught) == 1


def test_published_gradient_computer_chooses_the_engine(make, case):
    with pytest.warns(DeprecationWarning, match="gradient_computer"):
        traker = make(gradient_computer=IterativeGradientComputer)
    run(traker, case)
    assert traker.session._engine.engine.name == "loop"


def test_device_defaults_to_the_best_one(make):
    assert make().device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_indices_in_any_order_give_the_same_store_as_sequential_batches(make, case, tmp_path):
    sequential = run(make(), case)
    shuffled = make(save_dir=tmp_path / "other")
    shuffled.load_checkpoint(case.model.state_dict(), 0)
    x, y = (torch.cat(t) for t in zip(*case.batches, strict=True))
    for inds in torch.randperm(23).split(5):
        shuffled.featurize((x[inds], y[inds]), inds=inds)
    shuffled.finalize_features([0])
    shuffled.start_scoring_checkpoint("test", case.model.state_dict(), 0, 8)
    shuffled.score(case.batches[0], inds=list(range(8)))
    np.testing.assert_allclose(shuffled.finalize_scores("test"), sequential, rtol=1e-4, atol=1e-6)


def test_rescoring_other_targets_under_one_name_replaces_them_and_keeps_the_array_handed_out(make, case):
    traker = make()
    first = run(traker, case)
    kept = first.copy()
    traker.start_scoring_checkpoint("test", case.model.state_dict(), 0, 8)
    traker.score(case.batches[1])
    second = traker.finalize_scores("test")
    traker.start_scoring_checkpoint("direct", case.model.state_dict(), 0, 8)
    traker.score(case.batches[1])
    np.testing.assert_array_equal(second, traker.finalize_scores("direct"))
    assert (second != kept).any()
    np.testing.assert_array_equal(first, kept)


def test_another_damping_or_subset_of_checkpoints_is_never_answered_from_what_was_kept(make, case):
    first = np.array(run(make(), case))
    other = make(damping=0.1).finalize_scores("test")
    assert (first != other).any()
    np.testing.assert_array_equal(make().finalize_scores("test"), first)


def test_two_model_ids_with_the_same_weights_are_pointed_out(make, case):
    traker = make()
    traker.load_checkpoint(case.model.state_dict(), 0)
    with pytest.warns(UserWarning, match="model_ids 3 and 0 have the same weights.*deepcopy"):
        traker.load_checkpoint(case.model.state_dict(), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what was said is not said again
        traker.load_checkpoint(case.model.state_dict(), 3)


def test_models_keep_their_state_after_every_call(make, case):
    case.model.train()
    state = {k: v.clone() for k, v in case.model.state_dict().items()}
    run(make(), case)
    assert all(m.training for m in case.model.modules())
    assert all(torch.equal(v, state[k]) for k, v in case.model.state_dict().items())


class TestBadInput:
    """Each with an error that names the value and the cure, and nothing stored lost."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"train_set_size": 24}, "train_set_size=23.*train_set_size=24"),
            ({"proj_dim": 32}, "proj_dim=16.*proj_dim=32"),
            ({"projector_seed": 5}, "seed=0.*seed=5"),
            ({"projector": "gaussian"}, "kind='sketch'.*kind='gaussian'"),
            ({"use_half_precision": True}, "dtype='float32'.*dtype='float16'"),
            ({"dtype": "int8"}, "dtype='float32'.*dtype='int8'"),
            ({"dtype": "int4"}, "unknown dtype 'int4'.*int8"),
            ({"dtype": "int8", "use_half_precision": True}, "dtype='int8' and use_half_precision=True"),
            ({"grad_wrt": ["5.weight"]}, "6 parameters .*1 parameters"),
            ({"task": trak.tasks.ImageClassification(temperature=2)}, "temperature=1.0.*temperature=2.0"),
            ({"task": "regression"}, "name='image_classification'.*name='regression'"),
        ],
    )
    def test_other_configuration_than_the_stores(self, make, case, tmp_path, change, message):
        run(make(), case)
        before = files(tmp_path)
        with pytest.raises(ValueError, match=message):
            make(**change)
        assert files(tmp_path) == before

    def test_another_checkpoint_under_a_used_model_id(self, make, case, tmp_path):
        traker = make()
        run(traker, case)
        before = files(tmp_path)
        other = {k: v + 1 for k, v in case.model.state_dict().items()}
        for call in (
            lambda: traker.load_checkpoint(other, 0),
            lambda: traker.start_scoring_checkpoint("test", other, 0, 8),
        ):
            with pytest.raises(ValueError, match=r"model_id 0.*fingerprint.*id of its own"):
                call()
        assert files(tmp_path) == before

    @pytest.mark.parametrize(
        ("inds", "error", "message"),
        [
            ([0, 1, 2, 3, 4, 5, 6, 23], ValueError, "out of range.*23, expected 0 to 22"),
            ([-1, 1, 2, 3, 4, 5, 6, 7], ValueError, "out of range.*-1"),
            ([0, 1, 2, 3, 4, 5, 6, 6], ValueError, "index 6 is repeated"),
            ([0, 1, 2], ValueError, "inds has 3 entries, but the batch holds 8"),
            (np.linspace(0, 1, 8), TypeError, "inds must be integers, got float64"),
        ],
    )
    def test_indices(self, make, case, inds, error, message):
        traker = make()
        traker.load_checkpoint(case.model.state_dict(), 0)
        with pytest.raises(error, match=message):
            traker.featurize(case.batches[0], inds=inds)
        assert not open_store(traker.store.where).table(0).is_done().any()

    def test_num_samples_of_a_ragged_last_batch(self, make, case):
        traker = make()
        traker.load_checkpoint(case.model.state_dict(), 0)
        with pytest.raises(ValueError, match="num_samples=8, but the batch holds 7 examples"):
            traker.featurize(case.batches[-1], num_samples=8)

    def test_more_examples_than_train_set_size(self, make, case):
        traker = make()
        traker.load_checkpoint(case.model.state_dict(), 0)
        for batch in case.batches:
            traker.featurize(batch)
        with pytest.raises(ValueError, match="more examples than train_set_size=23: this batch would reach 31"):
            traker.featurize(case.batches[0])

    def test_too_few_rows_at_finalize(self, make, case):
        traker = make()
        with pytest.raises(ValueError, match="no checkpoint to finalize"):
            traker.finalize_features()
        traker.load_checkpoint(case.model.state_dict(), 0)
        traker.featurize(case.batches[0])
        with pytest.raises(ValueError, match="15 of 23 training examples are not featurized, the first is 8"):
            traker.finalize_features()
        with pytest.raises(ValueError, match="no checkpoint with model_id 7"):
            traker.finalize_features([7])

    def test_calls_in_the_wrong_order(self, make, case):
        traker = make()
        with pytest.raises(ValueError, match="call load_checkpoint before featurize"):
            traker.featurize(case.batches[0])
        with pytest.raises(ValueError, match="call start_scoring_checkpoint before score"):
            traker.score(case.batches[0])
        traker.load_checkpoint(case.model.state_dict(), 0)
        with pytest.raises(ValueError, match="not finalized, cannot score: call finalize_features"):
            traker.start_scoring_checkpoint("test", case.model.state_dict(), 0, 8)
        with pytest.raises(ValueError, match="unknown experiment 'test'"):
            traker.finalize_scores("test")

    def test_targets_not_all_scored(self, make, case):
        traker = make()
        run(traker, case)
        traker.start_scoring_checkpoint("half", case.model.state_dict(), 0, 16)
        traker.score(case.batches[0])
        with pytest.raises(ValueError, match="'half', model_id 0: 8 of 16 targets are not featurized, the first is 8"):
            traker.finalize_scores("half")

    def test_checkpoint_without_targets_is_refused_or_skipped_with_a_warning(self, make, case):
        traker = make()
        expected = run(traker, case)
        traker.load_checkpoint({k: v + 1 for k, v in case.model.state_dict().items()}, 1)
        for batch in case.batches:
            traker.featurize(batch)
        traker.finalize_features([1])
        with pytest.raises(ValueError, match="no targets featurized by model_id 1"):
            traker.finalize_scores("test")
        with pytest.warns(UserWarning, match=r"model_ids \[1\].*skipped"):
            np.testing.assert_array_equal(traker.finalize_scores("test", allow_skip=True), expected)

    def test_experiment_reopened_with_another_number_of_targets(self, make, case):
        traker = make()
        run(traker, case)
        with pytest.raises(ValueError, match="num_targets=8, got num_targets=9"):
            traker.start_scoring_checkpoint("test", case.model.state_dict(), 0, 9)

    @pytest.mark.parametrize("label", [3, -1])
    @pytest.mark.parametrize("when", ["first", "later"])
    def test_label_out_of_range(self, make, case, label, when):
        traker = make()
        traker.load_checkpoint(case.model.state_dict(), 0)
        if when == "later":
            traker.featurize(case.batches[1], inds=range(8, 16))
        x, y = case.batches[0]
        y = y.clone()
        y[5] = label
        with pytest.raises(ValueError, match=f"label out of range: {label} in row 5.*3 classes"):
            traker.featurize((x, y), inds=range(8))
        assert not traker.store.table(0).is_done()[:8].any()

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_non_finite_input_names_the_example_and_the_checkpoint(self, make, case, value):
        traker = make()
        traker.load_checkpoint(case.model.state_dict(), 4)
        x, y = case.batches[1]
        x = x.clone()
        x[2, 0, 1, 1] = value
        with pytest.raises(
            ValueError, match=r"example 10 \(row 2.*model_id 4: input 0 of the batch holds NaN or infinity"
        ):
            traker.featurize((x, y), inds=range(8, 16))

    def test_non_finite_weights_name_the_parameter_and_the_checkpoint(self, make, case):
        traker = make()
        state = {k: v.clone() for k, v in case.model.state_dict().items()}
        state["5.weight"][0, 0] = torch.nan
        traker.load_checkpoint(state, 2)
        with pytest.raises(ValueError, match=r"model_id 2 holds NaN or infinity in '5.weight'"):
            traker.featurize(case.batches[0])

    def test_non_finite_gradient_names_the_layer_the_example_and_the_checkpoint(self, tmp_path):
        class Root(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale, self.head = nn.Parameter(torch.ones(1)), nn.Linear(3, 1)

            def forward(self, x):
                return self.head(x) + (self.scale * x[:, :1]).sqrt()

        model = Root()
        traker = trak.TRAKer(model, "regression", 4, tmp_path, proj_dim=8)
        traker.load_checkpoint(model.state_dict(), 1)
        x = torch.ones(4, 3)
        x[3, 0] = 0
        with pytest.raises(ValueError, match=r"example 3 .*model_id 1: the gradient of 'scale' is not finite"):
            traker.featurize((x, torch.zeros(4)))

    @pytest.mark.parametrize("batch", [(torch.zeros(0, 1, 6, 6), torch.zeros(0)), (), {}, ("a", "b"), None])
    def test_empty_batch(self, make, case, batch):
        traker = make()
        traker.load_checkpoint(case.model.state_dict(), 0)
        with pytest.raises((ValueError, TypeError), match=r"0 examples|first dimension counts examples"):
            traker.featurize(batch)

    def test_other_data_under_indices_already_featurized(self, make, case, tmp_path):
        traker = make()
        run(traker, case)
        before = files(tmp_path)
        again = make()
        again.load_checkpoint(case.model.state_dict(), 0)
        with pytest.raises(ValueError, match=r"training example 0 was featurized from other data.*shuffled loader"):
            again.featurize(case.batches[1])
        assert files(tmp_path) == before

    def test_unknown_names_suggest_the_nearest(self, make, tmp_path):
        for options, message in (
            ({"task": "image_clasification"}, "did you mean 'image_classification'"),
            ({"projector": "skech"}, "did you mean 'sketch'"),
            ({"engine": "functionl"}, "did you mean 'functional'"),
            ({"weighting": "gnn"}, "did you mean 'ggn'"),
        ):
            with pytest.raises(ValueError, match=message):
                make(**options)
        assert not (tmp_path / "store").exists()

    def test_arguments_of_the_wrong_kind(self, make):
        for options, error, message in (
            ({"model": "resnet"}, TypeError, "torch.nn.Module, got str"),
            ({"task": 3}, TypeError, "got int"),
            ({"projector": 3}, TypeError, "got int"),
            ({"train_set_size": 0}, ValueError, "positive integer, got 0"),
            ({"memory_budget": 0}, ValueError, "positive integer, in bytes, got 0"),
            ({"damping": 1, "lambda_reg": 1}, ValueError, "not both"),
        ):
            with pytest.raises(error, match=message):
                make(**options)

    @pytest.mark.parametrize(
        ("model_id", "error"), [(-1, ValueError), ("0", TypeError), (True, TypeError), (1.0, TypeError)]
    )
    def test_model_ids(self, make, case, model_id, error):
        with pytest.raises(error, match=f"model_id must be.*{model_id}"):
            make().load_checkpoint(case.model.state_dict(), model_id)

    def test_pickle_that_is_no_weights_file_is_never_run(self, make, tmp_path):
        class Evil:
            def __reduce__(self):
                return (shutil.rmtree, (str(tmp_path / "precious"),))

        (tmp_path / "precious").mkdir()
        (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
        with pytest.raises(ValueError, match=r"evil.pt.*can't be read as weights"):
            make().load_checkpoint(tmp_path / "evil.pt", 0)
        assert (tmp_path / "precious").exists()

    def test_checkpoint_that_does_not_fit(self, make):
        with pytest.raises(ValueError, match=r"does not fit the model \(Sequential\)"):
            make().load_checkpoint(nn.Linear(2, 2).state_dict(), 0)


def test_text_and_regression_batches_work_through_the_same_calls(tmp_path):
    for name, make_case in (("texts", texts), ("numbers", numbers)):
        case = make_case()
        traker = trak.TRAKer(case.model, case.task, 23, tmp_path / name, proj_dim=16)
        assert run(traker, case).shape == (23, 8)


class TestStateBetweenCalls:
    """What the caller does between two calls must not end up in the wrong rows."""

    def load(self, make, case):
        traker = make()
        traker.load_checkpoint(case.model.state_dict(), 0)
        return traker

    def test_after_a_checkpoint_that_did_not_load_nothing_is_featurized(self, make, case):
        traker = self.load(make, case)
        traker.featurize(case.batches[0])
        other = {
            name: value + 1 if value.is_floating_point() else value for name, value in case.model.state_dict().items()
        }
        del other["5.bias"]
        with pytest.raises(ValueError, match="does not fit the model"):
            traker.load_checkpoint(other, 0)
        with pytest.raises(ValueError, match="no checkpoint is loaded"):
            traker.featurize(case.batches[1])

    def test_weights_changed_after_loading_are_noticed(self, make, case):
        traker = self.load(make, case)
        traker.featurize(case.batches[0])
        with torch.no_grad():
            traker.model[5].weight.add_(1)
        with pytest.raises(ValueError, match=r"weights were changed after load_checkpoint.*a model of its own"):
            traker.featurize(case.batches[1])

    def test_a_model_may_count_its_own_calls(self, make, case):
        class Counting(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("calls", torch.zeros(()))

            def forward(self, x):
                self.calls += 1
                return x

        case.model[2] = nn.Sequential(nn.Tanh(), Counting())
        traker = self.load(make, case)
        for batch in case.batches:
            traker.featurize(batch)
        assert traker.store.table(0).is_done().all()

    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    def test_gradients_turned_off_by_the_caller_change_nothing(self, make, case, context, tmp_path):
        found = []
        for turned_off in (contextlib.nullcontext(), context()):
            traker = make(save_dir=tmp_path / str(len(found)))
            with turned_off:
                batch = tuple(t.clone() for t in case.batches[0])
                traker.load_checkpoint(case.model.state_dict(), 0)
                traker.featurize(batch)
            found.append(traker.store.table(0).features.read()[:8])
        assert np.abs(found[0]).max() > 0
        np.testing.assert_array_equal(*found)

    def test_overlapped_writes_store_the_same_bytes(self, make, case, tmp_path):
        with (behind := make(save_dir=tmp_path / "behind")).overlapped():
            run(behind, case)
        run(make(save_dir=tmp_path / "at_once"), case)
        contents = [[*files(tmp_path / name).values()] for name in ("behind", "at_once")]
        assert contents[0] == contents[1]

    def test_overlapped_writes_are_seen_by_the_calls_that_follow(self, make, case):
        traker = self.load(make, case)
        with traker.overlapped():
            traker.featurize(case.batches[0])
            x, y = case.batches[0]
            with pytest.raises(ValueError, match="was featurized from other data"):
                traker.featurize((x + 1, y), inds=range(len(y)))
            traker.featurize(case.batches[1])
            assert traker.store.table(0).is_done()[: 2 * len(y)].all()

    @pytest.mark.parametrize("calls", [1, 2])
    def test_an_overlapped_write_that_fails_is_an_error_at_the_latest_on_leaving(self, make, case, monkeypatch, calls):
        traker = self.load(make, case)

        def full(*_):
            raise OSError("no room")

        monkeypatch.setattr(type(traker.store.table(0)), "write", full)
        with pytest.raises(OSError, match="no room"), traker.overlapped():  # noqa: PT012
            for batch in case.batches[:calls]:
                traker.featurize(batch)
        with pytest.raises(OSError, match="no room"):
            traker.featurize(case.batches[0], inds=range(len(case.batches[0][1])))

    def test_code_that_changed_since_is_noticed(self, make, case):
        self.load(make, case).featurize(case.batches[0])
        traker = self.load(make, case)
        traker.model[2] = nn.ReLU()
        with pytest.raises(
            ValueError, match=r"training example \d has output .* the code of the model or the task has changed"
        ):
            traker.featurize(case.batches[0])

    def test_output_that_depends_on_no_parameter_is_refused(self, make, case):
        class Detached(type(make_task("image_classification"))):
            def output(self, model, batch):
                return super().output(model, batch).detach()

        traker = make(task=Detached())
        traker.load_checkpoint(case.model.state_dict(), 0)
        with pytest.raises(ValueError, match=r"depends on none of the parameters .*; remove torch.no_grad and detach"):
            traker.featurize(case.batches[0])

    def test_loss_without_curvature_is_refused_under_curvature_weighting(self, make, case):
        class Hinge(type(make_task("image_classification"))):
            def loss(self, output):
                return (1 - output).clamp(min=0)

        traker = make(task=Hinge())
        traker.load_checkpoint(case.model.state_dict(), 0)
        for batch in case.batches:
            traker.featurize(batch)
        with pytest.raises(ValueError, match="use weighting='identity'"):
            traker.finalize_features()

    def test_features_too_large_to_be_multiplied_are_named(self, make, case):
        traker = make(weighting="identity")
        with torch.no_grad():
            case.model[5].weight.mul_(1e25)
        traker.load_checkpoint(case.model.state_dict(), 0)
        for batch in case.batches:
            traker.featurize(batch)
        with pytest.raises(ValueError, match="Gram matrix of the features is not finite"):
            traker.finalize_features()
