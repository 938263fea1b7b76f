"""Fact tracing (Akyürek et al., 2022; TRAK, section 5.2) at the size of a laptop: which sentences taught a model a fact?

`python examples/fact_tracing_small.py` trains a small GPT-2 on sentences about countries and things and asks it facts in
words that it was not taught them in. Methods are judged by whether they rank first the sentences that state a fact, by
what becomes of the fact when their top sentences are removed, and by linear datamodeling score. Some 350 small
models are trained, about half an hour of one core; they are kept in examples/output/frontier/facts, so that the next
run takes a minute. With `--choose` the settings of TRAK are compared on the half of questions and subsets
that nothing is reported on.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

CHECKPOINTS, EPOCHS = 10, (3, 6, 9, 12, 15)
REMOVED = 6
"""As many as there are sentences that state a fact."""
TOGETHER = 5
"""Questions whose sentences are removed at once."""
SEEDS = 3
GROUND_TRUTH, RANDOM = "sentences that state it", "random"
CHOSEN: dict[str, Any] = {}
"""Settings of TRAK that did best on the choosing half, where they are not the defaults."""
Array = np.ndarray[Any, Any]


def scores(frontier: Frontier) -> dict[str, Array]:
    """By method, (sentences, questions)."""
    layer, task = frontier.task.representation, frontier.task
    along = [real_tasks.weights(path, epoch) for path in frontier.paths[:2] for epoch in EPOCHS]
    tracin = baselines.TracIn([1.0] * len(along)).attribute(
        task.make(), task.task, along, task.batches(task.labels), task.targets, progress=False
    )
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


def removals(frontier: Frontier, methods: Mapping[str, Array], seeds: int, jobs: int) -> dict[str, dict[str, Array]]:
    """By method, how much lower each reported question's margin and probability are without its top sentences, how
    many answers turn wrong, and how much lower the margin is without those of other questions.

    The sentences of a few questions are removed at once, so that one model tells of all of them.
    """
    task, questions = frontier.task, frontier.judge.targets
    shuffled = np.random.default_rng(0).permutation(len(questions))
    groups = np.array_split(shuffled, len(questions) // TOGETHER)
    removed = [np.empty(0, np.int64)]
    for values in methods.values():
        top = np.argsort(-values[:, questions], axis=0, kind="stable")[:REMOVED]
        removed += [np.unique(top[:, group]) for group in groups]
    fraction = REMOVED * TOGETHER / task.size
    removed += [random_subset(0, i, task.size, fraction) for i in range(len(groups))]
    runs = [(np.setdiff1d(np.arange(task.size), r), training_seed(0, 0, s)) for r in removed for s in range(seeds)]
    found = retrain_on(
        runs, task.train, task.task, task.targets, train_set_size=task.size, save_dir=OUTPUT / task.name / "removals",
        config=task.config, jobs=jobs,
    )  # fmt: skip
    assert found.correct is not None
    own = np.zeros((len(groups), len(questions)), bool)
    for member, group in zip(own, groups, strict=True):
        member[group] = True
    values = {"margin": found.outputs, "probability": 1 / (1 + np.exp(-found.outputs)), "wrong": found.correct}
    result: dict[str, dict[str, Array]] = {name: {} for name in (*methods, RANDOM)}
    for what, of_runs in values.items():
        before, *after = of_runs[:, questions].astype(float).reshape(len(removed), seeds, -1).mean(axis=1)
        drops = before - np.stack(after).reshape(len(result), len(groups), -1)
        for name, drop in zip(result, drops, strict=True):
            result[name][what] = drop[own.argmax(axis=0), np.arange(len(questions))]
            result[name][f"{what}, others"] = (drop * ~own).sum(axis=0) / (~own).sum(axis=0)
    return result


def mean(values: Array, digits: int = 2) -> str:
    """Over questions, with its interval, as a cell of a table."""
    low, high = Bootstrap().of_means(values)
    return f"{values.mean():.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def choose(frontier: Frontier) -> None:
    """A table of TRAK's settings on the choosing half."""
    relevant = stated(corpus()).numpy()[:, frontier.judge.targets]
    print("| setting | LDS (95 % interval) | MRR |\n| --- | --- | --- |")
    for options in ({}, *({"damping": d} for d in (0.1, 0.3, 1.0, 10.0)), *({"softening": t} for t in (1.0, 2.0, 5.0))):
        values = frontier.scores(CHECKPOINTS, **options).scores
        found, ranked = lds(values, frontier.judge), retrieval(values[:, frontier.judge.targets], relevant, 10)
        print(f"| {options} | {found.mean:.3f} ({found.interval}) | {ranked.mrr:.3f} ({ranked.mrr_interval}) |", flush=True)


def draw(rows: Mapping[str, list[tuple[float, float, float] | None]], path: Path) -> None:
    """Three panels of bars: retrieval, removal, LDS."""
    labels = ("mean reciprocal rank of a sentence that states it", "fall of the fact's margin without the top 6 (nats)", "linear datamodeling score")
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.2), sharey=True, layout="constrained")
    for i, (ax, label) in enumerate(zip(panels, labels, strict=True)):
        for y, (name, values) in enumerate(rows.items()):
            if values[i] is not None:
                middle, low, high = values[i]  # type: ignore[misc]
                color = "#08519c" if name == "TRAK" else "#7f7f7f"
                ax.barh(y, middle, xerr=[[middle - low], [high - middle]], color=color, capsize=3, height=0.7)
        ax.set(xlabel=label, yticks=range(len(rows)), yticklabels=list(rows))
        ax.axvline(0, color="black", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=110)
