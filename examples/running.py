"""What several examples do alike: train checkpoints once, and print what an attribution found."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trak.attribution.results import Attribution


def checkpoints(
    folder: Path,
    count: int,
    train: Callable[[int], nn.Module],
    recipe: Mapping[str, Any],
    begin: Callable[[str], None] = lambda piece: None,
) -> list[Path]:
    """Files of `count` models, of which those that are missing are trained.

    Args:
        folder: where they are kept.
        count: how many.
        train: from a seed, 0 to count - 1, to a model.
        recipe: what they are trained by: text, numbers and lists of such.
        begin: called with the name of each one that is about to be trained.

    Raises:
        SystemExit: if one was trained by another recipe.
    """
    paths = [folder / f"checkpoint{seed}.pt" for seed in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    for seed, path in enumerate(paths):
        if not path.exists():
            begin(f"training {path.stem}")
            part = path.with_suffix(".part")
            torch.save({"recipe": dict(recipe), "state_dict": train(seed).state_dict()}, part)
            part.rename(path)
        elif (found := torch.load(path, map_location="cpu")["recipe"]) != dict(recipe):
            raise SystemExit(f"{path} was trained by {found}, not by {dict(recipe)}: give another --output")
    return paths


def print_top(
    attribution: Attribution, targets: Sequence[int], target_names: Sequence[str], names: Sequence[str], k: int = 5
) -> None:
    """The k most helpful and the k most harmful training examples of some targets, by name."""
    helpful, harmful = attribution.top(k), attribution.top(k, bottom=True)
    for target in targets:
        print(f"\ntarget {target}: {target_names[target]}")
        for title, found in (("pushed up by", helpful), ("pushed down by", harmful)):
            print(f"  {title}")
            for i, score in zip(found.indices[target], found.scores[target], strict=True):
                print(f"    #{i} {score:+.2g} {names[i]}")
