"""Packages that are imported where they are used, and not needed otherwise."""

from importlib import import_module
from typing import Any


def import_optional_dependency(module: str, need: str, extra: str) -> Any:
    """A module of an optional package; without that an ImportError that begins with `need` and names the extra."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{need}: pip install 'trak-attribution[{extra}]'") from error
