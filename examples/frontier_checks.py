"""Besides the LDS: what happens when helpful examples go, which labels are wrong, how far two runs agree.

`python examples/frontier_checks.py digits`: after examples/frontier.py, whose checkpoints it uses.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from frontier import OUTPUT, Frontier
from real_tasks import RealTask

import trak
from trak import baselines
from trak.evaluation import agreement, counterfactuals, harm_scores, lds, mislabel_detection, self_influence

CHECKPOINTS = 10
FLIPPED = 0.05
COMPARED = (
    "gradient dot product", "gradient cosine", "representation, cosine", "KNN-Shapley", "influence function (Arnoldi)",
    "EK-FAC", "BM25",
)  # fmt: skip
"""Of the frontier's methods that retrain nothing."""
AGREEING: dict[str, dict[str, Any]] = {
    "k = 4,096": {"proj_dim": 4096},
    "a dense projection": {"projector": "rademacher"},
    "checkpoints not normalized": {"normalize_checkpoints": False},
    "W = I": {"weighting": "identity"},
    **{f"damping {damping:g}": {"damping": damping} for damping in (3.0, 10.0, 30.0)},
}
"""Settings that might make two projection seeds agree better."""


def agreements(frontier: Frontier, settings: Mapping[str, dict[str, Any]]) -> None:
    """Two projection seeds, and what their agreement costs in LDS."""
    for name, options in settings.items():
        first = frontier.scores(CHECKPOINTS, **options).scores.copy()
        found = agreement(first, frontier.scores(CHECKPOINTS, projector_seed=1, **options))
        print(f"{frontier.name}, {name}: {found}; {lds(first, frontier.judge)}", flush=True)


def removals(frontier: Frontier) -> None:
    """The top k of a target by each method are removed, and models trained again."""
    task = frontier.task
    methods: dict[str, Any] = {"TRAK": frontier.scores(CHECKPOINTS).scores.copy()}
    for name, (baseline, count) in frontier.cheap().items():
        if name in COMPARED:
            methods[name] = frontier.baseline(baseline, count)
    found = counterfactuals(
        methods, task.train, task.task, task.targets, train_set_size=task.size,
        save_dir=OUTPUT / task.name / "removals", k=(20, 80) if task.name == "digits" else (20,),
        target_indices=range(0, 200, 10 if task.texts is None else 5), seeds=2, random_sets=2, config=task.config,
    )  # fmt: skip
    print(found)
    print(found.to_frame().to_string(index=False))
    print(found.paired_differences("TRAK").to_string(index=False))
    found.plot().figure.savefig(OUTPUT / f"removals-{task.name}.png", dpi=110)


def wrong_labels(task: RealTask) -> None:
    """Five per cent of the training labels are changed, models trained, and issue scores compared with the truth."""
    rng = np.random.default_rng(0)
    flipped = rng.random(task.size) < FLIPPED
    classes = int(task.labels.max()) + 1
    labels = torch.where(
        torch.from_numpy(flipped), (task.labels + torch.from_numpy(rng.integers(1, classes, task.size))) % classes,
        task.labels,
    )  # fmt: skip
    train = replace(task.train, relabelled=tuple(labels.tolist()))
    torch.set_num_threads(1)
    states = [train(np.arange(task.size), seed).state_dict() for seed in range(CHECKPOINTS)]
    arguments: dict[str, Any] = {
        "model": task.make(), "task": task.task, "checkpoints": states, "train": task.batches(labels),
        "targets": task.targets, "progress": False,
    }  # fmt: skip
    where = OUTPUT / task.name / "mislabelled"
    attribution = trak.attribute(**arguments, save_dir=where)
    losses = np.mean([_losses(train, task, labels, state) for state in states], axis=0)
    issue_scores = {
        "TRAK, self-influence": self_influence(attribution, progress=False),
        "TRAK, self-influence on the output": self_influence(attribution, quantity="output", progress=False),
        "TRAK, harmful to the targets": harm_scores(attribution),
        "training loss": losses,
        "gradient dot, harmful": harm_scores(baselines.GradientDot().attribute(**arguments)),
        "KNN-Shapley, harmful": harm_scores(baselines.KNNShapley(layer=task.representation).attribute(**arguments)),
    }
    for name, values in issue_scores.items():
        print(f"{name}: {mislabel_detection(values, flipped)}")


def _losses(train: Any, task: RealTask, labels: torch.Tensor, state: Any) -> np.ndarray:
    model, definition = task.make(), trak.tasks.make_task(task.task)
    model.load_state_dict(state)
    with torch.no_grad():
        found = [definition.loss(definition.output(model.eval(), batch)) for batch in task.batches(labels)]
    return torch.cat(found).double().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=["digits"])
    parser.add_argument("--removals", action="store_true", help="also the ones that train hundreds of models")
    parser.add_argument("--agreement", action="store_true", help="also the agreement of seeds under other settings")
    arguments = parser.parse_args()
    for name in arguments.tasks:
        frontier = Frontier(name)
        agreements(frontier, {"defaults": {}} | (AGREEING if arguments.agreement else {}))
        wrong_labels(frontier.task)
        if arguments.removals:
            removals(frontier)


if __name__ == "__main__":
    main()
