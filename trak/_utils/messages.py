"""Parts of messages: the nearest of the known names, the first of many names, the first line of another error."""

import difflib
from collections.abc import Iterable, Sequence


def suggest(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest of `known`, or all of them if none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"use one of {', '.join(names)}" if names else "there are none yet; make one first"


def abbreviate(names: Sequence[str], most: int = 3) -> str:
    """The first `most` names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def shorten_names(names: Sequence[str], limit: int = 3) -> str:
    """Return the first names in quotes, and how many more there are."""
    return abbreviate([repr(name) for name in names], limit)


def first_line(error: BaseException, characters: int | None = 200) -> str:
    """The first line of an error's message, truncated; empty if it has none."""
    return str(error).strip().partition("\n")[0][:characters]
