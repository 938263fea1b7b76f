"""Seconds, bytes and memory of each phase: docs/scaling.md has the same formulas in words."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from trak.distributed.planning.constants import Constants
from trak.distributed.planning.workload import Workload
from trak.scoring import MEMORY_BUDGET
from trak.scoring.auto_damping import CHECKPOINTS_EACH, FEWEST_TARGETS, FOLDED, SAMPLED_ROWS
from trak.scoring.scorer import TOP_GROUPS

GRAM_COPIES = 4
"""Matrices of k² float64 numbers that finalizing and a solve hold at once."""
_ROWS_IN_FLIGHT, _BLOCK_ROWS, _PANELS = 12, 8192, 8
_KEPT = 3
"""How many blocks of rows a process holds: the allocator keeps some that were freed."""


@dataclass(frozen=True)
class Cost:
    """Of one phase."""

    name: str
    parts: Mapping[str, float]
    """Seconds of a worker by what they are spent on."""
    workers: int
    """How many are busy."""
    bytes_read: float
    """From storage."""
    bytes_written: float
    memory: float
    """Bytes that a worker holds, the model and its activations left out."""
    storage_seconds: float
    """Of reading and writing."""
    overlapped: bool = False
    """Whether storage is waited for only where it takes longer than the rest."""

    @property
    def seconds(self) -> float:
        """From beginning to end."""
        worked = sum(self.parts.values())
        return max(worked, self.storage_seconds) if self.overlapped else worked + self.storage_seconds

    @property
    def worker_hours(self) -> float:
        """GPU-hours, where each worker has a GPU."""
        return self.seconds * self.workers / 3600


def phases(work: Workload, constants: Constants) -> list[Cost]:
    """All phases: featurizing, finalizing, a query of a reopened store, another one, all scores."""
    made = featurizing(work, constants), finalizing(work, constants)
    return [*made, query(work, constants, opened=True), query(work, constants), scores(work, constants)]


def featurizing(work: Workload, constants: Constants) -> Cost:
    """C n (r s + h + c) / w + C ⌈n/B⌉ b / w, or what writing takes, if that is more."""
    rows, share = work.checkpoints * work.examples, 1 / work.workers
    batches = work.checkpoints * -(-work.examples // work.batch)
    parts = {
        "opening": work.checkpoints * constants.open_seconds,
        **{name: rows * seconds * share for name, seconds in _row(work, constants).items()},
        "batches": batches * constants.batch_seconds * share,
    }
    written = work.checkpoints * work.table_bytes
    memory = constants.process_bytes + _ROWS_IN_FLIGHT * 4 * min(work.batch, work.examples) * work.k
    return Cost("featurizing", parts, work.workers, 0, written, memory, _stored(work, constants, 0, written), True)


def finalizing(work: Workload, constants: Constants) -> Cost:
    """Each checkpoint by one worker: n (v + g k + 9/8 k² / G), reading the rows twice."""
    rounds = -(-work.checkpoints // work.workers)
    k, rows = work.k, rounds * work.examples
    parts = {
        "opening": rounds * constants.finalize_seconds,
        "checksums": rows * constants.verify_seconds.at(work.row_bytes),
        "Gram matrix": rows * (constants.gram_seconds[work.dtype] * k + gram_operations(k) / constants.gram_flops),
    }
    read = 0 if work.in_cache else 2 * work.checkpoints * work.table_bytes
    written = work.checkpoints * 8 * k**2
    stored = _stored(work, constants, read, written)
    block = 8 * min(_BLOCK_ROWS, work.examples) * k
    memory = constants.process_bytes + GRAM_COPIES * 8 * k**2 + _KEPT * block
    return Cost("finalizing", parts, min(work.workers, work.checkpoints), read, written, memory, stored)


def query(work: Workload, constants: Constants, opened: bool = False) -> Cost:
    """Featurizing the targets and `top(10)`; of a reopened store, whose rows are in no cache and compared with their
    checksums as they are read, or of one that is open. Rows are dealt to some dozens of workers at most, each of which
    solves."""
    work = replace(work, workers=min(work.workers, TOP_GROUPS))
    passes, name = _passes(work), "query, store opened anew" if opened else "query, store open"
    strongest = passes * work.examples * constants.top_seconds.at(work.targets / passes) / work.workers
    return _asked(work, constants, name, opened, {"strongest": strongest}, 0)


def scores(work: Workload, constants: Constants) -> Cost:
    """Featurizing the targets and all scores of a reopened store, shared out in the same way."""
    count = work.examples * work.targets
    return _asked(work, constants, "all scores", True, {"file": count * constants.score_seconds}, 4 * count)


def _passes(work: Workload) -> int:
    return -(-work.targets // targets_at_once(work))


def _row(work: Workload, constants: Constants) -> dict[str, float]:
    """Seconds that featurizing one example by one checkpoint takes, by what they are spent on."""
    return {
        "model": constants.step_ratio * work.step_seconds,
        "hashes": work.example_bytes * constants.hash_seconds,
        "rows": constants.row_seconds[work.dtype].at(work.k),
    }


def _asked(
    work: Workload, constants: Constants, name: str, opened: bool, last: Mapping[str, float], written: float
) -> Cost:
    """What comes before scores, the scores, and a last part."""
    k, each = work.k, work.checkpoints
    rows, batches = each * work.examples / work.workers, -(-work.targets // work.batch)
    targets = work.targets * sum(_row(work, constants).values()) + batches * constants.batch_seconds
    multiplied = 2 * k * work.targets / constants.product_flops
    d, sampled = min(k, FOLDED), min(work.examples, SAMPLED_ROWS)
    damping = constants.eigen_seconds.at(d**3) + sampled * constants.damping_seconds.at(d**2)
    parts = {
        "targets": each * (constants.open_seconds + targets / work.workers),
        "opening": each * (constants.query_seconds + (constants.reopen_seconds if opened else 0)),
        **({"checksums": rows * constants.verify_seconds.at(work.row_bytes)} if opened else {}),
        "damping": 0.0 if work.targets < FEWEST_TARGETS else -(-each // CHECKPOINTS_EACH) * damping,
        "Cholesky": each * k**3 / 3 / constants.cholesky_flops,
        "solve": each * 2 * k**2 * work.targets / constants.solve_flops,
        "products": rows * (_passes(work) * k * constants.stream_seconds[work.dtype] + multiplied),
        **last,
    }
    read = each * ((int(opened) if work.in_cache else _passes(work)) * work.table_bytes + work.workers * 8 * k**2)
    at_once = min(work.targets, targets_at_once(work))
    # Rows of a block as they are multiplied, their scores, and what finds the strongest.
    block = min(4 * min(_BLOCK_ROWS, work.examples) * (k + 4 * at_once), MEMORY_BUDGET // 4)
    memory = constants.process_bytes + GRAM_COPIES * 8 * k**2 + (8 + 4 * each) * k * at_once + _KEPT * block
    return Cost(name, parts, work.workers, read, written, memory, _stored(work, constants, read, written))


def gram_operations(k: int) -> float:
    """Floating-point operations of one row, of whose products the upper half is computed, in eight panels."""
    return (1 + 1 / _PANELS) * k**2


def targets_at_once(work: Workload) -> int:
    """Targets for which the store is read once."""
    return max(1, MEMORY_BUDGET // 4 // (4 * work.k * work.checkpoints))


def _stored(work: Workload, constants: Constants, read: float, written: float) -> float:
    """Seconds that reading and writing so many bytes take."""
    reads, writes = work.read_bandwidth or constants.read_bandwidth, work.write_bandwidth or constants.write_bandwidth
    return read / reads + written / writes
