"""Scores, a block of rows at a time, and the strongest of them."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trak.scoring.auto_damping import resolve
from trak.scoring.config import DEFAULT_SCORING, ScoringConfig
from trak.scoring.damping import factorize
from trak.store import Experiment, Table, TileBlock, Tiles

MEMORY_BUDGET = 512 * 2**20
TOP_GROUPS = 64
"""Into how many parts the training examples are divided at most when several processes look for the best."""
_FEW_TARGETS = 16

Array = np.ndarray[Any, Any]


class TopK(NamedTuple):
    """The strongest training examples of each target, strongest first."""

    indices: Array
    """int64 (n_targets, k)."""
    scores: Array
    """float32 (n_targets, k)."""


class Scorer:
    """τ(i, t) = mean_c b_tc φ_tᵀ(K_c + λ_c I)⁻¹φ_i · mean_c Q_i (TRAK, equations 13 and 17).

    The paper's b_tc is 1. With `normalize_checkpoints` it is the mean over checkpoints of g_tc = ‖φ_t‖ / √trace(K_c)
    divided by g_tc itself, so that every checkpoint has equal weight in a target's scores, however large its gradient
    is. One checkpoint's scores are the same either way.

    Solves for the targets and streams the training features past the solutions, so that memory is
    bounded by `memory_budget` bytes whatever the numbers of examples and targets.
    """

    def __init__(
        self,
        experiment: Experiment,
        model_ids: list[int],
        scoring: ScoringConfig = DEFAULT_SCORING,
        device: torch.device | str = "cpu",
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        """
        Args:
            experiment: the targets.
            model_ids: checkpoints to average over.
            scoring: damping, weighting and normalisation.
            device: where to multiply.
            memory_budget: bytes.

        Raises:
            ValueError: if a checkpoint is not finalized, or its targets are not all featurized.
            StoreError: if what is stored is damaged.
        """
        self._experiment, self._ids = experiment, model_ids
        self._weighting, self._device = scoring.weighting, device
        self._normalize = scoring.normalize_checkpoints and len(model_ids) > 1
        self._memory_budget, self._factors = memory_budget, dict[int, Tensor]()
        self._traces: dict[int, float] = {}
        # Of the last range of targets, since top, bottom and all scores are often asked for one after the other.
        self._solved: dict[tuple[int, int], list[Tensor]] = {}
        store = experiment.store
        if not model_ids:
            raise ValueError(
                "no checkpoint to score with: model_ids is empty; leave it out for all, or featurize a checkpoint first"
            )
        self._tables, self._targets = [], []
        for model_id in model_ids:
            if not store.is_finalized(model_id, scoring.weighting):
                raise ValueError(
                    f"model_id {model_id} is not finalized for weighting={scoring.weighting!r}; call finalize_features first"
                )
            table = experiment.targets(model_id)
            done = table.is_done()
            if not done.all():
                raise ValueError(
                    f"experiment {experiment.name!r}, model_id {model_id}: {int((~done).sum())} of {len(done)} targets "
                    f"are not featurized, the first is {int(np.argmin(done))}; call score for them"
                )
            table.verify()
            self._tables.append(store.table(model_id))
            self._targets.append(table)
        self._check_same_data()
        self.damping = resolve(scoring, experiment, model_ids)
        self._wide = torch.float64 if self._tables[0].features.dtype == np.float64 else torch.float32
        k = self._tables[0].features.shape[1]
        itemsize = 8 if self._wide == torch.float64 else 4
        self._targets_at_once = max(1, memory_budget // 4 // (k * itemsize * len(model_ids)))
        targets = min(self._targets_at_once, experiment.num_targets)
        self._rows_at_once = max(1, min(8192, memory_budget // 4 // (itemsize * (k + 4 * targets))))

    def _check_same_data(self) -> None:
        first, *others = zip(self._ids, self._tables, self._targets, strict=True)
        for other, table, targets in others:
            different = _first_difference(first[2], targets)
            if different is not None:
                raise ValueError(
                    f"target {different} of experiment {self._experiment.name!r} is other data "
                    f"for model_id {other} than for model_id {first[0]}; score the same targets in the same order"
                )
            different = _first_difference(first[1], table)
            if different is not None:
                warnings.warn(
                    f"training example {different} is other data for model_id {other} than for "
                    f"model_id {first[0]}: a shuffled loader, which makes the scores wrong, or random augmentation",
                    stacklevel=2,
                )

    def _solutions(self, start: int, stop: int) -> list[Tensor]:
        if (start, stop) in self._solved:
            return self._solved[start, stop]
        targets = [table.take(np.arange(start, stop), np.float64) for table in self._targets]
        if self._normalize:
            norms = np.stack([np.linalg.norm(features, axis=1) for features in targets])
            norms /= np.sqrt([max(self._trace(i), np.finfo(float).tiny) for i in self._ids])[:, None]
            wanted, norms = norms.mean(axis=0), np.where(norms > 0, norms, 1)
            targets = [features * (wanted / own)[:, None] for features, own in zip(targets, norms, strict=True)]
        found = []
        for model_id, features in zip(self._ids, targets, strict=True):
            columns = torch.from_numpy(features).to(self._device).T
            found.append(torch.cholesky_solve(columns, self._factor(model_id)).to(self._wide))
        self._solved = {(start, stop): found}
        return found

    def _trace(self, model_id: int) -> float:
        if model_id not in self._traces:
            self._traces[model_id] = float(np.trace(self._experiment.store.gram(model_id, self._weighting)))
        return self._traces[model_id]

    def _factor(self, model_id: int) -> Tensor:
        if model_id in self._factors:
            return self._factors[model_id]
        gram = torch.from_numpy(self._experiment.store.gram(model_id, self._weighting)).to(self._device)
        factor = factorize(gram, self.damping)
        if 8 * gram.numel() * len(self._ids) <= self._memory_budget // 4:
            self._factors[model_id] = factor
        return factor

    def _blocks(self, solutions: list[Tensor], chunk: int | None = None) -> Iterator[tuple[int, int, Tensor]]:
        """(start, stop, scores (rows, targets)) over the training examples, or those of a chunk, in order."""
        for number, indices in self._tables[0].chunks(chunk):
            for model_id in self._ids:
                self._experiment.store.verify(model_id, number)
            factors = self._row_factors(indices)
            blocks = (table.features.blocks(self._rows_at_once, number) for table in self._tables)
            for pieces in zip(*blocks, strict=True):
                start, stop, _ = pieces[0]
                these = slice(start - indices[0], stop - indices[0])
                total: Tensor | None = None
                for (_, _, rows), factor, solution in zip(pieces, factors, solutions, strict=True):
                    part = self._product(rows, solution).mul_(factor[these, None])
                    total = part if total is None else total.add_(part)
                if total is not None:
                    yield start, stop, total

    def _row_factors(self, indices: Array) -> list[Tensor]:
        """What products of some rows are to be multiplied by, for each checkpoint: mean Q times the rows' scale."""
        q = np.mean([table.column("out_to_loss_grad", indices) for table in self._tables], axis=0, dtype=np.float64)
        scales = (table.scales(indices) for table in self._tables)
        factors = (q / len(self._tables) * (1 if scale is None else scale) for scale in scales)
        return [torch.from_numpy(factor).to(self._wide).to(self._device) for factor in factors]

    def _product(self, rows: Array, solution: Tensor) -> Tensor:
        if solution.shape[1] < _FEW_TARGETS and solution.device.type == "cpu" and rows.dtype == solution.numpy().dtype:
            # NumPy's BLAS reads the rows at the memory's speed for a few columns, torch's at half of it on some CPUs.
            return torch.from_numpy(rows @ solution.numpy())
        return torch.from_numpy(rows).to(device=self._device, dtype=self._wide) @ solution

    def _target_ranges(self) -> Iterator[tuple[int, int]]:
        for start in range(0, self._experiment.num_targets, self._targets_at_once):
            yield start, min(start + self._targets_at_once, self._experiment.num_targets)

    def fill(self, out: Array, progress: Callable[[int], None] = lambda rows: None) -> None:
        """Write all scores into `out`, shape (n, n_targets)."""
        self.pieces(progress).fill(out)

    def pieces(self, progress: Callable[[int], None] = lambda scores: None) -> Tiles:
        """All scores, in pieces that several processes may compute: a chunk of training examples for some targets."""
        numbered = [(*targets, chunk) for targets in self._target_ranges() for chunk in range(self._chunks)]

        def blocks(piece: int) -> Iterator[TileBlock]:
            first, last, chunk = numbered[piece]
            for start, stop, scores in self._blocks(self._solutions(first, last), chunk):
                yield slice(start, stop), slice(first, last), scores.cpu().numpy()
                progress((stop - start) * (last - first))

        return Tiles(len(numbered), (self._tables[0].features.chunk_rows, self._targets_at_once), blocks)

    @property
    def _chunks(self) -> int:
        return self._tables[0].features.chunks

    def top(self, k: int, bottom: bool = False) -> TopK:
        """The k highest scores of each target, or the k lowest; of equal ones the lower index first.

        Raises:
            ValueError: if k is not between 1 and the number of training examples.
        """
        k = check_k(k, len(self._tables[0]))
        found = [self._best(*targets, k, bottom) for targets in self._target_ranges()]
        values, indices = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
        return _top(values, indices, bottom)

    def top_pieces(self, k: int, bottom: bool) -> Tiles:
        """What `merge_top_k` makes `top` of, in pieces that several processes may compute: a row for each group of
        chunks, with the best scores and their indices for every target."""
        groups = np.array_split(np.arange(self._chunks), min(self._chunks, TOP_GROUPS))
        numbered = [(targets, group) for targets in self._target_ranges() for group in range(len(groups))]

        def blocks(piece: int) -> Iterator[TileBlock]:
            (first, last), group = numbered[piece]
            best = np.full((last - first, 2, k), -np.inf)
            for part, values in enumerate(self._best(first, last, k, bottom, groups[group].tolist())):
                best[:, part, : values.shape[1]] = values.cpu().numpy()
            yield slice(group, group + 1), slice(2 * k * first, 2 * k * last), best.reshape(1, -1)

        return Tiles(len(numbered), (1, 2 * k * self._targets_at_once), blocks)

    def top_shape(self, k: int) -> tuple[int, int]:
        """Shape of the matrix that `top_pieces` are of."""
        return min(self._chunks, TOP_GROUPS), 2 * k * self._experiment.num_targets

    def _best(
        self, first: int, last: int, k: int, bottom: bool, chunks: Sequence[int | None] = (None,)
    ) -> tuple[Tensor, Tensor]:
        """The k largest scores of some targets, or negated the smallest, and their indices, among all chunks or some:
        (last - first, k) each, strongest first."""
        sign = -1.0 if bottom else 1.0
        best_value = torch.empty(last - first, 0, dtype=self._wide, device=self._device)
        best_index = torch.empty(last - first, 0, dtype=torch.int64, device=self._device)
        solutions = self._solutions(first, last)
        for start, _, scores in chain.from_iterable(self._blocks(solutions, chunk) for chunk in chunks):
            scores = (scores * sign).T
            # After the first k, most rows beat none of a target's best, and of equal scores the earlier counts.
            some = torch.arange(scores.shape[1], device=scores.device)
            if best_value.shape[1] == k:
                some = (scores > best_value[:, -1:]).any(dim=0).nonzero()[:, 0]
            value, index = _stable_top(scores[:, some], k)
            best_value = torch.cat((best_value, value), dim=1)
            best_index = torch.cat((best_index, some[index] + start), dim=1)
            best_value, order = best_value.sort(dim=1, descending=True, stable=True)
            best_value, best_index = best_value[:, :k], best_index.gather(1, order)[:, :k]
        return best_value, best_index


def check_k(k: int, n: int) -> int:
    """The number of training examples to be found, of n.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is not between 1 and n.
    """
    if isinstance(k, bool) or not hasattr(k, "__index__"):
        raise TypeError(
            f"k must be an integer, got {k!r}; give the number of training examples that you want for each target"
        )
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the number of training examples, {n}, got {k}; ask for {n} or fewer")
    return int(k)


def merge_top_k(pieces: Array, k: int, bottom: bool) -> TopK:
    """What `Scorer.top` returns, of the matrix that `Scorer.top_pieces` are of."""
    values, indices = pieces.reshape(len(pieces), -1, 2, k).transpose(2, 1, 0, 3).reshape(2, -1, len(pieces) * k)
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return _top(np.take_along_axis(values, order, 1), np.take_along_axis(indices, order, 1), bottom)


def _top(values: Array, indices: Array, bottom: bool) -> TopK:
    return TopK(indices.astype(np.int64), (values * (-1.0 if bottom else 1.0)).astype(np.float32))


def _first_difference(table: Table, other: Table) -> int | None:
    """The first row that is of another example in another table, if there is one."""
    for _, indices in table.chunks():
        different = table.hashes(indices) != other.hashes(indices)
        if different.any():
            return int(indices[np.argmax(different)])
    return None


def _stable_top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, largest first, ties by position."""
    k = min(k, scores.shape[1])
    smallest = scores.topk(k, dim=1, sorted=True).values[:, -1:]
    # Ties at the edge: of those equal to the k-th value, keep the first ones.
    above, equal = scores > smallest, scores == smallest
    keep = above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))
    index = keep.nonzero()[:, 1].reshape(len(scores), k)
    value, order = scores.gather(1, index).sort(dim=1, descending=True, stable=True)
    return value, index.gather(1, order)
