"""One call for the common case, and its result."""

import inspect
import logging
import re
import shutil
import warnings

import numpy as np
import pytest
import torch
from models import images, numbers, sequences, texts
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler, TensorDataset

import trak


@pytest.fixture
def case():
    return images()


@pytest.fixture
def data(case):
    return TensorDataset(*(torch.cat(t) for t in zip(*case.batches, strict=True)))


@pytest.fixture
def call(case, tmp_path):
    def call(train, targets=None, **options):
        return trak.attribute(
            case.model, case.task, options.pop("checkpoints", [case.model.state_dict()]), train,
            train if targets is None else targets, options.pop("save_dir", tmp_path / "store"), proj_dim=16,
            progress=False, **options,
        )  # fmt: skip

    return call


def test_attribute_equals_traker_step_by_step(case, data, call, tmp_path):
    states = [{k: v + i for k, v in case.model.state_dict().items()} for i in range(2)]
    found = call(DataLoader(data, batch_size=8), DataLoader(data, batch_size=5), checkpoints=states)
    traker = trak.TRAKer(case.model, case.task, 23, tmp_path / "steps", proj_dim=16)
    for i, state in enumerate(states):
        traker.load_checkpoint(state, i)
        for batch in case.batches:
            traker.featurize(batch)
    traker.finalize_features()
    for i, state in enumerate(states):
        traker.start_scoring_checkpoint("targets", state, i, 23)
        for batch in DataLoader(data, batch_size=5):
            traker.score(batch)
    np.testing.assert_array_equal(found.scores, traker.finalize_scores("targets"))


def test_each_option_of_attribute_is_named_in_its_help_and_no_other():
    named = re.findall(r"^        (\w+(?:, \w+)*): ", trak.attribute.__doc__, flags=re.MULTILINE)
    options = {name for names in named for name in names.split(", ")} - {"ValueError", "TypeError"}
    errors = {name for name in options if name.endswith("Error")}
    assert options - errors == inspect.signature(trak.attribute).parameters.keys()


def test_parameters_without_a_fast_engine_are_told_once_with_their_layer_and_the_ways_out(tmp_path):
    model, task, batches = sequences()
    states = [{k: v + i for k, v in model.state_dict().items()} for i in range(2)]
    for folder in ("a", "b"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trak.attribute(model, task, states, batches, batches, tmp_path / folder, proj_dim=16, progress=False)
        (said,) = [str(w.message) for w in caught if "one example at a time" in str(w.message)]
        for part in ("of LSTM 'lstm' (5 parameters) are", "with grad_wrt", "trak.gradients.register_layer"):
            assert part in said
        assert "Error" not in said


@pytest.mark.parametrize("kind", ["path", "module", "callable", "single state", "single path"])
def test_checkpoints_of_every_kind_mean_the_same(case, call, tmp_path, kind):
    state = case.model.state_dict()
    torch.save(state, tmp_path / "a.pt")
    checkpoints = {
        "path": [str(tmp_path / "a.pt")],
        "module": [images().model],
        "callable": [lambda: tmp_path / "a.pt"],
        "single state": state,
        "single path": tmp_path / "a.pt",
    }[kind]
    expected = call(case.batches)
    found = call(case.batches, checkpoints=checkpoints, save_dir=tmp_path / "other")
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_weights_modes_and_flags_are_as_found(case, call):
    case.model.train()
    case.model[0].bias.requires_grad_(False)
    before = {k: v.clone() for k, v in case.model.state_dict().items()}
    call(case.batches, checkpoints=[{k: v + 1 for k, v in before.items()}])
    assert all(torch.equal(v, before[k]) for k, v in case.model.state_dict().items())
    assert case.model.training
    assert not case.model[0].bias.requires_grad


def test_the_models_own_state_dict_among_the_checkpoints_is_not_overwritten(case, call, tmp_path):
    own = case.model.state_dict()
    other = {k: v + 1 for k, v in own.items()}
    kept = {k: v.clone() for k, v in own.items()}
    aliased = call(case.batches, checkpoints=[other, own]).scores
    copied = call(case.batches, checkpoints=[other, kept], save_dir=tmp_path / "other").scores
    np.testing.assert_array_equal(aliased, copied)


def test_second_call_computes_nothing_again(case, call, monkeypatch):
    first = call(case.batches)
    kept = np.array(first.scores)
    monkeypatch.setattr("trak.attribution.session.featurize", lambda *_: pytest.fail("featurized again"))
    monkeypatch.setattr("trak.attribution.traker.gram", lambda *_: pytest.fail("finalized again"))
    np.testing.assert_array_equal(call(case.batches).scores, kept)


def test_dict_batches_and_batch_encodings_and_tuples_give_the_same_scores(tmp_path):
    BatchEncoding = pytest.importorskip("transformers").BatchEncoding
    model, task, batches = texts()
    state, found = model.state_dict(), {}
    for name, convert in (("dict", dict), ("encoding", BatchEncoding), ("tuple", lambda b: tuple(b.values()))):
        data = [convert(b) for b in batches]
        found[name] = trak.attribute(
            model, task, state, data, data, tmp_path / name, proj_dim=16, progress=False
        ).scores
    np.testing.assert_array_equal(found["dict"], found["encoding"])
    np.testing.assert_array_equal(found["dict"], found["tuple"])


def test_regression_attribution_by_name(tmp_path):
    model, task, batches = numbers()
    found = trak.attribute(model, task, model.state_dict(), batches, batches, tmp_path, proj_dim=16, progress=False)
    assert found.shape == found.scores.shape == (23, 23)


@pytest.mark.parametrize("kind", ["train", "targets"])
def test_other_data_for_one_checkpoint_than_for_another_is_noticed(case, tmp_path, kind):
    traker = trak.TRAKer(case.model, case.task, np.int64(23), tmp_path, proj_dim=16)
    states = [{k: v + i for k, v in case.model.state_dict().items()} for i in range(2)]
    orders = ([0, 1, 2], [1, 0, 2])
    for i, state in enumerate(states):
        traker.load_checkpoint(state, i)
        for j in orders[i if kind == "train" else 0]:
            traker.featurize(case.batches[j])
    traker.finalize_features()
    for i, state in enumerate(states):
        traker.start_scoring_checkpoint("t", state, i, 8)
        traker.score(case.batches[i if kind == "targets" else 0])
    if kind == "targets":
        with pytest.raises(
            ValueError, match="target 0 of experiment 't' is other data for model_id 1 than for model_id 0"
        ):
            traker.finalize_scores("t")
    else:
        with pytest.warns(UserWarning, match="training example 0 is other data for model_id 1 .*shuffled loader"):
            traker.finalize_scores("t")


class TestLoaders:
    """What can be iterated in a known order, and what is refused."""

    @pytest.mark.parametrize("sampler", ["shuffle", "batch_sampler"])
    def test_own_order_without_indices_is_refused_with_the_reason(self, data, call, sampler):
        loader = (
            DataLoader(data, 8, shuffle=True)
            if sampler == "shuffle"
            else DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 8, False))
        )
        with pytest.raises(ValueError, match=r"train is a DataLoader with its own order.*index_key"):
            call(loader)
        with pytest.raises(ValueError, match=r"targets is a DataLoader with its own order"):
            call(DataLoader(data, 8), loader)

    @pytest.mark.parametrize("key", [2, "index"])
    def test_own_order_with_indices_gives_the_scores_of_the_plain_order(self, data, call, tmp_path, key):
        plain = call(DataLoader(data, 8)).scores
        x, y = data.tensors
        rows = [(x[i], y[i], i) for i in range(23)]
        if key == "index":
            rows = [{"image": x, "label": y, "index": i} for x, y, i in rows]
        found = call(DataLoader(rows, 8, shuffle=True), index_key=key, save_dir=tmp_path / "shuffled").scores
        np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-5)

    def test_wrong_index_key_is_refused(self, data, call):
        for key in (7, "idx"):
            with pytest.raises(ValueError, match=f"index_key={key!r} names no field"):
                call(DataLoader(data, 8), index_key=key)

    def test_dropped_last_batch_is_refused(self, data, call):
        with pytest.raises(ValueError, match="drop_last=True, which would leave out 7 of 23"):
            call(DataLoader(data, 8, drop_last=True))

    def test_explicit_sequential_batch_sampler_is_in_order(self, data, call):
        loader = DataLoader(data, batch_sampler=BatchSampler(SequentialSampler(data), 8, False))
        assert call(loader).shape == (23, 23)

    def test_unbatched_sequential_loader_of_ready_batches_is_in_order(self, case, call):
        loader = DataLoader(case.batches, batch_size=None)
        assert call(loader, train_set_size=23, num_targets=23).shape == (23, 23)

    def test_iterator_that_can_be_read_only_once_is_refused(self, case, call):
        with pytest.raises(TypeError, match="train is an iterator, which can be read only once"):
            call(iter(case.batches))

    def test_loader_without_examples_and_empty_checkpoints_are_refused(self, case, call):
        with pytest.raises(ValueError, match="targets yields no examples"):
            call(case.batches, [])
        with pytest.raises(ValueError, match="checkpoints is empty"):
            call(case.batches, checkpoints=[])


class TestAttribution:
    """The result."""

    @pytest.fixture
    def found(self, case, call):
        return call(case.batches, [case.batches[0]])

    def test_nothing_is_computed_before_it_is_asked_for(self, found, tmp_path):
        assert not list(tmp_path.rglob("scores"))
        assert isinstance(found.scores, np.memmap)
        assert found.scores is found.scores

    def test_top_and_bottom_are_the_ends_of_each_column(self, found):
        top, bottom = found.top(k=3), found.top(k=3, bottom=True)
        assert (top.indices[:, 0] == found.scores.argmax(axis=0)).all()
        assert (bottom.indices[:, 0] == found.scores.argmin(axis=0)).all()
        assert (np.diff(top.scores, axis=1) <= 0).all()
        assert (np.diff(bottom.scores, axis=1) >= 0).all()

    def test_frame_holds_a_row_for_each_target_and_rank(self, found):
        frame, top = found.to_frame(k=4), found.top(k=4)
        assert list(frame.columns) == ["target", "rank", "train_index", "score"]
        assert len(frame) == 32
        row = frame[(frame.target == 5) & (frame["rank"] == 2)].iloc[0]
        assert row.train_index == top.indices[5, 1]
        assert row.score == top.scores[5, 1]

    def test_opened_again_it_gives_the_same(self, found, tmp_path):
        opened = trak.Attribution.open(tmp_path / "store")
        np.testing.assert_array_equal(opened.scores, found.scores)
        assert repr(opened) == repr(found)
        assert repr(found) == (
            "Attribution('targets': 8 targets to 23 training examples, 1 checkpoint, weighting=ggn, "
            "damping=3 (auto), loss_temperature=3)"
        )
        with pytest.raises(ValueError, match=r"unknown experiment 'target' .*did you mean 'targets'\?"):
            trak.Attribution.open(tmp_path / "store", "target")

    def test_picture_has_a_row_for_each_target(self, found, case, tmp_path):
        pytest.importorskip("matplotlib").use("Agg")
        from matplotlib import image

        x = torch.cat([b[0] for b in case.batches])
        labels = list(range(23))
        path = found.show_images(x, x, train_labels=labels, targets=[0, 1, 2], k=2, path=tmp_path / "sub" / "a.png")
        low = found.show_images(x, x, targets=[0], k=2, path=tmp_path / "b.png")
        heights = [image.imread(p).shape[0] for p in (path, low)]
        assert heights[0] > 1.8 * heights[1]
        assert image.imread(path)[..., :3].std() > 0.05
        with pytest.raises(ValueError, match="targets must be between 0 and 7, got 8"):
            found.show_images(x, x, targets=[8])


def test_logging_says_which_engine_was_chosen(case, call, caplog):
    with caplog.at_level(logging.INFO, logger="trak"):
        call(case.batches)
    assert "engine: hooks for 6 parameters" in caplog.text


@pytest.mark.parametrize("row", [0, 8, 22])
@pytest.mark.parametrize("what", [0, 1])
def test_training_data_that_changed_anywhere_is_an_error_once_all_is_done(case, data, call, row, what):
    states = [{k: v + i for k, v in case.model.state_dict().items()} for i in range(2)]
    call(DataLoader(data, batch_size=8), DataLoader(data, batch_size=5), checkpoints=states)
    changed = [t.clone() for t in data.tensors]
    changed[what][row] = (changed[what][row] + 1) % 3
    with pytest.raises(ValueError, match=f"training example {row} was featurized from other data"):
        call(DataLoader(TensorDataset(*changed), batch_size=8), DataLoader(data, batch_size=5), checkpoints=states)


def test_the_data_of_a_finished_store_is_read_once_and_not_for_each_checkpoint(case, call):
    read = []

    class Batches(list):
        def __iter__(self):
            for batch in super().__iter__():
                read.append(len(batch[0]))
                yield batch

    states = [{k: v + i for k, v in case.model.state_dict().items()} for i in range(3)]
    train = Batches(case.batches)
    for _ in range(2):
        read.clear()
        call(train, case.batches, checkpoints=states, train_set_size=23)
    assert sum(read) == 23 + 2 * len(case.batches[0][0])


def test_weights_of_ones_own_task_that_changed_are_an_error(case, tmp_path):
    class Weighted(trak.tasks.ImageClassification):
        factor = staticmethod(lambda: 1.0)

        def weights(self, model, batch, output):
            q, r = super().weights(model, batch, output)
            return q * self.factor(), r

    def attribute():
        args = case.model, Weighted(), case.model.state_dict(), case.batches, case.batches, tmp_path
        return trak.attribute(*args, proj_dim=16, progress=False)

    attribute()
    Weighted.factor = staticmethod(lambda: 100.0)
    with pytest.raises(ValueError, match=r"has out_to_loss_grad .* now, .* the code of the model or the task has chan"):
        attribute()


def test_checkpoints_in_another_order_are_an_error_that_says_so(case, call):
    states = [{k: v + i for k, v in case.model.state_dict().items()} for i in range(2)]
    call(case.batches, checkpoints=states)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="the order of before, where it is model_id 1"):
            call(case.batches, checkpoints=states[::-1])


def test_settings_of_a_call_that_failed_before_it_stored_anything_can_be_done_away_with(case, call, tmp_path):
    with pytest.raises(ValueError, match="input 0 of the batch holds NaN"):
        call([(torch.full_like(x, torch.nan), y) for x, y in case.batches])
    with pytest.raises(ValueError, match=r"train_set_size=23, .* or delete .*store, where no row is stored yet"):
        call(case.batches[:1])
    shutil.rmtree(tmp_path / "store")
    call(case.batches[:1])
    with pytest.raises(ValueError, match=r"Nothing stored was changed$"):
        call(case.batches)


def test_other_targets_of_the_same_name_replace_those_that_were_stored_with_a_warning(case, call):
    call(case.batches)
    with pytest.warns(
        UserWarning, match="target 0 of experiment 'targets' is another .* an exp_name of its own"
    ) as said:
        call(case.batches, case.batches[::-1])
    assert len(said) == 1


def test_an_attribution_whose_targets_were_replaced_says_so(case, call):
    first = call(case.batches)
    first.top(2)
    call(case.batches, case.batches[::-1])
    with pytest.raises(ValueError, match="replaced by others since this attribution was made; give each set"):
        first.top(2)


def test_a_checkpoint_deleted_and_made_again_leaves_no_old_scores(case, call, tmp_path):
    before = np.array(call(case.batches).scores)
    (store,) = {path.parents[1] for path in tmp_path.rglob("checkpoints/0")}
    shutil.rmtree(store / "checkpoints" / "0")
    with torch.no_grad():
        case.model[5].weight.neg_()
    after = np.array(call(case.batches).scores)
    assert np.abs(after - before).max() > 1e-3 * np.abs(before).max()


def test_by_default_no_more_examples_are_asked_for_than_there_are(case, call):
    found = call(case.batches)
    assert found.top().indices.shape == (found.shape[1], min(10, found.shape[0]))
    with pytest.raises(TypeError, match=r"k must be an integer, got 2.5"):
        found.top(2.5)


def test_a_map_style_dataset_is_read_as_by_a_loader_over_it(case, tmp_path):
    data = torch.utils.data.TensorDataset(*(torch.cat(parts) for parts in zip(*case.batches, strict=True)))
    loader = torch.utils.data.DataLoader(data, batch_size=5)

    def scores(name, train, targets, **options):
        found = trak.attribute(
            case.model, "image_classification", case.model.state_dict(), train, targets, tmp_path / name, proj_dim=16,
            progress=False, **options,
        )  # fmt: skip
        return np.array(found.scores)

    expected = scores("loader", loader, loader)
    np.testing.assert_array_equal(scores("both", data, data, batch_size=5), expected)
    np.testing.assert_array_equal(scores("one", data, loader, batch_size=5), expected)
    with pytest.raises(ValueError, match=r"batch_size=5 .*train \(DataLoader\) .* yield batches already"):
        scores("none", loader, loader, batch_size=5)
    with pytest.raises(ValueError, match=r"batch_size must be a positive integer, got 0"):
        scores("none", data, data, batch_size=0)


class Flipped(Dataset):
    """Images, some of which are flipped at random."""

    def __init__(self, data, random=True):
        self.data, self.random = data, random

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        image, label = self.data[index]
        return (image.flip(-1) if self.random and torch.rand(()) < 0.5 else image), label


@pytest.mark.parametrize("what", ["train", "targets"])
@pytest.mark.parametrize("loaded", [True, False])
def test_random_transforms_are_warned_of_before_anything_is_computed(data, call, what, loaded):
    torch.manual_seed(0)
    both = {"train": Flipped(data, random=False), "targets": Flipped(data, random=False), what: Flipped(data)}
    if loaded:
        both = {name: DataLoader(one, 8) for name, one in both.items()}
    with pytest.warns(UserWarning, match=rf"example \d of {what} is other data when it is read again.*transforms of"):
        call(**both)


def test_data_that_stay_the_same_are_not_warned_of(data, call):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(DataLoader(Flipped(data, random=False), 8), Flipped(data, random=False))


def test_what_workers_read_is_not_read_by_this_process_before_them(data, call):
    here = []

    class Noted(Flipped):
        def __getitem__(self, index):
            here.append(index)  # by a worker to a list of its own
            return super().__getitem__(index)

    call(DataLoader(Noted(data, random=False), 8, num_workers=1), DataLoader(data, 8))
    assert here == []


@pytest.mark.parametrize("last, warned", [(torch.nn.Softmax(-1), True), (torch.nn.LogSoftmax(-1), False)])
def test_a_model_that_returns_probabilities_is_warned_of(tmp_path, last, warned):
    torch.manual_seed(0)
    model, batch = torch.nn.Sequential(torch.nn.Linear(5, 3), last), [(torch.randn(6, 5), torch.arange(6) % 3)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trak.attribute(model, "classification", model.state_dict(), batch, batch, tmp_path, proj_dim=4, progress=False)
    assert any("look like probabilities" in str(w.message) for w in caught) == warned


def test_an_iterable_dataset_is_refused_with_the_cure(case):
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(case.batches)

    with pytest.raises(TypeError, match=r"train is a Dataset.*DataLoader\(train"):
        trak.attribute(case.model, "image_classification", case.model.state_dict(), Endless(), case.batches)


def test_strings_of_a_batch_belong_to_their_examples(tmp_path):
    class Lengths(trak.tasks.Task):
        def output(self, model, batch):
            return model(torch.tensor([[float(len(text))] for text in batch["text"]])).squeeze(-1) * batch["weight"]

    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    texts, weight = ["a", "bcd", "efghi", "jk"], torch.rand(4)

    def scores(name, texts):
        train = [{"text": texts, "weight": weight}]
        found = trak.attribute(
            model, Lengths(), model.state_dict(), train, train, tmp_path / name, projector="identity", progress=False
        )
        return np.array(found.scores), found.experiment.store.table(0).features.read()

    _, features = scores("whole", texts)
    np.testing.assert_allclose(
        features[:, 0], [len(t) * float(w) for t, w in zip(texts, weight, strict=True)], rtol=1e-6
    )
    with pytest.raises(ValueError, match="example 0 was featurized from other data"):
        scores("whole", ["other", *texts[1:]])
