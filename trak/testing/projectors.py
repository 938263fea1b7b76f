"""The contract of projectors."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from trak.projectors import Accumulator, OuterProducts, Projector, SparseRows, base
from trak.testing._pytest import pytest


def awkward_vectors(k: int, blocks: int = 12) -> np.ndarray:
    """Return six unit vectors (6, k · blocks), some of them with the largest sums of colliding coordinates."""
    rng = np.random.default_rng(0)
    vectors = np.zeros((6, blocks, k))
    vectors[0] = rng.normal(size=(blocks, k))
    vectors[1] = 1
    vectors[2] = np.outer(rng.normal(size=blocks), rng.normal(size=k))
    vectors[3, :, 0] = rng.normal(size=blocks)
    vectors[4, :2, 0] = vectors[4, :2, k // 2] = 1
    vectors[5] = vectors[1] + rng.normal(size=(blocks, k))
    flat = vectors.reshape(6, -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def _normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def _gradients() -> dict[str, Tensor]:
    return {"weight": torch.arange(24.0).reshape(2, 3, 4) / 4 - 2, "bias": torch.tensor([[1.0, -2.0], [0.5, 3.0]])}


class ProjectorContract(ABC):
    """What `trak.projectors.Projector` promises. A subclass defines `make`; `reference`, if it can.

    Attributes:
        seeds: number of projections over which inner products are averaged.
        bit_identical: whether an example's features are the same bits in every batch, and not only close.
    """

    seeds: ClassVar[int] = 400
    bit_identical: ClassVar[bool] = False
    dtype_tolerance: ClassVar[float] = 1e-12
    """Absolute error of float64 features; larger if random entries are rounded to float32."""

    @abstractmethod
    def make(self, proj_dim: int, seed: int) -> Projector:
        """Return the projector to test."""

    def reference(self, grads: Mapping[str, np.ndarray], k: int, seed: int, model_id: int) -> Any:
        """Compute the features (B, k) by the definition, in NumPy; by default `make`'s own on the CPU in float64."""
        return self.features(self.make(k, seed), {n: torch.from_numpy(g).double() for n, g in grads.items()}, model_id)

    def features(self, projector: Projector, grads: Tensor | Mapping[str, Tensor], model_id: int = 0) -> Tensor:
        """Return the features as they are stored."""
        return projector.project(grads, model_id)

    def assert_same(self, actual: Tensor, expected: Tensor) -> None:
        """Compare two tensors of features."""
        tolerance = 0 if self.bit_identical else 1e-5
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)

    def inner_products(self, k: int) -> np.ndarray:
        """Return ⟨Sx, Sy⟩ of all pairs of awkward vectors for many seeds: (seeds, 6, 6); computed once."""
        samples = vars(type(self)).get(f"_inner_products_{k}")
        if samples is None:
            vectors = torch.from_numpy(awkward_vectors(k))
            rows = (self.features(self.make(k, seed), vectors) for seed in range(self.seeds))
            samples = np.stack([(row @ row.T).numpy() for row in rows])
            setattr(type(self), f"_inner_products_{k}", samples)
        return samples

    @pytest.mark.parametrize("a, b", [(1, 1), (-2.5, 1e3), (0, -1e-3)])
    def test_projection_is_linear(self, a: float, b: float) -> None:
        x, y = _normal(2, 3, 37, dtype=torch.float64)
        projector = self.make(8, 1)
        found, fx, fy = (self.features(projector, grads) for grads in (a * x + b * y, x, y))
        torch.testing.assert_close(found, a * fx + b * fy, rtol=1e-10, atol=1e-9)

    @pytest.mark.parametrize("k", [4, 5, 32])
    def test_inner_products_are_unbiased(self, k: int) -> None:
        samples, vectors = self.inner_products(k), awkward_vectors(k)
        error = samples.std(0) / math.sqrt(len(samples))
        assert (np.abs(samples.mean(0) - vectors @ vectors.T) <= 4.5 * error + 1e-12).all()

    @pytest.mark.parametrize("k", [4, 5, 32])
    def test_variance_of_inner_products_is_within_the_stated_bound(self, k: int) -> None:
        samples, vectors = self.inner_products(k), awkward_vectors(k)
        truth = vectors @ vectors.T
        squares = (samples - truth) ** 2
        bound = (1 + truth**2) / k * (1 + 1 / 64)
        assert (squares.mean(0) <= bound + 4.5 * squares.std(0) / math.sqrt(len(samples))).all()

    def test_features_of_an_example_do_not_depend_on_its_batch(self) -> None:
        grads, projector = _normal(23, 301), self.make(16, 3)
        together = self.features(projector, grads)
        for size in (1, 7):
            self.assert_same(torch.cat([self.features(projector, part) for part in grads.split(size)]), together)
        self.assert_same(self.features(projector, grads.flip(0)).flip(0), together)

    @pytest.mark.parametrize("k", [1, 6, 8, 16])
    @pytest.mark.parametrize("positions", [1, 5])
    @pytest.mark.parametrize("elements", [1, 40, 10**6])
    def test_blocks_in_every_form_and_in_parts_equal_the_dense_gradient(
        self, monkeypatch: Any, k: int, positions: int, elements: int
    ) -> None:
        monkeypatch.setattr(base, "_PART_ELEMENTS", elements)
        monkeypatch.setattr(base, "_PART_ROWS", 2)
        generator = torch.Generator().manual_seed(0)
        left, right = (torch.randn(5, positions, n, generator=generator).double() for n in (9, 4))
        values = torch.randn(5, 7, 4, generator=generator).double()
        indices = torch.randint(9, (5, 7), generator=generator)
        table = torch.zeros(5, 9, 4).double()
        for i in range(5):
            for s in range(7):
                table[i, indices[i, s]] += values[i, s]
        weight = torch.einsum("bsm,bsn->bmn", left, right) + table
        projector = self.make(k, 3)
        expected = self.features(projector, {"weight": weight, "bias": left.sum(1)}, 2)
        for _ in range(2):  # the second time in memory that was used before
            projector.bind({"weight": (9, 4), "bias": (9,)})
            total = Accumulator(projector, 5, 2, left.device, left.dtype)
            total.add("weight", OuterProducts(left[:2], right[:2], (3, 3, 4)), 0)
            total.add("bias", left[3:].sum(1), 3)
            total.add("weight", OuterProducts(left[2:], right[2:]), 2)
            total.add("weight", SparseRows(indices, values, 9))
            total.add("bias", left[:3].sum(1), 0)
            torch.testing.assert_close(total.result(), expected, rtol=1e-10, atol=1e-10)

    def test_sums_of_two_batches_at_a_time_do_not_mix(self) -> None:
        blocks, projector = _normal(2, 3, 37), self.make(8, 1)
        projector.bind({"": (37,)})
        sums = [Accumulator(projector, 3, 0, blocks.device, blocks.dtype) for _ in blocks]
        for total, block in zip(sums, blocks, strict=True):
            total.add("", block)
        for total, block in zip(sums, blocks, strict=True):
            torch.testing.assert_close(total.result(), self.features(projector, block), rtol=1e-6, atol=1e-5)

    def test_seeds_checkpoints_and_names_give_uncorrelated_projections(self) -> None:
        k, x, three = 1024, _normal(1, 200), (0, 1, 12)
        keys = [(seed, model_id, name) for seed in three for model_id in three for name in ("a", "b")]
        rows = [self.features(self.make(k, seed), {name: x}, model_id)[0] for seed, model_id, name in keys]
        unit = torch.nn.functional.normalize(torch.stack(rows))
        assert (unit @ unit.T - torch.eye(len(rows))).abs().max() < 5 / math.sqrt(k)

    def test_checkpoint_ids_of_any_integer_type_mean_the_same(self) -> None:
        grads = torch.ones(1, 40)
        assert torch.equal(self.make(8, 0).project(grads, 5), self.make(8, 0).project(grads, np.int64(5)))  # type: ignore[arg-type]
        assert torch.equal(self.make(8, 5).project(grads), self.make(8, np.int64(5)).project(grads))  # type: ignore[arg-type]

    def test_a_projector_used_for_one_checkpoint_gives_the_next_one_fresh_numbers(self) -> None:
        grads, used = {"a": torch.ones(1, 40), "b": torch.ones(1, 3)}, self.make(8, 0)
        for model_id in (0, 1, 0):
            assert torch.equal(used.project(grads, model_id), self.make(8, 0).project(grads, model_id))

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_features_are_the_same_on_every_device(self, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
        # Integers, so that float32 sums are exact in any order.
        grads = torch.randint(-9, 10, (4, 5003), generator=torch.Generator().manual_seed(0)).float()
        features = self.features(self.make(64, 3), grads.to(device))
        assert features.device.type == device
        expected = torch.as_tensor(self.reference({"": grads.numpy()}, 64, 3, 0)).float()
        tolerance = 0 if self.bit_identical else 1e-5
        torch.testing.assert_close(features.cpu(), expected, rtol=tolerance, atol=100 * tolerance)

    @pytest.mark.parametrize("numel", [0, 1, 15, 16, 17, 100])
    def test_parameters_of_any_size_match_the_definition(self, numel: int) -> None:
        grads = {"edge": torch.randn(3, numel, dtype=torch.float64), "other": _normal(3, 2, 9, dtype=torch.float64)}
        features = self.features(self.make(16, 2), grads, model_id=4)
        expected = self.reference({name: grad.numpy() for name, grad in grads.items()}, 16, 2, 4)
        np.testing.assert_allclose(features.numpy(), expected, rtol=0, atol=self.dtype_tolerance * 20)

    def test_a_parameter_without_dimensions_is_one_of_one_element(self) -> None:
        grads = _normal(3, 1, dtype=torch.float64)
        found, expected = (self.features(self.make(16, 2), {"scale": g}, model_id=4) for g in (grads[:, 0], grads))
        assert torch.equal(found, expected)

    def test_float64_gradients_give_float64_features(self) -> None:
        grads = _normal(2, 1000, dtype=torch.float64)
        features = self.features(self.make(16, 0), grads)
        assert features.dtype == torch.float64
        expected = self.reference({"": grads.numpy()}, 16, 0, 0)
        np.testing.assert_allclose(features.numpy(), expected, rtol=0, atol=self.dtype_tolerance * 100)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_gradients_are_summed_in_float32(self, dtype: torch.dtype) -> None:
        grads = (20000 + 10000 * _normal(2, 4000)).clamp(1, 60000).to(dtype)
        features = self.features(self.make(8, 0), grads)
        assert features.dtype == torch.float32
        expected = np.asarray(self.reference({"": grads.double().numpy()}, 8, 0, 0))
        np.testing.assert_allclose(features.numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        assert grads.dtype == dtype

    def test_parameters_added_one_at_a_time_equal_those_projected_at_once(self) -> None:
        grads, projector = _gradients(), self.make(5, 7)
        projector.bind({name: grad.shape[1:] for name, grad in grads.items()})
        total = Accumulator(projector, 2, 3, torch.device("cpu"), torch.float32)
        for name in reversed(grads):
            total.add(name, grads[name])
        torch.testing.assert_close(total.result(), self.features(self.make(5, 7), grads, 3), rtol=1e-6, atol=1e-6)

    def test_gradients_given_are_left_as_they_were(self) -> None:
        grads = _gradients()
        self.make(5, 7).project(grads)
        for name, grad in _gradients().items():
            assert torch.equal(grads[name], grad)

    def test_no_examples_give_no_rows_of_full_width(self) -> None:
        assert self.make(8, 0).project({"a": torch.zeros(0, 2, 4)}).shape == (0, 8)

    def test_record_tells_kinds_and_seeds_apart(self) -> None:
        record = self.make(8, 3).describe()
        assert record["seed"] == 3
        assert record != self.make(8, 4).describe()
        assert json.loads(json.dumps(record)) == record
