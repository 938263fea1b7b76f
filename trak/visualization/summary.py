"""An attribution in a few lines: what it is of, how it was made, how far it may be believed, its first targets."""

import html
from typing import Any

from trak.visualization.selection import RankedExamples, Selection
from trak.visualization.show import number, page_file, shortened

EXPLAINED = {
    "faithfulness": "how well the scores predict models trained on parts of the data (LDS): 0 is chance, the noise "
    "ceiling what perfect scores could reach",
    "checkpoints": "trained models whose scores are averaged",
    "damping": "how much directions in which training examples hardly differ are held back, relative to the mean over "
    "directions; more of it makes scores more like a plain similarity of gradients",
    "lambda_reg": "how much directions in which training examples hardly differ are held back, in absolute units",
    "weighting": "whether examples count by the curvature of their loss where directions are weighed, or alike "
    "(identity)",
    "normalize_checkpoints": "whether each checkpoint has the same say in a target's scores",
    "loss_temperature": "what outputs are divided by before it is asked how much an example has left to teach: a model is "
    "surer of what it was trained on",
    "features": "numbers that are kept of each example's gradient",
    "projector": "the random map from gradients to features, and its seed",
}
"""What settings mean, for people who didn't choose them."""
_TARGETS, _NEIGHBOURS = 3, 3
_POSITIVE, _CHARACTERS = "Positive: training on the example pushed the target's output up.", 300


def meaning(attribution: RankedExamples) -> str:
    """How scores are to be read."""
    output = attribution.describe().get("output")
    said = "" if output is None else f" Output: {shortened(str(output), _CHARACTERS).rstrip('.')}."
    return f"{_POSITIVE}{said} Compare scores of one target with each other."


def facts(attribution: RankedExamples) -> dict[str, str]:
    """What `describe` says, in words."""
    found = attribution.describe()
    of_a_store = "store" in found  # whose attributions are named after an experiment
    return {"experiment" if of_a_store and name == "name" else name: _in_words(value) for name, value in found.items()}


def summary_html(attribution: RankedExamples, first_targets: bool) -> str:
    """A summary for notebooks.

    Args:
        attribution: the scores.
        first_targets: whether to look for what the first targets rest on, which takes a pass over the scores.
    """
    rows = "".join(
        f'<tr><th scope="row" title="{EXPLAINED.get(name, "")}">{html.escape(name)}</th>'
        f"<td>{html.escape(value)}</td></tr>"
        for name, value in facts(attribution).items()
    )
    found = f"<table><caption>Attribution</caption>{rows}</table>"
    if first_targets:
        found += _first(attribution)
    return (
        f'<style>{page_file("show.css")}</style><div class="trak-show">{found}<p>{html.escape(meaning(attribution))} '
        "<code>.show(train_dataset, target_dataset)</code> shows the examples.</p></div>"
    )


def _first(attribution: RankedExamples) -> str:
    train, targets = attribution.shape
    shown = Selection(attribution, targets=range(min(_TARGETS, targets)), k=min(_NEIGHBOURS, train))
    lines = ""
    for row in shown.rows():
        cells = "".join(
            f"<td>{', '.join(f'#{n.train_index} ({number(n.score)})' for n in end)}</td>"
            for end in (row.helpful, row.harmful)
        )
        lines += f'<tr><th scope="row">{row.target}</th>{cells}</tr>'
    head = "".join(f'<th scope="col">{title}</th>' for title in ("target", "highest scores", "lowest scores"))
    return f"<table><caption>First targets</caption><tr>{head}</tr>{lines}</table>"


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        some = ", ".join(map(str, value[:8]))
        return f"{len(value)} ({some}{', …' if len(value) > 8 else ''})"
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)
