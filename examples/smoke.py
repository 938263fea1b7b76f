"""Real data that packages carry, for the small runs (`--smoke`) of examples whose own data has to be downloaded."""

import inspect
import json
import pathlib
import random
import shutil
import statistics
import textwrap
from pathlib import Path

import numpy as np

DOCUMENTED = (
    inspect,
    json,
    pathlib.Path,
    random.Random,
    shutil,
    statistics,
    statistics.NormalDist,
    textwrap,
    str,
    dict,
)


def photographs(folder: Path) -> Path:
    """Pieces of scikit-learn's two photographs, laid out like ImageNet, in {train,val}/{temple,flower}."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    if not folder.exists():
        for name, photograph in zip(("temple", "flower"), load_sample_images().images, strict=True):
            for i, (y, x) in enumerate(np.ndindex(6, 10)):
                path = folder / ("train" if i % 5 else "val") / name / f"{y}-{x}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(photograph[64 * y :, 64 * x :][:64, :64]).save(path)
    return folder


def docstrings() -> list[tuple[str, str, int]]:
    """(question, sentence, 0 if it answers it or 1 if not), from the documentation of Python's own modules."""
    found = {}
    for thing in DOCUMENTED:
        for name, member in inspect.getmembers(thing, callable):
            sentence = " ".join((inspect.getdoc(member) or "").split("\n\n")[0].split())
            if not name.startswith("_") and len(sentence) > 20:
                found[f"What does {name} of {thing.__name__} do?"] = sentence
    questions = list(found)
    random.Random(0).shuffle(questions)  # noqa: S311
    others = questions[1:] + questions[:1]
    return [
        (question, found[question if i % 2 else other], 0 if i % 2 else 1)
        for i, (question, other) in enumerate(zip(questions, others, strict=True))
    ]
