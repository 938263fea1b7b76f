"""What messages have in common: the nearest of the names that exist, and the gist of another error."""

import difflib
from collections.abc import Iterable, Sequence


def suggest(name: str, known: Iterable[str]) -> str:
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


def shorten_names(names: Sequence[str], limit: int = 3) -> str:
    """Return the first names in quotes, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more


def first_line(error: BaseException, characters: int | None = 200) -> str:
    """The first line of what an error says, cut to some characters; nothing if it says nothing."""
    return str(error).strip().partition("\n")[0][:characters]
