"""Attributions in words."""

from collections.abc import Callable, Sequence

import trak


def print_top(attribution: trak.Attribution, titles: Sequence[str], text: Callable[[int, int], str], k: int) -> None:
    """For the first targets, under their titles, the k most helpful and the k most harmful training examples, as
    `text(target, index)` writes them."""
    both = attribution.top(k), attribution.top(k, bottom=True)
    for target, title in enumerate(titles):
        print(f"\ntarget {target}: {title}")
        for what, found in zip(("pushed it up", "pushed it down"), both, strict=True):
            print(f"  {what}:")
            for i, score in zip(found.indices[target].tolist(), found.scores[target], strict=True):
                print(f"    #{i} {score:+.2g} {text(target, i)}")
