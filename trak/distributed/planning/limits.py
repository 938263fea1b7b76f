"""Limits of an attribution, the one that is reached first at the head."""

from collections.abc import Sequence
from dataclasses import dataclass

from trak.distributed.planning.phases import GRAM_COPIES, Cost
from trak.distributed.planning.workload import Workload
from trak.store.table import arrays

MAX_SECONDS = 600.0
"""Seconds that a part of a query may take."""
MANY_FILES = 1_000_000
ROW_NUMBERS = 2**32
"""Rows that claims can tell apart."""
_SMALLER = "float16 or int8, a smaller k, fewer checkpoints"
_PARTS = "a store for each part of the training set"


@dataclass(frozen=True)
class Limit:
    """Something that grows, how far it may, and what to do about it."""

    what: str
    value: float
    bound: float
    unit: str
    advice: str

    @property
    def margin(self) -> float:
        """How many times more there may be; less than 1 where it is too much already."""
        return self.bound / self.value if self.value else float("inf")


def limits(work: Workload, costs: Sequence[Cost]) -> list[Limit]:
    """All limits of some work whose costs `phases` gives, the one that breaks first at the head."""
    made, final, opened, again, everything = costs
    matrices = GRAM_COPIES * 8 * work.k**2
    blocks = max(made.memory, max(cost.memory for cost in costs[1:]) - matrices)
    fits = int((work.memory / (GRAM_COPIES * 8)) ** 0.5)
    files = work.chunks * arrays(work.k, work.dtype) * work.checkpoints
    computed = sum(made.parts.values())
    quick = f"{_SMALLER}; faster storage; more targets in one query"
    busy, gram = f"keep the store open; more workers; {_SMALLER}", sum(final.parts.values())
    found = [
        Limit("memory of Gram matrix and factor", matrices, work.memory, "bytes", f"k up to {fits:,} fits"),
        Limit("memory beside these and the model", blocks, work.memory, "bytes", "smaller batches; fewer targets"),
        Limit("Cholesky factor", again.parts["Cholesky"], MAX_SECONDS, "s", "a smaller k; a device quick in float64"),
        Limit("solve for targets", again.parts["solve"], MAX_SECONDS, "s", "a smaller k; fewer targets"),
        Limit("reading rows for a query", opened.storage_seconds, MAX_SECONDS, "s", quick),
        Limit("storage of all scores", everything.storage_seconds, MAX_SECONDS, "s", "top instead; faster storage"),
        Limit("rows times targets", again.parts["products"], MAX_SECONDS, "s", f"{_SMALLER}; a device"),
        Limit("checksums of a query", opened.parts["checksums"], MAX_SECONDS, "s", busy),
        Limit("files or objects", files, MANY_FILES, "files", f"{_SMALLER}; {_PARTS}"),
        Limit("row numbers in claims", work.examples, ROW_NUMBERS, "rows", _PARTS),
        Limit("writing rows meanwhile", made.storage_seconds, computed, "s", f"faster storage; {_SMALLER}"),
        Limit("Gram matrices beside featurizing", gram, computed, "s", "a smaller k; as many workers as checkpoints"),
    ]
    if work.step_seconds:
        for what, part, advice in (
            ("hashing examples beside a quarter of the model", "hashes", "smaller tensors"),
            ("handling rows beside a quarter of the model", "rows", "a smaller k"),
            ("batches' fixed cost beside the same", "batches", "larger batches"),
        ):
            found.append(Limit(what, made.parts[part], 0.25 * made.parts["model"], "s", advice))
    return sorted(found, key=lambda limit: limit.margin)
