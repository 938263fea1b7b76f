"""A summary of an attribution: its settings, how to read its scores, and its first targets."""

import html
from typing import Any

from trak.visualization.pages import format_score, read_asset, truncate
from trak.visualization.selection import RankedExamples, Selection

SETTING_DESCRIPTIONS = {
    "faithfulness": "how well the scores predict models trained on parts of the data (LDS): 0 is chance, the noise "
    "ceiling what perfect scores could reach",
    "checkpoints": "trained models whose scores are averaged",
    "damping": "how much directions in which training examples hardly differ are held back, relative to the mean over "
    "directions; more of it makes scores more like a plain similarity of gradients",
    "lambda_reg": "how much directions in which training examples hardly differ are held back, in absolute units",
    "weighting": "whether examples count by the curvature of their loss where directions are weighed, or alike "
    "(identity)",
    "normalize_checkpoints": "whether each checkpoint has the same say in a target's scores",
    "loss_temperature": "what outputs are divided by before the loss is taken, since models are overconfident on their "
    "training examples",
    "features": "numbers that are kept of each example's gradient",
    "projector": "the random map from gradients to features, and its seed",
}
"""Explanations of settings for readers who did not choose them."""
_TARGETS, _EXAMPLES = 3, 3
_POSITIVE, _CHARACTERS = "Positive: training on the example pushed the target's output up.", 300


def explain_scores(attribution: RankedExamples) -> str:
    """How to read the scores: their sign, and the output that they are about."""
    output = attribution.describe().get("output")
    sentence = "" if output is None else f" Output: {truncate(str(output), _CHARACTERS).rstrip('.')}."
    return f"{_POSITIVE}{sentence} Compare scores of one target with each other."


def describe_settings(attribution: RankedExamples) -> dict[str, str]:
    """The result of `describe` as text."""
    found = attribution.describe()
    of_a_store = "store" in found  # attributions of a store are named after an experiment
    return {"experiment" if of_a_store and name == "name" else name: _as_text(value) for name, value in found.items()}


def summary_html(attribution: RankedExamples, first_targets: bool) -> str:
    """A summary for notebooks, with the ranking of the first targets if asked, which takes a pass over the scores."""
    rows = "".join(
        f'<tr><th scope="row" title="{SETTING_DESCRIPTIONS.get(name, "")}">{html.escape(name)}</th>'
        f"<td>{html.escape(value)}</td></tr>"
        for name, value in describe_settings(attribution).items()
    )
    table = f"<table><caption>Attribution</caption>{rows}</table>"
    table += _first_targets(attribution) if first_targets else ""
    return (
        f'<style>{read_asset("show.css")}</style><div class="trak-show">{table}'
        f"<p>{html.escape(explain_scores(attribution))} "
        "<code>.show(train_dataset, target_dataset)</code> shows the examples.</p></div>"
    )


def _first_targets(attribution: RankedExamples) -> str:
    train, targets = attribution.shape
    selection = Selection(attribution, targets=range(min(_TARGETS, targets)), k=min(_EXAMPLES, train))
    rows = ""
    for ranking in selection.rankings():
        cells = "".join(
            f"<td>{', '.join(f'#{index} ({format_score(score)})' for index, score in end)}</td>"
            for end in (ranking.helpful, ranking.harmful)
        )
        rows += f'<tr><th scope="row">{ranking.target}</th>{cells}</tr>'
    head = "".join(f'<th scope="col">{title}</th>' for title in ("target", "highest scores", "lowest scores"))
    return f"<table><caption>First targets</caption><tr>{head}</tr>{rows}</table>"


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    if isinstance(value, list):
        some = ", ".join(map(str, value[:8]))
        return f"{len(value)} ({some}{', …' if len(value) > 8 else ''})"
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)
