import os
import pathlib
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trak.inputs.checkpoints import fingerprint, load_into, load_state


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def assert_same_state(actual, expected):
    assert list(actual) == list(expected)
    for name in expected:
        assert actual[name].dtype == expected[name].dtype
        assert torch.equal(actual[name], expected[name])


class RunsCode:
    """A pickle that touches a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


class RunsShell(RunsCode):
    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def test_state_dict_and_module_are_taken_as_they_are():
    state = module().state_dict()
    assert load_state(state) is state
    assert_same_state(load_state(module()), state)


@pytest.mark.parametrize("keys", [("state_dict",), ("model_state_dict",), ("model",), ("model", "state_dict")])
def test_nested_state_dict_is_found(keys, tmp_path):
    checkpoint = module().state_dict()
    for key in reversed(keys):
        checkpoint = {"epoch": 3, key: checkpoint, "optimizer": {"lr": 0.1}}
    assert_same_state(load_state(checkpoint), module().state_dict())
    torch.save(checkpoint, tmp_path / "nested.pt")
    assert_same_state(load_state(tmp_path / "nested.pt"), module().state_dict())


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["a.pt", "b.pth", "c.bin", "no suffix"])
def test_saved_state_dict_is_read_from_a_path_or_string(name, legacy, tmp_path):
    path = tmp_path / name
    torch.save(module().state_dict(), path, _use_new_zipfile_serialization=not legacy)
    assert_same_state(load_state(path), module().state_dict())
    assert_same_state(load_state(str(path)), module().state_dict())


def test_safetensors_file_is_read(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    state = {"b": torch.ones(2, dtype=torch.bfloat16), "a": torch.arange(6).reshape(2, 3)}
    safetensors.save_file(state, tmp_path / "x.safetensors")
    loaded = load_state(tmp_path / "x.safetensors")
    assert_same_state({name: loaded[name] for name in state}, state)


def test_callable_is_called_at_each_load_and_may_return_any_kind(tmp_path):
    state = module().state_dict()
    torch.save(state, tmp_path / "a.pt")
    kinds = [state, module(), tmp_path / "a.pt", lambda: {"model": state}]
    calls = iter(kinds)
    for _ in kinds:
        assert_same_state(load_state(lambda: next(calls)), state)
    with pytest.raises(StopIteration):
        next(calls)


def test_missing_file_is_refused_with_its_path(tmp_path):
    for path in (tmp_path / "gone.pt", tmp_path / "gone.safetensors"):
        with pytest.raises(FileNotFoundError, match=f"{path.name}' does not exist"):
            load_state(path)


@pytest.mark.parametrize("size", ["5GB", "10KB"])
@pytest.mark.parametrize("kind", ["BertForSequenceClassification", "GPT2LMHeadModel"])
def test_a_folder_of_save_pretrained_has_the_weights_of_the_model(kind, size, tmp_path):
    transformers = pytest.importorskip("transformers")
    small = {
        "BertForSequenceClassification": transformers.BertConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, vocab_size=99
        ),
        "GPT2LMHeadModel": transformers.GPT2Config(n_embd=16, n_layer=2, n_head=1, vocab_size=99, n_positions=8),
    }[kind]
    saved, model = (getattr(transformers, kind)(small) for _ in range(2))
    saved.save_pretrained(tmp_path / "saved", max_shard_size=size)
    assert (tmp_path / "saved/model.safetensors.index.json").exists() == (size == "10KB")
    assert load_into(model, tmp_path / "saved") == fingerprint(saved.state_dict())


def test_a_name_that_is_missing_is_not_taken_from_another_weight_of_its_shape():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    state = {name: value for name, value in model.state_dict().items() if name != "1.weight"}
    with pytest.raises(ValueError, match=r"it lacks: 1\.weight; pass"):
        load_into(model, state)


def test_a_folder_of_runs_is_refused_with_the_way_to_their_checkpoints(tmp_path):
    (tmp_path / "run-0").mkdir()
    (tmp_path / "run-0/final.pt").touch()
    with pytest.raises(ValueError, match=r"or of several runs; pass checkpoints\('.*'\), of trak\.integrations"):
        load_state(tmp_path)


def test_folder_is_refused_with_its_path(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path.name}' is a folder"):
        load_state(tmp_path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("evil", [RunsCode, RunsShell])
def test_pickle_that_would_run_code_is_refused_and_does_not_run(evil, tmp_path):
    ran = tmp_path / "ran"
    # The payload works where pickles are trusted; otherwise this test would prove nothing.
    pickle.loads(pickle.dumps(evil(ran)))
    assert ran.exists()
    ran.unlink()
    state = {"weight": torch.ones(2), "payload": evil(ran)}
    torch.save(state, tmp_path / "zip.pt")
    torch.save(state, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    for protocol in (2, 4):
        (tmp_path / f"plain{protocol}.pt").write_bytes(pickle.dumps(evil(ran), protocol))
    for name in ("zip.pt", "legacy.pt", "plain2.pt", "plain4.pt"):
        with pytest.raises(ValueError, match=rf"{name}' can't be read as weights.* a pickle can run code"):
            load_state(tmp_path / name)
        assert not ran.exists()


def test_saved_whole_module_is_refused_with_the_way_to_save_it(tmp_path):
    torch.save(module(), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"whole.pt' can't .*torch.save\(model.state_dict\(\), path\)"):
        load_state(tmp_path / "whole.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"just some text\n", b"\x00" * 100, b"{}", b"PK\x03\x04 cut short"])
def test_file_that_holds_no_weights_is_refused_with_its_name(content, suffix, tmp_path):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"x{suffix}' can't be read as weights [(].+[)], and only tensors"):
        load_state(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=25, deadline=None)
@given(position=st.floats(0, 1), byte=st.integers(0, 255), legacy=st.booleans(), cut=st.booleans())
def test_damaged_file_is_refused_or_read_but_never_fails_otherwise(tmp_path_factory, position, byte, legacy, cut):
    path = tmp_path_factory.mktemp("damaged") / "x.pt"
    torch.save({"w": torch.arange(3)}, path, _use_new_zipfile_serialization=not legacy)
    content = bytearray(path.read_bytes())
    at = int(position * (len(content) - 1))
    content[at] = byte
    path.write_bytes(content[:at] if cut else content)
    try:
        names_or_reason = list(load_state(path))
    except ValueError as error:
        names_or_reason = str(error)
    assert "x.pt'" in names_or_reason or len(names_or_reason) == 1


@pytest.mark.parametrize(
    "checkpoint, found",
    [
        ({}, "found: keys "),
        ({"state_dict": {}}, r"\['state_dict'\] holds no state dict \(found: keys \)"),
        ({"epoch": 3, "lr": 0.1}, r"keys epoch, lr"),
        ({"weight": [1.0, 2.0]}, "keys weight"),
    ],
)
def test_mapping_without_tensors_is_refused_with_its_keys(checkpoint, found, tmp_path):
    with pytest.raises(ValueError, match=found):
        load_state(checkpoint)
    torch.save(checkpoint, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=rf"x.pt'.*{found}"):
        load_state(tmp_path / "x.pt")


def test_file_of_one_tensor_is_refused_with_its_type(tmp_path):
    torch.save(torch.ones(2), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x.pt' holds no state dict \(found: Tensor\)"):
        load_state(tmp_path / "x.pt")


@pytest.mark.parametrize("checkpoint", [None, 3, [torch.ones(2)], torch.ones(2)])
def test_what_is_no_checkpoint_is_refused_with_its_type(checkpoint):
    with pytest.raises(TypeError, match=f"got {type(checkpoint).__name__}"):
        load_state(checkpoint)


def test_loading_gives_the_model_the_weights_and_returns_their_fingerprint(tmp_path):
    trained = module()
    with torch.no_grad():
        for tensor in (*trained.parameters(), trained[1].running_mean):
            tensor.add_(1)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "a.pt")
    model = module()
    untrained = fingerprint(model.state_dict())
    assert load_into(model, tmp_path / "a.pt") == fingerprint(trained.state_dict()) != untrained
    assert_same_state(model.state_dict(), trained.state_dict())


def test_weights_that_do_not_fit_are_refused_with_names_and_shapes():
    state = module().state_dict()
    with pytest.raises(ValueError, match=r"does not fit the model \(Sequential\): it has besides: head\.weight; pass"):
        load_into(module(), {**state, "head.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"it lacks: 0\.bias; pass"):
        load_into(module(), {name: value for name, value in state.items() if name != "0.bias"})
    with pytest.raises(ValueError, match=r"of another shape: 0\.weight \(5, 3\) instead of \(2, 3\); pass"):
        load_into(module(), {**state, "0.weight": torch.zeros(5, 3)})


def test_of_many_names_that_do_not_fit_the_first_are_told_and_how_many_more_there_are():
    state = nn.Sequential(*(nn.Linear(1, 1) for _ in range(9))).state_dict()
    with pytest.raises(ValueError, match=r"it has besides: 1\.weight, 1\.bias, 2\.weight and 13 more; pass"):
        load_into(nn.Sequential(nn.Linear(1, 1)), state)


@pytest.mark.parametrize("prefix", ["model.", "net.encoder.", "0."])
def test_a_prefix_that_all_names_have_makes_no_difference(prefix):
    trained, model = module(), module()
    state = {f"{prefix}{name}": value + 1 for name, value in trained.state_dict().items()}
    load_into(model, state)
    assert_same_state(model.state_dict(), {name.removeprefix(prefix): value for name, value in state.items()})


def test_names_with_a_prefix_beside_others_are_refused():
    state = {f"model.{name}": value for name, value in module().state_dict().items()}
    with pytest.raises(ValueError, match=r"it has besides: model\.0\.weight, .* and \d+ more; pass"):
        load_into(module(), state | {"loss.weight": torch.ones(2)})


STATES = st.dictionaries(
    st.sampled_from(["a", "b", "ab", "layer.weight", "layer.bias", "ünï"]),
    st.tuples(
        st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool]),
        st.sampled_from([(), (0,), (1,), (3,), (2, 3), (3, 2), (6,)]),
    ),
    min_size=1,
    max_size=4,
)


def state_of(kinds):
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randint(0, 2, shape, generator=generator).to(dtype) for n, (dtype, shape) in kinds.items()}


@settings(max_examples=40, deadline=None)
@given(kinds=STATES, data=st.data())
def test_fingerprint_does_not_depend_on_the_order_or_layout_of_the_weights(kinds, data):
    state = state_of(kinds)
    order = data.draw(st.permutations(list(state)))
    strided = {
        n: torch.stack([state[n], state[n]], dim=-1)[..., 0].requires_grad_(state[n].is_floating_point()) for n in order
    }
    assert fingerprint(strided) == fingerprint(state)
    assert len(fingerprint(state)) == 32
    assert set(fingerprint(state)) <= set("0123456789abcdef")


@settings(max_examples=40, deadline=None)
@given(one=STATES, other=STATES)
def test_fingerprints_differ_where_names_types_or_shapes_do(one, other):
    zeros = [{n: torch.zeros(shape, dtype=dtype) for n, (dtype, shape) in kinds.items()} for kinds in (one, other)]
    assert (fingerprint(zeros[0]) == fingerprint(zeros[1])) == (one == other)


@settings(max_examples=40, deadline=None)
@given(kinds=STATES, data=st.data())
def test_fingerprint_changes_with_any_single_value(kinds, data):
    state = state_of(kinds)
    before = fingerprint(state)
    name = data.draw(st.sampled_from(list(state)))
    flat = state[name].reshape(-1)
    if not len(flat):
        return
    at = data.draw(st.integers(0, len(flat) - 1))
    flat[at] = 1 - flat[at].int()
    assert fingerprint(state) != before


def test_fingerprint_tells_the_smallest_change_of_a_bfloat16_weight():
    weight = torch.ones(4, dtype=torch.bfloat16)
    changed = weight.clone()
    changed[2] += 2**-7
    same_bits = weight.view(torch.float16)
    assert len({fingerprint({"w": w}) for w in (weight, changed, same_bits, weight.float())}) == 4


def test_bfloat16_weights_survive_saving_and_loading(tmp_path):
    trained = module().bfloat16()
    torch.save(trained.state_dict(), tmp_path / "a.pt")
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).bfloat16()
    assert load_into(model, tmp_path / "a.pt") == fingerprint(trained.state_dict())
    assert_same_state(model.state_dict(), trained.state_dict())


def test_fingerprint_is_that_of_earlier_releases():
    state = {"b": torch.tensor([1, 2]), "a": torch.tensor([[0.5, -1.0]])}
    assert fingerprint(state) == "73c886620d024478b00b3cdabee084e4"
