"""Measured costs of one worker on one machine."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

from trak._utils.validation import is_number

_REMEDY = "write it again with python benchmarks/constants.py"
DTYPES = ("float32", "float16", "int8")
"""Types of stored features that constants are given for."""


@dataclass(frozen=True)
class Line:
    """Seconds as a linear function of a size."""

    fixed: float
    each: float

    def at(self, size: float) -> float:
        """Seconds for a size."""
        return self.fixed + self.each * size


@dataclass(frozen=True)
class Constants:
    """Of one worker on one machine; seconds, bytes, floating-point operations (a multiply-add is two)."""

    machine: str
    """Where they were measured, in words."""
    open_seconds: float
    """Making a store, loading a checkpoint and checking its first batch."""
    batch_seconds: float
    """Of each batch, whatever its size: claims, locks, waiting for the disk."""
    row_seconds: Mapping[str, Line]
    """By dtype: what a row of k features costs beyond the model's gradient: sketching, checking, writing."""
    hash_seconds: float
    """Of each byte of an example, which is hashed to tell it again."""
    step_ratio: float
    """Featurizing ÷ plain forward and backward, where the model's work dominates."""
    verify_seconds: Line
    """Comparing a row of so many bytes with its checksum."""
    finalize_seconds: float
    """Of a checkpoint, whatever its size."""
    gram_seconds: Mapping[str, float]
    """By dtype: of each feature of a row, for its conversion."""
    gram_flops: float
    """In one second, of the Gram matrix's products."""
    query_seconds: float
    """Of a query, whatever its size."""
    reopen_seconds: float
    """Of a query of a reopened store, in addition: metadata that are not in any cache."""
    cholesky_flops: float
    """In one second, in float64."""
    solve_flops: float
    """In one second, in float64."""
    eigen_seconds: Line
    """Of choosing the damping by one checkpoint, for d = min(k, 1024) features: the line at d³."""
    damping_seconds: Line
    """Of each of the rows, at most 4,096, by which it is chosen: the line at d²."""
    stream_seconds: Mapping[str, float]
    """By dtype: of each feature of a row that is multiplied by solutions, for reading and converting it."""
    product_flops: float
    """In one second, of rows by solutions."""
    top_seconds: Line
    """Of a row, whose scores of so many targets are compared with the best so far."""
    score_seconds: float
    """Of each score that is written to a file, with its checksum."""
    read_bandwidth: float
    """Bytes in one second from storage, one worker."""
    write_bandwidth: float
    """Bytes in one second to storage, one worker."""
    process_bytes: float
    """Of an idle process that has imported everything."""

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Constants":
        """From a JSON file, as `benchmarks/constants.py` and `save` write it.

        Raises:
            OSError: if it cannot be read.
            ValueError: if it holds something else.
        """
        text = Path(path).read_text(encoding="utf-8")
        try:
            return cls.parse(json.loads(text), str(path))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}; {_REMEDY}") from error

    @classmethod
    def default(cls) -> "Constants":
        """Those that come with the library."""
        name = "defaults.json"
        return cls.parse(json.loads(files(__package__).joinpath(name).read_text(encoding="utf-8")), name)

    @classmethod
    def parse(cls, found: Any, where: str) -> "Constants":
        """From what JSON holds; raises ValueError naming `where` if it is something else."""
        if not isinstance(found, dict):
            raise ValueError(f"{where} must hold an object of constants, got a {type(found).__name__}; {_REMEDY}")
        names = [field.name for field in fields(cls)]
        for name in (*names, *found):
            if name not in found or name not in names:
                fault = "lacks" if name not in found else "has an unknown"
                raise ValueError(f"{where} {fault} {name!r}; {_REMEDY}")
        return cls(**{name: _value(name, found[name], where) for name in names})

    def save(self, path: str | PathLike[str]) -> None:
        """Write them as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def _check(fine: bool, rule: str, value: Any) -> None:
    if not fine:
        raise ValueError(f"{rule}, got {value!r}; {_REMEDY}")


def _value(name: str, value: Any, where: str) -> Any:
    if name == "machine":
        return str(value)
    if name not in ("row_seconds", "gram_seconds", "stream_seconds"):
        return _number(name, value, where)
    fine = isinstance(value, dict) and set(value) == set(DTYPES)
    _check(fine, f"{name} in {where} must have an entry for each of {', '.join(DTYPES)}", value)
    return {dtype: _number(name, one, where) for dtype, one in value.items()}


def _number(name: str, value: Any, where: str) -> Line | float:
    if name not in ("row_seconds", "verify_seconds", "eigen_seconds", "damping_seconds", "top_seconds"):
        return _positive(name, value, where)
    fine = isinstance(value, dict) and set(value) == {"fixed", "each"}
    _check(fine, f"{name} in {where} must have 'fixed' and 'each'", value)
    return Line(**{part: _positive(name, one, where) for part, one in value.items()})


def _positive(name: str, value: Any, where: str) -> float:
    fine = is_number(value) and 0 <= value < float("inf")
    _check(fine, f"{name} in {where} must be a number, 0 or more and finite", value)
    rate = name.endswith(("flops", "bandwidth", "ratio"))
    _check(value > 0 or not rate, f"{name} in {where} must be more than 0", value)
    return float(value)
