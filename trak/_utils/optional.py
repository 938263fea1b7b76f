"""Packages that are imported where they are used, and not needed otherwise."""

from importlib import import_module
from typing import Any


def import_optional_dependency(module: str, need: str, extra: str) -> Any:
    """A module of an optional package.

    Args:
        module: its name.
        need: who needs what, as the error is to begin.
        extra: of this package, that installs it.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{need}: pip install 'trak-attribution[{extra}]'") from error
