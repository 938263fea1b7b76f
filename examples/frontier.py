"""Faithfulness against compute: every method on a real task, by linear datamodeling score and single-core seconds.

`python examples/frontier.py digits` (or `fashion`, `snippets`) trains 20 models and many more on random subsets (kept
in examples/output/frontier, half an hour on two cores for each task), then prints a table. Seconds are CPU seconds of
one thread; a model on 50 % of the examples counts as half a checkpoint's training. Scores are judged on a random 50 %
of the targets and of the subsets; examples/ablations.py chooses settings on the others.
"""

import argparse
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import real_tasks
import torch
from joblib.externals.loky import get_reusable_executor
from real_tasks.published import traker_scores

import trak
from trak import baselines
from trak.attribution.results import Attribution, StoredAttribution
from trak.evaluation import GroundTruth, lds, retrain

OUTPUT = Path(__file__).parent / "output" / "frontier"
TRUTH = {
    "digits": (160, 4),
    "fashion": (120, 3),
    "snippets": (120, 3),
    "sentiment": (60, 2),
    "facts": (60, 2),
    "captions": (80, 2),
    "scenes": (80, 2),
    "sentences": (60, 2),
}
DATAMODELS = {
    "digits": (50, 100, 200, 400, 1000), "fashion": (50, 100), "snippets": (50, 100, 150), "facts": (50, 100),
}  # fmt: skip
CHECKPOINTS = (1, 2, 5, 10, 20)
RETRAINED = (baselines.EmpiricalInfluence.name, baselines.Datamodel.name)
LARGE = ("sentiment",)
"""Of millions of parameters: with 10 checkpoints at most, and without what would take an hour or more (the published
package, Arnoldi's method, EK-FAC of all checkpoints)."""
FRACTION = 0.5
"""Of the training set, that models are retrained on."""


@dataclass(frozen=True)
class Row:
    """One method with one amount of compute."""

    family: str
    """What is joined by a line."""
    models: int
    """Checkpoints, or models retrained."""
    lds: float
    low: float
    high: float
    seconds: float
    """Of one core, training left out."""
    training: float
    """Of one core, for the models."""


class Frontier:
    """Runs methods on a task and judges their scores."""

    def __init__(self, name: str, choosing: bool = False, checkpoints: int = CHECKPOINTS[-1]) -> None:
        """
        Args:
            name: of the task.
            choosing: judge on the targets and subsets that settings are chosen by, not on those that are reported.
            checkpoints: how many to train.
        """
        self.name, self.task, self.folder = name, real_tasks.TASKS[name](), OUTPUT / name
        self._store = self.folder / ("choosing" if choosing else "store")
        checkpoints = min(checkpoints, 10) if name in LARGE else checkpoints
        self.counts = [count for count in CHECKPOINTS if count <= checkpoints]
        self.paths, self.training = real_tasks.checkpoints(self.task, checkpoints, self.folder / "checkpoints")
        self.choosing = choosing
        self.rows: list[Row] = []

    @cached_property
    def truth(self) -> GroundTruth:
        """From models retrained on random 50 % subsets."""
        return self._retrained("truth", *TRUTH[self.name], seed=0)

    @cached_property
    def judge(self) -> GroundTruth:
        """The subsets and targets that are reported, or that settings are chosen by."""
        return self.truth.split(0)[0 if self.choosing else 1]

    def _retrained(self, folder: str, subsets: int, seeds: int, seed: int) -> GroundTruth:
        found = retrain(
            self.task.train, self.task.measured or self.task.task, self.task.targets, train_set_size=self.task.size,
            save_dir=self.folder / folder, subsets=subsets, seeds=seeds, seed=seed, fraction=FRACTION,
            config=self.task.config,
        )  # fmt: skip
        # Else processes that ended later would count as work of the method that is timed then.
        get_reusable_executor().shutdown()
        return found

    def states(self, count: int) -> list[Any]:
        """State dicts of the first checkpoints."""
        return [real_tasks.weights(path) for path in self.paths[:count]]

    def scores(
        self, checkpoints: int | list[Any], of: trak.tasks.Task | str | None = None, **options: Any
    ) -> StoredAttribution:
        """Scores by the library, of the first checkpoints or of other state dicts, under the task or another."""
        states = self.states(checkpoints) if isinstance(checkpoints, int) else checkpoints
        shutil.rmtree(self._store, ignore_errors=True)
        return trak.attribute(
            self.task.make(), of or self.task.task, states, self.task.batches(self.task.labels),
            self.task.targets, self._store, progress=False, **options,
        )  # fmt: skip

    def baseline(self, baseline: baselines.Baseline, checkpoints: int | list[Any]) -> Attribution:
        """Scores by another method, likewise."""
        states = self.states(checkpoints) if isinstance(checkpoints, int) else checkpoints
        return baseline.attribute(
            self.task.make(), self.task.task, states, self.task.batches(self.task.labels), self.task.targets,
            progress=False,
        )  # fmt: skip

    def along_training(self) -> Attribution:
        """Scores by TracIn from the epochs of one run."""
        rates = real_tasks.TRAINING_SPECS[self.name].learning_rates(self.task.size)
        epochs = [real_tasks.weights(self.paths[0], epoch) for epoch in range(1, len(rates) + 1)]
        return self.baseline(baselines.TracIn(rates), epochs)

    def published(self, k: int) -> Attribution:
        """Scores by the published package. In float32: it multiplies float16 by single elements on a CPU."""
        return traker_scores(self.task, self.states(10), proj_dim=k, use_half_precision=False)

    def add(self, family: str, models: int, make: Callable[[], Any], training: float) -> None:
        """Judge what `make` returns, and show it."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        start = seconds_of_cpu()
        try:
            scores = make().scores
        except (ImportError, ValueError, TypeError, RuntimeError, CalledProcessError) as error:
            print(f"| {family} | {models} | failed: {str(error).splitlines()[0][:120]} |  |  |", flush=True)
            return
        finally:
            torch.set_num_threads(threads)
        seconds = seconds_of_cpu() - start
        found = lds(scores, self.judge)
        self.rows.append(Row(family, models, found.mean, found.interval.low, found.interval.high, seconds, training))
        show(self.rows[-1])

    def run(self) -> None:
        """Everything."""
        print("| method | models | LDS (95 % interval) | seconds | with training |\n| --- | --- | --- | --- | --- |")
        for count in self.counts:
            self.add("TRAK", count, partial(self.scores, count), count * self.training)
        published = {} if self.name in LARGE else {"traker 0.3.2, its defaults": 2048, "traker 0.3.2, k = 512": 512}
        for name, k in published.items():
            self.add(name, 10, partial(self.published, k), 10 * self.training)
        changed: dict[str, dict[str, Any]] = {
            "TRAK, damping 3": {"damping": 3.0},
            "TRAK without loss_temperature": {"loss_temperature": 1.0},
            "TRAK, checkpoints not normalized": {"normalize_checkpoints": False},
        }
        for name, options in changed.items():
            self.add(name, 10, partial(self.scores, 10, **options), 10 * self.training)
        for name, (baseline, count) in self.cheap().items():
            self.add(name, count, partial(self.baseline, baseline, count), count * self.training)
        self.add("TracIn, epochs of 1 run", 1, self.along_training, self.training)
        counts = DATAMODELS.get(self.name, ())
        if not counts:
            return
        truth = self._retrained("datamodels", counts[-1], 1, seed=1)
        for count in counts:
            some = truth.select(subsets=range(count))
            training = count * FRACTION * self.training
            for kind in (baselines.EmpiricalInfluence(some), baselines.Datamodel(some, regression="ridge")):
                self.add(kind.name, count, partial(self.baseline, kind, 1), training)

    def cheap(self) -> dict[str, tuple[baselines.Baseline, int]]:
        """Methods that retrain nothing, with numbers of checkpoints."""
        layer = self.task.representation
        found: dict[str, tuple[baselines.Baseline, int]] = {
            "random": (baselines.Random(0), 1),
            "gradient dot product": (baselines.GradientDot(), 10),
            "gradient cosine": (baselines.GradientCosine(), 10),
            "gradient cosine times Q": (baselines.GradientCosine(weighted=True), 10),
            "representation, cosine": (baselines.RepresentationSimilarity(layer, "cosine"), 10),
            "representation, dot product": (baselines.RepresentationSimilarity(layer, "dot"), 10),
            "KNN-Shapley": (baselines.KNNShapley(layer=layer), 1),
            "influence function (Arnoldi)": (baselines.InfluenceFunctions("arnoldi"), 1),
            "EK-FAC, 1 checkpoint": (baselines.EKFAC(), 1),
            "EK-FAC": (baselines.EKFAC(), 10),
        }
        if self.name in LARGE:
            del found["influence function (Arnoldi)"], found["EK-FAC"]
        return {**found, "BM25": (baselines.BM25(), 1)} if self.task.texts is not None else found


def seconds_of_cpu() -> float:
    """By this process and those that it started and that have ended."""
    own, children = (resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def show(row: Row) -> None:
    """A line of the table."""
    print(
        f"| {row.family} | {row.models} | {row.lds:.3f} ({row.low:.3f} to {row.high:.3f}) | {row.seconds:.1f} | "
        f"{row.seconds + row.training:.1f} |",
        flush=True,
    )


def locks(rows: list[Row]) -> Iterator[str]:
    """What the table says of TRAK with 10 checkpoints, and of the methods that retrain."""
    ours = next(row for row in rows if (row.family, row.models) == ("TRAK", 10))
    for row in rows:
        if row.family.startswith("traker"):
            if row.low > 0:
                yield f"TRAK (10) has {ours.lds / row.lds:.2f} times the LDS of {row.family}"
            else:
                yield f"TRAK (10) has an LDS of {ours.lds:.2f}, that of {row.family} is not above chance"
    retrained = [row for row in rows if row.family in RETRAINED]
    others = [row for row in rows if not row.family.lower().startswith("trak") and row not in retrained]
    best = max((row for row in others if row.seconds <= ours.seconds), key=lambda row: row.lds)
    yield f"TRAK (10) has {ours.lds / best.lds:.2f} times the LDS of the best that costs no more, {best.family}"
    for row in retrained[-2:]:
        least = next(t for t in rows if t.family == "TRAK" and t.lds >= row.lds)
        without, trained = ((row.seconds + row.training) / (least.seconds + t) for t in (0, least.training))
        yield (
            f"TRAK ({least.models}) has {least.lds / row.lds:.2f} times the LDS of {row.models} models' {row.family}, "
            f"which costs {without:.0f} times as much, with the training of checkpoints {trained:.0f} times"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=["digits", "fashion", "snippets"])
    for name in parser.parse_args().tasks:
        frontier = Frontier(name)
        ceiling = lds(frontier.scores(1).scores * 0, frontier.judge, resamples=20).noise_ceiling
        print(f"\n{name}: {frontier.judge}, noise ceiling {ceiling:.3f}")
        frontier.run()
        print("", *locks(frontier.rows), sep="\n")
        table = {"ceiling": ceiling, "rows": [asdict(row) for row in frontier.rows]}
        (OUTPUT / f"{name}.json").write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
