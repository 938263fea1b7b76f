"""Which training pairs does a CLIP's similarity of an image and its caption come from? Take them away and train again.

`python examples/clip_counterfactual.py scenes` (or `captions`): for held-out pairs that the models know, the k training
pairs that each method calls most helpful are removed, models trained again, and the drop of the pair's cosine
similarity is measured, as in section 5.1 of the TRAK paper; then the linear datamodeling score (LDS) of each method for
the same cosines. Hundreds of models are trained, 2 to 4 seconds of one core each. They and the scores are kept in
examples/output/frontier, so that it can be killed and goes on; fewer --queries, --k or --seeds are contained in more.
`--choosing` looks at the pairs and subsets by which settings were chosen.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from frontier import OUTPUT, Frontier
from real_tasks import TRAINING_SPECS
from real_tasks.captions import Similarity

import trak
from trak import baselines
from trak.attribution.results import StoredAttribution
from trak.evaluation import Counterfactuals, counterfactuals, lds

CHECKPOINTS = 10
KNOWN = 0.4
"""The mean cosine from which on a pair is looked at."""
REMOVED = ("TRAK (10)", "TRAK of the cosine (10)", "CLIP similarity (10)", "TracIn, one run's epochs (1)")
Array = np.ndarray[Any, Any]


class OfCosine(trak.tasks.CLIP):
    """Training examples by their margins, targets (which say "cosine") by what is measured."""

    def output(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        if "cosine" not in batch:
            return super().output(model, batch)
        return Similarity().output(model, batch)


class Pairs(Frontier):
    """What is compared on a task of images and captions."""

    def __init__(self, name: str, choosing: bool) -> None:
        super().__init__(name, choosing, checkpoints=CHECKPOINTS)

    def methods(self) -> dict[str, Callable[[], Array]]:
        """How the scores come about, by name and number of checkpoints."""
        similarity = baselines.RepresentationSimilarity
        found: dict[str, Callable[[], Array]] = {
            "TRAK (10)": self.attributed,
            "TRAK of the cosine (10)": partial(self.attributed, cosine=True),
            "CLIP similarity (10)": lambda: self.of(similarity("visual")) + self.of(similarity("textual")),
            "TracIn, one run's epochs (1)": lambda: self.along_training().scores,
            **{f"TRAK ({n})": partial(self.attributed, n) for n in (1, 5)},
            **{f"TRAK, damping {d:g} (10)": partial(self.attributed, damping=d) for d in (0.1, 0.3, 1.0, 3.0, 10.0)},
            "TRAK of the cosine, damping 10 (10)": partial(self.attributed, damping=10.0, cosine=True),
        }
        others = {
            "gradient dot product": baselines.GradientDot(), "gradient cosine": baselines.GradientCosine(),
            "similarity of images": similarity("visual"), "similarity of captions": similarity("textual"),
            "BM25 of captions": baselines.BM25(), "random": baselines.Random(0),
        }  # fmt: skip
        return found | {f"{name} (10)": partial(self.of, other) for name, other in others.items()}

    def attributed(self, count: int = CHECKPOINTS, damping: float | str = "auto", cosine: bool = False) -> Array:
        """By the library, from `count` of the checkpoints."""
        task, targets = self.explained(cosine)
        found = trak.attribute(
            self.task.make(), task, self.states(CHECKPOINTS), self.task.batches(self.task.labels), targets,
            self.folder / f"features{'-of-cosine' * cosine}", progress=False,
        )  # fmt: skip
        scoring = found.scoring.override(damping=damping)
        return StoredAttribution(found.experiment, range(count), scoring).scores.copy()

    def explained(self, cosine: bool) -> tuple[trak.tasks.Task | str, list[Any]]:
        """What is attributed, and the targets."""
        if not cosine:
            return self.task.task, self.task.targets
        bank = self.task.batches(self.task.labels)
        targets = [batch | {"cosine": torch.ones(len(batch["images"]))} for batch in self.task.targets]
        return OfCosine(bank, batch_size=TRAINING_SPECS[self.name].batch_size), targets

    def of(self, baseline: baselines.Baseline) -> Array:
        """By another method."""
        return self.baseline(baseline, CHECKPOINTS).scores

    def kept(self, name: str) -> Array:
        """Scores by a method, computed once."""
        path = self.folder / "scores" / f"{name}.npy"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            unfinished = path.with_suffix(".partial.npy")
            np.save(unfinished, self.methods()[name]())
            unfinished.replace(path)
        return np.load(path)

    def cosines(self) -> Array:
        """The targets' cosines, mean over models trained on everything."""
        model, measured, found = self.task.make(), trak.tasks.make_task(self.task.measured), []
        for state in self.states(CHECKPOINTS):
            model.load_state_dict(state)
            with torch.no_grad():
                found.append(torch.cat([measured.output(model, batch) for batch in self.task.targets]).numpy())
        return np.mean(found, axis=0)

    def removals(self, k: list[int], queries: int, seeds: int) -> Counterfactuals:
        """Drops in percent of the queries' mean cosine."""
        cosines, task = self.cosines(), self.task
        known = [i for i in self.judge.targets.tolist() if cosines[i] >= KNOWN]
        chosen = np.random.default_rng(0).permutation(known)[:queries]
        print(f"\n{len(known)} of {len(self.judge.targets)} held-out pairs are known; those looked at:")
        print(*(f"- {task.texts[1][i] if task.texts else i} ({cosines[i]:.2f})" for i in chosen), sep="\n")
        found = counterfactuals(
            {name: self.kept(name) for name in REMOVED}, task.train, task.measured, task.targets,
            train_set_size=task.size, save_dir=self.folder / "removals", k=k, target_indices=chosen, seeds=seeds,
            random_sets=2, config=task.config,
        )  # fmt: skip
        percent = 100 / cosines[chosen].mean()
        return replace(found, drops=percent * found.drops, drop_intervals=percent * found.drop_intervals)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", nargs="?", default="scenes", choices=["captions", "scenes"])
    parser.add_argument("--choosing", action="store_true")
    parser.add_argument("--k", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    pairs = Pairs(arguments.task, arguments.choosing)
    found = pairs.removals(arguments.k, arguments.queries, arguments.seeds)
    print("\n| k | method | drop in % (95 % interval) |\n| --- | --- | --- |")
    for row in found.to_frame().sort_values("k", kind="stable").itertuples():
        print(f"| {row.k} | {row.method} | {row.drop:.0f} ({row.drop_low:.0f} to {row.drop_high:.0f}) |")
    ax = found.plot(what="drops")
    ax.set_ylabel("drop of the pair's cosine similarity (%)")
    picture = OUTPUT / f"clip-{arguments.task}{'-choosing' * pairs.choosing}.png"
    ax.figure.savefig(picture, dpi=110, bbox_inches="tight")
    print("\n| method (checkpoints) | LDS (95 % interval) |\n| --- | --- |")
    for name in pairs.methods():
        score = lds(pairs.kept(name), pairs.judge)
        print(f"| {name} | {score.mean:.3f} ({score.interval}) |", flush=True)
    print(f"| noise ceiling | {score.noise_ceiling:.3f} |")


if __name__ == "__main__":
    main()
