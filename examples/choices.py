"""What each setting does to faithfulness: LDS by damping, weighting and more, on the halves that choices are made by.

`python examples/choices.py digits snippets`, after (or before) examples/frontier.py, with which it shares what was
retrained. One pass computes the features; every line of the table is linear algebra on them.
"""

import argparse
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from frontier import OUTPUT, Frontier

from trak.evaluation import lds
from trak.traker import DEFAULT_SOFTENING

DAMPINGS = (0.03, 0.3, 1.0, 3.0, 10.0, 30.0, 1000.0)
Array = np.ndarray[Any, Any]


class Features:
    """Of one checkpoint, with K = ΦᵀWΦ in its eigenvectors' basis for both W."""

    def __init__(self, store: Any, experiment: Any, model_id: int) -> None:
        table, targets = store.table(model_id), experiment.targets(model_id)
        self.train, self.targets = (t.features.read().astype(np.float64) for t in (table, targets))
        self.output = table.column("output")
        self._bases: dict[Any, Any] = {}

    def q(self, softening: float) -> Array:
        """Q of the margin's loss T² softplus(-f/T)."""
        return softening / (1 + np.exp(self.output / softening))

    def weight(self, weighting: str, softening: float) -> Array:
        """W."""
        p = self.q(softening) / softening
        return p * (1 - p) if weighting == "curvature" else np.ones_like(p)

    def basis(self, weighting: str, softening: float, unit: bool = False) -> tuple[Array, ...]:
        """Eigenvalues of K that aren't 0; Φ and Φ_t in its eigenvectors; what of them is in none."""
        key = weighting, softening if weighting == "curvature" else 1, unit
        if key not in self._bases:
            train, targets = self.train, self.targets
            if unit:
                train = train / np.linalg.norm(train, axis=1, keepdims=True)
                targets = targets / np.linalg.norm(targets, axis=1, keepdims=True)
            w = np.sqrt(self.weight(weighting, softening))[:, None]
            _, singular, basis = np.linalg.svd(train * w, full_matrices=False)
            inside, inside_targets = train @ basis.T, targets @ basis.T
            rest, rest_targets = train - inside @ basis, targets - inside_targets @ basis
            self._bases[key] = singular**2, inside, inside_targets, rest, rest_targets
        return self._bases[key]

    def kernel(
        self,
        damping: float,
        weighting: str = "curvature",
        softening: float = DEFAULT_SOFTENING,
        unit: bool = False,
        leverage: bool = False,
    ) -> Array:
        """φ_i (K + λ)⁻¹ φ_t, (n, m), with λ relative to trace(K)/k."""
        values, train, targets, rest, outside = self.basis(weighting, softening, unit)
        lam = damping * values.sum() / self.train.shape[1]
        found = (train / (values + lam)) @ targets.T + rest @ outside.T / lam
        if leverage:
            h = ((train**2) / (values + lam)).sum(1) + (rest**2).sum(1) / lam
            found /= np.maximum(1 - h * self.weight(weighting, softening), 1e-3)[:, None]
        return found


def variants(features: list[Features], damping: float) -> Iterator[tuple[str, Array]]:
    """Scores by what is changed of the default."""
    soft = DEFAULT_SOFTENING
    q = np.mean([f.q(soft) for f in features], axis=0)

    def mean(value: float = damping, **options: Any) -> Array:
        return np.mean([f.kernel(value, **options) for f in features], axis=0)

    yield "default", mean() * q[:, None]
    for weighting in ("curvature", "identity"):
        for value in DAMPINGS:
            yield f"damping {value:g}, W = {weighting}", mean(value, weighting=weighting) * q[:, None]
    for value in (1.0, 2.0, 4.0, 8.0):
        softened = np.mean([f.q(value) for f in features], axis=0)
        yield f"softening {value:g}", mean(softening=value) * softened[:, None]
    yield "Q of each checkpoint", np.mean([f.kernel(damping) * f.q(soft)[:, None] for f in features], axis=0)
    yield "without Q", mean()
    yield "leverage correction", mean(leverage=True) * q[:, None]
    yield "unit-norm features", mean(unit=True) * q[:, None]
    yield "unit-norm features without Q", mean(unit=True)
    kernels = [f.kernel(damping) for f in features]
    yield "kernels of unit scale", np.mean([k / np.abs(k).mean() for k in kernels], axis=0) * q[:, None]
    yield "median over checkpoints", np.median(kernels, axis=0) * q[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=["digits", "snippets"])
    parser.add_argument("--checkpoints", type=int, default=10)
    arguments = parser.parse_args()
    for name in arguments.tasks:
        frontier = Frontier(name, choosing=True)
        attribution = frontier.scores(arguments.checkpoints)
        experiment = attribution.experiment
        features = [Features(experiment.store, experiment, i) for i in range(arguments.checkpoints)]
        print(f"\n{name}: {frontier.judge}\n| setting | LDS (95 % interval) |\n| --- | --- |")
        rows = []
        for what, scores in variants(features, attribution.damping.value):
            found = lds(scores, frontier.judge)
            rows.append({"setting": what, "lds": found.mean, "low": found.interval.low, "high": found.interval.high})
            print(f"| {what} | {found.mean:.3f} ({found.interval.low:.3f} to {found.interval.high:.3f}) |", flush=True)
        (OUTPUT / f"{name}-choices.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
