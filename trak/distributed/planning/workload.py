"""Sizes of an attribution."""

from dataclasses import dataclass, fields

from trak._utils.validation import check_option
from trak.distributed.planning.constants import DTYPES
from trak.store.table import chunk_rows, row_bytes


@dataclass(frozen=True)
class Workload:
    """Sizes of an attribution; see `phases` for what follows from them."""

    examples: int
    """Training examples, n."""
    params: int
    """Parameters that are differentiated by, p."""
    k: int = 2048
    """Features of a row."""
    dtype: str = "float32"
    """Of the stored features."""
    checkpoints: int = 1
    targets: int = 100
    """Of one query, m."""
    workers: int = 1
    """Processes, each with a device of its own, that share the work."""
    step_seconds: float = 0.0
    """Of a plain forward and backward pass for one example on one worker."""
    batch: int = 64
    """Examples of a batch."""
    example_bytes: int = 4096
    """Of one example's tensors."""
    memory: float = 64e9
    """Bytes that a worker may use, the cache of files included."""
    read_bandwidth: float | None = None
    """Bytes in one second that storage gives all workers together; by default what one worker measured."""
    write_bandwidth: float | None = None
    """The same for writing."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "dtype":
                check_option(value, "dtype", DTYPES)
            elif value is not None:
                least, whole = (0, False) if field.name == "step_seconds" else (1, field.type in (int, "int"))
                if not least <= value < float("inf") or (whole and value != int(value)):
                    wanted = f"{'an integer' if whole else 'a number'}, {least} or more and finite"
                    raise ValueError(f"{field.name} must be {wanted}, got {value!r}; give such a number")
                if whole:  # a command line gives 1e9
                    object.__setattr__(self, field.name, int(value))

    @property
    def row_bytes(self) -> int:
        """Stored of one example by one checkpoint, its small columns included."""
        return row_bytes(self.k, self.dtype)

    @property
    def chunks(self) -> int:
        """Files, or objects, of each array of a checkpoint."""
        return -(-self.examples // chunk_rows(self.examples, self.k, self.dtype))

    @property
    def table_bytes(self) -> int:
        """Of the rows of one checkpoint, in whole chunks."""
        return self.chunks * chunk_rows(self.examples, self.k, self.dtype) * self.row_bytes

    @property
    def stored_bytes(self) -> int:
        """Of everything but metadata and written scores: rows, Gram matrices and targets."""
        return self.checkpoints * (self.table_bytes + 8 * self.k**2 + self.targets * self.row_bytes)

    @property
    def in_cache(self) -> bool:
        """Whether the rows of all checkpoints stay in a worker's memory between passes."""
        return self.checkpoints * self.table_bytes <= 0.75 * self.memory


def step_seconds(params: float, tokens: float, flops: float) -> float:
    """Seconds of a forward and backward pass of one example of so many tokens, by 6 operations for each parameter and
    token (Kaplan et al., 2020), on a device that sustains so many in a second."""
    return 6 * params * tokens / flops
