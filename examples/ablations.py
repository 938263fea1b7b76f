"""What each setting does to faithfulness: LDS by damping, weighting and more, on the data that choices are made by.

`python examples/ablations.py digits fashion snippets`, after (or before) examples/frontier.py, with which it shares the
retrained models. Most lines of the table are linear algebra on the features of one pass; the last ones, on which
checkpoints to take and how many dimensions, are passes of their own.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from frontier import OUTPUT, Frontier
from real_tasks import weights

from trak._utils.typing import Array
from trak.attribution.traker import DEFAULT_LOSS_TEMPERATURE
from trak.evaluation import agreement, lds

DAMPINGS = (0.1, 0.3, 1.0, 3.0, 10.0, 100.0)


class Features:
    """Of one checkpoint, with K = ΦᵀWΦ in its eigenvectors' basis for both W."""

    def __init__(self, store: Any, experiment: Any, model_id: int) -> None:
        table, targets = store.table(model_id), experiment.targets(model_id)
        self.train, self.targets = (t.features.read().astype(np.float64) for t in (table, targets))
        self.output = table.column("output")
        self._bases: dict[Any, Any] = {}

    def q(self, loss_temperature: float) -> Array:
        """Q of the margin's loss T² softplus(-f/T)."""
        return loss_temperature / (1 + np.exp(self.output / loss_temperature))

    def weight(self, weighting: str, loss_temperature: float) -> Array:
        """W."""
        p = self.q(loss_temperature) / loss_temperature
        return p * (1 - p) if weighting == "ggn" else np.ones_like(p)

    def basis(self, weighting: str, loss_temperature: float, unit: bool = False) -> tuple[Array, ...]:
        """Eigenvalues of K that aren't 0; Φ and Φ_t in its eigenvectors."""
        key = weighting, loss_temperature if weighting == "ggn" else 1, unit
        if key not in self._bases:
            train = self.train / (np.linalg.norm(self.train, axis=1, keepdims=True) if unit else 1)
            weighted = train * np.sqrt(self.weight(weighting, loss_temperature))[:, None]
            values, vectors = np.linalg.eigh(weighted @ weighted.T)
            kept = values > 1e-9 * values[-1]
            basis = (weighted.T @ vectors[:, kept] / np.sqrt(values[kept])).T
            inside, inside_targets = train @ basis.T, self.targets @ basis.T
            self._bases[key] = values[kept], inside, inside_targets
        return self._bases[key]

    def kernel(
        self,
        damping: float,
        weighting: str = "ggn",
        loss_temperature: float = DEFAULT_LOSS_TEMPERATURE,
        unit: bool = False,
        leverage: bool = False,
        normalize_checkpoints: bool = True,
    ) -> Array:
        """φ_i (K + λ)⁻¹ φ_t, (n, m), with λ relative to trace(K)/k. Rows of Φ are in the span of K's eigenvectors,
        since every weight is positive."""
        values, train, targets = self.basis(weighting, loss_temperature, unit)
        lam = damping * values.sum() / self.train.shape[1]
        found = (train / (values + lam)) @ targets.T
        if leverage:
            h = ((train**2) / (values + lam)).sum(1)
            found /= np.maximum(1 - h * self.weight(weighting, loss_temperature), 1e-3)[:, None]
        # Up to a factor for each target, which no rank correlation sees.
        return found * np.sqrt(values.sum()) / np.linalg.norm(self.targets, axis=1) if normalize_checkpoints else found


def variants(features: list[Features], damping: float) -> Iterator[tuple[str, Array]]:
    """Scores by what is changed of the default."""
    soft = DEFAULT_LOSS_TEMPERATURE
    q = np.mean([f.q(soft) for f in features], axis=0)

    def mean(value: float = damping, **options: Any) -> Array:
        return np.mean([f.kernel(value, **options) for f in features], axis=0)

    yield f'default, damping="auto" ({damping:.2g})', mean() * q[:, None]
    for weighting in ("ggn", "identity"):
        for value in DAMPINGS:
            yield f"damping {value:g}, W = {weighting}", mean(value, weighting=weighting) * q[:, None]
    for value in (1.0, 2.0, 4.0, 8.0):
        tempered = np.mean([f.q(value) for f in features], axis=0)
        yield f"loss_temperature {value:g}", mean(loss_temperature=value) * tempered[:, None]
    yield "checkpoints not normalized", mean(normalize_checkpoints=False) * q[:, None]
    yield "Q of each checkpoint", np.mean([f.kernel(damping) * f.q(soft)[:, None] for f in features], axis=0)
    yield "without Q", mean()
    yield "leverage correction", mean(leverage=True) * q[:, None]
    yield "unit-norm training features", mean(unit=True) * q[:, None]
    yield "unit-norm training features without Q", mean(unit=True)
    yield "median over checkpoints", np.median([f.kernel(damping) for f in features], axis=0) * q[:, None]


def passes(frontier: Frontier) -> Iterator[tuple[str, Array]]:
    """Other checkpoints, and other numbers of dimensions for the same memory as 10 checkpoints of 2,048."""

    def last(runs: int, epochs: int) -> list[Any]:
        return [weights(path, -epoch) for path in frontier.paths[:runs] for epoch in range(epochs, 0, -1)]

    for name, checkpoints, k in (
        ("20 checkpoints, k = 512 (half the memory)", 20, 512),
        ("20 checkpoints, k = 1,024", 20, 1024),
        ("5 checkpoints, k = 4,096", 5, 4096),
        ("1 run, its last 5 epochs", last(1, 5), 2048),
        ("2 runs, their last 5 epochs", last(2, 5), 2048),
        ("5 runs, their last 2 epochs", last(5, 2), 2048),
        ("5 runs", 5, 2048),
        ("10 runs, their last 2 epochs", last(10, 2), 2048),
    ):
        yield name, frontier.scores(checkpoints, proj_dim=k).scores
    exact = frontier.scores(10).scores.copy()
    for dtype in ("float16", "int8"):
        scores = frontier.scores(10, dtype=dtype).scores
        print(f"{dtype} against float32: {agreement(exact, scores)}", flush=True)
        yield f"features stored as {dtype}", scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=["digits", "fashion", "snippets"])
    parser.add_argument("--checkpoints", type=int, default=10)
    arguments = parser.parse_args()
    for name in arguments.tasks:
        frontier = Frontier(name, choosing=True)
        attribution = frontier.scores(arguments.checkpoints)
        experiment = attribution.experiment
        features = [Features(experiment.store, experiment, i) for i in range(arguments.checkpoints)]
        print(f"\n{name}: {frontier.judge}\n| setting | LDS (95 % interval) |\n| --- | --- |")
        rows = []
        for what, scores in chain(variants(features, attribution.damping.value), passes(frontier)):
            found = lds(scores, frontier.judge)
            rows.append({"setting": what, "lds": found.mean, "low": found.interval.low, "high": found.interval.high})
            print(f"| {what} | {found.mean:.3f} ({found.interval.low:.3f} to {found.interval.high:.3f}) |", flush=True)
        (OUTPUT / f"{name}-choices.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
