from collections import namedtuple
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trak.inputs import batches

transformers = pytest.importorskip("transformers")

Pair = namedtuple("Pair", ["first", "second"])
DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
    torch.complex64,
]
COUNT = st.integers(1, 5)


def leaf(count, dtype, shape, layout, seed):
    """A member with an example dimension; zeros and ones alone, so that examples repeat."""
    values = torch.randint(0, 2, (count, *shape), generator=torch.Generator().manual_seed(seed)).to(dtype)
    if layout == "strided":
        return torch.stack([values, torch.ones_like(values)], dim=-1)[..., 0]
    if layout == "transposed":
        return values.movedim(0, -1).contiguous().movedim(-1, 0)
    if layout == "numpy" and dtype != torch.bfloat16:
        return values.numpy()
    if layout == "reversed numpy" and dtype != torch.bfloat16:
        return values.numpy()[::-1]
    return values.requires_grad_(values.is_floating_point())


LEAVES = st.builds(
    lambda dtype, shape, layout, seed: lambda count: leaf(count, dtype, shape, layout, seed),
    st.sampled_from(DTYPES),
    st.sampled_from([(), (1,), (3,), (2, 2), (0,)]),
    st.sampled_from(["plain", "strided", "transposed", "numpy", "reversed numpy"]),
    st.integers(0, 99),
)
SHARED = st.sampled_from(
    [None, {"note": "text"}, {"number": 7}, torch.tensor(3.5), np.array(["a", "b"]), np.float32(2)]
).map(lambda value: lambda count: value)


def containers(members):
    def build(kind, made):
        def for_count(count):
            values = [make(count) for make in made]
            names = [f"key {i}" for i in range(len(values))]
            if kind == "pair":
                return Pair(values[0], values[1:])
            if kind == "encoding":
                return transformers.BatchEncoding(dict(zip(names, values, strict=True)))
            return (
                dict(zip(names, values, strict=True))
                if kind == "dict"
                else {"list": list, "tuple": tuple}[kind](values)
            )

        return for_count

    kinds = st.sampled_from(["tuple", "list", "dict", "encoding", "pair"])
    return st.builds(build, kinds, st.lists(members, min_size=1, max_size=3))


STRUCTURES = st.recursive(LEAVES | SHARED, containers, max_leaves=5)
# At least one member counts examples.
BATCHES = st.builds(lambda a, b: lambda count: (a(count), b(count)), LEAVES, STRUCTURES)


def flatten(batch):
    """Everything in a batch that is no container, arrays as they are."""
    if isinstance(batch, Mapping):
        return [x for value in batch.values() for x in flatten(value)]
    if isinstance(batch, list | tuple):
        return [x for value in batch for x in flatten(value)]
    return [batch]


def counted(batch):
    return [x for x in flatten(batch) if getattr(x, "ndim", 0) and getattr(x, "dtype", None) != np.dtype("<U1")]


def bits(x):
    """An array's content as Python objects."""
    if isinstance(x, torch.Tensor):
        return x.detach().view(torch.int16).tolist() if x.dtype == torch.bfloat16 and x.ndim else x.detach().tolist()
    return x.tolist()


def rows(batch, count):
    return [repr([bits(x[i : i + 1]) for x in counted(batch)]) for i in range(count)]


def skeleton(batch):
    if isinstance(batch, Mapping):
        return {key: skeleton(value) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return (type(batch), [skeleton(value) for value in batch])
    return None


@settings(max_examples=40, deadline=None)
@given(make=BATCHES, count=COUNT)
def test_size_is_the_number_of_examples_in_any_structure(make, count):
    assert batches.size(make(count)) == count


@settings(max_examples=40, deadline=None)
@given(make=BATCHES, count=COUNT, data=st.data())
def test_take_slices_every_member_and_keeps_the_structure(make, count, data):
    batch = make(count)
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    taken = batches.take(batch, start, stop)
    assert skeleton(taken) == skeleton(batch)
    assert batches.size(taken) == stop - start
    assert rows(taken, stop - start) == rows(batch, count)[start:stop]
    for before, after in zip(flatten(batch), flatten(taken), strict=True):
        if not any(before is x for x in counted(batch)):
            assert after is before or after == before


@settings(max_examples=40, deadline=None)
@given(make=BATCHES, count=COUNT)
def test_digests_are_equal_exactly_where_examples_are(make, count):
    batch = make(count)
    digests, contents = batches.digests(batch), rows(batch, count)
    assert digests.shape == (count,)
    assert digests.dtype == np.uint64
    for i in range(count):
        for j in range(count):
            assert (digests[i] == digests[j]) == (contents[i] == contents[j])


@settings(max_examples=40, deadline=None)
@given(make=BATCHES, count=COUNT, data=st.data())
def test_digest_of_an_example_does_not_depend_on_its_batch(make, count, data):
    batch = make(count)
    order = data.draw(st.permutations(range(count)))
    digests = batches.digests(batch)
    shuffled = batches.map_tensors(lambda t: t[list(order)] if t.ndim else t, batch)
    assert batches.digests(shuffled).tolist() == digests[list(order)].tolist()
    singles = [batches.digests(batches.take(batch, i, i + 1)).item() for i in range(count)]
    assert singles == digests.tolist()


@settings(max_examples=40, deadline=None)
@given(make=BATCHES, count=COUNT)
def test_replacing_tensors_by_themselves_changes_nothing(make, count):
    batch = make(count)
    again = batches.replace_tensors(batch, batches.tensors(batch))
    assert skeleton(again) == skeleton(batch)
    assert rows(again, count) == rows(batch, count)


@settings(max_examples=40, deadline=None)
@given(make=BATCHES, count=COUNT)
def test_to_device_moves_every_tensor(make, count):
    moved = batches.to_device(make(count), torch.device("meta"))
    tensors = [x for x in flatten(moved) if isinstance(x, torch.Tensor)]
    assert len(tensors) >= 1
    assert all(x.device.type == "meta" for x in tensors)
    assert not any(isinstance(x, np.ndarray) and x.dtype.kind in "biufc" for x in flatten(moved))


@pytest.mark.parametrize(
    "one, other",
    [
        (torch.tensor([[0.0]]), torch.tensor([[-0.0]])),
        (torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.int32)),
        (torch.zeros(1, 2, dtype=torch.int32), torch.zeros(1, 1, dtype=torch.int64)),
        (torch.zeros(1, 2, 3), torch.zeros(1, 3, 2)),
        (torch.zeros(1, 0, 3), torch.zeros(1, 3, 0)),
        (torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 2, dtype=torch.uint8)),
        ((torch.tensor([[1, 2]]), torch.tensor([[3]])), (torch.tensor([[1]]), torch.tensor([[2, 3]]))),
        (torch.tensor([[1.0]], dtype=torch.bfloat16), torch.tensor([[1.0]], dtype=torch.bfloat16) + 2**-7),
    ],
)
def test_examples_that_differ_in_value_type_or_shape_have_different_digests(one, other):
    assert batches.digests(one) != batches.digests(other)


def test_digests_are_those_of_earlier_releases():
    batch = {"x": torch.tensor([[1.0, -2.0], [0.5, 3.0]]), "y": torch.tensor([3, 4])}
    assert batches.digests(batch).tolist() == [15842559121223951363, 4031138534595685443]


def test_tensors_that_disagree_on_the_number_of_examples_are_refused_with_their_shapes():
    with pytest.raises(ValueError, match=r"disagree .*\(3, 2\), \(4,\)"):
        batches.size({"x": torch.zeros(3, 2), "y": torch.zeros(4)})
    with pytest.raises(ValueError, match=r"disagree .*\(3, 2\), \(4,\)"):
        batches.digests((torch.zeros(3, 2), [torch.zeros(4)]))


def test_empty_batch_is_refused():
    with pytest.raises(ValueError, match="empty: it holds 0 examples"):
        batches.size((torch.zeros(0, 3), torch.zeros(0)))


@pytest.mark.parametrize(
    "batch, kind", [((), "tuple"), ({}, "dict"), ([torch.tensor(1)], "list"), ("text", "str"), (None, "NoneType")]
)
def test_batch_without_an_example_dimension_is_refused_with_its_type(batch, kind):
    with pytest.raises(TypeError, match=f"got {kind} without any"):
        batches.size(batch)


def test_a_list_of_strings_or_numbers_as_long_as_the_batch_holds_one_for_each_example():
    batch = {
        "x": torch.arange(3),
        "text": ["a", "b", "c"],
        "label": (1, 2, 3),
        "note": ["one", "two", "x", "y"],
        "name": "abc",
    }
    taken = batches.take(batch, 1, 3)
    assert {**taken, "x": None} == {
        "x": None,
        "text": ["b", "c"],
        "label": (2, 3),
        "note": ["one", "two", "x", "y"],
        "name": "abc",
    }
    assert batches.has_plain_fields(batch)
    assert not batches.has_plain_fields({"x": batch["x"], "note": batch["note"], "name": "abc"})
    digests = batches.digests(batch)
    assert batches.digests(taken).tolist() == digests[1:].tolist()
    for changed in ({"text": ["a", "B", "c"]}, {"label": (1, 9, 3)}):
        assert (batches.digests({**batch, **changed}) != digests).tolist() == [False, True, False]
    assert (batches.digests({**batch, "name": "abd"}) != digests).all()
