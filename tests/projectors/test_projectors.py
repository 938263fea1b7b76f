import functools
import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trak._utils.counter_random import random_normals, random_signs, random_words, stream_key
from trak.projectors import (
    PROJECTORS,
    AbstractProjector,
    Accumulator,
    BasicProjector,
    CudaProjector,
    Factored,
    Gaussian,
    Identity,
    NoOpProjector,
    OuterProducts,
    ProjectionType,
    Rademacher,
    Sketch,
    SparseRows,
    make_projector,
    register_projector,
)
from trak.testing import ProjectorContract, awkward_vectors

MASK = (1 << 64) - 1
GOLDEN_RATIO, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def splitmix(key, counter):
    """SplitMix64 in Python's unbounded integers."""
    x = ((counter + 1) * GOLDEN_RATIO + key) & MASK
    x = ((x ^ (x >> 30)) * MIX_1) & MASK
    x = ((x ^ (x >> 27)) * MIX_2) & MASK
    return x ^ (x >> 31)


def key_of(*parts):
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def words_of(key, counters):
    """SplitMix64 in NumPy's unsigned 64-bit integers."""
    with np.errstate(over="ignore"):
        x = (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN_RATIO) + np.uint64(key)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(MIX_1)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(MIX_2)
    return x ^ (x >> np.uint64(31))


def sketch_reference(grads, k, seed, model_id):
    """The definition, a coordinate at a time: coordinate j of block b goes to bucket (j + r_b) mod k."""
    pool = (words_of(key_of("sketch-signs", seed, model_id), np.arange(65 * k)) & np.uint64(1)).astype(np.int64) * 2 - 1
    batch_size = len(next(iter(grads.values())))
    total = np.zeros((batch_size, k))
    for name, grad in grads.items():
        flat = grad.reshape(batch_size, -1)
        for start in range(0, flat.shape[1], 1 << 20):
            coordinate = np.arange(start, min(start + (1 << 20), flat.shape[1]))
            block, j = coordinate // k, coordinate % k
            blocks, which = np.arange(block[0], block[-1] + 1), block - block[0]
            row = words_of(key_of("sketch-blocks", seed, model_id, name), blocks)[which]
            offset = words_of(key_of("sketch-offsets", seed, model_id, name), blocks)[which] & np.uint64(2**63 - 1)
            shift = ((row >> np.uint64(1)) & np.uint64(2**62 - 1)) % np.uint64(k)
            sign = (row & np.uint64(1)).astype(np.int64) * 2 - 1
            sign *= pool[(offset % np.uint64(64 * k + 1)).astype(np.int64) + j]
            bucket = (j + shift.astype(np.int64)) % k
            for i in range(batch_size):
                total[i] += np.bincount(bucket, sign * flat[i, coordinate], minlength=k)
    return total


def dense_reference(kind, grads, k, seed, model_id):
    """Pᵀx/√k with P[row, column] straight from the word that holds it."""
    batch_size = len(next(iter(grads.values())))
    total = np.zeros((batch_size, k))
    columns = np.arange(k)
    for name, grad in grads.items():
        flat = grad.reshape(batch_size, -1).astype(np.float64)
        rows = np.flatnonzero(flat.any(0))
        per_word = 32 if kind == "rademacher" else 2
        words = words_of(key_of(kind, seed, model_id, name), rows[:, None] * -(-k // per_word) + columns // per_word)
        if kind == "rademacher":
            entries = ((words >> (columns % 32).astype(np.uint64)) & np.uint64(1)).astype(np.float64) * 2 - 1
        else:
            radius = np.sqrt(-2 * np.log(((words >> np.uint64(32)).astype(np.float64) + 0.5) / 2**32))
            angle = 2 * np.pi * (words & np.uint64(0xFFFFFFFF)).astype(np.float64) / 2**32
            entries = radius * np.where(columns % 2, np.sin(angle), np.cos(angle))
        total += flat[:, rows] @ entries / math.sqrt(k)
    return total


def small_gradients():
    """Two examples of a parameter of three blocks and one of less than one, for k = 5."""
    return {
        "layer.weight": (torch.arange(24, dtype=torch.float32) - 7.5).reshape(2, 3, 4) / 4,
        "layer.bias": torch.tensor([[1.0, -2.0], [0.5, 3.0]]),
    }


def small_features(contract):
    return contract().make(5, 7).project(small_gradients(), model_id=3).tolist()


@functools.cache
def features_in_another_process():
    here = Path(__file__)
    code = (
        f"import sys, json; sys.path.insert(0, {str(here.parent)!r}); import torch; torch.set_num_threads(1)\n"
        f"import {here.stem} as t; print(json.dumps({{c.__name__: t.small_features(c) for c in t.CONTRACTS}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        cwd=here.parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


class BuiltInContract(ProjectorContract):
    """What holds for every projector of the library beyond the shipped contract."""

    published_scale = False
    large_k = 2
    large_numel = 10**7
    golden: tuple[tuple[float, ...], ...]

    def features(self, projector, grads, model_id=0):
        """Features as they are stored: the published `project` has a factor √k more."""
        features = projector.project(grads, model_id)
        return features / math.sqrt(projector.proj_dim) if self.published_scale else features

    def test_millions_of_coordinates_match_the_definition(self):
        # Integers, so that float32 sums are exact in any order.
        grads = np.random.default_rng(0).integers(-3, 4, (1, self.large_numel)).astype(np.float32)
        if not self.bit_identical:
            # A dense reference of every coordinate would take minutes.
            kept = [0, 1, 2**20 - 1, 2**20, 2**21 - 1, 2**21, self.large_numel - 2, self.large_numel - 1]
            sparse = np.zeros_like(grads)
            sparse[0, kept] = grads[0, kept] + 5
            grads = sparse
        features = self.features(self.make(self.large_k, 1), torch.from_numpy(grads), model_id=2)
        expected = self.reference({"": grads}, self.large_k, 1, 2)
        np.testing.assert_allclose(features.numpy(), expected, rtol=0 if self.bit_identical else 1e-5, atol=1e-5)

    def test_another_process_gets_the_same_numbers(self):
        assert features_in_another_process()[type(self).__name__] == small_features(type(self))

    def test_numbers_are_those_of_earlier_releases(self):
        np.testing.assert_allclose(small_features(type(self)), self.golden, rtol=2e-6, atol=2e-6)

    def test_a_tensor_is_one_nameless_parameter(self):
        grads = torch.randn(3, 50)
        assert torch.equal(self.make(8, 1).project(grads), self.make(8, 1).project({"": grads.reshape(3, 5, 10)}))

    def test_wrong_number_of_examples_is_refused_with_the_shape(self):
        with pytest.raises(ValueError, match=r"'b' have shape \(2, 4\), expected 3 examples"):
            self.make(8, 0).project({"a": torch.zeros(3, 4), "b": torch.zeros(2, 4)})

    def test_empty_mapping_is_refused(self):
        with pytest.raises(ValueError, match="grads is empty"):
            self.make(8, 0).project({})


class RandomContract(BuiltInContract):
    """Projectors whose constructor takes a dimension and a seed that count."""

    @pytest.mark.parametrize(
        "proj_dim, error", [(0, ValueError), (-1, ValueError), (True, TypeError), (2.5, TypeError), ("64", TypeError)]
    )
    def test_wrong_dimension_is_refused_with_its_value(self, proj_dim, error):
        with pytest.raises(error, match=rf"proj_dim must be .*{proj_dim}"):
            self.make(proj_dim, 0)

    @pytest.mark.parametrize("seed", [1.5, "one", None, False])
    def test_wrong_seed_is_refused_with_its_value(self, seed):
        with pytest.raises(TypeError, match=f"seed must be an integer, got {seed!r}"):
            self.make(8, seed)


class TestSketch(RandomContract):
    bit_identical = True
    large_k = 2048
    golden = ((2.5, -3.75, 2.125, 0.625, -1.5), (2.0, 7.25, 5.125, -2.375, 4.5))

    def make(self, k, seed):
        return Sketch(k, seed)

    def reference(self, grads, k, seed, model_id):
        return sketch_reference(grads, k, seed, model_id)

    def test_one_block_keeps_lengths_exactly(self):
        grads = torch.randn(3, 16, dtype=torch.float64)
        torch.testing.assert_close(Sketch(16, 0).project(grads).norm(dim=1), grads.norm(dim=1), rtol=1e-12, atol=0)


def factored_reference(grads, k, seed, model_id, inner_dim):
    """The longer side of a matrix is multiplied by signs / √r first, if that halves the count at least."""
    left = {}
    for name, grad in grads.items():
        shape = grad.shape[1:]
        if len(shape) == 2 and 2 * inner_dim * sum(shape) <= math.prod(shape):
            side = 0 if shape[1] < shape[0] < 8 * shape[1] else 1
            counters = np.arange(shape[side])[:, None] * -(-inner_dim // 32) + np.arange(inner_dim) // 32
            words = words_of(key_of("factored", seed, model_id, name), counters)
            signs = ((words >> (np.arange(inner_dim) % 32).astype(np.uint64)) & np.uint64(1)).astype(np.float64) * 2 - 1
            signs /= math.sqrt(inner_dim)
            grad = np.einsum("bmn,mr->brn" if side == 0 else "bmn,nr->bmr", grad, signs)
        left[name] = grad
    return sketch_reference(left, k, seed, model_id)


class TestFactored(RandomContract):
    golden = TestSketch.golden

    def make(self, k, seed):
        return Factored(k, seed, inner_dim=1)

    def reference(self, grads, k, seed, model_id):
        return factored_reference(grads, k, seed, model_id, 1)

    def test_a_tensor_is_one_nameless_parameter(self):
        grads = torch.randn(3, 50)
        assert torch.equal(self.make(8, 1).project(grads), self.make(8, 1).project({"": grads}))

    @pytest.mark.parametrize(
        "shape", [(9, 4), (4, 9), (40, 4), (12, 12), (4, 4), (6, 6, 1), (36,), (80, 100), (100, 80)]
    )
    @pytest.mark.parametrize("inner_dim", [1, 2, 33])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_every_shape_and_form_matches_the_definition(self, shape, inner_dim, dtype):
        generator, k = torch.Generator().manual_seed(0), 16
        projector = Factored(k, 3, inner_dim)
        whole = torch.randn(5, *shape, generator=generator, dtype=dtype)
        projector.bind({"weight": shape})
        total = Accumulator(projector, 5, 2, whole.device, dtype)
        total.add("weight", whole)
        truth = whole.double()
        if len(shape) == 2:
            left, right = (torch.randn(5, 7, n, generator=generator, dtype=dtype) for n in shape)
            values = torch.randn(5, 3, shape[1], generator=generator, dtype=dtype)
            indices = torch.randint(shape[0], (5, 3), generator=generator)
            total.add("weight", OuterProducts(left, right))
            total.add("weight", SparseRows(indices, values, shape[0]))
            truth = truth + torch.einsum("bsm,bsn->bmn", left.double(), right.double())
            truth = truth + SparseRows(indices, values.double(), shape[0]).dense()
        expected = factored_reference({"weight": truth.numpy()}, k, 3, 2, inner_dim)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        np.testing.assert_allclose(
            total.result().double().numpy(), expected, rtol=0, atol=tolerance * np.abs(expected).max()
        )

    @pytest.mark.parametrize("k, inner_dim", [(64, 1), (64, 4), (4, 4)])
    def test_variance_grows_by_no_more_than_the_inner_projections(self, k, inner_dim):
        rng = np.random.default_rng(0)
        # Of rank one, on which the inner projection errs most.
        x, y = (np.einsum("lm,ln->lmn", *rng.normal(size=(2, 3, 24))) for _ in range(2))
        y += x / 2
        grads = torch.from_numpy(np.stack([x, y], axis=1))
        samples = []
        for seed in range(600):
            features = Factored(k, seed, inner_dim).project({f"layer{i}": grads[i] for i in range(3)})
            samples.append(float(features[0] @ features[1]))
        samples = np.array(samples)
        dots, xx, yy = (x * y).sum((1, 2)), (x * x).sum((1, 2)), (y * y).sum((1, 2))
        inner = ((xx * yy + dots**2) / inner_dim).sum()
        bound = inner + (1 + 1 / 64) * (xx.sum() * yy.sum() + dots.sum() ** 2) / k * (1 + 1 / inner_dim) ** 2
        assert abs(samples.mean() - dots.sum()) <= 4.5 * samples.std() / math.sqrt(len(samples))
        squares = (samples - dots.sum()) ** 2
        assert squares.mean() <= bound + 4.5 * squares.std() / math.sqrt(len(samples))

    def test_explanation_counts_what_the_rule_compares(self):
        projector = Factored(16, 0, 4)
        with pytest.raises(ValueError, match="bind"):
            projector.explain()
        projector.bind({"wide": (32, 128), "small": (8, 8), "bias": (32,), "table": (1000, 32)})
        rows = {line.split()[0]: line.split()[1:] for line in projector.explain().splitlines()}
        assert rows["wide"] == ["32×128", "4096", "640", "factored", "128"]
        assert rows["small"] == ["8×8", "64", "64", "plain", "64"]
        assert rows["bias"] == ["32", "-", "-", "plain", "32"]
        assert rows["table"] == ["1000×32", "32000", "4128", "factored", "4000"]

    @pytest.mark.parametrize(
        "inner_dim, error", [(0, ValueError), (-2, ValueError), (1.5, TypeError), (True, TypeError)]
    )
    def test_wrong_inner_dimension_is_refused_with_its_value(self, inner_dim, error):
        with pytest.raises(error, match=f"inner_dim must be .*{inner_dim}"):
            Factored(16, 0, inner_dim)

    def test_record_holds_the_inner_dimension(self):
        assert Factored(16, 0, 4).describe() != Factored(16, 0, 8).describe()


class TestRademacher(RandomContract):
    golden = ((-0.33541, -0.559017, -1.229837, -1.788854, -1.788854), (-0.111803, 9.503288, 4.807546, 0.67082, 0.67082))

    def make(self, k, seed):
        return Rademacher(k, seed)

    def reference(self, grads, k, seed, model_id):
        return dense_reference("rademacher", grads, k, seed, model_id)


class TestGaussian(RandomContract):
    # Entries are normal numbers rounded to float32.
    dtype_tolerance = 1e-6
    golden = ((-0.391908, -2.61042, 1.140374, 2.686496, 2.704442), (0.075063, 3.51553, -0.058101, -5.866932, 0.8852))

    def make(self, k, seed):
        return Gaussian(k, seed)

    def reference(self, grads, k, seed, model_id):
        return dense_reference("gaussian", grads, k, seed, model_id)


class TestPublishedBasicNormal(TestGaussian):
    published_scale = True
    # The projection it stands on is tested at full size.
    large_numel = 2**21 + 9
    golden = (
        (-0.876332, -5.837076, 2.549954, 6.007187, 6.047316),
        (0.167847, 7.860964, -0.129917, -13.118858, 1.979367),
    )

    def make(self, k, seed):
        return BasicProjector(14, k, seed, ProjectionType.normal, "cpu")


class TestPublishedBasicRademacher(TestRademacher):
    published_scale = True
    # The projection it stands on is tested at full size.
    large_numel = 2**21 + 9
    golden = ((-0.75, -1.25, -2.75, -4.0, -4.0), (-0.25, 21.25, 10.75, 1.5, 1.5))

    def make(self, k, seed):
        return BasicProjector(14, k, seed, "rademacher", "cpu")

    def test_entries_have_variance_one_as_published(self):
        features = BasicProjector(4, 8, 0, "rademacher").project(torch.eye(4))
        torch.testing.assert_close(features.abs(), torch.ones(4, 8))

    def test_cuda_projector_gives_the_same_numbers(self):
        grads = torch.randn(3, 40)
        projectors = [cls(40, 8, 1, "rademacher", "cpu") for cls in (BasicProjector, CudaProjector)]
        assert torch.equal(*(projector.project(grads, 2) for projector in projectors))

    def test_unknown_distribution_is_refused_with_the_nearest(self):
        with pytest.raises(ValueError, match=r"'norml': did you mean 'normal'\?"):
            BasicProjector(4, 8, 0, "norml")


class TestIdentity(BuiltInContract):
    seeds = 2
    bit_identical = True
    golden = (
        (-1.875, -1.625, -1.375, -1.125, -0.875, -0.625, -0.375, -0.125, 0.125, 0.375, 0.625, 0.875, 1.0, -2.0),
        (1.125, 1.375, 1.625, 1.875, 2.125, 2.375, 2.625, 2.875, 3.125, 3.375, 3.625, 3.875, 0.5, 3.0),
    )
    test_seeds_checkpoints_and_names_give_uncorrelated_projections = None
    test_record_tells_kinds_and_seeds_apart = None

    def make(self, k, seed):
        return Identity(seed)

    def reference(self, grads, k, seed, model_id):
        return np.concatenate([grad.reshape(len(grad), -1) for grad in grads.values()], axis=1)

    @pytest.mark.parametrize("k", [4, 5])
    def test_inner_products_are_exact_for_every_seed(self, k):
        samples, vectors = self.inner_products(k), awkward_vectors(k)
        np.testing.assert_allclose(samples, np.stack([vectors @ vectors.T] * self.seeds), rtol=0, atol=1e-14)

    def test_seed_and_checkpoint_change_nothing(self):
        grads = torch.randn(2, 9)
        assert torch.equal(self.make(9, 1).project(grads, 2), grads)
        assert self.make(9, 1).describe() == self.make(9, 0).describe()

    def test_unknown_parameter_is_refused_with_its_name_and_size(self):
        projector = self.make(8, 0)
        projector.bind({"a": (4,)})
        total = Accumulator(projector, 1, 0, torch.device("cpu"), torch.float32)
        with pytest.raises(ValueError, match=r"'a' have 5 elements, expected 4"):
            total.add("a", torch.zeros(1, 5))
        with pytest.raises(ValueError, match=r"'b' have 4 elements, expected None"):
            total.add("b", torch.zeros(1, 4))


class TestPublishedNoOp(TestIdentity):
    large_numel = 2**21 + 9

    def make(self, k, seed):
        return NoOpProjector(14, k, seed, "rademacher", "cpu")


CONTRACTS = [
    TestSketch,
    TestFactored,
    TestRademacher,
    TestGaussian,
    TestPublishedBasicNormal,
    TestPublishedBasicRademacher,
    TestIdentity,
    TestPublishedNoOp,
]


def test_a_projector_written_for_the_published_package_gets_whole_gradients_and_the_checkpoint():
    class Sums(AbstractProjector):
        def project(self, grads, model_id=0):
            return torch.stack([grad.sum(1) + 100 * model_id for grad in grads.values()], dim=1)

    projector = Sums(14, 2, 0, "normal")
    total = Accumulator(projector, 2, 3, torch.device("cpu"), torch.float32)
    grads = small_gradients()
    for name in grads:
        total.add(name, grads[name])
    # A parameter used twice arrives in two parts.
    total.add("layer.bias", torch.ones(2, 2))
    assert torch.equal(
        total.result(),
        torch.stack([grads["layer.weight"].sum((1, 2)), grads["layer.bias"].sum(1) + 2], dim=1) + 300,
    )
    assert projector.describe() == {"kind": "Sums", "seed": 0}


def test_projectors_are_made_by_name_with_their_dimension_and_seed():
    assert {name: type(make_projector(name, 8, 3)) for name in PROJECTORS} == {
        "sketch": Sketch,
        "factored": Factored,
        "rademacher": Rademacher,
        "gaussian": Gaussian,
        "identity": Identity,
    }
    made = make_projector(None, 8, 3)
    assert (type(made), made.proj_dim, made.seed) == (Sketch, 8, 3)
    assert make_projector(made) is made


def test_a_registered_projector_is_made_by_its_name_and_recorded_under_it(monkeypatch):
    monkeypatch.delitem(PROJECTORS, "mine", raising=False)

    @register_projector("mine")
    class Mine(Sketch):
        pass

    try:
        made = make_projector("mine", 8, 3)
        assert (type(made), made.proj_dim, made.describe()) == (Mine, 8, {"kind": "mine", "seed": 3})
        with pytest.raises(ValueError, match=r"projector name 'mine' is taken by .*Mine; choose another"):
            register_projector("mine")(Gaussian)
        with pytest.raises(TypeError, match=r"only a subclass of trak\.projectors\.Projector can be registered"):
            register_projector("other")(int)
    finally:
        del PROJECTORS["mine"]
    assert Gaussian.name == "gaussian"


def test_unknown_projector_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"unknown projector 'skecth': did you mean 'sketch'\?"):
        make_projector("skecth")
    with pytest.raises(ValueError, match="'fft': use one of factored, gaussian, identity, rademacher, sketch"):
        make_projector("fft")


def test_what_is_no_projector_is_refused_with_its_type():
    with pytest.raises(TypeError, match="got int"):
        make_projector(3)


INT64 = st.integers(-(2**63), 2**63 - 1)


@given(key=INT64, counters=st.lists(INT64, min_size=1, max_size=20))
def test_random_words_equal_splitmix64_in_unbounded_integers(key, counters):
    words = random_words(key, torch.tensor(counters))
    assert [word & MASK for word in words.tolist()] == [splitmix(key, counter) for counter in counters]


def test_random_words_equal_published_outputs_of_splitmix64():
    assert [word & MASK for word in random_words(0, torch.arange(3)).tolist()] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]
    assert [word & MASK for word in random_words(1234567, torch.arange(3)).tolist()] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@given(st.lists(st.tuples(st.sampled_from(["a", "ab", "0", "1"]), st.integers(0, 1)), unique=True, min_size=2))
def test_streams_of_different_parts_have_different_keys(parts):
    keys = [stream_key(*part) for part in parts] + [stream_key(0, "0"), stream_key("0"), stream_key(0)]
    assert len(set(keys)) == len(keys)
    assert all(stream_key(*part) & MASK == key_of(*part) for part in parts)


@pytest.mark.parametrize("columns", [1, 31, 32, 33, 100])
def test_random_signs_are_the_bits_of_their_words(columns):
    rows = torch.tensor([0, 7, 2**31 + 5])
    per_row = -(-columns // 32)
    expected = [
        [(splitmix(9, row * per_row + column // 32) >> column % 32 & 1) * 2 - 1 for column in range(columns)]
        for row in rows.tolist()
    ]
    assert random_signs(9, rows, columns).tolist() == expected


def test_random_signs_are_balanced_and_uncorrelated():
    signs = random_signs(1, torch.arange(4000), 50)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert signs.mean().abs() < 5 / math.sqrt(signs.numel())
    columns = signs.T @ signs / len(signs) - torch.eye(50)
    assert columns.abs().max() < 5 / math.sqrt(len(signs))
    assert (signs[1:] * signs[:-1]).mean().abs() < 5 / math.sqrt(signs.numel())


def test_random_normals_have_the_moments_of_a_normal_distribution():
    normals = random_normals(2, torch.arange(40000), 5).double()
    count = normals.numel()
    assert normals.mean().abs() < 5 / math.sqrt(count)
    assert abs(normals.var() - 1) < 5 * math.sqrt(2 / count)
    assert abs((normals**3).mean()) < 5 * math.sqrt(15 / count)
    assert abs((normals**4).mean() - 3) < 5 * math.sqrt(96 / count)
    for values in (normals, normals**2 - 1):
        correlation = values.T @ values / len(values)
        correlation.fill_diagonal_(0)
        assert correlation.abs().max() < 5 * values.var() / math.sqrt(len(values))
