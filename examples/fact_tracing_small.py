"""Fact tracing (Akyürek et al., 2022; TRAK, section 5.2) with a small GPT-2: which sentences taught it a fact?

`python examples/fact_tracing_small.py` trains models on sentences about countries and things and asks them facts in
words that they were not taught them in. Methods are judged by whether they rank first the sentences that state a fact,
by what becomes of it when their top sentences are removed, and by linear datamodeling score. Some 300 models of 3 to 8
seconds of a core are trained once and kept in examples/output/frontier/facts; the rest takes a minute. With `--choose`
settings of TRAK are compared on the halves of questions and subsets that nothing is reported on.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import real_tasks
from frontier import OUTPUT, Frontier
from real_tasks.corpus import corpus
from real_tasks.facts import ANSWER, PADDING, stated

from trak import baselines
from trak.evaluation import lds, retrain_on, retrieval
from trak.evaluation.retraining import random_subset, training_seed
from trak.evaluation.statistics import Bootstrap

Array = np.ndarray[Any, Any]
CHECKPOINTS, EPOCHS = 10, (3, 6, 9, 12, 15)
REMOVED, TOGETHER = 6, 5
"""Sentences removed for a question, as many as state its fact; questions whose sentences are removed at once."""
CHOSEN: dict[str, Any] = {}
"""Settings of TRAK that did best on the choosing halves, where they are not the defaults."""
GRID = {"damping": (0.03, 0.1, 0.3, 1.0, 10.0), "loss_temperature": (1.0, 5.0), "weighting": ("identity",)}
STATED, RANDOM = "the sentences that state it", "random"


class Bar(NamedTuple):
    """A mean over questions with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


def scores(frontier: Frontier) -> dict[str, Array]:
    """By method, (sentences, questions)."""
    layer = frontier.task.representation
    along = [real_tasks.weights(path, epoch) for path in frontier.paths[:2] for epoch in EPOCHS]
    tracin = frontier.baseline(baselines.TracIn([1.0] * len(along)), along)
    others: dict[str, baselines.Baseline] = {
        "gradient dot product": baselines.GradientDot(),
        "gradient cosine": baselines.GradientCosine(),
        "gradient cosine times Q": baselines.GradientCosine(weighted=True),
        "embedding similarity": baselines.RepresentationSimilarity(layer, pool=1),
        "BM25": baselines.BM25(ignore=(PADDING, ANSWER)),
        RANDOM: baselines.Random(0),
    }
    return {
        "TRAK": frontier.scores(CHECKPOINTS, **CHOSEN).scores.copy(),
        "TracIn": tracin.scores,
        **{name: frontier.baseline(baseline, CHECKPOINTS).scores for name, baseline in others.items()},
    }


def removals(frontier: Frontier, methods: Mapping[str, Array], seeds: int, jobs: int | None) -> dict[str, list[Array]]:
    """By method, for each reported question: by how much its margin, its probability and the share of right answers
    fall without its top sentences, and its margin without the top sentences of others.

    The sentences of a few questions are removed at once, so that one model tells of all of them.
    """
    task, questions = frontier.task, frontier.judge.targets
    groups = np.array_split(np.random.default_rng(0).permutation(len(questions)), len(questions) // TOGETHER)
    own = np.array([np.isin(np.arange(len(questions)), group) for group in groups])
    removed = [np.empty(0, np.int64)]
    for values in methods.values():
        top = np.argsort(-values[:, questions], axis=0, kind="stable")[:REMOVED]
        removed += [np.unique(top[:, group]) for group in groups]
    removed += [random_subset(0, i, task.size, REMOVED * TOGETHER / task.size) for i in range(len(groups))]
    runs = [(np.setdiff1d(np.arange(task.size), r), training_seed(0, 0, s)) for r in removed for s in range(seeds)]
    found = retrain_on(
        runs, task.train, task.task, task.targets, train_set_size=task.size, save_dir=OUTPUT / task.name / "removals",
        config=task.config, jobs=jobs,
    )  # fmt: skip
    values = np.stack([found.outputs, 1 / (1 + np.exp(-found.outputs)), np.asarray(found.correct, float)])
    means = values[:, :, questions].reshape(3, len(removed), seeds, -1).mean(axis=2)
    drops = (means[:, :1] - means[:, 1:]).reshape(3, -1, *own.shape)
    mine = (drops * own).sum(axis=2)
    others = (drops[0] * ~own).sum(axis=1) / (~own).sum(axis=0)
    return {name: [*mine[:, i], others[i]] for i, name in enumerate([*methods, RANDOM])}


def bar(values: Array) -> Bar:
    """Of one number for each question."""
    return Bar(float(values.mean()), *Bootstrap().mean_intervals(values).tolist())


def choose(frontier: Frontier) -> None:
    """Prints what settings of TRAK give on the choosing halves."""
    questions = frontier.judge.targets
    relevant = stated(corpus()).numpy()[:, questions]
    print("| setting | LDS (95 % interval) | MRR (95 % interval) |\n| --- | --- | --- |")
    settings: list[dict[str, Any]] = [{}, *({name: value} for name, several in GRID.items() for value in several)]
    for options in settings:
        values = frontier.scores(CHECKPOINTS, **options).scores
        found, ranked = lds(values, frontier.judge), retrieval(values[:, questions], relevant, 10)
        cells = f"{found.mean:.3f} ({found.interval}) | {ranked.mrr:.3f} ({ranked.mrr_interval})"
        print(f"| {options or 'defaults'} | {cells} |", flush=True)


def draw(rows: Mapping[str, tuple[Bar | None, Bar | None, Bar | None]], ceiling: float, path: Path) -> None:
    """Retrieval, removal and LDS side by side."""
    labels = ("MRR of the sentences that state it", "fall of the margin without the top 6 (nats)", "LDS")
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.2), sharey=True, layout="constrained")
    for i, (ax, label) in enumerate(zip(panels, labels, strict=True)):
        for y, (name, bars) in enumerate(rows.items()):
            if (found := bars[i]) is not None:
                error = [[found.mean - found.low], [found.high - found.mean]]
                ax.barh(y, found.mean, xerr=error, color="#08519c" if name == "TRAK" else "#9a9a9a", capsize=3)
        ax.set(xlabel=label, yticks=range(len(rows)), yticklabels=list(rows))
        ax.axvline(0, color="black", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
    panels[2].axvline(ceiling, color="black", linestyle="--", label="noise ceiling")
    panels[2].legend(frameon=False)
    panels[0].invert_yaxis()
    figure.suptitle("Facts learnt by a small GPT-2 (95 % intervals)")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--choose", action="store_true", help="compare settings of TRAK")
    parser.add_argument("--seeds", type=int, default=2, help="models trained without the same sentences")
    parser.add_argument("--jobs", type=int, help="processes; by default as many as there are cores")
    arguments = parser.parse_args()
    frontier = Frontier("facts", arguments.choose, CHECKPOINTS)
    if arguments.choose:
        choose(frontier)
        return
    methods, questions = scores(frontier), frontier.judge.targets
    relevant = stated(corpus()).numpy()
    taken = {name: methods[name] for name in ("TRAK", "TracIn", "gradient cosine", "BM25", "embedding similarity")}
    fallen = removals(frontier, {**taken, STATED: relevant.astype(float)}, arguments.seeds, arguments.jobs)
    print(f"{frontier.task.size} sentences; {frontier.judge}")
    print("| method | MRR | recall@10 | fall of margin | of probability | of right answers | of others' margin | LDS |")
    print("| --- |" + " --- |" * 7)
    rows: dict[str, tuple[Bar | None, Bar | None, Bar | None]] = {}
    ceiling = float("nan")
    for name in (*methods, STATED):
        cells: list[Any] = [""] * 7
        if name in methods:
            ranked = retrieval(methods[name][:, questions], relevant[:, questions], 10)
            found = lds(methods[name], frontier.judge)
            ceiling = found.noise_ceiling
            cells[0], cells[1] = bar(ranked.reciprocal_ranks), bar(ranked.recalls[0])
            cells[6] = Bar(found.mean, *found.interval)
        if name in fallen:
            cells[2:6] = map(bar, fallen[name])
        rows[name] = cells[0] or None, cells[2] or None, cells[6] or None
        print(f"| {name} | {' | '.join(map(str, cells))} |", flush=True)
    print(f"noise ceiling of the LDS {ceiling:.2f}")
    draw(rows, ceiling, OUTPUT / "facts.png")


if __name__ == "__main__":
    main()
