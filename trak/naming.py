"""Looking a name up among those that exist."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest of `known`, or all of them if none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return (
        f"did you mean {near[0]!r}?"
        if near
        else f"use one of {', '.join(names)}"
        if names
        else "there are none yet; make one first"
    )
