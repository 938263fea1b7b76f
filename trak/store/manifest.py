"""The configuration that a store records, and its comparison with the one asked for."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from trak.store.checks import ConfigMismatchError, StoreError
from trak.store.table import DTYPES
from trak.version import __version__


@dataclass(frozen=True)
class StoreManifest:
    """The configuration recorded when a store is created; a subclass for each kind of store has the fields."""

    key: ClassVar[str]
    """Name among the root group's attributes."""
    kind: ClassVar[str]
    """Of store, in words."""
    format: ClassVar[int]
    made_by: ClassVar[str]
    """Function that creates such stores."""
    nearby: ClassVar[tuple[str, ...]] = ()
    """Patterns of subfolders where one may be that was looked for in the wrong place."""

    def attributes(self) -> dict[str, Any]:
        """For the root group."""
        return {self.key: {"format": self.format, "library_version": __version__, **asdict(self)}}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], where: str) -> Self:
        """Read back; a StoreError if it was not written by this library, or by another format's."""
        recorded = attributes.get(cls.key)
        if not isinstance(recorded, Mapping):
            raise StoreError(f"{where} holds a zarr group that is no {cls.kind}; choose another save_dir")
        if recorded.get("format") != cls.format:
            raise StoreError(
                f"{where} has format {recorded.get('format')!r} (written by version "
                f"{recorded.get('library_version')}), this version reads format {cls.format}; use a matching version"
            )
        try:
            return cls(**{field.name: recorded[field.name] for field in fields(cls)})
        except (KeyError, ValueError, TypeError) as error:
            raise StoreError(
                f"{where} has a damaged configuration: {error}; restore its zarr.json from a copy, or choose another "
                "save_dir"
            ) from error

    def check_same(self, asked: Self, where: str) -> None:
        """Raise a ConfigMismatchError naming both values if `asked` differs from the recorded configuration."""
        for field in fields(self):
            stored, wanted = _difference(field.name, getattr(self, field.name), getattr(asked, field.name))
            if stored != wanted:
                raise ConfigMismatchError(
                    f"{where} was made with {stored}, but {wanted} was asked for; use what it was made with, or "
                    "another save_dir. Nothing stored was changed"
                )


@dataclass(frozen=True)
class StoreConfig(StoreManifest):
    """Recorded when a feature store is created."""

    key, kind, format = "trak", "feature store", 2
    made_by, nearby = "trak.attribute", ("store", "run-*/store")

    train_set_size: int
    proj_dim: int
    projector: Mapping[str, Any]
    """Kind and seed."""
    dtype: str
    """Of the stored features, see `trak.store.Table`."""
    parameters: Mapping[str, list[int]]
    """Shapes of the parameters differentiated by, by name."""
    task: Mapping[str, Any]
    """Name and settings."""
    loss_temperature: float = 1.0
    """Of the loss whose derivatives Q and R are, see `trak.tasks.Task.weights_at_temperature`."""

    def __post_init__(self) -> None:
        for name in ("train_set_size", "proj_dim"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}; give their number, 1 or more")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}; choose from these")
        for name, value in (("projector", self.projector), ("parameters", self.parameters), ("task", self.task)):
            if not isinstance(value, Mapping):
                raise ValueError(f"{name} must be a mapping, got {value!r}; pass a dict")
        if not isinstance(self.task.get("name"), str):
            raise ValueError(f"task must have a name, got {self.task!r}; put it under 'name'")
        for name, shape in self.parameters.items():
            if not isinstance(shape, list) or not all(isinstance(size, int) and size >= 0 for size in shape):
                raise ValueError(
                    f"the shape of parameter {name!r} must be a list of sizes, got {shape!r}; pass list(tensor.shape)"
                )
        if isinstance(self.loss_temperature, bool) or not isinstance(self.loss_temperature, int | float):
            raise ValueError(f"loss_temperature must be a number, got {self.loss_temperature!r}; use 1 for none")


def _difference(name: str, stored: Any, wanted: Any) -> tuple[str, str]:
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        if name == "parameters" and set(stored) != set(wanted):
            return _names(stored, wanted), _names(wanted, stored)
        for key in [*stored, *wanted]:
            if stored.get(key) != wanted.get(key):
                return _difference(f"{name} {key}", stored.get(key), wanted.get(key))
        return name, name
    return f"{name}={stored!r}", f"{name}={wanted!r}"


def _names(names: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    own = sorted(set(names) - set(others))
    return f"{len(names)} parameters" + (f" ({', '.join(map(repr, own[:3]))} among them)" if own else "")
