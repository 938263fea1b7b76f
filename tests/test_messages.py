"""What errors say: the value that is wrong, and what to do."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import trak
from trak.baselines import BM25, InfluenceFunctions

torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
X, Y = torch.randn(20, 8), torch.randint(0, 3, (20,))
TRAIN, TARGETS = [(X[:10], Y[:10]), (X[10:], Y[10:])], [(X[:4], Y[:4])]
DATA = TensorDataset(X, Y)
OTHER = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5))


@pytest.fixture
def attribute(tmp_path):
    def call(**changed):
        given = {
            "model": MODEL, "task": "image_classification", "checkpoints": MODEL.state_dict(), "train": TRAIN,
            "targets": TARGETS, "save_dir": tmp_path / "store", "proj_dim": 16, "progress": False,
        }  # fmt: skip
        return trak.attribute(**{**given, **changed})

    return call


@pytest.fixture
def traker(tmp_path):
    return trak.TRAKer(MODEL, "image_classification", 20, tmp_path / "traker", proj_dim=16)


def _said(error):
    return " ".join([str(error.value), *getattr(error.value, "__notes__", [])])


ARGUMENTS = {
    "unknown task": ({"task": "image_clasification"}, "'image_clasification'", "did you mean 'image_classification'"),
    "no task": ({"task": None}, "NoneType", "use a name"),
    "abstract task": ({"task": trak.tasks.Task}, "Task has no output", "write one"),
    "state dict as model": ({"model": MODEL.state_dict()}, "OrderedDict", "pass the model itself"),
    "shuffled loader": ({"train": DataLoader(DATA, 5, shuffle=True)}, "shuffle=True", "use shuffle=False"),
    "incomplete loader": ({"train": DataLoader(DATA, 6, drop_last=True)}, "2 of 20", "use drop_last=False"),
    "iterator": ({"train": iter(TRAIN)}, "train is an iterator", "pass something"),
    "generator of targets": ({"targets": (b for b in TARGETS)}, "targets is an iterator", "pass something"),
    "no loader": ({"train": None}, "NoneType", "pass a DataLoader"),
    "one tensor as loader": ({"train": X}, "got Tensor", "pass a DataLoader"),
    "name of a loader": ({"targets": "data"}, "targets must yield batches, got str", "pass a DataLoader"),
    "array of examples": (
        {"targets": np.zeros((3, 4))},
        "targets must yield batches, got ndarray",
        "pass a DataLoader",
    ),
    "empty loader": ({"train": []}, "train yields no examples", "pass at least one"),
    "empty batch": ({"train": [(X[:0], Y[:0])]}, "[(0, 8), (0,)]", "leave empty batches out"),
    "lists": ({"train": [(X.tolist(), Y.tolist())]}, "tuple", "convert"),
    "inputs without labels": ({"train": [X]}, "got Tensor", "yield such batches"),
    "other number of labels": ({"train": [(X, Y[:19])]}, "[(20, 8), (19,)]", "leave out"),
    "label out of range": ({"train": [(X, Y + 5)]}, "label out of range: 5", "number the classes from 0"),
    "labels as numbers": ({"train": [(X, Y.float())]}, "torch.float32", "use labels.long()"),
    "labels in a column": ({"train": [(X, Y[:, None])]}, "(20, 1)", "use labels.squeeze(-1)"),
    "one-hot labels": ({"train": [(X, torch.eye(3)[Y])]}, "(20, 3)", "use labels.argmax(1)"),
    "labels of several classes": ({"train": [(X, torch.ones(20, 3))]}, "(20, 3)", 'use task="multi_label"'),
    "columns": ({"train": (X, Y)}, "[(20, 8), (20,)]", "pass DataLoader(TensorDataset(*train), batch_size=100)"),
    "images not transformed": ({"train": Subset([(object(), 0)] * 20, range(20))}, "object", "give it a transform"),
    "tuples for a text model": ({"task": "text_classification"}, "(input_ids, labels)", 'use task="classification"'),
    "no labels": ({"train": [(X, None)]}, "NoneType", "convert them by torch.tensor"),
    "other width": ({"train": [(torch.randn(20, 7), Y)]}, "(20, 7) torch.float32", "give batches of the shapes"),
    "other width of targets": ({"targets": [(X[:4, :7], Y[:4])]}, "of the target set", "give batches of the shapes"),
    "other dtype": ({"train": [(X.double(), Y)]}, "(20, 8) torch.float64", "give batches of the shapes and dtypes"),
    "NaN": ({"train": [(torch.full_like(X, float("nan")), Y)]}, "example 0", "clean or drop the example"),
    "proj_dim 0": ({"proj_dim": 0}, "got 0", "use 2048"),
    "proj_dim as text": ({"proj_dim": "512"}, "'512'", "pass int(proj_dim)"),
    "negative damping": ({"damping": -1}, "got -1", "use damping=3"),
    "damping as text": ({"damping": "big"}, "'big'", "give one, or leave it out"),
    "both dampings": ({"damping": 1, "lambda_reg": 2}, "got 1", "give damping"),
    "loss_temperature as text": ({"loss_temperature": "x"}, "'x'", "use 1 for none"),
    "unknown parameter": ({"grad_wrt": "2.wieght"}, "'2.wieght'", "did you mean '2.weight'"),
    "parameters, not names": ({"grad_wrt": list(MODEL.parameters())}, "Parameter", "use names of"),
    "unknown projector": ({"projector": "fft"}, "'fft'", "use one of factored, gaussian"),
    "unknown engine": ({"engine": "layer"}, "'layer'", "use one of auto, functional, hooks, loop"),
    "unknown weighting": ({"weighting": "W"}, "'W'", "use one of ggn, identity"),
    "unknown dtype": ({"dtype": "float8"}, "'float8'", "did you mean 'float32'"),
    "memory as text": ({"memory_budget": "4GB"}, "'4GB'", "use 1 << 30"),
    "missing device": ({"device": "gpu"}, "'gpu'", "use one that this machine has"),
    "pattern of checkpoints": ({"checkpoints": "run-*.pt"}, "'run-*.pt'", "pass sorted(glob.glob('run-*.pt'))"),
    "missing checkpoint": ({"checkpoints": "none.pt"}, "'none.pt'", "check the path"),
    "other architecture": ({"checkpoints": OTHER.state_dict()}, "Sequential", "pass a checkpoint of this architecture"),
    "number as text": ({"train_set_size": "20"}, "'20'", "give one, or leave it out"),
    "no checkpoints": ({"checkpoints": []}, "checkpoints is empty", "give at least one"),
    "no checkpoint": ({"checkpoints": [None]}, "NoneType", "pass one of these"),
    "no index": ({"index_key": "index"}, "'index'", "name one that each batch has"),
    "name with a slash": ({"exp_name": "a/b"}, "'a/b'", "use letters"),
    "no save_dir": ({"save_dir": None}, "NoneType", "give one, such as './trak_results'"),
    "save_dir of bytes": ({"save_dir": b"a"}, "bytes", "give one, such as './trak_results'"),
    "empty save_dir": ({"save_dir": ""}, "''", "give one, such as './trak_results'"),
    "impossible save_dir": ({"save_dir": "/proc/none/store"}, "/proc/none/store", "choose another"),
}


@pytest.mark.parametrize("changed, value, cure", ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_wrong_argument_is_named_with_its_cure(attribute, changed, value, cure):
    with pytest.raises((ValueError, TypeError, OSError, RuntimeError)) as error:
        attribute(**changed).top(1)
    assert value in _said(error)
    assert cure in _said(error)


def test_a_save_dir_that_is_a_file_is_named_with_its_cure(attribute, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    for save_dir in (path, path / "below"):
        with pytest.raises(NotADirectoryError, match=rf"{save_dir}' is no directory; choose another"):
            attribute(save_dir=save_dir)


def test_a_checkpoint_that_is_no_file_of_weights_is_named_with_its_cure(attribute, tmp_path):
    (tmp_path / "junk.pt").write_text("junk")
    with pytest.raises(ValueError, match=r"junk.pt' can't be read as weights \(.*save it with torch.save"):
        attribute(checkpoints=tmp_path / "junk.pt")
    with pytest.raises(ValueError, match=r"is a folder without .*; pass the file of weights in it"):
        attribute(checkpoints=[tmp_path])


@pytest.mark.parametrize("changed, value, cure", [
    ({"proj_dim": 32}, "proj_dim=16, but proj_dim=32", "use what it was made with, or another save_dir"),
    ({"projector_seed": 7}, "seed=7", "use what it was made with, or another save_dir"),
    ({"train": TRAIN[:1]}, "train_set_size=20, but train_set_size=10", "use what it was made with, or another"),
    ({"train": [(X + 1, Y)]}, "training example 0", "or use another save_dir if data or labels"),
    ({"train": [(X + 1, Y)]}, "training example 0", "pass the examples' indices as inds (index_key of trak.attribute)"),
    ({"targets": [(X[:3], Y[:3])]}, "num_targets=4, got num_targets=3", "use another name (exp_name=)"),
    ({"checkpoints": {n: p + 1 for n, p in MODEL.state_dict().items()}}, "model_id 0", "give each checkpoint an id"),
])  # fmt: skip
def test_a_store_of_something_else_is_named_with_its_cure(attribute, changed, value, cure):
    attribute()
    with pytest.raises(ValueError) as error:  # noqa: PT011
        attribute(**changed)
    assert value in _said(error)
    assert cure in _said(error)


def test_results_name_a_wrong_request_with_its_cure(attribute, tmp_path):
    found, page = attribute(), tmp_path / "report.html"
    for call, value, cure in (
        (lambda: found.top(21), "got 21", "ask for 20 or fewer"),
        (lambda: found.top(0), "got 0", "ask for 20 or fewer"),
        (lambda: found.top("5"), "'5'", "give the number of training examples"),
        (lambda: found.show(DATA, targets=[9]), "got 9", "give others"),
        (lambda: found.show(DATA, targets=[]), "targets is empty", "choose at least one of 4"),
        (lambda: found.report(page, train_dataset=TensorDataset(X[:5], Y[:5])), "has 5 examples", "pass the data"),
        (lambda: found.report(page, image_size=0), "got 0", "use 96"),
        (lambda: found.report(page, image_size="big"), "'big'", "use 96"),
        (lambda: found.report(tmp_path), str(tmp_path), "give the name of a file in it"),
        (lambda: trak.store.open_store(tmp_path / "none"), str(tmp_path / "none"), "check the path"),
        (lambda: found.experiment.store.experiment("target"), "'target'", "did you mean 'targets'"),
    ):
        with pytest.raises((ValueError, TypeError, OSError)) as error:
            call()
        assert value in _said(error)
        assert cure in _said(error)


def test_calls_in_the_wrong_order_say_which_to_make(traker):
    for call, cure in (
        (lambda: traker.featurize(TRAIN[0]), "call load_checkpoint before featurize"),
        (lambda: traker.finalize_features(), "call load_checkpoint and featurize first"),
        (lambda: traker.score(TRAIN[0]), "call start_scoring_checkpoint before score"),
        (lambda: traker.finalize_scores("none"), "unknown experiment 'none'"),
    ):
        with pytest.raises(ValueError, match=cure):
            call()
    traker.load_checkpoint(MODEL.state_dict(), 0)
    traker.featurize(TRAIN[0])
    for call, value, cure in (
        (lambda: traker.finalize_features(), "10 of 20 training examples are not featurized", "featurize them"),
        (
            lambda: traker.start_scoring_checkpoint("a", MODEL.state_dict(), 0, 4),
            "model_id 0",
            "call finalize_features",
        ),
        (lambda: traker.featurize(TRAIN[1], inds=range(11, 21)), "20, expected 0 to 19", "count from 0"),
        (lambda: traker.featurize(TRAIN[1], inds=[1, 2]), "2 entries", "give one for each"),
        (lambda: traker.featurize(TRAIN[1], inds=[[1], [2, 3]]), "[[1], [2, 3]]", "pass one for each example"),
        (lambda: traker.featurize(TRAIN[1], inds=np.full(10, 0.5)), "float64", "pass a tensor or list"),
        (lambda: traker.featurize((X, Y)), "would reach 30", "pass the right train_set_size"),
        (lambda: traker.load_checkpoint(MODEL.state_dict(), -1), "got -1", "use 0 for the first"),
    ):
        with pytest.raises((ValueError, TypeError)) as error:
            call()
        assert value in _said(error)
        assert cure in _said(error)


def test_scores_before_every_target_is_stored_say_what_is_missing(traker):
    traker.load_checkpoint(MODEL.state_dict(), 0)
    for batch in TRAIN:
        traker.featurize(batch)
    traker.finalize_features()
    traker.start_scoring_checkpoint("few", MODEL.state_dict(), 0, 20)
    traker.score(TARGETS[0])
    with pytest.raises(ValueError, match="16 of 20 targets are not featurized, the first is 4; call score for them"):
        traker.finalize_scores("few")


def test_an_error_of_the_model_keeps_its_words_and_names_the_batch(attribute):
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes") as error:
        attribute(train=[(torch.randn(20, 7), Y)])
    assert error.value.__notes__ == [
        "The model or the task failed on a batch of the training set, checkpoint with model_id 0 (row 0 of the batch "
        "is example 0), with tensors (20, 7) torch.float32, (20,) torch.int64; give batches of the shapes and dtypes "
        "that the model was trained on, or a task that fits them."
    ]


def test_an_error_of_a_batch_says_whose_once(attribute, tmp_path):
    for changed, where in (
        (
            {"train": [(X[:10], Y[:10]), (X[10:], Y[10:] - 3)]},
            "training set, checkpoint with model_id 0 (row 0 of the batch is example 10)",
        ),
        ({"targets": [(X, Y - 1)]}, "target set, checkpoint with model_id 0 (row 0 of the batch is example 0)"),
    ):
        with pytest.raises(ValueError, match="label out of range") as error:
            attribute(**changed)
        assert error.value.__notes__ == [f"This is about a batch of the {where}."]
    with pytest.raises(ValueError, match="training set, checkpoint with model_id 0") as error:
        attribute(train=[(torch.full_like(X, float("nan")), Y)], save_dir=tmp_path / "other")
    assert not hasattr(error.value, "__notes__")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_in_another_dtype_than_its_batches_is_named_with_both_cures(attribute, dtype):
    model = nn.Linear(8, 3, dtype=dtype)
    with pytest.raises(RuntimeError) as error:
        attribute(model=model, checkpoints=model.state_dict())
    assert f"the model's weights are {dtype}, so convert it (model.float() for torch.float32) or the" in _said(error)


def test_settings_that_are_no_numbers_are_named_with_their_cure():
    for call, value, cure in (
        (lambda: trak.tasks.ImageClassification("hot"), "'hot'", "use 1 for none"),
        (lambda: trak.tasks.CLIP(bank=[], temperature="hot"), "'hot'", "give the one that the model was trained with"),
        (lambda: BM25(k1="big"), "'big'", "use 1.5 and 0.75"),
        (lambda: InfluenceFunctions(damping="big"), "'big'", "give another number, or None"),
        (lambda: InfluenceFunctions(tolerance="small"), "'small'", "such as 0.5"),
    ):
        with pytest.raises((ValueError, TypeError)) as error:
            call()
        assert value in _said(error)
        assert cure in _said(error)


def test_a_batch_that_needs_too_much_memory_is_named_with_the_budget(attribute):
    class Large(nn.Linear):
        def forward(self, x):
            raise torch.OutOfMemoryError("out of memory")

    model = Large(8, 3)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory") as error:
        attribute(model=model, checkpoints=model.state_dict(), memory_budget=1 << 20)
    assert "set a memory_budget of less than 1048576 bytes" in error.value.__notes__[0]
