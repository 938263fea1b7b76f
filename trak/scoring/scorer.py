"""Scores, computed a block of rows at a time, and the strongest of them."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trak._utils.typing import Array
from trak.scoring.auto_damping import resolve
from trak.scoring.config import DEFAULT_SCORING, ScoringConfig
from trak.scoring.damping import factorize
from trak.scoring.top_k import RunningTopK, TopK, TopKQuery, check_k
from trak.store import Executor, Experiment, MemoryMatrix, ScoreMatrix, SerialExecutor, Table, TileBlock, Tiles

MEMORY_BUDGET = 512 * 2**20
TOP_GROUPS = 64
"""Number of parts into which the training examples are divided at most, for several processes to rank."""
_FEW_TARGETS = 16


class Scorer:
    """τ(i, t) = mean_c b_tc φ_tᵀ(K_c + λ_c I)⁻¹φ_i · mean_c Q_i (TRAK, equations 13 and 17).

    The paper's b_tc is 1. With `normalize_checkpoints`, b_tc is mean_c(g_tc) / g_tc for g_tc = ‖φ_t‖ / √trace(K_c),
    so that every checkpoint has equal weight in a target's scores however large its gradient is. The scores of one
    checkpoint are the same either way.

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
        self._experiment, self._ids, self._scoring, self._device = experiment, model_ids, scoring, device
        self._memory_budget, self._factors = memory_budget, dict[int, Tensor]()
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
                    f"model_id {model_id} is not finalized for weighting={scoring.weighting!r}; call finalize_features "
                    "first"
                )
            table = experiment.targets(model_id)
            if not (done := table.is_done()).all():
                raise ValueError(
                    f"experiment {experiment.name!r}, model_id {model_id}: {int((~done).sum())} of {len(done)} targets "
                    f"are not featurized, the first is {int(np.argmin(done))}; call score for them"
                )
            table.verify()
            self._tables.append(store.table(model_id))
            self._targets.append(table)
        self._check_same_data()
        self.damping = resolve(scoring, experiment, model_ids)
        self._features = self._tables[0].features
        self._wide = torch.float64 if self._features.dtype == np.float64 else torch.float32
        k, m, itemsize = self._features.shape[1], experiment.num_targets, self._wide.itemsize
        step = self._targets_at_once = max(1, memory_budget // 4 // (k * itemsize * len(model_ids)))
        self._target_ranges = [(start, min(start + step, m)) for start in range(0, m, step)]
        self._rows_at_once = max(1, min(8192, memory_budget // 4 // (itemsize * (k + 4 * min(step, m)))))

    def _check_same_data(self) -> None:
        for model_id, table, targets in zip(self._ids[1:], self._tables[1:], self._targets[1:], strict=True):
            is_other = f"is other data for model_id {model_id} than for model_id {self._ids[0]}"
            different = _first_difference(self._targets[0], targets)
            if different is not None:
                raise ValueError(
                    f"target {different} of experiment {self._experiment.name!r} {is_other}; score the same targets in "
                    "the same order"
                )
            different = _first_difference(self._tables[0], table)
            if different is not None:
                warnings.warn(
                    f"training example {different} {is_other}: a shuffled loader, which makes the scores wrong, or "
                    "random augmentation",
                    stacklevel=2,
                )

    def _solutions(self, start: int, stop: int) -> list[Tensor]:
        if (start, stop) in self._solved:
            return self._solved[start, stop]
        targets = [table.take(np.arange(start, stop), np.float64) for table in self._targets]
        if self._scoring.normalize_checkpoints and len(self._ids) > 1:
            norms = np.stack([np.linalg.norm(features, axis=1) for features in targets]) / self._root_traces
            wanted, norms = norms.mean(axis=0), np.where(norms > 0, norms, 1)
            targets = [features * (wanted / own)[:, None] for features, own in zip(targets, norms, strict=True)]
        found = [
            torch.cholesky_solve(torch.from_numpy(features).to(self._device).T, self._factor(model_id)).to(self._wide)
            for model_id, features in zip(self._ids, targets, strict=True)
        ]
        self._solved = {(start, stop): found}
        return found

    def _gram(self, model_id: int) -> Array:
        return self._experiment.store.gram(model_id, self._scoring.weighting)

    @cached_property
    def _root_traces(self) -> Array:
        """√trace(K_c) of each checkpoint, in a column."""
        traces = [float(np.trace(self._gram(model_id))) for model_id in self._ids]
        return np.sqrt(np.maximum(traces, np.finfo(float).tiny))[:, None]

    def _factor(self, model_id: int) -> Tensor:
        if model_id in self._factors:
            return self._factors[model_id]
        gram = torch.from_numpy(self._gram(model_id)).to(self._device)
        factor = factorize(gram, self.damping)
        if 8 * gram.numel() * len(self._ids) <= self._memory_budget // 4:
            self._factors[model_id] = factor
        return factor

    def _blocks(self, solutions: list[Tensor], chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        """(start, stop, scores (rows, targets)) over the training examples of a chunk, in order."""
        for number, indices in self._tables[0].chunks(chunk):
            for model_id in self._ids:
                self._experiment.store.verify(model_id, number)
            factors = self._row_factors(indices)
            blocks = (table.features.blocks(self._rows_at_once, number) for table in self._tables)
            for pieces in zip(*blocks, strict=True):
                start, stop, _ = pieces[0]
                these = slice(start - indices[0], stop - indices[0])
                parts = (
                    self._product(rows, solution).mul_(factor[these, None])
                    for (_, _, rows), factor, solution in zip(pieces, factors, solutions, strict=True)
                )
                yield start, stop, reduce(Tensor.add_, parts)

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

    def fill(self, out: Array) -> None:
        """Write all scores into an array of shape (n, n_targets)."""
        MemoryMatrix(out).compute(self.score_tiles(), SerialExecutor())

    def compute(
        self, query: TopKQuery | None, executor: Executor, progress: Callable[[int], None] = lambda scores: None
    ) -> ScoreMatrix:
        """Compute all scores, or those that `top` merges for a query, into the store.

        Args:
            query: the strongest scores alone; None for all.
            executor: decides which process computes which tile. Unless it stands for all tiles, the matrix may end
                incomplete.
            progress: told the number of scores that were computed in this process; only if all are.
        """
        settings = scoring_settings(self._experiment, self._ids, self._scoring)
        if query is None:
            matrix, tiles = self._experiment.score_matrix(settings), self.score_tiles(progress)
        else:
            tiles, shape = self._top_tiles(query, min(self._features.chunks, TOP_GROUPS))
            matrix = self._experiment.top_matrix(settings | query._asdict(), shape)
        matrix.compute(tiles, executor)
        return matrix

    def top(self, query: TopKQuery, executor: Executor | None = None) -> TopK:
        """The k highest scores of each target, or the k lowest; of equal scores the lower index first.

        Args:
            query: k, and which end.
            executor: shares the work with other processes through the store. Without one, this process streams the
                training examples and stores nothing.

        Raises:
            TypeError: if k is not an integer.
            ValueError: if k is not between 1 and the number of training examples.
        """
        query = TopKQuery(check_k(query.k, len(self._tables[0])), bool(query.bottom))
        if executor is not None:
            return query.merge(self.compute(query, executor).read())
        tiles, shape = self._top_tiles(query, 1)
        matrix = MemoryMatrix(np.empty(shape))
        matrix.compute(tiles, SerialExecutor())
        return query.merge(matrix.read())

    def score_tiles(self, progress: Callable[[int], None] = lambda scores: None) -> Tiles:
        """The tiles of all scores: a chunk of training examples for some targets each."""
        self._features.check_stored()
        numbered = [(*targets, chunk) for targets in self._target_ranges for chunk in range(self._features.chunks)]

        def compute(tile: int) -> Iterator[TileBlock]:
            first, last, chunk = numbered[tile]
            for start, stop, scores in self._blocks(self._solutions(first, last), chunk):
                yield slice(start, stop), slice(first, last), scores.cpu().numpy()
                progress((stop - start) * (last - first))

        return Tiles(len(numbered), (self._features.chunk_rows, self._targets_at_once), compute)

    def _top_tiles(self, query: TopKQuery, count: int) -> tuple[Tiles, tuple[int, int]]:
        """The tiles of the matrix that `TopKQuery.merge` takes, a row for each of `count` groups of chunks, and its
        shape; a tile is a group for some targets."""
        self._features.check_stored()
        k, groups = query.k, np.array_split(np.arange(self._features.chunks), count)
        numbered = [(*targets, group) for targets in self._target_ranges for group in range(count)]

        def compute(tile: int) -> Iterator[TileBlock]:
            first, last, group = numbered[tile]
            best, solutions = RunningTopK(last - first, k, self._wide, self._device), self._solutions(first, last)
            for chunk in groups[group].tolist():
                for start, _, scores in self._blocks(solutions, chunk):
                    best.update((scores * query.sign).T, start)
            found = np.full((last - first, 2, k), -np.inf)
            for part, values in enumerate((best.largest, best.positions)):
                found[:, part, : values.shape[1]] = values.cpu().numpy()
            yield slice(group, group + 1), slice(2 * k * first, 2 * k * last), found.reshape(1, -1)

        shape = count, 2 * k * self._experiment.num_targets
        return Tiles(len(numbered), (1, 2 * k * self._targets_at_once), compute), shape


def scoring_settings(experiment: Experiment, model_ids: Sequence[int], scoring: ScoringConfig) -> dict[str, Any]:
    """Everything that decides an experiment's scores besides features and targets, ready for JSON."""
    return {
        "model_ids": list(model_ids),
        "fingerprints": [experiment.store.fingerprint(i) for i in model_ids],
        **scoring.describe(),
    }


def _first_difference(table: Table, other: Table) -> int | None:
    """The first row that is of another example in another table, if there is one."""
    for _, indices in table.chunks():
        different = table.hashes(indices) != other.hashes(indices)
        if different.any():
            return int(indices[np.argmax(different)])
    return None
